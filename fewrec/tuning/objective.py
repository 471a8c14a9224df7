"""What a trial is scored by: the primary metric on meta-validation, of splits from which meta-test is removed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fewrec.data.table import Dataset, Scale
from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.sampler import EpisodeSampler
from fewrec.episodes.split import Pool, Split
from fewrec.episodes.support import Episodes
from fewrec.errors import NotApplicable, SuiteError
from fewrec.learners.base import Context, Learner
from fewrec.metrics.ranking import auc
from fewrec.report.measure import AUC, RMSE, Measure
from fewrec.runner.applicable import refuse_what_is_lacking
from fewrec.runner.cell import CellSpec
from fewrec.runner.predict import checked, predict_query
from fewrec.runner.resources import device_of
from fewrec.runner.splits import split_key, split_of
from fewrec.seeding import digest


class _WithoutTest(dict[Any, Pool]):
    def __missing__(self, name: str) -> Pool:
        raise LookupError(f"meta-{name} can't be reached from tuning")


@dataclass(frozen=True, eq=False)
class Task:
    """One (data set, state, seed) of a suite: its split without meta-test, and the cells (K, N, Q) that share it."""

    name: str
    split: Split
    scale: Scale
    cells: tuple[CellSpec, ...]

    @property
    def sha256(self) -> str:
        """Hash of everything of the data that tuning can see: meta-train, meta-validation and the items' texts."""
        h = hashlib.sha256(self.split.meta_train.sha256.encode())
        for name in ("train", "validation"):
            pool = self.split.pools[name]  # type: ignore[index]  # the loop variable is one of MetaSet's values
            arrays = [pool.users, pool.meta_user]
            for rows in (pool.support, pool.query):
                arrays += [rows.offsets, rows.item, rows.rating]
                arrays += [] if rows.timestamp is None else [rows.timestamp]
            if pool.item_shots is not None:
                arrays += [pool.item_shots.offsets, pool.item_shots.meta_user, pool.item_shots.rating]
            arrays += [] if pool.user_features is None else [pool.user_features]
            for array in arrays:
                h.update(np.ascontiguousarray(array).tobytes())
        catalog = self.split.catalog
        h.update(f"{catalog.text_sha256} {self.scale.low} {self.scale.high}".encode())
        h.update(b"" if catalog.features is None else np.ascontiguousarray(catalog.features).tobytes())
        return h.hexdigest()


def tasks_of(
    cells: Sequence[CellSpec], datasets: Mapping[str, Dataset], cls: type[Learner]
) -> tuple[list[Task], dict[str, str]]:
    """Return the tasks of the cells that the learner can be run on, and the reasons why not for the others by name.

    Raises ``SuiteError`` where a cell's meta-validation episodes can't be drawn, and where some data sets are of
    ratings and some of clicks.
    """
    grouped: dict[str, list[CellSpec]] = {}
    reasons: dict[str, str] = {}
    for spec in cells:
        try:
            refuse_what_is_lacking(cls, spec, datasets)
        except NotApplicable as reason:
            reasons[cell_name(spec)] = str(reason)
            continue
        grouped.setdefault(digest([split_key(spec), spec.protocol.canonical()]), []).append(spec)
    tasks = []
    for group in grouped.values():
        one = group[0]
        split = split_of(one, datasets)
        seen = {name: pool for name, pool in split.pools.items() if name != "test"}
        task = Task(
            f"{one.dataset} {one.protocol.state} seed {one.seed}", replace(split, pools=_WithoutTest(seen)),
            datasets[one.dataset].scale, tuple(group),
        )  # fmt: skip
        for spec in group:
            try:
                validation_episodes(task, spec, 0, 1)
            except SuiteError as error:
                raise SuiteError(f"{cell_name(spec)}, meta-validation: {error}") from None
        tasks.append(task)
    if len({measure_of_scale(task.scale) for task in tasks}) > 1:
        kinds = "; ".join(f"{datasets[name].kind}: {name}" for name in dict.fromkeys(t.cells[0].dataset for t in tasks))
        raise SuiteError(f"ratings are tuned by RMSE, clicks by AUC: give data sets of one kind by --dataset ({kinds})")
    return tasks, reasons


def cell_name(spec: CellSpec) -> str:
    """Return the name of a cell in what tuning says, whatever the learner."""
    return f"{spec.dataset} {spec.protocol.state} N={spec.n_users} K={spec.k_shot} Q={spec.n_query} seed {spec.seed}"


