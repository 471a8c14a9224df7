"""What a task is judged by: RMSE for ratings, AUC for clicks; apart because every table and plot asks it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from fewrec.report.leaderboard import TASK, is_best
from fewrec.report.numbers import one_line


@dataclass(frozen=True)
class Measure:
    """A primary metric: its column, its name, whether less is better, the baseline that skill compares with, and how
    the columns of differences to it end (``diff_``, ``p_``)."""

    column: str
    name: str
    lower_is_better: bool
    baseline: str
    ending: str

    def cost(self, rows: pd.DataFrame) -> pd.Series:
        """Return the metric so that less is better, infinite where absent."""
        values = rows[self.column].astype(float)
        return (values if self.lower_is_better else -values).fillna(np.inf)

    def best(self, rows: pd.DataFrame) -> str | None:
        """Return the label of the best row among those that cover the most episodes, or None without figures."""
        candidates = scored(rows, self)
        marked = [row["label"] for row in candidates.to_dict("records") if is_best(row)]
        if marked:
            return str(marked[0])
        if not len(candidates):
            return None
        full = candidates[candidates["episodes"] == candidates["episodes"].max()]
        return str(full["label"].iloc[int(np.argmin(self.cost(full)))])


RMSE = Measure("rmse", "RMSE", True, "bias", "bias")
AUC = Measure("auc", "AUC", False, "item-popularity", "popularity")


def measure_of(rows: pd.DataFrame) -> Measure:
    """Return the primary metric of the rows of a task, or of several of one data set.

    Rows of clicks have no RMSE, even where no user of theirs has an AUC; what has no figures at all counts as ratings.
    """
    return AUC if (rows["status"] == "ok").any() and not rows["rmse"].notna().any() else RMSE


def scored(rows: pd.DataFrame, measure: Measure) -> pd.DataFrame:
    """Return the rows that have a figure, the best first."""
    rows = rows[(rows["status"] == "ok") & rows[measure.column].notna()]
    return rows.iloc[np.argsort(measure.cost(rows).to_numpy(), kind="stable")]


def task_name(task: tuple, *, without: tuple[str, ...] = ()) -> str:
    """Return a task in words, ``ml-100k, user-cold, N=5, K=5, Q=10``, less the fields named."""
    parts = []
    for name, value in zip(TASK, task, strict=True):
        if name != "state" and name not in without:
            letter = {"n_users": "N=", "k_shot": "K=", "n_query": "Q="}.get(name, "")
            parts.append(letter + one_line(value))
    return ", ".join(parts)
