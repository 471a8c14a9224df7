"""Units on a Ray cluster, or on a local Ray of this machine: each a task, with the processors and GPUs that it wants.

The driver puts each data set and each stored meta-fit into the object store once; a node fetches them when a unit of it
asks. A task is never retried by Ray: the driver does, and counts.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fewrec.data.table import Dataset
from fewrec.data.weights import find_weights
from fewrec.errors import DataError, FewrecError, SuiteError
from fewrec.learners.registry import learner_class
from fewrec.runner.cell import CellSpec, code_hash
from fewrec.runner.environment import available_threads, describe
from fewrec.runner.executors import Ended
from fewrec.runner.executors.ray_start import import_ray, is_loopback, on_loopback, quiet, sigterm_as_it_was
from fewrec.runner.executors.ray_tasks import Answer, RunSetUp, StoredState, Sums, probe, run_task, weights_of
from fewrec.runner.executors.shared import bare
from fewrec.runner.executors.shipped import ShippedWeights, ship_weights
from fewrec.runner.executors.worker import unpacked
from fewrec.runner.resources import resources_of
from fewrec.runner.store import RunFolder
from fewrec.runner.units import Task

_PROBE_S = 120.0  # a node has to start a process and import torch
_ALONE_S = 60.0  # how long a run waits for a node where none is left
_LOOK_S = 10.0  # how often the size of the cluster is looked up


def check_ray(address: str | None, offline: bool) -> None:
    """Raise ``SuiteError`` where Ray is not installed, or where offline mode forbids the address."""
    if importlib.util.find_spec("ray") is None:
        raise SuiteError("--executor ray needs ray, which is not installed: pip install 'fewrec[ray]'")
    if offline and address is not None and not is_loopback(address):
        raise SuiteError(
            f"--ray-address {address}: offline mode allows only addresses of this machine (127.0.0.1); give one, or "
            "leave out --offline"
        )


class RayExecutor:
    """Runs units as tasks of the cluster at ``address``, or of a local Ray that ends with the run.

    ``jobs``: at most so many units at once (a local Ray gets as many workers; default: all processors).
    """

    def __init__(
        self, address: str | None, jobs: int | None, cells: Sequence[CellSpec], datasets: Mapping[str, Dataset],
        device: torch.device, threads: int, folder: RunFolder, plugins: Sequence[Path], offline: bool,
    ) -> None:  # fmt: skip
        check_ray(address, offline)
        self.device, self.threads, self.jobs, self.folder = device, threads, jobs, folder
        self._ray = import_ray()
        self._own = not self._ray.is_initialized()
        if self._own:
            self._connect(address)
        self._states: dict[str, StoredState] = {}
        self._weights: dict[str, ShippedWeights | None] = {}
        self._under_way: dict[Any, Task] = {}
        self._nodes: dict[str, Mapping[str, Any]] = {}  # those that have died too: their answers may come after
        learners = sorted({spec.learner for spec in cells})
        self._wants = {name: resources_of(learner_class(name), device, threads) for name in learners}
        self._looked, self._alone_since = float("-inf"), float("inf")
        self.slots = 1
        try:
            self._set_up = self._ray.put(self._describe(cells, datasets, plugins, offline))
            remote = self._ray.remote(max_retries=0, max_calls=0)
            self._run, self._probe = remote(run_task), remote(probe)
            self._refuse_what_fits_nowhere()
            self._refuse_unlike_nodes()
            self._look()
        except BaseException:
            self.close()
            raise

    def _connect(self, address: str | None) -> None:
        where = f"--ray-address {address}" if address else "--executor ray"
        quietly = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        try:
            with quiet(), sigterm_as_it_was():
                if address:
                    self._ray.init(address, **quietly)
                    return
                workers = self.jobs or max(available_threads() // self.threads, 1)
                with on_loopback():  # "local": a Ray of its own, whatever RAY_ADDRESS says and else runs here
                    self._ray.init("local", num_cpus=workers * self.threads, include_dashboard=False, **quietly)
        except Exception as error:  # ConnectionError, RuntimeError (another version of Ray or Python), ValueError ...
            reason = " ".join(str(error).split())[:300]
            raise FewrecError(f"{where}: Ray can't be reached or started ({type(error).__name__}: {reason})") from None

    def _describe(
        self, cells: Sequence[CellSpec], datasets: Mapping[str, Dataset], plugins: Sequence[Path], offline: bool
    ) -> RunSetUp:
        offered = {name: (self._ray.put(bare(one)), Sums.of(one)) for name, one in datasets.items()}
        texts = [(path.name, path.read_bytes()) for path in plugins]
        return RunSetUp(
            uuid.uuid4().hex, offered,
            tuple((name, text, hashlib.sha256(text).hexdigest()) for name, text in texts),
            describe(self.device, self.threads),
            {name: code_hash(learner_class(name)) for name in sorted({spec.learner for spec in cells})},
            {name: _weights_sha256(name) for name in sorted({name for spec in cells for name in weights_of(spec)})},
            torch.backends.cpu.get_cpu_capability(), str(self.device), self.threads, offline,
        )  # fmt: skip

    # nodes

    def _refuse_what_fits_nowhere(self) -> None:
        """Raise ``SuiteError`` where a learner's units would wait for ever for a node that is large enough."""
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        for name, wanted in self._wants.items():
            if not any(self._room(node, name) for node in nodes):
                gpus = f" and {wanted.gpus:g} GPUs" if wanted.gpus else ""
                raise SuiteError(
                    f"--executor ray: no node has {max(wanted.cpus or 0, self.threads):g} processors{gpus}, which "
                    f"units of '{name}' want: lower --threads or its resources"
                )

    def _refuse_unlike_nodes(self) -> None:
        """Raise ``SuiteError`` with one line where a node of the cluster can't give the scores of this machine."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        asked = {}
        for node in self._ray.nodes():
            if not node["Alive"] or node["Resources"].get("CPU", 0) < self.threads:
                continue  # a head that is to run nothing has no processors
            on_gpu = self.device.type == "cuda" and node["Resources"].get("GPU", 0) > 0
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            options = {"num_cpus": 0, "num_gpus": 0.001 if on_gpu else 0, "scheduling_strategy": there}
            asked[self._probe.options(**options).remote(self._set_up, on_gpu)] = node
        done, late = self._ray.wait(list(asked), num_returns=len(asked), timeout=_PROBE_S)
        refused = [f"node {_name(asked[one])} does not answer" for one in late]
        for one in done:
            try:
                answer = self._ray.get(one)
            except Exception as error:
                reason = " ".join(str(error).split())[-200:]
                refused.append(f"node {_name(asked[one])} can't run fewrec ({type(error).__name__}: {reason})")
                continue
            if answer.refused:
                refused.append(f"node {_name(asked[one])} differs: {answer.refused}")
        if refused:
            raise SuiteError(f"--executor ray: {'; '.join(sorted(refused))}; make all nodes alike, or take these out")

    def _look(self) -> None:
        """Look up how many workers the cluster has room for, from time to time."""
        if time.monotonic() - self._looked < _LOOK_S:
            return
        self._looked = time.monotonic()
        alive = [node for node in self._ray.nodes() if node["Alive"]]
        self._nodes |= {node["NodeID"]: node for node in alive}
        waiting = sorted({task.spec.learner for task in self._under_way.values()})
        alone = [name for name in waiting if not any(self._room(node, name) for node in alive)]
        self._alone_since = min(self._alone_since, time.monotonic()) if alone else float("inf")
        if time.monotonic() - self._alone_since > _ALONE_S:
            raise FewrecError(
                f"--executor ray: no node is left that units of '{alone[0]}' can run on; what is complete is in the "
                "folder: run the same command again to go on"
            )
        slots = max(sum(max(self._room(node, name) for name in self._wants) for node in alive), 1)
        self.slots = min(slots, self.jobs) if self.jobs else slots + slots // 8  # some wait in the nodes' queues

    def _room(self, node: Mapping[str, Any], learner: str) -> int:
        """Return how many units of a learner a node has room for at once."""
        wanted, has = self._wants[learner], node["Resources"]
        if has.get("CPU", 0) < self.threads:  # a head that is to run nothing, or too small a node
            return 0
        parts = [has.get(name, 0) / share for name, share in (("CPU", wanted.cpus), ("GPU", wanted.gpus)) if share]
        return int(min(parts, default=has["CPU"] / self.threads) + 1e-9)

    def _kind(self, answer: Answer, task: Task) -> dict[str, Any]:
        if answer.identity not in self._nodes:
            self._looked = float("-inf")
            self._look()
        workers = max(self._room(self._nodes.get(answer.identity, {"Resources": {}}), task.spec.learner), 1)
        device = describe(self.device, self.threads)["device"] if self._on_gpu(task) else "cpu"
        return {
            "processor": answer.processor, "device": device, "threads": self.threads,
            "workers": min(workers, self.jobs) if self.jobs else workers,
        }  # fmt: skip

    # units

    def near(self) -> list[str]:
        return []  # which process gets a task is Ray's choice

    def _on_gpu(self, task: Task) -> bool:
        return bool(self._wants[task.spec.learner].gpus)

    def submit(self, task: Task) -> None:
        wanted = self._wants[task.spec.learner]
        call = self._run.options(num_cpus=wanted.cpus, num_gpus=wanted.gpus)
        reference = call.remote(self._set_up, task, bool(wanted.gpus), self._state(task), dict(self._weights))
        self._under_way[reference] = task

    def _state(self, task: Task) -> StoredState | None:
        if task.key not in self._states:
            stored = self.folder.meta_fits.packed(task.key)
            if stored is None:
                return None
            data, record = stored
            reference = self._ray.put(np.frombuffer(data, np.uint8))
            self._states[task.key] = StoredState(reference, hashlib.sha256(data).hexdigest(), record)
        return self._states[task.key]

    def next(self) -> Ended:
        while True:
            done, _ = self._ray.wait(list(self._under_way), num_returns=1, timeout=1.0)
            self._look()
            if done:
                ended = self._read(done[0])
                if ended is not None:
                    return ended

    def _read(self, reference: Any) -> Ended | None:
        task = self._under_way.pop(reference)
        lost = self._ray.exceptions
        try:
            answer: Answer = self._ray.get(reference)
        except lost.RayTaskError as error:
            reason = " ".join(str(error.cause).split())[:300]
            return Ended(task, None, f"the task that ran it failed ({type(error.cause).__name__}: {reason})")
        except lost.OutOfMemoryError:
            return Ended(task, None, "its worker was killed by Ray: out of memory on the node")
        except lost.RayError as error:
            if isinstance(error, lost.RaySystemError):
                raise FewrecError(
                    "the Ray cluster is gone; what is complete is in the folder: run the same command again to go on"
                ) from None
            return Ended(task, None, f"the Ray worker or node that ran it has died ({type(error).__name__})")
        if answer.refused:
            node = self._nodes.get(answer.identity) or {}
            raise SuiteError(f"--executor ray: node {_name(node)} differs: {answer.refused}; what is complete is kept")
        if answer.lacks:
            self._ship(answer.lacks)
            self.submit(task)
            return None
        assert answer.outcome is not None
        return Ended(task, unpacked(answer.outcome), identity=answer.identity, kind=self._kind(answer, task))

    def _ship(self, name: str) -> None:
        if name not in self._weights:
            try:
                self._weights[name] = ship_weights(find_weights(name), self._ray.put)
            except DataError:
                self._weights[name] = None  # the learner will say so, as it would here

    def forget(self, key: str) -> None:
        self._states.pop(key, None)

    def close(self) -> None:
        """Take back what is under way; a local Ray, or the connection to a cluster, ends."""
        with contextlib.suppress(Exception), quiet():
            for reference in self._under_way:
                self._ray.cancel(reference, force=True)
        self._under_way.clear()
        if self._own:
            with contextlib.suppress(Exception), quiet():
                self._ray.shutdown()


def _weights_sha256(name: str) -> str | None:
    try:
        return find_weights(name).sha256
    except DataError:
        return None  # a node may have them


def _name(node: Mapping[str, Any]) -> str:
    return str(node.get("NodeManagerHostname") or node.get("NodeManagerAddress") or "of the cluster")
