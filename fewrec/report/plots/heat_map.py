"""Skill of each learner on each task: rows learners, columns tasks, colour and number against the baseline."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fewrec.report.leaderboard import TASK, tasks
from fewrec.report.measure import measure_of
from fewrec.report.numbers import fixed, one_line
from fewrec.report.plots.figure import Plot
from fewrec.report.plots.style import GRID, INK, SOFT, joined, new_figure, shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_COLUMNS = 16  # of one map; with more, each data set gets its own
_FULL = 0.05  # skill at which the colour is full: what separates learners is a few per cent


def heat_maps(frame: pd.DataFrame) -> Iterator[Plot]:
    """Yield a map of all tasks, or one a data set where there are many; none without a skill."""
    groups: list[tuple[dict[str, str], pd.DataFrame]] = [({}, frame)]
    if frame.groupby(TASK, dropna=False).ngroups > _MOST_COLUMNS:
        groups = [({"dataset": str(name)}, rows) for name, rows in frame.groupby("dataset", sort=False)]
    for scope, rows in groups:
        if rows["skill"].notna().any():
            yield _plot(scope, rows)


def _plot(scope: dict[str, str], frame: pd.DataFrame) -> Plot:
    columns = [task for task, _ in tasks(frame)]
    skill = np.full((frame["label"].nunique(), len(columns)), np.nan)
    labels = sorted(set(frame["label"]))
    row_of = {label: i for i, label in enumerate(labels)}
    leaders = []
    for j, (_, rows) in enumerate(tasks(frame)):
        for label, value in zip(rows["label"], rows["skill"], strict=True):
            skill[row_of[label], j] = value
        best = measure_of(rows).best(rows)
        if best is not None:
            leaders.append(best)
    filled = np.isfinite(skill)
    mean = np.array([row[there].mean() if there.any() else -np.inf for row, there in zip(skill, filled, strict=True)])
    order = sorted(range(len(labels)), key=lambda i: (not filled[i].any(), -mean[i], labels[i]))
    skill, labels = skill[order], [labels[i] for i in order]
    heads = _heads(columns)
    beating = [label for label, row in zip(labels, skill, strict=True) if (row[np.isfinite(row)] > 0).any()]
    counts = {label: leaders.count(label) for label in dict.fromkeys(leaders)}
    most = sorted(counts, key=lambda label: (-counts[label], label))[:3]
    firsts = joined([f"{one_line(label)} ({counts[label]} of {len(columns)} tasks)" for label in most])
    alt = (
        f"Skill of {len(labels)} rows on {len(columns)} tasks. Best most often: {firsts}. {len(beating)} rows have "
        f"positive skill somewhere; the lowest is {_percent(np.nanmin(skill))} %, the highest "
        f"{_percent(np.nanmax(skill))} %."
    )
    caption = (
        "Skill in per cent: how much of the baseline's error a row takes away (bias; item-popularity for clicks). Blue "
        f"is better than the baseline, orange worse, full colour at {100 * _FULL:.0f} %; framed is the best row of a "
        "task. Struck out: no result, for the reason given in the table."
    )
    table = tuple(
        (one_line(label), *(_percent(value) for value in row)) for label, row in zip(labels, skill, strict=True)
    )
    names = tuple(", ".join(part for part in (group, name) if part) for group, name in heads)
    title = "Skill on every task" + (f": {scope['dataset']}" if scope else "")
    return Plot("heat-map", title, scope, alt, caption, ("learner", *names), table,
                lambda: _draw(skill, labels, heads), wide=True)  # fmt: skip


def _heads(columns: list[tuple]) -> list[tuple[str, str]]:
    """Return each column's group and name: the fields that differ, K (with N and Q where they differ) last."""
    fields = [dict(zip(TASK, task, strict=True)) for task in columns]
    differ = {name for name in TASK if len({one[name] for one in fields}) > 1}
    out = []
    for one in fields:
        group = [one_line(one[name]) for name in ("dataset", "protocol") if name in differ]
        parts = [f"{letter}={one[name]}" for name, letter in (("n_users", "N"), ("k_shot", "K"), ("n_query", "Q"))
                 if name in differ or name == "k_shot"]  # fmt: skip
        out.append((", ".join(group), " ".join(parts)))
    return out


