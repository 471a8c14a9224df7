"""A Gaussian process over ratings, its covariance fitted on meta-train: a new user is conditioned on in closed form."""

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
from fewrec.learners.effects import KnownUsers, precise_device, ridge_effects
from fewrec.learners.ridge import GroupedRidge, GroupSums
from fewrec.learners.validation import Validation

SELECTION_GRID = (0.0, 0.25, 0.5, 0.75, 1.0)
_ROWS = 32768


class GPConfig(LearnerConfig):
    """Options of ``gp``. Variances, and with them all shrinkage of users and items, are not options: they are fitted.

    ``rank``: number of collaborative factors; superfluous ones are shrunk away by the fit. ``selection``: how much the
    choice of the items that a user rated counts as evidence, from 0 (ignored: a plain Gaussian process) to 1 (as the
    model of the choice says); None: the best of 0, 0.25 ... 1 by meta-validation. ``selection_ridge``: the number of
    average users added to the raters of each item in that model. Of at most ``sweeps`` of EM the best by
    meta-validation (K = 1, 5, 10, ``n_query`` ratings to predict) is kept; they end after ``patience`` without a
    better one.
    """

    rank: int = Field(16, ge=1, le=256)
    selection: float | None = Field(None, ge=0, le=1)
    selection_ridge: float = Field(10.0, gt=0)
    sweeps: int = Field(40, ge=1)
    patience: int = Field(3, ge=1)
    n_query: int = Field(10, ge=1)


class GP(BatchedLearner):
    """Condition a Gaussian process on a user's ratings: ``r_ui = m_i + x_i . y_u + noise``, ``y_u ~ N(0, S)``.

    ``x_i = (1, w_i)`` and ``y_u = (offset, factors)``, so the ratings of one user are jointly Gaussian with mean
    ``m_i`` and covariance ``C_ij = x_i' S x_j`` plus noise on the diagonal: a user offset and a low-rank collaborative
    part.

    A prediction is the exact posterior mean given the support, and ``distribution`` has its standard deviation, noise
    included (Rasmussen & Williams, Gaussian Processes for Machine Learning, 2006: eqs. 2.25-2.26, computed in weight
    space by eq. 2.11, since the factors stay few however many ratings there are).

    Meta-fit: EM for probabilistic PCA (Tipping & Bishop, JRSS B 1999; for ratings with missing entries, Lawrence &
    Urtasun, ICML 2009), in float64. E step: the posterior of each user's y_u. M step: each item's (m_i, w_i) jointly,
    then S, the noise, and the mean and variance of the item means. Deviations: (1) items have a prior as well,
    ``m_i ~ N(mu, v)`` and ``w_i ~ N(0, I)`` (the scale of the factors is in S), and get a posterior instead of a
    point (variational EM: Lim & Teh, KDD Cup and Workshop 2007), so that items with few ratings fade and the rank
    needs no tuning, whereas points overfit; adapting uses the posterior means; (2) S is a full matrix, so that offset
    and factors may correlate, which the items' factors alone would take up over very many sweeps; (3) EM stops by
    meta-validation. An item without a rating has the rating-weighted mean of m and no factor. The ratings of a
    meta-train user in meta-train count as support.

    Choice of items (4): people rate what they expect to like, so that a user who rated item i is no average user and
    the mean m_i over all users is no good guess for one who did. The chance that a rating of user y falls on item i is
    modelled as ``p_i exp(t_i . y) / Z(y)`` with ``t_i = S^-1 (mean y of i's raters)``, which shifts N(0, S) to that
    mean, and log Z is expanded to second order, ``t . y + y' T y / 2`` with t and T the mean and the covariance of t_i
    over ratings, which keeps everything Gaussian: a user with K rated items has, before the ratings themselves,
    precision ``S^-1 + s K T`` and precision times mean ``s sum (t_i - t)``, where s is ``selection``. The item that is
    asked for will be rated too, which moves the posterior mean by (posterior covariance) ``t_i``: so the prediction
    without support is the mean of those who rate i. ``selection = 0`` switches both off.
    """

    name = "gp"
    paper = "Rasmussen & Williams, MIT Press 2006; Lawrence & Urtasun, ICML 2009"
    Config = GPConfig
    informs = True
    model: dict[str, Tensor]
    selection: float

    def meta_fit(self, source: MetaTrainSet, ctx: Context) -> None:
        self.known = KnownUsers.of(source.table)
        validation = Validation(source, (1, 5, 10), self.config.n_query)
        em = VariationalEM(source.table, self.config.rank, ctx.generator(source.seed), precise_device(ctx))
        fixed = self.config.selection
        self.selection = 0.5 if fixed is None else fixed
        best, waited = float("inf"), 0
        kept: dict[str, Tensor] | None = None
        for sweep in ctx.progress(range(self.config.sweeps), "gp: EM sweeps"):
            em.sweep()
            self.model = em.model(self.config.selection_ridge)
            if not validation:
                continue
            score = validation.rmse(self, ctx)
            ctx.log(sweep, validation_rmse=score, noise=em.noise)
            if score < best - 1e-6:
                best, kept, waited = score, self.model, 0
            else:
                waited += 1
                if waited >= self.config.patience:
                    break
        self.model = kept or self.model
        if fixed is None and validation:
            scores = {}
            for self.selection in SELECTION_GRID:
                scores[self.selection] = validation.rmse(self, ctx)
            self.selection = min(scores, key=scores.__getitem__)

    def adapt_batch(self, supports: SupportBatch, ctx: Context) -> GPPredictor:
        return GPPredictor(self, supports)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {**self.model, **self.known.tensors()}, {"selection": self.selection}

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any], ctx: Context) -> None:
        device = precise_device(ctx)
        self.model = {name: tensors[name].to(device) for name in MODEL}
        self.known, self.selection = KnownUsers.from_tensors(tensors), float(values["selection"])

    def trainable_parameters(self) -> int:
        return sum(self.model[name].numel() for name in ("mean", "loading", "precision")) + self.config.rank + 2


