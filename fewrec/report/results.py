"""Reading a folder of results, of a run or a reference, into frames; apart from tables, so that notebooks can use it.

A run's folder has one folder a cell (contract 3); a reference folder has the cells' metadata in manifest.json and all
score rows in scores.parquet. Both give the same ``Results``, in an order that only the specifications decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fewrec.errors import DataError
from fewrec.report.beside import PAIRS, rows_beside
from fewrec.report.files import read_json
from fewrec.report.naming import TASK, protocol_names, row_labels, state_rank
from fewrec.report.stored import check_manifest
from fewrec.report.stored_cells import (
    checked_cell,
    count_other_configurations,
    joined,
    read_blocks,
    read_cells,
    read_scores,
)
from fewrec.seeding import canonical_json

_GIVE = "give one that fewrec run or fewrec export has written"
_META = (
    "code_hash", "dataset_sha256", "text_sha256", "split_hash", "eligible_users", "excluded_users", "trainable_params",
)  # fmt: skip
_TIMES = (
    "prepare_s", "meta_fit_s", "adapt_ms", "predict_ms", "update_ms", "episodes_per_s", "peak_mb", "device_peak_mb",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Results:
    """A folder of results in memory, as tidy frames: one row a cell, and one row a test user of an episode.

    ``manifest``: what holds for all cells (environment, data sets, the command).

    ``cells``: one row a cell, sorted by place in the table. ``cell`` is its hash; then come the fields of its
    specification (dataset, protocol, state, n_users, k_shot, n_query, episodes, seed, learner, label, config ...),
    ``status`` and ``reason``, hashes of data, split and code, ``trainable_params``, and what it cost: seconds
    (``prepare_s``, ``meta_fit_s``), lists of milliseconds an episode (``adapt_ms``, ``predict_ms``, in the online
    protocol ``update_ms``), ``episodes_per_s`` and MB. ``nodes`` says on what kind of machine that was measured, None
    where it was not recorded. ``tuning`` is the dict that says where its options come from, None where that was not
    recorded; ``other_configurations`` counts the other configurations that were run in its place of the table before.
    ``kind`` is that of its data set, ``ratings`` (also where the manifest doesn't say) or ``clicks``.

    ``scores``: one row a (cell, episode, user) of the cells with status ok, in the order of ``cells``: number of query
    ratings ``n``, sums of squared and absolute errors ``se`` and ``ae`` in rating units, ``ndcg5`` (or at another k)
    and ``auc``, NaN where undefined, and mean, least and greatest prediction. Join it with ``cells`` on ``cell``. Cells
    of clicks have no ``se`` and ``ae`` (NaN beside cells of ratings). Of windows in time (protocol ``history``) there
    is one row a (cell, user), over all of the user's windows, and ``pairs`` has a row a (cell, user, other user): see
    ``fewrec.metrics.pair_counts``.

    ``metadata``: each cell's JSON as stored, less its seal, with ``timing`` and ``other_configurations``, in the order
    of ``cells``.
    ``unfinished``: folders of cells that hold no result yet.
    """

    path: Path
    manifest: dict[str, Any]
    cells: pd.DataFrame
    scores: pd.DataFrame
    metadata: tuple[dict[str, Any], ...]
    unfinished: tuple[str, ...] = ()

    @property
    def suite(self) -> str:
        """The suite's name."""
        suite = self.manifest.get("suite")
        name = self.manifest.get("name") or (suite.get("name") if isinstance(suite, dict) else suite)
        return str(name or self.path.resolve().name)

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """What AUC over all rows is made of: cell, user, other, pairs, right; empty without windows in time."""
        return rows_beside(self.path, PAIRS)

    def in_windows(self, cells: pd.DataFrame) -> bool:
        """Say whether some of ``cells`` are windows in time, and have ``pairs``."""
        return any(m["spec"]["protocol"].get("history") for m in self.metadata if m["spec_hash"] in set(cells["cell"]))

    def of_task(self, task: tuple) -> pd.DataFrame:
        """Return the rows of ``cells`` of a task, a tuple that ``fewrec.report.leaderboard.tasks`` yields."""
        cells = self.cells
        for name, value in zip(TASK, task, strict=True):
            cells = cells[cells[name] == value]
        return cells

    @cached_property
    def leaderboard(self) -> pd.DataFrame:
        """The table, one row a (dataset, protocol, N, K, Q, learner, label); see ``fewrec.report.leaderboard``."""
        from fewrec.report.leaderboard import leaderboard

        return leaderboard(self)


def load_results(path: str | Path) -> Results:
    """Load results/<suite> or results/reference/<suite> into frames, see ``Results``, without torch.

    ``load_results("results/reference/quick").leaderboard`` is the table, ``.cells`` and ``.scores`` what it is made of.

    Raises ``DataError`` naming the file where the folder, or a file in it, is missing or broken.
    """
    path = Path(path)
    if not path.is_dir():
        raise DataError(f"{path}: no such folder of results; run the suite first, or give results/reference/<suite>")
    if not (path / "manifest.json").is_file():
        raise DataError(f"{path}: not a folder of results (it has no manifest.json); {_GIVE}")
    manifest = check_manifest(read_json(path / "manifest.json"), path / "manifest.json")
    if (path / "cells").is_dir():
        metadata, unfinished = read_cells(path / "cells")
        count_other_configurations(path, metadata)
        parts = [read_blocks(path / "cells" / m["spec_hash"], m) for m in metadata if m["status"] == "ok"]
        scores = joined(parts)
    elif (path / "scores.parquet").is_file():
        metadata, unfinished = [checked_cell(m, path / "manifest.json") for m in manifest.pop("cells", None) or []], ()
        scores = read_scores(path / "scores.parquet")
    else:
        raise DataError(f"{path}: not a folder of results (it has neither cells/ nor scores.parquet); {_GIVE}")
    return assemble_results(path, manifest, metadata, scores, unfinished)


def assemble_results(
    path: Path,
    manifest: dict[str, Any],
    metadata: list[dict[str, Any]],
    scores: pd.DataFrame,
    unfinished: tuple[str, ...] = (),
) -> Results:
    """Return the results of cells that are in memory: ``metadata`` as cell.json has it, ``scores`` with ``cell``.

    ``path`` is what errors call them. Raises ``DataError`` where scores belong to no cell.
    """
    metadata = sorted(metadata, key=_order)
    cells = _frame(metadata)
    cells["kind"] = _kinds(cells["dataset"], manifest)
    rank = pd.Series(range(len(cells)), index=cells["cell"], dtype="int64")
    unknown = sorted(set(scores["cell"].unique()) - set(rank.index))
    if unknown:
        raise DataError(f"{path / 'scores.parquet'}: cell {unknown[0]} is not in manifest.json; export the run again")
    scores = (
        scores.assign(_rank=looked_up(scores["cell"], rank.to_dict()))
        .sort_values(["_rank", "episode", "user"], kind="stable", ignore_index=True)
        .drop(columns="_rank")
    )
    in_windows = {m["spec_hash"] for m in metadata if m["spec"]["protocol"].get("history")}
    _mark_incomplete(cells, scores, in_windows)
    errors = [name for name in ("se", "ae") if name in scores]
    scores.loc[scores["cell"].isin(cells["cell"][cells["kind"] == "clicks"]), errors] = float("nan")
    return Results(path, manifest, cells, scores, tuple(metadata), unfinished)


def looked_up(column: pd.Series, values: Mapping[str, int]) -> np.ndarray:
    """Return the number that each entry of a column of few different names stands for, (len(column),) int64."""
    codes, names = pd.factorize(column)  # a dict is asked once a name, not once a row
    return np.array([values[name] for name in names], dtype=np.int64)[codes]


def _kinds(datasets: pd.Series, manifest: dict[str, Any]) -> list[str]:
    """Return the kind of each cell's data set; manifests from before kinds were recorded are of ratings."""
    said = manifest.get("datasets")
    said = said if isinstance(said, dict) else {}
    return [(said.get(name) or {}).get("kind") or "ratings" for name in datasets]


def _order(metadata: dict[str, Any]) -> tuple:
    spec = metadata["spec"]
    protocol = spec["protocol"]
    return (
        str(spec["dataset"]),
        state_rank(protocol.get("state")),
        canonical_json(protocol),
        spec["n_users"],
        shot_rank(spec["k_shot"]),
        spec["n_query"],
        spec["learner"],
        spec.get("label") or "",
        canonical_json(spec.get("config")),
        spec["seed"],
        metadata["spec_hash"],
    )


def shot_rank(k_shot: int | str) -> tuple[int, int]:
    """Return a sort key for K: numbers first, ``rest`` last."""
    return (1, 0) if isinstance(k_shot, str) else (0, int(k_shot))


def _frame(metadata: list[dict[str, Any]]) -> pd.DataFrame:
    specs = [m["spec"] for m in metadata]
    columns: dict[str, list] = {"cell": [m["spec_hash"] for m in metadata]}
    for name in ("dataset", "meta_dataset"):
        columns[name] = [spec.get(name) for spec in specs]
    columns["protocol"] = protocol_names(specs)
    columns["state"] = [spec["protocol"].get("state") for spec in specs]
    for name in ("n_users", "k_shot", "n_query", "episodes", "seed", "learner"):
        columns[name] = [spec[name] for spec in specs]
    columns["label"] = row_labels(specs, columns["protocol"])
    columns["ndcg_at"] = [spec.get("ndcg_at") for spec in specs]
    columns["config"] = [spec.get("config") or {} for spec in specs]
    columns["status"] = [m["status"] for m in metadata]
    columns["reason"] = [m.get("reason") or "" for m in metadata]
    columns["tuning"] = [m.get("tuning") for m in metadata]
    columns["other_configurations"] = [m.get("other_configurations") or 0 for m in metadata]
    columns["scale"] = [m.get("scale") for m in metadata]
    for name in _META:
        columns[name] = [m.get(name) for m in metadata]
    for name in _TIMES:
        columns[name] = [(m.get("timing") or {}).get(name) for m in metadata]
    columns["nodes"] = [(m.get("timing") or {}).get("nodes") for m in metadata]
    return pd.DataFrame({name: pd.Series(values, dtype=_dtype(name)) for name, values in columns.items()})


def _dtype(name: str) -> str:
    if name in ("n_users", "n_query", "episodes", "seed", "other_configurations"):
        return "int64"
    if name in ("prepare_s", "meta_fit_s", "episodes_per_s", "peak_mb", "device_peak_mb", "trainable_params"):
        return "float64"
    return "object"


def _mark_incomplete(cells: pd.DataFrame, scores: pd.DataFrame, in_windows: set[str]) -> None:
    """Give a cell that says ok but lacks episodes the status incomplete: a mean over a part is not its score.

    Of the cells ``in_windows`` an episode is one of the ``n`` rows that a user's score counts.
    """
    of_cell = scores.groupby("cell").agg(episodes=("episode", "nunique"), rows=("n", "sum")).reindex(cells["cell"])
    counted = of_cell["rows"].where(cells["cell"].isin(in_windows).to_numpy(), of_cell["episodes"])
    found = counted.fillna(0).astype(int).to_numpy()
    short = (cells["status"] == "ok").to_numpy() & (found < cells["episodes"].to_numpy())
    for i in short.nonzero()[0]:
        cells.loc[i, "status"] = "incomplete"
        cells.loc[i, "reason"] = f"{found[i]} of {cells['episodes'].iloc[i]} episodes are there; run the suite again"
