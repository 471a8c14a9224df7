"""AUC over the rows of all users at once, from counts by pair of users: windows in time alone have it.

Apart from figures.py because it is no ratio of sums over users: its intervals need how often each user is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fewrec.metrics.pooled import pooled_auc
from fewrec.metrics.statistics import REPLICATES, bca_interval, percentile_interval, resampled_weights
from fewrec.report.figures import Interval
from fewrec.report.optional import POOLED


def pooled_figures(
    pairs: pd.DataFrame, rows: Sequence[pd.DataFrame], against: int | None = None, interval: Interval = "percentile"
) -> pd.DataFrame:
    """Return AUC over all query rows of each row of a table: ``auc_all``, ``auc_all_low``, ``auc_all_high``.

    ``pairs`` is ``Results.pairs``, ``rows`` the cells of each row of the table, a cell a seed; of several seeds it is
    the mean of their AUCs. ``against``: the row that the others are compared with, in ``diff_all``, ``diff_all_low``
    and ``diff_all_high``: AUC minus that row's, below zero is worse. Intervals are 95 % over users, with the samples
    of all other figures; one user alone has none. NaN for a row without counts.
    """
    users = np.unique(pairs["user"])
    by_cell = dict(iter(pairs.groupby("cell", sort=False)))

    def auc(weights: np.ndarray) -> np.ndarray:
        """Return AUC, (samples, rows, 1 + whether there is a row to compare with)."""
        found = np.stack([_of_row(by_cell, of_row, users, weights) for of_row in rows], axis=1)
        return np.stack([found] if against is None else [found, found - found[:, [against]]], axis=2)

    shape = (-1, len(rows) * (1 if against is None else 2))
    point = auc(np.ones((1, len(users)))).reshape(shape)[0]
    low, high = np.full(len(point), np.nan), np.full(len(point), np.nan)
    if len(users) > 1:
        draws = np.concatenate([auc(weights) for weights in resampled_weights(len(users), 0, REPLICATES)])
        if interval == "bca":
            without = auc(1 - np.eye(len(users)))
            low, high = bca_interval(draws.reshape(shape), point, without.reshape(shape))
        else:
            low, high = percentile_interval(draws.reshape(shape))
    parts = {"": point, "_low": low, "_high": high}
    names = [POOLED] if against is None else [POOLED, "diff_all"]
    by_row = {end: values.reshape(len(rows), len(names)) for end, values in parts.items()}
    return pd.DataFrame({f"{name}{end}": by_row[end][:, i] for i, name in enumerate(names) for end in parts})


def _of_row(
    by_cell: dict[str, pd.DataFrame], of_row: pd.DataFrame, users: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Return the mean over seeds of a row's AUC in each sample, (samples,)."""
    found = []
    for cell in of_row["cell"]:
        if cell in by_cell:
            counts = by_cell[cell]
            place = np.searchsorted(users, counts["user"]), np.searchsorted(users, counts["other"])
            right, pairs = np.zeros((2, len(users), len(users)))
            right[place], pairs[place] = counts["right"], counts["pairs"]
            found.append(pooled_auc(right, pairs, weights))
    return np.mean(found, axis=0) if found else np.full(len(weights), np.nan)
