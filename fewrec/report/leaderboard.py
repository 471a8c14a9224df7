"""The leaderboard as a frame: one row a (dataset, protocol, N, K, Q, learner, label), pooled over seeds, from cells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, get_args

import numpy as np
import pandas as pd

from fewrec.errors import DataError
from fewrec.report.figures import AlignedScores, Interval, row_figures
from fewrec.report.naming import SIGN_BREAK, TASK, state_rank
from fewrec.report.optional import CALIBRATION, POOLED, UPDATES, top_names
from fewrec.report.pooled import pooled_figures
from fewrec.report.ranks import rank_rows
from fewrec.report.results import Results, shot_rank
from fewrec.report.timed_on import kinds_of, leave_out_unlike
from fewrec.report.warning_signs import prediction_warnings, tuning_warnings

COLUMNS = [
    *TASK, "seeds", "learner", "label", "status", "reason", "episodes", "users",
    "rmse", "rmse_low", "rmse_high", "mae", "mae_low", "mae_high", "ndcg5", "auc", "skill",
    "diff_bias", "diff_bias_low", "diff_bias_high",
    "meta_fit_s", "adapt_ms_p50", "adapt_ms_p95", "predict_ms", "episodes_per_s", "peak_mb", "trainable_params",
    "ndcg5_low", "ndcg5_high", "auc_low", "auc_high", "rmse_user", "mae_user",
    "diff_best", "diff_best_low", "diff_best_high", "p_best", "tie", "p_bias", "rank", "rank_group", "tuning",
    "undefined_users", "prepare_s", "device_peak_mb", "warning",
]  # fmt: skip
CLICK_COLUMNS = ["diff_popularity", "diff_popularity_low", "diff_popularity_high", "p_popularity"]
_INTEGERS = ("n_users", "n_query", "seeds", "episodes", "users", "trainable_params", "undefined_users", "tie")
_TEXTS = (
    "dataset",
    "protocol",
    "state",
    "k_shot",
    "learner",
    "label",
    "status",
    "reason",
    "rank_group",
    "tuning",
    "warning",
)
_GRAVITY = ("failed", "timeout", "incomplete", "not applicable")
TRIVIAL = frozenset(
    {"global-mean", "user-mean", "user-median", "item-mean", "item-popularity", "bias", "bias-shots", "random"}
)  # rows that a learner has to beat


def leaderboard(results: Results, interval: Interval = "percentile") -> pd.DataFrame:
    """Return the leaderboard of ``results``: columns ``COLUMNS`` (and nDCG at other k than 5 behind them, then
    those of ``fewrec.report.optional``, and ``CLICK_COLUMNS`` where a task is of clicks).

    Sorted by task, then by RMSE (AUC for clicks), rows without figures last. Errors are in rating units, times in
    seconds or milliseconds an episode as named, memory in MB. A row is pooled over its seeds: RMSE is that of all query
    ratings together; ``seeds`` counts them, ``episodes`` adds them up, ``users`` are distinct test users. Meta-fit and
    prepare seconds are means over seeds, latencies quantiles of all measured episodes, episodes/s the harmonic mean,
    memory and parameters the maximum. Rows that were timed on another kind of node than most have no timings, and a
    warning that says so (``fewrec.report.timed_on``). A row of which any seed has no result has a status and a reason,
    and no figures.

    ``_low`` and ``_high`` are 95 % bootstrap intervals over users, of the kind that ``interval`` says (the frame's
    ``attrs["interval"]``). ``p_best`` and ``p_bias``: two-sided, of the difference to the best row and to ``bias``,
    corrected by Holm over the rows of the task. ``tie``: 1 where ``p_best`` is at least .05, 0 otherwise and for the
    best row itself. ``rank``: mean over test users of the row's rank by the user's mean squared error, among the rows
    that cover all of the task; rows that share a letter of ``rank_group`` are not told apart by the Nemenyi test at .05
    (see ``fewrec.report.ranks``). ``tuning``: ``default``, ``set``, ``tuned, 20 trials``, or empty where not recorded.

    Of clicks, columns of RMSE, MAE and ``bias`` are empty. The best row is that of the highest AUC, ``diff_best`` is
    AUC minus that of the best row (below zero is worse), ``diff_popularity`` and ``p_popularity`` compare AUC with that
    of ``item-popularity``, and ranks are by the user's mean AUC.

    Raises ``DataError`` where two cells claim the same row and seed; ``ValueError`` for another ``interval``.
    """
    if interval not in get_args(Interval):
        raise ValueError(f"interval '{interval}' is none of {', '.join(get_args(Interval))}")
    cells = results.cells
    ranking_names = (*ndcg_names(cells["ndcg_at"]), *top_names(results.scores.columns))
    extra = [f"{name}{end}" for name in ranking_names if name != "ndcg5" for end in ("", "_low", "_high")]
    rows: list[dict[str, Any]] = []
    for task, of_task in tasks(cells):
        rows += _task_rows(task, of_task, results, ranking_names, interval)
    timed = [row for row in rows if row["status"] == "ok"]
    leave_out_unlike(timed, [row.pop("timed_on") for row in timed])
    if any(CALIBRATION[0] in row for row in rows):
        extra += [f"{name}{end}" for name in CALIBRATION for end in ("", "_low", "_high")]
    extra += UPDATES if any(UPDATES[0] in row for row in rows) else []
    extra += [f"{POOLED}{end}" for end in ("", "_low", "_high")] if any(POOLED in row for row in rows) else []
    extra += CLICK_COLUMNS if any(CLICK_COLUMNS[0] in row for row in rows) else []
    frame = pd.DataFrame(rows, columns=[*COLUMNS, *extra])
    for name in frame.columns:
        if name in _INTEGERS:
            frame[name] = frame[name].astype("Int64")
        elif name not in _TEXTS:
            frame[name] = frame[name].astype("float64")
    frame.attrs["interval"] = interval
    return frame


def ndcg_names(asked: Iterable[int | list[int] | None]) -> tuple[str, ...]:
    """Return the columns of nDCG@k by k, for each cell's k or list of them; ``ndcg5`` is always among them."""
    lists = [[5], *(k if isinstance(k, list) else [] if k is None or pd.isna(k) else [k] for k in asked)]
    return tuple(f"ndcg{k}" for k in sorted({int(k) for one in lists for k in one}))


