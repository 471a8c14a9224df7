"""TaNP: a neural process over users' tastes, whose decoder is modulated by an embedding of the task."""

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
from fewrec.learners.engine.tasks import PaddedRatings, Tasks
from fewrec.learners.precision import refuse_without_float64


class TaNPConfig(MetaConfig):
    """Options of ``tanp``, besides those of the outer loop.

    Sizes: item embeddings ``rank``, embeddings of the user's attributes ``user_dim``, hidden layers ``hidden``, the
    latent z ``latent``, the task embedding ``task_dim``, the memory ``clusters``; the decoder has ``layers`` modulated
    layers, by FiLM or by gating FiLM (``decoder``).

    ``alpha``: degree of freedom of the soft assignment. ``kl_weight`` and ``cluster_weight`` (lambda) weigh a task's KL
    divergence and clustering loss beside its mean squared error. ``aggregate_prior``: means over a support count so
    many further pairs that say nothing. ``user_ridge`` shrinks the user's effect.

    Start: ``pretrain_sweeps`` of alternating least squares, factors times ``factor_scale``; ``content_ridge`` (in
    items) is that of the factors' regression on the attributes. ``proximal`` (in units of ratings) draws ID embeddings
    and the attributes' map to where they started.

    ``dtype`` is float64 because meta-training is chaotic: in float32, scores of two processors differed by up to .0030
    of RMSE. A device without float64 (mps) needs float32.

    Defaults were chosen on meta-validation of MovieLens-100K, user-cold, seeds 0 to 2.
    """

    rank: int = Field(8, ge=1, le=256)
    dtype: Literal["float32", "float64"] = "float64"
    user_dim: int = Field(4, ge=1)
    hidden: int = Field(64, ge=1, le=4096)
    latent: int = Field(32, ge=1)
    task_dim: int = Field(32, ge=1)
    layers: int = Field(1, ge=1)
    clusters: int = Field(10, ge=1)
    alpha: float = Field(1.0, gt=0)
    decoder: Literal["film", "gating-film"] = "gating-film"
    kl_weight: float = Field(1.0, ge=0)
    cluster_weight: float = Field(0.1, ge=0)
    aggregate_prior: float = Field(3.0, ge=0)
    user_ridge: float = Field(6.0, gt=0)
    pretrain_sweeps: int = Field(8, ge=1)
    factor_scale: float = Field(6.0, gt=0)
    content_ridge: float = Field(30.0, gt=0)
    proximal: float = Field(50.0, ge=0)
    max_known: int = Field(200, ge=0)


class ModulatedLayer(nn.Module):
    """``relu(gamma * (W g + b) + beta)`` with gamma and beta made from the task embedding o (T, c).

    FiLM: ``gamma = tanh(W_gamma o)`` and ``beta = tanh(W_beta o)``. Gating FiLM: with ``eta = tanh(W_eta o)`` and
    ``delta = sigmoid(W_delta o)`` they become ``gamma * delta + eta * (1 - delta)``, beta likewise.
    """

    def __init__(self, inputs: int, outputs: int, task_dim: int, gating: bool) -> None:
        super().__init__()
        self.linear, self.gating = nn.Linear(inputs, outputs), gating
        self.gamma, self.beta = (nn.Linear(task_dim, outputs, bias=False) for _ in range(2))
        if gating:
            self.eta, self.delta = (nn.Linear(task_dim, outputs, bias=False) for _ in range(2))

    def forward(self, g: Tensor, task: Tensor) -> Tensor:
        gamma, beta = torch.tanh(self.gamma(task)), torch.tanh(self.beta(task))
        if self.gating:
            eta, delta = torch.tanh(self.eta(task)), torch.sigmoid(self.delta(task))
            gamma, beta = gamma * delta + eta * (1 - delta), beta * delta + eta * (1 - delta)
        return torch.relu(gamma.unsqueeze(1) * self.linear(g) + beta.unsqueeze(1))


