"""What the three backends have in common: one backend run a cell, and a ledger of the cells that have one already."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fewrec.report.files import json_bytes, write_whole
from fewrec.runner.cell import CellSpec


class CellTracker(ABC):
    """A tracker that opens a run of its backend for every cell.

    OUT/tracking/<backend>.json lists the cells that are tracked, so that a run that is resumed adds those that are
    missing and repeats none. A cell that was under way when a run was killed is computed on and gets a new backend run;
    what becomes of the one that was left unfinished is said in each backend. Tracking switched on for a folder of
    finished cells adds their results, without learning curves.

    A backend implements the abstract methods; ``connect`` returns where its runs go: the ledger of another destination
    does not count.
    """

    name: str

    @abstractmethod
    def connect(self, manifest: Mapping[str, Any], folder: Path) -> str:
        """Prepare the backend and return its destination."""

    @abstractmethod
    def open(self, spec: CellSpec, unfinished: str | None) -> str:
        """Open the run of a cell and return its id; ``unfinished``: the id of the run that a killed run left."""

    @abstractmethod
    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log scalars of the open run."""

    @abstractmethod
    def close(self, spec: CellSpec, status: str, figures: Mapping[str, float]) -> None:
        """Log the result of the open run and close it."""

    def disconnect(self, status: str) -> None:  # noqa: B027  # optional
        """The whole run has ended."""

    # Tracker

    _open: str | None = None

    def begin(self, manifest: Mapping[str, Any], cells: Sequence[CellSpec], folder: Path) -> None:
        self._file = folder / f"{self.name}.json"
        folder.mkdir(parents=True, exist_ok=True)
        destination = self.connect(manifest, folder)
        self._ledger: dict[str, Any] = {"destination": destination, "cells": {}}
        try:
            stored = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        if stored.get("destination") == destination:
            self._ledger = stored

    def cell(self, spec: CellSpec) -> None:
        before = self._ledger["cells"].get(spec.spec_hash, {})
        self._open = self.open(spec, before["run"] if before.get("status") == "unfinished" else None)
        self._note(spec, "unfinished")

    def scalars(self, spec: CellSpec, step: int, values: Mapping[str, float]) -> None:
        self.log(step, values)

    def result(self, spec: CellSpec, status: str, figures: Mapping[str, float]) -> None:
        if self._open is None:
            if self._ledger["cells"].get(spec.spec_hash, {}).get("status") == status:
                return
            self._open = self.open(spec, None)
        self.close(spec, status, figures)
        self._note(spec, status)
        self._open = None

    def end(self, status: str) -> None:
        self.disconnect(status)

    def _note(self, spec: CellSpec, status: str) -> None:
        self._ledger["cells"][spec.spec_hash] = {"run": self._open, "status": status}
        write_whole(self._file, json_bytes(self._ledger))


def fields(spec: CellSpec) -> dict[str, Any]:
    """Return what a cell is, flat, for a backend's table of parameters: options as ``config.<name>``."""
    return {
        "dataset": spec.dataset, "state": spec.protocol.state, "n_users": spec.n_users, "k_shot": str(spec.k_shot),
        "n_query": spec.n_query, "seed": spec.seed, "episodes": spec.episodes, "learner": spec.learner,
        "label": spec.label, "cell": spec.spec_hash,
        **{f"config.{name}": value for name, value in sorted(spec.config.items())},
    }  # fmt: skip


def title(spec: CellSpec) -> str:
    """Return a short name of a cell that serves as a file name too."""
    text = f"{spec.dataset} {spec.protocol.state} N={spec.n_users} K={spec.k_shot} Q={spec.n_query} seed={spec.seed}"
    return re.sub(r"[^\w.,=()+-]+", "_", f"{text} {spec.label}")
