"""Learning curves of meta-training: meta-validation RMSE against step, a small multiple a learner, a line a seed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fewrec.report.numbers import fixed, one_line
from fewrec.report.plots.figure import Plot
from fewrec.report.plots.style import FAINT, INK, OKABE_ITO, WIDTH, joined, new_figure, shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ACROSS, _PANEL_HEIGHT = (5, 6, 7), 132  # panels a row: as many as leave the fewest places empty


def meta_training_plots(curves: pd.DataFrame) -> Iterator[Plot]:
    """Yield the learning curves of each (data set, state) of ``curves``, as ``report.curves.curves_of`` gives them."""
    curves = curves[np.isfinite(curves["validation_rmse"].astype(float))]
    for (dataset, state), rows in curves.groupby(["dataset", "state"], sort=False):
        panels = dict(_panels(rows))
        if panels:
            yield _plot(str(dataset), str(state), panels)


def _panels(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield each learner's (and configuration's) curves: steps down, seeds across, NaN where a seed has no step."""
    several = rows.groupby("learner")["configuration"].nunique()
    for (learner, configuration), own in rows.groupby(["learner", "configuration"], sort=True):
        name = f"{learner} ({configuration})" if several[learner] > 1 else str(learner)
        wide = own.pivot_table(index="step", columns="seed", values="validation_rmse", aggfunc="mean")
        if len(wide) > 1:
            yield name, wide


def change(wide: pd.DataFrame) -> pd.DataFrame:
    """Return a learner's curves less each seed's first recorded value: what meta-training changed since its start."""
    return wide - wide.bfill().iloc[0]


def mean_curve(wide: pd.DataFrame) -> pd.Series:
    """Return the mean over seeds at the steps that all of them reached: without it, a seed that stops makes a jump."""
    common = wide.dropna()
    return common.mean(axis=1) if len(common) > 1 else wide.mean(axis=1)


def _plot(dataset: str, state: str, panels: dict[str, pd.DataFrame]) -> Plot:
    best = {name: float(mean_curve(change(wide)).min()) for name, wide in panels.items()}
    order = sorted(best, key=lambda name: (best[name], name))
    gains = [name for name in order if best[name] < 0]
    said = joined([f"{one_line(name)} ({fixed(best[name], 4, sign=True)})" for name in order[:3]])
    where = f"{one_line(dataset)}, {one_line(state)}"
    alt = (
        f"Meta-validation RMSE during meta-training on {where}, {len(panels)} learners, less its value at the start. "
        f"Largest gains at the best step: {said}. {len(gains)} of {len(panels)} learners go below their start."
    )
    caption = (
        "Meta-validation RMSE less that of the first recorded step (step 0 is where gradient-based learners start): "
        "thin lines are seeds, the thick line is their mean as far as all of them go. All panels share the vertical "
        "axis; below zero, meta-training has helped."
    )
    table = []
    for name in order:
        wide = panels[name]
        mean = mean_curve(wide)
        table.append((one_line(name), f"{wide.shape[1]}", f"{wide.index[-1]}", fixed(mean.iloc[0], 4),
                      fixed(mean.min(), 4), f"{mean.idxmin()}", fixed(mean.iloc[-1], 4)))  # fmt: skip
    head = ("learner", "seeds", "last step", "RMSE at the start", "lowest mean", "at step", "last mean")
    return Plot("meta-training", f"Learning curves of meta-training: {where}", {"dataset": dataset, "state": state},
                alt, caption, head, tuple(table), lambda: _draw({name: panels[name] for name in order}),
                wide=True)  # fmt: skip


def _draw(panels: dict[str, pd.DataFrame]) -> Figure:
    across = min(_ACROSS, key=lambda one: (-len(panels) % one, one)) if len(panels) > _ACROSS[0] else _ACROSS[0]
    down = -(-len(panels) // across)
    figure, grid = new_figure(
        WIDTH * 2, 40 + _PANEL_HEIGHT * down, nrows=down, ncols=across, sharey=True, squeeze=False
    )
    changes = {name: change(wide) for name, wide in panels.items()}
    low = min(float(one.min().min()) for one in changes.values())
    high = max(float(one.max().max()) for one in changes.values())
    high = min(high, max(-low, 1e-3) * 2)  # where meta-training diverges, the gains of the others must stay visible
    margin = (high - low) * 0.08 or 0.01
    for axes, (name, one) in zip(grid.flat, changes.items(), strict=False):
        for seed in one:
            line = one[seed].dropna()
            axes.plot(line.index, line, color=FAINT, linewidth=0.9)
        mean = mean_curve(one)
        axes.plot(mean.index, mean, color=OKABE_ITO[0], linewidth=2)
        axes.axhline(0, color=INK, linewidth=0.8, linestyle="--", zorder=1)
        axes.set_title(shown(name), fontsize=11.5)
        axes.set_ylim(low - margin, high + margin)
        last = float(one.index[-1])
        axes.set_xticks([float(one.index[0]), last], [f"{one.index[0]}", f"{one.index[-1]}"])
        axes.grid(axis="x", visible=False)
    for axes in list(grid.flat)[len(panels) :]:
        axes.remove()
    figure.supxlabel("step", fontsize=11.5)
    figure.supylabel("RMSE − start", fontsize=11.5)
    return figure
