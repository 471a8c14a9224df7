"""AUC over the rows of all users at once, as published tables have it that ask each user for one item at a time.

What it needs is counted for each pair of users, so that whole users can be resampled later without any prediction.
"""

from __future__ import annotations

import numpy as np

from fewrec.metrics.statistics import ratio

_SAME = 1e-9  # of the spread of all predictions
_AT_ONCE = 1 << 22  # comparisons: bounds the memory to some tens of megabytes, whatever the number of rows


def pair_counts(
    group: np.ndarray, n_groups: int, truth: np.ndarray, prediction: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return (right, pairs), (n_groups, n_groups) float64 each.

    ``pairs[u, v]`` counts the pairs of a row of user u and a lower-rated row of user v, ``right[u, v]`` those of them
    that the predictions order correctly, ties counting half. ``group`` (m,) int64 in 0..n_groups-1, each of which
    occurs; ``truth`` and ``prediction`` (m,).
    """
    order = np.argsort(group, kind="stable")
    g, t, p = group[order], truth[order], prediction[order]
    starts = np.searchsorted(g, np.arange(n_groups))
    right, pairs = np.zeros((n_groups, n_groups)), np.zeros((n_groups, n_groups))
    step = max(1, _AT_ONCE // max(len(g), 1))
    for begin in range(0, len(g), step):
        rows = slice(begin, begin + step)
        better = t[rows, None] > t[None]
        ordered = better * ((p[rows, None] > p[None]) + 0.5 * (p[rows, None] == p[None]))
        np.add.at(pairs, g[rows], np.add.reduceat(better.astype(np.float64), starts, axis=1))
        np.add.at(right, g[rows], np.add.reduceat(ordered, starts, axis=1))
    return right, pairs


def without_rounding(prediction: np.ndarray) -> np.ndarray:
    """Return ``prediction`` (m,) with equal numbers where they differ by less than 1e-9 of their spread.

    The mean of the same ratings differs in its last bits with the order in which they were added up; between users and
    windows that would order rows that a method can't tell apart.
    """
    if not len(prediction):
        return prediction
    order = np.argsort(prediction, kind="stable")
    by_size = prediction[order]
    begins = np.concatenate([[True], np.diff(by_size) > _SAME * (by_size[-1] - by_size[0])])
    out = np.empty_like(prediction)
    out[order] = by_size[begins][begins.cumsum() - 1]
    return out


def pooled_auc(right: np.ndarray, pairs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return AUC over all rows in samples of users, (s, ...), NaN where a sample has no unequal pair.

    ``right`` and ``pairs`` (..., n, n) as ``pair_counts`` gives them; ``weights`` (s, n): how often each user is in
    each sample. A user who is drawn twice counts as two users with the same rows, so AUC is
    w' right w / w' pairs w; with weights of one it is that of the data.
    """
    ordered, all_pairs = (
        np.einsum("...uv,su,sv->s...", counts, weights, weights, optimize=True) for counts in (right, pairs)
    )
    return ratio(ordered, all_pairs)
