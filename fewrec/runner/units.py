"""Units of work: fitting a learner, and scoring a block of a cell. They write nothing, so any process may run them.

What a unit gives back (frames, tensors, timings) is written by the driver (``fewrec.runner.execute``) alone. A process
that runs units keeps what the next ones need: the last splits, and the learner that it fitted or loaded last.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor

from fewrec.data.table import Dataset
from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.support import Episodes
from fewrec.errors import FolderError, NotApplicable
from fewrec.learners.base import Context, Learner
from fewrec.learners.registry import learner_class
from fewrec.runner.cell import CellSpec
from fewrec.runner.meta_fits import checked_state
from fewrec.runner.online import predict_online, step_rows
from fewrec.runner.predict import Answered, checked, distribution_of, predict_query
from fewrec.runner.progress import Reporter
from fewrec.runner.records import LATENCY_EPISODES, prediction_rows, score_rows
from fewrec.runner.resources import device_of
from fewrec.runner.schedule import TIMINGS, Unit
from fewrec.runner.splits import Splits
from fewrec.runner.timing import CellTimeout, Stopwatch, peak_memory_mb, reset_peak_memory, time_limit

State = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors of a meta-fit, and of a stored one its record, of a new one the values beside the tensors."""


@dataclass(frozen=True)
class Task:
    """A unit with all that a process has to know of its cell.

    ``key``: that of the meta-fit. ``limit``: the seconds that are left for it. ``latency`` and ``throughput``: whether
    these are to be measured with it, where the learner's batches make a difference.
    """

    unit: Unit
    spec: CellSpec
    key: str
    limit: float | None = None
    latency: bool = False
    throughput: bool = False


@dataclass
class Fit:
    """A learner that is ready to adapt, and what it took: seconds, MB, learning curve.

    ``state`` (tensors, values) is what the meta-fit gave, None where there is none or a stored one served. ``node``:
    where it was made. ``fresh``: whether the learner was made just now, and not in memory from before; ``stored``:
    whether its meta-fit was read.
    """

    prepare_s: float = 0.0
    meta_fit_s: float = 0.0
    peak_mb: float = 0.0
    device_peak_mb: float | None = None
    curve: list[dict[str, float]] = field(default_factory=list)
    loaded: dict[str, str] = field(default_factory=dict)
    trainable_params: int | None = None
    state: State | None = None
    node: dict[str, Any] | None = None
    fresh: bool = False
    stored: bool = False


@dataclass
class Block:
    """What a block gave: score rows, predictions, in the online protocol rows by step, and what was measured with it.

    Frames are None where there was no block left to score. ``loaded``: the weights that the learner had loaded.
    """

    scores: pd.DataFrame | None = None
    predictions: pd.DataFrame | None = None
    steps: pd.DataFrame | None = None
    timing: dict[str, Any] = field(default_factory=dict)
    latency: dict[str, Any] | None = None
    throughput: dict[str, Any] | None = None
    loaded: dict[str, str] = field(default_factory=dict)


@dataclass
class Outcome:
    """How a unit has ended, after ``seconds``; ``trace``: the traceback of a failure."""

    status: Literal["ok", "not applicable", "timeout", "failed"]
    done: Fit | Block | None = None
    reason: str = ""
    trace: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Watch:
    """Who is told while a unit works; in a process apart from the driver's nobody.

    ``scalars`` gets what a meta-fit logs, and ``aside_s`` says how many seconds that has taken so far.
    """

    reporter: Reporter = field(default_factory=Reporter)
    scalars: Callable[[CellSpec, int, Mapping[str, float]], None] = lambda spec, step, values: None
    aside_s: Callable[[], float] = lambda: 0.0


@dataclass
class _Held:
    """The learner that this process has ready; ``warm``: the cells that it was warmed up for."""

    instance: str
    learner: Learner
    ctx: Context
    fit: Fit
    warm: set[str] = field(default_factory=set)


