"""What a protocol may change about the episodes of meta-validation and meta-test: who, which query, whose ratings."""

from __future__ import annotations

import numpy as np

from fewrec.episodes.permutation import spans
from fewrec.episodes.split import Pool, UserRows
from fewrec.seeding import mix, stable_hash

_NOISE, _REPLACEMENT, _QUERY, _REST = (
    np.uint64(stable_hash(f"episode/{part}")) for part in ("noise", "replacement", "strata", "strata/rest")
)


def active_half(pool: Pool, fits: np.ndarray, which: str) -> np.ndarray:
    """Return the mask (n,) of those users of ``fits`` that are in the half with the fewest ("light") or most ratings.

    Of an odd number the middle one is light; users with as many ratings are in order of their codes.
    """
    counts = pool.support.counts + (pool.query.counts if pool.query is not pool.support else 0)
    users = np.flatnonzero(fits)
    by_activity = users[np.lexsort((pool.users[users], counts[users]))]
    middle = (len(users) + 1) // 2
    out = np.zeros(len(fits), bool)
    out[by_activity[:middle] if which == "light" else by_activity[middle:]] = True
    return out


def strata(query: UserRows, popularity: np.ndarray, count: int) -> np.ndarray:
    """Return (n_items,): each item's stratum of popularity, 0 the least popular, ``count`` - 1 the most.

    Items in order of ``popularity`` (n_items,) are cut where each stratum holds the same share of the query ratings
    that there are to draw from; equally popular items are in order of their codes.
    """
    mass = np.bincount(query.item, minlength=len(popularity))
    by_popularity = np.lexsort((np.arange(len(popularity)), popularity))
    middle = mass[by_popularity].cumsum() - mass[by_popularity] / 2
    out = np.zeros(len(popularity), np.int64)
    out[by_popularity] = np.minimum(middle * count // max(mass.sum(), 1), count - 1).astype(np.int64)
    return out


def counts_by_stratum(rows: UserRows, stratum: np.ndarray, n_strata: int) -> np.ndarray:
    """Return (users, n_strata): how many of each user's ratings are of items of each stratum."""
    n_users = len(rows.counts)
    cell = np.repeat(np.arange(n_users), rows.counts) * n_strata + stratum[rows.item]
    return np.bincount(cell, minlength=n_users * n_strata).reshape(n_users, n_strata)


def stratified_query(
    rows: UserRows, users: np.ndarray, stream: np.ndarray, stratum: np.ndarray, each: int
) -> np.ndarray:
    """Return the query rows, user after user: ``each`` random ones of every stratum, from ``stream`` (S,) alone."""
    counts = rows.counts[users]
    row = spans(rows.offsets[users], counts)
    segment = np.repeat(np.arange(len(users)), counts)
    of_row = stratum[rows.item[row]]
    key = mix(mix(stream, _QUERY)[segment], row - rows.offsets[users][segment])
    order = np.lexsort((key, of_row, segment))
    group = segment[order] * len(stratum) + of_row[order]
    first = np.concatenate([[True], group[1:] != group[:-1]]) if len(group) else np.zeros(0, bool)
    start = np.maximum.accumulate(np.where(first, np.arange(len(group)), 0))
    return row[order][np.arange(len(group)) - start < each]


def rest_of_them(
    rows: UserRows, users: np.ndarray, stream: np.ndarray, query: np.ndarray, size: np.ndarray
) -> np.ndarray:
    """Return ``size`` (S,) rows of each user that are not in ``query``, in an order that ``stream`` alone decides.

    The order does not know ``size``: fewer rows are the beginning of more.
    """
    counts = rows.counts[users]
    row = spans(rows.offsets[users], counts)
    segment = np.repeat(np.arange(len(users)), counts)
    n_query = np.full(len(users), len(query) // max(len(users), 1))
    taken = np.isin(segment * (int(rows.offsets[-1]) + 1) + row,
                    np.repeat(np.arange(len(users)), n_query) * (int(rows.offsets[-1]) + 1) + query)  # fmt: skip
    key = mix(mix(stream, _REST)[segment], row - rows.offsets[users][segment])
    order = np.lexsort((key, taken, segment))
    return row[order][spans(counts.cumsum() - counts, size)]


def with_noise(rows: UserRows, chosen: np.ndarray, stream: np.ndarray, share: float) -> np.ndarray:
    """Return the ratings of the rows ``chosen`` (n,), ``share`` of them replaced by a random rating of all ``rows``.

    ``stream`` (n,) is each row's own user's in the episode: the same row of it is replaced by the same rating whatever
    else is in the support.
    """
    draw = mix(mix(stream, _NOISE), chosen)
    replaced = (draw >> np.uint64(11)).astype(np.float64) * 2.0**-53 < share
    other = (mix(mix(stream, _REPLACEMENT), chosen) % np.uint64(max(len(rows.rating), 1))).astype(np.int64)
    return np.where(replaced, rows.rating[other], rows.rating[chosen])
