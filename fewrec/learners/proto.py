"""Prototypes: clusters of meta-train users, of which a new user is a mixture by the posterior given the support."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from fewrec.data.table import RatingTable
from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.support import SupportBatch
from fewrec.learners.base import BatchedLearner, BatchPredictor, Context, LearnerConfig
from fewrec.learners.effects import KnownUsers, precise_device, ridge_effects, with_unseen
from fewrec.learners.ridge import GroupSums
from fewrec.learners.validation import Validation

TEMPERATURES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


class ProtoConfig(LearnerConfig):
    """Options of ``proto``; ridges are in units of ratings.

    ``prototypes``: their number; ``profile_ridge`` draws a prototype's effect on an item to zero; ``item_ridge`` and
    ``meta_user_ridge`` belong to the baseline, as in ``bias``. ``temperature`` divides the log-likelihoods of a
    support; None: the best of 0.25, 0.5 ... 8 by meta-validation. Of at most ``sweeps`` of EM the best there
    (K = 1, 5, 10, ``n_query`` ratings to predict) is kept; they end after ``patience`` without a better one.
    """

    prototypes: int = Field(16, ge=1, le=1024)
    profile_ridge: float = Field(30.0, gt=0)
    item_ridge: float = Field(5.0, gt=0)
    meta_user_ridge: float = Field(10.0, gt=0)
    temperature: float | None = Field(None, gt=0)
    sweeps: int = Field(40, ge=1)
    patience: int = Field(8, ge=1)
    n_query: int = Field(10, ge=1)


class Proto(BatchedLearner):
    """Predict ``base_i + sum_c p_c (profile_ci + offset_c)``, p being a user's posterior over prototypes c.

    A user of prototype c rates ``base_i + profile_ci + b + noise`` with an offset ``b ~ N(0, v)``: a mixture of
    Gaussians over users. ``p_c`` is proportional to ``share_c exp(log-likelihood_c / temperature)`` of the support, b
    integrated out, and ``offset_c`` the posterior mean of b under c: closed forms of three sums over the support.

    Source: Prototypical networks, Snell, Swersky & Zemel, NeurIPS 2017: a prototype is the mean of its class (eq. 1),
    a query belongs to it by the softmax over negative squared distances (eq. 2), which are Bregman divergences of the
    Gaussian (section 2.3). Deviations: the embedding is the identity, a user's residuals from the bias model on the
    items that were rated, since there is nothing to learn a network for; classes aren't given but are found on
    meta-train, by EM (soft k-means, Dempster, Laird & Rubin 1977), whose means are shrunk to zero by ``profile_ridge``;
    classes have shares, and a user an offset of its own; the distance's scale is the noise that EM estimates, times a
    temperature that meta-validation chooses; and what is predicted is not the class but its members' mean ratings.
    An item without a rating in meta-train has the rating-weighted mean effect and profiles of zero. The ratings of a
    meta-train user in meta-train count as support.
    """

    name = "proto"
    paper = "Snell, Swersky & Zemel, NeurIPS 2017"
    Config = ProtoConfig
    model: dict[str, Tensor]
    temperature: float

    def meta_fit(self, source: MetaTrainSet, ctx: Context) -> None:
        self.known = KnownUsers.of(source.table)
        validation = Validation(source, (1, 5, 10), self.config.n_query)
        em = PrototypeEM(source.table, self.config, ctx.generator(source.seed), precise_device(ctx))
        fixed = self.config.temperature
        self.temperature = 2.0 if fixed is None else fixed
        best, waited = float("inf"), 0
        kept: dict[str, Tensor] | None = None
        for sweep in ctx.progress(range(self.config.sweeps), "proto: EM sweeps"):
            em.sweep()
            self.model = em.model()
            if not validation:
                continue
            score = validation.rmse(self, ctx)
            ctx.log(sweep, validation_rmse=score)
            if score < best - 1e-6:
                best, kept, waited = score, self.model, 0
            else:
                waited += 1
                if waited >= self.config.patience:
                    break
        if kept is not None:
            self.model = kept
        if fixed is None and validation:
            scores = {}
            for self.temperature in TEMPERATURES:
                scores[self.temperature] = validation.rmse(self, ctx)
            self.temperature = min(scores, key=scores.__getitem__)

    def adapt_batch(self, supports: SupportBatch, ctx: Context) -> ProtoPredictor:
        return ProtoPredictor(self.model, self.temperature, self.known.ratings(supports), supports)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {**self.model, **self.known.tensors()}, {"temperature": self.temperature}

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any], ctx: Context) -> None:
        device = precise_device(ctx)
        self.model = {name: tensors[name].to(device) for name in MODEL}
        self.known, self.temperature = KnownUsers.from_tensors(tensors), float(values["temperature"])

    def trainable_parameters(self) -> int:
        return sum(self.model[name].numel() for name in ("base", "profile", "log_share")) + 3


MODEL = ("base", "profile", "log_share", "variances")
"""base (n_items,), profile (n_items, c), log of the shares (c,), variances of noise and offset (2,)."""


class ProtoPredictor(BatchPredictor):
    """``share`` and ``offset``, (total_users, c): each user's posterior over prototypes, and offset under each."""

    def __init__(
        self,
        model: Mapping[str, Tensor],
        temperature: float,
        known: tuple[Tensor, Tensor, Tensor],
        supports: SupportBatch,
    ) -> None:
        self.model, self.supports = model, supports
        user, item, rating = (column.to(model["base"].device) for column in known)
        sums = GroupSums(user, supports.total_users)
        touched, at = item.unique(return_inverse=True)
        residual = rating - model["base"][item]
        likelihood, self.offset, _, _ = posterior(model, sums, model["profile"][touched], at, residual)
        self.share = (model["log_share"] + likelihood / temperature).softmax(1)

    def predict(self, episode: Tensor, user: Tensor, item: Tensor) -> Tensor:
        flat, item = (x.to(self.share.device) for x in (self.supports.flat_user(episode, user), item))
        effect = (self.share[flat] * (self.model["profile"][item] + self.offset[flat])).sum(1)
        return self.model["base"][item] + effect


