"""Regression of ratings on item text within one episode: what fine-tuning and prompting have in common.

A rating, standardised, is ``offset_u + (head + user_head_u) . x_i`` plus noise, x_i being the item's text features.
Given the features, offsets and heads are solved exactly; then they and what makes the features are trained together
from there by AdamW ("linear probing, then fine-tuning": Kumar et al., ICLR 2022). The learners say what makes them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from fewrec.data.table import Scale
from fewrec.episodes.support import Support
from fewrec.errors import NotApplicable
from fewrec.learners.base import Context, Learner, LearnerConfig, Predictor
from fewrec.learners.text_encoder import ItemActivations, UpperLayers, item_activations, load_backbone, mean_pool

Params = dict[str, Tensor]


class TextConfig(LearnerConfig):
    """Options of the learners that read item text.

    ``backbone``: a BERT-like encoder, by name, hub repository or folder. ``max_length``: tokens a text. ``layers``: how
    many of the last encoder layers are run; those below are frozen and cached. The variances are those of the prior of
    each user's offset, of the head that users share and of each user's own head, in units of the noise; 0: left out.
    ``epochs``, ``batch_size`` (ratings), learning rates and ``weight_decay`` belong to training on the support.
    """

    backbone: str = "all-MiniLM-L6-v2"
    max_length: int = Field(64, ge=2, le=512)
    layers: int = Field(1, ge=0)
    user_variance: float = Field(0.2, ge=0)
    head_variance: float = Field(0.2, ge=0)
    user_head_variance: float = Field(0.2, ge=0)
    epochs: int = Field(4, ge=0)
    batch_size: int = Field(256, ge=1)
    learning_rate: float = Field(5e-5, ge=0)
    head_learning_rate: float = Field(1e-3, ge=0)
    weight_decay: float = Field(0.01, ge=0)

    @property
    def variances(self) -> tuple[float, float, float]:
        return self.user_variance, self.head_variance, self.user_head_variance


class TextFeatures(ABC):
    """Features of items' texts as a function of what is trained.

    They are the means over a text's tokens of the cached activations and of the output of each layer above, side by
    side.
    """

    def __init__(self, upper: UpperLayers, activations: ItemActivations, device: torch.device) -> None:
        self.upper = upper.to(device)
        self.activations, self.device = activations, device
        some = torch.arange(len(activations))[:: max(1, len(activations) // 500)]
        with torch.no_grad():
            hidden = torch.cat([self._plain(some[rows]) for rows in activations.batches(some, 128)])
        # Centred, and of mean square norm 1 (each layer with its share), so that a variance means the same everywhere.
        self.centre = hidden.mean(0)
        n_states = len(upper.layers) + 1
        per_layer = (hidden - self.centre).square().mean(0).reshape(n_states, -1).sum(1)
        self.spread = (per_layer * n_states).sqrt().clamp_min(1e-6).repeat_interleave(len(self.centre) // n_states)

    @abstractmethod
    def initial(self, generator: torch.Generator) -> Params:
        """Return new tensors for what is trained."""

    @abstractmethod
    def pooled(self, params: Params, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return (b, d) for padded activations (b, T, d) and their mask."""

    def __call__(self, params: Params, items: Tensor) -> Tensor:
        """Return the features of (b,) items, (b, d); differentiable in ``params``."""
        return (self.pooled(params, *self.activations.padded(items, self.device)) - self.centre) / self.spread

    @torch.no_grad()
    def frozen(self, params: Params, items: Tensor, batch: int = 128) -> Tensor:
        """Return the features of any number of items, (n, d), without gradients."""
        out = torch.empty(len(items), len(self.centre), dtype=self.centre.dtype, device=self.device)
        for rows in self.activations.batches(items, batch):
            out[rows.to(self.device)] = self(params, items[rows])
        return out

    def _plain(self, items: Tensor) -> Tensor:
        hidden, mask = self.activations.padded(items, self.device)
        return mean_pool(self.upper(hidden, mask), mask)