class TaNPNet(nn.Module):
    """Encoder, task identity network with its memory, and decoder, for T tasks at once."""

    def __init__(self, items: EmbeddedItems, n_user_attributes: int, config: TaNPConfig) -> None:
        super().__init__()
        hidden, task_dim, latent = config.hidden, config.task_dim, config.latent
        self.prior, self.alpha, self.items = config.aggregate_prior, config.alpha, items
        x_dim = config.rank + (config.user_dim if n_user_attributes else 0)
        self.user = nn.Linear(n_user_attributes, config.user_dim, bias=False) if n_user_attributes else None
        pair_dim = x_dim + 2
        self.encoder = nn.Sequential(nn.Linear(pair_dim, hidden), nn.ReLU(), nn.Linear(hidden, hidden))
        self.to_latent = nn.Linear(hidden, hidden)
        self.mean, self.log_variance = nn.Linear(hidden, latent), nn.Linear(hidden, latent)
        self.identity = nn.Sequential(nn.Linear(pair_dim, hidden), nn.ReLU(), nn.Linear(hidden, task_dim))
        self.centres = nn.Parameter(torch.zeros(config.clusters, task_dim))
        self.decoder = nn.ModuleList(
            ModulatedLayer(hidden if depth else x_dim + latent, hidden, task_dim, config.decoder == "gating-film")
            for depth in range(config.layers)
        )
        self.output = nn.Linear(hidden, 1)

    def embed(self, items: Tensor, user: Tensor) -> Tensor:
        """Return x (T, n, .) of items (T, n) and the users' attributes (T, f): both embeddings, joined."""
        x = self.items(items)
        if self.user is None:
            return x
        return torch.cat([x, self.user(user).unsqueeze(1).expand(-1, items.shape[1], -1)], 2)

    def pairs(self, ratings: PaddedRatings, user: Tensor, effect: Tensor) -> Tensor:
        """Return what the encoders see of each rating (T, n, .): x, y and the user's effect (T,)."""
        y = (ratings.rating - self.items.base[ratings.item] - effect.unsqueeze(1)).unsqueeze(2)
        return torch.cat([self.embed(ratings.item, user), y, effect[:, None, None].expand_as(y)], 2)

    def aggregate(self, each: Tensor, mask: Tensor) -> Tensor:
        count = (mask.sum(1, keepdim=True) + self.prior).clamp(min=1e-6)
        return (each * mask.unsqueeze(2)).sum(1) / count

    def latent(self, pairs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance (T, latent) of q(z | pairs)."""
        s = torch.relu(self.to_latent(self.aggregate(self.encoder(pairs), mask)))
        return self.mean(s), self.log_variance(s)

    def task(self, pairs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the soft assignment to the clusters (T, clusters) and the final task embedding o (T, task_dim)."""
        t = self.aggregate(self.identity(pairs), mask)
        distance = (t.unsqueeze(1) - self.centres).square().sum(2)
        kernel = (1 + distance / self.alpha) ** (-(self.alpha + 1) / 2)
        assignment = kernel / kernel.sum(1, keepdim=True)
        return assignment, t + assignment @ self.centres

    def decode(self, items: Tensor, user: Tensor, z: Tensor, task: Tensor) -> Tensor:
        x = self.embed(items, user)
        g = torch.cat([x, z.unsqueeze(1).expand(-1, items.shape[1], -1)], 2)
        for layer in self.decoder:
            g = layer(g, task)
        return self.output(g).squeeze(2)


class TaNP(MetaLearner):
    """Task-adaptive neural process (Lin, Wu, Zhou, Pan, Cao & Wang, WWW 2021).

    A user is a task, and each rating a pair of x (embeddings of item and user) and y. An encoder turns the pairs into
    vectors, whose mean gives a Gaussian q(z | support). A task identity network turns them into a vector t; t is
    assigned softly to the K centres a_k of a memory by Student's t kernel,
    ``c_k ~ (1 + |t - a_k|^2 / alpha)^(-(alpha + 1) / 2)``, and the task embedding is ``o = t + sum c_k a_k``. The
    decoder predicts y from (x, z), its layers being modulated by o (``ModulatedLayer``). Meta-training minimises

        squared error, z ~ q(z | support + query)  +  KL(q(z | support + query) || q(z | support))  +  lambda KL(D || C)

    where the last term is the clustering loss: C are the assignments of the tasks of a meta-batch and D sharpens them,
    ``d_tk ~ c_tk^2 / sum_t c_tk``. A new user is adapted to by one pass through encoder and identity network.

    Deviations from the paper:

    1. y is what the bias model leaves of a rating, ``r - mu - b_i - b_u`` with ``b_u = sum(r - mu - b_i) / (n +
       user_ridge)``, and the decoder's output is added to that model, from which it starts (its last layer is zero).
       Encoder and identity network see b_u too.
    2. Means over pairs are sums over K + ``aggregate_prior``, so that a short support says less. With plain means
       (0) the learner is behind the bias model at K = 1 and has half the gain over all K.
    3. Items are ID embeddings plus a linear map of the attributes (the map alone for an item without a rating in
       meta-train); they start as a factorization of meta-train, since some hundred users don't suffice to learn them
       from random numbers, and are drawn to it. A user's x is a linear map of the user's attributes, and missing where
       there are none.
    4. The squared error is the query's mean; KL divergence and clustering loss have weights. D is a constant when
       differentiating, as in the clustering loss's source (Xie, Girshick & Farhadi, ICML 2016, section 3.1).
    5. One modulated layer by default instead of several, which gained nothing; no dropout.
    6. z is its mean when predicting, so that adapting is deterministic.
    7. The best of meta-validation is kept.
    """

    name = "tanp"
    paper = "Lin et al., WWW 2021"
    Config = TaNPConfig
    module: TaNPNet

    def prepare(self, ctx: Context) -> None:
        refuse_without_float64(self.name, self.config.dtype, ctx)

    def build(self, sizes: Mapping[str, int], catalog: Catalog, scale: Scale) -> nn.Module:
        items = EmbeddedItems(sizes["n_items"], self.config.rank, catalog)
        return TaNPNet(items, sizes["n_user_attributes"], self.config)

    @torch.no_grad()
    def initialise(self, source: MetaTrainSet, ctx: Context, generator: torch.Generator) -> None:
        config, module = self.config, self.module
        draw(module, generator)
        module.items.start(source, ctx, generator, config.pretrain_sweeps, config.factor_scale, config.content_ridge)
        module.centres.copy_(0.3 * torch.randn(module.centres.shape, generator=generator, dtype=torch.float64))
        nn.init.zeros_(module.output.weight)
        self.started_at = [(value, value.detach().clone()) for value in module.items.parameters()]
        self.generator = generator

    def penalty(self, source: MetaTrainSet) -> Tensor | None:
        moved = [(value - start).square().sum() for value, start in self.started_at]
        return self.config.proximal / len(source.table) * torch.stack(moved).sum()

    def adapt_tasks(self, tasks: Tasks) -> Params:
        net, support = self.module, tasks.support
        effect, _ = net.items.residuals(support, self.config.user_ridge)
        pairs = net.pairs(support, tasks.user, effect)
        mean, log_variance = net.latent(pairs, support.mask)
        assignment, task = net.task(pairs, support.mask)
        return {"effect": effect, "z": mean, "log_variance": log_variance, "assignment": assignment, "task": task}

    def predict_items(self, tasks: Tasks, adapted: Params, items: Tensor) -> Tensor:
        score = self.module.decode(items, tasks.user, adapted["z"], adapted["task"])
        return self.module.items.base[items] + adapted["effect"].unsqueeze(1) + score

    def meta_gradient(self, tasks: Tasks, noise: Tensor | None = None) -> float:
        """Do what the base does, with ``noise`` (T, latent), standard normal, for z (None: drawn here)."""
        split, total = self.config.split, tasks.query.mask.sum()
        if noise is None:
            noise = torch.randn(len(tasks), self.config.latent, generator=self.generator, dtype=torch.float64)
        noise, cluster_size, objective = noise.to(tasks.items.device, self.dtype), None, 0.0
        if 0 < split < len(tasks):  # the clusters' sizes are those in the whole meta-batch
            with torch.no_grad():
                assignments = [self.adapt_tasks(part)["assignment"] for part in tasks.split(split)]
                cluster_size = torch.cat(assignments).sum(0)
        for part, own in zip(tasks.split(split), noise.split(split or len(tasks)), strict=True):
            mean = self.objectives(part, own, cluster_size).sum() / total
            mean.backward()
            objective += float(mean.detach())
        return objective

    def objectives(self, tasks: Tasks, noise: Tensor | float = 0.0, cluster_size: Tensor | None = None) -> Tensor:
        """Return (T,): number of query ratings times a task's loss.

        ``noise`` (T, latent): what z is drawn with, in standard deviations. ``cluster_size`` (clusters,): the sum of
        the assignments over the meta-batch (None: these tasks are all of it).
        """
        net, config, support, query = self.module, self.config, tasks.support, tasks.query
        given = self.adapt_tasks(tasks)
        both = PaddedRatings(
            torch.cat([support.item, query.item], 1),
            torch.cat([support.rating, query.rating], 1),
            torch.cat([support.mask, query.mask], 1),
        )
        mean, log_variance = net.latent(net.pairs(both, tasks.user, given["effect"]), both.mask)
        z = mean + noise * (log_variance / 2).exp()
        gap = log_variance - given["log_variance"]
        moved = (mean - given["z"]).square() / given["log_variance"].exp()
        divergence = (gap.exp() + moved - 1 - gap).sum(1) / 2
        predicted = self.predict_items(tasks, given | {"z": z}, query.item)
        errors = ((predicted - query.rating) * query.mask).square().sum(1)
        assignment = given["assignment"]
        with torch.no_grad():
            sharp = assignment.square() / (assignment.sum(0) if cluster_size is None else cluster_size)
            target = sharp / sharp.sum(1, keepdim=True)
        clustering = (target * (target.log() - assignment.log())).sum(1)
        return errors + query.mask.sum(1) * (config.kl_weight * divergence + config.cluster_weight * clustering)
