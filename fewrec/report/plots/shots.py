"""Accuracy against the number of support ratings, K: the metric itself, and the paired difference to the baseline."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fewrec.report.leaderboard import TASK, TRIVIAL
from fewrec.report.measure import Measure, measure_of, scored, task_name
from fewrec.report.numbers import interval, one_line
from fewrec.report.plots.figure import Plot, task_scope
from fewrec.report.plots.style import FAINT, INK, SOFT, WIDTH, Look, joined, looks, new_figure, shown, told_apart
from fewrec.report.results import shot_rank

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HIGHLIGHTED = 6  # learners that get a colour; what all others do is visible in grey
MEAN = "user-mean"  # what a user's own ratings say by themselves, shown beside the baseline


def shot_plots(frame: pd.DataFrame) -> Iterator[Plot]:
    """Yield the plots of each (data set, protocol, N, Q) that has more than one K: the metric, and the difference to
    the baseline (``bias``, for clicks ``item-popularity``) where the table has it."""
    styles = looks(frame)
    without_k = [name for name in TASK if name != "k_shot"]
    for task, rows in _groups(frame, without_k):
        measure = measure_of(rows)
        rows = scored(rows, measure)
        shots = sorted(set(rows["k_shot"]), key=shot_rank)
        if len(shots) < 2:
            continue
        picked = picked_labels(rows, measure)
        yield _plot("shots", task, rows, shots, measure, picked, told_apart(picked, styles))
        others = [
            label for label in picked if label not in (measure.baseline, MEAN)
        ]  # a mean's distance would flatten all others
        compared = f"diff_{measure.ending}_low"
        if compared in rows and rows[compared].notna().any() and others:
            yield _plot("shots-difference", task, rows, shots, measure, others, told_apart(picked, styles))


def _groups(frame: pd.DataFrame, names: list[str]) -> Iterator[tuple[tuple, pd.DataFrame]]:
    for _, rows in frame.groupby(names, sort=False, dropna=False):
        yield tuple(rows.iloc[0][name] for name in TASK), rows


def picked_labels(rows: pd.DataFrame, measure: Measure) -> list[str]:
    """Return the labels to highlight: the best that a reader asks for, among those that have most K, and two trivial
    rows to measure them by; sorted by the metric."""
    mean = rows.assign(cost=measure.cost(rows)).groupby("label").agg(
        cost=("cost", "mean"), count=("cost", "size"), learner=("learner", "first"))  # fmt: skip
    mean = mean.sort_values(["count", "cost"], ascending=[False, True], kind="stable")
    best = [label for label, learner in zip(mean.index, mean["learner"], strict=True) if learner not in TRIVIAL]
    picked = [*best[:HIGHLIGHTED], *(name for name in (measure.baseline, MEAN) if name in mean.index)]
    return sorted(picked, key=lambda label: (mean.loc[label, "cost"], label))


def _plot(
    kind: str, task: tuple, rows: pd.DataFrame, shots: list, measure: Measure, picked: list[str],
    styles: dict[str, Look],
) -> Plot:  # fmt: skip
    difference = kind == "shots-difference"
    column = f"diff_{measure.ending}" if difference else measure.column
    name, baseline = measure.name, measure.baseline
    better, best_end = ("below", "Lowest") if measure.lower_is_better else ("above", "Highest")
    where = task_name(task, without=("k_shot",))
    ends = []
    for k in (shots[0], shots[-1]):
        of_k = rows[rows["k_shot"] == k]
        best = measure.best(of_k)
        row = of_k[of_k["label"] == best].iloc[0]
        said = interval(row[column], row[f"{column}_low"], row[f"{column}_high"], sign=difference)
        ends.append(f"{one_line(best)} at K={k}, {said}")
    if difference:
        alt = f"{name} minus that of {baseline}, against K, on {where}; {better} zero is better. "
        alt += f"{best_end} {name}: {joined(ends)}."
        caption = (
            f"Paired difference in {name} to {baseline} with 95 % intervals over test users: a row whose interval lies "
            f"{better} zero beats {baseline}."
        )
    else:
        alt = f"{name} against K on {where}. Best: {joined(ends)}."
        against = [label for label in (baseline, MEAN) if label in picked]
        caption = (
            f"{name} with 95 % intervals; "
            f"{'lower' if measure.lower_is_better else 'higher'} is better. In the legend are the best learners"
            f"{f', and {joined(against)} to measure them by' if against else ''}; all other rows are grey."
        )
    head = ("learner", *(f"K={k}" for k in shots))
    table = []
    for label in dict.fromkeys(rows["label"]):
        of_label = rows[rows["label"] == label].set_index("k_shot")
        table.append((one_line(label), *(
            interval(*(of_label.loc[k, f"{column}{end}"] for end in ("", "_low", "_high")), sign=difference)
            if k in of_label.index else "" for k in shots
        )))  # fmt: skip
    title = f"{f'Difference to {baseline}' if difference else name} against K"
    return Plot(
        kind, f"{title}: {where}", task_scope(task, without=("k_shot",)), alt, caption, head, tuple(table),
        lambda: _draw(rows, shots, column, picked, styles, measure, difference),
    )  # fmt: skip


def _draw(
    rows: pd.DataFrame, shots: list, column: str, picked: list[str], styles: dict[str, Look], measure: Measure,
    difference: bool,
) -> Figure:  # fmt: skip
    from matplotlib.lines import Line2D

    figure, axes = new_figure(WIDTH, 400)
    places = {k: place for place, k in enumerate(shots)}
    handles, seen = [], []
    for label, of_label in rows.groupby("label", sort=True):
        of_label = of_label.sort_values("k_shot", key=lambda column: column.map(places))
        x = of_label["k_shot"].map(places).to_numpy(dtype=float)
        y = of_label[column].to_numpy(dtype=float)
        if label not in picked:
            axes.plot(x, y, color=FAINT, linewidth=0.9, zorder=1, marker=".", markersize=3)
            continue
        low, high = (of_label[f"{column}_{end}"].to_numpy(dtype=float) for end in ("low", "high"))
        look, place = styles[label], picked.index(label)
        x = x + (place - (len(picked) - 1) / 2) * 0.045  # intervals beside each other, not on top
        axes.vlines(x, low, high, color=look.color, linewidth=1.1, zorder=2)
        axes.plot(x, y, color=look.color, linestyle="--" if look.dashed else "-", marker=look.marker, markersize=6,
                  markeredgecolor="white", markeredgewidth=0.7, zorder=3)  # fmt: skip
        seen += [value for part in (y, low, high) for value in part[np.isfinite(part)]]
    for label in picked:
        look = styles[label]
        line = Line2D([], [], color=look.color, linestyle="--" if look.dashed else "-", marker=look.marker,
                      markersize=6, markeredgecolor="white", markeredgewidth=0.7, label=shown(label))  # fmt: skip
        handles.append(line)
    if difference:
        seen.append(0.0)
    margin = (max(seen) - min(seen)) * 0.06 or 0.01
    axes.set_ylim(min(seen) - margin, max(seen) + margin)
    axes.set_xlim(-0.4, len(shots) - 0.6)
    axes.set_xticks(range(len(shots)), [f"{k}" for k in shots])
    axes.grid(axis="x", visible=False)
    axes.set_xlabel("K, support ratings of a user")
    axes.set_ylabel(f"{measure.name} − {measure.name} of {measure.baseline}" if difference else measure.name)
    if difference:
        axes.axhline(0, color=INK, linewidth=1.1, linestyle="--", zorder=1.5)
        axes.text(1, 0, measure.baseline, transform=axes.get_yaxis_transform(), ha="right", va="bottom", color=SOFT)
    columns = max(1, min(4, 74 // (max(len(shown(label)) for label in picked) + 6)))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=11.5,
                  handlelength=2, columnspacing=1.2)  # fmt: skip
    return figure
