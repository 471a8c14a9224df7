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
    """Return one 64-bit key for each index, (len(indices),) uint64; a key depends on seed, name and its index alone."""
    base = stable_hash(name)
    return np.array(
        [np.random.SeedSequence([seed, base, int(i)]).generate_state(1, np.uint64)[0] for i in indices], dtype=np.uint64
    )


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
