"""What a Ray task does on its node: take what it lacks from the object store, verify it, and run the unit.

Everything here runs in Ray's worker processes. What one of them has received serves its later tasks of the same run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors.torch import load

from fewrec.data.table import Dataset
from fewrec.data.weights import find_weights
from fewrec.errors import DataError, FewrecError, SuiteError
from fewrec.learners.registry import add_plugin_file, learner_class
from fewrec.paths import cache_folder, go_offline
from fewrec.runner.cell import CellSpec, code_hash
from fewrec.runner.environment import describe, differences, processor
from fewrec.runner.executors.shipped import ShippedWeights, install_plugin, install_weights
from fewrec.runner.executors.worker import packed
from fewrec.runner.splits import Splits
from fewrec.runner.units import Outcome, State, Task, UnitRunner


@dataclass(frozen=True)
class Sums:
    """What a data set has to be when it has come: SHA-256 of table, texts, and attributes and features."""

    table: str
    text: str | None
    features: str | None

    @classmethod
    def of(cls, dataset: Dataset) -> Sums:
        return cls(dataset.table.sha256, dataset.catalog.text_sha256, dataset.features_sha256)


@dataclass(frozen=True)
class RunSetUp:
    """What a node has to know of a run: ``datasets`` by name (reference, sums), ``plugins`` (name, text, SHA-256).

    ``environment``, ``codes`` (code hash by learner) and ``instructions`` (the processor's that torch uses) are the
    driver's, which those of a node must equal. ``weights``: the SHA-256 of the driver's by name, None where it has
    none; a node with others of this name is sent the driver's.
    """

    run: str
    datasets: dict[str, tuple[Any, Sums]]
    plugins: tuple[tuple[str, bytes, str], ...]
    environment: dict[str, Any]
    codes: dict[str, str]
    weights: dict[str, str | None]
    instructions: str
    device: str
    threads: int
    offline: bool


@dataclass(frozen=True)
class StoredState:
    """A stored meta-fit in the object store: a reference to the bytes of state.safetensors, and its record."""

    reference: Any
    sha256: str
    record: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What a task gives back: the node, and an outcome, or the weights it ``lacks``, or why it is ``refused``."""

    identity: str
    processor: str
    outcome: Outcome | None = None
    lacks: str = ""
    refused: str = ""


class _Datasets(Mapping[str, Dataset]):
    """The data sets of a run, each taken from the object store and verified when it is first asked for."""

    def __init__(self, offered: dict[str, tuple[Any, Sums]]) -> None:
        self._offered, self._here = offered, dict[str, Dataset]()

    def __getitem__(self, name: str) -> Dataset:
        if name not in self._here:
            import ray

            reference, expected = self._offered[name]
            dataset = ray.get(reference)
            if (found := Sums.of(dataset)) != expected:
                raise DataError(f"{name}: what came to this node is not what was sent ({found}, {expected})")
            self._here[name] = dataset
        return self._here[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._offered)

    def __len__(self) -> int:
        return len(self._offered)


@dataclass
class _Process:
    """What this process holds of a run. ``weights``: names that were found or installed here."""

    set_up: RunSetUp
    runners: dict[str, UnitRunner] = field(default_factory=dict)
    weights: set[str] = field(default_factory=set)
    state: tuple[str, StoredState | None] = ("", None)

    @classmethod
    def of(cls, set_up: RunSetUp) -> _Process:
        if set_up.offline:
            go_offline()
        torch.set_num_threads(set_up.threads)
        for name, text, sha256 in set_up.plugins:
            add_plugin_file(install_plugin(name, text, sha256, cache_folder() / "plugins"))
        return cls(set_up)

    def runner(self, device: torch.device) -> UnitRunner:
        if str(device) not in self.runners:
            self.runners.clear()
            splits = Splits(_Datasets(self.set_up.datasets))
            self.runners[str(device)] = UnitRunner(splits, device, cache_folder() / "learners", self._stored)
        return self.runners[str(device)]

    def _stored(self, key: str) -> State | None:
        of_key, state = self.state
        if of_key != key or state is None:
            return None
        import ray

        data = ray.get(state.reference).tobytes()
        if hashlib.sha256(data).hexdigest() != state.sha256:
            raise DataError("a stored meta-fit that came to this node is not what was sent")
        return load(data), state.record


_process: _Process | None = None


def run_task(
    set_up: RunSetUp, task: Task, on_gpu: bool, state: StoredState | None, weights: Mapping[str, ShippedWeights | None]
) -> Answer:
    """Run a unit on this node; ``weights``: those that an earlier try lacked, None where the driver has none either."""
    node = _identity()
    process, refusal = _enter(set_up, on_gpu)
    if process is None:
        return Answer(node, processor(), refused=refusal)
    for name in weights_of(task.spec):
        if name in process.weights:
            continue
        if name not in weights:
            expected = set_up.weights.get(name)
            try:
                unlike = expected is not None and find_weights(name).sha256 != expected
            except DataError:
                unlike = True
            if unlike:
                return Answer(node, processor(), lacks=name)
        elif (sent := weights[name]) is not None:
            install_weights(name, sent)
        process.weights.add(name)
    process.state = (task.key, state)
    device = torch.device(set_up.device if on_gpu else "cpu")
    return Answer(node, processor(), packed(process.runner(device).run(task)))


def probe(set_up: RunSetUp, on_gpu: bool) -> Answer:
    """Say whether this node is one that a run can use."""
    _, refusal = _enter(set_up, on_gpu)
    return Answer(_identity(), processor(), refused=refusal)


def weights_of(spec: CellSpec) -> list[str]:
    """Return the names of weights that a cell's learner will load."""
    name = spec.config.get("backbone")
    return [name] if isinstance(name, str) else []


def _enter(set_up: RunSetUp, on_gpu: bool) -> tuple[_Process | None, str]:
    """Return what this process holds of the run; None and the reason where the node is unlike the driver."""
    global _process
    if _process is not None and _process.set_up.run == set_up.run:
        return _process, ""
    _process = None  # frees what it held of an earlier run
    try:
        device = torch.device(set_up.device if on_gpu else "cpu")
        wanted = dict(set_up.environment)
        if not on_gpu:
            wanted["device"] = "cpu"
        changed = differences(wanted, describe(device, set_up.threads))
        if (found := torch.backends.cpu.get_cpu_capability()) != set_up.instructions:
            changed.append(f"instructions of the processor: {set_up.instructions} -> {found}")
        if not changed:
            process = _Process.of(set_up)
            changed = [f"code of '{name}': {code} -> {found}" for name, code in set_up.codes.items()
                       if (found := code_hash(learner_class(name))) != code]  # fmt: skip
    except (FewrecError, SuiteError) as error:
        return None, str(error)
    if changed:
        return None, f"{'; '.join(changed)} (the run's -> the node's)"
    _process = process
    return process, ""


def _identity() -> str:
    import ray

    return ray.get_runtime_context().get_node_id()
