"""User neighbours: the bias model, corrected by the residuals of meta-train users who rated alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.support import SupportBatch
from fewrec.learners.base import BatchedLearner, BatchPredictor, Context, LearnerConfig
from fewrec.learners.effects import KnownUsers, precise_device, ridge_effects, sums_by, with_unseen
from fewrec.learners.validation import Validation

_PAIRS = 1 << 22


NEIGHBOUR_RIDGES = (5.0, 10.0, 20.0, 40.0, 80.0)


class KNNConfig(LearnerConfig):
    """Options of ``knn``; ridges and ``shrinkage`` are in units of ratings.

    ``item_ridge``, ``meta_user_ridge`` and ``user_ridge`` belong to the baseline, as in ``bias``. ``shrinkage``: that
    many ratings in common, of average size and without agreement, are added to those of every two users.
    ``neighbour_ridge``: the sum of similarities that halves the correction; None: the best of 5, 10 ... 80 by
    meta-validation (K = 1, 5, 10, ``n_query`` ratings to predict), because it grows with the number of raters.
    ``gain`` multiplies the correction.
    """

    item_ridge: float = Field(5.0, gt=0)
    meta_user_ridge: float = Field(10.0, gt=0)
    user_ridge: float = Field(6.0, gt=0)
    shrinkage: float = Field(10.0, gt=0)
    neighbour_ridge: float | None = Field(None, gt=0)
    gain: float = Field(2.0, gt=0)
    n_query: int = Field(10, ge=1)


class KNN(BatchedLearner):
    """Predict ``b_ui + gain sum_v s_uv e_vi / (ridge + sum_v |s_uv|)`` over the meta-train users v who rated item i.

    b_ui is the prediction of the bias model and ``e_vi = r_vi - b_vi``. The similarity, over the items that u (in the
    support) and v rated, is ``s_uv = sum e_u e_v / sqrt((sum e_u^2 + c) (sum e_v^2 + c))`` with c = ``shrinkage`` times
    the mean of e^2 over meta-train.

    Source: Herlocker, Konstan, Borchers & Riedl, SIGIR 1999: deviations from the mean, weighted by correlation and by
    the significance of few ratings in common (n/50 below 50); Koren, KDD 2008, eqs. 2 and 3 (there between items): the
    similarity of residuals from a baseline, shrunk by ``n / (n + shrinkage)``. Deviations: (1) the correlation is about
    zero, not about the means of the ratings in common, as those are taken off by the baseline and of one rating there
    is no correlation; (2) both kinds of shrinkage became the constant c, which also gives less weight to ratings that
    are near the expected one, and equals Koren's for residuals of average size; (3) all raters are neighbours, with
    similarities of either sign, instead of the most similar ones, of which K = 1 has too many that are alike; (4) the
    ridge in the denominator lets weak evidence correct little, where a plain weighted mean corrects as much by one
    rating as by twenty, and gets worse than ``bias``; the gain makes up for what shrinkage takes from all. A user's own
    ratings in meta-train count as support, and one is no neighbour of oneself. For an item without a rating there the
    prediction is that of ``bias``.
    """

    name = "knn"
    paper = "Herlocker et al., SIGIR 1999; Koren, KDD 2008"
    closed_form = True
    Config = KNNConfig
    batch_episodes = 200
    neighbour_ridge: float

    def meta_fit(self, source: MetaTrainSet, ctx: Context) -> None:
        table, device = source.table, precise_device(ctx)
        effects = ridge_effects(table, self.config.item_ridge, self.config.meta_user_ridge)
        base = effects.mu + with_unseen(effects.item, table)
        self.known = KnownUsers.of(table)
        user, item = torch.tensor(table.user, device=device), torch.tensor(table.item, device=device)
        residual = torch.tensor(table.rating - base[table.item] - effects.user[table.user], device=device)
        order = item.argsort(stable=True)
        ends = torch.bincount(item, minlength=table.n_items).cumsum(0)
        self.base = torch.from_numpy(base).to(device)
        self.rater, self.residual = user[order], residual[order]
        self.offsets = torch.cat([ends.new_zeros(1), ends])
        self.n_raters = table.n_users
        self.scale = float(residual.square().mean())
        self.neighbour_ridge = self.config.neighbour_ridge or 20.0
        validation = Validation(source, (1, 5, 10), self.config.n_query)
        if self.config.neighbour_ridge is None and validation:
            self.neighbour_ridge = self._best_ridge(validation, ctx)

    def _best_ridge(self, validation: Validation, ctx: Context) -> float:
        """Return the ridge of least ``Validation.rmse``; the similarities are computed once for all ridges."""
        score = torch.zeros(len(NEIGHBOUR_RIDGES), dtype=torch.float64)
        for drawn in ctx.progress(validation.episodes, "knn: meta-validation"):
            query, predictor = drawn.query, self.adapt_batch(drawn.support, ctx)
            expected, above, below = (x.cpu() for x in predictor.parts(query.episode, query.user, query.item))
            for n, ridge in enumerate(NEIGHBOUR_RIDGES):
                predicted = validation.scale.clip(expected + self.config.gain * above / (below + ridge))
                score[n] += (predicted - drawn.answers.rating).square().mean().sqrt()
        return NEIGHBOUR_RIDGES[int(score.argmin())]

    def adapt_batch(self, supports: SupportBatch, ctx: Context) -> KNNPredictor:
        return KNNPredictor(self, supports)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        own = {"base": self.base, "rater": self.rater, "residual": self.residual, "offsets": self.offsets}
        values = {"n_raters": self.n_raters, "scale": self.scale, "neighbour_ridge": self.neighbour_ridge}
        return {**own, **self.known.tensors()}, values

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any], ctx: Context) -> None:
        device = precise_device(ctx)
        names = ("base", "rater", "residual", "offsets")
        self.base, self.rater, self.residual, self.offsets = (tensors[name].to(device) for name in names)
        self.known, self.n_raters = KnownUsers.from_tensors(tensors), int(values["n_raters"])
        self.scale, self.neighbour_ridge = float(values["scale"]), float(values["neighbour_ridge"])

    def trainable_parameters(self) -> int:
        return len(self.base) + self.n_raters + 1

    def raters(self, item: Tensor) -> tuple[Tensor, Tensor]:
        """Return (row of ``item``, position in ``rater`` and ``residual``) of all meta-train ratings of the items."""
        start, count = self.offsets[item], self.offsets[item + 1] - self.offsets[item]
        row = torch.repeat_interleave(torch.arange(len(item), device=item.device), count)
        within = torch.arange(len(row), device=item.device) - (count.cumsum(0) - count)[row]
        return row, start[row] + within

    def slices(self, item: Tensor) -> list[slice]:
        """Cut rows of ``item`` into slices of about ``_PAIRS`` ratings, which bounds the memory of ``raters``."""
        total = (self.offsets[item + 1] - self.offsets[item]).cumsum(0)
        if not len(total):
            return []
        steps = torch.arange(0, int(total[-1]), _PAIRS, device=total.device)[1:]
        cuts = sorted({0, *torch.searchsorted(total, steps).tolist(), len(item)})
        return [slice(low, high) for low, high in zip(cuts, cuts[1:], strict=False)]


class KNNPredictor(BatchPredictor):
    """``similarity`` is (total_users, n_meta_train_users)."""

    def __init__(self, learner: KNN, supports: SupportBatch) -> None:
        self.learner, self.supports = learner, supports
        config, device, size = learner.config, learner.base.device, supports.total_users
        user, item, rating = (column.to(device) for column in learner.known.ratings(supports))
        effect = sums_by(user, rating - learner.base[item], size)
        self.effect = effect / (torch.bincount(user, minlength=size) + config.user_ridge)
        residual = rating - learner.base[item] - self.effect[user]
        cells = size * learner.n_raters
        product, mine, theirs = (residual.new_zeros(cells) for _ in range(3))
        for part in learner.slices(item):
            row, at = learner.raters(item[part])
            cell = user[part][row] * learner.n_raters + learner.rater[at]
            of_user, of_rater = residual[part][row], learner.residual[at]
            product.scatter_add_(0, cell, of_user * of_rater)
            mine.scatter_add_(0, cell, of_user.square())
            theirs.scatter_add_(0, cell, of_rater.square())
        prior = config.shrinkage * learner.scale
        similarity = product / ((mine + prior) * (theirs + prior)).sqrt()
        self.similarity = similarity.reshape(size, learner.n_raters)
        meta_user = supports.meta_user.to(device)
        known = (meta_user >= 0).nonzero().squeeze(1)
        self.similarity[known, meta_user[known]] = 0.0  # nobody is a neighbour of oneself

    def predict(self, episode: Tensor, user: Tensor, item: Tensor) -> Tensor:
        expected, above, below = self.parts(episode, user, item)
        return expected + self.learner.config.gain * above / (below + self.learner.neighbour_ridge)

    def parts(self, episode: Tensor, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the bias model's prediction and the sums of ``s e`` and ``|s|`` over the item's raters, each (n,)."""
        learner, device = self.learner, self.effect.device
        flat, item = self.supports.flat_user(episode, user).to(device), item.to(device)
        above, below = (self.effect.new_zeros(len(item)) for _ in range(2))
        for part in learner.slices(item):
            row, at = learner.raters(item[part])
            weight = self.similarity[flat[part][row], learner.rater[at]]
            above[part] = sums_by(row, weight * learner.residual[at], part.stop - part.start)
            below[part] = sums_by(row, weight.abs(), part.stop - part.start)
        return learner.base[item] + self.effect[flat], above, below
