"""Accuracy against time, with the Pareto front: what each further millisecond, or second of meta-fitting, buys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fewrec.report.leaderboard import TRIVIAL, tasks
from fewrec.report.measure import Measure, measure_of, scored, task_name
from fewrec.report.numbers import fixed, one_line, short
from fewrec.report.plots.figure import Plot, task_scope
from fewrec.report.plots.style import INK, OKABE_ITO, SOFT, WIDTH, joined, new_figure, plain_log_ticks, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class _Time:
    kind: str
    axis: str
    floor: float  # of the logarithmic axis; what takes less is drawn there
    words: str


_LATENCY = _Time("speed-episode", "milliseconds an episode, adapt + predict (median)", 0.01, "an episode")
_META_FIT = _Time("speed-meta-fit", "seconds of meta-fitting", 0.01, "meta-fitting")


def speed_plots(frame: pd.DataFrame) -> Iterator[Plot]:
    """Yield two plots a task: the primary metric against the time of an episode, and against that of meta-fitting."""
    for task, rows in tasks(frame):
        measure = measure_of(rows)
        rows = scored(rows, measure)
        for time, values in (
            (_LATENCY, rows["adapt_ms_p50"] + rows["predict_ms"]),
            (_META_FIT, rows["meta_fit_s"]),
        ):
            timed = rows.assign(time=values.astype(float))
            timed = timed[np.isfinite(timed["time"])]
            if len(timed):
                yield _plot(task, timed.reset_index(drop=True), time, measure)


def front(time: Sequence[float], cost: Sequence[float]) -> list[int]:
    """Return the points that no other beats in time and in cost (less is better in both), the fastest first."""
    out: list[int] = []
    for point in sorted(range(len(time)), key=lambda i: (time[i], cost[i], i)):
        if not out or cost[point] < cost[out[-1]]:
            out.append(point)
    return out


def _plot(task: tuple, rows: pd.DataFrame, time: _Time, measure: Measure) -> Plot:
    drawn = rows["time"].clip(lower=time.floor)  # below the floor, differences are noise of the clock
    on_front = front(drawn.to_numpy(), measure.cost(rows).to_numpy())
    unit = "ms" if time is _LATENCY else "s"
    said = [
        f"{one_line(rows['label'][i])} ({_at(rows['time'][i], time)} {unit}, {fixed(rows[measure.column][i], 4)})"
        for i in on_front
    ]
    alt = (
        f"{measure.name} against time of {time.words} on {task_name(task)}, {len(rows)} rows. On the Pareto front, "
        f"the fastest first: {joined(said)}."
    )
    better = "down" if measure.lower_is_better else "up"
    caption = (
        f"{measure.name} against {time.axis}; better is {better} and to the left. The line joins the rows that no "
        "other row beats in both; hollow points are trivial rows."
    )
    head = ("learner", "on the front", unit, measure.name)
    table = tuple(
        (one_line(row["label"]), "yes" if i in on_front else "", short(row["time"]), fixed(row[measure.column], 4))
        for i, row in enumerate(rows.to_dict("records"))
    )
    title = f"{measure.name} against {'time an episode' if time is _LATENCY else 'time of meta-fitting'}"
    return Plot(time.kind, f"{title}: {task_name(task)}", task_scope(task), alt, caption, head, table,
                lambda: _draw(rows, drawn.to_numpy(), on_front, time, measure))  # fmt: skip


def _at(value: float, time: _Time) -> str:
    return short(value) if value > time.floor else f"at most {time.floor:g}"


def _draw(rows: pd.DataFrame, x: np.ndarray, on_front: list[int], time: _Time, measure: Measure) -> Figure:
    figure, axes = new_figure(WIDTH, 380)
    values = rows[measure.column].to_numpy(dtype=float)
    low, high, beyond = _view(values, on_front, measure)
    y = np.clip(values, low, high)
    trivial = rows["learner"].isin(TRIVIAL).to_numpy()
    out_of_view = values != y
    for marks, marker in ((~out_of_view, "o"), (out_of_view, "^" if measure.lower_is_better else "v")):
        for hollow in (False, True):
            which = marks & (trivial == hollow)
            which[on_front] = False
            if not which.any():
                continue  # an empty line that isn't clipped takes room at the corner of the figure
            axes.plot(x[which], y[which], linestyle="none", marker=marker, markersize=6, color=SOFT, alpha=0.8,
                      markerfacecolor="white" if hollow else SOFT, clip_on=False)  # fmt: skip
    axes.plot(x[on_front], y[on_front], color=OKABE_ITO[1], linewidth=1.6, drawstyle="steps-post", zorder=2.5)
    for hollow in (False, True):
        which = [i for i in on_front if trivial[i] == hollow]
        if not which:
            continue
        axes.plot(x[which], y[which], linestyle="none", marker="o", markersize=8, color=OKABE_ITO[1], zorder=3,
                  markerfacecolor="white" if hollow else OKABE_ITO[1], markeredgewidth=1.6, clip_on=False)  # fmt: skip
    margin = (high - low) * 0.06
    best_end = margin * 2  # names of the best rows stand there
    lower = measure.lower_is_better
    axes.set_ylim(low - (best_end if lower else margin), high + (margin if lower else best_end))
    at_floor = bool((x <= time.floor).any())
    left, right = x.min() / (1.6 if at_floor else 2.2), x.max() * 2.6
    plain_log_ticks(axes, left, right, time.floor if at_floor else None)
    axes.set_xlabel(time.axis)
    axes.set_ylabel(measure.name)
    if beyond:
        axes.text(1, 1, f"{'▲' if measure.lower_is_better else '▼'} {beyond} beyond the axis", ha="right", va="bottom",
                  transform=axes.transAxes, color=SOFT, fontsize=10.5)  # fmt: skip
    baseline = rows["label"].eq(measure.baseline).to_numpy()
    _label(axes, x, y, on_front, [shown(label) for label in rows["label"]], baseline)
    return figure


def _view(values: np.ndarray, on_front: list[int], measure: Measure) -> tuple[float, float, int]:
    """Return the range of the y axis: all of the front, and around the best as much again as most rows need."""
    cost = values if measure.lower_is_better else -values
    best = cost.min()
    worst = max(cost[on_front].max(), float(np.quantile(cost, 0.7)))
    reach = (worst - best) * 1.25 or abs(best) * 0.01 or 0.01
    limit = min(best + reach, max(cost.max(), worst)) if cost.max() > best else best + reach
    beyond = int((cost > limit).sum())
    low, high = (best, limit) if measure.lower_is_better else (-limit, -best)
    return low, high, beyond


def _label(axes: Axes, x: np.ndarray, y: np.ndarray, points: list[int], names: list[str], also: np.ndarray) -> None:
    """Write the names of ``points`` (and of ``also``) beside them, each where it covers no point and no other name."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = axes.get_figure(root=True)
    assert figure is not None  # these axes were made by a figure
    canvas = FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    renderer = canvas.get_renderer()
    spots = axes.transData.transform(np.column_stack([x, y]))
    corners = [(x[j], y[i]) for i, j in pairwise(points)]
    steps = [spot for i, corner in zip(points, corners, strict=False) for spot in ((x[i], y[i]), corner)]
    path = axes.transData.transform([*steps, (x[points[-1]], y[points[-1]])])
    line = np.concatenate([np.linspace(start, end, 40) for start, end in pairwise(path)] or [np.empty((0, 2))])
    taken: list[Any] = []
    inside = axes.get_window_extent(renderer)
    for i in [*points, *(int(k) for k in np.flatnonzero(also) if k not in points)]:
        bold = i in points
        best = None
        for dx, dy, ha, va in _SIDES:
            text = axes.annotate(names[i], (x[i], y[i]), (dx, dy), textcoords="offset points", ha=ha, va=va,
                                 color=INK if bold else SOFT, fontsize=11.5, annotation_clip=False)  # fmt: skip
            box = text.get_window_extent(renderer)
            padded = box.padded(4)  # what a point takes around its centre
            covered = sum(box.overlaps(other) for other in taken) * 3
            covered += int(sum(padded.contains(*spot) for k, spot in enumerate(spots) if k != i))
            covered += bool(line.size) and int(any(box.contains(*spot) for spot in line)) * 2
            covered += 5 * (box.x0 < inside.x0 or box.x1 > inside.x1 + 8 or box.y1 > inside.y1 + 12)
            if best is None or covered < best[0]:
                if best is not None:
                    best[1].remove()
                best = (covered, text, box)
            else:
                text.remove()
            if covered == 0:
                break
        if best is not None:
            taken.append(best[2])


_SIDES = (  # where a name may stand: offset in points, and alignment
    (6, 5, "left", "bottom"), (9, 0, "left", "center"), (0, 9, "center", "bottom"), (-6, 7, "right", "bottom"),
    (-8, 0, "right", "center"), (6, -7, "left", "top"), (0, -9, "center", "top"), (-6, -7, "right", "top"),
    (12, 18, "left", "bottom"), (12, -18, "left", "top"),
)  # fmt: skip
