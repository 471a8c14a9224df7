"""The sampler: draws N-user K-shot episodes from a pool, each from its own key, many at once (design, contract 4).

Episode *i* has a key that contains neither K nor Q nor N. Within it each user has one permutation of the eligible
ratings: the support is taken from its front, the query from its back. So the support of K=1 is part of that of K=5,
and every K has the same query. In time order the permutation is by time, ties broken by the key. Windows in time
(option ``history``) are not drawn: episode *i* is the *i*-th.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch

from fewrec.episodes import conditions
from fewrec.episodes.permutation import back, by_time, draw_users, front, spans
from fewrec.episodes.protocol import Protocol
from fewrec.episodes.split import ItemShots, Pool, Split
from fewrec.episodes.support import Answers, Episodes, ItemRatings, QueryBatch, SupportBatch
from fewrec.episodes.windows import asked
from fewrec.errors import SuiteError
from fewrec.seeding import mix, stable_hash, substream_keys

Shots = int | Literal["rest"]

_USERS, _RATINGS, _SHOTS, _LEARNER, _WINDOW = (
    np.uint64(stable_hash(f"episode/{part}")) for part in ("users", "ratings", "shots", "learner", "window")
)


@dataclass(frozen=True)
class Eligibility:
    """Who can be drawn: indices into the pool's users, and how many users the request leaves out."""

    users: np.ndarray
    excluded: int


