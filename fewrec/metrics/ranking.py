"""Ranking metrics per user's own query, vectorised over users; apart from rating errors: nothing is clipped."""

from __future__ import annotations

import numpy as np

_PAIRS_AT_ONCE = 1 << 21  # bounds the memory of auc to some tens of megabytes, whatever the query size


def ndcg_is_defined(k: int | None, n_query: int) -> bool:
    """Say whether nDCG@k may be computed on queries of ``n_query`` ratings: k at or above the query size is refused.

    nDCG of a query no longer than k counts every item, however it is ranked, and is close to 1 for any order.
    """
    return k is not None and 1 <= k < n_query


def ndcg(group: np.ndarray, n_groups: int, gain: np.ndarray, prediction: np.ndarray, k: int) -> np.ndarray:
    """Return nDCG@k of each user's query, (n_groups,) float64, with ties in the predictions by expectation.

    ``group`` (m,) int64 in 0..n_groups-1, ``gain`` (m,) rating - lowest rating of the scale, ``prediction`` (m,),
    higher is better. Discount 1 / log2(position + 1), 0 after position k; tied predictions share the mean discount of
    their positions (McSherry and Najork, ECIR 2008). A user without query ratings, or whose query ratings are all
    equal, gets NaN. Raises ``ValueError`` where k is at or above a user's query size.
    """
    size = np.bincount(group, minlength=n_groups)
    smallest = int(size[size > 0].min()) if len(group) else None
    if smallest is not None and not ndcg_is_defined(k, smallest):
        raise ValueError(f"nDCG@{k} needs 1 <= k and queries of more than {k} ratings; the smallest has {smallest}")
    start = np.cumsum(size) - size
    longest = int(size.max()) if n_groups else 0
    discount = np.zeros(longest)
    discount[:k] = 1.0 / np.log2(np.arange(2, min(k, longest) + 2))

    by_prediction = np.lexsort((-prediction, group))
    g, p = group[by_prediction], prediction[by_prediction]
    position = np.arange(len(g)) - start[g]
    first_of_tie = np.ones(len(g), dtype=bool)
    first_of_tie[1:] = (g[1:] != g[:-1]) | (p[1:] != p[:-1])
    tie = np.cumsum(first_of_tie) - 1
    shared = np.bincount(tie, weights=discount[position]) / np.bincount(tie)
    gained = np.bincount(g, weights=gain[by_prediction] * shared[tie], minlength=n_groups)

    by_gain = np.lexsort((-gain, group))
    ideal = np.bincount(g, weights=gain[by_gain] * discount[position], minlength=n_groups)
    out = np.full(n_groups, np.nan)
    defined = _has_unequal(group, n_groups, gain)
    out[defined] = gained[defined] / ideal[defined]
    return out


def auc(group: np.ndarray, n_groups: int, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Return each user's share of unequal-rating query pairs that are ordered correctly, ties counting half.

    ``group`` (m,) int64 in 0..n_groups-1, ``truth`` and ``prediction`` (m,). Returns (n_groups,) float64, NaN where the
    user has no such pair. For binary truth it is the area under the ROC curve.
    """
    order = np.argsort(group, kind="stable")
    g, t, p = group[order], truth[order], prediction[order]
    size = np.bincount(group, minlength=n_groups)
    start = np.cumsum(size) - size
    partners = size[g]
    # each row against all rows of its user, in slices of rows: counts of pairs and halves add up exactly in any order
    slices = np.concatenate([[0], np.cumsum(partners)]) // _PAIRS_AT_ONCE
    bounds = np.unique(np.concatenate([[0], np.flatnonzero(np.diff(slices[:-1])) + 1, [len(g)]]))
    right = np.zeros(n_groups)
    pairs = np.zeros(n_groups)
    for begin, end in zip(bounds[:-1], bounds[1:], strict=True):
        here = partners[begin:end]
        i = np.repeat(np.arange(begin, end), here)
        within = np.arange(len(i)) - np.repeat(np.cumsum(here) - here, here)
        j = start[g[i]] + within
        better = t[i] > t[j]
        i, j = i[better], j[better]
        pairs += np.bincount(g[i], minlength=n_groups)
        right += np.bincount(g[i], weights=(p[i] > p[j]) + 0.5 * (p[i] == p[j]), minlength=n_groups)
    out = np.full(n_groups, np.nan)
    np.divide(right, pairs, out=out, where=pairs > 0)
    return out


def _has_unequal(group: np.ndarray, n_groups: int, value: np.ndarray) -> np.ndarray:
    lowest = np.full(n_groups, np.inf)
    highest = np.full(n_groups, -np.inf)
    np.minimum.at(lowest, group, value)
    np.maximum.at(highest, group, value)
    return highest > lowest
