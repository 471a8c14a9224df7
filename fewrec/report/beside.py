"""Files beside the score rows of a cell, and which files those rows are in; apart because runner and report read them.

A run has such a file in each cell's folder, a reference one for all cells, with the column ``cell`` before the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fewrec.errors import DataError
from fewrec.report.files import read_json, remedy, remedy_of_a_stranger, sha256_of_result
from fewrec.report.rows import read_rows

BY_USER = "by-user.parquet"
_WHOLE = ("episode", "user", "other", "step")


@dataclass(frozen=True)
class Beside:
    """A kind of file: its name in a reference, and its columns, of which ``cell`` is added to a run's."""

    name: str
    columns: tuple[str, ...]

    @property
    def file(self) -> str:
        return f"{self.name}.parquet"


STEPS = Beside("steps", ("cell", "episode", "user", "step", "n", "se", "ae"))
PAIRS = Beside("pairs", ("cell", "user", "other", "pairs", "right"))


def score_files(cell: Path) -> list[Path]:
    """Return the files of a cell's score rows: of windows in time the one by user, else those of its blocks."""
    by_user = cell / BY_USER
    return [by_user] if by_user.is_file() else sorted(cell.glob("block-*.parquet"))


def rows_beside(folder: str | Path, kind: Beside) -> pd.DataFrame:
    """Return all rows of a kind in a run's or a reference's folder; empty if there are none.

    Raises ``DataError`` for a file that can't be read or has other columns.
    """
    folder = Path(folder)
    files = [folder / kind.file]
    if not files[0].is_file():
        files = sorted((folder / "cells").glob(f"*/{kind.name}*.parquet"))
    parts = []
    for file in files:
        if file.parent != folder:
            _refuse_damaged(file)
        part = read_rows(file, tuple(name for name in kind.columns if name in _WHOLE))
        if file.parent != folder:
            part.insert(0, "cell", file.parent.name)
        if list(part.columns) != list(kind.columns):
            raise DataError(f"{file}: its columns are not {', '.join(kind.columns)}; {remedy_of_a_stranger(file)}")
        parts.append(part)
    if not parts:
        return pd.DataFrame({name: pd.Series(dtype=object if name == "cell" else float) for name in kind.columns})
    return pd.concat(parts, ignore_index=True)


def _refuse_damaged(file: Path) -> None:
    """Raise ``DataError`` for a file of a complete cell that is not the one that the cell's record names."""
    record = file.with_name("cell.json")
    sha256 = (read_json(record).get("files") or {}).get(file.name) if record.is_file() else None
    if sha256 is not None and sha256_of_result(file) != sha256:
        raise DataError(f"{file}: damaged (its SHA-256 is not the recorded one); {remedy(file)}")
