"""Figures of rows that share a task, pooled over seeds: means, intervals clustered by user, paired differences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from fewrec.metrics.statistics import holm, percentile_interval, ratio, resampled_sums, two_sided_p


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
        keys = scores[["user", "seed", "episode"]].astype("int64")
        unique, code = np.unique(keys.to_numpy(), axis=0, return_inverse=True)
        code = code.ravel()
        row = scores["row"].to_numpy()
        values = {}
        for name in scores.columns.difference(["row", "user", "seed", "episode", "cell"]):
            values[name] = np.full((n_rows, len(unique)), np.nan)
            values[name][row, code] = scores[name].to_numpy(dtype=np.float64, na_value=np.nan)
        present = np.zeros((n_rows, len(unique)), dtype=bool)
        present[row, code] = True
        _, starts, user_of = np.unique(unique[:, 0], return_index=True, return_inverse=True)
        return cls(values, present, starts, user_of.ravel())

    def get(self, name: str) -> np.ndarray:
        """Return a column's (rows, keys) matrix, all NaN where no cell has the column."""
        return self.values.get(name, np.full(self.present.shape, np.nan))

    def users(self, row: int) -> int:
        """Return the number of distinct users of a row."""
        return len(np.unique(self.user_of[self.present[row]]))

    def user_sums(self, matrix: np.ndarray) -> np.ndarray:
        """Return what each user adds to each row's total, (users, rows); NaN adds nothing."""
        return np.add.reduceat(np.nan_to_num(matrix, nan=0.0), self.user_starts, axis=1).T


def row_figures(
    aligned: AlignedScores, bias: int | None, popularity: int | None, ndcg_names: tuple[str, ...], seed: int = 0
) -> pd.DataFrame:
    """Return the figures of each row of ``aligned``, one row a row, in its order.

    ``bias`` and ``popularity`` are the rows of ``bias`` and ``item-popularity`` where the table has them. Columns:
    rmse, mae, the ranking metrics and their intervals (``_low``, ``_high``: 95 %, clustered by user), skill, means over
    users, ``diff_bias`` and ``diff_best``: the row's RMSE minus that of the reference on the keys that both have, and
    ``p_best``: two-sided, corrected by Holm for all comparisons with the best row. Without squared errors (clicks) the
    columns of RMSE are NaN and skill is that of AUC.
    """
    n, se, ae = aligned.get("n"), aligned.get("se"), aligned.get("ae")
    rated = np.isfinite(se)
    rmse = np.sqrt(ratio(np.nansum(se, axis=1), np.where(rated, n, 0).sum(axis=1)))
    best = best_row(rmse, aligned.present.sum(axis=1))

    terms = {"mse": (se, np.where(rated, n, 0)), "mae": (ae, np.where(rated, n, 0))}
    with np.errstate(invalid="ignore", divide="ignore"):
        terms["rmse_user"] = (np.sqrt(se / n), rated)
        terms["mae_user"] = (ae / n, rated)
    for name in (*ndcg_names, "auc"):
        terms[name] = (aligned.get(name), np.isfinite(aligned.get(name)))
    for name, reference in (("bias", bias), ("best", best)):
        if reference is not None:
            common = rated & rated[reference]
            terms[f"own/{name}"] = (np.where(common, se, 0), np.where(common, n, 0))
            terms[f"{name}/own"] = (np.where(common, se[reference], 0), np.where(common, n[reference], 0))

    sums = {name: tuple(aligned.user_sums(np.asarray(part, float)) for part in pair) for name, pair in terms.items()}
    n_rows = len(aligned.present)
    draws = resampled_sums(np.hstack([part for pair in sums.values() for part in pair]), seed=seed)
    columns = np.split(draws, draws.shape[1] // n_rows, axis=1)
    drawn = {name: ratio(columns[2 * i], columns[2 * i + 1]) for i, name in enumerate(sums)}
    point = {name: ratio(num.sum(axis=0), den.sum(axis=0)) for name, (num, den) in sums.items()}

    out = {"rmse": np.sqrt(point["mse"]), "mae": point["mae"], "auc": point["auc"]}
    spread = {"rmse": np.sqrt(drawn["mse"]), "mae": drawn["mae"], "auc": drawn["auc"]}
    for name in ndcg_names:
        out[name], spread[name] = point[name], drawn[name]
    for name in ("bias", "best"):
        if f"own/{name}" in point:
            out[f"diff_{name}"] = np.sqrt(point[f"own/{name}"]) - np.sqrt(point[f"{name}/own"])
            spread[f"diff_{name}"] = np.sqrt(drawn[f"own/{name}"]) - np.sqrt(drawn[f"{name}/own"])
        else:
            out[f"diff_{name}"] = np.full(n_rows, np.nan)
            spread[f"diff_{name}"] = np.full((1, n_rows), np.nan)
    out["rmse_user"], out["mae_user"] = point["rmse_user"], point["mae_user"]
    out["skill"] = _skill(point, bias, popularity)
    several = len(aligned.user_starts) > 1  # one user can't be resampled
    for name, draw in spread.items():
        out[f"{name}_low"], out[f"{name}_high"] = percentile_interval(draw if several else np.full_like(draw, np.nan))
    out["p_best"] = np.full(n_rows, np.nan)
    if best is not None and several:
        others = np.arange(n_rows) != best
        out["p_best"][others] = holm(two_sided_p(spread["diff_best"][:, others]))
    out["undefined_users"] = (aligned.present & ~np.isfinite(aligned.get("auc"))).sum(axis=1)
    return pd.DataFrame(out)


def best_row(rmse: np.ndarray, keys: np.ndarray) -> int | None:
    """Return the row of the lowest RMSE among those with the most (seed, episode, user) keys, or None without RMSE.

    A row with fewer keys has other users, so its RMSE can't make it the best.
    """
    candidates = np.flatnonzero(np.isfinite(rmse) & (keys == keys.max(initial=0)))
    return int(candidates[np.argmin(rmse[candidates])]) if len(candidates) else None


def _skill(point: dict[str, np.ndarray], bias: int | None, popularity: int | None) -> np.ndarray:
    if np.isfinite(point["mse"]).any():
        if bias is None:
            return np.full(len(point["mse"]), np.nan)
        reference = point["bias/own"]
        return np.where(reference > 0, 1 - ratio(point["own/bias"], reference), np.nan)
    if popularity is None:
        return np.full(len(point["auc"]), np.nan)
    return 1 - ratio(1 - point["auc"], np.broadcast_to(1 - point["auc"][popularity], point["auc"].shape))
