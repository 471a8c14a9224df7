"""The plots of a report: each module turns a leaderboard into plots of one kind, drawn by matplotlib when asked."""

from __future__ import annotations

import pandas as pd

from fewrec.report.curves import curves_of
from fewrec.report.plots.costs import cost_plots
from fewrec.report.plots.critical_difference import critical_difference_plots
from fewrec.report.plots.figure import Plot, Rendered, render
from fewrec.report.plots.heat_map import heat_maps
from fewrec.report.plots.meta_training import meta_training_plots
from fewrec.report.plots.online import online_plots
from fewrec.report.plots.shots import shot_plots
from fewrec.report.plots.speed import speed_plots
from fewrec.report.plots.style import PlotsMissing, require_matplotlib
from fewrec.report.results import Results
from fewrec.report.steps import error_by_step

__all__ = ["Plot", "PlotsMissing", "Rendered", "all_plots", "render", "require_matplotlib"]


def all_plots(results: Results, frame: pd.DataFrame) -> list[Plot]:
    """Return every plot that ``results`` can fill, in the order of a page; nothing is drawn yet, nor matplotlib needed.

    ``frame`` is the leaderboard of ``results``.
    """
    return [
        *shot_plots(frame),
        *online_plots(error_by_step(results), frame),
        *speed_plots(frame),
        *heat_maps(frame),
        *critical_difference_plots(results, frame),
        *meta_training_plots(curves_of(results)),
        *cost_plots(frame),
    ]
