"""The outer loop: meta-training on episodes by gradient, with early stopping on meta-validation."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from fewrec.data.table import Catalog, Scale
from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.support import Episodes, SupportBatch
from fewrec.learners.base import BatchedLearner, BatchPredictor, Context, LearnerConfig
from fewrec.learners.effects import KnownUsers
from fewrec.learners.engine.inner import Params
from fewrec.learners.engine.tasks import PaddedRatings, Tasks, places
from fewrec.learners.units import RatingUnits
from fewrec.learners.validation import Validation


class MetaConfig(LearnerConfig):
    """Options of the outer loop, which all learners that are meta-trained on episodes have.

    At most ``meta_steps`` of Adam at ``meta_lr``, ``meta_batch`` users each, whose K is drawn from 1..``max_shots``
    (one meta-fit serves every K), ``n_query`` ratings to predict. ``split``: differentiate so many tasks at once and
    add the gradients up (0: the whole meta-batch), for meta-batches that don't fit into memory. Of what was trained the
    best by meta-validation (K = 1, 5, 10) is kept; where the start itself is better, the learning curve shows it (step
    0). It is looked at every ``evaluate_every`` steps, and given up after ``patience`` looks without a better one.

    ``max_known``: of a known user (states `warm` and `item-cold`) so many meta-train ratings join the support.
    """

    meta_lr: float = Field(0.003, gt=0)
    meta_batch: int = Field(250, ge=1)
    meta_steps: int = Field(400, ge=0)
    max_shots: int = Field(10, ge=1)
    n_query: int = Field(10, ge=1)
    split: int = Field(0, ge=0)
    evaluate_every: int = Field(50, ge=1)
    patience: int = Field(3, ge=1)
    max_known: int = Field(50, ge=0)
    dtype: Literal["float32", "float64"] = "float32"


class MetaLearner(BatchedLearner):
    """Base of the learners that are meta-trained on episodes by gradient.

    An author implements ``build`` (an ``nn.Module``), ``adapt_tasks`` (what a task's support makes of it) and
    ``predict_items``; ``initialise``, ``objectives`` and ``penalty`` where the defaults won't do. Names of parameters
    and buffers in ``state_dict`` are what is stored. All that these methods see and return is in units of 1 to 5
    (``RatingUnits``), whatever the data set's scale.
    """

    Config: ClassVar[type[LearnerConfig]] = MetaConfig
    module: nn.Module

    # what an author implements

    @abstractmethod
    def build(self, sizes: Mapping[str, int], catalog: Catalog, scale: Scale) -> nn.Module:
        """Return the module, whatever its values; ``sizes``: "n_items", and "n_user_attributes" (0 for none)."""

    @abstractmethod
    def adapt_tasks(self, tasks: Tasks) -> Params:
        """Return what the support tells of each task: tensors (T, ...) by name."""

    @abstractmethod
    def predict_items(self, tasks: Tasks, adapted: Params, items: Tensor) -> Tensor:
        """Return (T, n) predictions for catalog items (T, n), each row by one task's ``adapted``."""

    def initialise(self, source: MetaTrainSet, ctx: Context, generator: torch.Generator) -> None:
        """Set the module's values before meta-training. Default: nn.Linear and nn.Embedding by ``draw``."""
        draw(self.module, generator)

    def objectives(self, tasks: Tasks) -> Tensor:
        """Return (T,): what the outer loop minimises, summed over each task's query. Default: squared errors."""
        predicted = self.predict_items(tasks, self.adapt_tasks(tasks), tasks.query.item)
        return ((predicted - tasks.query.rating) * tasks.query.mask).square().sum(1)

    def penalty(self, source: MetaTrainSet) -> Tensor | None:
        """Return what is added to the mean objective of a query rating, or None."""
        return None

    def make_optimiser(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.module.parameters(), lr=self.config.meta_lr)

    # the outer loop

    def meta_fit(self, source: MetaTrainSet, ctx: Context) -> None:
        config, generator = self.config, ctx.generator(source.seed)
        self.known = KnownUsers.of(source.table)
        self.sizes = {"n_items": source.table.n_items, "n_user_attributes": source.n_user_attributes}
        self.module = self.build(self.sizes, ctx.catalog, ctx.scale).to(ctx.device, self.dtype)
        scaled = copy.copy(source)
        scaled.table = replace(source.table, rating=RatingUnits.of(source.scale).to_units(source.table.rating))
        self.initialise(scaled, ctx, generator)
        validation = Validation(source, (1, 5, 10), config.n_query)
        best, kept, waited = float("inf"), None, 0
        optimiser = self.make_optimiser()
        steps = range(config.meta_steps)
        if validation and steps:
            ctx.log(0, validation_rmse=validation.rmse(self, ctx))
        for step in ctx.progress(steps, f"{self.name}: meta-steps"):
            within = step % config.evaluate_every
            if within == 0:
                drawn = self.draw_tasks(source, step, min(config.evaluate_every, len(steps) - step), ctx, generator)
            optimiser.zero_grad()
            objective = self.meta_gradient(drawn[within * config.meta_batch : (within + 1) * config.meta_batch])
            penalty = self.penalty(source)
            if penalty is not None:
                penalty.backward()
            optimiser.step()
            if validation and ((step + 1) % config.evaluate_every == 0 or step + 1 == len(steps)):
                score = validation.rmse(self, ctx)
                ctx.log(step + 1, objective=objective, validation_rmse=score)
                if score < best:
                    best, kept, waited = score, self._values(), 0
                else:
                    waited += 1
                if waited >= config.patience:
                    break
        if kept is not None:
            self.module.load_state_dict(kept)
        self.module.requires_grad_(False)

    def meta_gradient(self, tasks: Tasks) -> float:
        """Add the gradient of the mean objective of a query rating to the parameters' ``grad``; return that mean."""
        total, objective = tasks.query.mask.sum(), 0.0
        for part in tasks.split(self.config.split):
            mean = self.objectives(part).sum() / total
            mean.backward()
            objective += float(mean.detach())
        return objective

    def draw_tasks(
        self, source: MetaTrainSet, step: int, n_steps: int, ctx: Context, generator: torch.Generator
    ) -> Tasks:
        """Return the tasks of ``n_steps`` meta-steps from ``step`` on, each with a K of its own."""
        config = self.config
        episodes = self.draw_episodes(source, step, n_steps, k_shot=config.max_shots, n_query=config.n_query)
        tasks = self.tasks_of(episodes, source.scale, ctx)
        k_shot = tasks.row.shape[1]
        kept = torch.randint(1, k_shot + 1, (len(tasks), 1), generator=generator) > torch.arange(k_shot)
        return tasks.with_support_mask(kept.to(ctx.device, self.dtype))

    def tasks_of(self, episodes: Episodes, scale: Scale, ctx: Context) -> Tasks:
        """Return the tasks of episodes, ratings in units."""
        return _in_units(Tasks.of_episodes(episodes, ctx.device, self.dtype), RatingUnits.of(scale))

    def draw_episodes(self, source: MetaTrainSet, step: int, n_steps: int, *, k_shot: int, n_query: int) -> Episodes:
        """Return meta-train episodes for ``n_steps`` meta-steps; K is smaller where no user has so many ratings."""
        while k_shot > 1 and not source.largest_n_users("train", k_shot=k_shot, n_query=n_query):
            k_shot -= 1
        n_users = max(1, min(5, source.largest_n_users("train", k_shot=k_shot, n_query=n_query)))
        count = -(-self.config.meta_batch // n_users)
        return source.train_episodes(
            step * count, n_steps * count, n_users=n_users, k_shot=k_shot, n_query=n_query
        )

    @property
    def dtype(self) -> torch.dtype:
        return getattr(torch, self.config.dtype)

    def _values(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.module.state_dict().items()}

    # the contract

    def adapt_batch(self, supports: SupportBatch, ctx: Context) -> BatchPredictor:
        device = next(self.module.parameters()).device
        known = self.known.joined(supports, self.config.max_known) if self.config.max_known else supports
        units = RatingUnits.of(ctx.scale)
        tasks = _in_units(Tasks.of_supports(known, device, self.dtype), units)
        if not tasks.user.shape[1]:  # episodes from elsewhere may lack the attributes that meta-train has
            tasks = replace(tasks, user=tasks.user.new_zeros(len(tasks), self.sizes["n_user_attributes"]))
        with torch.no_grad():
            return TaskPredictor(self, tasks, self.adapt_tasks(tasks), supports, units)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        known = self.known.tensors() if self.config.max_known else {}
        return {f"module.{name}": value for name, value in self._values().items()} | known, dict(self.sizes)

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any], ctx: Context) -> None:
        self.sizes = {name: int(value) for name, value in values.items()}
        self.module = self.build(self.sizes, ctx.catalog, ctx.scale).to(ctx.device, self.dtype)
        own = {name.removeprefix("module."): value for name, value in tensors.items() if name.startswith("module.")}
        self.module.load_state_dict(own)
        self.module.requires_grad_(False)
        if self.config.max_known:
            self.known = KnownUsers.from_tensors(tensors)

    def trainable_parameters(self) -> int:
        return sum(value.numel() for value in self.module.parameters())


