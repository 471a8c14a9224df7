"""Errors by step of the online protocol: how a learner gets better with each rating that arrives."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fewrec.metrics.statistics import percentile_interval, ratio, resampled_sums
from fewrec.report.beside import STEPS, rows_beside
from fewrec.report.naming import TASK
from fewrec.report.results import Results

_FIGURES = ("n", "rmse", "rmse_low", "rmse_high", "mae", "diff_bias", "diff_bias_low", "diff_bias_high")


def error_by_step(results: Results) -> pd.DataFrame:
    """Return the errors of each row of the tables by step, pooled over seeds.

    Columns: those of the task, label, step, n, rmse, mae, and ``diff_bias``, the RMSE minus that of ``bias`` in the
    same step where both have the same ratings (else NaN); ``rmse_low``, ``rmse_high``, ``diff_bias_low``,
    ``diff_bias_high``: 95 % percentile bootstrap intervals over users, with the same samples for all rows and steps.
    """
    cells = results.cells.loc[results.cells["status"] == "ok", ["cell", *TASK, "learner", "label"]]
    rows = rows_beside(results.path, STEPS).merge(cells, on="cell")
    parts = [_of_task(own) for _, own in rows.groupby(list(TASK), sort=False, dropna=False)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*TASK, "label", "step", *_FIGURES])


def _of_task(rows: pd.DataFrame) -> pd.DataFrame:
    row, labels = pd.factorize(rows["label"])
    step, steps = pd.factorize(rows["step"], sort=True)
    user, users = pd.factorize(rows["user"], sort=True)
    cell, shape = row * len(steps) + step, (len(users), len(labels) * len(steps))
    n, se, ae = (
        np.bincount(user * shape[1] + cell, rows[name], minlength=shape[0] * shape[1]).reshape(shape)
        for name in ("n", "se", "ae")
    )
    named = sorted(rows.loc[rows["learner"] == "bias", "label"].unique(), key=lambda label: (label != "bias", label))
    bias = labels.get_indexer(named[:1])  # as in the tables: the one without a label of its own, if there are several
    reference = np.repeat(bias, len(labels)) if len(bias) else np.arange(len(labels))
    reference = (reference[:, None] * len(steps) + np.arange(len(steps))).ravel()
    comparable = (n == n[:, reference]).all(axis=0) & bool(len(bias))
    counted, squared = n.sum(axis=0, keepdims=True), se.sum(axis=0, keepdims=True)
    out = pd.DataFrame({name: rows[name].iloc[0] for name in TASK}, index=range(shape[1]))
    out["label"], out["step"] = np.repeat(labels, len(steps)), np.tile(steps, len(labels))
    out["n"], out["mae"] = counted[0], ratio(ae.sum(axis=0), counted[0])
    se_drawn, n_drawn = np.split(resampled_sums(np.hstack([se, n])), 2, axis=1)
    points, draws = _errors(squared, counted, reference), _errors(se_drawn, n_drawn, reference)
    for name, point, drawn in zip(points, points.values(), draws.values(), strict=True):
        low, high = percentile_interval(drawn) if len(users) > 1 else (np.nan, np.nan)
        out[name], out[f"{name}_low"], out[f"{name}_high"] = point[0], low, high
    out.loc[~comparable, ["diff_bias", "diff_bias_low", "diff_bias_high"]] = np.nan
    return out[out["n"] > 0][[*TASK, "label", "step", *_FIGURES]]


def _errors(se: np.ndarray, n: np.ndarray, reference: np.ndarray) -> dict[str, np.ndarray]:
    rmse = np.sqrt(ratio(se, n))
    return {"rmse": rmse, "diff_bias": rmse - rmse[:, reference]}