def validation_episodes(task: Task, spec: CellSpec, first: int, count: int) -> Episodes:
    """Return ``count`` meta-validation episodes of a cell, drawn as its test episodes are (same N, K, Q, ``k_max``)."""
    sampler = EpisodeSampler.of(task.split, spec.protocol, "validation")
    return sampler.sample(first, count, n_users=spec.n_users, k_shot=spec.k_shot, n_query=spec.n_query)


def measure_of_scale(scale: Scale) -> Measure:
    """Return the primary metric of a data set of this scale."""
    return AUC if scale.of_clicks else RMSE


def error_of(prediction: np.ndarray, truth: np.ndarray, user: np.ndarray, scale: Scale) -> float:
    """Return what tuning makes small: the RMSE over all query ratings, predictions clipped to the scale; of clicks 1 -
    AUC, mean over the (episode, user) pairs, numbered by ``user`` (m,), that have one.

    Raises ``ValueError`` where none of them has an AUC.
    """
    if measure_of_scale(scale) is RMSE:
        return float(np.sqrt(np.mean((np.clip(prediction, scale.low, scale.high) - truth) ** 2)))
    each = auc(user, int(user.max()) + 1, truth, prediction)
    if not np.isfinite(each).any():
        raise ValueError("no query of meta-validation has both clicks and others, so that there is no AUC")
    return 1 - float(np.nanmean(each))


class Objective:
    """Scores configurations: the mean of ``error_of`` over all cells of the tasks.

    A learner that is fitted serves all cells that depend on the same meta-fit. ``keep_fits``: keep every task's
    meta-fits for later configurations, which pays where only options of adapting are searched.
    """

    def __init__(
        self, cls: type[Learner], tasks: Sequence[Task], device: torch.device, cache: Path, keep_fits: bool = False
    ) -> None:
        self.cls, self.tasks, self.device, self.cache = cls, tasks, device_of(cls, device), cache
        self.keep_fits = keep_fits
        self.measure = measure_of_scale(tasks[0].scale)
        self._states: dict[str, tuple[dict[str, torch.Tensor], dict[str, Any]]] = {}
        self._episodes: dict[str, list[Episodes]] = {}

    def __call__(self, config: dict[str, Any]) -> dict[str, float]:
        """Return the error of a whole configuration (JSON values) in each cell, by name.

        Raises whatever the learner raises, and ``ValueError`` for predictions that are NaN, infinite or ill-shaped.
        """
        errors: dict[str, float] = {}
        for task in self.tasks:
            fitted: tuple[str, Learner, Context] | None = None
            for spec in (replace(cell, config=config) for cell in task.cells):
                key = digest(spec.meta_fields(self.cls))
                if fitted is None or fitted[0] != key:
                    fitted = None  # frees the memory of the one before
                    fitted = (key, *self._fit(task, spec, key))
                errors[cell_name(spec)] = self._error(task, spec, fitted[1], fitted[2])
        return errors

    def _fit(self, task: Task, spec: CellSpec, key: str) -> tuple[Learner, Context]:
        ctx = Context(self.device, task.split.catalog, task.scale, self.cache)
        learner = self.cls(self.cls.Config(**spec.config))
        learner.prepare(ctx)
        if self.cls.has_meta_fit():
            if key in self._states:
                tensors, values = self._states[key]
                learner.load_state({name: tensor.clone() for name, tensor in tensors.items()}, values, ctx)
            else:
                learner.meta_fit(MetaTrainSet(task.split, task.scale, spec.depends(self.cls)), ctx)
                if self.keep_fits:
                    tensors, values = learner.state()
                    plain = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
                    self._states[key] = (plain, values)
        return learner, ctx

    def _error(self, task: Task, spec: CellSpec, learner: Learner, ctx: Context) -> float:
        batch = min(learner.batch_episodes, spec.episodes)
        predictions, truths, users, n_users = [], [], [], 0
        for part in self._parts(task, spec, batch):
            predictor = learner.adapt_batch(part.support, ctx)
            with torch.no_grad():
                predictions.append(checked(predict_query(predictor, part.query), part.query))
            truths.append(part.answers.rating.numpy())
            users.append(n_users + part.support.flat_user(part.query.episode, part.query.user).numpy())
            n_users += part.support.total_users
        return error_of(np.concatenate(predictions), np.concatenate(truths), np.concatenate(users), task.scale)

    def _parts(self, task: Task, spec: CellSpec, batch: int) -> list[Episodes]:
        """Return a cell's episodes, ``batch`` at a time; drawn once for all trials."""
        key = f"{cell_name(spec)} {batch}"
        if key not in self._episodes:
            self._episodes[key] = [
                validation_episodes(task, spec, first, min(batch, spec.episodes - first))
                for first in range(0, spec.episodes, batch)
            ]
        return self._episodes[key]
