"""Learning from meta-train what a text says of an item: what the meta-trained text learners add to their episode model.

An item's effect is regressed on its text, by the same features that an episode then trains. That is the mean squared
error on the ratings once users' effects are taken out, at one text an item instead of one a rating.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.support import Support, SupportBatch
from fewrec.errors import NotApplicable
from fewrec.learners.base import Context, Predictor
from fewrec.learners.effects import KnownUsers, ridge_effects
from fewrec.learners.text_regression import (
    Params,
    Rows,
    TextConfig,
    TextPredictor,
    TextRegressor,
    adamw,
    fine_tune,
    solve_heads,
)
from fewrec.learners.validation import Validation


class MetaTextConfig(TextConfig):
    """Options of the meta-trained text learners, beside those of the episode.

    ``item_effects``: whether a seen item's own ratings correct what its text says, shrunk by ``effect_ridge`` ratings.
    ``item_ridge`` and ``meta_user_ridge`` shrink the effects that are regressed on text; there an item with n ratings
    has the weight n / (n + ``weight_ridge``), and ``text_ridge`` shrinks the head. The other ``meta_`` options and
    ``token_dropout`` (the share of a text's tokens hidden at each step) belong to training it; ``patience`` epochs
    without a better score on meta-validation end it, and the best epoch, the start included, is kept.
    """

    item_effects: bool = True
    effect_ridge: float = Field(8.0, gt=0)
    item_ridge: float = Field(5.0, gt=0)
    meta_user_ridge: float = Field(10.0, gt=0)
    weight_ridge: float = Field(50.0, ge=0)
    text_ridge: float = Field(2.0, gt=0)
    meta_epochs: int = Field(4, ge=0)
    meta_batch_size: int = Field(64, ge=1)
    meta_learning_rate: float = Field(3e-5, ge=0)
    meta_head_learning_rate: float = Field(1e-4, ge=0)
    meta_weight_decay: float = Field(0.01, ge=0)
    token_dropout: float = Field(0.5, ge=0, lt=1)
    patience: int = Field(2, ge=1)
    n_query: int = Field(10, ge=1)
    head_variance: float = Field(0.0, ge=0)
    epochs: int = Field(3, ge=0)
    learning_rate: float = Field(1e-5, ge=0)
    head_learning_rate: float = Field(1e-4, ge=0)


@dataclass(frozen=True, eq=False)
class TextPrior:
    """What meta-fit learnt of texts: ``params`` make the features, ``table`` (n_items, d) holds those of the catalog.

    A rating is predicted as ``intercept + spread * head . x_i`` by text alone; ``correction`` (n_items,), float64, is
    what a seen item's own ratings add to that, on the rating scale.
    """

    params: Params
    table: Tensor
    head: Tensor
    intercept: float
    spread: float
    correction: Tensor

    def text_effect(self) -> Tensor:
        """Return what the text alone predicts for each item, (n_items,) float64, rating scale."""
        return self.intercept + self.spread * (self.table.double() @ self.head.double()).cpu()


@dataclass(frozen=True, eq=False)
class ItemTargets:
    """What texts are regressed on, (m,) each: ``items``, the mean ``residual`` of an item's ``count`` ratings.

    Residuals are on the rating scale, above ``mu``, without users' effects; ``noise`` is the standard deviation of
    ratings around user and item effects.
    """

    items: Tensor
    residual: Tensor
    count: Tensor
    mu: float
    noise: float


class MetaTextRegressor(TextRegressor):
    """Item effects regressed on text over meta-train; then, per episode, offsets and heads on what that leaves.

    Meta-fit: user and item effects by ridge; the head that explains the items' mean residuals by text features, in
    closed form; then head and features trained together (AdamW), kept as of the best epoch by meta-validation. With
    ``item_effects`` a seen item's prediction is corrected towards its own mean. Adapt: as in ``bert-finetune``, from
    there on. A user of meta-train brings the ratings known there. Without support, text and item effects predict alone.
    """

    needs = frozenset({"item_text"})
    adapt_options = frozenset(
        {"item_effects", "epochs", "batch_size", "learning_rate", "head_learning_rate", "weight_decay"}
    )
    config: MetaTextConfig
    prior: TextPrior

    def meta_fit(self, source: MetaTrainSet, ctx: Context) -> None:
        if source.catalog.text_sha256 != ctx.catalog.text_sha256:
            raise NotApplicable(f"{self.name} is meta-trained on the data set's own item texts")
        generator = ctx.generator(source.seed)
        self.known = KnownUsers.of(source.table)
        targets = _item_targets(source, self.config)
        validation = Validation(source, (5, 10), self.config.n_query)
        # Text alone and no training on the support: the one score that options of adapting can't move.
        probe = type(self)(self.config.model_copy(update={"item_effects": False, "epochs": 0}))
        probe.features, probe.known = self.features, self.known
        best, waited = float("inf"), 0
        for epoch, (params, head, centre) in enumerate(self._training(targets, generator, ctx)):
            probe.prior = self._prior(params, head, centre, targets)
            score = validation.rmse(probe, ctx) if validation else -float(epoch)
            ctx.log(epoch, validation_rmse=score)
            if score < best:
                best, waited, self.prior = score, 0, probe.prior
                continue
            waited += 1
            if waited >= self.config.patience:
                break

    def _training(
        self, targets: ItemTargets, generator: torch.Generator, ctx: Context
    ) -> Iterator[tuple[Params, Tensor, float]]:
        """Yield (params, head, weighted mean residual) at the start and after each epoch."""
        config, device = self.config, self.features.device
        weight = targets.count / (targets.count + config.weight_ridge)
        centre = float((weight * targets.residual).sum() / weight.sum())
        target = (targets.residual - centre) / targets.noise
        params = self.features.initial(generator)
        x = self.features.frozen(params, targets.items).double().cpu()
        normal = x.T @ (x * weight.unsqueeze(1)) + config.text_ridge * torch.eye(x.shape[1], dtype=x.dtype)
        solved = torch.linalg.solve(normal, x.T @ (weight * target))
        head = solved.to(device, self.features.centre.dtype)
        yield params, head, centre
        if config.meta_epochs == 0:
            return
        params = {name: p.clone().requires_grad_() for name, p in params.items()}
        head = head.clone().requires_grad_()
        weight, target = ((v / s).to(device, head.dtype) for v, s in ((weight, weight.mean()), (target, 1.0)))
        decay = config.meta_weight_decay
        groups = [
            {"params": list(params.values()), "lr": config.meta_learning_rate, "weight_decay": decay},
            {"params": [head], "lr": config.meta_head_learning_rate, "weight_decay": 0.0},
        ]
        optimiser = adamw([group for group in groups if group["params"]], device)
        steps = config.meta_epochs * -(-len(targets.items) // config.meta_batch_size)
        warm_up = max(1.0, 0.1 * steps)
        rate = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min((step + 1) / warm_up, 1 - step / steps))
        for _ in ctx.progress(range(config.meta_epochs), f"{self.name}: epochs"):
            for batch in self._batches(targets.items, generator):
                hidden, mask = self.features.activations.padded(targets.items[batch], device)
                if config.token_dropout:
                    kept = torch.rand(mask.shape, generator=generator) >= config.token_dropout
                    kept[:, 0] = True
                    mask = mask & kept.to(device)
                x = (self.features.pooled(params, hidden, mask) - self.features.centre) / self.features.spread
                rows = batch.to(device)
                loss = (weight[rows] * (x @ head - target[rows]).square()).mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                rate.step()
            yield {name: p.detach().clone() for name, p in params.items()}, head.detach().clone(), centre

    def _batches(self, items: Tensor, generator: torch.Generator) -> list[Tensor]:
        """Return an epoch's batches: random, but within stretches of eight batches alike in length, in random order."""
        size = self.config.meta_batch_size
        batches: list[Tensor] = []
        for stretch in torch.randperm(len(items), generator=generator).split(8 * size):
            batches += [stretch[rows] for rows in self.features.activations.batches(items[stretch], size)]
        return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]

    def _prior(self, params: Params, head: Tensor, centre: float, targets: ItemTargets) -> TextPrior:
        table = self.features.frozen(params, torch.arange(len(self.features.activations)))
        correction = torch.zeros(len(table), dtype=torch.float64)
        prior = TextPrior(params, table, head, targets.mu + centre, targets.noise, correction)
        missing = targets.mu + targets.residual - prior.text_effect()[targets.items]
        # Often rated items are better than their texts say: one without ratings gets the rating-weighted mean of that.
        shift = float((missing * targets.count).sum() / targets.count.sum())
        prior, missing = replace(prior, intercept=prior.intercept + shift), missing - shift
        correction[targets.items] = missing * targets.count / (targets.count + self.config.effect_ridge)
        return prior

    def adapt(self, support: Support, ctx: Context) -> Predictor:
        prior, device = self.prior, self.features.device
        base = prior.intercept + (prior.correction if self.config.item_effects else torch.zeros_like(prior.correction))
        known = self.known.ratings(SupportBatch.of([support]))

        def rows(user: Tensor, item: Tensor, rating: Tensor) -> Rows:
            target = (rating.double() - base[item]) / prior.spread
            return Rows(user.to(device), item.to(device), target.to(device, prior.table.dtype))

        every = rows(*known)
        heads = solve_heads(prior.table[every.item], every, support.n_users, self.config, prior.head)
        if self.config.epochs == 0 or not len(support.item):
            return TextPredictor(heads, lambda wanted: prior.table[wanted.to(device)], prior.spread, base)
        own = rows(support.user.cpu(), support.item.cpu(), support.rating.cpu())
        generator = ctx.generator(support.seed)
        params, heads = fine_tune(self.features, prior.params, heads, own, self.config, generator, prior.head)
        return TextPredictor(heads, lambda wanted: self.features.frozen(params, wanted), prior.spread, base)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        prior = self.prior
        tensors = {"table": prior.table, "head": prior.head, "correction": prior.correction, **self.known.tensors()}
        tensors |= {f"params.{name}": value for name, value in prior.params.items()}
        return tensors, {"intercept": prior.intercept, "spread": prior.spread}

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any], ctx: Context) -> None:
        device = self.features.device
        stem = "params."
        params = {name.removeprefix(stem): t.to(device) for name, t in tensors.items() if name.startswith(stem)}
        table, head = tensors["table"].to(device), tensors["head"].to(device)
        self.prior = TextPrior(params, table, head, values["intercept"], values["spread"], tensors["correction"].cpu())
        self.known = KnownUsers.from_tensors(tensors)

    def trainable_parameters(self) -> int:
        made = sum(p.numel() for p in self.prior.params.values())
        return made + 2 * len(self.prior.head) + len(self.prior.correction) + 2


def _item_targets(source: MetaTrainSet, config: MetaTextConfig) -> ItemTargets:
    table = source.table
    effects = ridge_effects(table, config.item_ridge, config.meta_user_ridge)
    residual = table.rating - effects.mu - effects.user[table.user]
    count = np.bincount(table.item, minlength=table.n_items)
    items = np.flatnonzero(count)
    mean = np.bincount(table.item, residual, table.n_items)[items] / count[items]
    noise = float(np.sqrt(np.mean((residual - effects.item[table.item]) ** 2)))
    counted, averaged = torch.from_numpy(count[items].astype(float)), torch.from_numpy(mean)
    return ItemTargets(torch.from_numpy(items), averaged, counted, effects.mu, max(noise, 1e-6))
