"""Weights & Biases: one run a cell, grouped by suite, in OUT/tracking/wandb; offline unless WANDB_MODE says otherwise.

``wandb sync OUT/tracking/wandb/offline-run-*`` uploads them later. WANDB_PROJECT, WANDB_ENTITY, WANDB_DIR and the
other variables of the backend hold. A cell that was under way when a run was killed leaves a run without a result
beside the new one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewrec.runner.cell import CellSpec
from fewrec.tracking.ledger import CellTracker, fields, title


class BackendTracker(CellTracker):
    """Learning curves as ``meta-fit/<name>`` over ``meta-fit/step``, figures and status as the run's summary."""

    name = "wandb"

    def connect(self, manifest: Mapping[str, Any], folder: Path) -> str:
        self.mode: Any = os.environ.get("WANDB_MODE") or "offline"
        if self.mode != "online":
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # the client's own reports go over the network too
        self.suite, self.environment = str(manifest["name"]), manifest["environment"]
        self.folder = os.environ.get("WANDB_DIR") or str(folder)
        self.project = os.environ.get("WANDB_PROJECT") or "fewrec"
        return f"{self.mode} {self.project} {self.folder if self.mode == 'offline' else ''}".strip()

    def open(self, spec: CellSpec, unfinished: str | None) -> str:
        import wandb

        self.run = wandb.init(
            project=self.project, dir=self.folder, mode=self.mode, group=self.suite, job_type=spec.label,
            name=title(spec), config={**fields(spec), "environment": self.environment}, reinit="create_new",
            save_code=False, settings=wandb.Settings(silent=True, console="off", disable_git=True),
        )  # fmt: skip
        self.run.define_metric("meta-fit/*", step_metric="meta-fit/step")
        return str(self.run.id)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log({"meta-fit/step": step, **{f"meta-fit/{name}": value for name, value in values.items()}})

    def close(self, spec: CellSpec, status: str, figures: Mapping[str, float]) -> None:
        self.run.summary.update({**figures, "status": status})
        self.run.finish(exit_code=0 if status in ("ok", "not applicable") else 1)
