"""What runs units in a process of its own: the loop of a local worker, and what it shares with tasks on a cluster."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from fewrec.data.fetch import to_stderr
from fewrec.learners.registry import add_plugin_file
from fewrec.runner.executors.shared import read_shared
from fewrec.runner.splits import Splits
from fewrec.runner.store import RunFolder
from fewrec.runner.units import Fit, Outcome, UnitRunner

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class SetUp:
    """What a local worker is told at its start. ``descriptor`` and ``places``: of the data (``SharedDatasets``)."""

    parent: int
    descriptor: int
    places: list[tuple[int, int]]
    device: str
    threads: int
    cache: str
    folder: str
    plugins: tuple[str, ...]


def main(descriptor: int) -> None:
    """Run the units that come over a connection until the driver closes it or ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's matter, which ends its workers
    connection = Connection(descriptor)
    set_up: SetUp = connection.recv()
    end_with(set_up.parent)
    torch.set_num_threads(set_up.threads)
    for plugin in set_up.plugins:
        add_plugin_file(Path(plugin))
    datasets = read_shared(set_up.descriptor, set_up.places)
    folder = RunFolder(Path(set_up.folder), lambda text: to_stderr(f"warning: {text}"))
    runner = UnitRunner(Splits(datasets), torch.device(set_up.device), Path(set_up.cache), folder.meta_fits.read)
    connection.send("ready")
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        outcome = packed(runner.run(task))
        try:
            connection.send(outcome)
        except BrokenPipeError:
            return


def packed(outcome: Outcome) -> Outcome:
    """Return an outcome whose tensors are one piece of bytes (safetensors), for the way to the driver."""
    fit = outcome.done
    if not isinstance(fit, Fit) or fit.state is None:
        return outcome
    tensors, values = fit.state
    return replace(outcome, done=replace(fit, state=(save(tensors), values)))  # type: ignore[arg-type]  # bytes, on the way


def unpacked(outcome: Outcome) -> Outcome:
    """Return an outcome as it was before ``packed``."""
    fit = outcome.done
    if not isinstance(fit, Fit) or fit.state is None:
        return outcome
    data: Any = fit.state[0]
    return replace(outcome, done=replace(fit, state=(load(data), fit.state[1])))


def end_with(parent: int) -> None:
    """Have this process killed when the process ``parent``, which started it, ends in whatever way."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:  # an orphan gets another parent
        time.sleep(0.5)
    os._exit(1)
