"""The driver of a run: from cells to units, from what they give back to files. It alone writes into the results folder.

Where units run is an executor's matter (``fewrec.runner.executors``), in which order a schedule's
(``fewrec.runner.schedule``), and what they do is in ``fewrec.runner.units``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from fewrec.data.table import Dataset
from fewrec.episodes.sampler import EpisodeSampler
from fewrec.episodes.split import Split
from fewrec.errors import NotApplicable
from fewrec.learners.base import Learner
from fewrec.learners.registry import learner_class
from fewrec.report.beside import BY_USER, PAIRS
from fewrec.runner.applicable import refuse_what_is_lacking
from fewrec.runner.cell import SCHEMA, CellSpec, code_hash
from fewrec.runner.environment import node_kind
from fewrec.runner.executors import Ended, Executor
from fewrec.runner.executors.serial import SerialExecutor
from fewrec.runner.nodes import Nodes
from fewrec.runner.progress import Reporter
from fewrec.runner.provenance import provenance
from fewrec.runner.records import cell_figures, cell_timing, rows_by_user
from fewrec.runner.schedule import TIMINGS, Schedule, Unit, Work
from fewrec.runner.splits import Splits
from fewrec.runner.store import RunFolder, block_file
from fewrec.runner.units import Block, Fit, Outcome, Task, UnitRunner, Watch, one_line
from fewrec.seeding import digest
from fewrec.tracking.base import Trackers

TRIES = 3
"""How often a unit is tried whose process dies; then its cell has failed."""


@dataclass
class _Cell:
    """A cell under way: what is left of it, and what came of it so far.

    ``left``: blocks that are not on disk; ``under_way``: units that are; ``spent``: the seconds of units that have
    ended; ``problem``: (start of the block, outcome) of the first block that did not end well.
    """

    spec: CellSpec
    cls: type[Learner]
    code: str
    key: str
    instance: str
    tuning: dict[str, Any]
    left: list[int]
    folder: Path | None = None
    under_way: int = 0
    spent: float = 0.0
    done: int = 0
    fit: Fit | None = None
    problem: tuple[int, Outcome] | None = None
    first: int = field(default=TIMINGS)
    last: int = field(default=TIMINGS)


class CellRunner:
    """Runs cells: one after the other in this process, or, with another ``executor``, many units at once.

    In this process neighbours that agree in what the meta-fit depends on share the learner in memory, elsewhere the
    stored meta-fit. ``limit``: the seconds that the units of a cell may take together. ``tuning`` says by label where a
    row's options come from (see ``Suite.tuning``); ``trackers`` follow the run.
    """

    def __init__(self, folder: RunFolder, datasets: Mapping[str, Dataset], device: torch.device, cache: Path,
                 reporter: Reporter, limit: float | None = None, tuning: Mapping[str, dict[str, Any]] | None = None,
                 trackers: Trackers | None = None, executor: Executor | None = None) -> None:  # fmt: skip
        self.folder, self.datasets, self.reporter, self.limit = folder, datasets, reporter, limit
        self.tuning, self.trackers = dict(tuning or {}), trackers or Trackers()
        self._splits, self._nodes = Splits(datasets), Nodes(folder.nodes())
        self._unusable: dict[str, Outcome] = {}  # of meta-fits that failed, by key
        self._tries: Counter[Unit] = Counter()
        self._apart = executor is not None
        if executor is None:
            watch = Watch(reporter, self.trackers.scalars, lambda: self.trackers.seconds)
            units = UnitRunner(self._splits, device, cache, folder.read_state, watch)
            executor = SerialExecutor(units, node_kind(device, torch.get_num_threads(), 1))
        self.executor: Executor = executor

    def split(self, spec: CellSpec) -> Split:
        """Return the split of a cell; the last few are kept."""
        return self._splits[spec]

    def sampler(self, spec: CellSpec) -> EpisodeSampler:
        return self._splits.sampler(spec)

    def run(self, spec: CellSpec) -> str:
        """Run or resume one cell and write its record; return its status. A learner's failure becomes a status too."""
        return self._run([spec], {}, told=False)[spec.spec_hash]

    def run_all(self, cells: Sequence[CellSpec], expected: Mapping[str, tuple[float, float]]) -> None:
        """Run or resume cells and tell the reporter of each.

        ``expected``: the seconds of the fit and of all blocks of each cell, by its hash; they decide the order in which
        an executor apart gets its units. In this process cells run in the order given.
        """
        if self._apart:
            self._run(cells, expected, told=True)
            return
        for spec in cells:
            self.reporter.cell(spec)
            self.reporter.finished(spec, self.run(spec))

    # the loop

    def _run(
        self, specs: Sequence[CellSpec], expected: Mapping[str, tuple[float, float]], *, told: bool
    ) -> dict[str, str]:
        self._statuses: dict[str, str] = {}
        self._told, self._shown = told, ""
        self._cells: dict[str, _Cell] = {}
        for spec in specs:
            cell = self._open(spec)
            if cell is not None:
                self._cells[spec.spec_hash] = cell
        works = []
        for name, cell in self._cells.items():
            fit_s, blocks_s = expected.get(name, (1.0, 1.0))
            blocks = max(len(range(0, cell.spec.episodes, cell.spec.block)), 1)
            works.append(Work(name, cell.key, cell.instance, tuple(cell.left), fit_s, blocks_s / blocks))
        self._schedule = Schedule(works, self.executor.slots)
        while not self._schedule.finished:
            for unit in self._schedule.ready(self.executor.near()):
                self._start(unit)
            self._take(self.executor.next())
        return self._statuses

    def _open(self, spec: CellSpec) -> _Cell | None:
        """Return what is left of a cell; None where nothing has to be computed, and its record is there."""
        cls = learner_class(spec.learner)
        code = code_hash(cls)
        tuning = self.tuning.get(spec.label) or provenance(cls, spec.config)
        key = digest([spec.meta_fields(cls), code])
        cell = _Cell(spec, cls, code, key, digest([key, spec.config]), tuning, [])
        record = self.folder.finished(spec, code)
        if record is not None:
            self.folder.update_record(spec, record, tuning=tuning)
            self._ended(cell, "ok")
            return None
        try:
            refuse_what_is_lacking(cls, spec, self.datasets)
        except NotApplicable as error:
            cell.folder = self.folder.begin_cell(spec, code)
            self._finish(cell, Outcome("not applicable", reason=str(error)))
            return None
        if key in self._unusable:
            self._begin(cell)
            self._finish(cell, self._unusable[key])
            return None
        cell.left = self.folder.missing_blocks(spec, code)
        cell.done = spec.episodes - sum(min(spec.block, spec.episodes - start) for start in cell.left)
        if not cell.left and self.folder.lacking_timings(spec):
            cell.left = [TIMINGS]
        if cell.left:
            cell.first, cell.last = cell.left[0], cell.left[-1]
        return cell

    def _begin(self, cell: _Cell) -> None:
        cell.folder = self.folder.begin_cell(cell.spec, cell.code)
        if not self._apart:
            self.trackers.cell(cell.spec)
            self.reporter.episodes_done(cell.done)

    def _start(self, unit: Unit) -> None:
        cell = self._cells[unit.cell]
        if cell.folder is None:
            self._begin(cell)
            self._show(cell)
        limit = None if self.limit is None else max(self.limit - cell.spent, 0.001)
        lacking = self.folder.lacking_timings(cell.spec)
        latency = unit.kind == "block" and unit.start == cell.first and "latency.json" in lacking
        throughput = unit.kind == "block" and unit.start == cell.last and "throughput.json" in lacking
        task = Task(unit, cell.spec, cell.key, limit, latency, throughput)
        cell.under_way += 1
        self.executor.submit(task)
        self._schedule.started(unit)

    def _take(self, ended: Ended) -> None:
        unit, cell, outcome = ended.task.unit, self._cells[ended.task.unit.cell], ended.outcome
        cell.under_way -= 1
        if outcome is None:
            self._tries[unit] += 1
            if self._tries[unit] < TRIES and cell.problem is None:
                self.reporter.warn(f"{ended.lost}; what it was at is tried again")
                self._schedule.lost(unit)
                return
            outcome = Outcome("failed", reason=ended.lost)
        cell.spent += outcome.seconds
        node = self._node(ended)
        if unit.kind == "fit":
            self._take_fit(unit, cell, outcome, node)
        else:
            self._take_block(unit, cell, outcome, node)

    def _take_fit(self, unit: Unit, owner: _Cell, outcome: Outcome, node: dict[str, Any] | None) -> None:
        if outcome.status != "ok":
            if outcome.status != "not applicable":
                self._unusable[owner.key] = outcome
            sharing = [cell for cell in self._cells.values() if cell.key == owner.key and cell.fit is None]
            for cell in sharing:
                self._schedule.drop(cell.spec.spec_hash)
            self._schedule.done(unit)
            for cell in sharing:
                if cell.folder is None:
                    self._begin(cell)
                self._finish(cell, outcome)
            return
        fit = outcome.done
        assert isinstance(fit, Fit)
        if not fit.stored:
            fit.node = node
        if fit.state is not None:
            self.folder.write_state(owner.key, fit.state[0], {
                "schema": SCHEMA, "fields": owner.spec.meta_fields(owner.cls), "code_hash": owner.code,
                "values": fit.state[1], "loaded": fit.loaded, "prepare_s": fit.prepare_s,
                "meta_fit_s": fit.meta_fit_s, "peak_mb": fit.peak_mb, "device_peak_mb": fit.device_peak_mb,
                "curve": fit.curve, "node": node,
            })  # fmt: skip
        live = not self._apart and fit.fresh and not fit.stored
        kept = replace(fit, state=None)
        self._schedule.done(unit)
        for cell in [cell for cell in self._cells.values() if cell.instance == owner.instance]:
            cell.fit = kept
            if not (live or self._apart):
                self._track_curve(cell)
            if not cell.left:
                if cell.folder is None:
                    self._begin(cell)
                self._finish(cell, Outcome("ok"))

    def _take_block(self, unit: Unit, cell: _Cell, outcome: Outcome, node: dict[str, Any] | None) -> None:
        block = outcome.done
        if isinstance(block, Block):
            assert cell.fit is not None
            if block.loaded != cell.fit.loaded:
                outcome = Outcome("failed", reason=f"{(node or {}).get('name', 'a node')} has other weights than the "
                                  "node of its meta-fit")  # fmt: skip
            else:
                self._write_block(cell, unit.start, block, node)
        if outcome.status != "ok":
            if cell.problem is None or unit.start < cell.problem[0]:
                cell.problem = (unit.start, outcome)
            self._schedule.drop(unit.cell)
        self._schedule.done(unit)
        if cell.problem is not None:
            if not cell.under_way:  # blocks before it may still fail, with what a run one by one would tell
                self._finish(cell, cell.problem[1])
        elif not cell.left:
            self._finish(cell, self._closing(cell))

    # files

    def _write_block(self, cell: _Cell, start: int, block: Block, node: dict[str, Any] | None) -> None:
        folder, spec = self.folder.cell(cell.spec), cell.spec
        if block.latency is not None:
            self.folder.write_json(folder / "latency.json", {**block.latency, "node": node})
        if block.scores is not None:
            number = start // spec.block
            self.folder.write_json(
                block_file(folder, start, spec).with_suffix(".timing.json"), {**block.timing, "node": node}
            )
            self.folder.write_parquet(folder / f"predictions-{number:04d}.parquet", block.predictions)
            if block.steps is not None:
                self.folder.write_parquet(folder / f"steps-{number:04d}.parquet", block.steps)
            self.folder.write_parquet(block_file(folder, start, spec), block.scores)
        if block.throughput is not None:
            self.folder.write_json(folder / "throughput.json", {**block.throughput, "node": node})
        cell.left.remove(start)
        if start != TIMINGS:
            count = min(spec.block, spec.episodes - start)
            cell.done += count
            self._show(cell, count)

    def _closing(self, cell: _Cell) -> Outcome:
        """Write what needs all blocks of a cell."""
        spec, folder = cell.spec, self.folder.cell(cell.spec)
        if spec.protocol.history is None:
            return Outcome("ok")
        try:
            files = sorted(folder.glob("predictions-*.parquet"))
            prediction = pd.concat([pd.read_parquet(file) for file in files])["prediction"].to_numpy()
            episodes = self.sampler(spec).sample(0, spec.episodes, n_users=spec.n_users, k_shot=spec.k_shot,
                                                 n_query=spec.n_query)  # fmt: skip
            by_user, pairs = rows_by_user(spec, episodes, prediction, self.datasets[spec.dataset])
        except Exception as error:
            return Outcome("failed", reason=one_line(error))
        self.folder.write_parquet(folder / PAIRS.file, pairs)
        self.folder.write_parquet(folder / BY_USER, by_user)
        return Outcome("ok")

    def _finish(self, cell: _Cell, outcome: Outcome) -> None:
        """Write a cell's record, and tell how it has ended."""
        assert cell.folder is not None
        if self._apart and outcome.status != "not applicable":
            self.trackers.cell(cell.spec)  # cells overlap: each is told as a whole when it has ended
            self._track_curve(cell)
        reason = outcome.reason
        if outcome.status == "timeout":
            reason = f"not finished within {self.limit:g} s"
        if outcome.trace:
            (cell.folder / "error.txt").write_text(outcome.trace, encoding="utf-8")
        self._write_record(cell, outcome.status, reason)
        self._ended(cell, outcome.status)

    def _write_record(self, cell: _Cell, status: str, reason: str) -> None:
        spec, fit = cell.spec, cell.fit
        assert cell.folder is not None
        dataset, eligible = self.datasets[spec.dataset], self.sampler(spec).eligible(spec.n_query)
        source = None if spec.meta_dataset is None else self.datasets[spec.meta_dataset]
        if fit is not None:
            self.folder.write_json(cell.folder / "timing.json", cell_timing(cell.folder, fit))
        record = {
            "schema": SCHEMA, "spec": spec.canonical(), "spec_hash": spec.spec_hash, "code_hash": cell.code,
            "status": status, "reason": reason, "dataset_sha256": dataset.table.sha256,
            "text_sha256": self.split(spec).catalog.text_sha256, "features_sha256": dataset.features_sha256,
            "meta_dataset_sha256": None if source is None else source.table.sha256,
            "split_hash": self.split(spec).sha256,
            "eligible_users": len(eligible.users), "excluded_users": eligible.excluded,
            "loaded": fit.loaded if fit else {},
            "trainable_params": fit.trainable_params if fit else None,
            "tuning": cell.tuning,
        }  # fmt: skip
        self.folder.write_json(cell.folder / "cell.json", record)

    def _ended(self, cell: _Cell, status: str) -> None:
        spec = cell.spec
        if self.trackers:
            self.trackers.result(spec, status, cell_figures(self.folder.cell(spec)) if status == "ok" else {})
        self._statuses[spec.spec_hash] = status
        self._cells.pop(spec.spec_hash, None)
        if self._told:
            if self._shown != spec.spec_hash:
                self.reporter.cell(spec)
                self._shown = spec.spec_hash
            self.reporter.finished(spec, status)
        if not any(other.key == cell.key for other in self._cells.values()):
            self.executor.forget(cell.key)

    # telling

    def _node(self, ended: Ended) -> dict[str, Any] | None:
        if ended.kind is None:
            return None
        known = len(self._nodes.known)
        node = self._nodes.named(ended.identity, ended.kind)
        if len(self._nodes.known) > known:
            self.folder.write_nodes(self._nodes.known)
        return node

    def _show(self, cell: _Cell, count: int = 0) -> None:
        """Tell the reporter how far a cell is; where several are under way, it shows the one that moved last."""
        if not self._told:
            return
        if self._shown != cell.spec.spec_hash:
            self._shown = cell.spec.spec_hash
            self.reporter.cell(cell.spec)
            count = cell.done
        self.reporter.episodes_done(count)

    def _track_curve(self, cell: _Cell) -> None:
        for point in cell.fit.curve if self.trackers and cell.fit else ():
            scalars = dict(point)
            self.trackers.scalars(cell.spec, int(scalars.pop("step")), scalars)