@dataclass(frozen=True, eq=False)
class Rows:
    """Standardised ratings to be explained: ``user`` (n,), ``item`` (n,) and ``target`` (n,), on one device."""

    user: Tensor
    item: Tensor
    target: Tensor

    def __getitem__(self, rows: Tensor) -> Rows:
        return Rows(self.user[rows], self.item[rows], self.target[rows])


@dataclass(frozen=True, eq=False)
class Heads:
    """``offset`` (N,), ``head`` (d,) and ``user_head`` (N, d): the linear part of an episode's model."""

    offset: Tensor
    head: Tensor
    user_head: Tensor

    def __call__(self, user: Tensor, features: Tensor) -> Tensor:
        """Return (n,) predictions for (n,) users and (n, d) features."""
        return self.offset[user] + ((self.head + self.user_head[user]) * features).sum(1)

    def penalty(self, config: TextConfig, prior_head: Tensor) -> Tensor:
        """Return minus twice the log prior, up to a constant."""
        parts = (self.offset, self.head - prior_head, self.user_head)
        total = self.head.new_zeros(())
        for part, variance in zip(parts, config.variances, strict=True):
            if variance > 0:
                total = total + part.square().sum() / variance
        return total


def solve_heads(features: Tensor, rows: Rows, n_users: int, config: TextConfig, prior_head: Tensor) -> Heads:
    """Return the minimiser of ``sum (target - prediction)^2 + penalty`` for fixed features (n, d).

    Solved in float64 through the n x n kernel of the rows, which is small where d is not; without rows, offsets and own
    heads are zero and the head is ``prior_head`` (d,).
    """
    x, prior = features.double(), prior_head.double()
    target = rows.target.double() - x @ prior
    same = (rows.user.unsqueeze(1) == rows.user).to(x.dtype)
    products = x @ x.T
    kernel = same * config.user_variance + products * (config.head_variance + same * config.user_head_variance)
    weight = torch.linalg.solve(kernel + torch.eye(len(x), dtype=x.dtype, device=x.device), target)
    by_user = torch.zeros(n_users, len(x), dtype=x.dtype, device=x.device)
    by_user[rows.user, torch.arange(len(x), device=x.device)] = weight
    offset, head = config.user_variance * by_user.sum(1), prior + config.head_variance * (weight @ x)
    user_head = config.user_head_variance * (by_user @ x)
    return Heads(*(part.to(features.dtype) for part in (offset, head, user_head)))


