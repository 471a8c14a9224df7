"""The rows and findings of report.html as plain values; apart from the page because they know nothing of HTML."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from fewrec.report.leaderboard import TASK, TRIVIAL, is_tie, tasks
from fewrec.report.measure import Measure, measure_of, scored, task_name
from fewrec.report.naming import why_excluded
from fewrec.report.numbers import fixed, one_line, short
from fewrec.report.optional import CALIBRATION, optional_columns
from fewrec.report.plots.figure import task_scope
from fewrec.report.plots.style import joined
from fewrec.report.results import Results

LEVEL = 0.05  # of the corrected tests


@dataclass(frozen=True)
class Column:
    """A column of the table: the leaderboard's column that it shows and sorts by, its head, what it means, whether the
    best is the lowest (``ascending``), how a value is written, and whether it has an interval."""

    name: str
    head: str
    meaning: str
    ascending: bool
    written: Callable[[Any], str]
    interval_decimals: int | None = None


def _columns() -> list[Column]:
    four, signed, three = (
        lambda v: fixed(v, 4), lambda v: fixed(v, 4, sign=True), lambda v: fixed(v, 3, sign=True)
    )  # fmt: skip
    whole = lambda v: "" if pd.isna(v) else f"{int(v):,}"  # noqa: E731
    return [
        Column("rmse", "RMSE", "root mean squared error over all query ratings, clipped to the scale", True, four, 3),
        Column("diff_bias", "− bias", "RMSE minus that of bias, paired; below zero is better", True, signed, 4),
        Column("diff_popularity", "AUC − popularity",
               "clicks: AUC minus that of item-popularity, paired; above zero is better", False, signed, 4),
        Column("rank", "rank", "mean rank over test users; rows that share a letter are not told apart", True,
               lambda v: fixed(v, 2)),
        Column("mae", "MAE", "mean absolute error over all query ratings", True, four, 3),
        Column("ndcg5", "nDCG@5", "mean over users, each over the user's own query", False, four, 3),
        Column("auc", "AUC", "share of a user's pairs in the right order, mean over users", False, four, 3),
        Column("skill", "skill", "1 − MSE / MSE of bias; clicks: 1 − (1 − AUC) / (1 − AUC of item-popularity)", False,
               three),
        Column("meta_fit_s", "meta-fit s", "seconds of meta-fitting, once, mean over seeds", True, short),
        Column("adapt_ms_p50", "adapt ms", "median milliseconds to adapt to an episode", True, short),
        Column("predict_ms", "predict ms", "median milliseconds to predict an episode", True, short),
        Column("episodes_per_s", "episodes/s", "at the learner's preferred batch", False, short),
        Column("peak_mb", "peak MB", "peak memory of the process", True, short),
        Column("trainable_params", "parameters", "all that is fitted, in meta-fit and in adapting", True, whole),
    ]  # fmt: skip


def shown_columns(frame: pd.DataFrame) -> list[Column]:
    """Return the numeric columns that have a value anywhere in ``frame``; where all tasks share their primary metric,
    it comes first."""
    shown = [column for column in _columns() if column.name in frame and frame[column.name].notna().any()]
    costs = next((place for place, column in enumerate(shown) if column.name == "meta_fit_s"), len(shown))
    for one in optional_columns(frame):
        written = (lambda value: fixed(value, 4)) if one.metric else short
        column = Column(one.name, one.head, one.meaning, one.ascending, written, 3 if one.metric else None)
        if one.name in CALIBRATION:  # beside the other metrics
            shown.insert(costs, column)
            costs += 1
        else:
            shown.append(column)
    used = {measure_of(rows).column for _, rows in tasks(frame)}
    return sorted(shown, key=lambda column: used != {column.name})


def table_groups(results: Results, frame: pd.DataFrame, columns: list[Column]) -> list[dict[str, Any]]:
    """Return a group a task: its name, scope, coverage, and rows of cells ready to be written."""
    out = []
    for task, rows in tasks(frame):
        measure = measure_of(rows)
        best = measure.best(rows)
        out.append({
            "name": task_name(task),
            "scope": task_scope(task) | {"state": one_line(task[2])},
            "coverage": _coverage(rows, results.of_task(task)),
            "rows": [_row(row, best, measure, columns) for row in rows.to_dict("records")],
        })  # fmt: skip
    return out


def _row(row: dict[str, Any], best: str | None, measure: Measure, columns: list[Column]) -> dict[str, Any]:
    ok = row["status"] == "ok"
    cells = []
    for column in columns:
        value = row[column.name]
        text = column.written(value) if ok and not pd.isna(value) else ""
        small = ""
        if text and column.interval_decimals is not None:
            ends = [fixed(row[f"{column.name}_{end}"], column.interval_decimals, text[0] in "+-" or
                          column.name.startswith("diff_")) for end in ("low", "high")]  # fmt: skip
            small = f"{ends[0]} to {ends[1]}" if all(ends) else ""
        elif text and column.name == "rank":
            small = one_line(row.get("rank_group") or "")
        cells.append(
            {
                "text": text.replace("-", "−"),
                "small": small.replace("-", "−"),
                "sort": repr(float(value)) if text else "",
                "primary": column.name == measure.column,
            }
        )
    learner, label = one_line(row["learner"]), one_line(row["label"])
    return {
        "label": label,
        "learner": "" if label.startswith(learner) else learner,
        "trivial": row["learner"] in TRIVIAL,
        "best": ok and row["label"] == best,
        "tie": ok and is_tie(row),
        "ok": ok,
        "status": one_line(row["status"]),
        "reason": one_line(row["reason"] or ""),
        "warning": one_line(row["warning"] or ""),
        "tuning": one_line(row.get("tuning") or ""),
        "cells": cells,
    }


def _coverage(rows: pd.DataFrame, cells: pd.DataFrame) -> str:
    ok = rows[rows["status"] == "ok"]
    parts = []
    for name in ("seeds", "episodes", "users"):
        counts = sorted(set(ok[name].dropna()))
        if counts:
            parts.append(f"{' or '.join(f'{count:,}' for count in counts)} {name[:-1] if counts == [1] else name}")
    eligible = cells["eligible_users"].dropna()
    excluded = cells["excluded_users"].dropna()
    if len(eligible) and len(excluded) and excluded.max() > 0:
        out_of, why = int((eligible + excluded).max()), why_excluded(cells["protocol"].iloc[0])
        parts.append(f"{int(excluded.max()):,} of {out_of:,} test users excluded ({why})")
    left_out = ok["undefined_users"].dropna()
    if len(left_out) and left_out.max() > 0:
        parts.append(f"up to {int(left_out.max()):,} (episode, user) rows left out of ranking metrics")
    return ", ".join(parts)


def beats_baseline(row: pd.Series | dict[str, Any], measure: Measure) -> bool:
    """Return whether a row does better than its baseline in the primary metric, by the corrected paired test."""
    difference = row[f"diff_{measure.ending}"]
    better = difference < 0 if measure.lower_is_better else difference > 0
    return bool(better and row[f"p_{measure.ending}"] < LEVEL)


def task_findings(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return what each task says: its best row, what ties with it, and which learners don't beat the baseline."""
    out = []
    constant = tuple(name for name in TASK if frame[name].nunique() == 1) if frame.groupby(TASK).ngroups > 1 else ()
    for task, rows in tasks(frame):
        measure = measure_of(rows)
        best = measure.best(rows)
        figures = scored(rows, measure)
        losers = [
            one_line(row["label"]) for row in figures.to_dict("records")
            if row["learner"] not in TRIVIAL and not beats_baseline(row, measure)
        ]  # fmt: skip
        learners = int((~figures["learner"].isin(TRIVIAL)).sum())
        ties = [one_line(row["label"]) for row in figures.to_dict("records") if is_tie(row)]
        finding = {
            "task": task_name(task, without=constant), "best": None,
            "ties": ties, "ties_tested": bool(figures["p_best"].notna().any()), "losers": losers,
            "learners": learners, "baseline": measure.baseline,
            "tested": measure.baseline in set(figures["learner"]),
            "warnings": int((rows["warning"].fillna("") != "").sum()),
            "without": int((rows["status"] != "ok").sum()),
        }  # fmt: skip
        if best is not None:
            row = figures[figures["label"] == best].iloc[0]
            ends = [fixed(row[f"{measure.column}_{end}"], 3) for end in ("low", "high")]
            finding |= {"best": one_line(best), "measure": measure.name, "figure": fixed(row[measure.column], 4),
                        "ends": f"{ends[0]} to {ends[1]}" if all(ends) else "",
                        "skill": fixed(100 * row["skill"], 1, sign=True).replace("-", "−")}  # fmt: skip
        out.append(finding)
    return out


