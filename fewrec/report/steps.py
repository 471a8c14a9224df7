"""Errors by step of the online protocol: how a learner gets better with each rating that arrives."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fewrec.report.beside import STEPS, rows_beside
from fewrec.report.naming import TASK
from fewrec.report.results import Results


def error_by_step(results: Results) -> pd.DataFrame:
    """Return RMSE and MAE of each row of the tables by step, pooled over seeds: task, label, step, n, rmse, mae.

    From the rows of a (cell, episode, step), steps from 1: ``n`` ratings, ``se`` and ``ae`` summed over its users.
    """
    cells = results.cells.loc[results.cells["status"] == "ok", ["cell", *TASK, "label"]]
    rows = rows_beside(results.path, STEPS).merge(cells, on="cell")
    sums = rows.groupby([*TASK, "label", "step"], sort=False, as_index=False)[["n", "se", "ae"]].sum()
    return sums.assign(rmse=np.sqrt(sums["se"] / sums["n"]), mae=sums["ae"] / sums["n"]).drop(columns=["se", "ae"])
