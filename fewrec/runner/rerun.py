"""Running recorded cells again, in the fresh process that ``fewrec verify`` starts: a request in, events out.

The request is JSON: ``cells`` (their records), ``device``, ``recorded_device``, ``threads``, ``plugins``, ``offline``,
``own`` (the options of the user's own data), ``own_name`` and ``out``, an empty folder. Each event is one line of JSON
on the standard output.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from fewrec.data.likes import likes_of
from fewrec.data.load import open_dataset
from fewrec.data.own import load_own
from fewrec.data.table import Dataset
from fewrec.errors import DataError, FewrecError, SuiteError
from fewrec.learners.base import Learner
from fewrec.learners.registry import add_plugin_file, learner_class
from fewrec.paths import go_offline
from fewrec.runner.cell import CellSpec, code_hash
from fewrec.runner.environment import available_threads, choose_device, describe
from fewrec.runner.execute import CellRunner
from fewrec.runner.progress import Reporter
from fewrec.runner.store import RunFolder, read_json

Emit = Callable[..., None]


class _Refused(Exception):
    """A cell can't be run again as it was; the text says why."""


def main(request: dict[str, Any]) -> None:
    """Run the request's cells and tell each step on what was the standard output; what learners print goes aside."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def emit(event: str, **values: Any) -> None:
        events.write(json.dumps({"event": event, **values}) + "\n")
        events.flush()

    try:
        rerun(request, emit)
    except FewrecError as error:
        emit("error", text=str(error))
        sys.exit(2)


def rerun(request: dict[str, Any], emit: Emit) -> None:
    """Run each cell of the request, in order; a cell that can't be run is told as ``refused``, with the reason.

    Events: ``environment``; for each cell ``begun``, ``phase`` and ``episodes``, then ``refused``, ``split`` (this
    version splits the data otherwise; nothing was run) or ``finished`` with the new record. Learners get an empty
    cache, so that encodings are made again too; data and weights come from the usual one, checked against their cards.
    """
    if request["offline"]:
        go_offline()
    for plugin in request["plugins"]:
        add_plugin_file(Path(plugin))
    threads = request["threads"] or available_threads()
    torch.set_num_threads(threads)
    device = _device(request["device"], request["recorded_device"])
    environment = describe(device, threads)
    emit("environment", value=environment)
    out = Path(request["out"])
    folder = RunFolder(out)
    folder.open({"environment": environment, "datasets": {}, "splits": {}})
    datasets: dict[str, Dataset] = {}
    runner = CellRunner(folder, datasets, device, out / "learners", _Told(emit))
    try:
        for record in request["cells"]:
            emit("begun")
            try:
                _run_cell(record, runner, datasets, request, emit)
            except _Refused as refusal:
                emit("refused", reason=str(refusal))
    finally:
        folder.close()


def _run_cell(
    record: dict[str, Any], runner: CellRunner, datasets: dict[str, Dataset], request: dict[str, Any], emit: Emit
) -> None:
    spec = CellSpec.from_canonical(record["spec"])
    cls = _learner(spec.learner)
    changed = _new_options(cls, spec)
    for name in (spec.dataset, spec.meta_dataset):
        if name is not None and name not in datasets:
            datasets[name] = _open(name, spec.protocol.likes_above, request)
    sha256, recorded = datasets[spec.dataset].table.sha256, record.get("dataset_sha256")
    if sha256 != recorded:
        raise _Refused(f"other data: {spec.dataset} has sha256 {sha256[:12]} here, {str(recorded)[:12]} in the record")
    told = {"closed_form": cls.closed_form, "new_options": changed}
    try:
        split = runner.split(spec).sha256
    except FewrecError as error:
        raise _Refused(f"this version can't split the data so: {error}") from None
    if split != record.get("split_hash"):
        emit("split", split_hash=split, code_hash=code_hash(cls), **told)
        return
    runner.run(spec)
    emit("finished", record=read_json(runner.folder.cell(spec) / "cell.json"), **told)


def _device(asked: str | None, recorded: str) -> torch.device:
    """Return the device asked for, else the recorded kind, else, where that is missing, the CPU."""
    if asked:
        return choose_device(asked)
    try:
        return choose_device(recorded)
    except SuiteError:
        return choose_device("cpu")


def _learner(name: str) -> type[Learner]:
    try:
        return learner_class(name)
    except SuiteError as error:
        raise _Refused(f"{error}; give the file of a plugin's learner as --plugin FILE") from None


def _new_options(cls: type[Learner], spec: CellSpec) -> dict[str, Any]:
    """Return the options that this version has and the record lacks, with the default that they get.

    Raises ``_Refused`` for a configuration that this version refuses.
    """
    try:
        config = cls.Config(**spec.config).model_dump(mode="json")
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        option = ".".join(str(part) for part in problem["loc"])
        what = "it has no such option" if problem["type"] == "extra_forbidden" else problem["msg"]
        raise _Refused(f"this version of {spec.learner} refuses the recorded option '{option}': {what}") from None
    return {name: value for name, value in config.items() if name not in spec.config}


def _open(name: str, likes_above: float | None, request: dict[str, Any]) -> Dataset:
    try:
        if request["own"] is not None and name == request["own_name"]:
            own = dict(request["own"])
            return likes_of(load_own(own.pop("data"), **own, name=name), likes_above)
        return likes_of(open_dataset(name), likes_above)
    except DataError as error:
        raise _Refused(f"its data can't be had: {error}") from None


class _Told(Reporter):
    """Tells the process that waits which phase a cell is in and how many of its episodes are done."""

    def __init__(self, emit: Emit) -> None:
        self.emit = emit

    def phase(self, name: str) -> None:
        self.emit("phase", name=name)

    def episodes_done(self, count: int) -> None:
        self.emit("episodes", count=count)