def _percent(value: float) -> str:
    return fixed(100 * value, 1, sign=True) if np.isfinite(value) else ""


def _draw(skill: np.ndarray, labels: list[str], heads: list[tuple[str, str]]) -> Figure:
    from matplotlib.colors import Normalize
    from matplotlib.patches import Rectangle

    n_rows, n_columns = skill.shape
    left, cell, height = 22 + 7.4 * max(len(shown(label)) for label in labels), 66, 25
    longest_head = max(len(name) for _, name in heads)
    cell = max(cell, 9 * longest_head)
    above = 54 if any(group for group, _ in heads) else 30
    width, tall = left + cell * n_columns + 14, above + height * n_rows + 8
    figure, axes = new_figure(width, tall)
    figure.set_layout_engine("none")
    axes.set_position((left / width, 8 / tall, cell * n_columns / width, height * n_rows / tall))
    axes.set(xlim=(0, n_columns), ylim=(n_rows, 0))
    axes.grid(visible=False)
    axes.axis("off")
    norm = Normalize(-_FULL, _FULL)
    best = [int(np.nanargmax(column)) if np.isfinite(column).any() else -1 for column in skill.T]
    for i in range(n_rows):
        axes.text(-8 / cell, i + 0.5, shown(labels[i]), ha="right", va="center")
        for j in range(n_columns):
            value = skill[i, j]
            if not np.isfinite(value):
                axes.add_patch(Rectangle((j, i), 1, 1, facecolor="white", edgecolor="white", linewidth=1.5))
                axes.plot([j + 0.2, j + 0.8], [i + 0.8, i + 0.2], color="#b4bac1", linewidth=1)
                continue
            color = diverging(float(norm(value)))
            axes.add_patch(Rectangle((j, i), 1, 1, facecolor=color, edgecolor="white", linewidth=1.5))
            axes.text(j + 0.5, i + 0.5, _percent(value).replace("-", "−"), ha="center", va="center",
                      color=text_on(color),
                      fontweight="bold" if best[j] == i else "normal")  # fmt: skip
            if best[j] == i:
                axes.add_patch(
                    Rectangle((j + 0.035, i + 0.08), 0.93, 0.84, facecolor="none", edgecolor=INK, linewidth=1.3)
                )
    for j, (_, name) in enumerate(heads):
        axes.text(j + 0.5, -0.2, name, ha="center", va="bottom")
    starts = [j for j in range(n_columns) if j == 0 or heads[j][0] != heads[j - 1][0]]
    for start, end in zip(starts, [*starts[1:], n_columns], strict=True):
        room = max(4, int((end - start) * cell / 7.2))
        group = heads[start][0]
        group = group if len(group) <= room else group[: room - 1] + "…"
        axes.text((start + end) / 2, -1.25, group, ha="center", va="bottom", fontweight="bold")
        if start:
            axes.plot([start, start], [-1.9, n_rows], color=SOFT, linewidth=1.2, clip_on=False)
    axes.plot([0, n_columns], [-0.06, -0.06], color=GRID, linewidth=1, clip_on=False)
    return figure


def diverging(share: float) -> tuple[float, float, float]:
    """Return a colour for 0 (worst, vermilion) over 0.5 (white) to 1 (best, blue), the ends being Okabe and Ito's."""
    worst, middle, best = np.array([0xD5, 0x5E, 0x00]), np.array([0xF7, 0xF7, 0xF7]), np.array([0x00, 0x72, 0xB2])
    share = min(max(share, 0.0), 1.0)
    end, part = (worst, 1 - 2 * share) if share < 0.5 else (best, 2 * share - 1)
    red, green, blue = (middle + (end - middle) * part) / 255
    return float(red), float(green), float(blue)


def text_on(color: tuple[float, float, float]) -> str:
    """Return black or white, whichever contrasts more with ``color``: at least 4.5 to 1 on any colour."""
    light = luminance(color) + 0.05  # contrast is (light + .05) / (dark + .05)
    return "black" if light / 0.05 >= 1.05 / light else "white"


def luminance(color: tuple[float, float, float]) -> float:
    """Return the relative luminance of an sRGB colour (WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