MODEL = ("mean", "loading", "precision", "noise", "tilt", "tilt_mean", "tilt_spread")
"""m (n_items,), x (n_items, d), S^-1 (d, d), noise variance (1,), t_i (n_items, d), their mean (d,) and T (d, d)."""


class GPPredictor(BatchPredictor):
    """The posterior N(``mean``, ``covariance``), (total_users, d) and (total_users, d, d), of each user's y."""

    def __init__(self, learner: GP, supports: SupportBatch) -> None:
        model, selection = learner.model, learner.selection
        self.model, self.selection, self.supports = model, selection, supports
        self.device = model["mean"].device
        user, item, rating = (column.to(self.device) for column in learner.known.ratings(supports))
        sums = GroupSums(user, supports.total_users)
        # Outer products are made for the items that occur alone, so that the size of the catalog doesn't count.
        touched, at = item.unique(return_inverse=True)
        x, residual = model["loading"][touched], rating - model["mean"][item]
        noise, count = model["noise"], sums.count.double()
        precision = model["precision"] + sums(outer(x), at) / noise
        moment = sums(x, at, residual) / noise
        if selection:
            precision = precision + selection * count[:, None, None] * model["tilt_spread"]
            moment = moment + selection * (sums(model["tilt"][touched], at) - count[:, None] * model["tilt_mean"])
        self.mean, self.covariance = gaussian(precision, moment)

    def predict(self, episode: Tensor, user: Tensor, item: Tensor) -> Tensor:
        flat, item = self.supports.flat_user(episode, user).to(self.device), item.to(self.device)
        x = self.model["loading"][item]
        predicted = self.model["mean"][item] + (x * self.mean[flat]).sum(1)
        return predicted + self._product(x, flat, self.model["tilt"][item]) if self.selection else predicted

    def distribution(self, episode: Tensor, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the ratings, noise included, each (n,)."""
        flat, x = self.supports.flat_user(episode, user).to(self.device), self.model["loading"][item.to(self.device)]
        return self.predict(episode, user, item), (self.model["noise"] + self._product(x, flat, x)).sqrt()

    def explain(self, episode: int, user: int, item: int) -> Tensor:
        """Return (rows of the episode's support,): by how much the prediction moves with each rating; others' 0."""
        support, flat = self.supports[episode], int(self.supports.user_offsets[episode]) + user
        x = self.model["loading"]
        weight = x[support.item.to(self.device)] @ self.covariance[flat] @ x[item] / self.model["noise"]
        return weight.masked_fill(support.user.to(self.device) != user, 0.0)

    def noise_of(self, item: Tensor) -> Tensor:
        """Return the variance of the noise in a rating of each item, (n,)."""
        return self.model["noise"].expand(len(item))

    def information(self, episode: Tensor, user: Tensor, item: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """Return (n,): by how much a rating of the item lowers the mean variance of the targets, whatever it is.

        With the posterior covariance S of the user and ``M = sum_j w_j x_j x_j'``, weights of sum 1, a rating of item i
        takes ``x_i' S M S x_i / (noise_i + x_i' S x_i)`` from ``tr(M S)``: A-optimal design (Cohn, Ghahramani & Jordan,
        JAIR 1996; Rubens, Elahi, Sugiyama & Kaplan, Recommender Systems Handbook 2015). With ``selection``, ``update``
        counts a rating as chosen by the user, which adds the precision s T whatever the item: S is then the covariance
        with it, and what it takes from ``tr(M S)``, the same for every item, is added.
        """
        flat, item = self.supports.flat_user(episode, user).to(self.device), item.to(self.device)
        x, target = self.model["loading"], self.model["loading"][targets.to(self.device)]
        weights = weights.to(self.device, torch.float64)
        weighted = target.mT @ (target * (weights / weights.sum()).unsqueeze(1))
        asked, at = flat.unique(return_inverse=True)
        covariance, of_choice = self.covariance[asked], weighted.new_zeros(len(asked))
        if self.selection:
            chosen = torch.linalg.inv(covariance) + self.selection * self.model["tilt_spread"]
            after = torch.cholesky_inverse(torch.linalg.cholesky(chosen))
            of_choice, covariance = ((covariance - after) * weighted).sum((1, 2)), after
        parts = []
        for i, a in zip(item.split(_ROWS), at.split(_ROWS), strict=True):
            moved = (covariance[a] @ x[i].unsqueeze(2)).squeeze(2)
            fall = ((moved @ weighted) * moved).sum(1) / (self.noise_of(i) + (x[i] * moved).sum(1))
            parts.append(of_choice[a] + fall)
        return torch.cat(parts)

    def _product(self, left: Tensor, flat: Tensor, right: Tensor) -> Tensor:
        """Return (n,): left' covariance right, row by row; user by user, so that each covariance is read once."""
        out = left.new_empty(len(flat))
        for users, rows, mask in GroupedRidge(flat, len(self.covariance)).batches:
            product = ((left[rows] @ self.covariance[users]) * right[rows]).sum(2)
            out[rows[mask]] = product[mask]
        return out


class VariationalEM:
    """The fit of ``GP``: posteriors of users y_u = (offset, factors) and of items c_i = (m_i - mu, w_i), in turn.

    Each of ``users``, ``items`` and ``scales`` maximises the same lower bound of the log marginal likelihood over what
    it updates, so that it never falls. ``user``, ``user_cov``: mean and covariance of y_u, (n_users, d) and
    (n_users, d, d); ``item``, ``item_cov`` those of c_i; ``noise`` a variance; ``prior`` S; ``item_prior`` (d,) the
    prior precisions of c_i, one for all but m. Memory: d^2 numbers a user and an item, d = rank + 1.
    """

    def __init__(self, table: RatingTable, rank: int, generator: torch.Generator, device: torch.device) -> None:
        columns = (table.user, table.item, table.rating)
        self.user_of, self.item_of, self.rating = (torch.tensor(column, device=device) for column in columns)
        self.by_user, self.by_item = GroupSums(self.user_of, table.n_users), GroupSums(self.item_of, table.n_items)
        self.seen = self.by_item.count > 0
        effects = ridge_effects(table, 5.0, 10.0, tolerance=1e-6)  # where EM starts
        self.mu = effects.mu
        start = torch.randn(table.n_items, rank, dtype=torch.float64, generator=generator)
        self.item = torch.cat([torch.tensor(effects.item).unsqueeze(1), start], 1).to(device)
        self.item_cov = self.item.new_zeros(table.n_items, rank + 1, rank + 1)
        variances = torch.tensor([0.15] + [0.2 / max(rank, 1)] * rank, dtype=torch.float64, device=device)
        residual = table.rating - effects.mu - effects.item[table.item] - effects.user[table.user]
        self.noise = max(float(residual.var()), 1e-4)
        self.prior = torch.diag(variances * self.noise / 0.8)
        self.item_prior = torch.ones_like(variances)
        self.item_prior[0] = 1 / max(float(effects.item.var()), 1e-4)

    def sweep(self) -> None:
        self.users()
        self.items()
        self.scales()

    def users(self) -> None:
        x = with_one(self.item)
        cross = self.item_cov[:, :, 0].clone()  # of w_i with m_i; the 1 in x_i has none
        cross[:, 0] = 0.0
        second = outer(x)
        second[:, 1:, 1:] += self.item_cov[:, 1:, 1:]
        residual = self.rating - self.mu - self.item[self.item_of, 0]
        precision = torch.linalg.inv(self.prior) + self.by_user(second, self.item_of) / self.noise
        moment = (self.by_user(x, self.item_of, residual) - self.by_user(cross, self.item_of)) / self.noise
        self.user, self.user_cov = gaussian(precision, moment)
        self.user_second = self.user_cov + outer(self.user)

    def items(self) -> None:
        self.moments = self._user_moments()
        squares, with_rating, with_offset = self.moments
        precision = torch.diag(self.item_prior) + squares / self.noise
        self.item, self.item_cov = gaussian(precision, (with_rating - with_offset) / self.noise)

    def _user_moments(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return each item's sums over its ratings of E hh', of r' E h and of E bh, where y = (b, z), h = (1, z)."""
        h, second = with_one(self.user), self.user_second.clone()
        offset = second[:, 0].clone()  # E b (b, z), to become E b (1, z)
        offset[:, 0] = self.user[:, 0]
        second[:, 0], second[:, :, 0] = h, h
        return (
            self.by_item(second, self.user_of),
            self.by_item(h, self.user_of, self.rating - self.mu),
            self.by_item(offset, self.user_of),
        )

    def scales(self) -> None:
        (squares, with_rating, with_offset), second = self.moments, self.user_second
        rating, offset = self.rating - self.mu, self.user[self.user_of, 0]
        item_second = self.item_cov + outer(self.item)
        error = (rating.square() - 2 * rating * offset).sum() + self.by_user.count.double() @ second[:, 0, 0]
        error = error + 2 * (self.item * (with_offset - with_rating)).sum() + (squares * item_second).sum()
        self.noise = max(float(error) / len(self.rating), 1e-6)
        self.prior = second.mean(0)
        shift = float(self.item[self.seen, 0].mean())
        self.mu += shift
        self.item[self.seen, 0] -= shift
        spread = self.item[self.seen, 0].square() + self.item_cov[self.seen, 0, 0]
        self.item_prior[0] = 1 / spread.mean().clamp(min=1e-6)

    def model(self, selection_ridge: float) -> dict[str, Tensor]:
        """Return what adapting needs: see ``MODEL``."""
        mean, x = self.mu + self.item[:, 0], with_one(self.item)
        unseen = ~self.seen
        x[unseen, 1:] = 0.0
        precision = torch.linalg.inv(self.prior)
        count = self.by_item.count.double()
        tilt = self.by_item(self.user, self.user_of) / (count + selection_ridge).unsqueeze(1) @ precision
        tilt_mean = count @ tilt / count.sum()
        spread = (tilt - tilt_mean).mT @ ((tilt - tilt_mean) * count.unsqueeze(1)) / count.sum()
        mean = torch.where(unseen, mean[self.item_of].mean(), mean)
        values = (mean, x, precision, mean.new_tensor([self.noise]), tilt, tilt_mean, spread)
        return {name: value.contiguous() for name, value in zip(MODEL, values, strict=True)}


def gaussian(precision: Tensor, moment: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean (n, d) and covariance (n, d, d) of Gaussians given by precision and precision times mean."""
    covariance = torch.cholesky_inverse(torch.linalg.cholesky(precision))
    return (covariance @ moment.unsqueeze(2)).squeeze(2), covariance


def with_one(vector: Tensor) -> Tensor:
    """Return a copy of ``vector`` (n, d) with 1 in its first column."""
    return torch.cat([torch.ones_like(vector[:, :1]), vector[:, 1:]], 1)


def outer(x: Tensor) -> Tensor:
    return x.unsqueeze(2) * x.unsqueeze(1)
