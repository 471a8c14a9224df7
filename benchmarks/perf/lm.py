"""What the rows of language models share: episodes, learners with a fixed number in flight, errors, what was chosen.

Which learning rates and numbers of epochs the rows run with was chosen on meta-validation, for both sides, by
``choose.py``, which writes chosen.json.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewrec.data.load import load_dataset
from fewrec.data.table import Scale
from fewrec.episodes.protocol import Protocol
from fewrec.episodes.sampler import EpisodeSampler
from fewrec.episodes.split import Split, split_dataset
from fewrec.episodes.support import Episodes
from fewrec.learners.base import BatchPredictor, Context
from fewrec.learners.registry import learner_class
from fewrec.learners.text.regression import TextRegressor

SHAPE = {"n_users": 5, "k_shot": 5, "n_query": 10}
EPISODES = 20
EPOCHS, BATCH, MAX_LENGTH = 10, 16, 64
PROMPT_TOKENS = 8
ENCODER, DECODER = "all-MiniLM-L6-v2", "SmolLM2-135M-Instruct"
CHOSEN = Path(__file__).with_name("chosen.json")

_EQUAL = {"epochs": EPOCHS, "batch_size": BATCH}
_DECODER = {"backbone": DECODER, "method": "prompt", "tokens": PROMPT_TOKENS, "batch_size": BATCH}
_HEAD = {"readout": "head", "pooling": "mean", "states": "last", "head_variance": 0.1, "user_head_variance": 0.1}
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("bert-finetune", {"method": "full", **_EQUAL}),
    "last layer": ("bert-finetune", {"method": "last", "layers": 1}),
    "last two layers": ("bert-finetune", {"method": "last", "layers": 2}),
    "LoRA, last two layers": ("bert-finetune", {"method": "lora", "layers": 2}),
    "soft prompts, last two layers": ("prompt-lm", {"layers": 2}),
    "soft prompts at the input, SmolLM2": ("prompt-lm", {**_DECODER, "readout": "words", "layers": -1, **_EQUAL}),
    "soft prompts, last third, SmolLM2": ("prompt-lm", {**_DECODER, **_HEAD, "layers": 10}),
}
"""The learner and the options of each row, without what is chosen."""


def chosen(row: str) -> dict[str, Any]:
    """Return ``{"options": ..., "rmse": {candidate: RMSE on meta-validation}, "episodes": how many}`` of a row."""
    return json.loads(CHOSEN.read_text())[row]


def learner_of(row: str, ctx: Context, *, at_once: int | None = None, **options: Any) -> TextRegressor:
    """Return a row's learner, prepared; with ``at_once`` it adapts so many episodes in one pass, if it can."""
    name, given = ROWS[row]
    return prepared(name, {**given, **chosen(row)["options"], **options}, ctx, at_once)


def prepared(name: str, options: Mapping[str, Any], ctx: Context, at_once: int | None = None) -> TextRegressor:
    """Return a text learner with its frozen layers' output cached."""
    found: Any = learner_class(name)
    if at_once is not None:

        class Fixed(found):
            def in_flight(self, n_rows: int) -> int:
                return min(at_once, super().in_flight(n_rows)) if self.config.method == "full" else at_once

        Fixed.__name__ = found.__name__
        made = Fixed(found.Config(**options))
    else:
        made = found(found.Config(**options))
    made.prepare(ctx)
    return made


def context(device: torch.device, cache: Path) -> tuple[Split, Context]:
    """Return MovieLens-100K cut for new users and seen items, as the suite ``quick`` does it, and a context for it."""
    dataset = load_dataset("ml-100k")
    split = split_dataset(dataset, Protocol(state="user-cold", k_max=SHAPE["k_shot"]), seed=0)
    return split, Context(device, split.catalog, dataset.scale, cache)


def episodes_of(split: Split, pool: str, count: int) -> Episodes:
    """Return the first episodes of 5 users, 5 support and 10 query ratings each, of "validation" or "test" users."""
    return EpisodeSampler(split.pools[pool], 0, pool, k_max=SHAPE["k_shot"]).sample(0, count, **SHAPE)


def one_of(learner: TextRegressor, episodes: Episodes, e: int, ctx: Context) -> Tensor:
    """Adapt to episode ``e`` alone and return the predictions of its query, (m,)."""
    rows = episodes.query.episode == e
    return learner.adapt(episodes.support[e], ctx).predict(episodes.query.user[rows], episodes.query.item[rows])


def all_of(learner: TextRegressor, episodes: Episodes, ctx: Context) -> Tensor:
    """Adapt to all episodes as one batch and return the predictions of all queries."""
    query = episodes.query
    predictor: BatchPredictor = learner.adapt_batch(episodes.support, ctx)
    return predictor.predict(query.episode, query.user, query.item)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return how long a piece of work takes, the device's part included: the faster of two turns."""
    found = []
    for _ in range(2):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - start)
    return min(found)


def by_episode(episodes: Episodes, predicted: Tensor) -> dict[int, Tensor]:
    """Return the predictions of all queries by episode."""
    return {e: predicted[episodes.query.episode == e] for e in range(len(episodes))}


def rmse(episodes: Episodes, predictions: Mapping[int, Tensor], scale: Scale) -> float:
    """Return the RMSE over the query ratings of the predicted episodes, predictions clipped to the scale."""
    errors = [
        scale.clip(predicted.detach().cpu().double()) - episodes.answers.rating[episodes.query.episode == e]
        for e, predicted in predictions.items()
    ]
    return math.sqrt(torch.cat(errors).square().mean())