class TaskPredictor(BatchPredictor):
    """Predictions of adapted tasks: the queries are padded to one row a task and predicted together."""

    LARGEST = 1 << 19  # ratings that are predicted at once

    def __init__(
        self, learner: MetaLearner, tasks: Tasks, adapted: Params, supports: SupportBatch, units: RatingUnits
    ) -> None:
        self.learner, self.tasks, self.adapted, self.supports = learner, tasks, adapted, supports
        self.units = units

    @torch.no_grad()
    def predict(self, episode: Tensor, user: Tensor, item: Tensor) -> Tensor:
        device = self.tasks.items.device
        flat = self.supports.flat_user(episode, user).to(device)
        asked, task = torch.unique(flat, return_inverse=True)
        place, length = places(task, len(asked))
        items = torch.zeros(len(asked), max(length, 1), dtype=torch.int64, device=device)
        items[task, place] = item.to(device)
        size = max(1, self.LARGEST // items.shape[1])
        found = [
            self.learner.predict_items(
                self.tasks[asked[start : start + size]],
                {name: value[asked[start : start + size]] for name, value in self.adapted.items()},
                items[start : start + size],
            )
            for start in range(0, len(asked), size)
        ]
        return self.units.from_units(torch.cat(found)[task, place]) if found else torch.zeros(0)


def _in_units(tasks: Tasks, units: RatingUnits) -> Tasks:
    def part(ratings: PaddedRatings) -> PaddedRatings:
        return replace(ratings, rating=units.to_units(ratings.rating) * ratings.mask)

    return replace(tasks, support=part(tasks.support), query=part(tasks.query))


@torch.no_grad()
def draw(module: nn.Module, generator: torch.Generator, scale: float = 1.0) -> None:
    """Set linear layers to Glorot-uniform weights and zero biases, embeddings to normal ones of deviation 0.1.

    Numbers come from the CPU generator alone, so that every device starts from the same; weights are times ``scale``.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            bound = (6 / (part.in_features + part.out_features)) ** 0.5 * scale
            drawn = torch.rand(part.weight.shape, generator=generator, dtype=torch.float64) * 2 - 1
            part.weight.copy_(drawn * bound)
            if part.bias is not None:
                part.bias.zero_()
        elif isinstance(part, nn.Embedding):
            part.weight.copy_(torch.randn(part.weight.shape, generator=generator, dtype=torch.float64) * 0.1 * scale)
