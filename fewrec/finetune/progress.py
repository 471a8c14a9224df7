"""What fine-tuning shows while it works: a live bar on a terminal, lines elsewhere, and how long all will take."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from fewrec.runner.progress import minutes

_QUIET_S = 60.0  # in a log, an epoch that takes longer says in between that it is alive


class Reporter:
    """The hooks that training calls, and the arithmetic of what is left; this one shows nothing."""

    def start(self, epochs: int, done: int, batch_size: int, where: str) -> None:
        """Training begins: ``epochs`` in all, of which ``done`` were made by an earlier run; ``where`` names device."""
        self.epochs, self.number, self.batch_size, self.where = epochs, done, batch_size, where
        self.per_token: float | None = None
        self.tokens = self.tokens_done = self.steps = self.steps_done = 0
        self._begun = time.monotonic()

    def epoch(self, number: int, steps: int, tokens: int) -> None:
        """An epoch begins: so many steps, so many tokens with padding."""
        self.number, self.steps, self.tokens = number, steps, tokens
        self.steps_done = self.tokens_done = 0
        self._begun = time.monotonic()

    def step(self, tokens: int) -> None:
        """A step on so many tokens is made, or on its way to the device."""
        self.steps_done += 1
        self.tokens_done += tokens

    def measured(self, steps: int, tokens: int, seconds: float) -> None:
        """The first steps were timed: so many, on so many tokens in all."""
        self.per_token = seconds / tokens
        left = self.epochs - self.number + 1
        self.say(
            f"{left} epoch{'s' * (left > 1)} of {self.steps:,} steps ({self.batch_size} ratings, "
            f"{self.tokens / self.steps:,.0f} tokens each): about {duration(self.left() or 0.0)} on {self.where}, by "
            f"{steps} steps at {seconds / steps:.3g} s; every epoch is kept, so it can be interrupted"
        )

    def epoch_done(self, mse: float, seconds: float) -> None:
        """The epoch has ended; ``mse`` is that on train, as it was met in passing."""
        self.per_token = seconds / self.tokens

    def left(self) -> float | None:
        """Return the seconds that are left, None before anything was timed."""
        if self.per_token is None:
            return None
        return self.per_token * ((self.epochs - self.number + 1) * self.tokens - self.tokens_done)

    def say(self, text: str) -> None:
        """Something that its user should know."""

    def warn(self, text: str) -> None:
        """Something that its user must know; it ends no run."""
        self.say(f"warning: {text}")

    def stop(self) -> None:
        """Training has ended, or was interrupted."""


def duration(seconds: float) -> str:
    """Return a time in the two largest of h, min and s."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole // 60 % 60} min"


class LineReporter(Reporter):
    """One line an epoch, and one a minute in an epoch that takes longer: for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def epoch(self, number: int, steps: int, tokens: int) -> None:
        super().epoch(number, steps, tokens)
        self._said = time.monotonic()

    def step(self, tokens: int) -> None:
        super().step(tokens)
        left = self.left()
        late = time.monotonic() - self._said > _QUIET_S
        if left is not None and late and self.steps_done < self.steps:
            self._said = time.monotonic()
            self.say(f"[{self.number}/{self.epochs}] step {self.steps_done:,} of {self.steps:,}, ETA {minutes(left)}")

    def epoch_done(self, mse: float, seconds: float) -> None:
        super().epoch_done(mse, seconds)
        eta = minutes(self.left() or 0.0)
        self.say(f"[{self.number}/{self.epochs}] train MSE {mse:.4f}, {seconds:.1f} s, ETA {eta}")

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


class LiveReporter(Reporter):
    """A live display on a terminal: epochs with ETA, and the steps of the current one."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bars = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(),
            TimeElapsedColumn(), TextColumn("{task.fields[note]}"), console=console, transient=True,
        )  # fmt: skip

    def start(self, epochs: int, done: int, batch_size: int, where: str) -> None:
        super().start(epochs, done, batch_size, where)
        self.all = self.bars.add_task("epochs", total=epochs, completed=done, note="")
        self.one = self.bars.add_task("steps", total=None, note="")
        self.bars.start()

    def epoch(self, number: int, steps: int, tokens: int) -> None:
        super().epoch(number, steps, tokens)
        self.bars.reset(self.one, total=steps)

    def step(self, tokens: int) -> None:
        super().step(tokens)
        left = self.left()
        self.bars.update(self.one, completed=self.steps_done)
        self.bars.update(self.all, note="" if left is None else f"ETA {minutes(left)}")

    def epoch_done(self, mse: float, seconds: float) -> None:
        super().epoch_done(mse, seconds)
        self.bars.update(self.all, completed=self.number)
        self.bars.update(self.one, note=f"train MSE {mse:.4f} in epoch {self.number}")

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        self.bars.stop()


def reporter_for(console: Console) -> Reporter:
    """Return the live display on a terminal, plain lines elsewhere."""
    return LiveReporter(console) if console.is_terminal or console.is_jupyter else LineReporter(console)
