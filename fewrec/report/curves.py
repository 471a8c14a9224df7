"""Learning curves of meta-training, from what a run's meta-fits recorded."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from fewrec.report.numbers import guarded, unguarded
from fewrec.seeding import digest

if TYPE_CHECKING:
    from fewrec.report.results import Results

KEYS = ["dataset", "state", "seed", "learner", "configuration", "step"]
_TEXTS = ("dataset", "state", "learner", "configuration")


def learning_curves(run_folder: str | Path) -> pd.DataFrame:
    """Return one row a recorded step of a meta-fit: columns ``KEYS``, ``validation_rmse`` and what else was recorded.

    Step 0 is the start of a gradient-based learner; ``configuration`` is a hash of the learner's options. Sorted by
    ``KEYS``; no row for learners without meta-fit or without a curve, nor for meta-fits that no cell of the run stands
    on any more. Broken records are left out: a curve decides nothing.
    """
    run_folder, rows = Path(run_folder), []
    cells = [_cell(record) for record in _records(run_folder.glob("cells/*/cell.json"))]
    for record in _records(run_folder.glob("meta/*/meta.json")):
        try:
            fields = record["fields"]
            place = (*(fields[name] for name in _PLACE), record["code_hash"])
            options = fields["config"]
            if not any(at == place and options == {n: of_cell.get(n) for n in options} for at, of_cell in cells):
                continue
            about = {name: fields[name] for name in ("dataset", "seed", "learner")}
            about |= {"state": fields["protocol"]["state"], "configuration": digest(fields["config"])[:8]}
            rows += [about | {name: float(value) for name, value in step.items()} for step in record["curve"]]
        except (KeyError, TypeError, ValueError):
            continue
    frame = pd.DataFrame(rows, columns=list(dict.fromkeys([*KEYS, "validation_rmse", *(n for r in rows for n in r)])))
    return frame.astype({"step": "int64", "seed": "int64"}).sort_values(KEYS, ignore_index=True)


def curves_of(results: Results) -> pd.DataFrame:
    """Return the learning curves of a folder of results: of a run's meta-fits, or of a reference's curves.csv.

    Columns as ``learning_curves`` gives them; no row where there are none, or where the file isn't readable.
    """
    file = results.path / "curves.csv"
    if (results.path / "cells").is_dir() or not file.is_file():
        return learning_curves(results.path)
    try:
        frame = pd.read_csv(file, dtype={name: "str" for name in _TEXTS},
                            keep_default_na=False, na_values=[""])  # fmt: skip
        frame = frame.rename(columns=unguarded).astype({"step": "int64", "seed": "int64", "validation_rmse": "float64"})
        for name in _TEXTS:
            frame[name] = frame[name].map(unguarded, na_action="ignore")
        return frame.sort_values(KEYS, ignore_index=True)
    except (OSError, KeyError, TypeError, ValueError):
        return learning_curves(results.path)


def curves_csv(curves: pd.DataFrame) -> bytes:
    """Return curves.csv, in which no text is a formula; ``curves_of`` reads it back."""
    frame = curves.rename(columns=guarded)
    for name in _TEXTS:
        frame[name] = frame[name].map(guarded, na_action="ignore")
    return frame.to_csv(index=False, float_format="%.6g").encode()


_PLACE = ("dataset", "meta_dataset", "protocol", "seed", "learner")  # fields that a meta-fit shares with its cells


def _cell(record: Any) -> tuple[tuple, dict[str, Any]]:
    spec = record.get("spec", {})
    return (*(spec.get(name) for name in _PLACE), record.get("code_hash")), spec.get("config", {})


def _records(files: Iterable[Path]) -> Iterator[Any]:
    for file in sorted(files):
        try:
            yield json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
