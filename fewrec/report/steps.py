"""Errors by step of the online protocol: how a learner gets better with each rating that arrives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fewrec.errors import DataError
from fewrec.report.naming import TASK
from fewrec.report.results import Results

FILE = "steps.parquet"
_COLUMNS = ("cell", "episode", "step", "n", "se", "ae")


def step_rows(folder: str | Path) -> pd.DataFrame:
    """Return the rows of a run's or a reference's folder, one a (cell, episode, step), steps from 1; empty if none.

    ``n`` ratings, ``se`` and ``ae`` summed over the episode's users, on the rating scale. Raises ``DataError`` for a
    file that can't be read.
    """
    folder = Path(folder)
    files = [folder / FILE] if (folder / FILE).is_file() else sorted((folder / "cells").glob("*/steps-*.parquet"))
    parts = []
    for file in files:
        try:
            part = pq.read_table(file).to_pandas()
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{file}: can't be read ({str(error).splitlines()[0]}); run the suite again") from None
        if file.name != FILE:
            part.insert(0, "cell", file.parent.name)
        if list(part.columns) != list(_COLUMNS):
            raise DataError(f"{file}: its columns are not {', '.join(_COLUMNS)}; run the suite again")
        parts.append(part)
    if not parts:
        return pd.DataFrame({name: pd.Series(dtype=object if name == "cell" else float) for name in _COLUMNS})
    return pd.concat(parts, ignore_index=True)


def error_by_step(results: Results) -> pd.DataFrame:
    """Return RMSE and MAE of each row of the tables by step, pooled over seeds: task, label, step, n, rmse, mae."""
    cells = results.cells.loc[results.cells["status"] == "ok", ["cell", *TASK, "label"]]
    rows = step_rows(results.path).merge(cells, on="cell")
    sums = rows.groupby([*TASK, "label", "step"], sort=False, as_index=False)[["n", "se", "ae"]].sum()
    return sums.assign(rmse=np.sqrt(sums["se"] / sums["n"]), mae=sums["ae"] / sums["n"]).drop(columns=["se", "ae"])
