"""The folder of one fine-tuning run: whose it is, the last finished epoch, and the results; each written whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fewrec.errors import FolderError, reason_of
from fewrec.finetune.show import as_markdown
from fewrec.report.files import json_bytes, write_whole, write_with
from fewrec.runner.environment import differences
from fewrec.runner.store import read_json

SCHEMA = 1
_KIND = "fewrec finetune"
_CHECKPOINT, _MANIFEST, _RESULTS = "checkpoint.json", "manifest.json", "results.json"


class FinetuneFolder:
    """One folder, held by one run at a time. ``with`` releases it."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        self._lock = FileLock(str(self.path / ".lock"))

    def open(self, identity: Mapping[str, Any], environment: Mapping[str, Any]) -> FinetuneFolder:
        """Take the folder for the run that ``identity`` (flat, JSON values) and ``environment`` describe.

        Raises ``FolderError`` where it can't be written, is in use, or holds something else: a run with other options,
        of other files, in another environment, or files that are nobody's.
        """
        if self.path.is_dir() and read_json(self.path / _MANIFEST) is None:
            self._refuse_another(identity, environment)  # before a lock is put into somebody's folder
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise FolderError(
                f"--out {self.path}: another run is writing there; wait for it or choose another folder"
            ) from None
        except OSError as error:
            raise FolderError(
                f"--out {self.path}: can't write there ({reason_of(error)}); choose another folder"
            ) from None
        try:
            self._refuse_another(identity, environment)
            manifest = {"kind": _KIND, "schema": SCHEMA, "run": dict(identity), "environment": dict(environment)}
            write_whole(self.path / _MANIFEST, json_bytes(manifest))
            self._clean()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __enter__(self) -> FinetuneFolder:
        return self

    def __exit__(self, *exc: object) -> None:
        self._lock.release()

    def _refuse_another(self, identity: Mapping[str, Any], environment: Mapping[str, Any]) -> None:
        old = read_json(self.path / _MANIFEST)
        if not isinstance(old, dict):
            if any(not path.name.startswith(".") for path in self.path.iterdir()):
                raise FolderError(
                    f"--out {self.path}: the folder is not empty, and not of this command; choose another"
                )
            return
        if old.get("kind") != _KIND or old.get("schema") != SCHEMA:
            raise FolderError(f"--out {self.path}: it holds something else than results of {_KIND}; choose another")
        run = old.get("run")
        run = run if isinstance(run, dict) else {}
        changed = [f"{key}: {_shown(run.get(key))} -> {_shown(value)}" for key, value in identity.items()
                   if run.get(key) != value]  # fmt: skip
        changed += differences(_mapping(old.get("environment")), dict(environment))
        if changed:
            raise FolderError(
                f"--out {self.path}: it belongs to another run ({'; '.join(changed)}); choose another --out, or remove "
                "the folder"
            )

    def _clean(self) -> None:
        """Remove what a killed run left half-written, and states that are not the last."""
        last = _mapping(read_json(self.path / _CHECKPOINT)).get("state")
        for path in [*self.path.glob(".*.part"), *self.path.glob("state-*.safetensors")]:
            if path.name != last and not path.is_dir():
                path.unlink(missing_ok=True)
        shutil.rmtree(self.path / ".model.part", ignore_errors=True)

    # the last finished epoch

    def keep(self, epochs: list[dict[str, float]], tensors: Mapping[str, Tensor]) -> None:
        """Keep the state after the last of ``epochs`` (an object an epoch): tensors, then the record that names them.

        The record is what counts, so that a run that is killed in between goes on from the epoch before.
        """
        name = f"state-{len(epochs):05d}.safetensors"
        try:
            write_with(self.path / name, lambda part: save_file(dict(tensors), part))
        except SafetensorError as error:
            raise _no_room(self.path / name, error) from None
        write_whole(self.path / _CHECKPOINT, json_bytes({"schema": SCHEMA, "state": name, "epochs": epochs}))
        self._clean()

    def kept(self) -> tuple[list[dict[str, float]], dict[str, Tensor]] | None:
        """Return the finished epochs and the state after the last, or None; ``FolderError`` where it is broken."""
        record = read_json(self.path / _CHECKPOINT)
        if record is None:
            return None
        try:
            epochs, name = record["epochs"], record["state"]
            if not (isinstance(epochs, list) and all(isinstance(one, dict) for one in epochs)):
                raise ValueError(f"{_CHECKPOINT} lists no epochs")
            if name != f"state-{len(epochs):05d}.safetensors":
                raise ValueError(f"{_CHECKPOINT} names another file")
            return epochs, load_file(self.path / name)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise FolderError(f"{self.path}: the kept state can't be read ({error}); remove the folder") from None

    # results

    def finished(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Return (results, timings) of a run that is complete, or None."""
        results, timings = read_json(self.path / _RESULTS), read_json(self.path / "timings.json")
        if not (results and timings):
            return None
        try:
            as_markdown(results, timings)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
            said = f"{type(error).__name__}: {error}"
            raise FolderError(f"{self.path / _RESULTS}: it can't be shown ({said}); remove the folder") from None
        return results, timings

    def finish(
        self,
        save_model: Callable[[Path], None],
        files: Mapping[str, bytes],
        results: dict[str, Any],
        timings: dict[str, Any],
    ) -> None:
        """Write the model (``save_model`` fills a folder), ``files``, timings, then results, whose presence counts."""
        part, whole = self.path / ".model.part", self.path / "model"
        try:
            shutil.rmtree(part, ignore_errors=True)
            save_model(part)
            shutil.rmtree(whole, ignore_errors=True)
            part.rename(whole)
        except (OSError, SafetensorError) as error:
            raise _no_room(whole, error) from None
        for name, content in files.items():
            write_whole(self.path / name, content)
        write_whole(self.path / "timings.json", json_bytes(timings))
        write_whole(self.path / _RESULTS, json_bytes(results))
        (self.path / _CHECKPOINT).unlink(missing_ok=True)
        self._clean()


def _no_room(path: Path, error: Exception) -> FolderError:
    return FolderError(f"{path}: can't be written ({error}); make room, then run the same command again: it goes on")


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _shown(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) == 64 else text  # a hash
