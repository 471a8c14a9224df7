"""The fit of ``hybrid-gp``: variational EM in which what an item is like is expected from its text."""

from __future__ import annotations

import torch
from torch import Tensor

from fewrec.data.table import RatingTable
from fewrec.learners.gp import VariationalEM, gaussian, outer, with_one

_RIDGES = torch.logspace(-1, 5, 61, dtype=torch.float64)
_ALIGN = 10.0  # the ridge of the regression that turns the factors; results don't depend on it (docs/hybrid_gp.md)


class TextPrior:
    """A Gaussian prior of items' (m_i - mu, w_i) whose mean is linear in their texts' features: ``c_i ~ N(B' e_i, V)``.

    ``features`` (n_items, p), centred over the ``seen`` items. Column k of B has the prior ``N(0, I / ridge[k])``; its
    posterior given the items' means, and the ridge, which maximises the evidence of that regression, are found
    together (MacKay, Neural Computation 1992, by a grid instead of his fixed point, which can get stuck at B = 0).
    ``mean`` (n_items, d) is B' e_i at the posterior mean of B, ``spread`` (n_items, d) its posterior variance.
    """

    def __init__(self, features: Tensor, seen: Tensor, d: int) -> None:
        features = features - features[seen].mean(0)
        _, scale, axes = torch.linalg.svd(features[seen], full_matrices=False)
        kept = scale > 1e-6 * scale[0] if len(scale) else scale > 0  # rows that differ span no more than this
        self.features, self.squares, self.seen = features @ axes[kept].mT, scale[kept] ** 2, seen
        self.ridge = torch.full((d,), float(_RIDGES[-1]), dtype=torch.float64, device=features.device)
        self.mean = features.new_zeros(len(features), d)
        self.spread = torch.zeros_like(self.mean)

    def regress(self, item: Tensor, precision: Tensor) -> None:
        """Find B and the ridges for items' means ``item`` (n_items, d), whose residuals have ``precision`` (d,)."""
        projected = self.features[self.seen].mT @ item[self.seen]
        self.ridge = _RIDGES.to(item.device)[self._evidence(projected, precision).argmax(1)]
        posterior = self.squares[:, None] * precision + self.ridge
        self.mean = self.features @ (projected * precision / posterior)
        self.spread = self.features.square() @ (1 / posterior)

    def turn(self, factor: Tensor) -> Tensor | None:
        """Return the rotation (r, r) of the factors ``factor`` (n_items, r) after which text explains them one by one.

        Their prior does not tell rotations apart but for B, whose columns have a ridge each: where text explains some
        direction well and the others not at all, that direction is to be a column. None where that would not raise
        the evidence.
        """
        projected = self.features[self.seen].mT @ factor[self.seen]
        explained = projected / (self.squares + _ALIGN)[:, None].sqrt()
        explained = explained * (self.squares / (self.squares + _ALIGN))[:, None].sqrt()
        rotation = torch.linalg.eigh(explained.mT @ explained)[1].flip(1)
        one = torch.ones(factor.shape[1], dtype=factor.dtype, device=factor.device)
        before, after = (self._evidence(p, one).max(1).values.sum() for p in (projected, projected @ rotation))
        return rotation if after > before else None

    def _evidence(self, projected: Tensor, precision: Tensor) -> Tensor:
        """Return (d, ridges): the log evidence of each column's regression, up to what no ridge and no turn changes."""
        ridge = _RIDGES.to(projected.device)
        posterior = self.squares[:, None, None] * precision[None, :, None] + ridge
        fit = (precision[:, None] * projected[:, :, None]).square() / posterior
        return 0.5 * ((ridge / posterior).log().sum(0) + fit.sum(0))


