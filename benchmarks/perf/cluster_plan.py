"""What a large grid costs on a cluster: the scheduler of a run, driven by a virtual clock and measured units.

    .venv/bin/python benchmarks/perf/cluster_plan.py [--workers 1 16 256] [--table results/reference/cluster-units.csv]

The grid is 30 learners x 4 states x 5 shots x 10 seeds x 1,000 episodes on MovieLens-32M, 5 users an episode. What a
unit takes comes from ``cluster_units.py``: where it was measured at the full number of ratings, that; else the line
through smaller sizes, of learners of ratings times what the former took in the median beyond their lines. What the
driver takes to write a block is measured here, on blocks of the grid's size; how fast a node is sent a state is an
assumption (``--gigabit``). Writes results/perf/cluster-plan.csv, a row for each number of workers.
"""

from __future__ import annotations

import argparse
import csv
import heapq
import itertools
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np
import pandas as pd
from cluster_units import BLOCK, EPISODES, FULL, LEARNERS, NEEDS_ITEM_RATINGS, READING, TRIVIAL, suite_text
from scipy.optimize import nnls

from fewrec.learners.registry import learner_class
from fewrec.runner.cell import CellSpec, code_hash
from fewrec.runner.schedule import Schedule, Unit, Work
from fewrec.runner.splits import split_key
from fewrec.runner.store import RunFolder
from fewrec.runner.suite import load_suite
from fewrec.seeding import digest

STATES, SHOTS, SEEDS = ("user-cold", "item-cold", "both-cold", "warm"), (1, 5, 10, 20, 50), 10
START_S = 5.0  # of a worker: Python, torch and fewrec are imported


@dataclass(frozen=True)
class Costs:
    """Seconds of a learner's units, MB of its state. ``again_s``: preparing where the node has encoded the texts."""

    prepare_s: float
    again_s: float
    meta_fit_s: float
    block_s: float
    state_mb: float

    @classmethod
    def at_full_size(cls, rows: Sequence[dict[str, str]], measured: dict[str, str] | None, beyond: float) -> Costs:
        """Return a learner's costs on MovieLens-32M: as measured there, or from its rows at smaller sizes.

        ``beyond``: how many times the line a meta-fit takes there.
        """
        names = [field.name for field in fields(cls)]
        if measured is not None:
            return cls(*(float(measured[name] or 0) for name in names))
        values = {name: extrapolated(rows, name) for name in names}
        if rows[0]["learner"] not in READING:
            values["again_s"] = values["prepare_s"]
        return cls(**{**values, "meta_fit_s": values["meta_fit_s"] * beyond})


def extrapolated(rows: Sequence[dict[str, str]], column: str, size: tuple[int, int] = FULL) -> float:
    """Return a column at ``size`` (ratings, films): a constant and a share of each, none negative, by least squares.

    Errors are relative, so that the small sizes count as much as the large ones. Films are left out where all sizes
    have the same number, ratings for what is prepared: that is made of texts.
    """
    rated = 0 if column in ("prepare_s", "again_s") else 1
    points = [(rated * int(row["ratings"]), int(row["items"]), float(row[column])) for row in rows if row[column]]
    values = np.array([value for *_, value in points])
    if not len(values) or not values.max() > 0:
        return 0.0
    weight = 1 / np.maximum(values, 1e-3 * values.max())
    several = len({items for _, items, _ in points}) > 1
    x = np.array([[1, ratings / 1e6, items / 1e3 if several else 0] for ratings, items, _ in points])
    coefficients, _ = nnls(x * weight[:, None], values * weight)
    return float(coefficients @ [1, rated * size[0] / 1e6, size[1] / 1e3 if several else 0])


@dataclass
class Worker:
    """What a simulated worker holds: the last four splits, as a real one, and one fitted learner."""

    node: int
    splits: list[str] = field(default_factory=list)
    instance: str = ""


@dataclass
class Outcome:
    """A simulated run: its hours, what its workers did in them (shares of their time), and the driver's busy share.

    ``encoded``: whether every node has the texts from the start, in a cache that nodes share.
    """

    workers: int
    encoded: bool
    hours: float
    worker_hours: float
    fitting: float
    scoring: float
    splitting: float
    loading: float
    idle: float
    driver: float
    fits: int
    blocks: int


