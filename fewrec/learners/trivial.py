"""The trivial rows of every table (means, median, popularity, chance): what a method must beat to be worth reading."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.support import Support, SupportBatch
from fewrec.learners.additive import EffectsPredictor
from fewrec.learners.base import (
    BatchedLearner,
    BatchPredictor,
    Context,
    Learner,
    LearnerConfig,
    Predictor,
)
from fewrec.learners.effects import sums_by
from fewrec.seeding import mix


class _Constant(Predictor):
    def __init__(self, value: Tensor) -> None:
        self.value = value

    def predict(self, users: Tensor, items: Tensor) -> Tensor:
        return self.value[users]


class SupportMean(Learner):
    """Predict the mean of a user's support; the smallest learner there is, and the example to begin with."""

    name = "support-mean"
    closed_form = True
    needs = frozenset({"k>0"})

    def adapt(self, support: Support, ctx: Context) -> Predictor:
        count = torch.bincount(support.user, minlength=support.n_users)
        return _Constant(sums_by(support.user, support.rating, support.n_users) / count)


class _OneTensor(BatchedLearner):
    """A learner whose whole state is one float64 tensor, ``fitted``."""

    fitted: Tensor

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {"fitted": self.fitted}, {}

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any], ctx: Context) -> None:
        self.fitted = tensors["fitted"].cpu()

    def trainable_parameters(self) -> int:
        return self.fitted.numel()


class _ItemPredictor(BatchPredictor):
    """One number an item, whoever asks."""

    def __init__(self, item: Tensor) -> None:
        self.item = item

    def predict(self, episode: Tensor, user: Tensor, item: Tensor) -> Tensor:
        return self.item[item.cpu()]


class GlobalMean(_OneTensor):
    """Predict the mean rating of meta-train."""

    name = "global-mean"
    closed_form = True

    def meta_fit(self, source: MetaTrainSet, ctx: Context) -> None:
        self.fitted = torch.tensor([source.table.rating.mean()])

    def adapt_batch(self, supports: SupportBatch, ctx: Context) -> BatchPredictor:
        return _ItemPredictor(self.fitted.expand(len(ctx.catalog)))


class UserMeanConfig(LearnerConfig):
    """Options of ``user-mean``: the support mean is shrunk as if by ``shrinkage`` ratings at the global mean."""

    shrinkage: float = Field(6.0, ge=0)


class UserMean(_OneTensor):
    """Predict ``(sum of the user's support + s mu) / (K + s)``, mu the mean rating of meta-train, s ``shrinkage``."""

    name = "user-mean"
    closed_form = True
    Config = UserMeanConfig
    adapt_options = frozenset({"shrinkage"})

    def meta_fit(self, source: MetaTrainSet, ctx: Context) -> None:
        self.fitted = torch.tensor([source.table.rating.mean()])

    def adapt_batch(self, supports: SupportBatch, ctx: Context) -> BatchPredictor:
        user, size = supports.flat_user().cpu(), supports.total_users
        offset = sums_by(user, supports.rating.cpu().double() - self.fitted, size)
        weight = torch.bincount(user, minlength=size) + self.config.shrinkage
        mean_offset = offset / weight.clamp(min=1e-12)  # K = 0 without shrinkage: no offset
        return EffectsPredictor(self.fitted.expand(len(ctx.catalog)), mean_offset, supports)


