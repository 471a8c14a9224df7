"""What a row costs: seconds to prepare and meta-fit, milliseconds an episode to adapt and predict, peak memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fewrec.report.leaderboard import TRIVIAL, tasks
from fewrec.report.measure import measure_of, task_name
from fewrec.report.numbers import one_line, short
from fewrec.report.plots.figure import Plot, task_scope
from fewrec.report.plots.style import INK, OKABE_ITO, SOFT, WIDTH, joined, new_figure, shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# column, name, unit, and the floor of its logarithmic axis (0: a linear one), below which all is as good as nothing
_PARTS = (
    ("prepare_s", "prepare", "s", 0.001),
    ("meta_fit_s", "meta-fit", "s", 0.001),
    ("adapt_ms_p50", "adapt", "ms an episode", 0.001),
    ("predict_ms", "predict", "ms an episode", 0.001),
    ("peak_mb", "peak memory", "MB", 0.0),
    ("device_peak_mb", "device memory", "MB", 0.0),
)


def cost_plots(frame: pd.DataFrame) -> Iterator[Plot]:
    """Yield the costs of each task's rows; parts that nobody measured are left out."""
    for task, rows in tasks(frame):
        rows = rows[rows["status"] == "ok"]
        parts = [part for part in _PARTS if (rows[part[0]] > part[3]).any()]
        if len(rows) and parts:
            yield _plot(task, rows.iloc[np.argsort(measure_of(rows).cost(rows).to_numpy(), kind="stable")], parts)


def _plot(task: tuple, rows: pd.DataFrame, parts: list[tuple[str, str, str, float]]) -> Plot:
    said = []
    for column, name, unit, _ in parts:
        if column != "prepare_s":
            most = rows.loc[rows[column].astype(float).idxmax()] if rows[column].notna().any() else None
            if most is not None:
                said.append(f"{name}, {one_line(most['label'])} with {short(most[column])} {unit}")
    alt = f"Costs of {len(rows)} rows on {task_name(task)}. Highest: {joined(said)}."
    caption = (
        "Prepare and meta-fit: seconds, once, mean over seeds. Adapt and predict: median milliseconds an episode, one "
        "episode at a time. Memory: peak of the process, on a linear axis from zero; times are on "
        "logarithmic ones. What took less than a thousandth of a second or millisecond everywhere is left out."
    )
    head = ("learner", *(f"{name} ({unit})" for _, name, unit, _ in parts))
    table = tuple(
        (one_line(row["label"]), *(short(row[column]) for column, *_ in parts)) for row in rows.to_dict("records")
    )
    return Plot("costs", f"Costs: {task_name(task)}", task_scope(task), alt, caption, head, table,
                lambda: _draw(rows, parts), wide=True)  # fmt: skip


def _draw(rows: pd.DataFrame, parts: list[tuple[str, str, str, float]]) -> Figure:
    figure, grid = new_figure(WIDTH * 2, 64 + 21 * len(rows), ncols=len(parts), sharey=True, squeeze=False)
    places = np.arange(len(rows))
    trivial = rows["learner"].isin(TRIVIAL).to_numpy()
    for axes, (column, name, unit, floor) in zip(grid[0], parts, strict=True):
        values = rows[column].to_numpy(dtype=float)
        there = np.isfinite(values)
        # in decades above the floor
        widths = np.log10(np.clip(values, floor, None) / floor) if floor else np.clip(values, 0, None)
        colors = [SOFT if one else OKABE_ITO[0] for one in trivial]
        axes.barh(places[there], widths[there], height=0.62, color=[c for c, t in zip(colors, there, strict=True) if t])
        top = float(widths[there].max())
        for place in places[there]:
            said = f"<{floor:g}" if values[place] < floor else short(values[place])
            axes.text(widths[place] + top * 0.03, place, said, va="center", fontsize=10.5, color=INK)
        if floor:
            decades = range(0, int(np.ceil(top)) + 1)
            ticks = [d for d in decades if d % max(1, -(-len(decades) // 4)) == 0]
            axes.set_xticks(ticks, [f"{floor * 10.0**d:,.4g}" for d in ticks])
        else:
            axes.locator_params(axis="x", nbins=3)
        axes.set_xlim(0, top * 1.38)
        axes.set_title(f"{name}, {unit}", fontsize=11.5)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
    grid[0][0].set_yticks(places, [shown(label) for label in rows["label"]])
    grid[0][0].set_ylim(len(rows) - 0.4, -0.6)
    return figure
