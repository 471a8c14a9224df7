"""The sampler: draws N-user K-shot episodes from a pool, each from its own key, many at once (design, contract 4).

Episode *i* has a key that contains neither K nor Q nor N. Within it each user has one permutation of the eligible
ratings: the support is taken from its front, the query from its back. So the support of K=1 is part of that of K=5,
and every K has the same query. In time order the permutation is by time, ties broken by the key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from fewrec.episodes.split import ItemShots, Pool, UserRows
from fewrec.episodes.support import Answers, Episodes, ItemRatings, QueryBatch, SupportBatch
from fewrec.errors import SuiteError
from fewrec.seeding import mix, stable_hash, substream_keys

Shots = int | Literal["rest"]

_SEGMENTS_AT_ONCE = 2048  # keeps the arrays of one sort inside the processor's cache
_USERS, _RATINGS, _SHOTS, _LEARNER = (
    np.uint64(stable_hash(f"episode/{part}")) for part in ("users", "ratings", "shots", "learner")
)


@dataclass(frozen=True)
class Eligibility:
    """Who can be drawn: indices into the pool's users, and how many users the request leaves out."""

    users: np.ndarray
    excluded: int


class EpisodeSampler:
    """Draws episodes from one pool.

    ``seed`` and ``name`` (the meta set) make the episodes' keys; ``k_max`` and Q decide who is eligible.
    """

    def __init__(
        self, pool: Pool, seed: int, name: str, *, k_max: int, order: str = "random", item_shots: int = 0
    ) -> None:
        self.pool, self.seed, self.name, self.k_max = pool, seed, name, k_max
        self.by_time = order == "time"
        self.item_shots = item_shots

    @property
    def two_pools(self) -> bool:
        return self.pool.query is not self.pool.support

    def eligible(self, n_query: int) -> Eligibility:
        """Return the users with ``k_max`` + Q ratings of the right kinds; in time order, support not after query."""
        pool = self.pool
        if not self.two_pools:
            fits = pool.support.counts >= self.k_max + n_query
        else:
            fits = (pool.support.counts >= self.k_max) & (pool.query.counts >= n_query)
            if self.by_time:
                fits &= self._support_in_time(n_query) >= self.k_max
        users = np.flatnonzero(fits)
        return Eligibility(users, len(fits) - len(users))

    def _support_in_time(self, n_query: int) -> np.ndarray:
        """Count each user's support ratings that are not later than the earliest of the Q latest query ratings."""
        support, query = self.pool.support, self.pool.query
        assert support.timestamp is not None and query.timestamp is not None
        n = len(self.pool.users)
        of_query = np.repeat(np.arange(n), query.counts)
        latest = query.timestamp[np.lexsort((query.timestamp, of_query))]
        limit = np.full(n, np.iinfo(np.int64).min)
        enough = query.counts >= max(n_query, 1)
        if n_query:
            limit[enough] = latest[query.offsets[1:][enough] - n_query]
        of_support = np.repeat(np.arange(n), support.counts)
        return np.bincount(of_support[support.timestamp <= limit[of_support]], minlength=n)

    def sample(self, first: int, count: int, *, n_users: int, k_shot: Shots, n_query: int) -> Episodes:
        """Return episodes ``first .. first + count - 1`` of N users with K support and Q query ratings each.

        Raises ``SuiteError`` naming what would be possible where the pool can't give them.
        """
        self._check(n_users, k_shot, n_query)
        who = self.eligible(n_query)
        if n_users > len(who.users):
            raise SuiteError(self._impossible(n_users, n_query, len(who.users)))
        keys = substream_keys(self.seed, f"episodes/{self.name}", np.arange(first, first + count))
        chosen = who.users[_draw_users(keys ^ _USERS, len(who.users), n_users)]  # (E, N) indices into the pool
        flat = chosen.reshape(-1)
        stream = mix(np.repeat(keys ^ _RATINGS, n_users), self.pool.users[flat])  # one permutation an (episode, user)

        pool = self.pool
        if self.two_pools:
            size = pool.support.counts[flat] if k_shot == "rest" else np.full(len(flat), k_shot)
            if k_shot == "rest" and self.by_time:
                size = self._support_in_time(n_query)[flat]
            support_rows = _permuted(pool.support, flat, stream, self.by_time, head=size)
            query_rows = _permuted(pool.query, flat, stream, self.by_time, tail=n_query)
        else:
            size = pool.support.counts[flat] - n_query if k_shot == "rest" else np.full(len(flat), k_shot)
            support_rows, query_rows = _permuted(pool.support, flat, stream, self.by_time, head=size, tail=n_query)
        return self._episodes(keys, chosen, size, support_rows, query_rows, n_query)

    def _episodes(self, keys, chosen, size, support_rows, query_rows, n_query) -> Episodes:
        pool, (n_episodes, n_users) = self.pool, chosen.shape
        user = np.tile(np.arange(n_users), n_episodes)
        episode = np.repeat(np.arange(n_episodes), n_users)
        per_episode = size.reshape(n_episodes, n_users).sum(1)
        as_tensor = torch.from_numpy
        query_item = pool.query.item[query_rows]
        shots = None
        if self.item_shots and pool.item_shots is not None:
            shots = tuple(
                _draw_item_shots(pool.item_shots, key, np.unique(items), self.item_shots)
                for key, items in zip(keys, query_item.reshape(n_episodes, -1), strict=True)
            )
        support = SupportBatch(
            episode=as_tensor(np.repeat(episode, size)),
            user=as_tensor(np.repeat(user, size)),
            item=as_tensor(pool.support.item[support_rows]),
            rating=as_tensor(pool.support.rating[support_rows]),
            timestamp=None if pool.support.timestamp is None else as_tensor(pool.support.timestamp[support_rows]),
            offsets=as_tensor(np.concatenate([[0], per_episode.cumsum()])),
            n_users=torch.full((n_episodes,), n_users),
            meta_user=as_tensor(pool.meta_user[chosen.reshape(-1)]),
            seeds=as_tensor((mix(keys, _LEARNER) >> np.uint64(1)).astype(np.int64)),
            item_ratings=shots,
            user_features=None if pool.user_features is None else as_tensor(pool.user_features[chosen.reshape(-1)]),
        )
        query = QueryBatch(
            episode=as_tensor(np.repeat(episode, n_query)),
            user=as_tensor(np.repeat(user, n_query)),
            item=as_tensor(query_item),
        )
        answers = Answers(as_tensor(pool.query.rating[query_rows]), as_tensor(pool.users[chosen.reshape(-1)]))
        return Episodes(support, query, answers)

    def _check(self, n_users: int, k_shot: Shots, n_query: int) -> None:
        if n_users < 1:
            raise SuiteError(f"N = {n_users}: an episode needs at least one user")
        if n_query < 1:
            raise SuiteError(f"Q = {n_query}: an episode needs at least one query rating a user")
        if k_shot != "rest" and k_shot < 0:
            raise SuiteError(f"K = {k_shot}: the number of support ratings can't be negative")
        if k_shot != "rest" and k_shot > self.k_max:
            raise SuiteError(f"K = {k_shot} is above k_max = {self.k_max}, which decides who is eligible; raise k_max")

    def _impossible(self, n_users: int, n_query: int, found: int) -> str:
        counts = self.pool.support.counts if not self.two_pools else self.pool.query.counts
        need = (
            f"k_max + Q = {self.k_max} + {n_query}"
            if not self.two_pools
            else f"k_max = {self.k_max} support and Q = {n_query} query"
        )
        text = (
            f"N = {n_users} users an episode, but only {found} of {len(counts)} {self.name} users have {need} ratings"
        )
        if n_users <= len(counts):
            enough = int(np.sort(counts)[-n_users]) - (0 if self.two_pools else self.k_max)
            possible = f"Q at most {enough}" if enough > 0 else "a smaller k_max"
            return f"{text}; possible: N at most {found}" + (
                f", or for N = {n_users} {possible}" if found < n_users else ""
            )
        return f"{text}; possible: N at most {found}"