def posterior(
    model: Mapping[str, Tensor], sums: GroupSums, profile: Tensor, of_row: Tensor, residual: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return four times (n_users, c): the log-likelihood of a user's residuals under each prototype, up to a constant
    of the user, the posterior mean of the offset, and the sums of the error and of its square, less the sum of
    residual^2. The error of row r is ``residual[r] - profile[of_row[r]]``, without an offset.
    """
    noise, spread = model["variances"]
    total = sums(profile.new_ones(1, 1), torch.zeros_like(of_row), residual)
    first = total - sums(profile, of_row)
    second = sums(profile.square(), of_row) - 2 * sums(profile, of_row, residual)
    gain = spread / (noise + sums.count.double().unsqueeze(1) * spread)
    return (gain * first.square() - second) / (2 * noise), gain * first, first, second


class PrototypeEM:
    """EM for the mixture of ``Proto``, from random responsibilities on; float64.

    ``share`` (n_users, c): responsibilities; ``profile`` (n_items, c); ``noise`` and ``spread``: variances of a rating
    and of the offset. A round of ``responsibilities`` (which estimates the variances, too) and ``profiles`` never
    lowers the log-likelihood less ``profile_ridge / noise * sum profile^2 / 2``.
    """

    def __init__(
        self, table: RatingTable, config: ProtoConfig, generator: torch.Generator, device: torch.device
    ) -> None:
        effects = ridge_effects(table, config.item_ridge, config.meta_user_ridge, tolerance=1e-8)
        self.base = torch.from_numpy(effects.mu + with_unseen(effects.item, table)).to(device)
        columns = (table.user, table.item, table.rating)
        self.user_of, self.item_of, rating = (torch.tensor(column, device=device) for column in columns)
        self.by_user, self.by_item = GroupSums(self.user_of, table.n_users), GroupSums(self.item_of, table.n_items)
        self.residual = rating - self.base[self.item_of]
        self.ridge = config.profile_ridge
        start = torch.randn(table.n_users, config.prototypes, dtype=torch.float64, generator=generator)
        self.share = (8 * start).softmax(1).to(device)
        own = torch.from_numpy(effects.user).to(device)
        self.offset = own.unsqueeze(1).expand_as(self.share)
        self.spread = max(float(own.square().mean()), 1e-4)
        self.noise = max(float((self.residual - own[self.user_of]).square().mean()), 1e-4)
        self.profile = self.share.new_zeros(table.n_items, config.prototypes)

    def sweep(self) -> None:
        self.profiles()
        self.responsibilities()

    def profiles(self) -> None:
        weight = self.by_item(self.share, self.user_of)
        total = self.by_item(self.share, self.user_of, self.residual)
        total = total - self.by_item(self.share * self.offset, self.user_of)
        self.profile = total / (weight + self.ridge)

    def responsibilities(self) -> None:
        model = self.model()
        likelihood, self.offset, first, second = posterior(
            model, self.by_user, self.profile, self.item_of, self.residual
        )
        self.share = (model["log_share"] + likelihood).softmax(1)
        count = self.by_user.count.double().unsqueeze(1)
        variance = self.noise * self.spread / (self.noise + count * self.spread)  # of the offset, given the ratings
        square = self.offset.square() + variance
        self.spread = max(float((self.share * square).sum(1).mean()), 1e-6)
        error = (self.share * (second - 2 * self.offset * first + count * square)).sum()
        self.noise = max(float(self.residual.square().sum() + error) / len(self.residual), 1e-4)

    def model(self) -> dict[str, Tensor]:
        """Return what adapting needs: see ``MODEL``."""
        log_share = self.share.mean(0).clamp(min=1e-12).log()
        variances = self.base.new_tensor([self.noise, self.spread])
        return {"base": self.base, "profile": self.profile, "log_share": log_share, "variances": variances}
