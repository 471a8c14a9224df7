"""The bias model, the row that every other one is compared with: global + item + user effect, in closed form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.support import SupportBatch
from fewrec.learners.additive import EffectsPredictor
from fewrec.learners.base import BatchedLearner, BatchPredictor, Context, LearnerConfig
from fewrec.learners.effects import KnownUsers, ridge_effects, sums_by, with_unseen
from fewrec.learners.item_shots import ItemShots


class BiasConfig(LearnerConfig):
    """Options of ``bias``; a ridge is in units of ratings: it shrinks as that many ratings without an effect would.

    ``item_ridge`` and ``meta_user_ridge`` shrink items and users in meta-fitting, ``user_ridge`` an episode's users.
    """

    item_ridge: float = Field(5.0, gt=0)
    meta_user_ridge: float = Field(10.0, gt=0)
    user_ridge: float = Field(6.0, gt=0)


class Bias(BatchedLearner):
    """Predict ``mu + b_i + b_u``.

    mu and b_i come from meta-train (``ridge_effects``); an item without a rating there has the rating-weighted mean
    effect. A user's effect comes from all ratings that are known of the user, the support and, for a meta-train user,
    those in meta-train: ``b_u = sum(r - mu - b_i) / (n + user_ridge)``; without any it is zero.

    Source: Koren, Bell & Volinsky, Matrix Factorization Techniques for Recommender Systems, IEEE Computer 2009, eq. 3.
    """

    name = "bias"
    paper = "Koren, Bell & Volinsky, IEEE Computer 2009"
    closed_form = True
    Config = BiasConfig
    adapt_options = frozenset({"user_ridge"})

    def meta_fit(self, source: MetaTrainSet, ctx: Context) -> None:
        effects = ridge_effects(source.table, self.config.item_ridge, self.config.meta_user_ridge)
        self.base = torch.from_numpy(effects.mu + with_unseen(effects.item, source.table))
        self.known = KnownUsers.of(source.table)

    def adapt_batch(self, supports: SupportBatch, ctx: Context) -> BatchPredictor:
        return self._without_shots(supports)

    def _without_shots(self, supports: SupportBatch) -> EffectsPredictor:
        user, item, rating = self.known.ratings(supports)
        size = supports.total_users
        total = sums_by(user, rating - self.base[item], size)
        effect = total / (torch.bincount(user, minlength=size) + self.config.user_ridge)
        return EffectsPredictor(self.base, effect, supports)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {"base": self.base, **self.known.tensors()}, {}

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any], ctx: Context) -> None:
        self.base, self.known = tensors["base"].cpu(), KnownUsers.from_tensors(tensors)

    def trainable_parameters(self) -> int:
        return len(self.base) + 2  # one an item, mu, and the user's effect


class BiasShots(Bias):
    """``bias`` that also uses the few ratings of unseen items that the protocol gives (``item_shots``).

    An item without a rating in meta-train has the mean effect b plus ``sum(r - mu - b_v - b) / (m + item_ridge)`` over
    its m ratings, b_v being the effects of the meta-train users v who gave them. This is what methods that warm up cold
    items have to beat; a learner that makes no use of these ratings is to be compared with ``bias``.
    """

    name = "bias-shots"
    needs = frozenset({"item_ratings"})

    def meta_fit(self, source: MetaTrainSet, ctx: Context) -> None:
        super().meta_fit(source, ctx)
        effects = ridge_effects(source.table, self.config.item_ridge, self.config.meta_user_ridge)
        self.unseen = torch.from_numpy(np.bincount(source.table.item, minlength=source.table.n_items) == 0)
        self.meta_user = torch.from_numpy(effects.user)

    def adapt_batch(self, supports: SupportBatch, ctx: Context) -> BatchPredictor:
        predictor, shots = self._without_shots(supports), ItemShots.of(supports, self.unseen)
        start = self.base[shots.item]
        residual = shots.rating - self.meta_user[shots.meta_user] - start[shots.pair]
        count = torch.bincount(shots.pair, minlength=len(shots))
        base = start + sums_by(shots.pair, residual, len(shots)) / (count + self.config.item_ridge)
        return _WithItemShots(predictor, shots, base) if len(shots) else predictor

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, values = super().state()
        return {**tensors, "unseen": self.unseen, "meta_user": self.meta_user}, values

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any], ctx: Context) -> None:
        super().load_state(tensors, values, ctx)
        self.unseen, self.meta_user = tensors["unseen"].cpu(), tensors["meta_user"].cpu()


class _WithItemShots(BatchPredictor):
    """The predictions of ``shared``, but with ``base`` (P,) for the (episode, item) pairs that have shots."""

    def __init__(self, shared: EffectsPredictor, shots: ItemShots, base: Tensor) -> None:
        self.shared, self.shots, self.base = shared, shots, base

    def predict(self, episode: Tensor, user: Tensor, item: Tensor) -> Tensor:
        shared, (pair, found) = self.shared, self.shots.find(episode, item)
        base = torch.where(found, self.base[pair], shared.item[item])
        return shared.user[shared.supports.flat_user(episode, user)] + base
