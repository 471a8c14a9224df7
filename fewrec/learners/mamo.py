"""MAMO: MeLU's kind of network with memories, which give each user a start of the inner loop of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from fewrec.data.table import Catalog, Scale
from fewrec.episodes.meta import MetaTrainSet
from fewrec.learners.base import Context
from fewrec.learners.content_embedding import AdaptedNetwork, ContentConfig, ContentLearner, ContentModule, Decision
from fewrec.learners.embedded_items import EmbeddedItems
from fewrec.learners.engine.inner import Params, TaskView
from fewrec.learners.engine.tasks import Tasks
from fewrec.learners.precision import refuse_without_float64

USER = ("user.weight", "user.bias")


class MAMOConfig(ContentConfig):
    """Options of ``mamo``, besides those of ``ContentConfig``.

    Model: user and item are each embedded in ``dim`` numbers by a layer on top of their content.

    Memories: ``memory`` slots, attended to by softmax of ``sharpness`` times the cosine; the start of the user layer is
    phi_u - ``tau`` b_u. ``write_profile``, ``write_user`` and ``write_preference`` are the rates of writing to M_P, M_U
    and M_{U,I} (the paper's alpha, beta and gamma). ``profile_prior``: a profile counts so many further ratings that
    tell nothing; ``user_ridge`` shrinks the user's effect, of which the ratings in the profile are cleared.

    ``dtype`` is float64 because meta-training is chaotic: in float32, scores of two processors differed by up to .013
    of RMSE. A device without float64 (mps) needs float32.

    Defaults were chosen on meta-validation of MovieLens-100K, user-cold, seeds 0 to 2.
    """

    inner_steps: int = Field(1, ge=1, le=1000)
    inner_lr: float = Field(0.4, gt=0)
    dim: int = Field(32, ge=1)
    memory: int = Field(4, ge=1)
    sharpness: float = Field(10.0, gt=0)
    tau: float = Field(3.0, ge=0)
    write_profile: float = Field(0.3, ge=0, le=1)
    write_user: float = Field(0.3, ge=0, le=1)
    write_preference: float = Field(0.3, ge=0, le=1)
    profile_prior: float = Field(5.0, ge=0)
    dtype: Literal["float32", "float64"] = "float64"
    user_ridge: float = Field(6.0, gt=0)


class Recommender(AdaptedNetwork):
    """``mu + b_i + decision(M_{u,I} [e_u; e_i])``, for user and item layers e = relu(W p + c) on their content p."""

    def __init__(self, profile: int, item: int, dim: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.profile = profile
        self.user, self.item = nn.Linear(profile, dim), nn.Linear(item, dim)
        self.preference = nn.Parameter(torch.zeros(dim, 2 * dim))
        self.decision = Decision(dim, hidden)

    def forward(self, view: TaskView) -> Tensor:
        # The profile is the same for all ratings of a user, so that its layer is computed once.
        profile, item = view.inputs[:1, : self.profile], view.inputs[:, self.profile : -1]
        user, item = torch.relu(self.user(profile)), torch.relu(self.item(item))
        of_user, of_item = self.preference.split(self.item.out_features, 1)
        mixed = (user @ of_user.mT).expand(len(item), -1) + item @ of_item.mT
        return view.inputs[:, -1] + self.decision(mixed)


class Memories(nn.Module):
    """M_P (slots, profile), M_U (slots, ...) of each parameter of the user layer, and M_{U,I} (slots, dim, 2 dim)."""

    profile: Tensor
    weight: Tensor
    bias: Tensor
    preference: Tensor

    def __init__(self, slots: int, network: Recommender) -> None:
        super().__init__()
        self.register_buffer("profile", torch.zeros(slots, network.profile))
        likes = {"weight": network.user.weight, "bias": network.user.bias, "preference": network.preference}
        for name, like in likes.items():
            self.register_buffer(name, torch.zeros(slots, *like.shape))

    def attend(self, profile: Tensor, sharpness: float) -> Tensor:
        """Return the attention a_u (T, slots) of profiles (T, p): the same for all slots where a profile is zero."""
        keys, wanted = (x / (x.square().sum(1, keepdim=True) + 1e-6).sqrt() for x in (self.profile, profile))
        return torch.softmax(sharpness * (wanted @ keys.mT), 1)

    def read(self, name: str, attention: Tensor) -> Tensor:
        """Return what the slots of a memory add up to under attention (T, slots): (T, ...)."""
        return torch.tensordot(attention, getattr(self, name), 1)

    @torch.no_grad()
    def write(self, sums: Mapping[str, Tensor], attended: Tensor, rates: Mapping[str, float]) -> None:
        """Move slot k of each memory by rate x (mean of a_uk x_u - mean of a_uk x slot) over the tasks.

        ``sums`` (slots, ...) by name: the means of a_uk x_u; ``attended`` (slots,): the means of a_uk.
        """
        for name, rate in rates.items():
            memory = getattr(self, name)
            share = attended.reshape(-1, *(1,) * (memory.dim() - 1))
            memory += rate * (sums[name] - share * memory)


class MAMOModule(ContentModule):
    """The embeddings, the network that adapts, and the memories."""

    adapted: Recommender

    def __init__(self, items: EmbeddedItems, n_user_attributes: int, config: MAMOConfig) -> None:
        network = Recommender(
            config.rank + (config.user_dim if n_user_attributes else 0), config.rank, config.dim, config.hidden
        )
        super().__init__(items, n_user_attributes, config.user_dim, network)
        self.memories = Memories(config.memory, network)


class MAMO(ContentLearner):
    """MAMO (Dong, Yuan, Yao, Xu & Zhu, MAMO: Memory-Augmented Meta-Optimization for Cold-Start Recommendation, KDD
    2020).

    A user's profile p_u attends to the profile memory M_P by cosine and softmax: a_u. The feature-specific memory M_U
    gives a bias term, b_u = a_u M_U, and the user layer starts the inner loop at theta_u = phi_u - tau b_u; the
    task-specific memory cube M_{U,I} gives M_{u,I} = a_u M_{U,I}, a matrix that mixes the embeddings of user and item
    before the decision layers. The inner loop takes gradient steps on the support for all of it: user layer, item
    layer, M_{u,I} and decision layers. Afterwards a_u writes p_u to M_P, the gradients of the user layer to M_U, and
    the adapted M_{u,I} to M_{U,I}; the global update is by the query's loss (the paper's section 3). In testing the
    memories are only read.

    Deviations from the paper:

    1. A memory X is written as ``X_k += rate a_uk (x_u - X_k)``, where the paper has ``X = rate a_u x_u + (1 - rate)
       X``: that draws a slot to its attention's share of what users say (about one over the number of slots), and
       M_{U,I}, to which is written what was read from it, to zero.
    2. Writing is the mean over the users of a meta-batch, after it, instead of user after user: all tasks of the
       meta-batch are computed at once and have read the same memories. No gradient goes through the memories' values,
       but it does go through the attention.
    3. What is written to M_U is the sum of the gradients of all inner steps.
    4. M_{u,I} is ``preference + a_u M_{U,I}``, with ``preference`` learnt by the global update: the cube holds how
       users differ from that, and starts at zero, as M_U does. The attention is sharpened before the softmax, as
       cosines alone can't tell slots apart by more than a factor e^2.
    5. A profile is made from the support: the mean over rated items of (rating left over after mu, item and user
       effect) x item embedding, and the embedded user attributes behind it where the data set has them. A user without
       a support and attributes has a zero profile and attends to all slots alike.
    6. The network predicts what is left of a rating after ``mu + b_i``, item embeddings start as a factorization of
       meta-train, and the support's loss is over K + ``inner_prior`` ratings: as in ``MeLU``, for the same reasons.
       The best of meta-validation is kept, memories included.

    On MovieLens-100K the memories hardly matter: after meta-training (user-cold, seed 0) no entry of M_U or M_{U,I} is
    above 0.005, and without them (``tau`` and ``write_preference`` 0) the RMSE on meta-validation, mean over three
    seeds and K = 1, 5, 10, is higher by .001 with the defaults and the same within .0001 in two other configurations.
    """

    name = "mamo"
    paper = "Dong et al., KDD 2020"
    Config = MAMOConfig
    module: MAMOModule

    def prepare(self, ctx: Context) -> None:
        refuse_without_float64(self.name, self.config.dtype, ctx)

    def build(self, sizes: Mapping[str, int], catalog: Catalog, scale: Scale) -> nn.Module:
        items = EmbeddedItems(sizes["n_items"], self.config.rank, catalog)
        return MAMOModule(items, sizes["n_user_attributes"], self.config)

    @torch.no_grad()
    def initialise(self, source: MetaTrainSet, ctx: Context, generator: torch.Generator) -> None:
        super().initialise(source, ctx, generator)
        network, memories = self.module.adapted, self.module.memories
        bound = (6 / sum(network.preference.shape)) ** 0.5
        drawn = torch.rand(network.preference.shape, generator=generator, dtype=torch.float64) * 2 - 1
        network.preference.copy_(drawn * bound)
        memories.profile.copy_(torch.randn(memories.profile.shape, generator=generator, dtype=torch.float64))

    def profiles(self, tasks: Tasks) -> Tensor:
        """Return p_u (T, rank + user_dim): what the support tells of the user, then the embedded attributes."""
        config, items, support = self.config, self.module.items, tasks.support
        residual = items.residuals(support, config.user_ridge)[1]
        count = (support.mask.sum(1, keepdim=True) + config.profile_prior).clamp(min=1e-6)
        told = (residual.unsqueeze(2) * items(support.item)).sum(1) / count
        return torch.cat([told, self.users(tasks)], 1)

    def inputs(self, tasks: Tasks, items: Tensor, profile: Tensor | None = None) -> Tensor:
        embedded = self.module.items
        profile = self.profiles(tasks) if profile is None else profile
        each = profile.unsqueeze(1).expand(-1, items.shape[1], -1)
        return torch.cat([each, embedded(items), embedded.base[items].unsqueeze(2)], 2)

    def adapt_tasks(self, tasks: Tasks) -> Params:
        """Return the adapted network by name, and the profile and attention that its start was made from."""
        profile = self.profiles(tasks)
        attention = self.module.memories.attend(profile, self.config.sharpness)
        loop, start = self.inner_loop(), self.start(tasks, attention)
        found = loop.adapt(tasks, self.config.inner_lr, self.inputs(tasks, tasks.support.item, profile), go_on=start)
        return found | {"profile": profile, "attention": attention}

    def start(self, tasks: Tasks, attention: Tensor) -> Params:
        """Return where tasks start: theta_u = phi_u - tau b_u, M_{u,I} by attention, the rest shared."""
        start, memories = self.inner_loop().start(tasks)[0], self.module.memories
        for name in USER:
            start[name] = start[name] - self.config.tau * memories.read(name.removeprefix("user."), attention)
        start["preference"] = start["preference"] + memories.read("preference", attention)
        return start

    def predict_items(self, tasks: Tasks, adapted: Params, items: Tensor) -> Tensor:
        network = {name: value for name, value in adapted.items() if name not in ("profile", "attention")}
        return self.inner_loop().predict(tasks, network, items, self.inputs(tasks, items, adapted["profile"]))

    def meta_gradient(self, tasks: Tasks) -> float:
        """As for every meta-learner; then write to the memories, once for the whole meta-batch."""
        total, objective = tasks.query.mask.sum(), 0.0
        sums: dict[str, Tensor] = {}
        for part in tasks.split(self.config.split):
            adapted = self.adapt_tasks(part)
            error = (self.predict_items(part, adapted, part.query.item) - part.query.rating) * part.query.mask
            mean = error.square().sum() / total
            mean.backward()
            objective += float(mean.detach())
            for name, value in self.told(part, adapted).items():
                sums[name] = sums.get(name, 0.0) + value / len(tasks)
        config = self.config
        rates = {"profile": config.write_profile, "weight": config.write_user, "bias": config.write_user}
        rates |= {"preference": config.write_preference}
        self.module.memories.write(sums, sums.pop("attention"), rates)
        return objective

    @torch.no_grad()
    def told(self, tasks: Tasks, adapted: Params) -> dict[str, Tensor]:
        """Return, by memory, the sum over tasks of a_u (outer) what is written; "attention": that of a_u alone."""
        # Sums of starts come from sums of attentions: a start a task would cost as much as a step.
        network, memories, attention = self.module.adapted, self.module.memories, adapted["attention"]
        attended, both = attention.sum(0), attention.mT @ attention
        sums = {"profile": attention.mT @ adapted["profile"]}
        found = torch.tensordot(attention.mT, adapted["preference"], 1)
        sums["preference"] = found - torch.tensordot(attended, network.preference.unsqueeze(0), 0).squeeze(1)
        for name, shared in (("weight", network.user.weight), ("bias", network.user.bias)):
            started = torch.tensordot(attended, shared.unsqueeze(0), 0).squeeze(1)
            started = started - self.config.tau * torch.tensordot(both, getattr(memories, name), 1)
            moved = started - torch.tensordot(attention.mT, adapted[f"user.{name}"], 1)
            sums[name] = moved / self.config.inner_lr
        return sums | {"attention": attended}
