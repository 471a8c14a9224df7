"""Learning from meta-train what a text says of an item: what the meta-trained text learners add to their episode model.

An item's effect is regressed on its text, by the same features that an episode then trains. That is the mean squared
error on the ratings once users' effects are taken out, at one text an item instead of one a rating.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.support import SupportBatch
from fewrec.errors import NotApplicable
from fewrec.learners.base import BatchPredictor, Context
from fewrec.learners.effects import KnownUsers, ridge_effects
from fewrec.learners.text.augment import kept_tokens
from fewrec.learners.text.config import ADAPT_OPTIONS, MetaTextConfig, PriorConfig
from fewrec.learners.text.heads import Rows, solve_heads
from fewrec.learners.text.regression import Adapted, TextPredictor, TextRegressor
from fewrec.learners.text.stack import Params
from fewrec.learners.text.training import fine_tune, make_optimiser, schedule
from fewrec.learners.validation import Validation

_SOLVED_AT_ONCE = 64


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
    adapt_options = ADAPT_OPTIONS
    config: MetaTextConfig
    prior: TextPrior

    def meta_fit(self, source: MetaTrainSet, ctx: Context) -> None:
        if source.catalog.text_sha256 != ctx.catalog.text_sha256:
            raise NotApplicable(f"{self.name} is meta-trained on the data set's own item texts")
        generator = ctx.generator(source.seed)
        self.known = KnownUsers.of(source.table)
        targets = item_targets(source, self.config)
        validation = Validation(source, (5, 10), self.config.n_query)
        # Text alone and no training on the support: the one score that options of adapting can't move.
        probe = type(self)(self.config.model_copy(update={"item_effects": False, "epochs": 0}))
        probe.features, probe.known = self.features, self.known
        best, waited = float("inf"), 0
        for epoch, (params, head, centre, table) in enumerate(self._training(targets, generator, ctx)):
            probe.prior = self._prior(params, head, centre, targets, table)
            score = validation.rmse(probe, ctx) if validation else -float(epoch)
            ctx.log(epoch, validation_rmse=score)
            if score < best:
                best, waited, self.prior = score, 0, probe.prior
                continue
            waited += 1
            if waited >= self.config.meta_patience:
                break

    def _training(
        self, targets: ItemTargets, generator: torch.Generator, ctx: Context
    ) -> Iterator[tuple[Params, Tensor, float, Tensor]]:
        """Yield (params, head, weighted mean residual, the catalog's features) at the start and after each epoch."""
        config, features, device = self.config, self.features, self.features.device
        weight = targets.count / (targets.count + config.weight_ridge)
        centre = float((weight * targets.residual).sum() / weight.sum())
        target = (targets.residual - centre) / targets.noise
        params = self.initial(generator)
        table = self.starting_table(params)
        x = table[targets.items.to(device)].double().cpu()
        head = ridge_head(x, target, weight, config.text_ridge).to(device, features.centre.dtype)
        yield params, head, centre, table
        if not params or not config.meta_epochs:
            return
        params = {name: p.clone().requires_grad_() for name, p in params.items()}
        head = head.clone().requires_grad_()
        weight, target = ((v / s).to(device, head.dtype) for v, s in ((weight, weight.mean()), (target, 1.0)))
        groups = [
            {
                "params": list(params.values()),
                "lr": config.meta_learning_rate,
                "weight_decay": config.meta_weight_decay,
            },
            {"params": [head], "lr": config.meta_head_learning_rate, "weight_decay": 0.0},
        ]
        optimiser = make_optimiser(config.optimizer, groups)
        steps = config.meta_epochs * -(-len(targets.items) // config.meta_batch_size)
        rate = torch.optim.lr_scheduler.LambdaLR(optimiser, schedule("linear", 0.1, steps))
        for _ in ctx.progress(range(config.meta_epochs), f"{self.name}: epochs"):
            order = torch.randperm(len(targets.items), generator=generator)
            batches = order.split(config.meta_batch_size)
            for batch in ctx.progress(batches, f"{self.name}: batches"):
                plan = features.plan(targets.items[batch].unsqueeze(0))
                kept = kept_tokens(plan, config.token_dropout, [generator]) if config.token_dropout else None
                rows = batch.to(device)
                loss = (weight[rows] * (features.run(params, plan, kept)[0] @ head - target[rows]).square()).mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                rate.step()
            trained = {name: p.detach().clone() for name, p in params.items()}
            table = features.frozen(trained, torch.arange(len(features.activations)))
            yield trained, head.detach().clone(), centre, table

    def starting_table(self, params: Params) -> Tensor:
        """Return the features (n_items, d) of the catalog before training, by ``initial`` parameters."""
        return self.features.frozen(params, torch.arange(len(self.features.activations)))

    def _prior(
        self, params: Params, head: Tensor, centre: float, targets: ItemTargets, table: Tensor
    ) -> TextPrior:
        correction = torch.zeros(len(table), dtype=torch.float64)
        prior = TextPrior(params, table, head, targets.mu + centre, targets.noise, correction)
        missing = targets.mu + targets.residual - prior.text_effect()[targets.items]
        # Often rated items are better than their texts say: one without ratings gets the rating-weighted mean of that.
        shift = float((missing * targets.count).sum() / targets.count.sum())
        prior, missing = replace(prior, intercept=prior.intercept + shift), missing - shift
        correction[targets.items] = missing * targets.count / (targets.count + self.config.effect_ridge)
        return prior

    @property
    def base(self) -> Tensor:
        """What is predicted of each item before its text, (n_items,) float64."""
        correction = self.prior.correction
        return self.prior.intercept + (correction if self.config.item_effects else torch.zeros_like(correction))

    def adapt_batch(self, supports: SupportBatch, ctx: Context) -> BatchPredictor:
        user, item, rating = self.known.ratings(supports)
        order = user.argsort(stable=True)  # each user's support, then what meta-train knows of it
        known = (user[order], item[order], rating[order])
        first = torch.searchsorted(known[0], supports.user_offsets)
        alike: dict[tuple[int, int, int], list[int]] = defaultdict(list)
        for e in self._by_size(supports):
            n = int(supports.offsets[e + 1] - supports.offsets[e])
            alike[n, int(supports.n_users[e]), int(first[e + 1] - first[e])].append(e)
        adapted = []
        for (n, _, n_known), members in alike.items():
            size = self.in_flight(n) if n and self.trains_on_supports else _SOLVED_AT_ONCE
            for start in range(0, len(members), size):
                part = members[start : start + size]
                at = first[part].unsqueeze(1) + torch.arange(n_known)
                local = known[0][at] - supports.user_offsets[part].unsqueeze(1)
                every = self._rows(local, known[1][at], known[2][at])
                adapted.append(self._adapt_part(supports, part, every, ctx))
        return TextPredictor(adapted, len(supports))

    @property
    def trains_on_supports(self) -> bool:
        return self.config.epochs > 0

    def _rows(self, user: Tensor, item: Tensor, rating: Tensor) -> Rows:
        """Return ratings (E, n) as what text and item effects leave of them, in units of the noise."""
        target = (rating.double() - self.base[item]) / self.prior.spread
        return Rows(user, item, target.to(self.prior.table.dtype)).to(self.features.device)

    def _adapt_part(self, supports: SupportBatch, part: list[int], every: Rows, ctx: Context) -> Adapted:
        """Adapt to episodes of equal sizes; ``every``: all that is known of their users, which the heads start from."""
        prior, n_users = self.prior, int(supports.n_users[part[0]])
        n = int(supports.offsets[part[0] + 1] - supports.offsets[part[0]])
        per_user = n_users if self.per_user else 0
        heads = solve_heads(prior.table[every.item], every, n_users, self.config, prior.head)
        params: Params = {}
        if n and self.trains_on_supports:
            at = supports.offsets[part].unsqueeze(1) + torch.arange(n)
            own = self._rows(supports.user[at].cpu(), supports.item[at].cpu(), supports.rating[at].cpu())
            generators = [ctx.generator(int(supports.seeds[e])) for e in part]
            groups = len(part) * max(per_user, 1)
            params = {name: p.expand(groups, *p.shape) for name, p in prior.params.items()}
            params, heads = fine_tune(self.features, params, heads, own, self.config, generators, prior.head, per_user)
        spread = torch.full((len(part),), prior.spread, dtype=torch.float64)
        table = None if params else prior.table
        return Adapted(part, self.features, params, heads, spread, self.base.unsqueeze(0), per_user, table)

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


def ridge_head(x: Tensor, target: Tensor, weight: Tensor, ridge: float) -> Tensor:
    """Return the (d,) minimiser of ``sum weight (target - x . w)^2 + ridge w^2`` for x (n, d), float64."""
    normal = x.T @ (x * weight.unsqueeze(1)) + ridge * torch.eye(x.shape[1], dtype=x.dtype)
    return torch.linalg.solve(normal, x.T @ (weight * target))


def item_targets(source: MetaTrainSet, config: PriorConfig) -> ItemTargets:
    """Return the items' mean residuals above users' effects, by ridge effects of meta-train."""
    table = source.table
    effects = ridge_effects(table, config.item_ridge, config.meta_user_ridge)
    residual = table.rating - effects.mu - effects.user[table.user]
    count = np.bincount(table.item, minlength=table.n_items)
    items = np.flatnonzero(count)
    mean = np.bincount(table.item, residual, table.n_items)[items] / count[items]
    noise = float(np.sqrt(np.mean((residual - effects.item[table.item]) ** 2)))
    counted, averaged = torch.from_numpy(count[items].astype(float)), torch.from_numpy(mean)
    return ItemTargets(torch.from_numpy(items), averaged, counted, effects.mu, max(noise, 1e-6))
