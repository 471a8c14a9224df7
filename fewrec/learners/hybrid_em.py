"""The fit of ``hybrid-gp``: variational EM in which what an item is like is expected from its text."""

from __future__ import annotations

import torch
from torch import Tensor

from fewrec.data.table import RatingTable
from fewrec.learners.gp import VariationalEM, gaussian, outer, with_one
from fewrec.learners.item_prior import ItemPrior
from fewrec.learners.ridge import GroupSums


class HybridEM(VariationalEM):
    """``VariationalEM`` of ``r_ui = m_i + b_u + w_i . z_u + g_i . t_u + noise_i`` with items' priors from text.

    ``prior_of_items`` (``ItemPrior``, None without ``features``) has the expected (m_i - mu, w_i); ``topic`` (n_items,
    q) are the g_i, the features' first q principal components, of mean square norm 1: what users' tastes for topics
    act on, known and not fitted. So y_u = (b_u, z_u, t_u) of size 1 + rank + q and x_i = (1, w_i, g_i).

    ``noise_of`` (n_items,): an item's noise variance, the mode given the scaled-inverse-chi-squared prior of
    ``noise_shots`` ratings around ``noise`` (Gelman et al., Bayesian Data Analysis, 2013, section 2.6; 0 ratings: all
    have ``noise``). ``shrinkage`` multiplies the precision of the items' prior. While it is 1, no step lowers the bound
    of the log marginal likelihood, which has these priors in it.
    """

    def __init__(
        self,
        table: RatingTable,
        rank: int,
        generator: torch.Generator,
        device: torch.device,
        features: Tensor | None = None,
        topics: int = 0,
        noise_shots: float = 0.0,
        shrinkage: float = 1.0,
    ) -> None:
        super().__init__(table, rank, generator, device)
        self.noise_shots, self.rank, self.shrinkage = noise_shots, rank, shrinkage
        self.noise_of = torch.full_like(self.item[:, 0], self.noise)
        self.prior_of_items = None if features is None else ItemPrior(features.to(device), self.seen, rank + 1)
        self.topic = self.item.new_zeros(table.n_items, 0)
        if self.prior_of_items is not None:
            self.topic = self.prior_of_items.features[:, :topics]
            self.topic = self.topic / self.topic[self.seen].square().sum(1).mean().sqrt().clamp(min=1e-9)
        start = self.item.new_full((self.topic.shape[1],), 0.1 * self.noise)  # a tenth of the noise, as for factors
        self.prior = torch.block_diag(self.prior, torch.diag(start))
        # Of (m, 1, w, g), by which (1, y) is multiplied: what is fitted (as in self.item) and what is known.
        columns = torch.arange(2 + rank + self.topic.shape[1], device=device)
        self.fitted = columns[(columns == 0) | (columns > 1) & (columns < 2 + rank)]
        self.known = columns[(columns == 1) | (columns >= 2 + rank)]

    def sweep(self) -> None:
        super().sweep()
        self.text()

    @property
    def loading(self) -> Tensor:
        """x_i = (1, w_i, g_i), (n_items, d)."""
        return torch.cat([with_one(self.item), self.topic], 1)

    def users(self) -> None:
        x, noise, fitted = self.loading, self.noise_of, slice(1, 1 + self.rank)
        cross = torch.zeros_like(x)
        cross[:, fitted] = self.item_cov[:, 1:, 0]  # of w_i with m_i; what is known has none
        second = outer(x)
        second[:, fitted, fitted] += self.item_cov[:, 1:, 1:]
        residual = self.rating - self.mu - self.item[self.item_of, 0]
        squares = symmetric_sums(self.by_user, second / noise[:, None, None], self.item_of)
        moment = self.by_user(x / noise[:, None], self.item_of, residual)
        moment = moment - self.by_user(cross / noise[:, None], self.item_of)
        self.user, self.user_cov = gaussian(torch.linalg.inv(self.prior) + squares, moment)
        self.user_second = self.user_cov + outer(self.user)

    def items(self) -> None:
        self.squares, self.products = self._user_sums()
        known = torch.cat([torch.ones_like(self.item[:, :1]), self.topic], 1)
        explained = self.squares[:, self.fitted][:, :, self.known] @ known.unsqueeze(2)
        prior = self.shrinkage * self.item_prior
        precision = torch.diag(prior) + self.squares[:, self.fitted][:, :, self.fitted] / self.noise_of[:, None, None]
        moment = (self.products[:, self.fitted] - explained.squeeze(2)) / self.noise_of[:, None]
        if self.prior_of_items is not None:
            moment = moment + prior * self.prior_of_items.mean
        self.item, self.item_cov = gaussian(precision, moment)

    def _user_sums(self) -> tuple[Tensor, Tensor]:
        """Return each item's sums over its ratings of E vv' and of r E v, where v = (1, y)."""
        v = torch.cat([torch.ones_like(self.user[:, :1]), self.user], 1)
        second = outer(v)
        second[:, 1:, 1:] = self.user_second
        return symmetric_sums(self.by_item, second, self.user_of), self.by_item(v, self.user_of, self.rating - self.mu)

    def scales(self) -> None:
        error, count = self._error_of_items(), self.by_item.count.double()
        if self.noise_shots:
            self.noise_of = (error + self.noise_shots * self.noise) / (count + self.noise_shots)
            self.noise = 1 / float((1 / self.noise_of[self.seen]).mean())
        else:
            self.noise = max(float(error.sum()) / len(self.rating), 1e-6)
            self.noise_of = torch.full_like(self.noise_of, self.noise)
        self.prior = self.user_second.mean(0)
        shift = float(self.item[self.seen, 0].mean())
        self.mu += shift
        self.item[self.seen, 0] -= shift
        if self.prior_of_items is None:
            self._variance_of_means(torch.zeros_like(self.item[:, 0]), torch.zeros_like(self.item[:, 0]))

    def _error_of_items(self) -> Tensor:
        """Return (n_items,): the expected squared error summed over each item's ratings."""
        a = torch.cat([self.item[:, :1], self.loading], 1)  # (m, 1, w, g)
        second = outer(a)
        second[:, self.fitted[:, None], self.fitted] += self.item_cov
        squared = torch.zeros_like(self.noise_of).index_add_(0, self.item_of, (self.rating - self.mu).square())
        error = squared - 2 * (a * self.products).sum(1) + (second * self.squares).sum((1, 2))
        return error.clamp(min=0)

    def text(self) -> None:
        """Turn the factors, regress the items' (m_i - mu, w_i) on text, and fit the variance that is left of m."""
        prior = self.prior_of_items
        if prior is None:
            return
        rotation = prior.turn(self.item[:, 1:])
        if rotation is not None:
            self._rotate(rotation)
        prior.regress(self.item, self.item_prior)
        self._variance_of_means(prior.mean[:, 0], prior.spread[:, 0])

    def _variance_of_means(self, expected: Tensor, spread: Tensor) -> None:
        left = (self.item[:, 0] - expected).square() + self.item_cov[:, 0, 0] + spread
        self.item_prior[0] = 1 / left[self.seen].mean().clamp(min=1e-6)

    def _rotate(self, rotation: Tensor) -> None:
        one, rest = (
            rotation.new_ones(1, 1),
            torch.eye(self.topic.shape[1], dtype=rotation.dtype, device=rotation.device),
        )
        item, user = torch.block_diag(one, rotation), torch.block_diag(one, rotation, rest)
        self.item, self.item_cov = self.item @ item, item.mT @ self.item_cov @ item
        self.user, self.user_cov = self.user @ user, user.mT @ self.user_cov @ user
        self.prior, self.user_second = user.mT @ self.prior @ user, user.mT @ self.user_second @ user

    def model(self, selection_ridge: float) -> dict[str, Tensor]:
        """Return what adapting needs: ``MODEL`` of ``gp``, ``text`` and ``noise_of`` (``fewrec.learners.hybrid_gp``).

        An unseen item is what its text says, and its mean is moved by the mean of what meta-train's ratings leave over
        if their items are taken to be unseen too: who rated an item liked it more than the average user would. Without
        text it has the rating-weighted mean of m and no factor, as in ``gp``.
        """
        unseen, prior, mean, x = ~self.seen, self.prior_of_items, self.mu + self.item[:, 0], self.loading
        x[unseen, 1 : 1 + self.rank] = 0.0
        text, item_cov = torch.zeros_like(x), self.item_cov
        if prior is None:
            level = mean[self.item_of].mean().expand(len(mean))
        else:
            text[:, 1:] = torch.cat([prior.mean[:, 1:], self.topic], 1)
            x = torch.where(unseen.unsqueeze(1), with_one(text), x)
            explained = prior.mean[self.item_of, 0] + (with_one(text)[self.item_of] * self.user[self.user_of]).sum(1)
            level = prior.mean[:, 0] + (self.rating - explained).mean()
            vague = torch.diag_embed(1 / self.item_prior + prior.spread)
            item_cov = torch.where(unseen[:, None, None], vague, item_cov)
        # E of v' Cov(m_i, w_i) v over users, v = (1, z): what is not known of an item is noise to a rating of it.
        second = torch.block_diag(x.new_ones(1, 1), self.prior[1 : 1 + self.rank, 1 : 1 + self.rank])
        precision, count = torch.linalg.inv(self.prior), self.by_item.count.double()
        tilt = self.by_item(self.user, self.user_of) / (count + selection_ridge).unsqueeze(1) @ precision
        tilt_mean = count @ tilt / count.sum()
        spread = (tilt - tilt_mean).mT @ ((tilt - tilt_mean) * count.unsqueeze(1)) / count.sum()
        found = {
            "mean": torch.where(unseen, level, mean), "loading": x, "precision": precision,
            "noise": mean.new_tensor([self.noise]), "tilt": tilt, "tilt_mean": tilt_mean, "tilt_spread": spread,
            "text": text, "noise_of": self.noise_of + (item_cov * second).sum((1, 2)),
        }  # fmt: skip
        return {name: value.contiguous() for name, value in found.items()}


def symmetric_sums(sums: GroupSums, table: Tensor, of_row: Tensor) -> Tensor:
    """Return ``sums(table, of_row)`` of symmetric matrices (m, d, d): half of each is enough to read."""
    i, j = torch.triu_indices(*table.shape[1:], device=table.device)
    half = sums(table[:, i, j], of_row)
    out = half.new_empty(len(half), *table.shape[1:])
    out[:, i, j] = half
    out[:, j, i] = half
    return out
