"""Whether a folder of results fits together, without running anything: hashes, complete rows, tables that match."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

import pandas as pd

from fewrec.errors import DataError
from fewrec.report.beside import PAIRS
from fewrec.report.figures import Interval
from fewrec.report.files import read_json, sha256_of_result
from fewrec.report.leaderboard import leaderboard
from fewrec.report.numbers import one_line
from fewrec.report.render import leaderboard_files
from fewrec.report.results import Results
from fewrec.seeding import digest

_SHOWN = 3  # differing values of a table that are named one by one


@dataclass
class Integrity:
    """``problems`` say what does not fit together; ``notes`` what is not as this version would write it, but may be."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check_integrity(results: Results) -> Integrity:
    """Check every cell of a folder and its tables against one another; cheap, since nothing is run again.

    Each cell's hash is that of its specification, its data is the manifest's, its episodes are complete with N users
    of Q ratings each and none twice (of windows in time: its users, each once, with the counts by pair of them);
    leaderboard.csv, .json, .md and .tex are what the cells give; every file that a cell's record names is as it was.
    """
    found = Integrity()
    _check_cells(results, found)
    _check_files(results, found)
    _check_rows(results, found)
    for name in results.unfinished:
        found.notes.append(f"cell {name} was begun and holds no result yet")
    try:
        frame = leaderboard(results, _interval(results.path))
    except DataError as error:
        found.problems.append(str(error))
        return found
    files = {name: content.decode() for name, content in leaderboard_files(results, frame).items()}
    exact = _check_csv(results.path / "leaderboard.csv", files.pop("leaderboard.csv"), found)
    for name, text in files.items():
        file = results.path / name
        if not file.is_file() or (stored := file.read_text(encoding="utf-8", errors="replace")) == text:
            continue
        if exact:
            found.problems.append(
                f"{file}: line {_first_difference(stored, text)} is not what the cells give; edited, or by another "
                "version (fewrec report makes it anew)"
            )
        else:
            found.notes.append(f"{file}: not what this version would write; fewrec report makes it anew")
    return found


def _interval(folder: Path) -> Interval:
    """Return the kind of interval that the folder's tables say they were made with."""
    try:
        said = read_json(folder / "leaderboard.json").get("interval")
    except DataError:
        said = None
    return "bca" if said == "bca" else "percentile"


def _check_cells(results: Results, found: Integrity) -> None:
    manifest = results.manifest.get("datasets") or {}
    for one in results.metadata:
        name = cell_name(one)
        if digest(one["spec"]) != one["spec_hash"]:
            found.problems.append(
                f"{name}: its hash is not that of its specification ({digest(one['spec'])}), which was edited"
            )
        for key in ("sha256", "text_sha256"):
            said = (manifest.get(one["spec"]["dataset"]) or {}).get(key)
            own = one.get("dataset_sha256" if key == "sha256" else key)
            if said is not None and own is not None and said != own:
                found.problems.append(f"{name}: made with {key} {own[:12]} of its data, the manifest says {said[:12]}")


def _check_files(results: Results, found: Integrity) -> None:
    """Check what is kept beside the scores, which were checked when they were read, against each cell's record."""
    for one in results.metadata:
        for name, sha256 in sorted((one.get("files") or {}).items()):
            file = results.path / "cells" / one["spec_hash"] / name
            if not file.is_file():
                found.problems.append(f"{file}: missing; run the suite again, which makes it anew")
                continue
            try:
                if sha256_of_result(file) != sha256:
                    found.problems.append(f"{file}: damaged (its SHA-256 is not the recorded one); run the suite again")
            except DataError as error:
                found.problems.append(str(error))


