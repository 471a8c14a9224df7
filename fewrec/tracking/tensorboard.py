"""TensorBoard: one folder of events a cell in OUT/tracking/tensorboard; look with ``tensorboard --logdir`` on it.

A cell that was under way when a run was killed starts its folder afresh.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewrec.runner.cell import CellSpec
from fewrec.seeding import canonical_json
from fewrec.tracking.ledger import CellTracker, fields, title


class BackendTracker(CellTracker):
    """Learning curves as scalars ``meta-fit/<name>``, figures as ``<name>`` at step 0, all cells as a HPARAMS table."""

    name = "tensorboard"

    def connect(self, manifest: Mapping[str, Any], folder: Path) -> str:
        self.folder = folder / self.name
        return "local"

    def open(self, spec: CellSpec, unfinished: str | None) -> str:
        from torch.utils.tensorboard import SummaryWriter

        name = f"{title(spec)}-{spec.spec_hash[:8]}"
        for events in (self.folder / name).glob("events.out.tfevents.*"):
            events.unlink()
        self.writer = SummaryWriter(str(self.folder / name))
        return name

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(f"meta-fit/{name}", value, step)
        self.writer.flush()  # so that a curve is seen while it grows

    def close(self, spec: CellSpec, status: str, figures: Mapping[str, float]) -> None:
        from torch.utils.tensorboard.summary import hparams

        for name, value in figures.items():
            self.writer.add_scalar(name, value, 0)
        self.writer.add_text("status", status, 0)
        plain = {
            name: value if isinstance(value, bool | int | float | str) else canonical_json(value)
            for name, value in {**fields(spec), "status": status}.items()
        }
        for summary in hparams(plain, dict.fromkeys(figures)):
            self.writer._get_file_writer().add_summary(summary)  # add_hparams would open a folder of its own
        self.writer.close()
