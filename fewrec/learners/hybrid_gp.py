"""A Gaussian process whose covariance is collaborative for items with many ratings and textual for those with few."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.support import SupportBatch
from fewrec.errors import NotApplicable
from fewrec.learners.base import Context
from fewrec.learners.effects import KnownUsers, precise_device
from fewrec.learners.gp import MODEL, SELECTION_GRID, GPPredictor, gaussian
from fewrec.learners.hybrid_em import HybridEM
from fewrec.learners.ridge import GroupedRidge
from fewrec.learners.text.backbone import Backbone
from fewrec.learners.text.config import BackboneConfig
from fewrec.learners.text.features import TextFeatures
from fewrec.learners.text.regression import TextLearner
from fewrec.learners.validation import Validation

HYBRID_MODEL = (*MODEL, "text", "noise_of")
"""``MODEL`` of ``gp``, B' e_i (n_items, d) and the variance of a rating of each item around x_i . y (n_items,)."""


_NORMAL_90 = 1.6448536269514722  # the 95 % quantile of the normal distribution: where its central 90 % end


class HybridGPConfig(BackboneConfig):
    """Options of ``hybrid-gp``, besides those of what reads the texts. All variances and ridges are fitted.

    ``rank``: number of factors. ``topics``: in how many directions of the texts' features users' tastes vary besides.
    ``item_features``: what the items' prior is regressed on: "text", "random" (normal vectors in the place of the
    texts' features) or "none". ``shrinkage`` multiplies the precision of that prior. ``noise_shots``: ratings' worth of
    the noise that all items share in the noise of one (0: all have the same). ``item_noise``: whether what is not known
    of an item counts as noise of its ratings. ``selection``, ``selection_ridge`` and ``n_query``: as for ``gp``.
    ``sweeps``: of EM.
    """

    rank: int = Field(16, ge=0, le=256)
    topics: int = Field(16, ge=0, le=1024)
    item_features: Literal["text", "random", "none"] = "text"
    shrinkage: float = Field(1.0, gt=0)
    noise_shots: float = Field(50.0, ge=0)
    item_noise: bool = True
    selection: float | None = Field(None, ge=0, le=1)
    selection_ridge: float = Field(10.0, gt=0)
    sweeps: int = Field(15, ge=1)
    n_query: int = Field(10, ge=1)


