"""MLflow: one run a cell below one parent run, in the SQLite store OUT/tracking/mlflow/mlflow.db.

Look with ``mlflow ui --backend-store-uri sqlite:///OUT/tracking/mlflow/mlflow.db``. Where MLFLOW_TRACKING_URI is set,
runs go there; MLFLOW_EXPERIMENT_NAME holds too (default: ``fewrec <suite>``). A cell that was under way when a run was
killed leaves a run that the next one marks as KILLED.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewrec.runner.cell import CellSpec
from fewrec.seeding import canonical_json
from fewrec.tracking.ledger import CellTracker, fields, title

_STATUS = {"ok": "FINISHED", "not applicable": "FINISHED", "interrupted": "KILLED", "timeout": "KILLED"}
_FLUSH_S = 2.0


class BackendTracker(CellTracker):
    """Learning curves as metrics ``meta-fit/<name>``, figures as metrics, the cell as parameters, status as a tag."""

    name = "mlflow"

    def connect(self, manifest: Mapping[str, Any], folder: Path) -> str:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported
        from mlflow.tracking import MlflowClient

        for name in ("mlflow", "mlflow.store.db.utils", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)  # they narrate how the tables are made
        own = (folder / self.name).absolute()
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        artifacts = None
        if not uri:
            own.mkdir(parents=True, exist_ok=True)
            uri, artifacts = f"sqlite:///{own / 'mlflow.db'}", (own / "artifacts").as_uri()
        self.client = MlflowClient(tracking_uri=uri)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or f"fewrec {manifest['name']}"
        experiment = self.client.get_experiment_by_name(name)
        self.experiment = (
            experiment.experiment_id
            if experiment is not None
            else self.client.create_experiment(name, artifact_location=artifacts)
        )
        self.where = os.path.relpath(own, folder.absolute()) if artifacts else uri
        environment = manifest["environment"]
        found = self.client.search_runs(
            [self.experiment], f"tags.`fewrec.folder` = '{_folder_tag(folder)}'", max_results=1
        )
        if found:
            self.parent = found[0].info.run_id
            self.client.update_run(self.parent, status="RUNNING")
        else:
            tags = {
                "fewrec.folder": _folder_tag(folder), "fewrec.suite": str(manifest["name"]),
                "fewrec.command": str(manifest["command"]), "fewrec.device": str(environment["device"]),
                "fewrec.threads": str(environment["threads"]),
            }  # fmt: skip
            created = self.client.create_run(self.experiment, run_name=str(manifest["name"]), tags=tags)
            self.parent = created.info.run_id
        return f"{self.where} {name}"

    def open(self, spec: CellSpec, unfinished: str | None) -> str:
        from mlflow.entities import Param

        if unfinished is not None:
            self.client.set_terminated(unfinished, status="KILLED")
        tags = {"mlflow.parentRunId": self.parent, "fewrec.cell": spec.spec_hash}
        self.run_id = self.client.create_run(self.experiment, run_name=title(spec), tags=tags).info.run_id
        params = [
            Param(name, value if isinstance(value, str) else canonical_json(value))
            for name, value in fields(spec).items()
        ]
        self.client.log_batch(self.run_id, params=params)
        self._waiting: list[Any] = []
        self._flushed = time.monotonic()
        return str(self.run_id)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._waiting += [Metric(f"meta-fit/{name}", value, now, step) for name, value in values.items()]
        if time.monotonic() - self._flushed > _FLUSH_S:  # a transaction a step would take longer than many a step
            self._flush()

    def _flush(self) -> None:
        for first in range(0, len(self._waiting), 500):  # the store's limit is 1000
            self.client.log_batch(self.run_id, metrics=self._waiting[first : first + 500])
        self._waiting, self._flushed = [], time.monotonic()

    def close(self, spec: CellSpec, status: str, figures: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._waiting += [Metric(name, value, now, 0) for name, value in figures.items()]
        self._flush()
        self.client.set_tag(self.run_id, "fewrec.status", status)
        self.client.set_terminated(self.run_id, status=_STATUS.get(status, "FAILED"))

    def disconnect(self, status: str) -> None:
        self.client.set_terminated(self.parent, status=_STATUS.get(status, "FAILED"))


def _folder_tag(folder: Path) -> str:
    """Return a hash of where the results lie: what tells two runs of one suite apart on a shared server."""
    from fewrec.seeding import digest

    return digest(str(folder.absolute()))
