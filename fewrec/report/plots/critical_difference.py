"""Critical-difference diagrams (Demšar, JMLR 7, 2006, figure 1): mean ranks over users, and which rows they don't tell
apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fewrec.report.leaderboard import TRIVIAL, tasks
from fewrec.report.measure import measure_of, task_name
from fewrec.report.numbers import fixed, one_line, p_text
from fewrec.report.plots.figure import Plot, task_scope
from fewrec.report.plots.style import INK, OKABE_ITO, SOFT, joined, new_figure, shown
from fewrec.report.ranks import RankFigures, task_ranks
from fewrec.report.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH = 860  # px
_AXIS, _ROW, _BAR = 60, 19, 8  # px: where the axis lies, and the height of a name and of a group's bar


def critical_difference_plots(results: Results, frame: pd.DataFrame) -> Iterator[Plot]:
    """Yield the diagram of each task that has at least three rows and two users to rank."""
    for task, rows in tasks(frame):
        ranks = task_ranks(results, task)
        if ranks is not None:
            trivial = set(rows["label"][rows["learner"].isin(TRIVIAL)])
            yield _plot(task, ranks, trivial, "squared error" if measure_of(rows).column == "rmse" else "1 − AUC")


def _plot(task: tuple, ranks: RankFigures, trivial: set[str], error: str) -> Plot:
    best = next((last for first, last in ranks.groups if first == 0), 0)
    tied = [one_line(label) for label in ranks.labels[1 : best + 1]]
    alone = f"not told apart from {joined(tied)}" if tied else "ahead of all others by more than that"
    alt = (
        f"Mean ranks of {len(ranks.labels)} rows over {ranks.users} users on {task_name(task)}: "
        f"{one_line(ranks.labels[0])} is first with {fixed(ranks.mean_rank[0], 2)}, {alone}; "
        f"{one_line(ranks.labels[-1])} is last with {fixed(ranks.mean_rank[-1], 2)}. The critical difference is "
        f"{fixed(ranks.critical_difference, 2)}."
    )
    caption = (
        f"Each user ranks the rows by mean {error}; less is better. A bar joins rows whose mean ranks differ by less "
        f"than the critical difference (CD, Nemenyi test at 5 %), so that the data don't tell them apart. Friedman "
        f"test: {p_text(ranks.p_friedman)}."
    )
    table = tuple(
        (f"{place}", one_line(label), fixed(rank, 3), letters)
        for place, (label, rank, letters) in enumerate(
            zip(ranks.labels, ranks.mean_rank, ranks.letters, strict=True), start=1
        )
    )
    head = ("place", "learner", "mean rank", "groups")
    return Plot("ranks", f"Critical-difference diagram: {task_name(task)}", task_scope(task), alt, caption, head, table,
                lambda: _draw(ranks, trivial), wide=True)  # fmt: skip


def _draw(ranks: RankFigures, trivial: set[str]) -> Figure:
    count = len(ranks.labels)
    half = (count + 1) // 2
    bars = [group for group in ranks.groups if group[1] > group[0]]
    first_name = _AXIS + 16 + _BAR * _rows_needed(bars)
    height = first_name + _ROW * half + 6
    figure, axes = new_figure(_WIDTH, height)
    figure.set_layout_engine("none")
    axes.set_position((0, 0, 1, 1))
    axes.set(xlim=(0, _WIDTH), ylim=(height, 0))
    axes.axis("off")
    gutter = 66 + 7.2 * max(len(shown(label)) for label in ranks.labels)  # names lie beside the axis, not under it
    left, right = gutter, _WIDTH - gutter
    lowest, highest = int(np.floor(ranks.mean_rank[0])), int(np.ceil(ranks.mean_rank[-1]))
    highest = max(highest, lowest + int(np.ceil(ranks.critical_difference)))  # room for the bar that shows it

    def place(rank: float) -> float:
        return left + (rank - lowest) / (highest - lowest) * (right - left)

    axes.plot([left, right], [_AXIS, _AXIS], color=INK, linewidth=1.2)
    step = max(1, -(-(highest - lowest) // 12))
    for tick in range(lowest, highest + 1):
        labelled = (tick - lowest) % step == 0
        axes.plot([place(tick)] * 2, [_AXIS - (6 if labelled else 3), _AXIS], color=INK, linewidth=1)
        if labelled:
            axes.text(place(tick), _AXIS - 9, f"{tick}", ha="center", va="bottom", color=SOFT)
    axes.text(right, 14, "mean rank over users, 1 is best", ha="right", va="center", color=SOFT)
    length = (right - left) * ranks.critical_difference / (highest - lowest)
    start = left
    axes.plot([start, start + length], [30, 30], color=INK, linewidth=1.6)
    for x in (start, start + length):
        axes.plot([x, x], [26, 34], color=INK, linewidth=1.6)
    axes.text(start, 14, f"critical difference {ranks.critical_difference:.2f}", ha="left", va="center")
    for level, (first, last) in _levels(bars):
        below = _AXIS + 10 + _BAR * level
        axes.plot([place(ranks.mean_rank[first]) - 2, place(ranks.mean_rank[last]) + 2], [below, below],
                  color=OKABE_ITO[1], linewidth=3.4, solid_capstyle="round")  # fmt: skip
    for i, (label, rank) in enumerate(zip(ranks.labels, ranks.mean_rank, strict=True)):
        on_left = i < half
        y = first_name + _ROW * (i if on_left else count - 1 - i) + _ROW / 2
        end = 16.0 if on_left else _WIDTH - 16.0
        slant = "italic" if label in trivial else "normal"
        weight = "bold" if i == 0 else "normal"
        text = f"{rank:.2f}  {shown(label)}" if on_left else f"{shown(label)}  {rank:.2f}"
        axes.text(end, y, text, ha="left" if on_left else "right", va="center", fontstyle=slant, fontweight=weight,
                  fontsize=11)  # fmt: skip
        room = 10 + 6.6 * len(text)
        beside = min(end + room, left - 4) if on_left else max(end - room, right + 4)
        axes.plot([beside, place(rank), place(rank)], [y, y, _AXIS], color=SOFT, linewidth=0.8, zorder=1)
    return figure


def _levels(bars: list[tuple[int, int]]) -> Iterator[tuple[int, tuple[int, int]]]:
    """Yield each bar with the lowest level at which it meets no other."""
    ends: list[int] = []
    for first, last in bars:
        level = next((i for i, end in enumerate(ends) if end < first), len(ends))
        ends[level : level + 1] = [last]
        yield level, (first, last)


def _rows_needed(bars: list[tuple[int, int]]) -> int:
    return max((level for level, _ in _levels(bars)), default=-1) + 1