class HybridGP(TextLearner):
    """``gp`` with items that are what their texts say until their ratings say otherwise.

    ``r_ui = m_i + x_i . y_u + noise``, ``y_u = (offset, factors) ~ N(0, S)`` and ``x_i = (1, w_i)`` as in ``gp``, so
    that the ratings of a user are jointly Gaussian with covariance ``x_i' S x_j``. But ``m_i`` and ``w_i`` have a prior
    whose mean is linear in the frozen language-model embedding e_i of the item's text, ``(m_i - mu, w_i) ~ N(B' e_i,
    V)``: an unseen item has ``w_i = P e_i`` and so the covariance ``S_00 + (P e_i)' S_ww (P e_j)`` with others, and the
    more ratings an item has, the farther w_i moves from there to what its raters tell. Regressing factors on content
    is due to Agarwal & Chen (KDD 2009) and Gantner et al. (ICDM 2010), ratings as a Gaussian process to Lawrence &
    Urtasun (ICML 2009).

    Meta-fit: variational EM (``HybridEM``), whose bound no step lowers; then ``selection`` (as in ``gp``) by
    meta-validation. Adapt: exact conditioning, a rating of item i having the noise variance of the item plus what is
    not known of (m_i, w_i). ``distribution``: the standard deviation is that of the model times one factor, by
    which 90 % intervals cover 90 % of meta-validation's query ratings.
    """

    name = "hybrid-gp"
    paper = "Lawrence & Urtasun, ICML 2009; Agarwal & Chen, KDD 2009"
    Config = HybridGPConfig
    informs = True
    config: HybridGPConfig
    model: dict[str, Tensor]
    selection: float
    stretch: float

    def make_features(self, backbone: Backbone, ctx: Context) -> TextFeatures:
        stack, activations = self.stack_of(backbone, ctx, "head")
        return TextFeatures(stack, activations, self.config, ctx)

    def item_features(self, ctx: Context, generator: torch.Generator) -> Tensor | None:
        """Return what the items' prior is regressed on, (n_items, p) float64."""
        if self.config.item_features == "none":
            return None
        features = self.features.frozen({}, torch.arange(len(ctx.catalog))).to("cpu", torch.float64)
        if self.config.item_features == "random":
            features = torch.randn(features.shape, generator=generator, dtype=torch.float64) / features.shape[1] ** 0.5
        return features

    def meta_fit(self, source: MetaTrainSet, ctx: Context) -> None:
        if source.catalog.text_sha256 != ctx.catalog.text_sha256:
            raise NotApplicable(f"{self.name} is meta-trained on the data set's own item texts")
        config, generator = self.config, ctx.generator(source.seed)
        self.known, self.stretch = KnownUsers.of(source.table), 1.0
        validation = Validation(source, (1, 5, 10, 20), config.n_query)
        features = self.item_features(ctx, ctx.generator(source.seed + 1))
        sizes = config.rank, generator, precise_device(ctx)
        em = HybridEM(source.table, *sizes, features, config.topics, config.noise_shots, config.shrinkage)
        self.selection = 0.5 if config.selection is None else config.selection
        for sweep in ctx.progress(range(config.sweeps), "hybrid-gp: EM sweeps"):
            em.sweep()
            self.model = self._model(em)
            if validation:
                ctx.log(sweep, validation_rmse=validation.rmse(self, ctx), noise=em.noise)
        if config.selection is None and validation:
            scores = {}
            for self.selection in SELECTION_GRID:
                scores[self.selection] = validation.rmse(self, ctx)
            self.selection = min(scores, key=scores.__getitem__)
        self.stretch = self._stretch(validation, ctx)

    def _model(self, em: HybridEM) -> dict[str, Tensor]:
        model = em.model(self.config.selection_ridge)
        return model if self.config.item_noise else model | {"noise_of": em.noise_of.clone()}

    def _stretch(self, validation: Validation, ctx: Context) -> float:
        """Return by what deviations are multiplied so that 90 % intervals cover 90 % of meta-validation's queries.

        Ratings end where their scale does, so that errors of the right mean square have fewer large ones among them
        than a Gaussian. Of few users it can't be told, and it is shrunk towards 1 as if 100 more had been right.
        """
        errors, users = [], torch.zeros(0, dtype=torch.int64)
        for drawn in validation.episodes:
            query = drawn.query
            mean, deviation = self.adapt_batch(drawn.support, ctx).distribution(query.episode, query.user, query.item)
            errors.append(((drawn.answers.rating - mean.cpu()) / deviation.cpu()).abs())
            users = torch.cat([users, drawn.answers.table_user]).unique()
        if not errors:
            return 1.0
        found = float(torch.cat(errors).quantile(0.9)) / _NORMAL_90
        return (len(users) * found + 100) / (len(users) + 100)

    def adapt_batch(self, supports: SupportBatch, ctx: Context) -> HybridPredictor:
        prior = self.model["precision"].expand(supports.total_users, -1, -1)
        rows = self.known.ratings(supports)
        return HybridPredictor(self, supports, prior, prior.new_zeros(prior.shape[:2]), rows)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {**self.model, **self.known.tensors()}, {"selection": self.selection, "stretch": self.stretch}

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any], ctx: Context) -> None:
        device = precise_device(ctx)
        self.model = {name: tensors[name].to(device) for name in HYBRID_MODEL}
        self.known = KnownUsers.from_tensors(tensors)
        self.selection, self.stretch = float(values["selection"]), float(values["stretch"])

    def trainable_parameters(self) -> int:
        fitted = ("mean", "loading", "precision", "noise_of")
        return sum(self.model[name].numel() for name in fitted) + self.config.rank + 3