def _draw_users(keys: np.ndarray, n_eligible: int, n_users: int) -> np.ndarray:
    """Return (E, N): for each key, N of ``n_eligible`` without replacement, the front of a Fisher-Yates shuffle."""
    at_once = max(1, 2_000_000 // max(n_eligible, 1))
    out = np.empty((len(keys), n_users), np.int64)
    deck = np.tile(np.arange(n_eligible), (min(at_once, len(keys)), 1))
    for start in range(0, len(keys), at_once):
        part = keys[start : start + at_once]
        rows = np.arange(len(part))
        swaps = np.empty((len(part), n_users), np.int64)
        for k in range(n_users):
            draw = (mix(part, np.uint64(k)) >> np.uint64(11)).astype(np.float64) / 2**53
            swaps[:, k] = k + (draw * (n_eligible - k)).astype(np.int64)
            deck[rows, k], deck[rows, swaps[:, k]] = deck[rows, swaps[:, k]], deck[rows, k].copy()
        out[start : start + len(part)] = deck[: len(part), :n_users]
        for k in reversed(range(n_users)):  # undo the swaps: cheaper than dealing a new deck
            deck[rows, k], deck[rows, swaps[:, k]] = deck[rows, swaps[:, k]], deck[rows, k].copy()
    return out


def _permuted(
    rows: UserRows, users: np.ndarray, stream: np.ndarray, by_time: bool, head: np.ndarray | None = None, tail: int = 0
):
    """Return the row numbers at the front and at the back of each (episode, user)'s permutation of its ratings.

    ``users`` (S,) index the groups of ``rows``, ``stream`` (S,) are the permutations' keys, ``head`` (S,) and ``tail``
    how many rows to take from either end. Rows are sorted by (segment, [time rank,] priority, position) packed into one
    64-bit number, which NumPy sorts several times faster than it argsorts.
    """
    counts = rows.counts
    longest = int(counts[users].max(initial=1))
    position_bits = max(1, (longest - 1).bit_length())
    segment_bits = (_SEGMENTS_AT_ONCE - 1).bit_length()
    time_bits = position_bits if by_time else 0
    priority_bits = 64 - position_bits - segment_bits - time_bits
    if priority_bits < 8:
        raise SuiteError(f"a user with {longest} ratings is beyond what the sampler can order; split such users")
    heads, tails = [], []
    for start in range(0, len(users), _SEGMENTS_AT_ONCE):
        part = slice(start, start + _SEGMENTS_AT_ONCE)
        size = counts[users[part]]
        ends = size.cumsum()
        segment = np.repeat(np.arange(len(size)), size)
        position = np.arange(ends[-1]) - np.repeat(ends - size, size)
        key = mix(np.repeat(stream[part], size), position) >> np.uint64(64 - priority_bits)
        if by_time:
            row = np.repeat(rows.offsets[users[part]], size) + position
            key |= rows.time_rank[row].astype(np.uint64) << np.uint64(priority_bits)
        key = (segment.astype(np.uint64) << np.uint64(priority_bits + time_bits) | key) << np.uint64(position_bits)
        key |= position.astype(np.uint64)
        key.sort()
        order = (key & np.uint64((1 << position_bits) - 1)).astype(np.int64)
        first_row = rows.offsets[users[part]]
        if head is not None:
            heads.append(_take(order, ends - size, head[part]) + np.repeat(first_row, head[part]))
        if tail:
            last = np.full(len(size), tail)
            tails.append(_take(order, ends - tail, last) + np.repeat(first_row, last))
    joined = [np.concatenate(parts) if parts else np.empty(0, np.int64) for parts in (heads, tails)]
    if head is None:
        return joined[1]
    return joined[0] if not tail else tuple(joined)


def _take(order: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return ``order`` at ``starts[s] .. starts[s] + sizes[s] - 1`` for each s, one after the other."""
    within = np.arange(sizes.sum()) - np.repeat(sizes.cumsum() - sizes, sizes)
    return order[np.repeat(starts, sizes) + within]


def _draw_item_shots(shots: ItemShots, key: np.uint64, items: np.ndarray, count: int) -> ItemRatings:
    """Draw up to ``count`` ratings of each item, from the episode's key."""
    size = np.diff(shots.offsets)[items]
    segment = np.repeat(np.arange(len(items)), size)
    row = np.repeat(shots.offsets[items], size) + np.arange(size.sum()) - np.repeat(size.cumsum() - size, size)
    priority = mix(mix(key ^ _SHOTS, items[segment]), row)
    row = row[np.lexsort((priority, segment))]
    rank = np.arange(size.sum()) - np.repeat(size.cumsum() - size, size)
    taken = row[rank < count]
    return ItemRatings(
        item=torch.from_numpy(items[segment][rank < count]),
        meta_user=torch.from_numpy(shots.meta_user[taken]),
        rating=torch.from_numpy(shots.rating[taken]),
    )
