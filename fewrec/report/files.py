"""The one way that a report reaches the disk: whole or not at all, and canonical JSON that people can read."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fewrec.checksums import unsealed
from fewrec.errors import DataError, FolderError


def write_whole(path: Path, content: bytes) -> None:
    """Write ``content`` to a temporary name beside ``path`` and rename it, so that no reader meets half a file."""
    write_with(path, lambda part: part.write_bytes(content))


def write_with(path: Path, write: Callable[[Path], Any]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it. Raises ``FolderError`` if it can't."""
    part: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        part = Path(name)
        part.chmod(0o644)
        write(part)
        part.replace(path)
    except OSError as error:
        raise FolderError(f"{path}: can't be written ({error.strerror or error}); choose another folder") from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def json_bytes(value: Any) -> bytes:
    """Return ``value`` as indented JSON with sorted keys: the same bytes for the same value."""
    return (json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in ``path``, without its seal.

    Raises ``DataError`` naming the file where it is missing, broken, or not what was sealed.
    """
    try:
        value = unsealed(json.loads(path.read_bytes()))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable as JSON ({error}); remove its folder and run the suite again") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: holds no JSON object; remove its folder and run the suite again")
    return value
