"""The driver of a run: from cells to units, from what they give back to files. It alone writes into the results folder.

Where units run is an executor's matter (``fewrec.runner.executors``), in which order a schedule's
(``fewrec.runner.schedule``), and what they do is in ``fewrec.runner.units``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fewrec.data.table import Dataset
from fewrec.episodes.sampler import EpisodeSampler
from fewrec.episodes.split import Split
from fewrec.errors import NotApplicable
from fewrec.learners.registry import learner_class
from fewrec.runner.applicable import refuse_what_is_lacking
from fewrec.runner.cell import CellSpec, code_hash
from fewrec.runner.executors import Ended, Executor
from fewrec.runner.executors.serial import SerialExecutor
from fewrec.runner.files import write_text
from fewrec.runner.nodes import Nodes
from fewrec.runner.progress import Reporter
from fewrec.runner.provenance import provenance
from fewrec.runner.records import cell_figures
from fewrec.runner.schedule import Schedule, Unit, Work
from fewrec.runner.splits import Splits
from fewrec.runner.store import RunFolder
from fewrec.runner.under_way import Cell, find_what_is_left, write_block, write_by_user, write_fit, write_record
from fewrec.runner.units import Block, Fit, Outcome, Task, UnitRunner, Watch
from fewrec.seeding import digest
from fewrec.tracking.base import Trackers

TRIES = 3
"""How often a unit is tried whose process dies; then its cell has failed."""


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
            units = UnitRunner(self._splits, device, cache, folder.meta_fits.read, watch)
            executor = SerialExecutor(units, torch.get_num_threads())
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
        self._cells: dict[str, Cell] = {}
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
            self._schedule.in_flight = self.executor.slots  # nodes come and go
            for unit in self._schedule.ready(self.executor.near()):
                self._start(unit)
            self._take(self.executor.next())
        return self._statuses

    def _open(self, spec: CellSpec) -> Cell | None:
        """Return what is left of a cell; None where nothing has to be computed, and its record is there."""
        cls = learner_class(spec.learner)
        code = code_hash(cls)
        tuning = self.tuning.get(spec.label) or provenance(cls, spec.config)
        key = digest([spec.meta_fields(cls), code])
        cell = Cell(spec, cls, code, key, digest([key, spec.config]), tuning)
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
        find_what_is_left(cell, self.folder)
        return cell

    def _begin(self, cell: Cell) -> None:
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

    def _take_fit(self, unit: Unit, owner: Cell, outcome: Outcome, node: dict[str, Any] | None) -> None:
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
            write_fit(owner, fit, self.folder)
            self.executor.forget(owner.key)  # it may hold the one before, made with other weights
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

    def _take_block(self, unit: Unit, cell: Cell, outcome: Outcome, node: dict[str, Any] | None) -> None:
        block = outcome.done
        if isinstance(block, Block):
            assert cell.fit is not None
            if block.loaded != cell.fit.loaded:
                outcome = Outcome("failed", reason=f"{(node or {}).get('name', 'a node')} has other weights than the "
                                  "node of its meta-fit")  # fmt: skip
            elif any(block.loaded != one for one in cell.loaded):
                outcome = Outcome("failed", reason="weights of the same name have changed since its first blocks were "
                                  f"made; remove {cell.folder} to have it made anew")  # fmt: skip
            else:
                count = write_block(cell, unit.start, block, node, self.folder)
                if count:
                    self._show(cell, count)
                if self.limit is not None and cell.spent > self.limit:
                    outcome = Outcome("timeout")  # of blocks side by side none may have been too long alone
        if outcome.status != "ok":
            if cell.problem is None or unit.start < cell.problem[0]:
                cell.problem = (unit.start, outcome)
            self._schedule.drop(unit.cell)
        self._schedule.done(unit)
        if cell.problem is not None:
            if not cell.under_way:  # blocks before it may still fail, with what a run one by one would tell
                self._finish(cell, cell.problem[1])
        elif not cell.left:
            self._finish(cell, write_by_user(cell, self._splits, self.folder))

    def _finish(self, cell: Cell, outcome: Outcome) -> None:
        """Write a cell's record, and tell how it has ended."""
        assert cell.folder is not None
        if self._apart and outcome.status != "not applicable":
            self.trackers.cell(cell.spec)  # cells overlap: each is told as a whole when it has ended
            self._track_curve(cell)
        reason = outcome.reason
        if outcome.status == "timeout":
            reason = f"not finished within {self.limit:g} s"
        if outcome.trace:
            write_text(cell.folder / "error.txt", outcome.trace)
        write_record(cell, outcome.status, reason, self._splits, self.folder)
        self._ended(cell, outcome.status)

    def _ended(self, cell: Cell, status: str) -> None:
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

    def _show(self, cell: Cell, count: int = 0) -> None:
        """Tell the reporter how far a cell is; where several are under way, it shows the one that moved last."""
        if not self._told:
            return
        if self._shown != cell.spec.spec_hash:
            self._shown = cell.spec.spec_hash
            self.reporter.cell(cell.spec)
            count = cell.done
        self.reporter.episodes_done(count)

    def _track_curve(self, cell: Cell) -> None:
        for point in cell.fit.curve if self.trackers and cell.fit else ():
            scalars = dict(point)
            self.trackers.scalars(cell.spec, int(scalars.pop("step")), scalars)
