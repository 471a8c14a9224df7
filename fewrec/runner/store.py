"""The results folder of a run: blocks and cell records, and which of them are complete.

Every file is written whole or not at all (``fewrec.runner.files``), and its SHA-256 is recorded, so that what a disk
made of it later is noticed (``fewrec.runner.damage``). Scores, timings and environment are separate files; only scores
must be byte-reproducible (design, contract 3).
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from fewrec.checksums import sha256_of
from fewrec.errors import FolderError, reason_of
from fewrec.runner.cell import SCHEMA, CellSpec
from fewrec.runner.damage import begun_of, damaged, read_json, read_object, recorded_sums
from fewrec.runner.environment import differences
from fewrec.runner.files import replace_file, write_json
from fewrec.runner.meta_fits import MetaFits

TIMING_FILES = ("latency.json", "throughput.json")
_LEAST_FREE_BYTES = 20 * 1024**2
_OF_DATA = {"sha256": "other ratings", "text_sha256": "other texts", "features_sha256": "other features",
            "scale": "another scale", "kind": "another kind"}  # fmt: skip


class RunFolder:
    """One results folder, held by one run at a time. ``warn`` gets one line for each file that is damaged."""

    def __init__(self, path: Path, warn: Callable[[str], None] | None = None) -> None:
        self.path = Path(path)
        self.warn = warn or (lambda text: None)
        self.meta_fits = MetaFits(self.path / "meta", self.warn)
        self._lock = FileLock(str(self.path / ".lock"))

    def open(self, manifest: dict[str, Any]) -> None:
        """Take the folder for a run with the given manifest.

        Raises ``FolderError`` where the folder can't be written, is full, is in use, or belongs to another environment
        or to other data.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / f".probe-{os.getpid()}"
            try:
                probe.write_bytes(b"\0" * 4096)
            finally:
                probe.unlink(missing_ok=True)
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
            for stale in (*self.path.glob(".*.part"), *self.path.glob(".*.tmp"), *self.path.glob("meta/*/.*.tmp")):
                stale.unlink(missing_ok=True)  # of a run that was killed: the lock is ours, so nobody writes there
            self._refuse_another_origin(manifest)
            write_json(self.path / "manifest.json", manifest)
        except BaseException:
            self._lock.release()
            raise

    def close(self) -> None:
        self._lock.release()

    def _refuse_another_origin(self, manifest: dict[str, Any]) -> None:
        file = self.path / "manifest.json"
        old = read_json(file)
        if old is None:
            if file.exists():
                raise FolderError(
                    f"{file}: damaged, so that nobody can tell which environment and data the results belong to; "
                    "put a copy of it back, choose another --out, or remove the folder"
                )
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
            for key, what in _OF_DATA.items():
                if key in before and before[key] != data[key]:  # what older records don't say can't be compared
                    raise FolderError(
                        f"--out {self.path}: its results were made with {what} of '{name}' (its {key} differs); "
                        "choose another --out"
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
        found = begun_of(folder).get("code_hash")
        if folder.exists() and found != code:
            self._set_aside(folder, found)
        self._write_begun(spec, code)
        return folder

    def _write_begun(self, spec: CellSpec, code: str) -> None:
        write_json(self.cell(spec) / "begun.json", {"schema": SCHEMA, "code_hash": code, "row": spec.row_key()})

    def set_aside_replaced(self, cells: list[CellSpec]) -> None:
        """Move aside what stands in the same place of the table as one of ``cells`` but differs in configuration."""
        wanted = {spec.spec_hash for spec in cells}
        rows = {spec.row_key() for spec in cells}
        for folder in sorted(path for path in (self.path / "cells").glob("*") if path.is_dir()):
            if folder.name in wanted:
                continue
            begun = begun_of(folder)
            if str(begun.get("row")) in rows:
                self._set_aside(folder, begun.get("code_hash"))

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
        """Return the record of a complete cell whose ``spec`` and ``code`` match, or None. Failures are not kept.

        A file of the cell that is not as it was written is removed, with a warning, and the cell is not complete then.
        """
        folder = self.cell(spec)
        self._remove_damaged(folder)
        record = read_object(folder / "cell.json")
        if record.get("code_hash") != code or record.get("status") != "ok":
            return None
        blocks = [block_file(folder, start // spec.block).name for start in range(0, spec.episodes, spec.block)]
        present = {file.name for file in folder.iterdir()}
        if not {*blocks, *recorded_sums(folder), "timing.json"} <= present:
            (folder / "cell.json").unlink()  # until it is complete again
            return None
        if "begun.json" not in present:
            self._write_begun(spec, code)
        return record

    def _remove_damaged(self, folder: Path) -> None:
        """Remove what is not as it was written, and the scores of every block that lacks a file: it is redone."""
        for stale in folder.glob(".*.tmp"):
            stale.unlink(missing_ok=True)
        for file, why in damaged(folder):
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                raise FolderError(
                    f"{file}: {why}, and can't be removed ({reason_of(error)}); remove it, or choose another --out"
                ) from None
            self.warn(f"{file}: {why}; it is made anew")

    def update_record(self, spec: CellSpec, record: dict[str, Any], **entries: Any) -> None:
        """Put entries that decide no score into the record of a complete cell, where they are not there yet."""
        if any(name not in record or record[name] != value for name, value in entries.items()):
            write_json(self.cell(spec) / "cell.json", {**record, **entries})

    def missing_blocks(self, spec: CellSpec, code: str) -> list[int]:
        """Return the first episode of each block of a cell that is not there; all where other code has left some."""
        folder = self.cell(spec)
        kept = begun_of(folder).get("code_hash") == code
        starts = range(0, spec.episodes, spec.block)
        return [start for start in starts if not (kept and block_file(folder, start // spec.block).exists())]

    def loaded_by_blocks(self, spec: CellSpec) -> list[dict[str, str]]:
        """Return the weights (name, SHA-256) that blocks on disk were made with, each once; earlier ones don't say."""
        found = [read_object(file).get("loaded") for file in sorted(self.cell(spec).glob("block-*.timing.json"))]
        return [one for place, one in enumerate(found) if one is not None and one not in found[:place]]

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
            write_json(self.path / "manifest.json", {**manifest, "nodes": nodes})

    # files

    def write_block(
        self, folder: Path, number: int, frames: Mapping[str, pd.DataFrame], timing: Mapping[str, Any]
    ) -> None:
        """Keep a finished block: ``frames`` by kind (predictions, steps, block), the scores, ``block``, among them.

        Timings and checksums come first and the scores last, whose presence says that the block is complete.
        """
        write_json(block_file(folder, number).with_suffix(".timing.json"), timing)
        self.write_frames(folder, f"{number:04d}", {f"{kind}-{number:04d}": frame for kind, frame in frames.items()})

    def write_frames(self, folder: Path, name: str, frames: Mapping[str, pd.DataFrame]) -> None:
        """Write frames as Parquet files by their names, in their order, and before them sums-NAME.json.

        That has their checksums, and the code and row that begun.json has: what a cell is of can be told without it.
        """
        content = {f"{kind}.parquet": _parquet(frame) for kind, frame in frames.items()}
        sums = {kind: hashlib.sha256(data).hexdigest() for kind, data in content.items()}
        begun = {key: value for key, value in read_object(folder / "begun.json").items() if key in ("code_hash", "row")}
        write_json(folder / f"sums-{name}.json", {"schema": SCHEMA, **begun, "files": sums})
        for file, data in content.items():
            replace_file(folder / file, partial(Path.write_bytes, data=data))

    def sums(self, spec: CellSpec) -> dict[str, str]:
        """Return the SHA-256 of every file of a cell that holds scores or predictions, as they were when written."""
        folder = self.cell(spec)
        sums = recorded_sums(folder)
        files = [file for file in sorted(folder.glob("*.parquet")) if not file.name.startswith(".")]
        return {file.name: sums.get(file.name) or sha256_of(file) for file in files}


def block_file(folder: Path, number: int) -> Path:
    """Return the file of a block's score rows."""
    return folder / f"block-{number:04d}.parquet"


def _parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False, compression="zstd")
    return buffer.getvalue()


def _is_manifest(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    parts = [value.get(key, {}) for key in ("environment", "datasets", "splits")]
    return all(isinstance(part, dict) for part in parts) and all(isinstance(one, dict) for one in parts[1].values())
