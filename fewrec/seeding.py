"""Named random substreams and stable hashes: the one place where a seed turns into randomness (design, contract 4)."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np


def canonical_json(value: Any) -> str:
    """Return ``value`` as JSON with sorted keys and no spaces: the form that is hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def stable_hash(name: str) -> int:
    """Return 63 bits of the SHA-256 of ``name``: the same number in every process and version of Python."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def digest(value: Any, length: int = 16) -> str:
    """Return the first ``length`` hex digits of the SHA-256 of ``value``'s canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


def substream(seed: int, name: str, index: int = 0) -> np.random.Generator:
    """Return the generator of the substream ``name`` of ``seed``.

    Streams of different names or indices are independent, so that adding a consumer never shifts another's numbers.
    """
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, stable_hash(name), index])))


def substream_keys(seed: int, name: str, indices: np.ndarray) -> np.ndarray:
    """Return one 64-bit key for each index below 2^32, shape (len(indices),), uint64.

    Equal to ``SeedSequence([seed, stable_hash(name), i]).generate_state(1, uint64)`` for each i, computed for all at
    once: the seeding hash of O'Neill (2015) as NumPy has it, whose output NumPy keeps stable (NEP 19).
    """
    index = np.asarray(indices, np.uint64)
    if len(index) and int(index.max()) >> 32:
        raise ValueError("indices must be below 2^32")
    words = [np.uint32(word) for word in (*_words(seed), *_words(stable_hash(name)))] + [index.astype(np.uint32)]
    constant = 0x43B0D7E5

    def scramble(value: Any, multiplier: int = 0x931E8875) -> Any:
        nonlocal constant
        value = value ^ np.uint32(constant)
        constant = constant * multiplier & 0xFFFFFFFF
        value = value * np.uint32(constant)
        return value ^ (value >> np.uint32(16))

    def join(x: Any, y: Any) -> Any:
        z = np.uint32(0xCA01F9DD) * x - np.uint32(0x4973F715) * y
        return z ^ (z >> np.uint32(16))

    with np.errstate(over="ignore"):
        pool = [scramble(word) for word in (words + [np.uint32(0)] * 4)[:4]]
        for source in range(4):
            for target in range(4):
                if source != target:
                    pool[target] = join(pool[target], scramble(pool[source]))
        for word in words[4:]:
            pool = [join(slot, scramble(word)) for slot in pool]
        constant = 0x8B51F9DD
        low, high = (np.broadcast_to(scramble(word, 0x58F38DED), index.shape).astype(np.uint64) for word in pool[:2])
    return (high << np.uint64(32)) | low


def _words(value: int) -> list[int]:
    """Return an integer's 32-bit words, the lowest first."""
    out = [value & 0xFFFFFFFF]
    while value := value >> 32:
        out.append(value & 0xFFFFFFFF)
    return out


def mix(key: np.ndarray | np.uint64, counter: np.ndarray | np.uint64) -> np.ndarray:
    """Return 64 random bits for each (key, counter) pair, broadcast together; uint64.

    Counter-based (the finaliser of SplitMix64, Steele et al., OOPSLA 2014, applied to key and counter in turn),
    so that millions of draws, each addressed by its own key, are one vectorised expression.
    """
    with np.errstate(over="ignore"):
        return _finalise(_finalise(np.asarray(key, np.uint64)) ^ (np.asarray(counter, np.uint64) * _GOLDEN + _GOLDEN))


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _finalise(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