class HybridEM(VariationalEM):
    """``VariationalEM`` with items' priors from text (``features``; None: as without) and a noise for each item.

    ``noise_of`` (n_items,): an item's noise variance, the mode given the scaled-inverse-chi-squared prior of
    ``noise_shots`` ratings around ``noise`` (Gelman et al., Bayesian Data Analysis, 2013, section 2.6); 0 ratings: all
    have ``noise``. No step lowers the bound, and none does where the text is: ``text`` maximises over B and its ridges.
    """

    def __init__(
        self,
        table: RatingTable,
        rank: int,
        generator: torch.Generator,
        device: torch.device,
        features: Tensor | None,
        noise_shots: float,
    ) -> None:
        super().__init__(table, rank, generator, device)
        self.noise_shots = noise_shots
        self.noise_of = torch.full_like(self.item[:, 0], self.noise)
        self.prior_of_items = None if features is None else TextPrior(features.to(device), self.seen, rank + 1)

    def sweep(self) -> None:
        super().sweep()
        self.text()

    def users(self) -> None:
        x, noise = with_one(self.item), self.noise_of
        cross = self.item_cov[:, :, 0].clone()  # of w_i with m_i; the 1 in x_i has none
        cross[:, 0] = 0.0
        second = outer(x)
        second[:, 1:, 1:] += self.item_cov[:, 1:, 1:]
        residual = self.rating - self.mu - self.item[self.item_of, 0]
        precision = torch.linalg.inv(self.prior) + self.by_user(second / noise[:, None, None], self.item_of)
        moment = self.by_user(x / noise[:, None], self.item_of, residual)
        self.user, self.user_cov = gaussian(precision, moment - self.by_user(cross / noise[:, None], self.item_of))
        self.user_second = self.user_cov + outer(self.user)

    def items(self) -> None:
        self.moments = self._user_moments()
        squares, with_rating, with_offset = self.moments
        precision = torch.diag(self.item_prior) + squares / self.noise_of[:, None, None]
        moment = (with_rating - with_offset) / self.noise_of[:, None]
        if self.prior_of_items is not None:
            moment = moment + self.item_prior * self.prior_of_items.mean
        self.item, self.item_cov = gaussian(precision, moment)

    def scales(self) -> None:
        error = self._error_of_items()
        super().scales()  # its noise is the maximum where all items share one
        if self.noise_shots:
            count = self.by_item.count.double()
            self.noise_of = (error + self.noise_shots * self.noise) / (count + self.noise_shots)
            self.noise = 1 / float((1 / self.noise_of[self.seen]).mean())
            self.noise_of = (error + self.noise_shots * self.noise) / (count + self.noise_shots)
        else:
            self.noise_of = torch.full_like(self.noise_of, self.noise)

    def _error_of_items(self) -> Tensor:
        """Return (n_items,): the expected squared error summed over each item's ratings."""
        squares, with_rating, with_offset = self.moments
        rating, user = self.rating - self.mu, self.user_of
        of_row = rating.square() - 2 * rating * self.user[user, 0] + self.user_second[user, 0, 0]
        error = torch.zeros_like(self.noise_of).index_add_(0, self.item_of, of_row)
        error = error + 2 * (self.item * (with_offset - with_rating)).sum(1)
        return (error + (squares * (self.item_cov + outer(self.item))).sum((1, 2))).clamp(min=0)

    def text(self) -> None:
        """Turn the factors, regress the items' (m_i - mu, w_i) on text, and fit the variance that is left of m."""
        prior = self.prior_of_items
        if prior is None:
            return
        rotation = prior.turn(self.item[:, 1:])
        if rotation is not None:
            self._rotate(rotation)
        prior.regress(self.item, self.item_prior)
        left = (self.item[:, 0] - prior.mean[:, 0]).square() + self.item_cov[:, 0, 0] + prior.spread[:, 0]
        self.item_prior[0] = 1 / left[self.seen].mean().clamp(min=1e-6)

    def _rotate(self, rotation: Tensor) -> None:
        whole = torch.block_diag(rotation.new_ones(1, 1), rotation)
        self.item, self.user = self.item @ whole, self.user @ whole
        self.item_cov, self.user_cov = (whole.mT @ cov @ whole for cov in (self.item_cov, self.user_cov))
        self.prior, self.user_second = (whole.mT @ cov @ whole for cov in (self.prior, self.user_second))

    def model(self, selection_ridge: float) -> dict[str, Tensor]:
        """Return what adapting needs: ``MODEL`` of ``gp``, ``text`` and ``noise_of`` (``fewrec.learners.hybrid_gp``).

        An unseen item is what its text says, and its mean is moved by the mean of what meta-train's ratings leave over
        if their items are taken to be unseen too: who rated an item liked it more than the average user would.
        """
        model = super().model(selection_ridge)
        prior, item_cov = self.prior_of_items, self.item_cov
        text = torch.zeros_like(self.item)
        if prior is not None:
            text, unseen = prior.mean, ~self.seen
            user, of_row = self.user[self.user_of], text[self.item_of]
            alike = self.mu + of_row[:, 0] + user[:, 0] + (of_row[:, 1:] * user[:, 1:]).sum(1)
            level = self.mu + (self.rating - alike).mean()
            model["mean"] = torch.where(unseen, level + text[:, 0], model["mean"])
            model["loading"][unseen, 1:] = text[unseen, 1:]
            item_cov = torch.where(
                unseen[:, None, None], torch.diag_embed(1 / self.item_prior + prior.spread), item_cov
            )
        # E of y' Cov(c_i) y over users, with y = (1, factors): what is not known of an item is noise to a rating of it.
        second = self.prior.clone()
        second[0], second[:, 0] = 0.0, 0.0
        second[0, 0] = 1.0
        return model | {"text": text.contiguous(), "noise_of": self.noise_of + (item_cov * second).sum((1, 2))}
