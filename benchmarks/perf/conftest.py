"""What the comparisons share: the stopwatch that times both sides in turn, the real data, and the table that they fill.

``make perf`` runs this folder and writes results/perf/perf.csv and, beside it, machine.json.
"""

from __future__ import annotations

import csv
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
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


ROWS = pytest.StashKey[list[Row]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = []


@pytest.fixture
def compare(benchmark, request: pytest.FixtureRequest) -> Callable[..., None]:
    """Time two ways to do the same work in turn, after one warm-up each, and add their medians to the table.

    ``ours`` and ``other`` get the number of the round. ``note`` is text, or a function called when all rounds are over.
    ``other_share``: the part of the work that ``other`` does in a round; its time is scaled to the whole.
    """

    def run(
        name: str,
        ours: Callable[[int], object],
        other: Callable[[int], object],
        *,
        other_name: str,
        note: str | Callable[[], str] = "",
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
        text = "; ".join(filter(None, [note() if callable(note) else note, f"median of {rounds} rounds"]))
        row = Row(name, ours_s, other_name, other_s, other_s / ours_s, text)
        request.config.stash[ROWS].append(row)

    return run


def pytest_sessionfinish(session: pytest.Session) -> None:
    rows = session.config.stash[ROWS]
    if not rows:
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "perf.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        table.writeheader()
        for row in rows:
            numbers = {key: f"{value:.4g}" for key, value in asdict(row).items() if isinstance(value, float)}
            table.writerow(asdict(row) | numbers)
    machine = environment.describe(torch.device("cpu"), torch.get_num_threads())
    (FOLDER / "machine.json").write_text(json.dumps(machine, indent=2) + "\n")


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    for row in config.stash[ROWS]:
        sides = f"{row.ours_s:.4g} s, {row.other}: {row.other_s:.4g} s"
        terminalreporter.write_line(f"{row.benchmark}: {sides}, {row.ratio:.3g} times as long ({row.note})")


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
def learn2learn() -> ModuleType:
    try:
        import learn2learn
    except Exception as error:  # torchvision, which it imports, fails in ways of its own
        pytest.skip(f"learn2learn can't be imported ({error}); .venv/learn2learn.log has what set-up saw")
    return learn2learn
