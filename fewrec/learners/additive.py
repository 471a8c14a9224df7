"""The predictors of additive models: a number for each item, one for each user, and a product of vectors."""

from __future__ import annotations

from torch import Tensor

from fewrec.episodes.support import SupportBatch
from fewrec.learners.base import BatchPredictor


class EffectsPredictor(BatchPredictor):
    """Predict ``item + user``: ``item`` is (n_items,), ``user`` (total_users,), users numbered through the batch."""

    def __init__(self, item: Tensor, user: Tensor, supports: SupportBatch) -> None:
        self.item, self.user, self.supports = item, user, supports

    def predict(self, episode: Tensor, user: Tensor, item: Tensor) -> Tensor:
        device = self.user.device
        return self.user[self.supports.flat_user(episode, user).to(device)] + self.item[item.to(device)]


class FactorPredictor(BatchPredictor):
    """Predict ``base_i + b_u + p_u . q_i``.

    ``base`` is (n_items,) and ``factor`` (n_items, d); ``bias`` (total_users,) and ``vector`` (total_users, d) are of
    the batch's users.
    """

    def __init__(self, base: Tensor, factor: Tensor, bias: Tensor, vector: Tensor, supports: SupportBatch) -> None:
        self.base, self.factor, self.bias, self.vector, self.supports = base, factor, bias, vector, supports

    def predict(self, episode: Tensor, user: Tensor, item: Tensor) -> Tensor:
        flat = self.supports.flat_user(episode, user).to(self.base.device)
        item = item.to(self.base.device)
        return self.base[item] + self.bias[flat] + (self.vector[flat] * self.factor[item]).sum(1)
