"""What one meta-fit and one block of each learner take at MovieLens-32M's size: the units of docs/cluster.md's plan.

    .venv/bin/python benchmarks/perf/cluster_units.py [LEARNER ...] [--limit 600] [--large]

Ratings in that data set's format are generated. Each learner is run in a process of its own with one thread, one seed,
user-cold (item-cold where it needs ratings of unseen items), K=5, 1,000 episodes in blocks of 100 (200 of learners that
read titles), at several sizes, and each run appends a row to results/perf/cluster-units.csv: seconds of loading,
splitting, preparing (and again, when its texts are encoded), meta-fit and a block, size of its state, peak memory. A
learner that is past the limit gets a row with the reason; what is there already is left alone. ``--large`` runs the
learners at the full size, which the plan compares with what it made of the others.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import scale

BLOCK, EPISODES, K = 100, 1000, 5  # of the plan's grid
FULL = (32_000_204, 84_432)  # ratings of MovieLens-32M, and films that have one
RATINGS = ((1_000_000, scale.ITEMS), (4_000_000, scale.ITEMS))
TITLES = ((250_000, 1_000), (250_000, 3_000))  # for learners that read all titles, which takes long
BOTH = ((1_000_000, 3_000),)  # for those of them whose meta-fit reads all ratings
LARGE = (FULL[0], scale.ITEMS)
AT_FULL_SIZE = ("item-mean", "bias", "bias-shots", "mf-foldin", "knn", "proto", "maml-mf")  # those that are quick there
TABLE = Path("results/perf/cluster-units.csv")
COLUMNS = (
    "learner", "ratings", "items", "status", "reason", "threads", "load_s", "split_s", "prepare_s", "again_s",
    "meta_fit_s", "block_s", "state_mb", "peak_mb",
)  # fmt: skip
TRIVIAL = ("global-mean", "user-mean", "user-median", "item-mean", "item-popularity", "random", "bias", "bias-shots")
RATED = (
    "mf-scratch", "mf-foldin", "knn", "proto", "gp", "maml-mf", "fomaml-mf", "anil-mf", "reptile-mf",
    "meta-sgd-mf", "melu", "mamo", "tanp", "lwa", "nlba", "metaemb", "mwuf",
)  # fmt: skip
READING = ("hybrid-gp", "embed-ridge", "bert-meta", "prompt-lm-meta", "maml-lm")
LEARNERS = (*TRIVIAL, *RATED, *READING)
NEEDS_ITEM_RATINGS = ("bias-shots", "metaemb", "mwuf")  # not applicable without unseen items


def suite_text(learners: tuple[str, ...], states: tuple[str, ...], shots: tuple[int, ...], seeds: int,
               episodes: int) -> str:  # fmt: skip
    """Return a suite file of the plan's grid on ml-32m."""
    lines = [
        'title = "The cost plan of docs/cluster.md"', 'datasets = ["ml-32m"]', f"states = {json.dumps(states)}",
        "n_users = 5", f"shots = {json.dumps(shots)}", "n_query = 10", f"seeds = {list(range(seeds))}",
        f"episodes = {episodes}", f"block = {BLOCK}", f"learners = {json.dumps(learners)}",
        "[protocol]", "item_shots = 5",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def sizes_of(learner: str) -> tuple[tuple[int, int], ...]:
    """Return the (ratings, films) that a learner is measured at."""
    return (TITLES + BOTH * (learner in ("hybrid-gp", "embed-ridge"))) if learner in READING else RATINGS


def _measure(learner: str, folder: Path, answer: multiprocessing.Queue) -> None:
    import torch

    import fewrec
    from fewrec.data import parsed as copies
    from fewrec.data.cards import load_card
    from fewrec.data.download import sha256_of
    from fewrec.data.load import read_files
    from fewrec.episodes.protocol import Protocol
    from fewrec.episodes.split import split_dataset
    from fewrec.errors import FewrecError
    from fewrec.paths import cache_folder
    from fewrec.runner.progress import Reporter

    class Clock(Reporter):
        """Times the cell alone: plan and tables are the driver's."""

        def cell(self, spec: Any) -> None:
            self.begun = time.perf_counter()

        def finished(self, spec: Any, status: str) -> None:
            self.seconds = time.perf_counter() - self.begun

    torch.set_num_threads(1)
    start = time.perf_counter()
    card = load_card("ml-32m")
    files = {name: sha256_of(folder / name) for name in ("ratings.csv", "movies.csv")}
    dataset = copies.parsed(card, folder, files, lambda: read_files(card, folder, "movielens-csv", "ratings"))
    row = {"load_s": time.perf_counter() - start}
    state = "item-cold" if learner in NEEDS_ITEM_RATINGS else "user-cold"
    start = time.perf_counter()
    split_dataset(dataset, Protocol(state=state, k_max=K), 0)
    row["split_s"] = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as temporary:
        suite, blocks = Path(temporary) / "plan.toml", 2 if learner in READING else EPISODES // BLOCK
        suite.write_text(suite_text((learner,), (state,), (K,), 1, BLOCK * blocks), encoding="utf-8")
        cache = Path(temporary) / "cache"  # texts that were encoded before would make the first prepare the second
        cache.mkdir()
        (cache / "weights").symlink_to(cache_folder() / "weights")
        os.environ["FEWREC_CACHE"] = str(cache)
        for column in ("prepare_s", "again_s")[: 2 if learner in READING else 1]:
            out, clock = Path(temporary) / column, Clock()
            try:
                results = fewrec.run(str(suite), data=dataset, threads=1, out=out, reporter=clock)
            except FewrecError as error:
                answer.put({**row, "status": "refused", "reason": str(error)})
                return
            cell = results.cells.iloc[0]
            row |= {"status": cell["status"], "reason": cell.get("reason") or ""}
            if cell["status"] == "ok":
                states = sum(file.stat().st_size for file in out.glob("meta/*/state.safetensors"))
                # what is done once a cell (timings, records) is shared among the blocks that a cell of the grid has
                scored = BLOCK / cell["episodes_per_s"]
                around = clock.seconds - row["split_s"] - cell["prepare_s"] - cell["meta_fit_s"] - blocks * scored
                row |= {
                    column: cell["prepare_s"], "meta_fit_s": cell["meta_fit_s"],
                    "block_s": scored + around * BLOCK / EPISODES, "state_mb": states / 2**20,
                    "peak_mb": cell["peak_mb"],
                }  # fmt: skip
    answer.put(row)


def measure(learner: str, folder: Path, limit: float) -> dict[str, object]:
    """Return what a learner's units take on the ratings in ``folder``, or why there is no figure."""
    spawn = multiprocessing.get_context("spawn")
    answer = spawn.Queue()
    child = spawn.Process(target=_measure, args=(learner, folder, answer))
    child.start()
    child.join(limit)
    if child.is_alive():
        child.kill()
        child.join()
        return {"status": "timeout", "reason": f"not done within {limit:g} s"}
    if child.exitcode:
        return {"status": "failed", "reason": f"exit code {child.exitcode}"}
    return answer.get()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("learners", nargs="*", help="default: all, with --large those that are quick there")
    parser.add_argument("--large", action="store_true", help="measure at the full number of ratings")
    parser.add_argument("--limit", type=float, default=600, help="seconds a learner and size (default: 600)")
    parser.add_argument("--data", type=Path, default=Path("build/perf"), help="where ratings are generated")
    arguments = parser.parse_args()
    learners = arguments.learners or (AT_FULL_SIZE if arguments.large else LEARNERS)
    unknown = set(learners) - set(LEARNERS)
    if unknown:
        sys.exit(f"no learner of the plan: {', '.join(sorted(unknown))}")
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    if not TABLE.exists():
        TABLE.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
    with TABLE.open(encoding="utf-8") as file:
        have = {(row["learner"], int(row["ratings"]), int(row["items"])) for row in csv.DictReader(file)}
    pairs = [(one, size) for one in learners for size in ((LARGE,) if arguments.large else sizes_of(one))]
    for learner, (ratings, items) in sorted(pairs, key=lambda pair: pair[1]):
        if (learner, ratings, items) in have:
            continue
        folder = arguments.data / f"{ratings}-{items}"
        if not (folder / "movies.csv").exists():
            scale.make(folder, ratings, items)
        row = {"learner": learner, "ratings": ratings, "items": items, "threads": 1}
        row |= measure(learner, folder.resolve(), arguments.limit)
        with TABLE.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, COLUMNS, restval="").writerow(
                {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in row.items()}
            )
        print(" ".join(f"{name}={value}" for name, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
