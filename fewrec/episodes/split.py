"""Splitting a data set into meta-train, meta-validation and meta-test by state.

The split alone decides what is in meta-train; it knows neither K nor Q nor the episodes (design, "States in detail").
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd

from fewrec.data.table import Catalog, Dataset, RatingTable
from fewrec.episodes.meta_sets import item_sets, occurring, of_rated_users, user_sets
from fewrec.episodes.protocol import KNOWN_USER_STATES, UNSEEN_ITEM_STATES, Protocol
from fewrec.episodes.windows import Windows, cut_windows
from fewrec.errors import SuiteError
from fewrec.seeding import substream

MetaSet = Literal["train", "validation", "test"]


@dataclass(frozen=True, eq=False)
class UserRows:
    """Ratings grouped by user: those of the pool's user *u* are rows ``offsets[u]:offsets[u + 1]``."""

    offsets: np.ndarray
    item: np.ndarray
    rating: np.ndarray
    timestamp: np.ndarray | None

    @property
    def counts(self) -> np.ndarray:
        return np.diff(self.offsets)

    @cached_property
    def time_rank(self) -> np.ndarray:
        """(n,): a user's distinct timestamps numbered from 0 (all 0 where there are none), for sorting by time.

        Made when time order asks for it: of 25 million ratings it takes several seconds.
        """
        rank = np.zeros(len(self.item), np.int64)
        if self.timestamp is None or not len(rank):
            return rank
        user = np.repeat(np.arange(len(self.counts)), self.counts)
        by_time = np.lexsort((self.timestamp, user))
        of_user, time = user[by_time], self.timestamp[by_time]
        same_user = np.concatenate([[False], of_user[1:] == of_user[:-1]])
        step = np.concatenate([[False], time[1:] != time[:-1]]) & same_user
        running, first = step.cumsum(), np.flatnonzero(~same_user)
        rank[by_time] = running - np.repeat(running[first], np.diff(np.append(first, len(user))))
        return rank


@dataclass(frozen=True, eq=False)
class Pool:
    """What the episodes of one meta set are drawn from.

    ``users`` are codes of the data set's rating table, ``meta_user`` their indices in meta-train (-1: new).
    ``support`` and ``query`` are one object where support and query come from the same ratings. ``item_shots`` groups
    the ratings of unseen items by users of the meta-train share, for the protocol's option of that name. ``popularity``
    (n_items,): how many users of the meta-train share rated each item, unseen ones too; no learner sees it. ``allowed``
    (users,) bool: whom the protocol's ``episode_ratings`` lets into an episode, None where it sets no limits.
    ``targets`` (w,): of windows in time (option ``history``), the rows that are asked for; rows of a user are by time.
    """

    users: np.ndarray
    meta_user: np.ndarray
    support: UserRows
    query: UserRows
    popularity: np.ndarray
    item_shots: ItemShots | None = None
    user_features: np.ndarray | None = None
    allowed: np.ndarray | None = None
    targets: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class ItemShots:
    """Ratings grouped by item, for items 0..n_items-1: rows ``offsets[i]:offsets[i + 1]``."""

    offsets: np.ndarray
    meta_user: np.ndarray
    rating: np.ndarray


class Pools(Mapping[MetaSet, Pool]):
    """The pools by the name of their meta set, each grouped by user when it is first asked for.

    Of 25 million ratings, most are in that of meta-train, which learners without episodes never ask for.
    """

    def __init__(self, make: Mapping[MetaSet, Callable[[], Pool]]) -> None:
        self._make, self._made = dict(make), dict[MetaSet, Pool]()

    def __getitem__(self, name: MetaSet) -> Pool:
        if name not in self._made:
            self._made[name] = self._make[name]()
        return self._made[name]

    def __iter__(self) -> Iterator[MetaSet]:
        return iter(self._make)

    def __len__(self) -> int:
        return len(self._make)


@dataclass(frozen=True, eq=False)
class Split:
    """A data set cut by a protocol and a seed.

    ``meta_train`` codes its users 0..n-1; ``meta_users`` (n,) are their codes in the data set's rating table.
    """

    protocol: Protocol
    seed: int
    meta_train: RatingTable
    meta_users: np.ndarray
    catalog: Catalog
    pools: Mapping[MetaSet, Pool] = field(repr=False)

    @property
    def sha256(self) -> str:
        """Hash of what each meta set holds: equal splits have equal hashes."""
        h = hashlib.sha256(self.meta_train.sha256.encode())
        for name in ("validation", "test"):
            pool = self.pools[name]  # type: ignore[index]  # the loop variable is one of MetaSet's values
            for rows in (pool.support, pool.query):
                for column in (pool.users, rows.offsets, rows.item, rows.rating):
                    h.update(np.ascontiguousarray(column).tobytes())
            if pool.targets is not None:
                h.update(np.ascontiguousarray(pool.targets).tobytes())
        return h.hexdigest()


