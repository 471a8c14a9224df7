"""A cell under way, and the files that the driver writes of it: blocks as they come, and the record in the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from fewrec.data.table import Dataset
from fewrec.learners.base import Learner
from fewrec.report.beside import BY_USER, PAIRS
from fewrec.runner.cell import SCHEMA, CellSpec
from fewrec.runner.files import write_json
from fewrec.runner.records import cell_timing, rows_by_user
from fewrec.runner.schedule import TIMINGS
from fewrec.runner.splits import Splits
from fewrec.runner.store import RunFolder
from fewrec.runner.units import Block, Fit, Outcome, one_line


@dataclass
class Cell:
    """A cell under way: what is left of it, and what came of it so far.

    ``left``: blocks that are not on disk, of which ``first`` and ``last`` are measured with; ``under_way``: units that
    are; ``spent``: the seconds of units that have ended; ``done``: episodes on disk; ``loaded``: what the blocks on
    disk were made with; ``problem``: (start of the block,
    outcome) of the first block that did not end well.
    """

    spec: CellSpec
    cls: type[Learner]
    code: str
    key: str
    instance: str
    tuning: dict[str, Any]
    left: list[int] = field(default_factory=list)
    first: int = TIMINGS
    last: int = TIMINGS
    folder: Path | None = None
    under_way: int = 0
    spent: float = 0.0
    done: int = 0
    fit: Fit | None = None
    loaded: list[dict[str, str]] = field(default_factory=list)
    problem: tuple[int, Outcome] | None = None


def find_what_is_left(cell: Cell, folder: RunFolder) -> None:
    """Note the blocks of a cell that are not on disk, or that only timings are left to be measured."""
    spec = cell.spec
    cell.left = folder.missing_blocks(spec, cell.code)
    cell.done = spec.episodes - sum(min(spec.block, spec.episodes - start) for start in cell.left)
    if not cell.left and folder.lacking_timings(spec):
        cell.left = [TIMINGS]
    cell.loaded = folder.loaded_by_blocks(spec)
    if cell.left:
        cell.first, cell.last = cell.left[0], cell.left[-1]


def write_fit(cell: Cell, fit: Fit, folder: RunFolder) -> None:
    """Keep a meta-fit that was just made, with what it took and where."""
    assert fit.state is not None
    tensors, values = fit.state
    folder.meta_fits.write(cell.key, tensors, {
        "schema": SCHEMA, "fields": cell.spec.meta_fields(cell.cls), "code_hash": cell.code, "values": values,
        "loaded": fit.loaded, "prepare_s": fit.prepare_s, "meta_fit_s": fit.meta_fit_s, "peak_mb": fit.peak_mb,
        "device_peak_mb": fit.device_peak_mb, "curve": fit.curve, "node": fit.node,
    })  # fmt: skip


def write_block(cell: Cell, start: int, block: Block, node: Mapping[str, Any] | None, run: RunFolder) -> int:
    """Write what a block gave, the scores last: they say that it is complete. Return its number of episodes."""
    folder, spec = run.cell(cell.spec), cell.spec
    if block.latency is not None:
        write_json(folder / "latency.json", {**block.latency, "node": node})
    if block.scores is not None and block.predictions is not None:
        frames = {"predictions": block.predictions, "steps": block.steps, "block": block.scores}
        run.write_block(folder, start // spec.block, {kind: rows for kind, rows in frames.items() if rows is not None},
                        {**block.timing, "node": node, "loaded": block.loaded})  # fmt: skip
    if block.throughput is not None:
        write_json(folder / "throughput.json", {**block.throughput, "node": node})
    cell.left.remove(start)
    count = 0 if start == TIMINGS else min(spec.block, spec.episodes - start)
    cell.done += count
    return count


def write_by_user(cell: Cell, splits: Splits, run: RunFolder) -> Outcome:
    """Write the scores by user and the counts by pair of users of windows in time, which need all blocks."""
    spec, folder = cell.spec, run.cell(cell.spec)
    if spec.protocol.history is None:
        return Outcome("ok")
    try:
        files = sorted(folder.glob("predictions-*.parquet"))
        prediction = pd.concat([pd.read_parquet(file) for file in files])["prediction"].to_numpy()
        episodes = splits.sampler(spec).sample(
            0, spec.episodes, n_users=spec.n_users, k_shot=spec.k_shot, n_query=spec.n_query
        )
        by_user, pairs = rows_by_user(spec, episodes, prediction, splits.datasets[spec.dataset])
    except Exception as error:  # its predictions may be anything; the others must go on
        return Outcome("failed", reason=one_line(error))
    run.write_frames(folder, "by-user", {PAIRS.name: pairs, Path(BY_USER).stem: by_user})
    return Outcome("ok")


def write_record(cell: Cell, status: str, reason: str, splits: Splits, run: RunFolder) -> None:
    """Write a cell's timings and, last, its record."""
    spec, fit, folder = cell.spec, cell.fit, run.cell(cell.spec)
    datasets: Mapping[str, Dataset] = splits.datasets
    dataset = datasets[spec.dataset]
    source = None if spec.meta_dataset is None else datasets[spec.meta_dataset]
    if fit is not None:
        write_json(folder / "timing.json", cell_timing(folder, fit))
    record = {
        "schema": SCHEMA, "spec": spec.canonical(), "spec_hash": spec.spec_hash, "code_hash": cell.code,
        "status": status, "reason": reason, "dataset_sha256": dataset.table.sha256,
        "features_sha256": dataset.features_sha256,
        "meta_dataset_sha256": None if source is None else source.table.sha256, **splits.facts(spec),
        "loaded": fit.loaded if fit else {}, "trainable_params": fit.trainable_params if fit else None,
        "tuning": cell.tuning, "files": run.sums(spec) if status == "ok" else {},
    }  # fmt: skip
    write_json(folder / "cell.json", record)