def _check_rows(results: Results, found: Integrity) -> None:
    by_cell = dict(iter(results.scores.groupby("cell", sort=False)))
    status = dict(zip(results.cells["cell"], results.cells["status"], strict=True))
    reason = dict(zip(results.cells["cell"], results.cells["reason"], strict=True))
    for one in results.metadata:
        cell, spec, name = one["spec_hash"], one["spec"], cell_name(one)
        if status[cell] == "incomplete":
            found.problems.append(f"{name}: {reason[cell]}")
        if status[cell] != "ok":
            continue
        rows = by_cell[cell]
        if spec["protocol"].get("history"):
            _check_windows(results, cell, name, rows, found)
            continue
        if rows.duplicated(["episode", "user"]).any():
            found.problems.append(f"{name}: an (episode, user) row occurs twice in its scores")
        elif sorted(rows["episode"].unique()) != list(range(spec["episodes"])):
            found.problems.append(f"{name}: its episodes are not 0 to {spec['episodes'] - 1}")
        elif (rows.groupby("episode").size() != spec["n_users"]).any():
            found.problems.append(f"{name}: an episode has not N = {spec['n_users']} users")
        elif (rows["n"] != spec["n_query"]).any():
            found.problems.append(f"{name}: a user has not Q = {spec['n_query']} query ratings")


def _check_windows(results: Results, cell: str, name: str, rows: pd.DataFrame, found: Integrity) -> None:
    """Check a cell of windows in time: a score row a user (that all windows are there, its status says), and counts of
    every pair of them."""
    users, pairs = sorted(rows["user"]), results.pairs[results.pairs["cell"] == cell]
    if len(set(users)) < len(users):
        found.problems.append(f"{name}: a user's row occurs twice in its scores")
    elif sorted(zip(pairs["user"], pairs["other"], strict=True)) != [(u, v) for u in users for v in users]:
        found.problems.append(f"{name}: its counts by pair of users ({PAIRS.file}) are not those of its users")


def _check_csv(file: Path, text: str, found: Integrity) -> bool:
    """Compare leaderboard.csv with what the cells give; return whether it is the same text."""
    if not file.is_file():
        found.notes.append(f"{file} is not there; fewrec report makes it")
        return False
    stored = file.read_text(encoding="utf-8", errors="replace")
    if stored == text:
        return True
    old, new = (list(csv.DictReader(io.StringIO(part), restkey="more", restval="")) for part in (stored, text))
    columns, now = (list(rows[0]) if rows else [] for rows in (old, new))
    if len(old) != len(new):
        found.problems.append(f"{file}: {len(old)} rows, the cells give {len(new)}; fewrec report makes it anew")
        return False
    wrong = [
        f"line {line}: {column} of '{one_line(row.get('label') or '')}' says {row[column] or 'nothing'}, "
        f"the cells give {other[column] or 'nothing'}"
        for line, (row, other) in enumerate(zip(old, new, strict=True), start=2)
        for column in columns
        if column in other and row[column] != other[column] and (column != "warning" or columns == now)
    ]  # another version may warn by other rules
    if wrong:
        more = f" (and {len(wrong) - _SHOWN} values more)" if len(wrong) > _SHOWN else ""
        found.problems.append(f"{file}: edited or stale: {'; '.join(wrong[:_SHOWN])}{more}")
    elif columns != now:
        lacking = ", ".join(name for name in now if name not in columns)
        more = ", ".join(name for name in columns if name not in now)
        said = " and ".join([f"lacks {lacking}"] * bool(lacking) + [f"has {more}"] * bool(more))
        said = said or "has its columns in another order"
        found.notes.append(f"{file}: by another version (it {said}); the values of the other columns are right")
    else:
        found.problems.append(f"{file}: written otherwise than fewrec writes it; fewrec report makes it anew")
    return False


def _first_difference(stored: str, made: str) -> int:
    """Return the number of the first line in which two texts differ, from 1."""
    pairs = zip_longest(stored.splitlines(), made.splitlines())
    return next((number for number, (a, b) in enumerate(pairs, start=1) if a != b), 1)


def cell_name(metadata: dict) -> str:
    """Return what people call a cell: its hash, data set, state, K, seed and label."""
    spec = metadata["spec"]
    label = spec.get("label") or spec["learner"]
    return one_line(
        f"cell {metadata['spec_hash']} ({label}, {spec['dataset']}, {spec['protocol'].get('state')}, "
        f"K={spec['k_shot']}, seed {spec['seed']})"
    )
