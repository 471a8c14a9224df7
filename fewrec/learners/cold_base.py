"""The model that cold items are warmed up in, and seen items that play cold ones for meta-training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fewrec.data.table import RatingTable
from fewrec.learners.effects import sums_by
from fewrec.learners.item_shots import padded
from fewrec.learners.mf_foldin import AlternatingLeastSquares, MFFoldInConfig
from fewrec.learners.ridge import GroupedRidge


@dataclass(frozen=True, eq=False)
class Ratings:
    """Up to S ratings of each of T items, padded, as the base model sees an item whose ID embedding e (k,) is sought.

    ``z`` (T, S, k) and ``y`` (T, S): the model is ``y = z . e`` plus noise of variance one (``BaseModel.sigma`` is the
    unit); ``user`` (T, S, k): the raters' embeddings; ``mask`` (T, S): 1.0 where there is a rating, else 0.0.
    """

    z: Tensor
    y: Tensor
    user: Tensor
    mask: Tensor

    def error(self, e: Tensor) -> Tensor:
        """Return the errors (T, S) of item embeddings (T, k); 0 where there is no rating."""
        return (self.y - (self.z * e.unsqueeze(1)).sum(2)) * self.mask

    def mse(self, e: Tensor) -> Tensor:
        """Return the mean squared error over all ratings, 0 if there are none."""
        return self.error(e).square().sum() / self.mask.sum().clamp(min=1)

    def descend(self, start: Tensor, steps: int, rate: float, prior: float) -> Tensor:
        """Return item embeddings (T, k) after gradient descent from ``start`` (T, k).

        The loss is ``(sum error^2 + prior |e - start|^2) / 2 / (prior + sum |z|^2)``. Its divisor bounds the curvature,
        so that below a rate of 2 no data set and no number of shots makes the steps diverge; they tend to the posterior
        mean of e ~ N(start, I / prior), however many there are, and reach it at once with one shot and rate 1. The
        first step is that of the squared errors alone.
        """
        gram, moment = self.z.mT @ self.z, (self.z * self.y.unsqueeze(2)).sum(1)
        e, bound = start, prior + self.z.square().sum((1, 2)).unsqueeze(1)
        for _ in range(steps):
            e = e + rate / bound * (moment - (gram @ e.unsqueeze(2)).squeeze(2) - prior * (e - start))
        return e

    def masked(self, mask: Tensor) -> Ratings:
        """Return those ratings alone that ``mask`` (T, S) marks; z and y of the others become zero."""
        return Ratings(self.z * mask.unsqueeze(2), self.y * mask, self.user, self.mask * mask)


class BaseModel:
    """The pre-trained model: ``r = b_u + b_i + p_u . q_i`` (b_i with the global mean), users folded in by ridge.

    A user's embedding is w = (b_u, p_u) (k = rank + 1). An item's ID embedding e (k,) is (b_i, q_i), standardised: each
    coordinate has mean zero and variance one over the meta-train ratings. That is a change of coordinates in which one
    learning rate fits them all; the mean embedding of the existing items, each counted by its ratings, is zero.

    ``e`` (n_items, k); ``centre``, ``spread`` (k,): what e was standardised with; ``sigma`` (): the standard deviation
    of a rating's error, its user folded in without it; ``ridge`` (k,) of folding in; ``users`` (n_users, k): meta-train
    users; ``seen`` (n_items,): which items have ratings in meta-train.
    """

    NAMES = ("e", "centre", "spread", "sigma", "ridge", "users", "seen")

    def __init__(
        self, e: Tensor, centre: Tensor, spread: Tensor, sigma: Tensor, ridge: Tensor, users: Tensor, seen: Tensor
    ) -> None:
        self.e, self.centre, self.spread, self.sigma = e, centre, spread, sigma
        self.ridge, self.users, self.seen = ridge, users, seen

    def tensors(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in self.NAMES}

    @classmethod
    def fit(
        cls,
        table: RatingTable,
        unit: float,
        rank: int,
        sweeps: int,
        generator: torch.Generator,
        device: torch.device,
    ) -> tuple[BaseModel, Tensor]:
        """Return the model and (n_ratings, k): for each rating its user folded in without it.

        ``unit``: ``RatingUnits.size`` of the scale, for which ``mf-foldin``'s ridges are.

        Cold items are simulated with the latter: a vector that was fitted to a rating would tell of it.
        """
        settings = MFFoldInConfig(rank=rank)
        ridges = {"factor_ridge": settings.factor_ridge * unit, "vector_ridge": settings.vector_ridge * unit**2}
        settings = settings.model_copy(update=ridges)
        als = AlternatingLeastSquares(table, settings, generator, device)
        for _ in range(sweeps):
            als.sweep()
        base, factor = als.normalised()
        raw = torch.cat([base.unsqueeze(1), factor], 1)
        of_rating = raw[als.item]
        centre, spread = of_rating.mean(0), of_rating.std(0, unbiased=False)
        spread = torch.where(spread > 1e-9, spread, 1.0)
        ridge = raw.new_tensor([settings.user_ridge] + [settings.vector_ridge] * rank)
        x, y = torch.cat([torch.ones_like(of_rating[:, :1]), of_rating[:, 1:]], 1), als.rating - of_rating[:, 0]
        users, without = leave_one_out(x, y, als.user, table.n_users, ridge)
        sigma = (y - (x * without).sum(1)).square().mean().sqrt().clamp(min=1e-6)
        e = ((raw - centre) / spread).masked_fill(als.unseen.unsqueeze(1), 0.0)
        return cls(e, centre, spread, sigma, ridge, users, ~als.unseen), without

    def fold_in(self, user: Tensor, item: Tensor, rating: Tensor, n_users: int) -> Tensor:
        """Return users' embeddings (n_users, k): the ridge regression of their ratings on the items' vectors."""
        raw = self.centre + self.spread * self.e
        features = torch.cat([torch.ones_like(raw[:, :1]), raw[:, 1:]], 1)
        return GroupedRidge(user, n_users).solve(features, item, rating - raw[item, 0], self.ridge)

    def parts(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """Return level (...,) and z (..., k) of user embeddings (..., k): a rating is ``level + z . e``."""
        one = torch.cat([torch.ones_like(w[..., :1]), w[..., 1:]], -1)
        return w[..., 0] + (one * self.centre).sum(-1), one * self.spread

    def ratings(self, w: Tensor, rating: Tensor, mask: Tensor) -> Ratings:
        """Return ``Ratings`` of raters (T, S, k) and what they gave (T, S)."""
        level, z = self.parts(w)
        mask = mask.to(w.dtype)
        return Ratings(z / self.sigma * mask.unsqueeze(-1), (rating - level) / self.sigma * mask, w, mask)


def leave_one_out(x: Tensor, y: Tensor, group: Tensor, n_groups: int, ridge: Tensor) -> tuple[Tensor, Tensor]:
    """Ridge regressions of y (n,) on x (n, k) by group: (n_groups, k), and (n, k) where row *r* is left out of its own.

    The latter by the Sherman-Morrison formula: ``w - A^-1 x (y - x . w) / (1 - x . A^-1 x)``.
    """
    columns = [sums_by(group, x * x[:, j : j + 1], n_groups) for j in range(x.shape[1])]
    inverse = torch.linalg.inv(torch.stack(columns, 2) + torch.diag(ridge))
    solved = (inverse @ sums_by(group, x * y.unsqueeze(1), n_groups).unsqueeze(2)).squeeze(2)
    without = []
    for rows in torch.arange(len(x), device=x.device).split(1 << 17):  # an inverse a row: bounded memory
        own, w = x[rows], solved[group[rows]]
        direction = (inverse[group[rows]] @ own.unsqueeze(2)).squeeze(2)
        left = (y[rows] - (own * w).sum(1)) / (1 - (own * direction).sum(1))
        without.append(w - direction * left.unsqueeze(1))
    return solved, torch.cat(without)


class SimulatedColdItems:
    """Seen items as if they were cold: tasks of an item, some of its ratings as shots and others to predict."""

    def __init__(
        self, base: BaseModel, table: RatingTable, without: Tensor, max_shots: int, n_query: int, device: torch.device
    ) -> None:
        self.item, self.rating = torch.tensor(table.item, device=device), torch.tensor(table.rating, device=device)
        self.base, self.without, self.max_shots, self.n_query = base, without, max_shots, n_query
        count = torch.bincount(self.item, minlength=table.n_items)
        length = max_shots + n_query
        of_item = torch.repeat_interleave(torch.arange(len(count), device=device), count)
        position = torch.arange(len(of_item), device=device) - (count.cumsum(0) - count)[of_item]
        tasks = -(-count // length)
        self.task_item = torch.repeat_interleave(torch.arange(len(count), device=device), tasks)
        self.rows, self.mask = padded((tasks.cumsum(0) - tasks)[of_item] + position // length, len(self.task_item))

    def batches(self, generator: torch.Generator, size: int) -> Iterator[tuple[Tensor, Ratings, Ratings]]:
        """Yield meta-batches of up to ``size`` tasks without end: (items (T,), shots, query).

        In each pass every rating occurs once: an item's ratings are cut at random into tasks of up to ``max_shots +
        n_query``, so that an item has tasks in proportion to its ratings; the number of shots is uniform over
        0..``max_shots``.
        """
        device = self.rows.device
        while True:
            shuffled = torch.randperm(len(self.item), generator=generator).to(device)
            by_item = shuffled[self.item[shuffled].argsort(stable=True)]
            order = torch.randperm(len(self.task_item), generator=generator).to(device)
            shots = torch.randint(0, self.max_shots + 1, (len(order), 1), generator=generator).to(device)
            for tasks, m in zip(order.split(size), shots.split(size), strict=True):
                rows, mask = by_item[self.rows[tasks]], self.mask[tasks]
                drawn = self.base.ratings(self.without[rows], self.rating[rows], mask)
                first = torch.arange(mask.shape[1], device=device) < torch.minimum(m, mask.sum(1, keepdim=True) - 1)
                yield self.task_item[tasks], drawn.masked(first), drawn.masked(~first)
