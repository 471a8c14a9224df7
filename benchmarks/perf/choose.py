"""Choose what the rows of language models leave open, for both sides, by RMSE on meta-validation; writes chosen.json.

    .venv/bin/python benchmarks/perf/choose.py [--device cpu|cuda] [row or opponent, ...]

Where both sides do the same arithmetic: the learning rate; else ours: the number of epochs, and of prompts deep inside
a decoder, whose states are large, the rate too. Takes minutes on a GPU and more than an hour on two cores, most of it
for the opponents, so it is no part of ``make perf``; run it again when the learners change.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lm
import torch
from hf_trainer import Trained
from peft_prompts import Prompted

from fewrec.data.weights import find_weights
from fewrec.episodes.support import Episodes
from fewrec.learners.base import Context

TRAINER, PEFT = "Hugging Face Trainer", "peft"
ENCODER_EPISODES, DECODER_EPISODES = 20, 10
TRAINER_EPISODES = 6
CANDIDATES: dict[str, list[dict[str, Any]]] = {
    TRAINER: [{"learning_rate": rate} for rate in (1e-5, 2e-5, 5e-5, 2e-4)],
    PEFT: [{"learning_rate": rate} for rate in (3e-3, 3e-2, 1e-1, 3e-1, 1.0)],
    "full": [{"learning_rate": rate} for rate in (1e-5, 2e-5, 5e-5)],
    "last layer": [{"epochs": epochs} for epochs in (1, 2, 4, 8)],
    "last two layers": [{"epochs": epochs} for epochs in (1, 2, 4, 8)],
    "LoRA, last two layers": [{"epochs": epochs} for epochs in (1, 2, 4, 8)],
    "soft prompts, last two layers": [{"epochs": epochs} for epochs in (1, 2, 4)],
    "soft prompts at the input, SmolLM2": [{"learning_rate": rate} for rate in (3e-3, 3e-2, 1e-1)],
    "soft prompts, last third, SmolLM2": [
        {"epochs": epochs, "learning_rate": rate} for epochs in (2, 5) for rate in (0.01, 0.1, 1.0)
    ],
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    arguments.add_argument("row", nargs="*", default=list(CANDIDATES))
    given = arguments.parse_args()
    if unknown := set(given.row) - set(CANDIDATES):
        arguments.error(f"no row or opponent {', '.join(sorted(unknown))}; there are: {', '.join(CANDIDATES)}")
    device = torch.device(given.device)
    found = json.loads(lm.CHOSEN.read_text()) if lm.CHOSEN.exists() else {}
    where = {"device": device.type}
    with tempfile.TemporaryDirectory() as cache:
        split, ctx = lm.context(device, Path(cache))
        for row in given.row:
            decoder = row == PEFT or "SmolLM2" in row
            count = DECODER_EPISODES if decoder else TRAINER_EPISODES if row in (TRAINER, "full") else ENCODER_EPISODES
            episodes = lm.episodes_of(split, "validation", count)
            scores = {}
            for options in CANDIDATES[row]:
                scores[json.dumps(options)] = lm.rmse(episodes, predicted(row, options, episodes, ctx), ctx.scale)
                print(row, options, f"RMSE {scores[json.dumps(options)]:.4f}", flush=True)
            best = min(scores, key=scores.__getitem__)
            rounded = {key: round(score, 4) for key, score in scores.items()}
            found[row] = {"options": json.loads(best), "rmse": rounded, "episodes": count} | where
            lm.CHOSEN.write_text(json.dumps({row: found[row] for row in CANDIDATES if row in found}, indent=2) + "\n")


def predicted(row: str, options: dict[str, Any], episodes: Episodes, ctx: Context) -> dict[int, torch.Tensor]:
    """Return the predictions of each episode's query by a row, or an opponent, with the given options."""
    count = range(len(episodes))
    if row in (TRAINER, PEFT):
        peer: Callable = opponent(row, ctx).predict
        return {e: peer(episodes, e, options["learning_rate"]) for e in count}
    name, given = lm.ROWS[row]
    learner = lm.prepared(name, {**given, **options}, ctx)
    return lm.by_episode(episodes, lm.all_of(learner, episodes, ctx))


def opponent(name: str, ctx: Context) -> Trained | Prompted:
    """Return an opponent by its name here."""
    if name == TRAINER:
        return Trained(find_weights(lm.ENCODER).folder, ctx.catalog.texts(), ctx.device)
    return Prompted.beside(ctx)


if __name__ == "__main__":
    main()
