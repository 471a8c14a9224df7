"""Keyed permutations, many at once: whom an episode draws, and which of a user's ratings come first and last.

Apart from the sampler because this is where the time goes. In random order a permutation is a Fisher-Yates shuffle that
fills its places from both ends in turn (back, front, back, ...), so that what is at one end depends neither on how much
is taken there nor on the other end, and the cost does not depend on how many ratings a user has. In time order it is a
sort by time, ties broken by the key.
"""

from __future__ import annotations

import numpy as np

from fewrec.episodes.split import UserRows
from fewrec.errors import SuiteError
from fewrec.seeding import mix

_AT_ONCE = 2048  # permutations: keeps the decks and keys of one round inside the processor's cache


def draw_users(keys: np.ndarray, n_eligible: int, n_users: int) -> np.ndarray:
    """Return (E, N): for each key, N of ``n_eligible`` without replacement, the front of a Fisher-Yates shuffle."""
    at_once = max(1, 2_000_000 // max(n_eligible, 1))
    out = np.empty((len(keys), n_users), np.int64)
    deck = np.tile(np.arange(n_eligible), (min(at_once, len(keys)), 1))
    for start in range(0, len(keys), at_once):
        part = keys[start : start + at_once]
        rows = np.arange(len(part))
        swaps = np.empty((len(part), n_users), np.int64)
        for k in range(n_users):
            swaps[:, k] = k + _below(mix(part, np.uint64(k)), np.uint64(n_eligible - k))
            deck[rows, k], deck[rows, swaps[:, k]] = deck[rows, swaps[:, k]], deck[rows, k].copy()
        out[start : start + len(part)] = deck[: len(part), :n_users]
        for k in reversed(range(n_users)):  # undo the swaps: cheaper than dealing a new deck
            deck[rows, k], deck[rows, swaps[:, k]] = deck[rows, swaps[:, k]], deck[rows, k].copy()
    return out


def front(counts: np.ndarray, stream: np.ndarray, size: int) -> np.ndarray:
    """Return (S, size): the first places of each permutation of ``counts`` (S,) things, keyed by ``stream`` (S,)."""
    place, n = np.arange(size), counts[:, None]
    draw = np.where(2 * place + 1 < n, 2 * place + 1, 2 * (n - 1 - place))
    return np.take_along_axis(_draws(counts, stream, 2 * size), draw, axis=1)


def back(counts: np.ndarray, stream: np.ndarray, size: int) -> np.ndarray:
    """Return (S, size): the last places of the same permutations, the very last one first."""
    place, n = np.arange(size), counts[:, None]
    draw = np.where(2 * place < n, 2 * place, 2 * (n - 1 - place) + 1)
    return np.take_along_axis(_draws(counts, stream, 2 * size), draw, axis=1)


def _draws(counts: np.ndarray, stream: np.ndarray, steps: int) -> np.ndarray:
    """Return (S, steps): what a Fisher-Yates shuffle of each segment draws, step by step."""
    longest = int(counts.max(initial=1))
    steps = min(steps, longest)
    dtype = np.int16 if longest < 2**15 else np.int64
    at_once = min(_AT_ONCE, max(len(counts), 1))
    deck = np.tile(np.arange(longest, dtype=dtype), at_once)
    drawn = np.empty((steps, len(counts)), np.int64)
    step = np.arange(steps)[:, None]
    for start in range(0, len(counts), at_once):
        part = slice(start, start + at_once)
        base = np.arange(len(counts[part])) * longest
        left = np.maximum(counts[part] - step, 1)
        at = _below(mix(stream[part], step.astype(np.uint64)), left.astype(np.uint64)) + base
        last = left - 1 + base
        for t in range(steps):
            drawn[t, part] = deck[at[t]]
            deck[at[t]] = deck[last[t]]
        deck[at] = at - base  # deal anew, but only where something was drawn
    return drawn.T


def _below(bits: np.ndarray, limit: np.ndarray | np.uint64) -> np.ndarray:
    """Return integers below ``limit`` (< 2^32) from 64 random bits; the bias is below limit / 2^32."""
    return ((bits >> np.uint64(32)) * limit >> np.uint64(32)).astype(np.int64)


def by_time(rows: UserRows, users: np.ndarray, stream: np.ndarray) -> np.ndarray:
    """Return all rows of the users (S,) in order of time, one user after the other.

    (Segment, time rank, random bits, position) are packed into one 64-bit number: NumPy sorts those several times
    faster than it argsorts.
    """
    counts = rows.counts[users]
    longest = int(counts.max(initial=1))
    position_bits = max(1, (longest - 1).bit_length())
    segment_bits = (_AT_ONCE - 1).bit_length()
    tie_bits = 64 - 2 * position_bits - segment_bits
    if tie_bits < 8:
        raise SuiteError(f"a user with {longest} ratings is beyond what time order can sort; split such users")
    parts = []
    for start in range(0, len(users), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        size, first = counts[part], rows.offsets[users[part]]
        segment = np.repeat(np.arange(len(size), dtype=np.uint64), size)
        row = spans(first, size)
        position = row - np.repeat(first, size)
        key = mix(np.repeat(stream[part], size), position.astype(np.uint64)) >> np.uint64(64 - tie_bits)
        key |= rows.time_rank[row].astype(np.uint64) << np.uint64(tie_bits)
        key |= segment << np.uint64(tie_bits + position_bits)
        key = (key << np.uint64(position_bits)) | position.astype(np.uint64)
        key.sort()
        parts.append((key & np.uint64((1 << position_bits) - 1)).astype(np.int64) + np.repeat(first, size))
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def spans(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return ``starts[s], starts[s] + 1, ...``, ``sizes[s]`` numbers of each, one after the other."""
    within = np.arange(sizes.sum()) - np.repeat(sizes.cumsum() - sizes, sizes)
    return np.repeat(starts, sizes) + within
