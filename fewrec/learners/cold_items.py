"""What the learners that warm up cold items share: options, meta-fit, adapting and predicting."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.support import SupportBatch
from fewrec.learners.attributes import item_attributes
from fewrec.learners.base import BatchedLearner, BatchPredictor, Context, LearnerConfig
from fewrec.learners.cold_base import BaseModel, Ratings, SimulatedColdItems
from fewrec.learners.effects import KnownUsers, precise_device
from fewrec.learners.item_shots import ItemShots, padded
from fewrec.learners.units import RatingUnits
from fewrec.learners.validation import Validation

Params = dict[str, Tensor]


class ColdItemConfig(LearnerConfig):
    """Options of the learners that warm up cold items.

    Base model: ``rank``, ``sweeps`` of alternating least squares. Warm-up: ``warm_steps`` of gradient descent at
    ``warm_rate`` on an item's shots, drawn to the start by ``warm_prior``, so that few shots move an embedding less
    (``Ratings.descend`` says how; both are free of the rating scale).

    Meta-training: at most ``meta_steps`` of Adam at ``meta_lr``, ``meta_batch`` tasks each, a task being an item's
    0..``max_shots`` shots and, where the item has as many, at least ``n_query`` other ratings to predict. The best by
    meta-validation (K = 1, 5, 10, ``n_query`` ratings to predict) is kept; looked at every ``evaluate_every`` steps,
    given up after ``patience`` looks without a better one.
    """

    rank: int = Field(12, ge=1, le=256)
    sweeps: int = Field(15, ge=1)
    warm_steps: int = Field(5, ge=0, le=1000)
    warm_rate: float = Field(1.5, gt=0, lt=2)
    warm_prior: float = Field(2.0, gt=0)
    meta_lr: float = Field(0.01, gt=0)
    meta_batch: int = Field(256, ge=1)
    meta_steps: int = Field(400, ge=0)
    max_shots: int = Field(10, ge=1)
    n_query: int = Field(10, ge=1)
    evaluate_every: int = Field(20, ge=1)
    patience: int = Field(5, ge=1)


class ColdItemLearner(BatchedLearner):
    """A learner that meta-learns how a cold item's ID embedding comes from its attributes and its few ratings.

    Subclasses say what an item's attributes give (``of_items``), how shots warm that up (``warmed``), and the loss.
    Meta-fit has two phases: the base model, then, with it frozen, what is learnt from simulated cold items. Adapt folds
    users in (support and, for a known user, the ratings in meta-train) and warms up all (episode, item) pairs at once.
    An item with a rating in meta-train keeps its own embedding; one without any and without shots has what no shots
    lead to. All numbers are float64.
    """

    Config = ColdItemConfig
    needs = frozenset({"item_ratings"})

    @abstractmethod
    def initial_params(self, n_attributes: int, generator: torch.Generator) -> Params:
        """Return float64 parameters to start meta-training from."""

    @abstractmethod
    def of_items(self, params: Params, attributes: Tensor) -> Tensor:
        """Return (n, k) of items' attributes (n, d)."""

    @abstractmethod
    def warmed(self, params: Params, given: Tensor, shots: Ratings) -> Tensor:
        """Return ID embeddings (T, k) of items of whom ``of_items`` gave ``given`` (T, k), after their shots."""

    @abstractmethod
    def loss(self, params: Params, given: Tensor, shots: Ratings, query: Ratings) -> Tensor:
        """Return what meta-training minimises."""

    def meta_fit(self, source: MetaTrainSet, ctx: Context) -> None:
        device, config = precise_device(ctx), self.config
        generator = ctx.generator(source.seed)
        self.known = KnownUsers.of(source.table)
        unit = RatingUnits.of(source.scale).size
        self.base, without = BaseModel.fit(source.table, unit, config.rank, config.sweeps, generator, device)
        attributes = item_attributes(source.catalog).to(device, torch.float64)
        cold = SimulatedColdItems(self.base, source.table, without, config.max_shots, config.n_query, device)
        validation = Validation(source, (1, 5, 10), config.n_query)
        params = {n: v.to(device) for n, v in self.initial_params(attributes.shape[1], generator).items()}
        self._use(params, self.of_items(params, attributes))
        best, kept, waited = validation.rmse(self, ctx) if validation else 0.0, (self.params, self.given), 0
        leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
        optimiser = torch.optim.Adam(leaves.values(), lr=config.meta_lr)
        batches = cold.batches(generator, config.meta_batch)
        for step in ctx.progress(range(1, config.meta_steps + 1), f"{self.name}: meta-steps"):
            item, shots, query = next(batches)
            loss = self.loss(leaves, self.of_items(leaves, attributes[item]), shots, query)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if step % config.evaluate_every and step < config.meta_steps:
                continue
            with torch.no_grad():
                params = {name: value.detach().clone() for name, value in leaves.items()}
                self._use(params, self.of_items(params, attributes))
            if validation:
                score = validation.rmse(self, ctx)
                ctx.log(step, loss=float(loss.detach()), validation_rmse=score)
                better = score < best - 1e-6
                best, kept, waited = (score, (self.params, self.given), 0) if better else (best, kept, waited + 1)
                if waited >= config.patience:
                    break
        if validation:
            self._use(*kept)

    def _use(self, params: Params, given: Tensor) -> None:
        """Take parameters, and give every item without a meta-train rating the embedding that no shots lead to."""
        self.params, self.given = params, given.contiguous()
        none = self.base.users.new_zeros(len(given), 0, given.shape[1])
        empty = self.base.ratings(none, none[:, :, 0], none[:, :, 0])
        with torch.no_grad():
            self.base.e = torch.where(self.base.seen.unsqueeze(1), self.base.e, self.warmed(params, given, empty))

    def adapt_batch(self, supports: SupportBatch, ctx: Context) -> BatchPredictor:
        base, device = self.base, self.base.e.device
        user, item, rating = (column.to(device) for column in self.known.ratings(supports))
        w = base.fold_in(user, item, rating, supports.total_users)
        shots = ItemShots.of(supports, ~base.seen)
        if not len(shots):
            return WarmedPredictor(base, w, base.e[:0], shots, supports)
        rows, mask = padded(shots.pair, len(shots))
        raters = base.users[shots.meta_user.to(device)[rows.to(device)]]
        drawn = base.ratings(raters, shots.rating[rows].to(device), mask.to(device))
        with torch.no_grad():
            warm = self.warmed(self.params, self.given[shots.item.to(device)], drawn)
        return WarmedPredictor(base, w, warm, shots, supports)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        learnt = {f"param.{name}": value.contiguous() for name, value in self.params.items()}
        base = {f"base.{name}": value.contiguous() for name, value in self.base.tensors().items()}
        return {**learnt, **base, "given": self.given, **self.known.tensors()}, {}

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any], ctx: Context) -> None:
        device = precise_device(ctx)
        self.known = KnownUsers.from_tensors(tensors)
        self.base = BaseModel(*(tensors[f"base.{name}"].to(device) for name in BaseModel.NAMES))
        self.given = tensors["given"].to(device)
        self.params = {n.removeprefix("param."): t.to(device) for n, t in tensors.items() if n.startswith("param.")}

    def trainable_parameters(self) -> int:
        return sum(v.numel() for v in self.params.values()) + self.base.e.numel() + self.config.rank + 1


class WarmedPredictor(BatchPredictor):
    """Predict ``level_u + z_u . e_i`` with the ID embeddings ``warm`` (P, k) where an episode's item has shots."""

    def __init__(self, base: BaseModel, users: Tensor, warm: Tensor, shots: ItemShots, supports: SupportBatch) -> None:
        self.e, self.warm, self.shots, self.supports = base.e, warm, shots, supports
        self.level, self.z = base.parts(users)

    def predict(self, episode: Tensor, user: Tensor, item: Tensor) -> Tensor:
        device = self.e.device
        flat = self.supports.flat_user(episode, user).to(device)
        e = self.e[item.to(device)]
        pair, found = self.shots.find(episode.cpu(), item.cpu())
        if len(self.shots):
            e = torch.where(found.to(device).unsqueeze(1), self.warm[pair.to(device)], e)
        return self.level[flat] + (self.z[flat] * e).sum(1)


def dense(generator: torch.Generator, n_in: int, n_out: int) -> Tensor:
    """Return random weights (n_in, n_out), float64, that keep the size of what goes through them."""
    return torch.randn(n_in, n_out, generator=generator, dtype=torch.float64) / max(1.0, np.sqrt(n_in))
