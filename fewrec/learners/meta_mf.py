"""Gradient-based meta-learning over matrix factorization: MAML and four of its relatives on one model and one start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from fewrec.data.table import Catalog, Scale
from fewrec.episodes.meta import MetaTrainSet
from fewrec.learners.base import Context
from fewrec.learners.effects import precise_device, ridge_effects, with_unseen
from fewrec.learners.engine.inner import InnerLoop, Params, TaskView, mean_squared_error
from fewrec.learners.engine.meta import MetaConfig, MetaLearner
from fewrec.learners.engine.tasks import Tasks
from fewrec.learners.mf_foldin import AlternatingLeastSquares, MFFoldInConfig

USER, ITEM = ("user_bias", "user_vector"), ("item_bias", "item_factor")


class MetaMFConfig(MetaConfig):
    """Options that the learners of this family share, besides those of the outer loop.

    Inner loop: ``inner_steps`` of SGD at ``inner_lr``; the support's loss is its sum of squares over
    K + ``inner_prior``, so that a short support moves a user less (0: the mean, as in the papers).

    Start: ``pretrain_sweeps`` of alternating least squares over meta-train, item factors of dimension ``rank`` times
    ``factor_scale``; with no sweeps, ridge effects and random item factors of standard deviation ``factor_scale``.

    ``proximal`` (in units of ratings) draws item rows to where they started.
    """

    meta_lr: float = Field(0.001, gt=0)
    rank: int = Field(8, ge=1, le=256)
    inner_steps: int = Field(5, ge=1, le=1000)
    inner_lr: float = Field(0.18, gt=0)
    inner_prior: float = Field(11.0, ge=0)
    pretrain_sweeps: int = Field(8, ge=0)
    factor_scale: float = Field(4.0, gt=0)
    proximal: float = Field(50.0, ge=0)


class MF(nn.Module):
    """Predict ``b_u + b_i + p_u . q_i`` for one user; ``user_bias`` holds the global mean too.

    ``rate``: learned inner rates by parameter, where there are any (Meta-SGD).
    """

    rate: nn.ParameterDict

    def __init__(self, n_items: int, rank: int) -> None:
        super().__init__()
        self.user_bias = nn.Parameter(torch.zeros(()))
        self.user_vector = nn.Parameter(torch.zeros(rank))
        self.item_bias = nn.Parameter(torch.zeros(n_items))
        self.item_factor = nn.Parameter(torch.zeros(n_items, rank))

    def forward(self, view: TaskView) -> Tensor:
        # Not a product with @: under vmap that is a batch of tiny matrix products, which take twice as long.
        product = (view.pick(self.item_factor) * self.user_vector).sum(-1)
        return self.user_bias + view.pick(self.item_bias) + product


class MetaMF(MetaLearner):
    """What the family shares: the model, its start, and adapting it on local tables.

    Deviations of all from their papers: the support's loss may count ``inner_prior`` further ratings that fit already;
    the start is a factorization of meta-train instead of random numbers (from which MAML stays behind the bias model
    on a few hundred users); item rows are drawn to that start, and the best of meta-validation is kept. An item without
    a rating in meta-train has the rating-weighted mean effect and a zero factor.
    """

    Config = MetaMFConfig
    module: MF
    adapts: ClassVar[tuple[str, ...]] = USER + ITEM
    first_order: ClassVar[bool] = False

    def build(self, sizes: Mapping[str, int], catalog: Catalog, scale: Scale) -> nn.Module:
        return MF(sizes["n_items"], self.config.rank)

    @torch.no_grad()
    def initialise(self, source: MetaTrainSet, ctx: Context, generator: torch.Generator) -> None:
        config, mu = self.config, float(source.table.rating.mean())
        settings = MFFoldInConfig(rank=config.rank)
        if config.pretrain_sweeps:
            als = AlternatingLeastSquares(source.table, settings, generator, precise_device(ctx))
            for _ in range(config.pretrain_sweeps):
                als.sweep()
            base, factor = als.normalised()
        else:
            effects = ridge_effects(source.table, settings.item_ridge, settings.meta_user_ridge)
            base = effects.mu + torch.from_numpy(with_unseen(effects.item, source.table))
            factor = torch.randn(len(base), config.rank, generator=generator, dtype=torch.float64)
            factor[np.bincount(source.table.item, minlength=len(base)) == 0] = 0.0
        self.module.user_bias.fill_(mu)
        self.module.item_bias.copy_(base - mu)
        self.module.item_factor.copy_(factor * config.factor_scale)
        self.started_at = {name: getattr(self.module, name).detach().clone() for name in ITEM}

    def inner_loop(self, steps: int | None = None) -> InnerLoop:
        config = self.config
        return InnerLoop(
            self.module,
            adapts=self.adapts,
            tables=ITEM,
            steps=config.inner_steps if steps is None else steps,
            loss=mean_squared_error(config.inner_prior),
            first_order=self.first_order,
        )

    def rates(self) -> float | Mapping[str, Tensor | float]:
        return self.config.inner_lr

    def adapt_tasks(self, tasks: Tasks) -> Params:
        return self.inner_loop().adapt(tasks, self.rates())

    def predict_items(self, tasks: Tasks, adapted: Params, items: Tensor) -> Tensor:
        return self.inner_loop().predict(tasks, adapted, items)

    def penalty(self, source: MetaTrainSet) -> Tensor | None:
        moved = [(getattr(self.module, name) - start).square().sum() for name, start in self.started_at.items()]
        return self.config.proximal / len(source.table) * torch.stack(moved).sum()

    def trainable_parameters(self) -> int:
        return sum(value.numel() for value in self.module.parameters()) + self.config.rank + 1


class MAMLMF(MetaMF):
    """MAML (Finn, Abbeel & Levine, ICML 2017, algorithm 1) with one user as a task.

    All parameters are meta-learnt and all adapt: the user's bias and vector, which start at what suits the mean user,
    and the rows of the items that the user has rated. The meta-gradient is taken through the inner steps, second
    derivatives included. Deviations: see ``MetaMF``.
    """

    name = "maml-mf"
    paper = "Finn, Abbeel & Levine, ICML 2017"


class FOMAMLMFConfig(MetaMFConfig):
    """Options of ``fomaml-mf``: those of the family."""

    meta_lr: float = Field(0.0003, gt=0)


class FOMAMLMF(MetaMF):
    """First-order MAML (Finn et al., ICML 2017, section 5.2): ``maml-mf`` with the inner gradients as constants.

    The meta-gradient is that of the query's loss at the adapted parameters. Deviations: see ``MetaMF``.
    """

    name = "fomaml-mf"
    paper = "Finn, Abbeel & Levine, ICML 2017"
    Config = FOMAMLMFConfig
    first_order = True


class ANILMF(MetaMF):
    """ANIL (Raghu, Raghu, Bengio & Vinyals, ICLR 2020, section 4): only the head adapts in the inner loop.

    Here the head, the linear layer on top of what is known of the items, is the user's bias and vector; item rows are
    learnt by the outer loop alone, through second derivatives. (Context parameters in the sense of CAVIA, Zintgraf et
    al., ICML 2019, would be the same numbers here, started at zero.) Deviations: see ``MetaMF``.
    """

    name = "anil-mf"
    paper = "Raghu et al., ICLR 2020"
    adapts = USER


class MetaSGDMFConfig(MetaMFConfig):
    """Options of ``meta-sgd-mf``: those of the family; all rates start at ``inner_lr``."""

    proximal: float = Field(300.0, ge=0)


class MetaSGDMF(MetaMF):
    """Meta-SGD (Li, Zhou, Chen & Li, arXiv 1707.09835, equation 2): ``maml-mf`` with learned inner rates.

    Every parameter has a rate of its own, each item's row too, learnt together with the initialisation. Deviations
    besides those of ``MetaMF``: several inner steps instead of one.
    """

    name = "meta-sgd-mf"
    paper = "Li et al., arXiv 1707.09835, 2017"
    Config = MetaSGDMFConfig

    def build(self, sizes: Mapping[str, int], catalog: Catalog, scale: Scale) -> nn.Module:
        module = MF(sizes["n_items"], self.config.rank)
        module.rate = nn.ParameterDict({name: torch.zeros_like(value) for name, value in module.named_parameters()})
        return module

    @torch.no_grad()
    def initialise(self, source: MetaTrainSet, ctx: Context, generator: torch.Generator) -> None:
        super().initialise(source, ctx, generator)
        for rate in self.module.rate.values():
            rate.fill_(self.config.inner_lr)

    def rates(self) -> Mapping[str, Tensor | float]:
        return {name: self.module.rate[name] for name in self.adapts}


class ReptileMFConfig(MetaMFConfig):
    """Options of ``reptile-mf``: those of the family; in meta-training a task takes ``train_steps`` inner steps, each
    on ``minibatch`` of its ratings, while adapting takes ``inner_steps`` on the whole support."""

    meta_lr: float = Field(0.0003, gt=0)
    train_steps: int = Field(5, ge=1)
    minibatch: int = Field(10, ge=1)


class ReptileMF(MetaMF):
    """Reptile (Nichol, Achiam & Schulman, arXiv 1803.02999, algorithm 2): move towards where the tasks go.

    A task trains on all ratings that were drawn of it, support and query, in minibatches. The mean over tasks of
    (initialisation - adapted) takes the place of the gradient and goes into Adam, as the paper suggests below its
    algorithm 1. An item's row moves by the tasks that rated the item. Deviations: see ``MetaMF``.
    """

    name = "reptile-mf"
    paper = "Nichol, Achiam & Schulman, arXiv 1803.02999, 2018"
    Config = ReptileMFConfig
    first_order = True

    def initialise(self, source: MetaTrainSet, ctx: Context, generator: torch.Generator) -> None:
        super().initialise(source, ctx, generator)
        self.generator = generator

    def draw_tasks(
        self, source: MetaTrainSet, step: int, n_steps: int, ctx: Context, generator: torch.Generator
    ) -> Tasks:
        n_ratings = self.config.max_shots + self.config.n_query
        episodes = self.draw_episodes(source, step, n_steps, k_shot=n_ratings - 1, n_query=1)
        return self.tasks_of(episodes, source.scale, ctx)

    @torch.no_grad()
    def meta_gradient(self, tasks: Tasks) -> float:
        for parameter in self.module.parameters():
            parameter.grad = torch.zeros_like(parameter)
        shape = (self.config.train_steps, *tasks.support.mask.shape)
        order = torch.rand(shape, generator=self.generator).to(tasks.items.device).argsort(2).argsort(2)
        minibatches, loss, start = order < self.config.minibatch, 0.0, 0
        for part in tasks.split(self.config.split):
            masks = minibatches[:, start : start + len(part)].to(self.dtype)
            adapted = self.run(part, masks)
            self.add_displacement(part, adapted, len(tasks))
            error = (self.predict_items(part, adapted, part.query.item) - part.query.rating) * part.query.mask
            loss += float(error.square().sum() / tasks.query.mask.sum())
            start += len(part)
        return loss

    def run(self, tasks: Tasks, masks: Tensor) -> Params:
        """Return what the tasks adapt to by one inner step on each of the minibatches ``masks`` (steps, T, n)."""
        loop, adapted = self.inner_loop(steps=1), None
        for mask in masks:
            adapted = loop.adapt(tasks.with_support_mask(mask), self.rates(), go_on=adapted)
        assert adapted is not None
        return adapted

    def add_displacement(self, tasks: Tasks, adapted: Params, n_tasks: int) -> None:
        """Add the tasks' share of the mean of (initialisation - adapted) over ``n_tasks`` to the gradients."""
        start, _ = self.inner_loop().start(tasks)
        filled = torch.arange(tasks.items.shape[1], device=tasks.items.device) < tasks.n_items.unsqueeze(1)
        for name, value in adapted.items():
            moved, gradient = (start[name] - value) / n_tasks, getattr(self.module, name).grad
            if name in ITEM:
                gradient.index_add_(0, tasks.items[filled], moved[filled])
            else:
                gradient += moved.sum(0)
