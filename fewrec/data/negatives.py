"""Sampled negatives for clicks that come without any; apart from reading files, because it makes rows up, and says so.

AUC and 0/1 regressions need rows of both classes. Where a log has clicks alone, items that a user has no row of stand
in for what was shown and not clicked: an assumption, so ratio and seed are kept in the data set's notes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fewrec.data.table import Dataset, RatingTable
from fewrec.errors import DataError
from fewrec.seeding import substream


def with_negatives(dataset: Dataset, ratio: int, seed: int = 0) -> Dataset:
    """Return ``dataset`` with ``ratio`` sampled negatives for each of a user's clicks, behind its own rows.

    Negatives are distinct items that the user has no row of, each set of them equally likely; their rating is 0 and
    their timestamp that of the click that they stand beside. A user with too few other items gets all of them, spread
    over the clicks as evenly as can be (capped; the notes count such users). The same data, ratio and seed give the
    same rows; all else stays as it is.

    Raises ``DataError`` for data that aren't clicks or have negatives of their own, for ``ratio`` below 1, and where
    every user has a row of every item.
    """
    table = dataset.table
    if ratio < 1:
        raise DataError(f"--negatives {ratio}: give a whole number from 1, so many for each click")
    if dataset.kind != "clicks":
        raise DataError(f"{dataset.name}: --negatives is for clicks; its ratings are not all 1")
    if not (table.rating == 1).all():
        own = int((table.rating != 1).sum())
        raise DataError(
            f"{dataset.name}: it has {own:,} negatives of its own, so none can be sampled (leave out --negatives)"
        )
    clicks = np.bincount(table.user, minlength=table.n_users)
    free = table.n_items - clicks
    count = np.minimum(ratio * clicks, free)
    if not count.any():
        raise DataError(f"{dataset.name}: every user has clicked every item, so there is no item for --negatives")
    user, rank = _distinct_ranks(count, free, substream(seed, "sampled negatives"))
    item = _free_items(table, user, rank)
    timestamp = None
    if table.timestamp is not None:
        by_user = np.argsort(table.user, kind="stable")
        place = np.arange(len(user)) - (np.cumsum(count) - count)[user]
        beside = by_user[(np.cumsum(clicks) - clicks)[user] + place % clicks[user]]
        timestamp = np.concatenate([table.timestamp, table.timestamp[beside]])
    joined = replace(
        table,
        user=np.concatenate([table.user, user]),
        item=np.concatenate([table.item, item]),
        rating=np.concatenate([table.rating, np.zeros(len(user))]),
        timestamp=timestamp,
    )
    notes = [
        f"negatives: {len(user):,} sampled, {ratio} for each click, uniformly from the items that a user has no row of "
        f"(seed {seed})"
    ]
    capped = int((count < ratio * clicks).sum())
    if capped:
        notes.append(f"negatives: {capped:,} users have fewer than {ratio} other items for each click and got them all")
    return replace(dataset, table=joined, notes=(*dataset.notes, *notes))


def _distinct_ranks(count: np.ndarray, free: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw ``count[u]`` distinct ranks below ``free[u]`` for each user u: (user, rank), by user, in random order.

    Of more than half, what is left out is drawn instead, so that few draws meet one that was there before.
    """
    most = 2 * count > free
    user, rank = _few_distinct(np.where(most, free - count, count), free, rng)
    all_of = np.where(most, free, 0)
    whole = np.repeat(np.arange(len(free)), all_of)
    within = np.arange(len(whole)) - np.repeat(np.cumsum(all_of) - all_of, all_of)
    width = int(free.max()) + 1
    left_out = most[user]
    keep = ~np.isin(whole * width + within, user[left_out] * width + rank[left_out])
    user, rank = np.concatenate([user[~left_out], whole[keep]]), np.concatenate([rank[~left_out], within[keep]])
    order = np.lexsort((rng.random(len(user)), user))
    return user[order], rank[order]


def _few_distinct(count: np.ndarray, free: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw ``count[u]``, at most half of ``free[u]``, distinct ranks for each user; what repeats is drawn again.

    Adding, one by one, draws that aren't there yet makes every set equally likely.
    """
    width = int(free.max()) + 1
    drawn = np.empty(0, dtype=np.int64)  # user * width + rank, sorted
    missing = count.copy()
    while missing.any():
        user = np.repeat(np.arange(len(count)), missing)
        drawn = np.sort(np.concatenate([drawn, user * width + rng.integers(0, free[user])]))
        drawn = drawn[np.append(drawn[1:] != drawn[:-1], True)]  # np.unique would hash, and take ten times as long
        missing = count - np.bincount(drawn // width, minlength=len(count))
    return drawn // width, drawn % width


def _free_items(table: RatingTable, user: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Return the item that is the ``rank``-th of those that ``user`` has no row of, without listing them.

    Before the j-th of a user's sorted items, o_j, lie o_j - j free ones: the item is rank + how many o_j - j <= rank.
    """
    width = table.n_items + 1
    own = np.sort(table.user * width + table.item)
    owner = own // width
    start = np.searchsorted(own, np.arange(table.n_users) * width)
    before = owner * width + own % width - (np.arange(len(own)) - start[owner])
    return rank + np.searchsorted(before, user * width + rank, side="right") - start[user]
