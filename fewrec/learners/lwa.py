"""Class prototypes: the mean embeddings of what a user likes and dislikes are weights or biases of a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from fewrec.data.table import Catalog, Scale
from fewrec.episodes.meta import MetaTrainSet
from fewrec.learners.base import Context
from fewrec.learners.embedded_items import EmbeddedItems
from fewrec.learners.engine.inner import Params
from fewrec.learners.engine.meta import MetaConfig, MetaLearner, draw
from fewrec.learners.engine.tasks import Tasks
from fewrec.learners.precision import refuse_without_float64


class LinearScore(nn.Module):
    """``b + (w_0 R_0 + w_1 R_1) . F(t)`` for prototypes (T, 2, d) and items' embeddings (T, n, d): (T, n)."""

    def __init__(self, items: EmbeddedItems) -> None:
        super().__init__()
        self.items = items
        self.bias = nn.Parameter(torch.zeros(()))
        self.class_weight = nn.Parameter(torch.zeros(2))  # (w_0, w_1)

    def forward(self, prototypes: Tensor, items: Tensor) -> Tensor:
        weights = (self.class_weight.unsqueeze(1) * prototypes).sum(1)
        return self.bias + (items @ weights.unsqueeze(2)).squeeze(2)


class BiasAdaptedScore(nn.Module):
    """``w . relu(W F(t) + V_0 R_0 + V_1 R_1 + c) + v_0 . R_0 + v_1 . R_1 + b`` for prototypes (T, 2, d) and items'
    embeddings (T, n, d): (T, n)."""

    def __init__(self, items: EmbeddedItems, rank: int, hidden: int) -> None:
        super().__init__()
        self.items = items
        self.inner, self.outer = nn.Linear(rank, hidden), nn.Linear(hidden, 1)  # (W, c) and (w, b)
        self.inner_bias = nn.Linear(2 * rank, hidden, bias=False)  # (V_0, V_1)
        self.outer_bias = nn.Linear(2 * rank, 1, bias=False)  # (v_0, v_1)

    def forward(self, prototypes: Tensor, items: Tensor) -> Tensor:
        both = prototypes.flatten(1)
        hidden = torch.relu(self.inner(items) + self.inner_bias(both).unsqueeze(1))
        return self.outer(hidden).squeeze(2) + self.outer_bias(both)


class PrototypeConfig(MetaConfig):
    """Options of ``lwa`` and ``nlba``, besides those of the outer loop.

    Classes: a rating belongs to "liked" by the share sigmoid(residual / ``temperature``), the residual being what is
    left of it after mu, item and user effect, and to "disliked" by the rest. A small temperature (rating scale) makes
    hard classes, a large one is linear in the residual. ``prior``: a class counts so many further items of which
    nothing is known. ``user_ridge`` shrinks the user's effect.

    Start: ``pretrain_sweeps`` of alternating least squares, factors of dimension ``rank`` times ``factor_scale``;
    ``content_ridge`` (in items) is that of the factors' regression on the attributes.

    ``proximal`` (in units of ratings) draws ID embeddings and the attributes' map to where they started.

    ``dtype`` is float64 because meta-training is chaotic: in float32, scores of ``nlba`` on two processors differed by
    up to .0034 of RMSE. A device without float64 (mps) needs float32.

    Defaults were chosen on meta-validation of MovieLens-100K, user-cold, seeds 0 to 2.
    """

    rank: int = Field(8, ge=1, le=256)
    temperature: float = Field(1.0, gt=0)
    prior: float = Field(3.0, ge=0)
    user_ridge: float = Field(6.0, gt=0)
    pretrain_sweeps: int = Field(8, ge=1)
    factor_scale: float = Field(4.0, gt=0)
    content_ridge: float = Field(30.0, gt=0)
    proximal: float = Field(200.0, ge=0)
    max_known: int = Field(200, ge=0)
    dtype: Literal["float32", "float64"] = "float64"


