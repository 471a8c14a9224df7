"""Figures of rows that share a task, pooled over seeds: means, intervals clustered by user, paired differences.

Differences and tests are of the task's primary metric: RMSE for ratings, AUC for clicks, which have no squared errors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from fewrec.metrics.statistics import (
    REPLICATES,
    bca_interval,
    holm,
    leave_one_out_sums,
    percentile_interval,
    ratio,
    resampled_sums,
    two_sided_p,
)
from fewrec.report.optional import CALIBRATION
from fewrec.report.results import looked_up

Interval = Literal["percentile", "bca"]
LEVEL = 0.05  # of every test
_REPLICATES_A_ROW = 80


@dataclass(frozen=True, eq=False)
class AlignedScores:
    """Score rows of one task as matrices: a table row each, a (seed, episode, user) key each column, sorted by user.

    ``values[name]`` is (rows, keys), NaN where a row has no such key; ``present`` (rows, keys) says which it has;
    ``user_starts`` (users,) is where each user's keys begin.
    """

    values: dict[str, np.ndarray]
    present: np.ndarray
    user_starts: np.ndarray
    user_of: np.ndarray

    @classmethod
    def of(cls, scores: pd.DataFrame, n_rows: int) -> AlignedScores:
        """Align ``scores``, whose column ``row`` (0..n_rows-1) says which row of the table each one belongs to."""
        unique, code = _unique_rows(scores[["user", "seed", "episode"]].to_numpy(dtype=np.int64))
        row = scores["row"].to_numpy()
        values = {}
        for name in scores.columns.difference(["row", "user", "seed", "episode", "cell"]):
            values[name] = np.full((n_rows, len(unique)), np.nan)
            values[name][row, code] = scores[name].to_numpy(dtype=np.float64, na_value=np.nan)
        present = np.zeros((n_rows, len(unique)), dtype=bool)
        present[row, code] = True
        _, starts, user_of = np.unique(unique[:, 0], return_index=True, return_inverse=True)
        return cls(values, present, starts, user_of.ravel())

    @classmethod
    def of_cells(cls, scores: pd.DataFrame, rows: Sequence[pd.DataFrame]) -> AlignedScores:
        """Align the ``scores`` of the cells of ``rows``, each one the cells of a row of the table, a cell a seed."""
        row_of = {cell: i for i, of_row in enumerate(rows) for cell in of_row["cell"]}
        seed_of = {cell: seed for of_row in rows for cell, seed in zip(of_row["cell"], of_row["seed"], strict=True)}
        scores = scores[scores["cell"].isin(list(row_of))]
        of_cell = {name: looked_up(scores["cell"], values) for name, values in (("row", row_of), ("seed", seed_of))}
        return cls.of(scores.assign(**of_cell), len(rows))

    @property
    def rated(self) -> bool:
        """Whether the task is of ratings: its rows have squared errors. Rows of clicks have AUC instead."""
        return bool(np.isfinite(self.get("se")).any())

    def get(self, name: str) -> np.ndarray:
        """Return a column's (rows, keys) matrix, all NaN where no cell has the column."""
        return self.values.get(name, np.full(self.present.shape, np.nan))

    def users(self, row: int) -> int:
        """Return the number of distinct users of a row."""
        return len(np.unique(self.user_of[self.present[row]]))

    def user_sums(self, matrix: np.ndarray) -> np.ndarray:
        """Return what each user adds to each row's total, (users, rows); NaN adds nothing."""
        return np.add.reduceat(np.nan_to_num(matrix, nan=0.0), self.user_starts, axis=1).T


