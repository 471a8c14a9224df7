"""Ratings embedded by the content of user and item, and learners whose inner loop adapts a network on top of that."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from fewrec.episodes.meta import MetaTrainSet
from fewrec.learners.base import Context
from fewrec.learners.embedded_items import EmbeddedItems
from fewrec.learners.engine.inner import InnerLoop, mean_squared_error
from fewrec.learners.engine.meta import MetaConfig, MetaLearner, draw
from fewrec.learners.engine.tasks import Tasks


class ContentConfig(MetaConfig):
    """Options that ``melu`` and ``mamo`` share, besides those of the outer loop.

    Model: item embeddings of ``rank``, user attributes embedded in ``user_dim`` (where there are any), decision layers
    with ``hidden`` units each.

    Inner loop: ``inner_steps`` of SGD at ``inner_lr``; the support's loss is its sum of squares over K +
    ``inner_prior`` (0: the mean). ``first_order``: take the inner gradients for constants in the outer loop.

    Start: ``pretrain_sweeps`` of alternating least squares, factors times ``factor_scale``; ``content_ridge`` (in
    items) is that of the factors' regression on the attributes. ``proximal`` (in units of ratings) draws ID embeddings
    and the attributes' map to where they started.
    """

    evaluate_every: int = Field(25, ge=1)
    rank: int = Field(8, ge=1, le=256)
    user_dim: int = Field(4, ge=1)
    hidden: tuple[int, ...] = Field((32, 16), min_length=1)
    inner_steps: int = Field(2, ge=1, le=1000)
    inner_lr: float = Field(0.2, gt=0)
    inner_prior: float = Field(10.0, ge=0)
    first_order: bool = False
    pretrain_sweeps: int = Field(8, ge=1)
    factor_scale: float = Field(4.0, gt=0)
    content_ridge: float = Field(30.0, gt=0)
    proximal: float = Field(1000.0, ge=0)


class Decision(nn.Module):
    """Decision layers with ReLU and a linear output, as in MeLU (Lee et al., KDD 2019): the score of an embedding."""

    def __init__(self, inputs: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        sizes = (inputs, *hidden)
        self.layers = nn.ModuleList(nn.Linear(one, other) for one, other in zip(sizes, hidden, strict=False))
        self.output = nn.Linear(sizes[-1], 1)

    def forward(self, embedded: Tensor) -> Tensor:
        """Return scores (n,) of embeddings (n, inputs)."""
        for layer in self.layers:
            embedded = torch.relu(layer(embedded))
        return self.output(embedded).squeeze(-1)


class AdaptedNetwork(nn.Module):
    """What each task gets a copy of; it sees a rating as ``ContentLearner.inputs`` and ends in decision layers."""

    decision: Decision


class ContentModule(nn.Module):
    """The embeddings, which the outer loop alone learns, and ``adapted``, which the inner loop changes too."""

    def __init__(self, items: EmbeddedItems, n_user_attributes: int, user_dim: int, adapted: AdaptedNetwork) -> None:
        super().__init__()
        self.items, self.adapted = items, adapted
        self.user = nn.Linear(n_user_attributes, user_dim, bias=False) if n_user_attributes else None


class ContentLearner(MetaLearner):
    """Base of ``melu`` and ``mamo``: embeddings and their start, and the inner loop over ``module.adapted``.

    The output starts at zero weights, so that before meta-training the item's effect is the prediction without a
    support.
    """

    Config = ContentConfig
    module: ContentModule

    def initialise(self, source: MetaTrainSet, ctx: Context, generator: torch.Generator) -> None:
        config, items = self.config, self.module.items
        draw(self.module, generator)
        nn.init.zeros_(self.module.adapted.decision.output.weight)
        items.start(source, ctx, generator, config.pretrain_sweeps, config.factor_scale, config.content_ridge)
        self.started_at = [(value, value.detach().clone()) for value in items.parameters()]

    def penalty(self, source: MetaTrainSet) -> Tensor | None:
        moved = [(value - start).square().sum() for value, start in self.started_at]
        return self.config.proximal / len(source.table) * torch.stack(moved).sum()

    def users(self, tasks: Tasks) -> Tensor:
        """Return the users' embedded attributes (T, user_dim), or (T, 0) where there are none."""
        return tasks.user if self.module.user is None else self.module.user(tasks.user)

    def inputs(self, tasks: Tasks, items: Tensor) -> Tensor:
        """Return what the network sees of catalog items (T, n): (T, n, g + 1), content and then ``mu + b_i``."""
        raise NotImplementedError

    def inner_loop(self) -> InnerLoop:
        config, network = self.config, self.module.adapted
        return InnerLoop(
            network,
            adapts=[name for name, _ in network.named_parameters()],
            steps=config.inner_steps,
            loss=mean_squared_error(config.inner_prior),
            first_order=config.first_order,
        )

    def predict_items(self, tasks: Tasks, adapted: dict[str, Tensor], items: Tensor) -> Tensor:
        return self.inner_loop().predict(tasks, adapted, items, self.inputs(tasks, items))

    def trainable_parameters(self) -> int:
        return super().trainable_parameters() + sum(value.numel() for value in self.module.adapted.parameters())