class HybridPredictor(GPPredictor):
    """``GPPredictor`` that keeps its precision and precision times mean, so that further ratings are added to them."""

    def __init__(
        self,
        learner: HybridGP,
        supports: SupportBatch,
        precision: Tensor,
        moment: Tensor,
        rows: tuple[Tensor, Tensor, Tensor],
    ) -> None:
        model, selection = learner.model, learner.selection
        self.learner, self.model, self.selection, self.supports = learner, model, selection, supports
        self.device = model["mean"].device
        user, item, rating = (column.to(self.device) for column in rows)
        self.precision, self.moment = precision.contiguous(), moment
        for users, at, mask in GroupedRidge(user, supports.total_users).batches:
            of = item[at]
            weight = mask / self.noise_of(of)  # of what pads a shorter support: none
            x, residual = model["loading"][of], rating[at] - model["mean"][of]
            weighted = (x * weight.unsqueeze(2)).mT
            squares, products = weighted @ x, (weighted @ residual.unsqueeze(2)).squeeze(2)
            if selection:
                squares.addcmul_(mask.sum(1, dtype=torch.float64)[:, None, None], model["tilt_spread"], value=selection)
                tilt = ((model["tilt"][of] - model["tilt_mean"]) * mask.unsqueeze(2)).sum(1)
                products.add_(tilt, alpha=selection)
            # In place would change the precision that was given.
            self.precision = self.precision.index_add(0, users, squares)
            self.moment = self.moment.index_add(0, users, products)
        self.mean, self.covariance = gaussian(self.precision, self.moment)

    def noise_of(self, item: Tensor) -> Tensor:
        return self.model["noise_of"][item]

    def distribution(self, episode: Tensor, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the ratings, noise included, each (n,)."""
        flat, item = self.supports.flat_user(episode, user).to(self.device), item.to(self.device)
        x = self.model["loading"][item]
        variance = self.noise_of(item) + self._product(x, flat, x)
        return self.predict(episode, user, item), self.learner.stretch * variance.sqrt()

    def explain(self, episode: int, user: int, item: int) -> Tensor:
        """Return (rows of the episode's support,): by how much the prediction moves with each rating; others' 0."""
        return self.shares(episode, user, item).sum(1)

    def shares(self, episode: int, user: int, item: int) -> Tensor:
        """Return (rows of the episode's support, 3): ``explain`` by what of the item it comes through.

        The columns: the user's offset, the item's text (``P e_i``), and what its ratings add to that
        (``w_i - P e_i``).
        """
        support, flat = self.supports[episode], int(self.supports.user_offsets[episode]) + user
        of_support = support.item.to(self.device)
        x, text = self.model["loading"], self.model["text"][item].clone()
        offset = torch.zeros_like(text)
        offset[0], text[0] = 1.0, 0.0
        parts = torch.stack([offset, text, x[item] - offset - text], 1)
        weight = x[of_support] @ self.covariance[flat] @ parts / self.noise_of(of_support).unsqueeze(1)
        return weight.masked_fill((support.user.to(self.device) != user).unsqueeze(1), 0.0)

    def update(self, supports: SupportBatch, ctx: Context) -> HybridPredictor:
        """Return the predictor that knows ``supports`` too: their ratings are added to each user's precision.

        The work does not depend on how many ratings a user had before. Equal to adapting again but for rounding.
        """
        rows = supports.flat_user().cpu(), supports.item.cpu(), supports.rating.cpu().double()
        joined = self.supports.joined(supports)
        updated = HybridPredictor(self.learner, joined, self.precision, self.moment, rows)
        updated._origin = (self.learner, joined)
        return updated