def headlines(frame: pd.DataFrame, findings: list[dict[str, Any]]) -> list[str]:
    """Return the findings over all tasks, in sentences."""
    decided = [one for one in findings if one["best"] is not None]
    if not decided:
        return ["No row has figures yet." if len(frame) else "There is no finished cell yet."]
    counts: dict[str, int] = {}
    for one in decided:
        counts[one["best"]] = counts.get(one["best"], 0) + 1
    order = sorted(counts, key=lambda label: (-counts[label], label))
    n = len(decided)
    if n == 1:
        one = decided[0]
        alone = "ties were not tested"
        if one["ties_tested"]:
            alone = f"tied with {joined(one['ties'])}" if one["ties"] else "no other row ties with it"
        ends = f" (95 % interval {one['ends']})" if one["ends"] else ""
        out = [f"{one['best']} is best, {one['measure']} {one['figure']}{ends}; {alone}."]
    else:
        out = [f"{joined([f'{label} is best on {counts[label]}' for label in order[:4]])} of {n} tasks."]
        known = [one for one in decided if one["ties_tested"]]
        if known:
            tied = sum(bool(one["ties"]) for one in known)
            out.append(f"Other rows tie with the best on {tied or 'none'} of {len(known)} tasks.")
    tested = [one for one in decided if one["tested"] and one["learners"]]
    if tested:
        pairs, lost = sum(one["learners"] for one in tested), sum(len(one["losers"]) for one in tested)
        names = joined(sorted({one["baseline"] for one in tested}))
        if not lost:
            out.append(f"Every learner beats {names}{'' if n == 1 else ' on every task'}.")
        elif n == 1:
            out.append(f"{lost} of {pairs} learners do not beat {names}.")
        else:
            out.append(f"In {lost} of {pairs} (learner, task) pairs, the learner does not beat {names}.")
    warned = sum(one["warnings"] for one in findings)
    without = sum(one["without"] for one in findings)
    out.append(f"{warned} {'row has' if warned == 1 else 'rows have'} a warning; {without} "
               f"{'has' if without == 1 else 'have'} no figures.")  # fmt: skip
    return out
