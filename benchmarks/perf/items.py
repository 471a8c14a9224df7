"""Time against the number of items: adapting, predicting and the parts of a meta-step, at a fixed size of episodes.

    .venv/bin/python -P benchmarks/perf/items.py [folder]

Writes items.csv, items.png and items.svg to the folder (results/perf). Adapting to a user takes as long in a catalog of
a million items as in one of a thousand. A meta-step does not stay flat, for parameters, gradients and Adam's
moments are whole tables: the backward pass fills and adds up gradients of their size, and Adam reads and writes it all.
"""

from __future__ import annotations

import csv
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from fewrec.data.table import Catalog, Scale
from fewrec.episodes.support import Answers, Episodes, QueryBatch, Support, SupportBatch
from fewrec.learners.base import Context
from fewrec.learners.engine.tasks import Tasks
from fewrec.learners.meta_mf import MAMLMF

FOLDER = Path(__file__).resolve().parents[2] / "results" / "perf"
N_ITEMS = (1_000, 10_000, 100_000, 1_000_000)
USERS, META_BATCH, K_SHOT, N_QUERY, RANK, ROUNDS = 1_000, 250, 5, 10, 32, 15
PARTS = {
    "adapt": f"adapt and predict, {USERS:,} users",
    "meta_gradient": f"gradient of a meta-step, {META_BATCH} users",
    "zero_fill": "of which: zeros for one gradient of the tables",
    "adam": "Adam over whole tables",
}


def drawn(n_items: int, n_users: int, generator: torch.Generator) -> Episodes:
    """Return one episode of ``n_users`` with random ratings of distinct items."""
    item = torch.randint(0, n_items - K_SHOT - N_QUERY, (n_users, K_SHOT + N_QUERY), generator=generator)
    item = item.sort(1).values + torch.arange(K_SHOT + N_QUERY)  # strictly ascending, hence distinct
    item = item.gather(1, torch.rand(item.shape, generator=generator).argsort(1))
    rating = torch.randint(1, 6, item.shape, generator=generator).double()
    new = torch.full((n_users,), -1)
    own = [each[:, :K_SHOT].reshape(-1) for each in (item, rating)]
    asked = [each[:, K_SHOT:].reshape(-1) for each in (item, rating)]
    of_support, of_query = (torch.arange(n_users).repeat_interleave(n) for n in (K_SHOT, N_QUERY))
    support = SupportBatch.of([Support(n_users, of_support, *own, timestamp=None, meta_user=new, seed=0)])
    query = QueryBatch(torch.zeros_like(of_query), of_query, asked[0])
    return Episodes(support, query, Answers(asked[1], torch.arange(n_users)))


def at_start(n_items: int, generator: torch.Generator) -> tuple[MAMLMF, Context]:
    catalog, scale = Catalog(np.arange(n_items)), Scale(1.0, 5.0, 1.0)
    ctx = Context(torch.device("cpu"), catalog, scale, Path("."))
    learner = MAMLMF(MAMLMF.Config(rank=RANK, max_known=0, meta_batch=META_BATCH))
    start = {
        "user_bias": torch.tensor(3.5),
        "user_vector": torch.randn(RANK, generator=generator) * 0.1,
        "item_bias": torch.randn(n_items, generator=generator) * 0.3,
        "item_factor": torch.randn(n_items, RANK, generator=generator) * 0.3,
    }
    tensors = {f"module.{name}": value for name, value in start.items()}
    learner.load_state(tensors, {"n_items": n_items, "n_user_attributes": 0}, ctx)
    return learner, ctx


def stopwatches(n_items: int) -> dict[str, Callable[[], object]]:
    """Return, by part, what is timed."""
    generator = torch.Generator().manual_seed(0)
    learner, ctx = at_start(n_items, generator)
    episodes = drawn(n_items, USERS, generator)
    query = episodes.query
    training, _ = at_start(n_items, generator)
    training.module.requires_grad_()
    tasks = Tasks.of_episodes(drawn(n_items, META_BATCH, generator), ctx.device, torch.float32)
    tables = [value for value in training.module.parameters() if value.dim()]
    optimiser = training.make_optimiser()

    def meta_gradient() -> None:
        optimiser.zero_grad()
        training.meta_gradient(tasks)

    return {
        "adapt": lambda: learner.adapt_batch(episodes.support, ctx).predict(query.episode, query.user, query.item),
        "meta_gradient": meta_gradient,  # the optimiser's step needs the gradient that this leaves
        "zero_fill": lambda: [torch.zeros_like(table) for table in tables],
        "adam": optimiser.step,
    }


def measured() -> list[dict[str, float]]:
    """Return for each number of items the median milliseconds of each part."""
    rows = []
    for n_items in N_ITEMS:
        row: dict[str, float] = {"n_items": n_items}
        for part, run in stopwatches(n_items).items():
            seconds = []
            for number in range(ROUNDS + 2):
                start = time.perf_counter()
                run()
                if number >= 2:  # the first two warm up
                    seconds.append(time.perf_counter() - start)
            row[f"{part}_ms"] = 1000 * statistics.median(seconds)
        row["adapt_ms_per_user"] = row["adapt_ms"] / USERS
        rows.append(row)
        print("  ".join(f"{name} {value:,.4g}" for name, value in row.items()), flush=True)
    return rows


def plot(rows: list[dict[str, float]], folder: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "fewrec"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4.0), layout="constrained")
    for part, label in PARTS.items():
        axes.plot(N_ITEMS, [row[f"{part}_ms"] for row in rows], marker="o", label=label)
    axes.set(xscale="log", yscale="log", xlabel="items in the catalog", ylabel="milliseconds")
    axes.set_title(f"maml-mf: K={K_SHOT}, Q={N_QUERY}, {RANK} factors, {torch.get_num_threads()} threads", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    for name in ("items.png", "items.svg"):
        figure.savefig(folder / name, dpi=150, metadata={"Date": None} if name.endswith("svg") else None)


def main() -> None:
    try:
        import matplotlib  # noqa: F401  # before minutes are spent on measuring
    except ImportError:
        sys.exit("items.py: the plot needs matplotlib: .venv/bin/python -m pip install matplotlib")
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    rows = measured()
    with (folder / "items.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        for row in rows:
            table.writerow({name: f"{value:.4g}" for name, value in row.items()} | {"n_items": row["n_items"]})
    plot(rows, folder)
    growth = rows[-1]["adapt_ms"] / rows[0]["adapt_ms"]
    print(f"adapting and predicting: {growth:.2f} times as long with {N_ITEMS[-1]:,} items as with {N_ITEMS[0]:,}")


if __name__ == "__main__":
    main()
