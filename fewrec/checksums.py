"""SHA-256 of files, and of records inside themselves: how a flipped bit is told from another value."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from fewrec.seeding import digest

SEAL, SEALED = "record_sha256", "sealed"  # the second says that there was a first, should its name be damaged


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sealed(value: dict[str, Any]) -> dict[str, Any]:
    """Return a record with the SHA-256 of its values under ``record_sha256``."""
    plain = _plain(value)
    return {**plain, SEAL: digest(plain, 64), SEALED: True}


def unsealed(value: Any) -> Any:
    """Return a record without its seal; one that never had a seal, of an earlier version, as it is.

    Raises ``ValueError`` where the values are not those that were sealed.
    """
    if not isinstance(value, dict) or not (SEAL in value or SEALED in value):
        return value
    plain = _plain(value)
    if digest(plain, 64) != value.get(SEAL) or value.get(SEALED) is not True:
        raise ValueError(f"its values are not those that it was written with ({SEAL}): damaged, or edited by hand")
    return plain


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    return {name: one for name, one in value.items() if name not in (SEAL, SEALED)}
