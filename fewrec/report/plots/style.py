"""How all plots look: size, fonts, colours that colour-blind people tell apart, and one colour and marker a learner."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fewrec.errors import FewrecError
from fewrec.report.leaderboard import TRIVIAL, tasks
from fewrec.report.measure import measure_of
from fewrec.report.numbers import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

UNIT = 72  # SVG units an inch, so that a font size of 12 is 12 px where the figure is shown at its own size
WIDTH = 560  # px, of a figure that takes half of the page
INK, SOFT, FAINT, GRID = "#1b1f24", "#57606a", "#b4bac1", "#e4e7eb"
# Okabe and Ito, Color Universal Design, 2008, without yellow and black
OKABE_ITO = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "<", ">", "h")
_LONGEST = 26  # characters of a learner's name in a plot; tables have all of it
_RC = {
    "font.family": ["DejaVu Sans"], "font.size": 11.5, "text.parse_math": False, "axes.titlesize": 12.5,
    "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.labelsize": 11.5, "axes.edgecolor": SOFT,
    "axes.labelcolor": INK, "text.color": INK, "xtick.color": SOFT, "ytick.color": SOFT, "xtick.labelcolor": INK,
    "ytick.labelcolor": INK, "xtick.labelsize": 11.5, "ytick.labelsize": 11.5, "axes.spines.top": False,
    "axes.spines.right": False, "axes.linewidth": 0.8, "axes.grid": True, "axes.axisbelow": True, "grid.color": GRID,
    "grid.linewidth": 0.8, "figure.facecolor": "white", "axes.facecolor": "white", "lines.linewidth": 1.8,
    "svg.fonttype": "none", "svg.hashsalt": "fewrec", "path.simplify": True, "axes.unicode_minus": True,
    "axes.formatter.use_mathtext": False, "axes.formatter.useoffset": False,
}  # fmt: skip


class PlotsMissing(FewrecError):
    """Matplotlib isn't installed."""


def require_matplotlib() -> None:
    """Raise ``PlotsMissing``, which says how to get it, where matplotlib isn't installed."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise PlotsMissing(
            "plots and report.html need matplotlib: pip install 'fewrec[report]' (the tables need nothing; --no-plots)"
        ) from None


@contextmanager
def plot_style() -> Iterator[None]:
    """Draw with the style of the report, whatever the user's own matplotlibrc says."""
    import matplotlib.style

    with matplotlib.style.context(["default", _RC]):
        yield


def new_figure(width: float, height: float, **axes: Any) -> tuple[Figure, Any]:
    """Return a figure of ``width`` x ``height`` px and its axes (``subplots``' options), laid out without overlap."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=6 / UNIT, h_pad=6 / UNIT)
    figure = Figure(figsize=(width / UNIT, height / UNIT), dpi=UNIT, layout=layout)
    return figure, figure.subplots(**axes)


@dataclass(frozen=True)
class Look:
    """A learner's colour and marker, the same in all plots of a page."""

    color: str
    marker: str
    dashed: bool = False


def looks(frame: pd.DataFrame) -> dict[str, Look]:
    """Return each label's look: rows that do best over all tasks come first, and get the most distinct looks."""
    ranks: dict[str, list[float]] = {}
    for _, rows in tasks(frame):
        measure = measure_of(rows)
        ordered = rows.iloc[np.argsort(measure.cost(rows).to_numpy(), kind="stable")]
        for place, label in enumerate(ordered["label"]):
            ranks.setdefault(label, []).append(place / len(rows))
    trivial = {label: learner in TRIVIAL for label, learner in zip(frame["label"], frame["learner"], strict=True)}
    order = sorted(ranks, key=lambda label: (-len(ranks[label]), float(np.mean(ranks[label])), label))
    out = {}
    for place, label in enumerate(label for label in order if not trivial[label]):
        marker = _MARKERS[(place + place // len(OKABE_ITO)) % len(_MARKERS)]
        out[label] = Look(OKABE_ITO[place % len(OKABE_ITO)], marker)
    for place, label in enumerate(label for label in order if trivial[label]):
        out[label] = Look(INK if label == "bias" else SOFT, _MARKERS[place % len(_MARKERS)], dashed=True)
    return out


def told_apart(labels: Sequence[str], styles: dict[str, Look]) -> dict[str, Look]:
    """Return the looks of a few labels that share a plot: where two have one colour, the later takes a free one."""
    out: dict[str, Look] = {}
    for label in labels:
        look = styles[label]
        used = {other.color for other in out.values()}
        free = [color for color in OKABE_ITO if color not in used]
        if not look.dashed and look.color in used and free:
            look = Look(free[0], look.marker)
        out[label] = look
    return out


def shown(label: Any) -> str:
    """Return a learner's name as plots write it: one line, at most 26 characters."""
    text = one_line(label)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1].rstrip() + "…"


def plain_log_ticks(axes: Axes, low: float, high: float, floor: float | None = None) -> None:
    """Give a logarithmic x axis plain ticks (0.01, 1, 100); ``floor`` is where values at or below it are drawn."""
    from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

    axes.set_xscale("log")
    axes.set_xlim(low, high)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [10.0**d for d in decades if low <= 10.0**d <= high]
    if len(ticks) < 3:
        ticks = [tick for d in decades for tick in (10.0**d, 2 * 10.0**d, 5 * 10.0**d) if low <= tick <= high] or [low]
    ticks = ticks[:: math.ceil(len(ticks) / 6)]
    if floor is not None:
        ticks = [floor, *(tick for tick in ticks if tick > floor * 3)]
    names = [f"{tick:,.0f}" if tick >= 1 else f"{tick:g}" for tick in ticks]
    if floor is not None:
        names[0] = f"≤{names[0]}"
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.set_xticks(ticks, names)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def joined(names: Sequence[str]) -> str:
    """Return ``a, b and c``."""
    names = [one_line(name) for name in names]
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)
