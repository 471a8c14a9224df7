"""The finished meta-fits of a results folder: each a state of tensors and a record with its SHA-256."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fewrec.checksums import sha256_of
from fewrec.errors import reason_of
from fewrec.runner.damage import read_object
from fewrec.runner.files import replace_file, write_json
from fewrec.seeding import canonical_json


def checked_state(tensors: Any, values: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return a learner's state as it can be kept: tensors on the CPU that share no memory, and JSON values.

    Raises ``TypeError`` or ``ValueError`` for what is neither: the learner's fault, not the disk's.
    """
    if not isinstance(tensors, dict) or not isinstance(values, dict):
        raise TypeError("state() gives two dicts: tensors by name, and JSON values by name")
    plain, places = {}, set[int]()
    for name, tensor in tensors.items():
        if not (isinstance(name, str) and isinstance(tensor, torch.Tensor)):
            raise TypeError(f"state(): {name!r} is a {type(tensor).__name__}, not a tensor with a text for its name")
        plain[name] = tensor.detach().cpu().contiguous()
        place = plain[name].untyped_storage().data_ptr()
        if place in places:  # tied weights; safetensors keeps each under its own name
            plain[name] = plain[name].clone()
        places.add(place)
    try:
        canonical_json(values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"state(): its values are not JSON ({' '.join(str(error).split())})") from None
    return plain, values


class MetaFits:
    """The folder ``meta`` of a run, a folder a key. ``warn`` gets one line for each that is damaged."""

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        self.path, self.warn = path, warn

    def write(self, key: str, tensors: dict[str, torch.Tensor], record: dict[str, Any]) -> None:
        """Keep a finished meta-fit: tensors first, then the record, whose presence says that it is complete."""
        folder = self.path / key
        sums = []

        def write(temporary: Path) -> None:
            save_file(tensors, str(temporary))
            sums.append(sha256_of(temporary))

        replace_file(folder / "state.safetensors", write)
        write_json(folder / "meta.json", {**record, "state_sha256": sums[0]})

    def read(self, key: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """Return the tensors and the record of a finished meta-fit, or None where there is none or it is damaged."""
        record, state = self._record(key), self._state_file(key)
        try:
            return None if record is None else (load_file(state), record)
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            self.warn(f"{state}: damaged ({' '.join(str(error).split())}); the meta-fit is made anew")
            return None

    def packed(self, key: str) -> tuple[bytes, dict[str, Any]] | None:
        """Return the bytes of the tensors' file and the record of a finished meta-fit, or None likewise."""
        record = self._record(key)
        return None if record is None else (self._state_file(key).read_bytes(), record)

    def _state_file(self, key: str) -> Path:
        return self.path / key / "state.safetensors"

    def _record(self, key: str) -> dict[str, Any] | None:
        """Return the record of a meta-fit whose state is as it was written; a damaged one is warned of."""
        state = self._state_file(key)
        file = state.with_name("meta.json")
        record = read_object(file)
        if not record:
            if file.exists():
                self.warn(f"{file}: damaged; the meta-fit is made anew")
            return None
        try:
            if record.get("state_sha256") in (None, sha256_of(state)):  # earlier versions recorded none
                return record
            reason = "its SHA-256 is not the recorded one"
        except OSError as error:
            reason = reason_of(error)
        self.warn(f"{state}: damaged ({reason}); the meta-fit is made anew")
        return None
