"""The results folder of a run: blocks, meta-fits and cell records, each written whole or not at all.

Every file is written under a temporary name and renamed, so that a killed run leaves nothing half-written. Scores,
timings and environment are separate files; only scores must be byte-reproducible (design, contract 3).
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fewrec.errors import FolderError, reason_of
from fewrec.runner.cell import SCHEMA, CellSpec
from fewrec.runner.environment import differences

TIMING_FILES = ("latency.json", "throughput.json")
_LEAST_FREE_BYTES = 20 * 1024**2


class RunFolder:
    """One results folder, held by one run at a time."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._lock = FileLock(str(self.path / ".lock"))

    def open(self, manifest: dict[str, Any]) -> None:
        """Take the folder for a run with the given manifest.

        Raises ``FolderError`` where the folder can't be written, is full, is in use, or belongs to another environment
        or to other data.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / f".probe-{os.getpid()}"
            probe.write_bytes(b"\0" * 4096)
            probe.unlink()
        except OSError as error:
            raise FolderError(
                f"--out {self.path}: can't write there ({reason_of(error)}); choose another folder"
            ) from None
        free = shutil.disk_usage(self.path).free
        if free < _LEAST_FREE_BYTES:
            raise FolderError(
                f"--out {self.path}: only {free // 1024**2} MB free there; free some space or choose another folder"
            )
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise FolderError(
                f"--out {self.path}: another run is writing there; wait for it or choose another folder"
            ) from None
        try:
            self._refuse_another_origin(manifest)
            self.write_json(self.path / "manifest.json", manifest)
        except BaseException:
            self._lock.release()
            raise

    def close(self) -> None:
        self._lock.release()

    def _refuse_another_origin(self, manifest: dict[str, Any]) -> None:
        old = read_json(self.path / "manifest.json")
        if old is None:
            return
        if not _is_manifest(old):
            raise FolderError(
                f"--out {self.path}: its manifest.json is not of a run; choose another --out, or remove the folder"
            )
        changed = differences(old.get("environment", {}), manifest["environment"])
        if changed:
            raise FolderError(
                f"--out {self.path}: it holds results of another environment ({'; '.join(changed)}); "
                "choose another --out, or remove the folder"
            )
        for name, data in manifest["datasets"].items():
            before = old.get("datasets", {}).setdefault(name, data)
            for key in ("sha256", "text_sha256", "features_sha256", "scale", "kind"):
                if key in before and before[key] != data[key]:  # what older records don't say can't be compared
                    raise FolderError(
                        f"--out {self.path}: its results were made with another {key} of '{name}'; choose another --out"
                    )
        manifest["datasets"] = dict(sorted({**old.get("datasets", {}), **manifest["datasets"]}.items()))
        if "nodes" in old:
            manifest["nodes"] = old["nodes"]
        manifest["splits"] = dict(sorted({**old.get("splits", {}), **manifest["splits"]}.items()))

    # cells

    def cell(self, spec: CellSpec) -> Path:
        return self.path / "cells" / spec.spec_hash

    def begin_cell(self, spec: CellSpec, code: str) -> Path:
        """Return the cell's folder, ready for (more) blocks. What other code or configuration left is moved aside."""
        folder = self.cell(spec)
        begun = _object(folder / "begun.json")
        if folder.exists() and begun.get("code_hash") != code:
            self._set_aside(folder, begun.get("code_hash"))
        folder.mkdir(parents=True, exist_ok=True)
        self.write_json(folder / "begun.json", {"schema": SCHEMA, "code_hash": code, "row": spec.row_key()})
        return folder

    def set_aside_replaced(self, cells: list[CellSpec]) -> None:
        """Move aside what stands in the same place of the table as one of ``cells`` but differs in configuration."""
        wanted = {spec.spec_hash for spec in cells}
        rows = {spec.row_key() for spec in cells}
        for begun_file in sorted((self.path / "cells").glob("*/begun.json")):
            begun = _object(begun_file)
            if begun_file.parent.name not in wanted and str(begun.get("row")) in rows:
                self._set_aside(begun_file.parent, begun.get("code_hash"))

    def _set_aside(self, folder: Path, code: Any) -> None:
        if not (isinstance(code, str) and re.fullmatch("[0-9A-Za-z]{1,64}", code)):  # it becomes part of a path
            code = "unknown"
        target = self.path / "superseded" / f"{folder.name}-{code}"
        target.parent.mkdir(parents=True, exist_ok=True)
        number = 1
        while target.exists():
            number += 1
            target = target.with_name(f"{folder.name}-{code}-{number}")
        folder.rename(target)

    def finished(self, spec: CellSpec, code: str) -> dict[str, Any] | None:
        """Return the record of a complete cell whose ``spec`` and ``code`` match, or None. Failures are not kept."""
        record = _object(self.cell(spec) / "cell.json")
        return record if record.get("code_hash") == code and record.get("status") == "ok" else None

    def update_record(self, spec: CellSpec, record: dict[str, Any], **entries: Any) -> None:
        """Put entries that decide no score into the record of a complete cell, where they are not there yet."""
        if any(name not in record or record[name] != value for name, value in entries.items()):
            self.write_json(self.cell(spec) / "cell.json", {**record, **entries})

    def missing_blocks(self, spec: CellSpec, code: str) -> list[int]:
        """Return the first episode of each block of a cell that is not there; all where other code has left some."""
        folder = self.cell(spec)
        kept = (read_json(folder / "begun.json") or {}).get("code_hash") == code
        starts = range(0, spec.episodes, spec.block)
        return [start for start in starts if not (kept and block_file(folder, start, spec).exists())]

    def lacking_timings(self, spec: CellSpec) -> list[str]:
        """Return the files of timings that a cell may have and that are not there."""
        return [name for name in TIMING_FILES if not (self.cell(spec) / name).exists()]

    # nodes

    def nodes(self) -> list[dict[str, Any]]:
        """Return the nodes that the folder's timings come from, by name and kind."""
        return (read_json(self.path / "manifest.json") or {}).get("nodes") or []

    def write_nodes(self, nodes: list[dict[str, Any]]) -> None:
        """Note in the manifest which nodes timings come from."""
        manifest = read_json(self.path / "manifest.json")
        if manifest is not None:
            self.write_json(self.path / "manifest.json", {**manifest, "nodes": nodes})

    # files

    def write_json(self, path: Path, value: Any) -> None:
        """Write JSON whole or not at all."""
        text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"
        self._replace(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))

    def write_parquet(self, path: Path, frame: pd.DataFrame) -> None:
        """Write a frame whole or not at all."""
        self._replace(path, lambda temporary: frame.to_parquet(temporary, index=False, compression="zstd"))

    def write_state(self, key: str, tensors: dict[str, torch.Tensor], record: dict[str, Any]) -> None:
        """Keep a finished meta-fit: tensors first, then the record, whose presence says that it is complete."""
        folder = self.path / "meta" / key
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        self._replace(folder / "state.safetensors", lambda temporary: save_file(plain, str(temporary)))
        self.write_json(folder / "meta.json", record)

    def read_state(self, key: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """Return the tensors and the record of a finished meta-fit, or None where one of them is missing or damaged."""
        folder = self.path / "meta" / key
        record = _object(folder / "meta.json")
        try:
            return (load_file(folder / "state.safetensors"), record) if record else None
        except (OSError, SafetensorError, ValueError, KeyError):
            return None

    def state_bytes(self, key: str) -> tuple[bytes, dict[str, Any]] | None:
        """Return the bytes of the tensors' file and the record of a finished meta-fit, or None."""
        folder = self.path / "meta" / key
        record = read_json(folder / "meta.json")
        return None if record is None else ((folder / "state.safetensors").read_bytes(), record)

    def _replace(self, path: Path, write: Any) -> None:
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(temporary)
            os.replace(temporary, path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            reason = error.strerror or str(error)
            raise FolderError(
                f"{path}: can't be written ({reason}); make room or choose another --out, then run again: it resumes"
            ) from None


def block_file(folder: Path, start: int, spec: CellSpec) -> Path:
    """Return the file of the score rows of the block that begins with the episode ``start``."""
    return folder / f"block-{start // spec.block:04d}.parquet"


def read_json(path: Path) -> Any:
    """Return the value of a JSON file, or None where there is none or it is not whole."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, {} where there is none or it is not whole."""
    value = read_json(path)
    return value if isinstance(value, dict) else {}


def _is_manifest(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    parts = [value.get(key, {}) for key in ("environment", "datasets", "splits")]
    return all(isinstance(part, dict) for part in parts) and all(isinstance(one, dict) for one in parts[1].values())
