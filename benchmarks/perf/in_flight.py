"""Throughput against the number of episodes that are adapted in one pass, for the rows of an encoder.

    .venv/bin/python benchmarks/perf/in_flight.py [--device cpu|cuda] [folder]

Writes in-flight-DEVICE.csv, .png and .svg to the folder (results/perf). Predictions do not depend on the number
(tests/learners/test_bert.py), so this is time alone.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from pathlib import Path

import lm
import torch

FOLDER = Path(__file__).resolve().parents[2] / "results" / "perf"
ROWS = ("last layer", "last two layers", "LoRA, last two layers", "soft prompts, last two layers")
IN_FLIGHT = {"cpu": (1, 2, 4, 8, 16, 32), "cuda": (1, 4, 16, 64, 256)}
PASSES = 16
"""How many passes are timed at most: one after another, hundreds of episodes take minutes and tell no more."""


def measured(device: torch.device) -> list[dict[str, float | str]]:
    """Return episodes a second, adapting and predicting, by row and by the number in flight."""
    counts = IN_FLIGHT[device.type]
    found: list[dict[str, float | str]] = []
    with tempfile.TemporaryDirectory() as cache:
        split, ctx = lm.context(device, Path(cache))
        sampled = {count: lm.episodes_of(split, "test", min(PASSES * count, counts[-1])) for count in counts}
        for row in ROWS:
            for count, episodes in sampled.items():
                learner = lm.learner_of(row, ctx, at_once=count)
                seconds = lm.seconds(lambda made=learner, drawn=episodes: lm.all_of(made, drawn, ctx), device)
                rate = len(episodes) / seconds
                found.append({"row": row, "in_flight": count, "episodes_per_s": rate})
                print(f"{row}, {count} in flight: {rate:.3g} episodes a second", flush=True)
    return found


def plot(found: list[dict[str, float | str]], device: torch.device, folder: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "fewrec"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4.0), layout="constrained")
    for row in ROWS:
        own = [each for each in found if each["row"] == row]
        axes.plot([each["in_flight"] for each in own], [each["episodes_per_s"] for each in own], marker="o", label=row)
    axes.set_xscale("log", base=2)
    counts = sorted({int(each["in_flight"]) for each in found})
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.set_ylim(bottom=0)
    axes.set(xlabel="episodes in flight", ylabel="episodes a second")
    where = f"{torch.get_num_threads()} threads" if device.type == "cpu" else torch.cuda.get_device_name(device)
    axes.set_title(f"MiniLM: 5 users, K = 5, Q = 10, MovieLens-100K; {where}", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False)
    for ending in ("png", "svg"):
        path = folder / f"in-flight-{device.type}.{ending}"
        figure.savefig(path, dpi=150, metadata={"Date": None} if ending == "svg" else None)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--device", choices=list(IN_FLIGHT), default="cpu")
    arguments.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    given = arguments.parse_args()
    try:
        import matplotlib  # noqa: F401  # before minutes are spent on measuring
    except ImportError:
        sys.exit("in_flight.py: the plot needs matplotlib: .venv/bin/python -m pip install matplotlib")
    device = torch.device(given.device)
    given.folder.mkdir(parents=True, exist_ok=True)
    found = measured(device)
    with (given.folder / f"in-flight-{device.type}.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(found[0]), lineterminator="\n")
        table.writeheader()
        for each in found:
            table.writerow(each | {"episodes_per_s": f"{each['episodes_per_s']:.4g}"})
    plot(found, device, given.folder)


if __name__ == "__main__":
    main()
