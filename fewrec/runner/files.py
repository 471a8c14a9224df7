"""Writing the files of a results folder: under a temporary name, then renamed, so that none is ever half-written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from fewrec.checksums import sealed
from fewrec.errors import FolderError


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a record as JSON, with the SHA-256 of its values, whole or not at all."""
    write_text(path, json.dumps(sealed(dict(value)), indent=1, sort_keys=True, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text whole or not at all."""
    replace_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def replace_file(path: Path, write: Callable[[Path], Any]) -> None:
    """Put what ``write`` makes of a temporary file in the place of ``path``; raises ``FolderError`` where it can't."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:  # safetensors has its own words for a full disk
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or str(error)
        raise FolderError(
            f"{path}: can't be written ({reason}); make room or choose another --out, then run again: it resumes"
        ) from None
