"""The online protocol: the error of each further prediction against the number of ratings learnt before it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fewrec.report.leaderboard import TASK, tasks
from fewrec.report.measure import RMSE, scored, task_name
from fewrec.report.numbers import interval, one_line, short
from fewrec.report.optional import UPDATES
from fewrec.report.plots.figure import Plot, task_scope
from fewrec.report.plots.shots import MEAN, picked_labels
from fewrec.report.plots.style import FAINT, INK, SOFT, WIDTH, Look, joined, looks, new_figure, shown, told_apart

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def online_plots(steps: pd.DataFrame, frame: pd.DataFrame) -> Iterator[Plot]:
    """Yield a plot of each task of ``steps``, as ``report.steps.error_by_step`` gives them; ``frame``: leaderboard."""
    styles = looks(frame)
    for task, rows in tasks(frame):
        own = steps[(steps[TASK].astype(str) == [str(value) for value in task]).all(axis=1)]
        rows = scored(rows, RMSE)
        own = own[own["label"].isin(rows["label"])]
        if own["step"].nunique() > 1:
            picked = picked_labels(rows, RMSE)
            yield _plot(task, own, rows, picked, told_apart(picked, styles))


def _plot(task: tuple, steps: pd.DataFrame, rows: pd.DataFrame, picked: list[str], styles: dict[str, Look]) -> Plot:
    ends = [int(steps["step"].min()), int(steps["step"].max())]
    compared = bool(steps["diff_bias_low"].notna().any()) and any(label not in ("bias", MEAN) for label in picked)
    by_row = steps.set_index(["label", "step"])
    said = []
    for step in ends:
        at = steps[steps["step"] == step]
        best = at.loc[at["rmse"].idxmin()]
        figure = interval(best["rmse"], best["rmse_low"], best["rmse_high"])
        said.append(f"{one_line(best['label'])} after {_ratings(step - 1)}, {figure}")
    where = task_name(task)
    alt = f"RMSE against the number of ratings learnt online, on {where}. Lowest: {joined(said)}."
    updates = rows.set_index("label")[UPDATES[0]] if UPDATES[0] in rows else pd.Series(dtype=float)
    known = [label for label in picked if np.isfinite(updates.get(label, np.nan))]
    timed = [f"{one_line(label)} {short(updates[label])}" for label in known]
    second = " (above), and the paired difference to bias (below; below zero is better)" if compared else ""
    caption = (
        "RMSE of each further rating, predicted before it is learnt, against how many have been learnt since the "
        f"support{second}. Bands are 95 % intervals over test users"
        f"{', above that of the best row alone' if compared else ''}; the ratings of one step are others than those of "
        "the next, so that all rows go up and down together."
    )
    if timed:
        caption += f" Median milliseconds of an update: {joined(timed)}."
    middle = (ends[0] + ends[1]) // 2
    head = ("learner", *(f"after {step - 1}" for step in (ends[0], middle, ends[1])), "update ms")
    table = tuple(
        (one_line(label), *(
            interval(*by_row.loc[(label, step), ["rmse", "rmse_low", "rmse_high"]])
            if (label, step) in by_row.index else "" for step in (ends[0], middle, ends[1])
        ), short(updates.get(label, np.nan)))
        for label in rows["label"]
    )  # fmt: skip
    return Plot("online", f"RMSE by ratings learnt online: {where}", task_scope(task), alt, caption, head, table,
                lambda: _draw(steps, picked, styles, compared))  # fmt: skip


def _ratings(count: int) -> str:
    return "1 rating" if count == 1 else f"{count} ratings"


def _draw(steps: pd.DataFrame, picked: list[str], styles: dict[str, Look], compared: bool) -> Figure:
    figure, grid = new_figure(WIDTH, 620 if compared else 400, nrows=1 + compared, sharex=True, squeeze=False)
    _lines(grid[0, 0], steps, "rmse", picked, picked[:1] if compared else picked, styles)
    grid[0, 0].set_ylabel("RMSE")
    if compared:
        others = [label for label in picked if label not in ("bias", MEAN)]
        _lines(grid[1, 0], steps[steps["label"] != "bias"], "diff_bias", others, others, styles)
        grid[1, 0].set_ylabel("RMSE − RMSE of bias")
        grid[1, 0].axhline(0, color=INK, linewidth=1.1, linestyle="--", zorder=1.5)
        grid[1, 0].text(1, 0, "bias", transform=grid[1, 0].get_yaxis_transform(), ha="right", va="bottom", color=SOFT)
    grid[-1, 0].set_xlabel("ratings learnt since the support")
    handles = grid[0, 0].get_legend_handles_labels()
    columns = max(1, min(4, 74 // (max(len(shown(label)) for label in picked) + 6)))
    figure.legend(*handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=11.5, handlelength=2,
                  columnspacing=1.2)  # fmt: skip
    return figure


def _lines(
    axes: Axes, steps: pd.DataFrame, column: str, picked: list[str], banded: list[str], styles: dict[str, Look]
) -> None:
    from matplotlib.ticker import MaxNLocator

    seen: list[float] = []
    for label, own in steps.groupby("label", sort=True):
        own = own.sort_values("step")
        x, y = own["step"].to_numpy() - 1, own[column].to_numpy(float)
        if label not in picked:
            axes.plot(x, y, color=FAINT, linewidth=0.9, zorder=1)
            continue
        ends = [own[f"{column}_{end}"].to_numpy(float) for end in ("low", "high")] if label in banded else []
        if ends:
            axes.fill_between(x, *ends, color=styles[label].color, alpha=0.12, linewidth=0, zorder=1.2)
        seen += [value for part in (y, *ends) for value in part[np.isfinite(part)]]
    for label in picked:  # in the order of the legend
        own, look = steps[steps["label"] == label].sort_values("step"), styles[label]
        axes.plot(own["step"] - 1, own[column], color=look.color, linestyle="--" if look.dashed else "-",
                  marker=look.marker, markersize=5, markeredgecolor="white", markeredgewidth=0.7, label=shown(label),
                  zorder=3)  # fmt: skip
    if seen:
        margin = (max(seen) - min(seen)) * 0.06 or 0.01
        axes.set_ylim(min(seen) - margin, max(seen) + margin)
    axes.grid(axis="x", visible=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
