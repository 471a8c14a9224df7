"""Where units run: in this process, in local processes, or on a Ray cluster; what the driver needs of each of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from fewrec.runner.units import Outcome, Task


@dataclass(frozen=True)
class Ended:
    """A unit that has ended: its outcome, or why its process was lost. ``identity`` and ``kind``: of its node."""

    task: Task
    outcome: Outcome | None
    lost: str = ""
    identity: str = ""
    kind: Mapping[str, Any] | None = None


class Executor(Protocol):
    """Runs units. The driver submits at most ``slots`` at once and takes what has ended, in whatever order."""

    slots: int

    def near(self) -> list[str]:
        """Return the instances of learners that idle workers have ready."""

    def submit(self, task: Task) -> None:
        """Begin a unit."""

    def next(self) -> Ended:
        """Wait for a unit to end, and return it."""

    def forget(self, key: str) -> None:
        """Let go of the meta-fit of this key: it was made anew, or is not needed any more."""

    def close(self) -> None:
        """End all workers."""
