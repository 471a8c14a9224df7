"""Making a reference folder out of a run's: what is committed, without predictions and without paths of a machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fewrec.errors import DataError
from fewrec.report.beside import PAIRS, STEPS, rows_beside
from fewrec.report.curves import curves_csv, learning_curves
from fewrec.report.files import json_bytes, write_whole, write_with
from fewrec.report.render import write_leaderboard
from fewrec.report.results import Results, load_results

# columns of score rows that may be published: sums over a user's query ratings, and never one rating or prediction
_SCORE = re.compile(
    r"cell|episode|user|n|se|ae|auc|ndcg\d+|top\d+_(precision|ndcg|mrr)|pred_(mean|min|max)|log_density|within90"
)
# an absolute path of two parts or more, not inside an address; what is left is its last part
_PATH = re.compile(r"(?<![\w./:~\\-])(?:~|[A-Za-z]:)?[/\\](?:[^\s/\\'\"`,;:()<>|]+[/\\])+([^\s/\\'\"`,;:()<>|]*)")


def export_reference(run_folder: str | Path, reference_folder: str | Path) -> None:
    """Write manifest.json (with all cells), scores.parquet, leaderboard.* and curves.csv of a run into a folder, and
    of the online protocol steps.parquet, of windows in time pairs.parquet.

    Raises ``DataError`` where the run is broken or unfinished, or the two folders are the same; ``FolderError`` where
    the reference can't be written.
    """
    run_folder, reference_folder = Path(run_folder), Path(reference_folder)
    if run_folder.resolve() == reference_folder.resolve() or (reference_folder / "cells").exists():
        raise DataError(f"{reference_folder}: holds a run; give another folder for the reference")
    results = load_results(run_folder)
    if results.unfinished or (results.cells["status"] == "incomplete").any():
        raise DataError(f"{run_folder}: the run is not finished; run the suite again before exporting it")
    if not len(results.cells):
        raise DataError(f"{run_folder}: there is no finished cell to export; run the suite first")
    write_cells(results, reference_folder)
    for kind in (STEPS, PAIRS):
        rows = rows_beside(run_folder, kind)
        if len(rows):
            _write_frame(reference_folder / kind.file, rows)
    curves = learning_curves(run_folder)
    if len(curves):
        write_whole(reference_folder / "curves.csv", curves_csv(curves))
    write_leaderboard(reference_folder)


def write_cells(results: Results, folder: Path) -> None:
    """Write manifest.json (with all cells) and scores.parquet, which ``load_results`` reads like a run's folder.

    Raises ``DataError`` for a column of scores that may not be published.
    """
    for name in results.scores:
        if not _SCORE.fullmatch(str(name)):
            raise DataError(
                f"{results.path}: column '{name}' is none of those that may be committed; it isn't exported"
            )
    cells = [{name: one for name, one in cell.items() if name != "files"} for cell in results.metadata]  # of the run
    manifest = without_paths({**results.manifest, "cells": cells})
    _write_frame(folder / "scores.parquet", results.scores)
    write_whole(folder / "manifest.json", json_bytes(manifest))


def _write_frame(file: Path, frame: pd.DataFrame) -> None:
    table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    write_with(file, lambda part: pq.write_table(table, part, compression="zstd"))


def without_paths(value: Any) -> Any:
    """Return a JSON value in which each absolute path of a file system is replaced by its last part."""
    if isinstance(value, dict):
        return {without_paths(name): without_paths(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(one) for one in value]
    return _PATH.sub(lambda found: found.group(1) or "...", value) if isinstance(value, str) else value