def fine_tune(
    features: TextFeatures,
    params: Params,
    heads: Heads,
    rows: Rows,
    config: TextConfig,
    generator: torch.Generator,
    prior_head: Tensor,
) -> tuple[Params, Heads]:
    """Train what makes the features, and offsets and heads, on the rows by AdamW; returns new tensors.

    Loss: mean squared error + penalty / n. Learning rates fall linearly to zero. A text is run once a batch, however
    many of its ratings are in it.
    """
    n = len(rows.target)
    if n == 0 or config.epochs == 0:
        return params, heads
    params = {name: value.detach().clone().requires_grad_() for name, value in params.items()}
    parts = [
        part.clone().requires_grad_(variance > 0)
        for part, variance in zip((heads.offset, heads.head, heads.user_head), config.variances, strict=True)
    ]
    heads = Heads(*parts)
    groups = [
        {"params": list(params.values()), "lr": config.learning_rate, "weight_decay": config.weight_decay},
        {"params": [p for p in parts if p.requires_grad], "lr": config.head_learning_rate, "weight_decay": 0.0},
    ]
    optimiser = adamw([group for group in groups if group["params"]], features.device)
    size = min(config.batch_size, n)
    steps = config.epochs * -(-n // size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / steps)
    for _ in range(config.epochs):
        order = torch.arange(n) if size == n else torch.randperm(n, generator=generator)
        for batch in order.split(size):
            part = rows[batch.to(rows.target.device)]
            items, place = torch.unique(part.item, return_inverse=True)
            error = heads(part.user, features(params, items)[place]) - part.target
            loss = error.square().mean() + heads.penalty(config, prior_head) / n
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return {name: p.detach() for name, p in params.items()}, Heads(*(p.detach() for p in parts))


def adamw(groups: list[dict], device: torch.device) -> torch.optim.AdamW:
    """Return AdamW over parameter groups, fused where the device has it."""
    return torch.optim.AdamW(groups, fused=device.type in ("cpu", "cuda"))


class TextRegressor(Learner):
    """A learner whose episode model is ``Heads`` on ``TextFeatures``, from the pretrained encoder on."""

    task = "episode"
    needs = frozenset({"item_text", "k>0"})
    batch_episodes = 1
    config: TextConfig

    @abstractmethod
    def make_features(self, upper: UpperLayers, activations: ItemActivations, device: torch.device) -> TextFeatures:
        """Return what is trained, on top of the frozen layers."""

    def prepare(self, ctx: Context) -> None:
        if ctx.catalog.text is None:
            raise NotApplicable(f"{self.name} needs item text")
        backbone, layers = load_backbone(self.config.backbone), self.config.layers
        self.weights_sha256 = backbone.sha256
        if layers > backbone.n_layers:
            raise NotApplicable(f"layers = {layers}, but {self.config.backbone} has {backbone.n_layers}")
        first = backbone.n_layers - layers
        texts, length = ctx.catalog.texts(), self.config.max_length
        activations = item_activations(backbone, texts, first, length, ctx.cache, ctx.device)
        self.features = self.make_features(UpperLayers(backbone, first), activations, ctx.device)

    def loaded(self) -> dict[str, str]:
        return {self.config.backbone: self.weights_sha256}

    def adapt(self, support: Support, ctx: Context) -> Predictor:
        generator, device = ctx.generator(support.seed), self.features.device
        rating = support.rating.to(torch.float64)
        middle, spread = standard(rating, ctx.scale)
        target = ((rating - middle) / spread).to(device, self.features.centre.dtype)
        rows = Rows(support.user.to(device), support.item.to(device), target)
        params = self.features.initial(generator)
        items, place = torch.unique(rows.item, return_inverse=True)
        no_head = torch.zeros_like(self.features.centre)
        heads = solve_heads(self.features.frozen(params, items)[place], rows, support.n_users, self.config, no_head)
        params, heads = fine_tune(self.features, params, heads, rows, self.config, generator, no_head)
        return TextPredictor(heads, lambda wanted: self.features.frozen(params, wanted), spread, middle)

    def trainable_parameters(self) -> int:
        made = sum(p.numel() for p in self.features.initial(torch.Generator()).values()) if self.config.epochs else 0
        return made + 2 * len(self.features.centre) + 1  # the shared head; each user's own head and offset


def standard(rating: Tensor, scale: Scale) -> tuple[float, float]:
    """Return mean and standard deviation of a support, a quarter of the scale where all ratings are equal."""
    if not len(rating):
        return scale.middle, (scale.high - scale.low) / 4
    spread = float(rating.std(correction=0))
    return float(rating.mean()), spread if spread > 1e-6 else (scale.high - scale.low) / 4


class TextPredictor(Predictor):
    """``base_i + spread * heads(u, x_i)``: ``base`` is a number, or (n_items,) in float64."""

    def __init__(self, heads: Heads, features: Callable[[Tensor], Tensor], spread: float, base: float | Tensor) -> None:
        self.heads, self.features, self.spread, self.base = heads, features, spread, base

    def predict(self, users: Tensor, items: Tensor) -> Tensor:
        wanted, place = torch.unique(items.cpu(), return_inverse=True)
        features = self.features(wanted)
        place = place.to(features.device)
        found = self.heads(users.to(features.device), features[place]).cpu().double() * self.spread
        return found + (self.base if isinstance(self.base, float) else self.base[items.cpu()])