class PrototypeLearner(MetaLearner):
    """What ``lwa`` and ``nlba`` share: embeddings, classes, prototypes, and the deviations from the paper.

    The method is of Vartak, Thiagarajan, Miranda, Bratman & Larochelle, A Meta-Learning Perspective on Cold-Start
    Recommendations for Items, NeurIPS 2017: a user is two class prototypes, R_0 and R_1, the mean embeddings F(t) of
    the items t that the user disliked and liked; from them come those parameters of a classifier of items that depend
    on the user, all others being shared. Nothing is optimised for a new user.

    Deviations of both from the paper:

    1. The paper's classifiers end in a sigmoid and are trained by cross entropy on engagement. Here the score is added
       to the bias model, ``mu + b_i + b_u + score`` with ``b_u = sum(r - mu - b_i) / (n + user_ridge)``, and
       trained by squared errors, since ratings are to be predicted.
    2. Engagement is a label, a rating is not: rating j is in class 1 by ``a_j = sigmoid((r - mu - b_i - b_u) /
       temperature)`` and in class 0 by ``1 - a_j``, so ``R_1 = sum a_j F(t_j) / (sum a_j + prior)``. Soft classes tell
       a strong liking from a weak one. With a temperature near 0 and no ``prior`` these are the paper's means, and a
       class without a rating has R_c = 0 in any case.
    3. F is not a deep network on features of the item but an ID embedding plus a linear map of the attributes (the
       map alone for an item without a rating in meta-train). It starts as a factorization of meta-train: some hundred
       users don't suffice to learn items from random numbers.
    4. F is drawn to that start, and the best of meta-validation is kept.
    """

    Config = PrototypeConfig
    module: LinearScore | BiasAdaptedScore

    def prepare(self, ctx: Context) -> None:
        refuse_without_float64(self.name, self.config.dtype, ctx)

    def initialise(self, source: MetaTrainSet, ctx: Context, generator: torch.Generator) -> None:
        config, items = self.config, self.module.items
        draw(self.module, generator)
        items.start(source, ctx, generator, config.pretrain_sweeps, config.factor_scale, config.content_ridge)
        self.started_at = [(value, value.detach().clone()) for value in items.parameters()]

    def penalty(self, source: MetaTrainSet) -> Tensor | None:
        moved = [(value - start).square().sum() for value, start in self.started_at]
        return self.config.proximal / len(source.table) * torch.stack(moved).sum()

    def adapt_tasks(self, tasks: Tasks) -> Params:
        """Return the users' effects (T,) and prototypes (T, 2, d), class 0 first."""
        config, items, support = self.config, self.module.items, tasks.support
        effect, residual = items.residuals(support, config.user_ridge)
        liked = torch.sigmoid(residual / config.temperature)
        share = torch.stack([1 - liked, liked], 1) * support.mask.unsqueeze(1)
        count = (share.sum(2, keepdim=True) + config.prior).clamp(min=1e-6)
        return {"effect": effect, "prototypes": share @ items(support.item) / count}

    def predict_items(self, tasks: Tasks, adapted: Params, items: Tensor) -> Tensor:
        embedded = self.module.items
        score = self.module(adapted["prototypes"], embedded(items))
        return embedded.base[items] + adapted["effect"].unsqueeze(1) + score


class LWA(PrototypeLearner):
    """LWA, linear classifier with task-dependent weights (Vartak et al., NeurIPS 2017): prototypes are its weights.

    The score of item t is ``b + (w_0 R_0 + w_1 R_1) . F(t)``; the scalars b, w_0 and w_1 are shared by all users and
    learnt together with F, from b = 0 and w_1 = -w_0 = 1 on. Deviations: see ``PrototypeLearner``.
    """

    name = "lwa"
    paper = "Vartak et al., NeurIPS 2017"
    module: LinearScore

    def build(self, sizes: Mapping[str, int], catalog: Catalog, scale: Scale) -> nn.Module:
        return LinearScore(EmbeddedItems(sizes["n_items"], self.config.rank, catalog))

    @torch.no_grad()
    def initialise(self, source: MetaTrainSet, ctx: Context, generator: torch.Generator) -> None:
        super().initialise(source, ctx, generator)
        self.module.class_weight.copy_(torch.tensor([-1.0, 1.0]))


class NLBAConfig(PrototypeConfig):
    """Options of ``nlba``: those of ``lwa``, and ``hidden``, the number of hidden units."""

    hidden: int = Field(64, ge=1, le=4096)
    proximal: float = Field(500.0, ge=0)


class NLBA(PrototypeLearner):
    """NLBA, non-linear classifier with task-dependent bias (Vartak et al., NeurIPS 2017): prototypes are its biases.

    A network with one hidden layer scores item t:
    ``w . relu(W F(t) + V_0 R_0 + V_1 R_1 + c) + v_0 . R_0 + v_1 . R_1 + b``. Its weights are shared by all users; the
    biases of the hidden units and of the output are linear in the user's prototypes. Deviations, besides those in
    ``PrototypeLearner``: w, v_0 and v_1 start at zero, so that the start is the bias model.
    """

    name = "nlba"
    paper = "Vartak et al., NeurIPS 2017"
    Config = NLBAConfig
    module: BiasAdaptedScore

    def build(self, sizes: Mapping[str, int], catalog: Catalog, scale: Scale) -> nn.Module:
        items = EmbeddedItems(sizes["n_items"], self.config.rank, catalog)
        return BiasAdaptedScore(items, self.config.rank, self.config.hidden)

    def initialise(self, source: MetaTrainSet, ctx: Context, generator: torch.Generator) -> None:
        super().initialise(source, ctx, generator)
        for layer in (self.module.outer, self.module.outer_bias):
            nn.init.zeros_(layer.weight)
