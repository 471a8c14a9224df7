"""What a learner wants to have reserved for each of its units on a cluster; the scores don't depend on it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Resources:
    """A learner's class attribute ``resources``. Shares below 1 let several units have one processor or GPU together.

    ``cpus``: None stands for the threads of a worker. A unit computes with those threads, whatever it reserves (more
    reserved processors are room for memory). ``gpus``: None stands for 1 on CUDA and 0 elsewhere; with 0 the learner
    runs on the CPU whatever the run's device is, on one machine too, so that its scores are the same everywhere.

    Raises ``ValueError`` for a negative number, and for a number of GPUs above 1 that is no whole one.
    """

    cpus: float | None = None
    gpus: float | None = None

    def __post_init__(self) -> None:
        for name in ("cpus", "gpus"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"resources: {name} = {value}; give 0 or more")
        if self.gpus is not None and self.gpus > 1 and self.gpus != int(self.gpus):
            raise ValueError(f"resources: gpus = {self.gpus}; above 1 only whole numbers can be reserved")
