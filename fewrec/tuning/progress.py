"""What a search shows while it works: a line a trial with the best so far and an ETA, and a bar on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from fewrec.report.measure import Measure
from fewrec.runner.progress import minutes
from fewrec.tuning.result import value_of
from fewrec.tuning.study import Trial


class TrialLines:
    """Tells of trials on a console; as a context manager it holds the bar."""

    def __init__(self, console: Console, label: str, budget: int, measure: Measure) -> None:
        self.console, self.budget, self.measure = console, budget, measure
        self.best: Trial | None = None
        self.seconds: list[float] = []
        self.bar = Progress(
            SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(bar_width=24),
            MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.fields[eta]}"),
            console=console, transient=True, disable=not (console.is_terminal or console.is_jupyter),
        )  # fmt: skip
        self.task = self.bar.add_task(f"{label}: trials", total=budget, eta="")

    def __enter__(self) -> TrialLines:
        self.bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.bar.stop()

    def known(self, trials: list[Trial]) -> None:
        """Trials that an earlier call ended."""
        for trial in trials:
            self._count(trial)
        if trials:
            self._print(f"{len(trials)} of {self.budget} trials are there already; {self._best()}")

    def told(self, trial: Trial) -> None:
        """A trial has ended now."""
        self.seconds.append(trial.seconds)
        self._count(trial)
        left = self.budget - trial.number - 1
        eta = f"ETA {minutes(left * sum(self.seconds) / len(self.seconds))}"
        self.bar.update(self.task, eta=eta)
        outcome = f"{self.measure.name} {self._value(trial)}" if trial.error is not None else f"failed ({trial.reason})"
        what = "the start" if trial.number == 0 else ", ".join(f"{k}={_shown(v)}" for k, v in trial.options.items())
        self._print(
            f"[{trial.number + 1}/{self.budget}] {outcome}, {self._best()}, {trial.seconds:.1f} s, {eta}: {what}"
        )

    def _count(self, trial: Trial) -> None:
        if trial.error is not None and (self.best is None or self.best.error is None or trial.error < self.best.error):
            self.best = trial
        self.bar.update(self.task, completed=trial.number + 1)

    def _best(self) -> str:
        return "no score yet" if self.best is None else f"best {self._value(self.best)} (trial {self.best.number + 1})"

    def _value(self, trial: Trial) -> str:
        return f"{value_of(trial.error, self.measure):.4f}"

    def _print(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