def grid(learners: tuple[str, ...]) -> list[CellSpec]:
    """Return the cells of the plan; learners that need ratings of unseen items have none in the other states."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.toml"
        path.write_text(suite_text(learners, STATES, SHOTS, SEEDS, EPISODES), encoding="utf-8")
        cells = load_suite(str(path))[1].cells()
    cold = ("item-cold", "both-cold")
    return [s for s in cells if s.learner not in NEEDS_ITEM_RATINGS or s.protocol.state in cold]


def works_of(cells: list[CellSpec], costs: dict[str, Costs]) -> tuple[list[Work], dict[str, CellSpec]]:
    """Return the work of each cell as a run would plan it, and the cells by their hash."""
    works, specs = [], {}
    for spec in cells:
        cls = learner_class(spec.learner)
        key = digest([spec.meta_fields(cls), code_hash(cls)])
        cost = costs[spec.learner]
        works.append(Work(spec.spec_hash, key, digest([key, spec.config]), tuple(range(0, spec.episodes, spec.block)),
                          cost.again_s + cost.meta_fit_s, cost.block_s))  # fmt: skip
        specs[spec.spec_hash] = spec
    return works, specs


class Cluster:
    """A simulated run of ``works`` on ``workers``: ``write_s`` is what the driver takes for a block, ``bytes_s`` the
    network's and disk's speed, ``split_s`` and ``start_s`` what every worker takes for a split and to begin."""

    def __init__(
        self, works: list[Work], specs: dict[str, CellSpec], costs: dict[str, Costs], workers: int, *,
        start_s: float, split_s: float, write_s: float, bytes_s: float, workers_a_node: int, encoded: bool = False,
    ) -> None:  # fmt: skip
        self.schedule = Schedule(works, workers)
        self.specs, self.costs = specs, costs
        self.split_of = {name: split_key(spec) for name, spec in specs.items()}
        self.left = {work.cell: len(work.starts) for work in works}
        self.pool = [Worker(number // workers_a_node) for number in range(workers)]
        self.start_s, self.split_s, self.write_s, self.bytes_s = start_s, split_s, write_s, bytes_s
        self.all_encoded = encoded
        self.encoded: dict[tuple[int, str], float] = {}  # when a node has the texts of a learner
        self.sent: set[tuple[int, str]] = set()
        self.recorded: set[str] = set()
        self.spent: dict[str, float] = defaultdict(float)

    def seconds(self, worker: Worker, unit: Unit, now: float) -> float:
        """Return what a worker takes for a unit that it starts now, and note what it and its node hold after that."""
        learner, key = self.specs[unit.cell].learner, self.split_of[unit.cell]
        cost, took = self.costs[learner], 0.0
        if key not in worker.splits:
            worker.splits = [*worker.splits[-3:], key]
            took += self._spend("splitting", self.split_s)
        if unit.kind == "fit":
            took += self._spend("fitting", self._prepare(worker.node, learner, now + took) + cost.meta_fit_s)
            worker.instance = unit.instance
            return took
        if worker.instance != unit.instance:
            took += self._spend("loading", self._prepare(worker.node, learner, now + took))
            if (worker.node, unit.instance) not in self.sent:
                self.sent.add((worker.node, unit.instance))
                took += self._spend("loading", self._transfer(cost))
            worker.instance = unit.instance
        return took + self._spend("scoring", cost.block_s)

    def driver_seconds(self, unit: Unit) -> float:
        """Return what the driver takes for a unit's results; the first record of a split needs the split."""
        if unit.kind == "fit":
            return self._transfer(self.costs[self.specs[unit.cell].learner])
        self.left[unit.cell] -= 1
        key = self.split_of[unit.cell]
        if self.left[unit.cell] or key in self.recorded:
            return self.write_s
        self.recorded.add(key)
        return self.write_s + self.split_s

    def run(self) -> Outcome:
        """Run the schedule to its end on a virtual clock."""
        driver_free = driver_busy = now = 0.0
        idle = list(range(len(self.pool)))
        events: list[tuple[float, int, int, Unit]] = []
        counts: dict[str, int] = defaultdict(int)
        order = 0
        while True:
            wanted = self.schedule.ready([self.pool[number].instance for number in idle]) if idle else []
            for unit in wanted[: len(idle)]:
                holding = [number for number in idle if self.pool[number].instance == unit.instance]
                splits = [number for number in idle if self.split_of[unit.cell] in self.pool[number].splits]
                number = (holding or splits or idle)[0]
                idle.remove(number)
                self.schedule.started(unit)
                counts[unit.kind] += 1
                order += 1
                begun = max(now, self.start_s)
                heapq.heappush(events, (begun + self.seconds(self.pool[number], unit, begun), order, number, unit))
            if not events:
                break
            now, _, number, unit = heapq.heappop(events)
            # the driver writes what came, one after the other, and hands out work after that
            cost = self.driver_seconds(unit)
            driver_free = max(driver_free, now) + cost
            driver_busy += cost
            now = driver_free
            self.schedule.done(unit)
            idle.append(number)
        whole = now * len(self.pool)
        share = {name: self.spent[name] / whole for name in ("fitting", "scoring", "splitting", "loading")}
        return Outcome(
            len(self.pool), self.all_encoded, now / 3600, whole / 3600, **share,
            idle=1 - sum(self.spent.values()) / whole, driver=driver_busy / now, fits=counts["fit"],
            blocks=counts["block"],
        )  # fmt: skip

    def _spend(self, what: str, seconds: float) -> float:
        self.spent[what] += seconds
        return seconds

    def _prepare(self, node: int, learner: str, now: float) -> float:
        """Return the seconds of preparing: texts are encoded by each worker that finds them not there yet."""
        cost = self.costs[learner]
        if self.all_encoded or now >= self.encoded.get((node, learner), float("inf")):
            return cost.again_s
        self.encoded[node, learner] = min(self.encoded.get((node, learner), float("inf")), now + cost.prepare_s)
        return cost.prepare_s

    def _transfer(self, cost: Costs) -> float:
        return cost.state_mb * 2**20 / self.bytes_s


