"""How many workers a run has and where: what the options say, checked, and the executor that they ask for."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from fewrec.data.table import Dataset
from fewrec.errors import SuiteError, nearest
from fewrec.learners.registry import learner_class
from fewrec.runner.cell import CellSpec
from fewrec.runner.environment import available_threads
from fewrec.runner.executors import Executor
from fewrec.runner.store import RunFolder

EXECUTORS = ("local", "ray")


@dataclass(frozen=True)
class Workers:
    """``executor`` "local": this process where ``jobs`` is 1, else as many others. "ray": tasks on the cluster at
    ``address``, or on a Ray of this machine alone; ``jobs`` then bounds the units at once, and None does not."""

    executor: str = "local"
    jobs: int | None = None
    address: str | None = None

    def default_threads(self) -> int:
        """Return the threads of a worker where no option says: its share of this machine's processors."""
        if self.executor == "ray" and self.jobs is None:
            return 1
        return max(available_threads() // (self.jobs or 1), 1)


def choose_workers(
    jobs: int | None, executor: str | None, ray_address: str | None, *, offline: bool = False
) -> Workers:
    """Return the workers that the options of a run ask for.

    Raises ``SuiteError`` for options that don't go together, and where Ray is asked for and not installed.
    """
    if jobs is not None and jobs < 1:
        raise SuiteError(f"--jobs {jobs}: at least one worker is needed")
    if executor is not None and executor not in EXECUTORS:
        raise SuiteError(f"--executor {executor}: unknown executor{nearest(executor, EXECUTORS)}")
    if ray_address is not None and executor != "ray":
        raise SuiteError(f"--ray-address {ray_address}: only goes with --executor ray")
    if executor == "ray":
        from fewrec.runner.executors.ray import check_ray

        check_ray(ray_address, offline)
    return Workers(executor or "local", jobs, ray_address)


def open_executor(
    workers: Workers, cells: Sequence[CellSpec], datasets: Mapping[str, Dataset], device: torch.device, threads: int,
    cache: Path, folder: RunFolder, *, offline: bool = False,
) -> Executor | None:  # fmt: skip
    """Return the executor of a run, None where units run in this process; its caller closes it."""
    if workers.executor == "ray":
        from fewrec.runner.executors.ray import RayExecutor

        return RayExecutor(workers.address, workers.jobs, cells, datasets, device, threads, folder,
                           plugin_files(cells), offline)  # fmt: skip
    if (workers.jobs or 1) == 1:
        return None
    from fewrec.runner.executors.processes import ProcessExecutor

    assert workers.jobs is not None
    return ProcessExecutor(workers.jobs, datasets, device, threads, cache, folder.path, plugin_files(cells))


def plugin_files(cells: Sequence[CellSpec]) -> list[Path]:
    """Return the plugin files that define learners of the cells, in order of their names."""
    classes = {learner_class(spec.learner) for spec in cells if ":" not in spec.learner}
    return sorted({Path(inspect.getfile(cls)) for cls in classes if cls.__module__.startswith("fewrec_plugin_")})
