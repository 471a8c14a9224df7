"""What a disk, or a hand, has made of a run's files since they were written: each record and block has its SHA-256.

Checked where a run goes on from what it finds, and by ``fewrec report`` and ``fewrec verify``. Parquet's own page
checksums would not do: they leave out the footer, which says where the pages are and what they hold.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fewrec.checksums import sha256_of, unsealed
from fewrec.errors import reason_of

_NUMBER = re.compile(r"^(?:block|predictions|steps|sums)-(\d+)\b")


def read_json(path: Path) -> Any:
    """Return the value of a JSON file without its seal, or None where there is none or it is not as it was written."""
    try:
        return _value(path)
    except (OSError, ValueError, RecursionError):
        return None


def _value(path: Path) -> Any:
    return unsealed(json.loads(path.read_text(encoding="utf-8")))


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, {} where there is none or it is not as it was written."""
    value = read_json(path)
    return value if isinstance(value, dict) else {}


def recorded_sums(cell: Path) -> dict[str, str]:
    """Return the recorded SHA-256 of a cell's Parquet files, by name: of its record, and of its blocks' sums files."""
    sums: dict[str, str] = {}
    for file in [*sorted(cell.glob("sums-*.json")), cell / "cell.json"]:
        record = read_json(file)
        if isinstance(record, dict) and isinstance(record.get("files"), dict):
            sums |= record["files"]
    return sums


def begun_of(cell: Path) -> dict[str, Any]:
    """Return ``code_hash`` and ``row`` of what a cell's folder holds, {} where nobody can tell.

    They are begun.json's. Where that is damaged or missing they are those that the checksums of the blocks were written
    with: of all its blocks the same ones, or nobody can tell.
    """
    begun = read_object(cell / "begun.json")
    if begun:
        return begun
    sums = {file.name: read_object(file) for file in _files(cell, "sums-*.json")}
    said = [{name: record.get(name) for name in ("code_hash", "row")} for record in sums.values()]
    vouched = all(f"sums-{_number(file.name)}.json" in sums for file in _files(cell, "block-*.parquet"))
    same = bool(said) and all(one == said[0] and None not in one.values() for one in said)
    return said[0] if vouched and same else {}


def damaged(cell: Path) -> list[tuple[Path, str]]:
    """Return the files of a cell's folder that are not as they were written, each with the reason.

    The scores of a block of which another file is damaged or missing are among them: its presence would say that the
    block is complete. Files of earlier versions have no recorded SHA-256: what can be read is taken as it is.
    """
    sums, found = recorded_sums(cell), dict[Path, str]()
    for file in _files(cell, "*.json"):
        try:
            _value(file)
        except OSError as error:
            found[file] = f"damaged, can't be read ({reason_of(error)})"
        except (ValueError, RecursionError):
            found[file] = "damaged (its values are not those that it was written with)"
    for file in _files(cell, "*.parquet"):
        if file.name in sums:
            try:
                if sha256_of(file) != sums[file.name]:
                    found[file] = "damaged (its SHA-256 is not the recorded one)"
            except OSError as error:
                found[file] = f"damaged, can't be read ({reason_of(error)})"
        elif not _readable(file):
            found[file] = "damaged (not a readable Parquet file)"
    lacking = {number for name in sums if not (cell / name).exists() and (number := _number(name))}
    torn = {number for file in found if (number := _number(file.name))}
    for number in sorted(lacking | torn):
        block = cell / f"block-{number}.parquet"
        if block.exists() and block not in found:
            found[block] = "another file of its block is damaged or missing"
    return sorted(found.items())


def _files(cell: Path, pattern: str) -> list[Path]:
    return [file for file in sorted(cell.glob(pattern)) if not file.name.startswith(".")]  # not what was being written


def _number(name: str) -> str:
    found = _NUMBER.match(name)
    return found[1] if found else ""


def _readable(file: Path) -> bool:
    try:
        pq.read_table(file)
    except (OSError, pa.ArrowException):
        return False
    return True
