"""Precision, nDCG and MRR at k where a user's k highest-rated query items are the relevant ones.

That is how RecBole-MetaRec scores ratings: its evaluator ranks the query by label and by prediction, and counts what
both have among the first k. There ties are broken by the order of rows, in labels and predictions alike, which lifts a
constant to .56 of P@5; here they are broken at random, and the figures are the expectations over it, exact.
"""

from __future__ import annotations

import numpy as np


def top_metrics(
    group: np.ndarray, n_groups: int, truth: np.ndarray, prediction: np.ndarray, k: int
) -> dict[str, np.ndarray]:
    """Return ``precision``, ``ndcg`` and ``mrr`` at k of each user's query, (n_groups,) float64 each.

    ``group`` (m,) int64 in 0..n_groups-1, ``truth`` and ``prediction`` (m,). Relevant are the k items of the highest
    ratings; ties of ratings and of predictions are broken independently, uniformly at random. nDCG has binary gains and
    the discount 1 / log2(position + 1); MRR is 1 / position of the first relevant item among the first k, else 0.
    A user without ratings, or whose ratings are all equal, gets NaN. Raises ``ValueError`` where k is below 1 or not
    below the size of every query.
    """
    size = np.bincount(group, minlength=n_groups)
    smallest = int(size[size > 0].min()) if len(group) else None
    if smallest is not None and not 1 <= k < smallest:
        raise ValueError(f"the {k} highest-rated need 1 <= k and queries of more than {k}; the smallest has {smallest}")
    out = {name: np.full(n_groups, np.nan) for name in ("precision", "ndcg", "mrr")}
    relevant = _Ranked.of(group, n_groups, truth)
    shown = _Ranked.of(group, n_groups, prediction)
    low, high = (np.full(n_groups, sign * np.inf) for sign in (1, -1))
    np.minimum.at(low, group, truth)
    np.maximum.at(high, group, truth)
    defined = high > low
    share = _share_within(relevant, k)  # the chance of an item to be relevant
    hits = np.bincount(group, share * _share_within(shown, k), minlength=n_groups) / k
    discount = np.concatenate([1 / np.log2(np.arange(2, k + 2)), np.zeros(max(int(size.max(initial=0)) - k, 0))])
    until = np.concatenate([[0], discount.cumsum()])
    mean = (until[shown.end] - until[shown.start]) / (shown.end - shown.start)
    gained = np.bincount(group, share * mean, minlength=n_groups) / discount.sum()
    out["precision"][defined], out["ndcg"][defined] = hits[defined], gained[defined]
    out["mrr"][defined] = _mrr(group, n_groups, relevant, shown, k)[defined]
    return out


class _Ranked:
    """The places [start, end) within its user's query, from 0, that each item shares with what it is tied with."""

    def __init__(self, start: np.ndarray, end: np.ndarray) -> None:
        self.start, self.end = start, end

    @classmethod
    def of(cls, group: np.ndarray, n_groups: int, value: np.ndarray) -> _Ranked:
        order = np.lexsort((-value, group))
        g, v = group[order], value[order]
        size = np.bincount(group, minlength=n_groups)
        place = np.arange(len(g)) - (size.cumsum() - size)[g]
        first = np.ones(len(g), bool)
        first[1:] = (g[1:] != g[:-1]) | (v[1:] != v[:-1])
        tie = first.cumsum() - 1
        start, end = np.empty(len(g), np.int64), np.empty(len(g), np.int64)
        start[order] = place[first][tie]
        end[order] = start[order] + np.bincount(tie)[tie]
        return cls(start, end)


def _share_within(ranked: _Ranked, k: int) -> np.ndarray:
    """Return each item's chance to be among the first k."""
    return np.clip(k - ranked.start, 0, ranked.end - ranked.start) / (ranked.end - ranked.start)


def _mrr(group: np.ndarray, n_groups: int, relevant: _Ranked, shown: _Ranked, k: int) -> np.ndarray:
    """Return E[1 / position of the first relevant item, 0 behind k]: from the chances that the first j have none."""
    from scipy.special import comb

    certain = relevant.end <= k
    doubtful = (relevant.start < k) & ~certain  # one tie at most: some of its items are relevant, none knows which
    n_doubtful = np.bincount(group, doubtful, minlength=n_groups)
    wanted = k - np.bincount(group, certain, minlength=n_groups)  # how many of them are
    none_before = np.ones(n_groups)
    out = np.zeros(n_groups)
    for j in range(1, k + 1):
        before, within = shown.end <= j, (shown.start < j) & (shown.end > j)

        def count(rows: np.ndarray) -> np.ndarray:
            return np.bincount(group, rows, minlength=n_groups)

        tied = count(within)  # of these, so many are shown among the first j
        drawn = j - count(before)
        others = tied - count(within & certain) - count(within & doubtful)
        none = np.zeros(n_groups)
        for y in range(j + 1):  # doubtful ones among those drawn from the tie
            ways = comb(count(within & doubtful), y) * comb(others, drawn - y)
            chance = np.divide(ways, comb(tied, drawn), out=np.zeros(n_groups), where=comb(tied, drawn) > 0)
            left = n_doubtful - count(before & doubtful) - y
            spared = np.divide(
                comb(left, wanted), comb(n_doubtful, wanted), out=np.zeros(n_groups), where=comb(n_doubtful, wanted) > 0
            )
            none += chance * spared
        none *= count(before & certain) == 0
        out += (none_before - none) / j
        none_before = none
    return out
