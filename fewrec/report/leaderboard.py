"""The leaderboard as a frame: one row a (dataset, protocol, N, K, Q, learner, label), pooled over seeds, from cells."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from fewrec.errors import DataError
from fewrec.report.figures import AlignedScores, row_figures
from fewrec.report.naming import state_rank
from fewrec.report.results import Results, shot_rank
from fewrec.report.warning_signs import prediction_warnings

TASK = ["dataset", "protocol", "state", "n_users", "k_shot", "n_query"]  # rows that share these are compared
COLUMNS = [
    *TASK, "seeds", "learner", "label", "status", "reason", "episodes", "users",
    "rmse", "rmse_low", "rmse_high", "mae", "mae_low", "mae_high", "ndcg5", "auc", "skill",
    "diff_bias", "diff_bias_low", "diff_bias_high",
    "meta_fit_s", "adapt_ms_p50", "adapt_ms_p95", "predict_ms", "episodes_per_s", "peak_mb", "trainable_params",
    "ndcg5_low", "ndcg5_high", "auc_low", "auc_high", "rmse_user", "mae_user",
    "diff_best", "diff_best_low", "diff_best_high", "p_best",
    "undefined_users", "prepare_s", "device_peak_mb", "warning",
]  # fmt: skip
_INTEGERS = ("n_users", "n_query", "seeds", "episodes", "users", "trainable_params", "undefined_users")
_TEXTS = ("dataset", "protocol", "state", "k_shot", "learner", "label", "status", "reason", "warning")
_GRAVITY = ("failed", "timeout", "incomplete", "not applicable")
TRIVIAL = frozenset(
    {"global-mean", "user-mean", "user-median", "item-mean", "item-popularity", "bias", "bias-shots", "random"}
)  # rows that a learner has to beat


def leaderboard(results: Results) -> pd.DataFrame:
    """Return the leaderboard of ``results``: columns ``COLUMNS`` (and nDCG at other k than 5 behind them).

    Sorted by task, then by RMSE (AUC for clicks), rows without figures last. Errors are in rating units, times in
    seconds or milliseconds an episode as named, memory in MB. A row is pooled over its seeds: RMSE is that of all query
    ratings together; ``seeds`` counts them, ``episodes`` adds them up, ``users`` are distinct test users. Meta-fit and
    prepare seconds are means over seeds, latencies quantiles of all measured episodes, episodes/s the harmonic mean,
    memory and parameters the maximum. A row of which any seed has no result has a status and a reason, and no figures.

    Raises ``DataError`` where two cells claim the same row and seed.
    """
    cells = results.cells
    ndcg_names = tuple(sorted({f"ndcg{int(k)}" for k in cells["ndcg_at"].dropna()} | {"ndcg5"}))
    extra = [f"{name}{end}" for name in ndcg_names if name != "ndcg5" for end in ("", "_low", "_high")]
    rows: list[dict[str, Any]] = []
    for task, of_task in tasks(cells):
        rows += _task_rows(task, of_task, results, ndcg_names)
    frame = pd.DataFrame(rows, columns=[*COLUMNS, *extra])
    for name in frame.columns:
        if name in _INTEGERS:
            frame[name] = frame[name].astype("Int64")
        elif name not in _TEXTS:
            frame[name] = frame[name].astype("float64")
    return frame


def tasks(frame: pd.DataFrame) -> Iterator[tuple[tuple, pd.DataFrame]]:
    """Yield (task, rows) for each task of cells or of a leaderboard: by data set, state in the usual order, then K."""
    groups = {task: rows for task, rows in frame.groupby(TASK, sort=False, dropna=False)}
    for task in sorted(groups, key=lambda t: (t[0], state_rank(t[2]), t[1], t[3], shot_rank(t[4]), t[5])):
        yield task, groups[task]


def _task_rows(task: tuple, cells: pd.DataFrame, results: Results, ndcg_names: tuple[str, ...]) -> list[dict[str, Any]]:
    rows, complete = [], []
    for (learner, label), of_row in sorted(cells.groupby(["learner", "label"], sort=False), key=lambda pair: pair[0]):
        _refuse_twins(of_row, results)
        row = dict(zip(TASK, task, strict=True)) | {"learner": learner, "label": label, "warning": ""}
        row["seeds"] = len(of_row)
        row["status"], row["reason"] = _status(of_row)
        rows.append(row)
        if row["status"] == "ok":
            row |= _costs(of_row)
            complete.append((row, of_row))
    if complete:
        _add_figures([row for row, _ in complete], [of_row for _, of_row in complete], results, ndcg_names)
    rows.sort(key=_rank)
    return rows


def _rank(row: dict[str, Any]) -> tuple:
    primary = row.get("rmse", np.nan)
    if not np.isfinite(primary):
        primary = -row.get("auc", np.nan)
    return (row["status"] != "ok", not np.isfinite(primary), primary if np.isfinite(primary) else 0.0,
            row["learner"], row["label"])  # fmt: skip


def _refuse_twins(of_row: pd.DataFrame, results: Results) -> None:
    twice = of_row[of_row["seed"].duplicated(keep=False)]
    if len(twice):
        first = twice.iloc[0]
        raise DataError(
            f"{results.path}: cells {', '.join(twice['cell'])} are all '{first['label']}' with seed {first['seed']} on "
            f"{first['dataset']}, {first['protocol']}, K={first['k_shot']}; remove all but one of their folders"
        )


def _status(of_row: pd.DataFrame) -> tuple[str, str]:
    bad = of_row[of_row["status"] != "ok"].sort_values("seed")
    if not len(bad):
        return "ok", ""
    present = set(bad["status"])
    status = next((s for s in _GRAVITY if s in present), min(present))
    if len(bad) == len(of_row) and bad[["status", "reason"]].drop_duplicates().shape[0] == 1:
        return status, bad["reason"].iloc[0]
    reasons = [
        f"seed {seed}: {reason}" if own == status else f"seed {seed} ({own}): {reason}"
        for seed, own, reason in zip(bad["seed"], bad["status"], bad["reason"], strict=True)
    ]
    return status, "; ".join(reasons)


def _costs(of_row: pd.DataFrame) -> dict[str, Any]:
    adapt, predict = _measured(of_row["adapt_ms"]), _measured(of_row["predict_ms"])
    speed = of_row["episodes_per_s"].to_numpy()
    return {
        "prepare_s": of_row["prepare_s"].mean(),
        "meta_fit_s": of_row["meta_fit_s"].mean(),
        "adapt_ms_p50": np.quantile(adapt, 0.5) if len(adapt) else np.nan,
        "adapt_ms_p95": np.quantile(adapt, 0.95) if len(adapt) else np.nan,
        "predict_ms": np.quantile(predict, 0.5) if len(predict) else np.nan,
        "episodes_per_s": len(speed) / (1 / speed).sum() if (speed > 0).all() else np.nan,
        "peak_mb": of_row["peak_mb"].max(),
        "device_peak_mb": of_row["device_peak_mb"].max(),
        "trainable_params": None if of_row["trainable_params"].isna().all() else int(of_row["trainable_params"].max()),
    }


def _measured(lists: pd.Series) -> np.ndarray:
    return np.array([ms for one in lists if isinstance(one, list | tuple) for ms in one if ms is not None], dtype=float)


def _add_figures(
    rows: list[dict[str, Any]], of_rows: list[pd.DataFrame], results: Results, ndcg_names: tuple[str, ...]
) -> None:
    row_of = {cell: i for i, of_row in enumerate(of_rows) for cell in of_row["cell"]}
    seed_of = {cell: seed for of_row in of_rows for cell, seed in zip(of_row["cell"], of_row["seed"], strict=True)}
    scores = results.scores[results.scores["cell"].isin(list(row_of))]
    scores = scores.assign(row=scores["cell"].map(row_of), seed=scores["cell"].map(seed_of))
    aligned = AlignedScores.of(scores, len(rows))
    bias, popularity = _reference(rows, "bias"), _reference(rows, "item-popularity")
    figures = row_figures(aligned, bias, popularity, ndcg_names)
    warnings = prediction_warnings(aligned, [row["label"] for row in rows], _scale(of_rows[0], results))
    all_seeds = sorted({seed for of_row in of_rows for seed in of_row["seed"]})
    for i, (row, of_row) in enumerate(zip(rows, of_rows, strict=True)):
        row |= figures.iloc[i].to_dict()
        row["episodes"] = int(of_row["episodes"].sum())
        row["users"] = aligned.users(i)
        notes = warnings[i]
        if i != bias and row["diff_bias_low"] > 0:
            notes.append("worse than bias")
        seeds = sorted(of_row["seed"])
        if seeds != all_seeds:
            notes.append(f"only seed{'s' * (len(seeds) > 1)} {_listed(seeds)}, other rows have {_listed(all_seeds)}")
        elif (aligned.present[i] != aligned.present.any(axis=0)).any():
            notes.append("other rows have episodes that it lacks; differences are those on common ones")
        row["warning"] = "; ".join(notes)


def _reference(rows: list[dict[str, Any]], learner: str) -> int | None:
    """Return the row of a reference learner, preferring the one that carries no label of its own."""
    found = [i for i, row in enumerate(rows) if row["learner"] == learner]
    return min(found, key=lambda i: (rows[i]["label"] != learner, rows[i]["label"])) if found else None


def _scale(of_row: pd.DataFrame, results: Results) -> tuple[float, float] | None:
    said = of_row["scale"].iloc[0]
    if said is None:
        said = results.manifest.get("datasets", {}).get(of_row["dataset"].iloc[0], {}).get("scale")
    if isinstance(said, dict):
        said = [said.get("low"), said.get("high")]
    return (float(said[0]), float(said[1])) if said else None


def _listed(seeds: list[int]) -> str:
    return ", ".join(map(str, seeds))