class UserMedian(BatchedLearner):
    """Predict the median of the user's support; of an even number the mean of the two in the middle."""

    name = "user-median"
    closed_form = True
    needs = frozenset({"k>0"})

    def adapt_batch(self, supports: SupportBatch, ctx: Context) -> BatchPredictor:
        user, rating = supports.flat_user().cpu(), supports.rating.cpu().double()
        order = rating.argsort(stable=True)
        order = order[user[order].argsort(stable=True)]
        count = torch.bincount(user, minlength=supports.total_users)
        first = count.cumsum(0) - count
        by_user = rating[order]
        low, high = first + ((count - 1) // 2).clamp(min=0), first + count // 2
        return EffectsPredictor(torch.zeros(len(ctx.catalog)).double(), (by_user[low] + by_user[high]) / 2, supports)


class ItemMeanConfig(LearnerConfig):
    """Options of ``item-mean``: an item's mean is shrunk as if by ``shrinkage`` ratings at the global mean."""

    shrinkage: float = Field(5.0, gt=0)


class ItemMean(_OneTensor):
    """Predict ``(sum of the item's meta-train ratings + s mu) / (n + s)``: the global mean mu for an unseen item."""

    name = "item-mean"
    closed_form = True
    Config = ItemMeanConfig

    def meta_fit(self, source: MetaTrainSet, ctx: Context) -> None:
        table, s = source.table, self.config.shrinkage
        total = np.bincount(table.item, table.rating, table.n_items)
        count = np.bincount(table.item, minlength=table.n_items)
        self.fitted = torch.from_numpy((total + s * table.rating.mean()) / (count + s))

    def adapt_batch(self, supports: SupportBatch, ctx: Context) -> BatchPredictor:
        return _ItemPredictor(self.fitted)


class ItemPopularity(_OneTensor):
    """Predict ``a + b log(1 + n_i)``, n_i the number of meta-train ratings of the item; of clicks, that of its clicks.

    The ranking is by popularity alone; a and b are the least-squares line through the meta-train ratings, which puts it
    on the rating scale. b is kept positive: a more popular item is never ranked lower, whatever the ratings say.
    An item without ratings there was put aside by the split, which says nothing of its popularity: it gets their mean.
    """

    name = "item-popularity"
    closed_form = True

    def meta_fit(self, source: MetaTrainSet, ctx: Context) -> None:
        table = source.table
        rows = np.bincount(table.item, minlength=table.n_items)
        # of clicks, what was shown and not clicked is no popularity
        counts = np.bincount(table.item, table.rating, minlength=table.n_items) if source.scale.of_clicks else rows
        popularity = np.log1p(counts)
        x, y = popularity[table.item], table.rating
        spread = np.mean((x - x.mean()) ** 2)
        slope = np.mean((x - x.mean()) * (y - y.mean())) / spread if spread > 0 else 0.0
        slope = max(slope, 1e-6 * (source.scale.high - source.scale.low))
        line = y.mean() + slope * (popularity - x.mean())
        self.fitted = torch.from_numpy(np.where(rows > 0, line, y.mean()))

    def adapt_batch(self, supports: SupportBatch, ctx: Context) -> BatchPredictor:
        return _ItemPredictor(self.fitted)


class RandomRating(_OneTensor):
    """Predict a rating drawn from those of meta-train, each with the same chance.

    The draw is a hash of (the episode's seed, user, item), so that it doesn't depend on what else is asked.
    """

    name = "random"
    closed_form = True
    task = "episode"  # the seed is the episode's, and users are numbered within it

    def meta_fit(self, source: MetaTrainSet, ctx: Context) -> None:
        levels, count = np.unique(source.table.rating, return_counts=True)
        self.fitted = torch.from_numpy(np.stack([levels, np.cumsum(count) / count.sum()]))

    def adapt_batch(self, supports: SupportBatch, ctx: Context) -> BatchPredictor:
        return _DrawnRatings(self.fitted, supports.seeds.cpu().numpy())

    def trainable_parameters(self) -> int:
        return self.fitted.shape[1]


class _DrawnRatings(BatchPredictor):
    def __init__(self, levels: Tensor, seeds: np.ndarray) -> None:
        self.levels, self.seeds = levels, seeds

    def predict(self, episode: Tensor, user: Tensor, item: Tensor) -> Tensor:
        key = mix(self.seeds.astype(np.uint64)[episode.cpu().numpy()], user.cpu().numpy())
        bits = mix(key, item.cpu().numpy())
        uniform = torch.from_numpy((bits >> np.uint64(11)).astype(np.float64) / 2**53)
        place = torch.searchsorted(self.levels[1].contiguous(), uniform, right=True)
        return self.levels[0][place.clamp(max=self.levels.shape[1] - 1)]
