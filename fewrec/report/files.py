"""The one way that a report reaches the disk: whole or not at all, and canonical JSON that people can read."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fewrec.checksums import SEAL, sha256_of, unsealed
from fewrec.errors import DataError, FolderError, reason_of

_UNSEEN = re.compile(r"[\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff]")


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
        raise FolderError(f"{path}: can't be written ({reason_of(error)}); choose another folder") from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def check_folder(folder: Path, option: str, given: object = None) -> None:
    """Raise ``FolderError``, naming the option, where ``folder`` can't be made or written; nothing is made here.

    ``given``: what the option says, where that is a file in the folder.
    """
    given = given or folder
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise FolderError(f"{option} {given}: {there} is a file, not a folder; choose another folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise FolderError(f"{option} {given}: can't write there (no permission); choose another folder")


def json_bytes(value: Any) -> bytes:
    """Return ``value`` as indented JSON with sorted keys: the same bytes for the same value.

    Characters that a terminal obeys, or that turn the direction of text round, are written as escapes.
    """
    text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode()


def parsed_json(content: bytes) -> Any:
    """Return the value of a JSON text as ``json_bytes`` writes it: neither NaN nor half a character.

    Raises ``ValueError`` for what is none, ``RecursionError`` for one of too many levels.
    """
    value = json.loads(content, parse_constant=_refuse)
    if b"\\ud" in content.lower():
        json.dumps(value, ensure_ascii=False).encode()  # a UnicodeEncodeError, which is a ValueError
    return value


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no number")


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in ``path``, without its seal.

    Raises ``DataError`` naming the file where it is missing, broken, or not what was sealed.
    """
    try:
        value = parsed_json(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: can't be read ({reason_of(error)}); {remedy(path)}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable as JSON ({reason_of(error)}); {remedy(path)}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: holds no JSON object; {remedy(path)}")
    try:
        return unsealed(value)
    except ValueError:
        said = f"damaged, or edited by hand (its values are not those of its {SEAL})"
        raise DataError(f"{path}: {said}; {remedy(path)}") from None


def remedy(path: Path) -> str:
    """Return what mends a damaged file of a folder of results: a run makes all but its manifest anew."""
    if (path.parent / "scores.parquet").exists():  # a reference
        return "put a copy of it back, or export the run again"
    if path.name != "manifest.json":
        return "run the suite again, which makes it anew"
    return f"put a copy of it back, or remove {path.parent} and run the suite again"


def remedy_of_a_stranger(path: Path) -> str:
    """Return what mends a file that is whole and yet not as fewrec writes it, which a run takes for complete."""
    return remedy(path).replace("run the suite again, which", "remove it and run the suite again, which")


def sha256_of_result(path: Path) -> str:
    """Return the SHA-256 of a file of results; raise ``DataError``, naming it, where it can't be read."""
    try:
        return sha256_of(path)
    except OSError as error:
        raise DataError(f"{path}: can't be read ({reason_of(error)}); {remedy(path)}") from error