def split_dataset(dataset: Dataset, protocol: Protocol, seed: int) -> Split:
    """Cut ``dataset`` by the protocol's state, with the substreams of ``seed``.

    Raises ``SuiteError`` where a share is left without users or items, where time order lacks timestamps, and where the
    protocol has ``likes_above`` and the data set is not of likes yet.
    """
    if protocol.likes_above is not None and dataset.kind != "clicks":
        raise SuiteError(
            f"{dataset.name}: likes_above is for the data set to be made of likes: fewrec.data.likes.likes_of"
        )
    table = of_rated_users(dataset, protocol.user_ratings)
    if protocol.order == "time" and table.timestamp is None:
        raise SuiteError(f'{dataset.name} has no timestamps: order = "time" is impossible; use order = "random"')
    if protocol.history is not None:
        return _split_windows(dataset, table, protocol, seed)
    user_set, item_set = user_sets(dataset, table, protocol, seed), item_sets(dataset, table, protocol, seed)
    all_items = protocol.state not in UNSEEN_ITEM_STATES and protocol.item_years is None
    of_user = user_set[table.user]
    of_item = np.broadcast_to(np.int8(0), len(table)) if all_items else item_set[table.item]

    known_users, unseen_items = protocol.state in KNOWN_USER_STATES, protocol.state in UNSEEN_ITEM_STATES
    candidate = of_item == 0  # rows that may be seen-item ratings
    held_out = np.zeros(len(table), bool)
    # By year, item-cold follows MeLU: support and query are of unseen items, so that nothing seen need be held out.
    # By shares it was held out from the start, and the splits that cells are known by stay what they are.
    if known_users and not (protocol.item_years is not None and protocol.support_items == "unseen"):
        held_out = _held_out_half(table, candidate & (of_user > 0), protocol.order, seed)
    in_meta_train = candidate & ((of_user == 0) | (known_users & ~held_out))
    limits = protocol.episode_ratings
    if limits is not None:
        asked = unseen_items & (of_item == of_user)
        if protocol.support_items == "seen":
            asked |= held_out if known_users else candidate
        drawn_from = np.where(of_user > 0, asked, in_meta_train)
        in_meta_train &= _within(np.bincount(table.user[drawn_from], minlength=table.n_users), limits)[table.user]
    if not in_meta_train.any():
        options = "user_shares, item_shares, item_years and episode_ratings"
        raise SuiteError(f"{dataset.name}: the split leaves no meta-train ratings; check {options}")

    kept = table.select(in_meta_train)
    # Meta-train is all ratings of its share of the users: less to count.
    whole = all_items and not known_users and limits is None
    meta_users = np.flatnonzero(user_set == 0) if whole else occurring(kept.user, table.n_users)
    index_of = np.full(table.n_users, -1, np.int64)
    index_of[meta_users] = np.arange(len(meta_users))
    compact = index_of[kept.user]
    meta_train = RatingTable(compact, kept.item, kept.rating, kept.timestamp, len(meta_users), table.n_items)
    seen_ratings = np.bincount(kept.item, minlength=table.n_items)
    seen = seen_ratings > 0
    features = _encode_features(dataset.user_features)
    popularity = seen_ratings if whole else np.bincount(table.item[of_user == 0], minlength=table.n_items)

    def pool(which: int, support_rows: np.ndarray, query_rows: np.ndarray | None, new_users: bool) -> Pool:
        users = np.flatnonzero(user_set == which)
        support = _group(table, support_rows, users)
        query = support if query_rows is None else _group(table, query_rows, users)
        meta_user = np.full(len(users), -1) if new_users else index_of[users]
        shots = None
        if protocol.item_shots and query_rows is not None or protocol.support_items == "unseen" and protocol.item_shots:
            shots = _item_shots(table, (of_user == 0) & (of_item > 0), index_of)
        own_features = None if features is None else features[users]
        allowed = None
        if limits is not None:
            counts = support.counts + (0 if query is support else query.counts)
            allowed = _within(counts, limits) & (new_users | (meta_user >= 0))
        return Pool(users, meta_user, support, query, popularity, shots, own_features, allowed)

    def episodes_pool(which: int) -> Pool:
        own = of_user == which
        seen_rows = own & seen[table.item] & (held_out if known_users else candidate)
        if not unseen_items:
            return pool(which, seen_rows, None, not known_users)
        unseen_rows = own & (of_item == which)
        if protocol.support_items == "seen":
            return pool(which, seen_rows, unseen_rows, not known_users)
        return pool(which, unseen_rows, None, not known_users)

    pools = Pools({
        "train": lambda: pool(0, in_meta_train & (of_user == 0), None, new_users=True),
        "validation": lambda: episodes_pool(1),
        "test": lambda: episodes_pool(2),
    })  # fmt: skip
    return Split(protocol, seed, meta_train, meta_users, dataset.catalog.with_seen(seen), pools)


