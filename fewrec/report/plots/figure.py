"""A plot as data: what it shows in words and in numbers, and how it is drawn; and its bytes as SVG and PNG."""

from __future__ import annotations

import io
import re
import unicodedata
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fewrec.report.leaderboard import TASK
from fewrec.report.plots.style import plot_style
from fewrec.report.plots.svg import small_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PNG_DPI = 144
_LONGEST_NAME = 80  # characters of a file's name


@dataclass(frozen=True)
class Plot:
    """One plot: ``kind`` (which section it belongs to), ``scope`` (the fields of the tasks it is about, all others if
    a field is absent), ``alt`` (its finding in a sentence or two), ``caption``, its numbers (``head``, ``rows``), and
    ``draw``, called inside ``plot_style``. ``wide`` takes the whole width of a page."""

    kind: str
    title: str
    scope: dict[str, str]
    alt: str
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    draw: Callable[[], Figure] = field(repr=False)
    wide: bool = False


@dataclass(frozen=True)
class Rendered:
    """A plot with its file's name (without suffix, safe and unique) and its bytes."""

    plot: Plot
    name: str
    svg: str
    png: bytes


def render(plots: list[Plot], drawn: Callable[[int], None] = lambda count: None) -> list[Rendered]:
    """Draw all plots; the same plots give the same bytes. ``drawn`` is told after each how many are."""
    out: list[Rendered] = []
    taken: set[str] = set()
    for plot in plots:
        parts = [f"{key}{value}" if len(key) == 1 else value for key, value in plot.scope.items()]
        name = file_name([plot.kind, *parts], taken)
        taken.add(name)
        with plot_style(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a glyph that the font lacks, a layout that is tight: the plot is there
            svg, png = _drawn(plot.draw())
        out.append(Rendered(plot, name, small_svg(svg, name.replace(".", "-"), plot.alt), png))
        drawn(len(out))
    return out


def _drawn(figure: Figure) -> tuple[bytes, bytes]:
    """Return ``figure`` as SVG and as PNG, laid out once for both: layout takes longer than drawing."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    svg, png = io.BytesIO(), io.BytesIO()
    FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None, "Creator": None})
    figure.set_layout_engine("none")
    figure.set_dpi(_PNG_DPI)
    FigureCanvasAgg(figure).print_png(png, metadata={"Software": None})
    return svg.getvalue(), png.getvalue()


def file_name(parts: list[str], taken: set[str]) -> str:
    """Return a file's name made of ``parts``: lower-case ASCII letters, digits, dots and hyphens, not among ``taken``.

    It can't leave its folder, is no device name, and differs from the others on file systems that ignore case.
    """
    text = unicodedata.normalize("NFKD", "-".join(map(str, parts))).encode("ascii", "ignore").decode().lower()
    text = re.sub(r"[^a-z0-9.]+", "-", text).strip("-.")
    text = re.sub(r"\.{2,}", ".", text)[:_LONGEST_NAME].strip("-.") or "plot"
    name, number = text, 1
    while name in taken:
        number += 1
        name = f"{text}-{number}"
    return name


def task_scope(task: tuple, *, without: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the scope of a plot of one task, or of all that differ in the fields ``without`` alone."""
    fields = zip(TASK, task, strict=True)
    letters = {"n_users": "n", "k_shot": "k", "n_query": "q"}
    return {letters.get(name, name): f"{value}" for name, value in fields if name not in (*without, "state")}
