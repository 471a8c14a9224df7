"""Which meta set each user and each item belongs to; apart from the split, which cuts the ratings by both."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fewrec.data.table import Dataset, RatingTable
from fewrec.episodes.protocol import UNSEEN_ITEM_STATES, Protocol
from fewrec.errors import SuiteError
from fewrec.seeding import substream


def of_rated_users(dataset: Dataset, limits: tuple[int, int] | None) -> RatingTable:
    """Return the ratings of the users with a number of ratings within ``limits``; codes stay."""
    table = dataset.table
    if limits is None:
        return table
    counts = np.bincount(table.user, minlength=table.n_users)
    kept = table.select(((counts >= limits[0]) & (counts <= limits[1]))[table.user])
    if not len(kept):
        raise SuiteError(
            f"{dataset.name}: no user has {limits[0]} to {limits[1]} ratings (user_ratings); "
            f"users have {counts.min()} to {counts.max()}"
        )
    return kept


def user_sets(dataset: Dataset, table: RatingTable, protocol: Protocol, seed: int) -> np.ndarray:
    """Return (n_users,) int8: 0, 1 or 2 for meta-train, -validation, -test; -1 for users without a rating.

    Raises ``SuiteError`` where the data set brings no split that the protocol asks for, or has too few users.
    """
    if protocol.user_split == "given":
        return _given(dataset, table)
    return _assign(occurring(table.user, table.n_users), table.n_users, protocol.user_shares, seed, "split/users",
                   dataset.name)  # fmt: skip


def item_sets(dataset: Dataset, table: RatingTable, protocol: Protocol, seed: int) -> np.ndarray:
    """Return (n_items,) int8: 0 for seen items, 1 and 2 for the unseen ones of meta-validation and meta-test.

    -1 is for items that are left out: without a rating, or too late for a state without unseen items.
    Raises ``SuiteError`` where there are too few items, or no years for ``item_years``.
    """
    unseen = protocol.state in UNSEEN_ITEM_STATES
    if protocol.item_years is not None:
        return _by_year(dataset, table, protocol.item_years, unseen)
    if not unseen:
        return np.zeros(table.n_items, np.int8)
    items = occurring(table.item, table.n_items)
    return _assign(items, table.n_items, protocol.item_shares, seed, "split/items", dataset.name)


def _by_year(dataset: Dataset, table: RatingTable, years: tuple[int, int], unseen: bool) -> np.ndarray:
    text = dataset.catalog.text
    if text is None:
        raise SuiteError(f"{dataset.name} has no item texts, so no years: item_years is impossible; use item_shares")
    year = pd.to_numeric(text["year"], errors="coerce").to_numpy(np.float64)
    rated = np.bincount(table.item, minlength=table.n_items) > 0
    known = year[rated & np.isfinite(year)]
    if not len(known):
        raise SuiteError(f"{dataset.name}: no item has a year: item_years is impossible; use item_shares")
    first, second = years if unseen else (years[1], years[1])
    out = np.zeros(table.n_items, np.int8)  # an item that might be old is not called unseen
    out[year > first] = 1
    out[year > second] = 2 if unseen else -1
    out[~rated] = -1
    if not (out == 0).any() or unseen and not (out == 2).any():
        side = "up to" if not (out == 0).any() else "after"
        raise SuiteError(
            f"{dataset.name} has no items of years {side} {first if side == 'up to' else second} (item_years); "
            f"they are of {known.min():.0f} to {known.max():.0f}"
        )
    return out


def occurring(codes: np.ndarray, n: int) -> np.ndarray:
    """Return the codes below ``n`` that occur, in order: ``np.unique`` without its sort."""
    found = np.zeros(n, bool)
    found[codes] = True
    return np.flatnonzero(found)


def _given(dataset: Dataset, table: RatingTable) -> np.ndarray:
    """Return (n_users,) int8: the data set's own meta set of each user, -1 for users without a rating."""
    if dataset.user_set is None:
        raise SuiteError(f'{dataset.name} brings no split of its users: user_split = "given" is impossible')
    out = np.asarray(dataset.user_set, np.int8).copy()
    out[np.bincount(table.user, minlength=table.n_users) == 0] = -1
    if missing := [name for code, name in enumerate(("meta-train", "meta-test")) if not (out == 2 * code).any()]:
        raise SuiteError(f"{dataset.name}: its own split has no {missing[0]} users with ratings")
    return out


def _assign(
    codes: np.ndarray, n: int, shares: tuple[float, float, float], seed: int, stream: str, name: str
) -> np.ndarray:
    """Return (n,) int8: 0, 1 or 2 for meta-train, -validation, -test; -1 for codes that have no rating."""
    what = stream.rsplit("/", 1)[1]
    train = round(shares[0] * len(codes))
    validation = round(shares[1] * len(codes)) if shares[2] else len(codes) - train  # no test share: nobody is left
    sizes = (train, validation, len(codes) - train - validation)
    if any(share > 0 and size < 1 for share, size in zip(shares, sizes, strict=True)):
        raise SuiteError(
            f"{name} has {len(codes)} {what}: too few to be split {shares[0]:g}/{shares[1]:g}/{shares[2]:g}"
        )
    out = np.full(n, -1, np.int8)
    order = substream(seed, stream).permutation(codes)
    out[order] = np.repeat(np.array([0, 1, 2], np.int8), sizes)
    return out