def _within(counts: np.ndarray, limits: tuple[int, int]) -> np.ndarray:
    return (counts >= limits[0]) & (counts <= limits[1])


def _split_windows(dataset: Dataset, table: RatingTable, protocol: Protocol, seed: int) -> Split:
    """Return the split of windows in time: meta-train is what its windows hold; nothing is drawn from ``seed``."""
    assert protocol.history is not None
    parts = cut_windows(table, protocol.history, protocol.last_windows, protocol.user_shares, dataset.name)
    kept = table.select(np.sort(parts[0].rows))
    meta_users = occurring(kept.user, table.n_users)
    index_of = np.full(table.n_users, -1, np.int64)
    index_of[meta_users] = np.arange(len(meta_users))
    meta_train = RatingTable(
        index_of[kept.user], kept.item, kept.rating, kept.timestamp, len(meta_users), table.n_items
    )
    popularity = np.bincount(kept.item, minlength=table.n_items)
    features = _encode_features(dataset.user_features)

    def pool(windows: Windows, new_users: bool) -> Pool:
        own = table.select(windows.rows)
        begins = np.flatnonzero(np.concatenate([[True], own.user[1:] != own.user[:-1]])[: len(own)])
        users = own.user[begins]
        rows = UserRows(np.append(begins, len(own)), own.item, own.rating, own.timestamp)
        own_features = None if features is None else features[users]
        meta_user = np.full(len(users), -1) if new_users else index_of[users]
        return Pool(users, meta_user, rows, rows, popularity, None, own_features, targets=windows.targets)

    pools: dict[MetaSet, Pool] = {
        "train": pool(parts[0], True), "validation": pool(parts[1], False), "test": pool(parts[2], False),
    }  # fmt: skip
    return Split(protocol, seed, meta_train, meta_users, dataset.catalog.with_seen(popularity > 0), pools)


def _held_out_half(table: RatingTable, rows: np.ndarray, order: str, seed: int) -> np.ndarray:
    """Mark half (rounded up) of each user's given rows for episodes: random ones, or the latest in time order."""
    index = np.flatnonzero(rows)
    tie = substream(seed, "split/held-out").random(len(table))[index]
    time = table.timestamp[index] if order == "time" and table.timestamp is not None else np.zeros(len(index), np.int64)
    by_user = index[np.lexsort((tie, time, table.user[index]))]
    counts = np.bincount(table.user[by_user], minlength=table.n_users)
    starts = np.concatenate([[0], counts.cumsum()])
    rank = np.arange(len(by_user)) - starts[table.user[by_user]]
    held = np.zeros(len(table), bool)
    held[by_user[rank >= counts[table.user[by_user]] // 2]] = True
    return held


def _group(table: RatingTable, rows: np.ndarray, users: np.ndarray) -> UserRows:
    index = np.flatnonzero(rows)
    # A pair of user and item is one number and comes once: sorting that is several times faster than by two keys.
    pair = table.user[index] * table.n_items + table.item[index]
    if not (pair[1:] > pair[:-1]).all():  # files are often in this order
        index = index[np.argsort(pair)]
    counts = np.bincount(table.user[index], minlength=table.n_users)[users]
    time = None if table.timestamp is None else table.timestamp[index]
    offsets = np.concatenate([[0], counts.cumsum()])
    return UserRows(offsets, table.item[index], table.rating[index], time)


def _item_shots(table: RatingTable, rows: np.ndarray, index_of: np.ndarray) -> ItemShots:
    index = np.flatnonzero(rows & (index_of[table.user] >= 0))
    index = index[np.lexsort((table.user[index], table.item[index]))]
    counts = np.bincount(table.item[index], minlength=table.n_items)
    return ItemShots(np.concatenate([[0], counts.cumsum()]), index_of[table.user[index]], table.rating[index])


def _encode_features(frame: pd.DataFrame | None) -> np.ndarray | None:
    """Return (n_users, d) float32: numbers standardised over all users, categories one-hot in sorted order."""
    if frame is None or frame.empty:
        return None
    numeric = frame.select_dtypes("number").astype("float64")
    numeric = ((numeric - numeric.mean()) / numeric.std(ddof=0).replace(0, 1)).fillna(0.0)
    rest = frame.drop(columns=numeric.columns).astype(str)
    columns = [numeric.to_numpy()] + ([pd.get_dummies(rest).to_numpy(float)] if len(rest.columns) else [])
    return np.concatenate(columns, axis=1).astype(np.float32)
