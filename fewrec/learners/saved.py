"""A meta-fitted learner on disk: a folder with ``learner.json`` and ``state.safetensors``, checked whole when loaded.

Apart from the learners, which only say what their state is. Nothing in the folder is code, and nothing in it decides
what is imported: the learner's class comes from the registry or from the caller.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save

import fewrec
from fewrec.data.table import Dataset, Scale
from fewrec.errors import DataError, FolderError, NotApplicable, reason_of
from fewrec.learners.base import Context, Learner
from fewrec.learners.registry import known_learners, learner_class
from fewrec.learners.saved_record import LearnerRecord, TensorInfo, TrainedOn, items_sha256
from fewrec.validation import first_problem

SCHEMA = 1
RECORD, STATE = "learner.json", "state.safetensors"


def save_learner(
    learner: Learner,
    folder: str | Path,
    trained_on: TrainedOn,
    *,
    code_hash: str,
    seconds: float,
    device: str = "cpu",
) -> LearnerRecord:
    """Write a meta-fitted learner into ``folder``: ``state.safetensors``, then ``learner.json``, and return the latter.

    Each file is written whole or not at all, and a state that doesn't belong to its record is refused when loaded.

    Raises:
        FolderError: if the folder can't be written.
        DataError: if the learner's state isn't tensors and JSON values.
    """
    folder, cls = Path(folder).expanduser(), type(learner)
    tensors, values = learner.state()
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}  # none shares memory
    state = save(plain)
    record = LearnerRecord(
        schema_version=SCHEMA,
        fewrec=fewrec.__version__,
        torch=str(torch.__version__),
        device=device,
        learner=cls.name,
        target=f"{cls.__module__}:{cls.__qualname__}",
        config=learner.config.model_dump(mode="json"),
        values=values,
        tensors={name: _info(tensor) for name, tensor in plain.items()},
        state_sha256=hashlib.sha256(state).hexdigest(),
        code_hash=code_hash,
        loaded=learner.loaded(),
        trained_on=trained_on,
        seconds=seconds,
    )
    try:
        # Not pydantic's JSON, which writes NaN as null without a word.
        text = json.dumps(record.model_dump(), indent=1, sort_keys=True, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise DataError(f"learner '{cls.name}' can't be saved: its state isn't JSON ({error})") from None
    _write_whole(folder / STATE, state)
    _write_whole(folder / RECORD, text.encode())
    return record


def read_record(folder: str | Path) -> LearnerRecord:
    """Return what ``learner.json`` says; raises ``DataError`` where there is none, or none of this version."""
    path = Path(folder).expanduser() / RECORD
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{folder}: no saved learner there (no {RECORD})") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable as JSON ({reason_of(error)}); save the learner again") from None
    found = value.get("schema_version") if isinstance(value, dict) else None
    if not isinstance(found, int):
        raise DataError(f"{path}: not the record of a saved learner; save the learner again")
    if found != SCHEMA:
        raise DataError(
            f"{path}: written by fewrec {str(value.get('fewrec', '?'))[:20]!r} in format {found}, this version reads "
            f"format {SCHEMA}; save the learner again"
        )
    try:
        record = LearnerRecord(**value)
    except (ValidationError, TypeError) as error:
        problem = error.errors(include_url=False)[0] if isinstance(error, ValidationError) else None
        key = ".".join(str(part) for part in problem["loc"]) if problem else "its keys"
        raise DataError(f"{path}: broken at {key!r}; save the learner again") from None
    unseen = record.trained_on.unseen_items
    if unseen and not 0 <= min(unseen) <= max(unseen) < record.trained_on.n_items:
        raise DataError(f"{path}: broken at 'trained_on.unseen_items'; save the learner again")
    return record


def load_learner(
    folder: str | Path,
    ctx: Context,
    *,
    learner: str | None = None,
    config: Mapping[str, Any] | None = None,
    record: LearnerRecord | None = None,
) -> Learner:
    """Return the saved learner, prepared and restored: it predicts the same bytes as the one that was saved.

    ``ctx``: its catalog and scale must be those that the learner was trained on; ``TrainedOn.seen`` are the seen items.
    ``learner``: a registered name or ``module:Class`` to use instead of the name in the record. ``config``: options
    that the learner declares in ``adapt_options``, to be changed. ``record``: what ``read_record`` returned, if known.

    Raises:
        DataError: in one line, where the folder is broken, is another learner's, or belongs to other items.
        NotApplicable: where the learner lacks a package or weights.
    """
    record = record or read_record(folder)
    cls = _class_of(folder, record, learner)
    made = cls(_config_of(folder, record, cls, config or {}))
    if items_sha256(ctx.catalog) != record.trained_on.items_sha256:
        raise DataError(
            f"{folder}: trained on the {record.trained_on.n_items:,} items of '{record.trained_on.dataset}', and these "
            f"are {len(ctx.catalog):,} others; give the data set that it was trained on, or train anew"
        )
    was, now = Scale(*record.trained_on.scale), ctx.scale
    if was != now:
        raise DataError(
            f"{folder}: trained on the rating scale {was.low:g}..{was.high:g} (step {was.step}), and this is "
            f"{now.low:g}..{now.high:g} (step {now.step}); train anew"
        )
    tensors = _read_tensors(Path(folder).expanduser() / STATE, record)
    made.prepare(ctx)
    if made.loaded() != record.loaded:
        raise DataError(f"{folder}: made with other weights than those that are loaded now; train anew")
    try:
        if cls.has_meta_fit():
            made.load_state(tensors, record.values, ctx)
    except NotApplicable:
        raise
    except Exception as error:  # a record of another version, or a plugin's own trouble: whatever it is, it's the file
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DataError(f"{folder}: '{record.learner}' can't be restored from it ({reason}); train anew") from error
    return made


def differences(record: LearnerRecord, dataset: Dataset, code_hash: str) -> list[str]:
    """Return warnings, one line each: what has changed since the learner was saved and may move its predictions."""
    out = []
    if record.code_hash != code_hash:
        out.append(
            f"'{record.learner}' was saved with other code (fewrec {record.fewrec}): predictions may differ; train anew"
        )
    if record.trained_on.table_sha256 != dataset.table.sha256:
        out.append(f"the ratings of '{dataset.name}' are not those that '{record.learner}' was trained on")
    if record.trained_on.text_sha256 != dataset.catalog.text_sha256:
        out.append(f"the item texts of '{dataset.name}' are not those that '{record.learner}' was trained with")
    return out


def _class_of(folder: str | Path, record: LearnerRecord, given: str | None) -> type[Learner]:
    """Return the learner's class: the one that the caller names, else the registered one of the record's name."""
    name = record.learner
    if given is None and (":" in name or name not in known_learners()):  # with a colon it would be a module to import
        raise DataError(
            f"{folder}: it holds learner {name!r} ({record.target!r}), which isn't known here; give --plugin FILE, or "
            "--learner module:Class if you trust it"
        )
    cls = learner_class(given or name)
    if cls.name != name:
        raise DataError(f"{folder}: it holds learner {name!r}, not '{cls.name}'; leave out --learner")
    return cls


def _config_of(folder: str | Path, record: LearnerRecord, cls: type[Learner], changed: Mapping[str, Any]) -> Any:
    try:
        config = cls.Config(**{**record.config, **changed})
    except ValidationError as error:
        problem = first_problem(error, cls.Config)
        whose = "" if problem.key in changed else "; saved by another version: train anew"
        said = f"option '{problem.key}' of '{record.learner}': {problem.said}"
        if problem.unknown:
            said = f"'{record.learner}' has no option '{problem.key}'{problem.said}"
        raise DataError(f"{folder}: {said}{whose}") from None
    now = config.model_dump(mode="json")
    fixed = sorted(key for key in changed if key not in cls.adapt_options and now[key] != record.config.get(key))
    if fixed:
        free = ", ".join(sorted(cls.adapt_options)) or "none"
        raise DataError(
            f"{folder}: it was trained with {fixed[0]}={record.config.get(fixed[0])}; options that can be changed "
            f"without training anew: {free}"
        )
    return config


def _read_tensors(path: Path, record: LearnerRecord) -> dict[str, torch.Tensor]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror}); save the learner again") from None
    if hashlib.sha256(content).hexdigest() != record.state_sha256:
        raise DataError(f"{path}: not the file that {RECORD} was written for (truncated or changed); save it again")
    try:
        tensors = load(content)
    except (SafetensorError, ValueError):
        raise DataError(f"{path}: not a safetensors file; save the learner again") from None
    if {name: _info(tensor) for name, tensor in tensors.items()} != record.tensors:
        raise DataError(f"{path}: its tensors are not those that {RECORD} lists; save the learner again")
    return tensors


def _info(tensor: torch.Tensor) -> TensorInfo:
    return TensorInfo(dtype=str(tensor.dtype).removeprefix("torch."), shape=tuple(tensor.shape))


def _write_whole(path: Path, content: bytes) -> None:
    part: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        part = Path(name)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        part.chmod(0o644)
        part.replace(path)
    except OSError as error:
        raise FolderError(f"{path}: can't be written ({reason_of(error)}); choose another folder") from None
    finally:
        if part is not None:
            part.unlink(missing_ok=True)