def tasks(frame: pd.DataFrame) -> Iterator[tuple[tuple, pd.DataFrame]]:
    """Yield (task, rows) for each task of cells or of a leaderboard: by data set, state in the usual order, then K."""
    groups = {task: rows for task, rows in frame.groupby(TASK, sort=False, dropna=False)}
    for task in sorted(groups, key=lambda t: (t[0], state_rank(t[2]), t[1], t[3], shot_rank(t[4]), t[5])):
        yield task, groups[task]


def is_best(row: dict[str, Any]) -> bool:
    """Say whether a row (of ``to_dict("records")``) has the best primary metric of those that cover all of its task."""
    return row["diff_best"] == 0 and pd.isna(row["p_best"])


def is_tie(row: dict[str, Any]) -> bool:
    """Say whether a row is not told apart from the best one: its Holm-corrected ``p_best`` is at least .05."""
    return not pd.isna(row["tie"]) and row["tie"] == 1


def _task_rows(
    task: tuple, cells: pd.DataFrame, results: Results, ranking_names: tuple[str, ...], interval: Interval
) -> list[dict[str, Any]]:
    rows, complete = [], []
    for (learner, label), of_row in sorted(cells.groupby(["learner", "label"], sort=False), key=lambda pair: pair[0]):
        _refuse_twins(of_row, results)
        row = dict(zip(TASK, task, strict=True)) | {"learner": learner, "label": label, "warning": "", "rank_group": ""}
        row["seeds"] = len(of_row)
        row["status"], row["reason"] = _status(of_row)
        row["tuning"] = tuning_text(of_row["tuning"])
        rows.append(row)
        if row["status"] == "ok":
            row |= _costs(of_row)
            row["timed_on"] = kinds_of(of_row, results.manifest.get("environment") or {})
            complete.append((row, of_row))
    if complete:
        _add_figures([row for row, _ in complete], [of_row for _, of_row in complete], results, ranking_names, interval)
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
    update = _measured(of_row["update_ms"])
    speed = of_row["episodes_per_s"].to_numpy()
    updates = {name: np.quantile(update, q) for name, q in zip(UPDATES, (0.5, 0.95), strict=True) if len(update)}
    return {
        **updates,
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
    rows: list[dict[str, Any]],
    of_rows: list[pd.DataFrame],
    results: Results,
    ranking_names: tuple[str, ...],
    interval: Interval,
) -> None:
    aligned = AlignedScores.of_cells(results.scores, of_rows)
    bias, popularity = _reference(rows, "bias"), _reference(rows, "item-popularity")
    figures = row_figures(aligned, bias, popularity, ranking_names, interval=interval)
    if results.in_windows(of_rows[0]):
        pooled = pooled_figures(results.pairs, of_rows, interval=interval)
        for row, own in zip(rows, pooled.to_dict("records"), strict=True):
            row |= own
    labels = [row["label"] for row in rows]
    scale = _scale(of_rows[0], results) if aligned.rated else None  # predictions of clicks are scores, on no scale
    warnings = prediction_warnings(aligned, labels, scale)
    primary = figures["rmse"].where(np.isfinite(figures["rmse"]), -figures["auc"])
    chosen = tuning_warnings(of_rows, primary.tolist())
    all_seeds = sorted({seed for of_row in of_rows for seed in of_row["seed"]})
    for i, (row, of_row) in enumerate(zip(rows, of_rows, strict=True)):
        row |= figures.iloc[i].to_dict()
        row["episodes"] = int(of_row["episodes"].sum())
        row["users"] = aligned.users(i)
        notes = warnings[i]
        if i != bias and row["diff_bias_low"] > 0:
            notes.append("worse than bias")
        if i != popularity and row.get("diff_popularity_high", np.nan) < 0:
            notes.append("worse than item-popularity")
        seeds = sorted(of_row["seed"])
        if seeds != all_seeds:
            notes.append(f"only seed{'s' * (len(seeds) > 1)} {_listed(seeds)}, other rows have {_listed(all_seeds)}")
        elif (aligned.present[i] != aligned.present.any(axis=0)).any():
            notes.append("other rows have episodes that it lacks, differences are those on common ones")
        row["warning"] = SIGN_BREAK.join(notes + chosen[i])
    ranked = rank_rows(aligned, labels)
    if ranked is not None:
        ranks, order = ranked
        for i, mean_rank, letters in zip(order, ranks.mean_rank, ranks.letters, strict=True):
            rows[i] |= {"rank": mean_rank, "rank_group": letters}


def tuning_text(of_cells: Iterable[dict[str, Any] | None]) -> str:
    """Return in a few words where the options of a row come from: its cells' records, "" where there are none."""
    said = []
    for tuning in of_cells:
        if not isinstance(tuning, dict):
            continue
        kind = tuning.get("kind")
        if kind == "tuned":
            trials, budget = tuning.get("trials"), tuning.get("budget")
            said.append(f"tuned, {trials} trials" if trials == budget else f"tuned, {trials} of {budget} trials")
        else:
            said.append(str(kind) if kind else "")
    return "; ".join(dict.fromkeys(filter(None, said)))


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