def seconds_to_write() -> float:
    """Return the median seconds that the driver takes for a block of the grid's size."""
    rng = np.random.default_rng(0)
    rows, asked = BLOCK * 5, BLOCK * 50
    scores = pd.DataFrame({name: rng.random(rows) for name in ("se", "ae", "ndcg5", "auc", "spread")})
    scores.insert(0, "user", rng.integers(0, 200_000, rows))
    predictions = pd.DataFrame({"user": np.arange(asked) % 5, "item": rng.integers(0, FULL[1], asked),
                                "prediction": rng.random(asked)})  # fmt: skip
    times = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = RunFolder(Path(temporary))
        for number in range(30):
            begun = time.perf_counter()
            frames = {"predictions": predictions, "block": scores}
            folder.write_block(Path(temporary), number, frames, {"batches": [[BLOCK, 0.1, 0.1]]})
            times.append(time.perf_counter() - begun)
    return statistics.median(times)


def read_units(table: Path) -> tuple[dict[str, list[dict[str, str]]], dict[str, dict[str, str]]]:
    """Return each learner's rows at smaller sizes, and its row at the full number of ratings where there is one."""
    rows: dict[str, list[dict[str, str]]] = defaultdict(list)
    full: dict[str, dict[str, str]] = {}
    with table.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["status"] == "ok" and int(row["ratings"]) < FULL[0]:
                rows[row["learner"]].append(row)
            elif row["status"] == "ok":
                full[row["learner"]] = row
    lacking = [name for name in LEARNERS if len(rows[name]) < 2]
    if lacking:
        raise SystemExit(f"{table}: fewer than two sizes of {', '.join(lacking)}; run cluster_units.py")
    return rows, full


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=Path, default=Path("results/reference/cluster-units.csv"))
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 16, 64, 256, 1024])
    parser.add_argument("--workers-a-node", type=int, default=16)
    parser.add_argument("--gigabit", type=float, default=10, help="of the network, a second (default: 10)")
    parser.add_argument("--out", type=Path, default=Path("results/perf/cluster-plan.csv"))
    arguments = parser.parse_args()
    units, full = read_units(arguments.table)
    by_line = {name: extrapolated(units[name], "meta_fit_s") for name in full}
    beyond = {name: float(row["meta_fit_s"]) / by_line[name] for name, row in full.items()}
    median = statistics.median([ratio for name, ratio in beyond.items() if name not in TRIVIAL] or [1.0])
    costs = {
        name: Costs.at_full_size(units[name], full.get(name), 1.0 if name in READING else median) for name in LEARNERS
    }
    rated = [row for name in LEARNERS if name not in READING for row in units[name]]
    start_s, split_s = (
        statistics.median(float(row[name]) for row in full.values()) if full else extrapolated(rated, name)
        for name in ("load_s", "split_s")
    )
    start_s, write_s = START_S + start_s, seconds_to_write()
    works, specs = works_of(grid(LEARNERS), costs)
    for name, cost in costs.items():
        print(f"{name:16s} " + " ".join(f"{key} {value:.4g}" for key, value in asdict(cost).items()))
    for name, ratio in beyond.items():
        print(f"{name}: meta-fit at the full size {costs[name].meta_fit_s:.4g} s, {ratio:.2f} times the line")
    print(f"meta-fits of ratings that were not measured there are taken {median:.2f} times the line")
    print(f"{len(works)} cells; start {start_s:.1f} s, split {split_s:.1f} s, a block in {1000 * write_s:.1f} ms")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with arguments.out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [one.name for one in fields(Outcome)])
        writer.writeheader()
        for encoded, workers in itertools.product((False, True), arguments.workers):
            begun = time.perf_counter()
            outcome = Cluster(
                works, specs, costs, workers, start_s=start_s, split_s=split_s, write_s=write_s,
                bytes_s=arguments.gigabit * 1e9 / 8, workers_a_node=arguments.workers_a_node, encoded=encoded,
            ).run()  # fmt: skip
            writer.writerow({name: f"{v:.4g}" if isinstance(v, float) else v for name, v in asdict(outcome).items()})
            file.flush()
            print(f"{outcome} (simulated in {time.perf_counter() - begun:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
