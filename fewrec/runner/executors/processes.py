"""Units in local processes: each in a fresh interpreter, which loses nothing but its unit when it dies."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from fewrec.data.table import Dataset
from fewrec.errors import FewrecError
from fewrec.runner.executors import Ended
from fewrec.runner.executors.shared import SharedDatasets
from fewrec.runner.executors.worker import SetUp, unpacked
from fewrec.runner.resources import kind_of_units
from fewrec.runner.units import Outcome, Task

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from fewrec.runner.executors.worker import main; main(int(sys.argv[2]))"
)
_LAST_S = 5.0  # how long a process that has closed its connection may take to end: its exit code is the reason
_GRACE_S = 20.0  # how long after its limit a unit that can't be interrupted (a call into C) is killed


class _Worker:
    """A process and the connection to it. ``instance``: the learner that it has ready."""

    def __init__(self, set_up: SetUp) -> None:
        here, there = socket.socketpair()
        command = [sys.executable, "-P", "-c", _START, json.dumps(sys.path), str(there.fileno())]
        with there:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=[there.fileno(), set_up.descriptor]
            )
        self.connection = Connection(here.detach())
        self.connection.send(set_up)
        self.ready, self.instance = False, ""
        self.task: Task | None = None
        self.kill_at = float("inf")

    def submit(self, task: Task) -> None:
        self.task, self.instance = task, task.unit.instance
        self.begin_clock()
        try:
            self.connection.send(task)
        except OSError:
            pass  # it has died: its end of the connection says so

    def begin_clock(self) -> None:
        """Settle when the unit in hand is killed; its time begins when the process is ready."""
        limit = self.task.limit if self.task is not None and self.ready else None
        self.kill_at = float("inf") if limit is None else time.monotonic() + limit + _GRACE_S

    def end(self, patience: float = 0.0) -> int:
        """Kill the process, or wait so many seconds for one that is ending by itself; return its exit code."""
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.connection.close()
        return self.process.wait()


class ProcessExecutor:
    """Runs units in ``jobs`` processes with ``threads`` threads each; they read stored meta-fits from ``folder``."""

    def __init__(
        self, jobs: int, datasets: Mapping[str, Dataset], device: torch.device, threads: int, cache: Path, folder: Path,
        plugins: Sequence[Path] = (),
    ) -> None:  # fmt: skip
        self.slots, self.device, self.threads = jobs, device, threads
        self._data = SharedDatasets(datasets)
        self._set_up = SetUp(
            os.getpid(), self._data.fileno(), self._data.places, str(device), threads, str(cache.absolute()),
            str(folder.absolute()), tuple(str(plugin.absolute()) for plugin in plugins),
        )  # fmt: skip
        self._workers: list[_Worker] = []
        self._failed_starts = 0

    def near(self) -> list[str]:
        return [worker.instance for worker in self._workers if worker.task is None]

    def submit(self, task: Task) -> None:
        idle = [worker for worker in self._workers if worker.task is None]
        if not idle:
            idle = [_Worker(self._set_up)]
            self._workers += idle
        next((one for one in idle if one.instance == task.unit.instance), idle[0]).submit(task)

    def next(self) -> Ended:
        while True:
            busy = {worker.connection: worker for worker in self._workers if worker.task is not None}
            patience = min(worker.kill_at for worker in busy.values()) - time.monotonic()
            ready = wait(list(busy), None if patience == float("inf") else max(patience, 0.0))
            for connection in ready:
                ended = self._read(busy[connection])  # type: ignore[index]  # wait returns what it was given
                if ended is not None:
                    return ended
            for worker in busy.values():
                if not ready and time.monotonic() >= worker.kill_at:
                    return self._end(worker, Outcome("timeout"))

    def _read(self, worker: _Worker) -> Ended | None:
        try:
            said: Any = worker.connection.recv()
        except (EOFError, OSError):
            return self._end(worker, None)
        if not worker.ready:
            worker.ready, self._failed_starts = True, 0
            worker.begin_clock()
            return None
        task, worker.task = worker.task, None
        assert task is not None
        return self._ended(task, unpacked(said))

    def _end(self, worker: _Worker, outcome: Outcome | None) -> Ended:
        self._workers.remove(worker)
        how = _how(worker.end(0.0 if outcome is not None else _LAST_S))
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts > self.slots:
                raise FewrecError(f"--jobs {self.slots}: its processes end at their start, with {how}")
        task = worker.task
        assert task is not None
        return self._ended(task, outcome, f"the process that ran it ended with {how}")

    def _ended(self, task: Task, outcome: Outcome | None, lost: str = "") -> Ended:
        kind = kind_of_units(task.spec.learner, self.device, self.threads, self.slots)
        return Ended(task, outcome, lost, identity="here", kind=kind)

    def forget(self, key: str) -> None:
        """Stored meta-fits are read from the folder, and stay there."""

    def close(self) -> None:
        for worker in self._workers:
            worker.end()
        self._workers.clear()
        self._data.close()


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    return f"signal {-code} ({name}{': out of memory?' if -code == signal.SIGKILL else ''})"
