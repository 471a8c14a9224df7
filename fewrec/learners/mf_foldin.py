"""Matrix factorization of meta-train with a new user folded in: solved in closed form from the support."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from fewrec.data.table import RatingTable
from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.support import SupportBatch
from fewrec.learners.additive import FactorPredictor
from fewrec.learners.base import BatchedLearner, BatchPredictor, Context, LearnerConfig
from fewrec.learners.effects import KnownUsers, precise_device, ridge_effects
from fewrec.learners.ridge import GroupedRidge
from fewrec.learners.units import RatingUnits
from fewrec.learners.validation import Validation


class MFFoldInConfig(LearnerConfig):
    """Options of ``mf-foldin``; ridges are in units of ratings, those of factors and vectors for a scale from 1 to 5
    (on another one they are scaled by its ``RatingUnits``).

    ``item_ridge``, ``meta_user_ridge`` and ``factor_ridge`` belong to meta-fitting (effects of items, of users, factors
    of both), ``user_ridge`` and ``vector_ridge`` to folding in. Of at most ``sweeps`` of alternating least squares the
    best by meta-validation (K = 1, 5, 10, ``n_query`` ratings to predict) is kept; the sweeps end after ``patience``
    without a better one.
    """

    rank: int = Field(8, ge=1, le=256)
    item_ridge: float = Field(5.0, gt=0)
    meta_user_ridge: float = Field(10.0, gt=0)
    factor_ridge: float = Field(12.0, gt=0)
    user_ridge: float = Field(6.0, gt=0)
    vector_ridge: float = Field(0.35, gt=0)
    sweeps: int = Field(15, ge=1)
    patience: int = Field(3, ge=1)
    n_query: int = Field(10, ge=1)


class MFFoldIn(BatchedLearner):
    """Predict ``base_i + b_u + p_u . q_i``.

    Meta-fit: ``sum (r - mu - b_i - b_u - p_u . q_i)^2`` plus ridges, minimised by alternating least squares: an item's
    (b_i, q_i) are solved jointly given the users, then a user's (b_u, p_u) given the items (Zhou et al., AAIM 2008,
    with the effects of Koren, Bell & Volinsky, IEEE Computer 2009). Afterwards the factors are turned into coordinates
    in which the meta-train users have mean zero and covariance one, which changes no prediction: there a ridge that
    draws a new user's vector to zero is a prior that fits the users.

    Adapt: a new user's (b_u, p_u) minimise ``sum (r - base_i - b - p . q_i)^2 + user_ridge b^2 + vector_ridge |p|^2``
    over the support and, for a meta-train user, the ratings there. An item without a rating in meta-train has the
    rating-weighted mean effect and a zero factor.
    """

    name = "mf-foldin"
    paper = "Zhou et al., AAIM 2008; Koren, Bell & Volinsky, IEEE Computer 2009"
    Config = MFFoldInConfig

    def meta_fit(self, source: MetaTrainSet, ctx: Context) -> None:
        device, config = precise_device(ctx), self.config
        self.known = KnownUsers.of(source.table)
        validation = Validation(source, (1, 5, 10), config.n_query)
        units = RatingUnits.of(source.scale)
        scaled = replace(source.table, rating=units.to_units(source.table.rating))
        als = AlternatingLeastSquares(scaled, config, ctx.generator(source.seed), device)
        best, kept, waited = float("inf"), None, 0
        for sweep in ctx.progress(range(config.sweeps), "mf-foldin: sweeps"):
            als.sweep()
            base, factor = als.normalised()
            self.base, self.factor = units.from_units(base), factor * units.size
            if not validation:
                continue
            score = validation.rmse(self, ctx)
            ctx.log(sweep, validation_rmse=score)
            if score < best - 1e-6:
                best, kept, waited = score, (self.base, self.factor), 0
            else:
                waited += 1
                if waited >= config.patience:
                    break
        if kept is not None:
            self.base, self.factor = kept

    def adapt_batch(self, supports: SupportBatch, ctx: Context) -> BatchPredictor:
        device, config = self.base.device, self.config
        user, item, rating = (column.to(device) for column in self.known.ratings(supports))
        ones = self.factor.new_ones(len(self.factor), 1)
        vector_ridge = config.vector_ridge * RatingUnits.of(ctx.scale).size ** 2  # a vector has no unit, an error has
        ridge = torch.full((config.rank + 1,), vector_ridge, dtype=torch.float64, device=device)
        ridge[0] = config.user_ridge
        regressions = GroupedRidge(user, supports.total_users)
        solved = regressions.solve(torch.cat([ones, self.factor], 1), item, rating - self.base[item], ridge)
        return FactorPredictor(self.base, self.factor, solved[:, 0], solved[:, 1:], supports)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {"base": self.base, "factor": self.factor, **self.known.tensors()}, {}

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any], ctx: Context) -> None:
        device = precise_device(ctx)
        self.base, self.factor = tensors["base"].to(device), tensors["factor"].to(device)
        self.known = KnownUsers.from_tensors(tensors)

    def trainable_parameters(self) -> int:
        return self.base.numel() + self.factor.numel() + self.config.rank + 1


class AlternatingLeastSquares:
    """Alternating least squares for effects and factors, float64, from ridge effects and random user vectors on."""

    def __init__(
        self, table: RatingTable, config: MFFoldInConfig, generator: torch.Generator, device: torch.device
    ) -> None:
        columns = (table.user, table.item, table.rating)
        self.user, self.item, self.rating = (torch.tensor(column, device=device) for column in columns)
        self.by_user = GroupedRidge(self.user, table.n_users)
        self.by_item = GroupedRidge(self.item, table.n_items)
        effects = ridge_effects(table, config.item_ridge, config.meta_user_ridge)
        self.mu, self.unseen = effects.mu, torch.bincount(self.item, minlength=table.n_items) == 0
        start = torch.randn(table.n_users, config.rank, dtype=torch.float64, generator=generator)
        self.of_user = torch.cat([torch.tensor(effects.user).unsqueeze(1), start], 1).to(device)  # (b_u, p_u)
        self.of_item = torch.zeros(table.n_items, config.rank + 1, dtype=torch.float64, device=device)  # (b_i, q_i)
        self.ridge_user, self.ridge_item = (
            torch.tensor([first] + [config.factor_ridge] * config.rank, dtype=torch.float64, device=device)
            for first in (config.meta_user_ridge, config.item_ridge)
        )

    def sweep(self) -> None:
        self.of_item = self._side(self.by_item, self.of_user, self.user, self.ridge_item)
        self.of_user = self._side(self.by_user, self.of_item, self.item, self.ridge_user)

    def _side(self, groups: GroupedRidge, other: Tensor, of_row: Tensor, ridge: Tensor) -> Tensor:
        features = torch.cat([torch.ones_like(other[:, :1]), other[:, 1:]], 1)
        return groups.solve(features, of_row, self.rating - self.mu - other[of_row, 0], ridge)

    def normalised(self) -> tuple[Tensor, Tensor]:
        """Return base (n_items,) and factor (n_items, d) in coordinates in which user vectors have covariance one."""
        bias, vector = self.of_user[:, 0], self.of_user[:, 1:]
        mean = vector.mean(0)
        spread, axes = torch.linalg.eigh((vector - mean).mT @ (vector - mean) / len(vector))
        base = self.mu + bias.mean() + self.of_item[:, 0] + self.of_item[:, 1:] @ mean
        factor = self.of_item[:, 1:] @ axes * spread.clamp(min=0).sqrt()
        weighted_mean = base[self.item].mean()
        return torch.where(self.unseen, weighted_mean, base), factor.masked_fill(self.unseen.unsqueeze(1), 0.0)
