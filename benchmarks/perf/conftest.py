"""What the comparisons share: the stopwatch that times both sides in turn, the real data, and the table that they fill.

``make perf`` runs this folder and writes results/perf/perf.csv and, beside it, memory.csv and machine.json, anew after
each row, so that what was measured stays where a run is cut off. With
``--device cuda`` the rows of language models are measured there (benchmarks/gpu.sh).
"""

from __future__ import annotations

import csv
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from fewrec.data.load import load_dataset
from fewrec.data.table import Dataset
from fewrec.episodes.protocol import Protocol
from fewrec.episodes.split import Split, split_dataset
from fewrec.learners.base import Context
from fewrec.runner import environment

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "results" / "perf"


@dataclass(frozen=True)
class Row:
    """One line of perf.csv: median seconds of both sides for the same work; ``ratio`` is other / ours."""

    benchmark: str
    ours_s: float
    other: str
    other_s: float
    ratio: float
    note: str

    def __str__(self) -> str:
        sides = f"{self.ours_s:.4g} s, {self.other}: {self.other_s:.4g} s"
        return f"{self.benchmark}: {sides}, {self.ratio:.3g} times as long ({self.note})"


ROWS = pytest.StashKey[list[Row]]()
PEAKS = pytest.StashKey[list[dict[str, str]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="where rows of language models are measured: cpu or cuda")
    parser.addoption("--into", default=str(FOLDER), help="the folder for perf.csv")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = []
    config.stash[PEAKS] = []


@pytest.fixture
def memory(request: pytest.FixtureRequest) -> Callable[[str, str, float, float], None]:
    """Add a learner's peak of resident memory and its limit, both in GB, to memory.csv."""

    def add(learner: str, backbone: str, peak: float, limit: float) -> None:
        row = {"learner": learner, "backbone": backbone, "peak_gb": f"{peak:.3g}", "limit_gb": f"{limit:g}"}
        request.config.stash[PEAKS].append(row)
        save(request.config)

    return add


@pytest.fixture
def compare(benchmark, request: pytest.FixtureRequest) -> Callable[..., None]:
    """Time two ways to do the same work in turn, after one warm-up each, and add their medians to the table.

    ``ours`` and ``other`` get the number of the round. ``note`` is text, or a function of both medians.
    ``other_share``: the part of the work that ``other`` does in a round; its time is scaled to the whole.
    """

    def run(
        name: str,
        ours: Callable[[int], object],
        other: Callable[[int], object],
        *,
        other_name: str,
        note: str | Callable[[float, float], str] = "",
        rounds: int = 5,
        other_share: float = 1.0,
    ) -> None:
        seconds: list[float] = []

        def others_turn() -> tuple[tuple[int], dict]:
            number = max(len(seconds) - 1, 0)  # the warm-up does the work of round 0
            start = time.perf_counter()
            other(number)
            seconds.append(time.perf_counter() - start)
            return (number,), {}

        benchmark.pedantic(ours, setup=others_turn, rounds=rounds, iterations=1, warmup_rounds=1)
        if benchmark.disabled:
            return
        ours_s = benchmark.stats.stats.median
        other_s = statistics.median(seconds[1:]) / other_share
        said = note(ours_s, other_s) if callable(note) else note
        text = "; ".join(filter(None, [said, f"median of {rounds} rounds"]))
        row = Row(name, ours_s, other_name, other_s, other_s / ours_s, text)
        request.config.stash[ROWS].append(row)
        save(request.config)
        with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            print(f"\n{row}", flush=True)

    return run


def save(config: pytest.Config) -> None:
    """Write the tables; rows of an earlier run on the same machine stay where this one did not measure them anew."""
    rows, peaks = config.stash[ROWS], config.stash[PEAKS]
    folder = Path(config.getoption("--into"))
    folder.mkdir(parents=True, exist_ok=True)
    machine = environment.describe(torch.device(config.getoption("--device")), torch.get_num_threads())
    text = json.dumps(machine, indent=2) + "\n"
    same = (folder / "machine.json").exists() and (folder / "machine.json").read_text() == text
    found = [
        asdict(row) | {key: f"{value:.4g}" for key, value in asdict(row).items() if isinstance(value, float)}
        for row in rows
    ]
    _write(folder / "perf.csv", found, [field.name for field in fields(Row)], 1, same)
    _write(folder / "memory.csv", peaks, ["learner", "backbone", "peak_gb", "limit_gb"], 2, same)
    (folder / "machine.json").write_text(text)


def _write(path: Path, rows: list[dict[str, str]], columns: list[str], keys: int, same_machine: bool) -> None:
    """Write a table whose first ``keys`` columns name a row, with the rows that are kept of the one before."""
    if same_machine and path.exists():
        with path.open(newline="") as file:
            before = list(csv.DictReader(file))
    else:
        before = []
    names = {tuple(row[key] for key in columns[:keys]): row for row in before}
    names |= {tuple(row[key] for key in columns[:keys]): row for row in rows}
    if not names:
        return
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(names.values())


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    for row in config.stash[ROWS]:
        terminalreporter.write_line(str(row))
    for peak in config.stash[PEAKS]:
        terminalreporter.write_line("{learner} on {backbone}: {peak_gb} GB at most, limit {limit_gb}".format(**peak))


@pytest.fixture(scope="session")
def ml_100k() -> Dataset:
    return load_dataset("ml-100k")


@pytest.fixture(scope="session")
def user_cold(ml_100k: Dataset) -> Split:
    """MovieLens-100K cut for new users and seen items, as the suite ``quick`` does it."""
    return split_dataset(ml_100k, Protocol(state="user-cold", k_max=5), seed=0)


@pytest.fixture(scope="session")
def ctx(ml_100k: Dataset, user_cold: Split, tmp_path_factory: pytest.TempPathFactory) -> Context:
    return Context(torch.device("cpu"), user_cold.catalog, ml_100k.scale, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def device_ctx(ctx: Context, pytestconfig: pytest.Config) -> Context:
    """``ctx`` on the device that rows of language models are measured on."""
    return replace(ctx, device=torch.device(pytestconfig.getoption("--device")))


@pytest.fixture(scope="session")
def learn2learn() -> ModuleType:
    try:
        import learn2learn
    except Exception as error:  # torchvision, which it imports, fails in ways of its own
        pytest.skip(f"learn2learn can't be imported ({error}); .venv/learn2learn.log has what set-up saw")
    return learn2learn
