"""Matrix factorization trained on an episode's support alone: what a learner reaches that has never seen meta-train."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from fewrec.episodes.support import SupportBatch
from fewrec.learners.base import BatchedLearner, BatchPredictor, Context, LearnerConfig
from fewrec.learners.effects import precise_device, sums_by


class MFScratchConfig(LearnerConfig):
    """Options of ``mf-scratch``.

    ``user_ridge``, ``item_ridge``, ``factor_ridge``: in units of ratings, for user effects, item effects and factors.
    ``initial_scale``: standard deviation of the random factors that training starts from. ``learning_rate`` is Adam's.
    """

    rank: int = Field(4, ge=1, le=256)
    steps: int = Field(60, ge=0, le=100_000)
    learning_rate: float = Field(0.05, gt=0)
    user_ridge: float = Field(5.0, ge=0)
    item_ridge: float = Field(10.0, ge=0)
    factor_ridge: float = Field(5.0, ge=0)
    initial_scale: float = Field(0.1, ge=0)
    dtype: Literal["float32", "float64"] = "float32"


class MFScratch(BatchedLearner):
    """Predict ``mu + b_u + b_i + p_u . q_i``, mu the mean of the episode's support, joint over its users.

    Minimises half the sum of ``(r - mu - b_u - b_i - p_u . q_i)^2`` and of the ridges (Koren, Bell & Volinsky, IEEE
    Computer 2009, eq. 5) by ``steps`` of full-batch Adam (Kingma & Ba, ICLR 2015; betas .9 and .999), from zero effects
    and random factors. All episodes of a batch train together: every (episode, user) and every (episode, item of its
    support) has a row of one table, and as no rating joins rows of two episodes, neither does a gradient. An item
    outside the support has no row; its effect and product are what they are expected to be at the start, zero.
    """

    name = "mf-scratch"
    paper = "Koren, Bell & Volinsky, IEEE Computer 2009"
    Config = MFScratchConfig
    task = "episode"
    needs = frozenset({"k>0"})

    def adapt_batch(self, supports: SupportBatch, ctx: Context) -> BatchPredictor:
        config = self.config
        dtype = getattr(torch, config.dtype)
        device = precise_device(ctx) if dtype == torch.float64 else ctx.device
        episode, rating = supports.episode.to(device), supports.rating.to(device, dtype)
        n_users, n_items = supports.total_users, len(ctx.catalog)
        # Rows of the table: users first, then the distinct items of each episode, ordered by episode and code.
        pairs, place = torch.unique(episode * n_items + supports.item.to(device), return_inverse=True)
        user, item = supports.flat_user().to(device), n_users + place

        size = torch.bincount(episode, minlength=len(supports))
        mu = sums_by(episode, rating, len(supports)) / size.clamp(min=1)
        target = rating - mu[episode]

        items_of_episode = torch.bincount(pairs // n_items, minlength=len(supports))
        value = self._initial(supports, items_of_episode, ctx).to(device, dtype)
        ridge = torch.full_like(value, config.factor_ridge)
        ridge[:n_users, 0], ridge[n_users:, 0] = config.user_ridge, config.item_ridge
        value = self._train(value, ridge, user, item, target)
        return _LocalFactors(value, pairs, mu, n_items, supports)

    def _initial(self, supports: SupportBatch, n_items: Tensor, ctx: Context) -> Tensor:
        """Return column 0 for the effects, zero, and random factors, drawn for each episode from its own seed."""
        rank, n_users = self.config.rank, supports.n_users.tolist()
        drawn = [
            torch.randn(users + items, rank, generator=ctx.generator(seed), dtype=torch.float64).split([users, items])
            for users, items, seed in zip(n_users, n_items.tolist(), supports.seeds.tolist(), strict=True)
        ]
        factors = torch.cat([users for users, _ in drawn] + [items for _, items in drawn]) * self.config.initial_scale
        return torch.cat([factors.new_zeros(len(factors), 1), factors], 1)

    def _train(self, value: Tensor, ridge: Tensor, user: Tensor, item: Tensor, target: Tensor) -> Tensor:
        """Minimise the loss by Adam with the gradient written out, which spares a graph a step."""
        both, other = torch.cat([user, item]), torch.cat([item, user])
        mean, square = torch.zeros_like(value), torch.zeros_like(value)
        for step in range(1, self.config.steps + 1):
            features = value[other]
            features[:, 0] = 1.0  # an effect's input; the factors' inputs are the other side's factors
            error = _score(value, user, item) - target
            gradient = (ridge * value).index_add_(0, both, torch.cat([error, error]).unsqueeze(1) * features)
            mean.lerp_(gradient, 0.1)
            square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
            unbiased = (square / (1 - 0.999**step)).sqrt_().add_(1e-8)
            value = value.addcdiv(mean, unbiased, value=-self.config.learning_rate / (1 - 0.9**step))
        return value

    def trainable_parameters(self) -> int:
        return self.config.rank + 1  # for each user and each item of an episode


def _score(value: Tensor, user: Tensor, item: Tensor) -> Tensor:
    of_user, of_item = value[user], value[item]
    return of_user[:, 0] + of_item[:, 0] + (of_user[:, 1:] * of_item[:, 1:]).sum(1)


class _LocalFactors(BatchPredictor):
    """The trained table, whose rows behind the users' belong to ``pairs`` (sorted): episode * n_items + item."""

    def __init__(self, value: Tensor, pairs: Tensor, mu: Tensor, n_items: int, supports: SupportBatch) -> None:
        self.value, self.pairs, self.mu, self.n_items, self.supports = value, pairs, mu, n_items, supports

    def predict(self, episode: Tensor, user: Tensor, item: Tensor) -> Tensor:
        device = self.value.device
        flat, episode = self.supports.flat_user(episode, user).to(device), episode.to(device)
        pair = episode * self.n_items + item.to(device)
        place = torch.searchsorted(self.pairs, pair).clamp(max=max(len(self.pairs) - 1, 0))
        known = self.pairs[place] == pair
        row = self.supports.total_users + place
        score = torch.where(known, _score(self.value, flat, row), self.value[flat, 0])
        return self.mu[episode] + score
