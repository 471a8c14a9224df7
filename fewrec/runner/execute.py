"""Executing cells: prepare, meta-fit or load, warm-up, latency, then block by block until the cell is complete."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from fewrec.data.table import Dataset
from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.sampler import EpisodeSampler
from fewrec.episodes.split import Split
from fewrec.episodes.support import Episodes
from fewrec.errors import FolderError, NotApplicable
from fewrec.learners.base import Context, Learner
from fewrec.learners.registry import learner_class
from fewrec.report.beside import BY_USER, PAIRS
from fewrec.runner.applicable import refuse_what_is_lacking
from fewrec.runner.cell import SCHEMA, CellSpec, code_hash
from fewrec.runner.online import predict_online, step_rows
from fewrec.runner.predict import Answered, checked, distribution_of, predict_query
from fewrec.runner.progress import Reporter
from fewrec.runner.provenance import provenance
from fewrec.runner.records import (
    LATENCY_EPISODES,
    Fitted,
    cell_figures,
    cell_timing,
    prediction_rows,
    rows_by_user,
    score_rows,
)
from fewrec.runner.splits import split_key, split_of
from fewrec.runner.store import RunFolder, block_file
from fewrec.runner.timing import CellTimeout, Stopwatch, peak_memory_mb, reset_peak_memory, time_limit
from fewrec.seeding import digest
from fewrec.tracking.base import Trackers


class CellRunner:
    """Runs cells one after the other; neighbours that agree in what the meta-fit depends on share one.

    ``tuning`` says by label where a row's options come from (see ``Suite.tuning``); ``trackers`` follow the run.
    """

    def __init__(self, folder: RunFolder, datasets: Mapping[str, Dataset], device: torch.device, cache: Path,
                 reporter: Reporter, limit: float | None = None, tuning: Mapping[str, dict[str, Any]] | None = None,
                 trackers: Trackers | None = None) -> None:  # fmt: skip
        self.folder, self.datasets, self.device = folder, datasets, device
        self.cache, self.reporter, self.limit = cache, reporter, limit
        self.tuning, self.trackers = dict(tuning or {}), trackers or Trackers()
        self._splits: dict[str, Split] = {}
        self._fitted: Fitted | None = None
        self._unusable: dict[str, tuple[str, str]] = {}  # meta-fits that failed: key -> (status, reason)

    def split(self, spec: CellSpec) -> Split:
        """Return the split of a cell; the last few are kept."""
        key = split_key(spec)
        if key not in self._splits:
            if len(self._splits) >= 4:
                del self._splits[next(iter(self._splits))]
            self._splits[key] = split_of(spec, self.datasets)
        return self._splits[key]

    def sampler(self, spec: CellSpec) -> EpisodeSampler:
        return EpisodeSampler.of(self.split(spec), spec.protocol)

    def run(self, spec: CellSpec) -> str:
        """Run or resume one cell and write its record; return its status. A learner's failure becomes a status too."""
        cls = learner_class(spec.learner)
        code = code_hash(cls)
        tuning = self.tuning.get(spec.label) or provenance(cls, spec.config)
        record = self.folder.finished(spec, code)
        if record is not None:
            self.folder.update_record(spec, record, tuning=tuning)
            self._track_result(spec, "ok")
            return "ok"
        folder = self.folder.begin_cell(spec, code)
        status, reason, fitted = "ok", "", None
        try:
            refuse_what_is_lacking(cls, spec, self.datasets)
            self.trackers.cell(spec)
            with time_limit(self.limit):
                fitted = self._fit(cls, spec, code)
                self._score(spec, fitted, folder)
        except NotApplicable as error:
            status, reason = "not applicable", str(error)
        except CellTimeout:
            status, reason = "timeout", f"not finished within {self.limit:g} s"
        except FolderError:
            raise  # not the learner's fault, and the next cell would meet it too
        except Exception as error:  # a learner may fail in any way; the others must go on
            status, reason = "failed", one_line(error)
            self.folder.write_text(folder / "error.txt", traceback.format_exc())
        if status in ("failed", "timeout") and fitted is None:
            self._unusable[digest([spec.meta_fields(cls), code])] = (status, reason)
        self._write_record(spec, code, status, reason, fitted, folder, tuning)
        self._track_result(spec, status)
        return status

    def _track_result(self, spec: CellSpec, status: str) -> None:
        if self.trackers:
            self.trackers.result(spec, status, cell_figures(self.folder.cell(spec)) if status == "ok" else {})

    def _write_record(
        self, spec: CellSpec, code: str, status: str, reason: str, fitted: Fitted | None, folder: Path,
        tuning: dict[str, Any],
    ) -> None:  # fmt: skip
        dataset, eligible = self.datasets[spec.dataset], self.sampler(spec).eligible(spec.n_query)
        source = None if spec.meta_dataset is None else self.datasets[spec.meta_dataset]
        if fitted is not None:
            self.folder.write_json(folder / "timing.json", cell_timing(folder, fitted))
        record = {
            "schema": SCHEMA, "spec": spec.canonical(), "spec_hash": spec.spec_hash, "code_hash": code,
            "status": status, "reason": reason, "dataset_sha256": dataset.table.sha256,
            "text_sha256": self.split(spec).catalog.text_sha256, "features_sha256": dataset.features_sha256,
            "meta_dataset_sha256": None if source is None else source.table.sha256,
            "split_hash": self.split(spec).sha256,
            "eligible_users": len(eligible.users), "excluded_users": eligible.excluded,
            "loaded": fitted.learner.loaded() if fitted else {},
            "trainable_params": fitted.learner.trainable_parameters() if fitted else None,
            "tuning": tuning,
            "files": self.folder.sums(spec) if status == "ok" else {},
        }  # fmt: skip
        self.folder.write_json(folder / "cell.json", record)

    # meta-fit

    def _fit(self, cls: type[Learner], spec: CellSpec, code: str) -> Fitted:
        key = digest([spec.meta_fields(cls), code])
        if key in self._unusable:
            status, reason = self._unusable[key]
            raise CellTimeout if status == "timeout" else _MetaFitFailed(reason)
        instance = digest([key, spec.config])
        if self._fitted is not None and self._fitted.key == instance:
            self._track_curve(spec, self._fitted.curve)
            return self._fitted
        self._fitted = None  # frees the memory of the one before
        split, dataset = self.split(spec), self.datasets[spec.dataset]
        curve: list[dict[str, float]] = []

        def record_step(step: int, scalars: Mapping[str, float]) -> None:
            curve.append({"step": step, **scalars})
            self.trackers.scalars(spec, step, scalars)

        ctx = Context(self.device, split.catalog, dataset.scale, self.cache, self.reporter.track, record_step)
        learner = cls(cls.Config(**spec.config))
        fitted = Fitted(instance, learner, ctx, curve=curve)
        reset_peak_memory(self.device)
        self.reporter.phase("prepare")
        with Stopwatch(self.device) as watch:
            learner.prepare(ctx)
        fitted.prepare_s = watch.seconds
        if cls.has_meta_fit():
            stored = self.folder.read_state(key)
            if stored is not None and stored[1]["loaded"] == learner.loaded():
                tensors, record = stored
                learner.load_state(tensors, record["values"], ctx)
                fitted.prepare_s, fitted.meta_fit_s = record["prepare_s"], record["meta_fit_s"]
                fitted.peak_mb, fitted.device_peak_mb = record["peak_mb"], record["device_peak_mb"]
                fitted.curve = record["curve"]
                self._track_curve(spec, fitted.curve)
            else:
                self.reporter.phase("meta-fit")
                tracked_s = self.trackers.seconds
                with Stopwatch(self.device) as watch:
                    learner.meta_fit(MetaTrainSet(split, dataset.scale, spec.depends(cls)), ctx)
                fitted.meta_fit_s = watch.seconds - (self.trackers.seconds - tracked_s)
                fitted.peak_mb, fitted.device_peak_mb = peak_memory_mb(self.device)
                tensors, values = learner.state()
                record = {
                    "schema": SCHEMA, "fields": spec.meta_fields(cls), "code_hash": code, "values": values,
                    "loaded": learner.loaded(),
                    "prepare_s": fitted.prepare_s, "meta_fit_s": fitted.meta_fit_s, "peak_mb": fitted.peak_mb,
                    "device_peak_mb": fitted.device_peak_mb, "curve": curve,
                }  # fmt: skip
                self.folder.write_state(key, tensors, record)
        self._fitted = fitted
        return fitted

    def _track_curve(self, spec: CellSpec, curve: list[dict[str, float]]) -> None:
        for point in curve if self.trackers else ():
            scalars = dict(point)
            self.trackers.scalars(spec, int(scalars.pop("step")), scalars)

    # scoring

    def _score(self, spec: CellSpec, fitted: Fitted, folder: Path) -> None:
        sampler, learner, dataset = self.sampler(spec), fitted.learner, self.datasets[spec.dataset]

        def episodes(first: int, count: int) -> Episodes:
            return sampler.sample(first, count, n_users=spec.n_users, k_shot=spec.k_shot, n_query=spec.n_query)

        starts = range(0, spec.episodes, spec.block)
        missing = [start for start in starts if not block_file(folder, start // spec.block).exists()]
        self.reporter.episodes_done(spec.episodes - sum(min(spec.block, spec.episodes - s) for s in missing))
        batch = min(learner.batch_episodes, spec.block)
        reset_peak_memory(self.device)
        self.reporter.phase("adapt")
        latency_file = folder / "latency.json"
        if missing or not latency_file.exists():
            self._predict(spec, fitted, episodes(0, 1))  # warm-up, not counted
        online = spec.protocol.online
        rated = dataset.kind == "ratings"  # a score of clicks has no error and no distribution, and one step no AUC
        if (batch > 1 or online) and not latency_file.exists():
            count = min(LATENCY_EPISODES, spec.episodes)
            singles = [self._predict(spec, fitted, episodes(i, 1)) for i in range(count)]
            latency = {"adapt_s": [one.adapt_s for one in singles], "predict_s": [one.predict_s for one in singles]}
            if online:
                latency["update_s"] = [seconds for one in singles for seconds in one.update_s]
            self.folder.write_json(latency_file, latency)
        for start in missing:
            size = min(spec.block, spec.episodes - start)
            spent: list[tuple[int, float, float]] = []
            parts, answers, steps = [], [], []
            for first in range(start, start + size, batch):
                count = min(batch, start + size - first)
                part = episodes(first, count)
                said = self._predict(spec, fitted, part, normal=rated)
                spent.append((count, said.adapt_s, said.predict_s + sum(said.update_s)))
                parts.append(score_rows(spec, part, said.prediction, first, dataset, said.normal))
                answers.append(prediction_rows(part, said.prediction, first, said.normal))
                if online and rated:
                    steps.append(step_rows(part, said.prediction, spec.n_query, first, dataset.scale))
                self.reporter.episodes_done(count)
            peak, device_peak = peak_memory_mb(self.device)
            frames = {"predictions": answers, "steps": steps, "block": parts}
            self.folder.write_block(
                folder, start // spec.block, {kind: pd.concat(rows) for kind, rows in frames.items() if rows},
                {"batches": spent, "peak_mb": peak, "device_peak_mb": device_peak},
            )  # fmt: skip
        if spec.protocol.history is not None:
            files = sorted(folder.glob("predictions-*.parquet"))
            prediction = pd.concat([pd.read_parquet(file) for file in files])["prediction"].to_numpy()
            by_user, pairs = rows_by_user(spec, episodes(0, spec.episodes), prediction, dataset)
            self.folder.write_frames(folder, "by-user", {PAIRS.name: pairs, Path(BY_USER).stem: by_user})
        preferred = min(learner.batch_episodes, spec.episodes)
        if preferred > batch and not (folder / "throughput.json").exists():
            many = episodes(0, preferred)
            said = self._predict(spec, fitted, many)
            seconds = said.adapt_s + said.predict_s + sum(said.update_s)
            self.folder.write_json(folder / "throughput.json", {"episodes": preferred, "seconds": seconds})

    def _predict(self, spec: CellSpec, fitted: Fitted, episodes: Episodes, *, normal: bool = False) -> Answered:
        """Adapt and predict, each timed; with ``normal`` ask for the distributions too, outside the clock.

        NaN and wrong shapes are failures.
        """
        support, query = episodes.support, episodes.query
        with Stopwatch(self.device) as adapting:
            predictor = fitted.learner.adapt_batch(support, fitted.ctx)
        if spec.protocol.online:
            online = predict_online(predictor, episodes, spec.n_query, fitted.ctx, normal=normal)
            return Answered(checked(online.prediction, query), online.normal, adapting.seconds, online.predict_s,
                            online.update_s)  # fmt: skip
        with Stopwatch(self.device) as predicting, torch.no_grad():
            prediction = predict_query(predictor, query)
        spread = distribution_of(predictor, query) if normal else None
        return Answered(checked(prediction, query), spread, adapting.seconds, predicting.seconds, [])


class _MetaFitFailed(Exception):
    """The meta-fit that this cell shares with an earlier one has failed there."""


def one_line(error: Exception) -> str:
    """Return an error as the one line that a record keeps."""
    text = " ".join(str(error).split())
    return text if isinstance(error, _MetaFitFailed) else f"{type(error).__name__}: {text}"[:300]
