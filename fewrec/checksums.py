"""SHA-256 of files, and of records inside themselves: how a flipped bit is told from another value."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from fewrec.seeding import digest

SEAL = "record_sha256"


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sealed(value: dict[str, Any]) -> dict[str, Any]:
    """Return a record with the SHA-256 of its values under ``record_sha256``."""
    plain = {name: one for name, one in value.items() if name != SEAL}
    return {**plain, SEAL: digest(plain, 64)}


def unsealed(value: Any) -> Any:
    """Return a record without its seal; one that never had a seal, of an earlier version, as it is.

    Raises ``ValueError`` where the values are not those that were sealed.
    """
    if not isinstance(value, dict) or SEAL not in value:
        return value
    plain = {name: one for name, one in value.items() if name != SEAL}
    if digest(plain, 64) != value[SEAL]:
        raise ValueError(f"its values are not those that it was written with ({SEAL}): damaged, or edited by hand")
    return plain