class UnitRunner:
    """Runs units one after the other in this process. ``states``: the stored meta-fit of a key, or None."""

    def __init__(self, splits: Splits, device: torch.device, cache: Path,
                 states: Callable[[str], State | None], watch: Watch | None = None) -> None:  # fmt: skip
        self.splits, self.device, self.cache, self.states = splits, device, cache, states
        self.watch = watch or Watch()
        self._held: _Held | None = None

    def run(self, task: Task) -> Outcome:
        """Run a unit; whatever a learner does wrong becomes a status. Only what is not its fault is raised."""
        begun = time.perf_counter()
        try:
            with time_limit(task.limit):
                done: Fit | Block = self._fit(task) if task.unit.kind == "fit" else self._block(task)
            outcome = Outcome("ok", done)
        except NotApplicable as error:
            outcome = Outcome("not applicable", reason=str(error))
        except CellTimeout:
            outcome = Outcome("timeout")
        except FolderError:
            raise  # not the learner's fault, and the next cell would meet it too
        except Exception as error:  # a learner may fail in any way; the others must go on
            outcome = Outcome("failed", reason=one_line(error), trace=traceback.format_exc())
        outcome.seconds = time.perf_counter() - begun
        return outcome

    # fits

    def _fit(self, task: Task) -> Fit:
        held = self._held
        if held is None or held.instance != task.unit.instance:
            held = self._make(task, may_fit=True)
            fit, held.fit = held.fit, replace(held.fit, state=None, fresh=False)
            return fit
        return held.fit

    def _learner(self, task: Task) -> _Held:
        """Return the learner of a block, which this process has or makes from the stored meta-fit."""
        held = self._held
        return held if held is not None and held.instance == task.unit.instance else self._make(task, may_fit=False)

    def _make(self, task: Task, *, may_fit: bool) -> _Held:
        self._held = None  # frees the memory of the one before
        spec, cls = task.spec, learner_class(task.spec.learner)
        split, scale = self.splits[spec], self.splits.datasets[spec.dataset].scale
        curve: list[dict[str, float]] = []

        def record_step(step: int, scalars: Mapping[str, float]) -> None:
            # NaN has no form in JSON; a learner that diverged will say so by what it predicts
            curve.append({"step": step, **{name: value for name, value in scalars.items() if math.isfinite(value)}})
            self.watch.scalars(spec, step, scalars)

        device = device_of(cls, self.device)
        ctx = Context(device, split.catalog, scale, self.cache, self.watch.reporter.track, record_step)
        learner, fit = cls(cls.Config(**spec.config)), Fit(curve=curve, fresh=True)
        reset_peak_memory(device)
        self.watch.reporter.phase("prepare")
        with Stopwatch(device) as watch:
            learner.prepare(ctx)
        fit.prepare_s = watch.seconds
        if cls.has_meta_fit():
            stored = self.states(task.key)
            if stored is not None and stored[1]["loaded"] == learner.loaded():
                tensors, record = stored
                learner.load_state(tensors, record["values"], ctx)
                fit = kept_fit(record)
            elif not may_fit:
                raise RuntimeError("its meta-fit was made with other weights than those that are loaded here"
                                   if stored else "its meta-fit is not there any more")  # fmt: skip
            else:
                self.watch.reporter.phase("meta-fit")
                aside_s = self.watch.aside_s()
                with Stopwatch(device) as watch:
                    learner.meta_fit(MetaTrainSet(split, scale, spec.depends(cls)), ctx)
                fit.meta_fit_s = watch.seconds - (self.watch.aside_s() - aside_s)
                fit.peak_mb, fit.device_peak_mb = peak_memory_mb(device)
                fit.state = checked_state(*learner.state())
        fit.loaded, fit.trainable_params = learner.loaded(), learner.trainable_parameters()
        self._held = _Held(task.unit.instance, learner, ctx, fit)
        return self._held

    # blocks

    def _block(self, task: Task) -> Block:
        spec, start = task.spec, task.unit.start
        held, dataset = self._learner(task), self.splits.datasets[task.spec.dataset]
        sampler = self.splits.sampler(spec)

        def episodes(first: int, count: int) -> Episodes:
            return sampler.sample(first, count, n_users=spec.n_users, k_shot=spec.k_shot, n_query=spec.n_query)

        batch = min(held.learner.batch_episodes, spec.block)
        latency = task.latency and (batch > 1 or spec.protocol.online)
        preferred = min(held.learner.batch_episodes, spec.episodes)
        throughput = task.throughput and preferred > batch
        reset_peak_memory(held.ctx.device)
        if spec.spec_hash not in held.warm and (start != TIMINGS or latency or throughput):
            self.watch.reporter.phase("adapt")
            self._predict(spec, held, episodes(0, 1))  # warm-up, not counted
            held.warm.add(spec.spec_hash)
        out = Block(loaded=held.learner.loaded())
        if latency:
            singles = [self._predict(spec, held, episodes(i, 1)) for i in range(min(LATENCY_EPISODES, spec.episodes))]
            out.latency = {"adapt_s": [one.adapt_s for one in singles], "predict_s": [one.predict_s for one in singles]}
            if spec.protocol.online:
                out.latency["update_s"] = [seconds for one in singles for seconds in one.update_s]
        if start != TIMINGS:
            self._score(spec, held, dataset, episodes, start, batch, out)
        if throughput:
            said = self._predict(spec, held, episodes(0, preferred))
            seconds = said.adapt_s + said.predict_s + sum(said.update_s)
            out.throughput = {"episodes": preferred, "seconds": seconds}
        return out

    def _score(
        self, spec: CellSpec, held: _Held, dataset: Dataset, episodes: Callable[[int, int], Episodes], start: int,
        batch: int, out: Block,
    ) -> None:  # fmt: skip
        rated = dataset.kind == "ratings"  # a score of clicks has no error and no distribution, and one step no AUC
        end = min(start + spec.block, spec.episodes)
        spent: list[tuple[int, float, float]] = []
        parts, answers, steps = [], [], []
        for first in range(start, end, batch):
            part = episodes(first, min(batch, end - first))
            said = self._predict(spec, held, part, normal=rated)
            spent.append((len(part), said.adapt_s, said.predict_s + sum(said.update_s)))
            parts.append(score_rows(spec, part, said.prediction, first, dataset, said.normal))
            answers.append(prediction_rows(part, said.prediction, first, said.normal))
            if spec.protocol.online and rated:
                steps.append(step_rows(part, said.prediction, spec.n_query, first, dataset.scale))
            self.watch.reporter.episodes_done(len(part))
        peak, device_peak = peak_memory_mb(held.ctx.device)
        out.timing = {"batches": spent, "peak_mb": peak, "device_peak_mb": device_peak}
        out.scores, out.predictions = pd.concat(parts), pd.concat(answers)
        out.steps = pd.concat(steps) if steps else None

    def _predict(self, spec: CellSpec, held: _Held, episodes: Episodes, *, normal: bool = False) -> Answered:
        """Adapt and predict, each timed; with ``normal`` ask for the distributions too, outside the clock.

        NaN and wrong shapes are failures.
        """
        support, query = episodes.support, episodes.query
        with Stopwatch(held.ctx.device) as adapting:
            predictor = held.learner.adapt_batch(support, held.ctx)
        if spec.protocol.online:
            online = predict_online(predictor, episodes, spec.n_query, held.ctx, normal=normal)
            return Answered(checked(online.prediction, query), online.normal, adapting.seconds, online.predict_s,
                            online.update_s)  # fmt: skip
        with Stopwatch(held.ctx.device) as predicting, torch.no_grad():
            prediction = predict_query(predictor, query)
        spread = distribution_of(predictor, query) if normal else None
        return Answered(checked(prediction, query), spread, adapting.seconds, predicting.seconds, [])


def kept_fit(record: Mapping[str, Any]) -> Fit:
    """Return what the record of a stored meta-fit says of it."""
    return Fit(record["prepare_s"], record["meta_fit_s"], record["peak_mb"], record["device_peak_mb"], record["curve"],
               node=record.get("node"), fresh=True, stored=True)  # fmt: skip


def one_line(error: Exception) -> str:
    """Return an error as the one line that a record keeps."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