def _unique_rows(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct rows of ``keys`` (n, c) int64 in lexicographic order, and which of them each row is, (n,).

    Rows are packed into one number each, which sorts twenty times as fast as ``np.unique`` by rows.
    """
    if not len(keys):
        return keys, np.zeros(0, np.int64)
    low = keys.min(axis=0)
    sizes = [int(high) - int(least) + 1 for high, least in zip(keys.max(axis=0), low, strict=True)]  # beyond int64 too
    if math.prod(sizes) >= 2**62:
        unique, code = np.unique(keys, axis=0, return_inverse=True)
        return unique, code.ravel()
    packed, code = np.unique(np.ravel_multi_index(tuple((keys - low).T), sizes), return_inverse=True)
    return np.stack(np.unravel_index(packed, sizes), axis=1) + low, code.ravel()


def row_figures(
    aligned: AlignedScores,
    bias: int | None,
    popularity: int | None,
    ranking_names: tuple[str, ...],
    seed: int = 0,
    interval: Interval = "percentile",
) -> pd.DataFrame:
    """Return the figures of each row of ``aligned``, one row a row, in its order.

    ``bias`` and ``popularity`` are the rows of ``bias`` and ``item-popularity`` where the table has them. Columns:
    rmse, mae, the ranking metrics, where some row has distributions ``nlpd`` and ``coverage90``, the intervals of all
    of these (``_low``, ``_high``: 95 %, clustered by user), skill, means over users, ``diff_bias`` and ``diff_best``:
    the row's RMSE minus that of the reference on the keys that both have, and ``p_bias`` and ``p_best``: two-sided,
    corrected by Holm for all comparisons with ``bias`` or with the best row.
    ``tie``: 1 where ``p_best`` is at least ``LEVEL``, 0 below and for the best row itself.

    Without squared errors (clicks) the columns of RMSE, MAE and ``bias`` are NaN. The best row is then that of the
    highest AUC, skill is that of AUC, ``diff_best`` is the row's AUC minus that of the best row (below zero is worse)
    on the keys where both are defined, and ``diff_popularity`` and ``p_popularity``, which only clicks have, compare
    with ``item-popularity`` likewise.
    """
    best = best_row(_primary_cost(aligned), aligned.present.sum(axis=1))
    baseline, its_row = ("bias", bias) if aligned.rated else ("popularity", popularity)
    references = {baseline: its_row, "best": best}
    terms = _terms(aligned, references, ranking_names)
    sums = np.hstack([aligned.user_sums(np.asarray(part, float)) for pair in terms.values() for part in pair])
    n_rows, n_users = len(aligned.present), len(aligned.user_starts)
    several = n_users > 1  # one user can't be resampled
    # the smallest p-value is 2 / (replicates + 1), times the number of rows after Holm: it has to stay well below LEVEL
    draws = resampled_sums(sums, seed=seed, replicates=max(REPLICATES, _REPLICATES_A_ROW * n_rows))
    rated = aligned.rated
    drawn = _statistics(draws, list(terms), n_rows, rated)
    means = _means(sums.sum(axis=0, keepdims=True), list(terms), n_rows)
    point = _statistics(sums.sum(axis=0, keepdims=True), list(terms), n_rows, rated)
    without = _statistics(leave_one_out_sums(sums), list(terms), n_rows, rated) if interval == "bca" and several else {}

    out = {name: value[0] for name, value in point.items()}
    out |= {name: means[name][0] for name in ("rmse_user", "mae_user")}
    own, reference = means[f"own/{baseline}"][0], means[f"{baseline}/own"][0]
    out["skill"] = 1 - (ratio(own, reference) if rated else ratio(1 - own, 1 - reference))
    for name, draw in drawn.items():
        if not several:
            low = high = np.full(n_rows, np.nan)
        elif interval == "bca":
            low, high = bca_interval(draw, point[name][0], without[name])
        else:
            low, high = percentile_interval(draw)
        out[f"{name}_low"], out[f"{name}_high"] = low, high
    for name, compared in references.items():
        out[f"p_{name}"] = np.full(n_rows, np.nan)
        if compared is not None and several:
            others = np.arange(n_rows) != compared
            out[f"p_{name}"][others] = holm(two_sided_p(drawn[f"diff_{name}"][:, others]))
    out["tie"] = np.where(np.isfinite(out["p_best"]), out["p_best"] >= LEVEL, np.nan)
    if best is not None:
        out["tie"][best] = 0
    if not rated:
        out |= {name: np.full(n_rows, np.nan) for name in ("diff_bias", "diff_bias_low", "diff_bias_high", "p_bias")}
    out["undefined_users"] = (aligned.present & ~np.isfinite(aligned.get("auc"))).sum(axis=1)
    return pd.DataFrame(out)


def _terms(
    aligned: AlignedScores, references: dict[str, int | None], ranking_names: tuple[str, ...]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the numerator and the denominator, (rows, keys), of each mean that the figures are made of."""
    n, se, ae = aligned.get("n"), aligned.get("se"), aligned.get("ae")
    rated = np.isfinite(se)
    terms = {"mse": (se, np.where(rated, n, 0)), "mae": (ae, np.where(rated, n, 0))}
    with np.errstate(invalid="ignore", divide="ignore"):
        terms["rmse_user"] = (np.sqrt(se / n), rated)
        terms["mae_user"] = (ae / n, rated)
    held = np.isfinite(aligned.get("log_density"))
    if held.any():
        asked = np.where(held, n, 0)
        terms |= {"nlpd": (-aligned.get("log_density"), asked), "coverage90": (aligned.get("within90"), asked)}
    for name in (*ranking_names, "auc"):
        terms[name] = (aligned.get(name), np.isfinite(aligned.get(name)))
    value, weight = (se, n) if aligned.rated else (aligned.get("auc"), np.ones_like(n))
    defined = np.isfinite(value)
    for name, reference in references.items():
        common = defined & defined[reference] if reference is not None else np.zeros_like(defined)
        its_value, its_weight = (value, weight) if reference is None else (value[reference], weight[reference])
        terms[f"own/{name}"] = (np.where(common, value, 0), np.where(common, weight, 0))
        terms[f"{name}/own"] = (np.where(common, its_value, 0), np.where(common, its_weight, 0))
    return terms


def _means(sums: np.ndarray, names: list[str], n_rows: int) -> dict[str, np.ndarray]:
    """Return the mean of each term, (samples, rows), from its sums: (samples, 2 x terms x rows)."""
    columns = np.split(sums, sums.shape[1] // n_rows, axis=1)
    return {name: ratio(columns[2 * i], columns[2 * i + 1]) for i, name in enumerate(names)}


def _statistics(sums: np.ndarray, names: list[str], n_rows: int, rated: bool) -> dict[str, np.ndarray]:
    """Return what gets an interval, (samples, rows): RMSE, MAE, ranking metrics, calibration, and the two differences
    of RMSE (of AUC where the task is not ``rated``)."""
    mean = _means(sums, names, n_rows)
    out = {"rmse": np.sqrt(mean["mse"]), "mae": mean["mae"], "auc": mean["auc"]}
    out |= {name: mean[name] for name in names if name.startswith(("ndcg", "top", *CALIBRATION))}
    for name in (name.removeprefix("own/") for name in names if name.startswith("own/")):
        own, reference = mean[f"own/{name}"], mean[f"{name}/own"]
        out[f"diff_{name}"] = np.sqrt(own) - np.sqrt(reference) if rated else own - reference
    return out


def _primary_cost(aligned: AlignedScores) -> np.ndarray:
    """Return each row's RMSE, or minus its AUC where the task is of clicks: the lower the better, NaN where absent."""
    if not aligned.rated:
        auc = aligned.get("auc")
        return -ratio(np.nansum(auc, axis=1), np.isfinite(auc).sum(axis=1))
    n, se = aligned.get("n"), aligned.get("se")
    return np.sqrt(ratio(np.nansum(se, axis=1), np.where(np.isfinite(se), n, 0).sum(axis=1)))


def best_row(cost: np.ndarray, keys: np.ndarray) -> int | None:
    """Return the row of the lowest ``cost`` among those with the most (seed, episode, user) keys, or None without one.

    A row with fewer keys has other users, so its figure can't make it the best.
    """
    candidates = np.flatnonzero(np.isfinite(cost) & (keys == keys.max(initial=0)))
    return int(candidates[np.argmin(cost[candidates])]) if len(candidates) else None
