"""Meta-Embedding: a cold item's ID embedding is generated from its attributes, so that one step warms it up."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from fewrec.learners.cold_base import Ratings
from fewrec.learners.cold_items import ColdItemConfig, ColdItemLearner, Params, dense


class MetaEmbConfig(ColdItemConfig):
    """Options of ``metaemb``, beside those of ``ColdItemConfig``.

    ``alpha`` weighs the cold loss against the warm-up loss; ``hidden``: units of the generator's hidden layer, beside
    its linear map (0: none).
    """

    alpha: float = Field(0.1, ge=0, le=1)
    hidden: int = Field(16, ge=0, le=4096)


class MetaEmb(ColdItemLearner):
    """Predict with an ID embedding that is generated from an item's attributes, then warmed up by its few ratings.

    Meta-Embedding (Pan, Li, Ao, Tang & He, Warm Up Cold-start Advertisements: Improving CTR Predictions via Learning to
    Learn ID Embeddings, SIGIR 2019, algorithm 1). The base model is trained first and then frozen. A generator h makes
    an item's initial embedding ``e = h(attributes)``; on existing items that play cold ones it is trained with
    ``alpha l_a + (1 - alpha) l_b``: l_a the cold loss of e on a batch of an item's ratings, l_b the loss on another
    batch of ``e - rate * dl_a/de``, differentiated through the steps (second order). A new item's embedding is
    generated and takes the same steps on the ratings that the protocol gives of it.

    Deviations. Ratings: squared error instead of log loss. The base model is a factorization with effects (mf-foldin's)
    instead of a deep one, so that a new user is folded in in closed form; it knows items by their ID embedding alone,
    and the generator reads attributes themselves (features, genres, decade) instead of the base model's embeddings of
    them; user attributes are not used. The ID embedding is (b_i, q_i), standardised, so that one rate fits every
    coordinate. The paper warms up by one plain step; here ``warm_steps`` of a normalised loss that draws e to where it
    started (``Ratings.descend``): a plain step whose rate suits one data set or number of shots diverges on another.
    The number of shots varies from task to task (the paper: two batches of one size), and an item has tasks in
    proportion to its ratings, as it has queries. A simulated cold item's raters are folded in without their rating of
    it, as raters of a truly cold item are; otherwise the shots seem to tell more than they do. The generator is a
    linear map plus a hidden layer, and starts at the mean embedding of the existing items. When to stop is chosen on
    meta-validation.
    """

    name = "metaemb"
    paper = "Pan et al., SIGIR 2019"
    Config = MetaEmbConfig

    def initial_params(self, n_attributes: int, generator: torch.Generator) -> Params:
        k, hidden = self.config.rank + 1, self.config.hidden
        return {
            "bias": torch.zeros(k, dtype=torch.float64),
            "linear": torch.zeros(n_attributes, k, dtype=torch.float64),
            "inner": dense(generator, n_attributes, hidden),
            "outer": torch.zeros(hidden, k, dtype=torch.float64),
        }

    def of_items(self, params: Params, attributes: Tensor) -> Tensor:
        hidden = torch.tanh(attributes @ params["inner"]) @ params["outer"]
        return params["bias"] + attributes @ params["linear"] + hidden

    def warmed(self, params: Params, given: Tensor, shots: Ratings) -> Tensor:
        return shots.descend(given, self.config.warm_steps, self.config.warm_rate, self.config.warm_prior)

    def loss(self, params: Params, given: Tensor, shots: Ratings, query: Ratings) -> Tensor:
        alpha = self.config.alpha
        return alpha * shots.mse(given) + (1 - alpha) * query.mse(self.warmed(params, given, shots))
