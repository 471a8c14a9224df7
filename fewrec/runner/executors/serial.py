"""Units in this process, one after the other: nothing is copied, and a learner that was just fitted is in memory."""

from __future__ import annotations

from fewrec.runner.executors import Ended
from fewrec.runner.resources import kind_of_units
from fewrec.runner.units import Task, UnitRunner


class SerialExecutor:
    """Runs the unit that was submitted when the driver asks for the next one that has ended."""

    slots = 1

    def __init__(self, runner: UnitRunner, threads: int) -> None:
        self.runner, self.threads = runner, threads
        self._task: Task | None = None

    def near(self) -> list[str]:
        return []

    def submit(self, task: Task) -> None:
        self._task = task

    def next(self) -> Ended:
        task, self._task = self._task, None
        assert task is not None
        kind = kind_of_units(task.spec.learner, self.runner.device, self.threads, 1)
        return Ended(task, self.runner.run(task), identity="here", kind=kind)

    def forget(self, key: str) -> None:
        """The learner in memory stays: the next cell may share it."""

    def close(self) -> None:
        """There is no worker."""
