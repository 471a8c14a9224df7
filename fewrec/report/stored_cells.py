"""Reading the cells of a results folder: their records, and the rows of scores, each checked against what was written.

A run's folder has one folder a cell (contract 3); ``fewrec.report.results`` makes frames of what is read here.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pandas as pd

from fewrec.errors import DataError
from fewrec.report.beside import score_files
from fewrec.report.files import read_json, remedy_of_a_stranger, sha256_of_result
from fewrec.report.rows import read_rows
from fewrec.report.stored import check_cell, check_timing
from fewrec.seeding import canonical_json

SCORE_COLUMNS = ("episode", "user", "n", "auc", "pred_mean", "pred_min", "pred_max")  # those that every score row has


def read_cells(folder: Path) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    metadata, unfinished = [], []
    for cell in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        if not (cell / "cell.json").is_file():
            unfinished.append(cell.name)
            continue
        file = cell / "cell.json"
        one = checked_cell(read_json(file), file)
        if one["spec_hash"] != cell.name:
            raise DataError(f"{file}: is that of cell {one['spec_hash']}; {remedy_of_a_stranger(file)}")
        timing = cell / "timing.json"
        one["timing"] = check_timing(read_json(timing), timing) if timing.is_file() else {}
        metadata.append(one)
    return metadata, tuple(unfinished)


def count_other_configurations(run_folder: Path, metadata: list[dict[str, Any]]) -> None:
    """Write into each cell's metadata how many other configurations of its learner had figures in its place before.

    A run moves a cell aside, into superseded/, when another configuration takes its place of the table (``row`` in
    begun.json). A cell with the same configuration, run again with other code, is none, nor is one that gave no scores.
    """
    tried: dict[tuple[str, str], set[str]] = defaultdict(set)
    for file in run_folder.glob("superseded/*/cell.json"):
        try:
            row, cell = json.loads(file.with_name("begun.json").read_bytes())["row"], json.loads(file.read_bytes())
            if cell["status"] == "ok":
                tried[row, cell["spec"]["learner"]].add(canonical_json(cell["spec"]["config"]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue  # what can't be read decides no figure
    for one in metadata:
        others: set[str] = set()
        if tried:
            try:
                row = json.loads((run_folder / "cells" / one["spec_hash"] / "begun.json").read_bytes())["row"]
                others = tried[row, one["spec"]["learner"]] - {canonical_json(one["spec"].get("config"))}
            except (OSError, ValueError, KeyError, TypeError, RecursionError):
                pass
        one["other_configurations"] = len(others)


def checked_cell(metadata: Any, file: Path) -> dict[str, Any]:
    needed = ("spec", "spec_hash", "status")
    if not isinstance(metadata, dict) or any(name not in metadata for name in needed):
        raise DataError(f"{file}: a cell lacks one of {', '.join(needed)}; {remedy_of_a_stranger(file)}")
    if metadata.get("schema", 1) != 1:
        raise DataError(f"{file}: schema {metadata['schema']} is newer than this fewrec, which reads 1; update fewrec")
    spec = metadata["spec"]
    for name, kind, said in (("spec", dict, "a table"), ("spec_hash", str, "text"), ("status", str, "text")):
        if not isinstance(metadata[name], kind):
            raise DataError(f"{file}: its {name} is not {said}; {remedy_of_a_stranger(file)}")
    for name in ("dataset", "protocol", "n_users", "k_shot", "n_query", "episodes", "seed", "learner"):
        if name not in spec:
            raise DataError(f"{file}: the cell's spec lacks '{name}'; {remedy_of_a_stranger(file)}")
    if not isinstance(spec["protocol"], dict):
        raise DataError(f"{file}: its protocol is not a table; {remedy_of_a_stranger(file)}")
    return check_cell(metadata, file)


def read_blocks(folder: Path, metadata: dict[str, Any]) -> pd.DataFrame:
    sums = metadata.get("files")  # earlier versions recorded none
    parts = []
    for file in score_files(folder):
        if sums and sha256_of_result(file) != sums.get(file.name):
            raise DataError(
                f"{file}: damaged, or not of this cell (its SHA-256 is not the one in cell.json); run the suite again, "
                "which makes it anew"
            )
        parts.append(read_scores(file, metadata["spec_hash"]))
    frame = joined(parts)
    if frame.duplicated(["episode", "user"]).any():
        raise DataError(f"{folder}: a (episode, user) row occurs twice; remove this folder and run the suite again")
    return frame


def read_scores(file: Path, cell: str | None = None) -> pd.DataFrame:
    frame = read_rows(file, ("episode", "user", "n"))
    if cell is not None:
        if "cell" in frame:
            raise DataError(f"{file}: it has a column 'cell', which is a reference's; {remedy_of_a_stranger(file)}")
        frame.insert(0, "cell", cell)
    missing = [name for name in ("cell", *SCORE_COLUMNS) if name not in frame]
    if missing:
        raise DataError(f"{file}: lacks the column '{missing[0]}'; {remedy_of_a_stranger(file)}")
    return frame


def joined(parts: list[pd.DataFrame]) -> pd.DataFrame:
    parts = [part for part in parts if len(part)]
    if not parts:
        return pd.DataFrame({name: pd.Series(dtype="float64") for name in ("cell", *SCORE_COLUMNS, "se", "ae")})
    return pd.concat(parts, ignore_index=True)
