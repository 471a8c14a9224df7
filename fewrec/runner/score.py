"""Scoring predictions that were made elsewhere on frozen episodes, beside trivial rows on the same ones.

Every figure comes from the functions that a run's cells and the report use, so it is what ``fewrec run`` would say.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from fewrec.checksums import sha256_of
from fewrec.data.table import Dataset
from fewrec.episodes.frozen import FrozenEpisodes, FrozenTask, load
from fewrec.episodes.support import Episodes, QueryBatch, SupportBatch
from fewrec.errors import DataError, FolderError, SuiteError
from fewrec.learners.base import Context, Learner
from fewrec.learners.registry import learner_class
from fewrec.paths import cache_folder
from fewrec.report.export import write_cells
from fewrec.report.files import write_whole
from fewrec.report.leaderboard import TRIVIAL
from fewrec.report.numbers import one_line
from fewrec.report.render import leaderboard_files
from fewrec.report.results import Results, assemble_results
from fewrec.runner.cell import SCHEMA, CellSpec, code_hash
from fewrec.runner.environment import describe
from fewrec.runner.predict import Normal, checked, predict_query
from fewrec.runner.predictions import read_predictions
from fewrec.runner.records import score_rows
from fewrec.runner.suite import LearnerRow, validated_config

EXTERNAL = "external"  # what stands for the learner of predictions that were made elsewhere
BESIDE = ("global-mean", "user-mean", "item-mean", "bias", "item-popularity", "random")


def score(
    predictions: str | Path,
    episodes: str | Path | FrozenEpisodes,
    *,
    label: str | None = None,
    out: str | Path | None = None,
    told: Callable[[str], None] = lambda name: None,
) -> Results:
    """Score a file of predictions on frozen episodes; return the results, trivial rows among them.

    ``predictions`` is a Parquet or CSV file (``fewrec.runner.predictions``), ``episodes`` an export or one task's
    folder, ``label`` what the table calls the row (default: the file's name). ``out`` is a new folder for the results
    in the form of a reference, which ``fewrec report``, ``show`` and ``compare`` read. ``told`` hears each task's name.

    Raises ``DataError`` for predictions or episodes that can't be used, ``SuiteError`` for the label of a trivial row,
    ``FolderError`` where ``out`` holds something already.
    """
    predictions = Path(predictions).expanduser()
    label = one_line(label if label is not None else predictions.name.split(".")[0])
    if not label or label in TRIVIAL:
        raise SuiteError(f"--label '{label}': {'is a row of the table already' if label else 'is empty'}; give another")
    folder = None if out is None else Path(out).expanduser()
    if folder is not None and folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise FolderError(f"--out {folder}: there is something already; choose another folder")
    frozen = episodes if isinstance(episodes, FrozenEpisodes) else load(episodes)
    answered = read_predictions(predictions, list(frozen))
    config = {"predictions_sha256": sha256_of(predictions)}
    metadata: list[dict[str, Any]] = []
    scores: list[pd.DataFrame] = []
    known: _Known | None = None
    for task, (prediction, sd) in zip(frozen, answered, strict=True):
        told(task.name)
        if known is None or known.folder != task.folder.parent:
            known = _Known(task)
        of_task = _TaskScores(task, known)
        normal = None if sd is None else (prediction, sd)
        try:
            of_task.add(_spec(task, EXTERNAL, label, config), prediction, normal=normal)
        except ValueError as error:  # what the file alone doesn't show: an sd too small for the ratings
            raise DataError(f"{predictions}: {task.name}: {error}") from None
        for name in BESIDE:
            of_task.add_learner(name)
        metadata += of_task.metadata
        scores += of_task.scores
    results = assemble_results(
        folder or frozen.folder, _manifest(frozen), metadata, pd.concat(scores, ignore_index=True)
    )
    if folder is not None:
        write_cells(results, folder)
        for name, content in leaderboard_files(results, results.leaderboard).items():
            write_whole(folder / name, content)
    return results


class _Known:
    """What the tasks of one split share: meta-train, and the trivial rows that are fitted on it."""

    def __init__(self, task: FrozenTask) -> None:
        self.folder, self.source = task.folder.parent, task.source()
        self.ctx = Context(torch.device("cpu"), self.source.catalog, self.source.scale, cache_folder() / "learners")
        self.learners = {name: self._fitted(name) for name in BESIDE}

    def _fitted(self, name: str) -> Learner:
        learner = learner_class(name)()
        learner.prepare(self.ctx)
        learner.meta_fit(self.source, self.ctx)  # type: ignore[arg-type]  # trivial rows need its table alone
        return learner


class _TaskScores:
    """The cells of one task: their records and score rows."""

    def __init__(self, task: FrozenTask, known: _Known) -> None:
        self.task, self.episodes, self.known = task, task.episodes(), known
        about, source = task.record.dataset, known.source
        # score rows need the scale alone; the data set's own table is not frozen
        self.data = Dataset(about.name, source.table, source.catalog, source.scale, np.empty(0), about.kind)
        self.metadata: list[dict[str, Any]] = []
        self.scores: list[pd.DataFrame] = []

    def add(
        self, spec: CellSpec, prediction: np.ndarray, learner: Learner | None = None, normal: Normal | None = None
    ) -> None:
        """Add a cell; ``prediction`` and the parts of ``normal`` are (m,) in the order of the query."""
        record = self.task.record
        rows = score_rows(spec, self.episodes, prediction, 0, self.data, normal)
        rows.insert(0, "cell", spec.spec_hash)
        self.scores.append(rows)
        self.metadata.append({
            "schema": SCHEMA, "spec": spec.canonical(), "spec_hash": spec.spec_hash, "status": "ok", "reason": "",
            "code_hash": None if learner is None else code_hash(learner_class(spec.learner)),
            "dataset_sha256": record.dataset.table_sha256, "text_sha256": record.dataset.text_sha256,
            "split_hash": record.split_sha256, "eligible_users": record.eligible_users,
            "excluded_users": record.excluded_users, "loaded": {}, "timing": {}, "tuning": None,
            "trainable_params": None if learner is None else learner.trainable_parameters(),
        })  # fmt: skip

    def add_learner(self, name: str) -> None:
        """Add the cell of a trivial row, with its defaults and in the batches that a run would take."""
        learner, ctx = self.known.learners[name], self.known.ctx
        spec = _spec(self.task, name, name, validated_config(LearnerRow(learner=name)))
        step = min(learner.batch_episodes, spec.block)
        parts = []
        for start in range(0, spec.episodes, spec.block):
            end = min(start + spec.block, spec.episodes)
            for first in range(start, end, step):
                support, query = _part(self.episodes, first, min(first + step, end), spec)
                parts.append(checked(predict_query(learner.adapt_batch(support, ctx), query), query))
        self.add(spec, np.concatenate(parts), learner)


def _part(episodes: Episodes, first: int, end: int, spec: CellSpec) -> tuple[SupportBatch, QueryBatch]:
    """Return support and query of episodes ``first`` .. ``end`` - 1, numbered from 0."""
    query = episodes.query
    rows = slice(first * spec.n_users * spec.n_query, end * spec.n_users * spec.n_query)
    asked = QueryBatch(query.episode[rows] - first, query.user[rows], query.item[rows])
    return SupportBatch.of([episodes.support[e] for e in range(first, end)]), asked


def _spec(task: FrozenTask, learner: str, label: str, config: dict[str, Any]) -> CellSpec:
    record = task.record
    return CellSpec(
        dataset=record.dataset.name, protocol=record.as_protocol, n_users=record.n_users, k_shot=record.k_shot,
        n_query=record.n_query, episodes=record.episodes, block=record.block, ndcg_at=record.ndcg_at,
        seed=record.seed, learner=learner, label=label, config=config,
    )  # fmt: skip


def _manifest(frozen: FrozenEpisodes) -> dict[str, Any]:
    records = [task.record for task in frozen]
    return {
        "schema": SCHEMA,
        "name": frozen.suite,
        "command": "fewrec score",
        "environment": describe(torch.device("cpu"), torch.get_num_threads()),
        "datasets": {
            about.name: {
                "sha256": about.table_sha256, "text_sha256": about.text_sha256, "sources": about.sources,
                "licence": about.licence, "citation": about.citation, "homepage": about.homepage, "notes": [],
                "scale": list(about.scale[:2]), "kind": about.kind,
            }
            for about in (record.dataset for record in records)
        },
        "splits": {
            f"{record.dataset.name}/{record.protocol['state']}/{record.protocol['order']}/seed {record.seed}":
                record.split_sha256
            for record in records
        },
    }  # fmt: skip
