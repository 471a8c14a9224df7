"""A learner that knows items by their genres: what a user's few ratings say of a genre holds for all of its items."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.support import SupportBatch
from fewrec.learners.base import BatchedLearner, BatchPredictor, Context, LearnerConfig


class GenreTasteConfig(LearnerConfig):
    """Options of `genre-taste`; a ridge is so many ratings without an effect, added to those that there are."""

    genre_ridge: float = Field(5.0, gt=0, description="shrinks the genres' means in meta-train")
    item_ridge: float = Field(5.0, gt=0, description="shrinks the items' means in meta-train, towards their genres'")
    user_ridge: float = Field(6.0, gt=0, description="shrinks the mean residual of a user")
    taste_ridge: float = Field(4.0, gt=0, description="shrinks the mean residual of a user in a genre")


class GenreTaste(BatchedLearner):
    """Predict bias with genre means, plus how the user's ratings of the item's genres differ from the expected ones.

    ``base_i = mu + g_i + b_i`` from meta-train: g_i is the mean of the effects of the item's genres, b_i the item's own
    effect, zero without ratings. From the support, ``a_u = sum e / (n + user_ridge)`` with ``e = r - base_i``, then for
    each genre ``t_ug = sum w (e - a_u) / (sum w + taste_ridge)`` over the items of the genre, an item with m genres
    having the weight w = 1/m in each. The prediction is ``base_i + a_u + sum_g w_ig t_ug``.
    """

    name = "genre-taste"
    Config = GenreTasteConfig
    needs = frozenset({"item_text"})
    paper = "example of the fewrec documentation"
    adapt_options = frozenset({"user_ridge", "taste_ridge"})
    closed_form = True

    def prepare(self, ctx: Context) -> None:
        """Make the weights of genres in items, (n_items, n_genres), rows that sum to one (or zero: no genre known)."""
        genres = [[name.strip() for name in row.split(",") if name.strip()] for row in ctx.catalog.text["genres"]]
        names = sorted({name for row in genres for name in row})
        weight = torch.zeros(len(genres), max(1, len(names)), dtype=torch.float64)
        for item, row in enumerate(genres):
            for name in set(row):
                weight[item, names.index(name)] = 1 / len(set(row))
        self.weight = weight

    def meta_fit(self, source: MetaTrainSet, ctx: Context) -> None:
        item, residual = torch.tensor(source.table.item), torch.tensor(source.table.rating)
        mean = residual.mean()
        residual = residual - mean
        weight = self.weight[item]
        genre = (weight * residual[:, None]).sum(0) / (weight.sum(0) + self.config.genre_ridge)
        expected = self.weight @ genre
        count = torch.bincount(item, minlength=source.table.n_items)
        total = torch.zeros_like(expected).index_add(0, item, residual - expected[item])
        self.base = mean + expected + total / (count + self.config.item_ridge)

    def adapt_batch(self, supports: SupportBatch, ctx: Context) -> BatchPredictor:
        user, size = supports.flat_user(), supports.total_users
        residual = supports.rating - self.base[supports.item]
        count = torch.bincount(user, minlength=size)
        offset = torch.zeros(size, dtype=torch.float64).index_add(0, user, residual) / (count + self.config.user_ridge)
        weight = self.weight[supports.item]
        zero = torch.zeros(size, weight.shape[1], dtype=torch.float64)
        above = zero.index_add(0, user, weight * (residual - offset[user])[:, None])
        taste = above / (zero.index_add(0, user, weight) + self.config.taste_ridge)
        return GenreTastePredictor(self.base, self.weight, offset, taste, supports)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {"base": self.base}, {}

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any], ctx: Context) -> None:
        self.base = tensors["base"]

    def trainable_parameters(self) -> int:
        return len(self.base) + self.weight.shape[1] + 1


class GenreTastePredictor(BatchPredictor):
    """``offset`` is (total_users,), ``taste`` (total_users, n_genres)."""

    def __init__(self, base: Tensor, weight: Tensor, offset: Tensor, taste: Tensor, supports: SupportBatch) -> None:
        self.base, self.weight, self.offset, self.taste, self.supports = base, weight, offset, taste, supports

    def predict(self, episode: Tensor, user: Tensor, item: Tensor) -> Tensor:
        flat = self.supports.flat_user(episode, user)
        return self.base[item] + self.offset[flat] + (self.weight[item] * self.taste[flat]).sum(1)