class EpisodeSampler:
    """Draws episodes from one pool.

    ``seed`` and ``name`` (the meta set) make the episodes' keys; ``k_max`` and Q decide who is eligible. The other
    options are the protocol's of these names (``fewrec.episodes.protocol``). ``sliding``: in time order, support and
    query follow one another anywhere in a user's time, not at its ends; users that meta-train knows are left out.
    """

    def __init__(
        self,
        pool: Pool,
        seed: int,
        name: str,
        *,
        k_max: int,
        order: str = "random",
        item_shots: int = 0,
        user_activity: str = "all",
        query_strata: int = 1,
        support_noise: float = 0.0,
        history: int | None = None,
        sliding: bool = False,
    ) -> None:
        self.pool, self.seed, self.name, self.k_max = pool, seed, name, k_max
        self.by_time = order == "time"
        self.item_shots = item_shots
        self.user_activity, self.query_strata, self.support_noise = user_activity, query_strata, support_noise
        self.history, self.sliding = history, sliding

    @classmethod
    def of(cls, split: Split, protocol: Protocol, name: Literal["validation", "test"] = "test") -> EpisodeSampler:
        """Return the sampler of a split's episodes with a protocol's conditions; those of episodes alone may differ
        from the ones that the split was made with."""
        options = ("k_max", "order", "item_shots", "user_activity", "query_strata", "support_noise", "history")
        given = {option: getattr(protocol, option) for option in options}
        return cls(split.pools[name], split.seed, name, **given)

    @cached_property
    def strata(self) -> np.ndarray:
        """(n_items,): each item's stratum of popularity, see ``fewrec.episodes.conditions.strata``."""
        return conditions.strata(self.pool.query, self.pool.popularity, self.query_strata)

    @property
    def two_pools(self) -> bool:
        return self.pool.query is not self.pool.support

    def eligible(self, n_query: int) -> Eligibility:
        """Return the users with ``k_max`` + Q ratings of the right kinds; in time order, support not after query.

        With ``history`` all users of the pool have windows.
        """
        pool = self.pool
        if self.history is not None:
            return Eligibility(np.arange(len(pool.users)), 0)
        if not self.two_pools:
            fits = pool.support.counts >= self.k_max + n_query
        else:
            fits = (pool.support.counts >= self.k_max) & (pool.query.counts >= n_query)
            if self.by_time:
                fits &= self._support_in_time(n_query) >= self.k_max
        if pool.allowed is not None:
            fits &= pool.allowed
        if self.query_strata > 1:
            by_stratum = conditions.counts_by_stratum(pool.query, self.strata, self.query_strata)
            fits &= (by_stratum >= n_query // self.query_strata).all(1)
        if self.user_activity != "all":
            fits = conditions.active_half(pool, fits, self.user_activity)
        if self.sliding:
            fits &= pool.meta_user < 0  # what a user that is cut in two begins with is meta-train's
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
        if self.history is not None:
            return self._windows(first, count, n_users, k_shot, n_query)
        who = self.eligible(n_query)
        if n_users > len(who.users):
            raise SuiteError(self._impossible(n_users, n_query, len(who.users)))
        keys = substream_keys(self.seed, f"episodes/{self.name}", np.arange(first, first + count))
        chosen = who.users[draw_users(keys ^ _USERS, len(who.users), n_users)]  # (E, N) indices into the pool
        flat = chosen.reshape(-1)
        stream = mix(np.repeat(keys ^ _RATINGS, n_users), self.pool.users[flat])  # one permutation an (episode, user)

        size = self._support_sizes(flat, k_shot, n_query)
        if self.by_time:
            support_rows, query_rows = self._rows_by_time(flat, stream, size, n_query)
        elif self.query_strata > 1:
            support_rows, query_rows = self._rows_by_stratum(flat, stream, size, n_query)
        else:
            support_rows, query_rows = self._rows_at_random(flat, stream, k_shot, n_query)
        rating = self.pool.support.rating[support_rows]
        if self.support_noise:
            of_row = np.repeat(stream, size)
            rating = conditions.with_noise(self.pool.support, support_rows, of_row, self.support_noise)
        return self._episodes(keys, chosen, size, support_rows, rating, query_rows, n_query)

    def _windows(self, first: int, count: int, n_users: int, k_shot: Shots, n_query: int) -> Episodes:
        """Return windows ``first .. first + count - 1`` of the protocol's ``history``, each one episode."""
        targets = self.pool.targets
        assert targets is not None and self.history is not None
        if (n_users, n_query) != (1, 1) or k_shot == "rest" or k_shot > self.history:
            raise SuiteError(
                f"N = {n_users}, K = {k_shot}, Q = {n_query}: a window has N = 1, Q = 1 and K up to history = "
                f"{self.history}"
            )
        if first + count > len(targets):
            raise SuiteError(
                f"{first + count} episodes, but there are {len(targets)} windows of meta-{self.name}, each one "
                f"episode; give episodes = {len(targets)}"
            )
        support_rows, query_rows = asked(targets, first, count, k_shot)
        chosen = np.searchsorted(self.pool.support.offsets, query_rows, side="right")[:, None] - 1
        keys = substream_keys(self.seed, f"episodes/{self.name}", np.arange(first, first + count))
        rating = self.pool.support.rating[support_rows]
        return self._episodes(keys, chosen, np.full(count, k_shot), support_rows, rating, query_rows, 1)

    def _support_sizes(self, users: np.ndarray, k_shot: Shots, n_query: int) -> np.ndarray:
        if k_shot != "rest":
            return np.full(len(users), k_shot)
        if not self.two_pools:
            return self.pool.support.counts[users] - n_query
        return (self._support_in_time(n_query) if self.by_time else self.pool.support.counts)[users]

    def _rows_at_random(
        self, users: np.ndarray, stream: np.ndarray, k_shot: Shots, n_query: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of support and query, each one (episode, user) after the other: front and back."""
        support, query = self.pool.support, self.pool.query
        counts = support.counts[users]
        last = back(query.counts[users], stream, n_query)
        query_rows = (query.offsets[users][:, None] + last).reshape(-1)
        if k_shot != "rest":
            return (support.offsets[users][:, None] + front(counts, stream, k_shot)).reshape(-1), query_rows
        kept = np.ones(counts.sum(), bool)
        if not self.two_pools:
            kept[(counts.cumsum() - counts)[:, None] + last] = False
        return spans(support.offsets[users], counts)[kept], query_rows

    def _rows_by_time(
        self, users: np.ndarray, stream: np.ndarray, size: np.ndarray, n_query: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of support and query: the earliest and the latest, or sliding: some and those behind them."""
        support, query = self.pool.support, self.pool.query
        order = by_time(support, users, stream)
        query_order = by_time(query, users, stream) if self.two_pools else order
        counts, query_counts = support.counts[users], query.counts[users]
        if self.sliding:
            free = (counts - size - n_query + 1).astype(np.uint64)
            start = counts.cumsum() - counts + (mix(stream, _WINDOW) % free).astype(np.int64)
            after = spans(start + size, np.full(len(users), n_query))
            return order[spans(start, size)], order[after]
        earliest = spans(counts.cumsum() - counts, size)
        latest = spans(query_counts.cumsum() - n_query, np.full(len(users), n_query))
        return order[earliest], query_order[latest]

    def _rows_by_stratum(
        self, users: np.ndarray, stream: np.ndarray, size: np.ndarray, n_query: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of support and query: the query evenly from all strata, the support from what is left."""
        support, query = self.pool.support, self.pool.query
        query_rows = conditions.stratified_query(query, users, stream, self.strata, n_query // self.query_strata)
        taken = np.empty(0, np.int64) if self.two_pools else query_rows
        return conditions.rest_of_them(support, users, stream, taken, size), query_rows

    def _episodes(self, keys, chosen, size, support_rows, rating, query_rows, n_query) -> Episodes:
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
            rating=as_tensor(rating),
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
        answers = Answers(
            as_tensor(pool.query.rating[query_rows]),
            as_tensor(pool.users[chosen.reshape(-1)]),
            None if pool.query.timestamp is None else as_tensor(pool.query.timestamp[query_rows]),
        )
        return Episodes(support, query, answers)

    def _check(self, n_users: int, k_shot: Shots, n_query: int) -> None:
        if n_users < 1:
            raise SuiteError(f"N = {n_users}: an episode needs at least one user")
        if n_query < 1:
            raise SuiteError(f"Q = {n_query}: an episode needs at least one query rating a user")
        if n_query % self.query_strata:
            raise SuiteError(
                f"Q = {n_query} can't be divided evenly over query_strata = {self.query_strata}; "
                f"give a multiple of {self.query_strata}"
            )
        if k_shot != "rest" and k_shot < 0:
            raise SuiteError(f"K = {k_shot}: the number of support ratings can't be negative")
        if k_shot != "rest" and k_shot > self.k_max:
            raise SuiteError(f"K = {k_shot} is above k_max = {self.k_max}, which decides who is eligible; raise k_max")

    def _impossible(self, n_users: int, n_query: int, found: int) -> str:
        counts = self.pool.support.counts if not self.two_pools else self.pool.query.counts
        if self.query_strata > 1 or self.user_activity != "all" or self.pool.allowed is not None:
            limits = "" if self.pool.allowed is None else ", within episode_ratings"
            return (
                f"N = {n_users} users an episode, but only {found} of {len(counts)} {self.name} users are eligible "
                f"with k_max = {self.k_max}, Q = {n_query}, query_strata = {self.query_strata} and "
                f'user_activity = "{self.user_activity}"{limits}; possible: N at most {found}'
            )
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
