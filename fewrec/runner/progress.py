"""What a run shows while it works: a live display with ETA on a terminal, one line a cell elsewhere, or nothing."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from fewrec.runner.cell import CellSpec

T = TypeVar("T")


class Reporter:
    """The hooks that a run calls; this one shows nothing."""

    def start(self, cells: Sequence[CellSpec], expected_s: Sequence[float]) -> None:
        """A run of these cells begins; ``expected_s`` are estimates of their seconds."""

    def cell(self, spec: CellSpec) -> None:
        """A cell begins."""

    def phase(self, name: str) -> None:
        """A phase of the current cell begins: prepare, meta-fit or adapt."""

    def episodes_done(self, count: int) -> None:
        """More episodes of the current cell are complete."""

    def track(self, steps: Sequence[T], label: str) -> Iterator[T]:
        """Yield the steps of a long loop inside a phase."""
        return iter(steps)

    def finished(self, spec: CellSpec, status: str) -> None:
        """The current cell has ended with this status."""

    def warn(self, text: str) -> None:
        """Something that ends no run but that its user must know."""
        warnings.warn(text, RuntimeWarning, stacklevel=2)

    def stop(self) -> None:
        """The run has ended."""


class _Ahead:
    """What is left: the expected seconds of unfinished cells, corrected by how the finished ones ran.

    Cells may overlap and end in any order; with several at once, the correction knows it by the time that passed.
    """

    def __init__(self, cells: Sequence[CellSpec], expected_s: Sequence[float]) -> None:
        self.left = {spec.spec_hash: seconds for spec, seconds in zip(cells, expected_s, strict=True)}
        self.done, self.total = 0, len(cells)
        self.share, self.shown = 0.0, ""
        self.last = time.monotonic()
        self.done_expected = self.done_actual = 0.0
        self._begun: dict[str, float] = {}

    def cell(self, spec: CellSpec) -> None:
        self.shown, self.share = spec.spec_hash, 0.0
        self._begun.setdefault(spec.spec_hash, time.monotonic())

    def cell_done(self, spec: CellSpec) -> float:
        """Note that a cell is done, and return how many seconds it took."""
        now = time.monotonic()
        self.done_expected += self.left.pop(spec.spec_hash, 0.0)
        self.done_actual += now - self.last
        self.last, self.share = now, 0.0
        self.done += 1
        return now - self._begun.pop(spec.spec_hash, now)

    def seconds(self) -> float:
        ratio = (self.done_actual + 5) / (self.done_expected + 5)  # the 5 s keep the first cells from deciding alone
        return ratio * (sum(self.left.values()) - self.share * self.left.get(self.shown, 0.0))


def minutes(seconds: float) -> str:
    """Return a time as m:ss, from an hour on as h:mm:ss."""
    seconds = int(seconds + 0.5)
    return (
        f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
        if seconds >= 3600
        else f"{seconds // 60}:{seconds % 60:02d}"
    )


def _name(spec: CellSpec) -> str:
    source = f" from {spec.meta_dataset}" if spec.meta_dataset else ""
    return f"{spec.dataset}{source} {spec.protocol.state} K={spec.k_shot} seed {spec.seed} {spec.label}"


class LiveReporter(Reporter):
    """A live display on a terminal: all cells with ETA, and the current cell's phase and episodes."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bars = Progress(
            SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(bar_width=24),
            MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.fields[eta]}"),
            console=console, transient=True,
        )  # fmt: skip

    def start(self, cells: Sequence[CellSpec], expected_s: Sequence[float]) -> None:
        self.ahead = _Ahead(cells, expected_s)
        self.all: TaskID = self.bars.add_task("cells", total=len(cells), eta="")
        self.one: TaskID = self.bars.add_task("", total=None, eta="")
        self.bars.start()

    def cell(self, spec: CellSpec) -> None:
        self.spec, self.done = spec, 0
        self.ahead.cell(spec)
        self.bars.reset(self.one, total=spec.episodes, description=_name(spec), eta="")
        self._show_eta()

    def phase(self, name: str) -> None:
        self.bars.update(self.one, description=f"{_name(self.spec)}: {name}")

    def episodes_done(self, count: int) -> None:
        self.done += count
        self.ahead.share = self.done / self.spec.episodes
        self.bars.update(self.one, completed=self.done, total=self.spec.episodes)
        self._show_eta()

    def track(self, steps: Sequence[T], label: str) -> Iterator[T]:
        self.bars.update(self.one, description=f"{_name(self.spec)}: {label}")
        for done, step in enumerate(steps):
            self.bars.update(self.one, completed=done, total=len(steps))
            yield step

    def finished(self, spec: CellSpec, status: str) -> None:
        self.ahead.cell_done(spec)
        self.bars.advance(self.all)
        if status != "ok":
            self.console.print(f"{_name(spec)}: {status}", markup=False)
        self._show_eta()

    def warn(self, text: str) -> None:
        self.console.print(f"warning: {text}", markup=False, soft_wrap=True)

    def _show_eta(self) -> None:
        self.bars.update(self.all, eta=f"ETA {minutes(self.ahead.seconds())}")

    def stop(self) -> None:
        self.bars.stop()


class LineReporter(Reporter):
    """One line a finished cell, with ETA: for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def start(self, cells: Sequence[CellSpec], expected_s: Sequence[float]) -> None:
        self.ahead = _Ahead(cells, expected_s)

    def cell(self, spec: CellSpec) -> None:
        self.ahead.cell(spec)

    def finished(self, spec: CellSpec, status: str) -> None:
        took = self.ahead.cell_done(spec)
        eta = minutes(self.ahead.seconds())
        line = f"[{self.ahead.done}/{self.ahead.total}] {_name(spec)}: {status}, {took:.1f} s, ETA {eta}"
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        self.console.print(f"warning: {text}", markup=False, highlight=False, soft_wrap=True)


def reporter_for(console: Console) -> Reporter:
    """Return the live display on a terminal, plain lines elsewhere."""
    return LiveReporter(console) if console.is_terminal or console.is_jupyter else LineReporter(console)
