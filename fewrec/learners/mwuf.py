"""Meta Warm Up Framework: a cold item's ID embedding is scaled by its attributes and shifted by its raters."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from fewrec.learners.cold_base import Ratings
from fewrec.learners.cold_items import ColdItemConfig, ColdItemLearner, Params, dense


class MWUFConfig(ColdItemConfig):
    """Options of ``mwuf``, beside those of ``ColdItemConfig``.

    ``hidden``: units of the hidden layer of either meta network, beside its linear map (0: none).
    """

    hidden: int = Field(16, ge=0, le=4096)


class MWUF(ColdItemLearner):
    """Predict with ``warm = scale * cold + shift``: scale from an item's attributes, shift from the users who rated it.

    Meta Warm Up Framework (Zhu et al., Learning to Warm Up Cold Item Embeddings for Cold-start Recommendation with Meta
    Scaling and Shifting Networks, SIGIR 2021, algorithm 1). The base model is trained first and then frozen. A cold
    item's ID embedding starts as the mean embedding of the existing items (the common initial embedding) and is trained
    on its own few ratings (cold loss). The meta scaling network makes a factor for each coordinate from the item's
    attributes, the meta shifting network a summand from the mean embedding of its raters; both are trained by the loss
    of the warmed embedding (warm loss) on existing items that play cold ones, and applied to new items as they are.

    Deviations. Ratings: squared error instead of log loss; all raters count alike, whatever they gave. The base model
    is a factorization with effects (mf-foldin's) instead of a deep one, so that a new user is folded in in closed form;
    it does not read attributes, which enter by the scaling network alone; user attributes are not used. The ID
    embedding is (b_i, q_i) in coordinates in which the common initial embedding is one everywhere and the variance is
    one: a mean near zero, as factors have, could not be scaled. The mean counts an item by its ratings, as queries do.
    The cold loss trains an embedding anew in each task, by ``warm_steps`` on up to ``max_shots`` ratings and drawn to
    the start (``Ratings.descend``), and the warm loss is taken on other ratings of the item: the paper trains one cold
    embedding an item throughout, and takes both losses on the same batch, where the embedding is as it never is at
    test time. A simulated cold item's raters are folded in without their rating of it, as raters of a truly cold item
    are. The networks have a linear map beside their hidden layer and start at scale one and shift zero. When to stop is
    chosen on meta-validation.
    """

    name = "mwuf"
    paper = "Zhu et al., SIGIR 2021"
    Config = MWUFConfig

    def initial_params(self, n_attributes: int, generator: torch.Generator) -> Params:
        k, hidden = self.config.rank + 1, self.config.hidden
        params = {}
        for network, n_in in (("scale", n_attributes), ("shift", k)):
            params[f"{network}_bias"] = torch.zeros(k, dtype=torch.float64)
            params[f"{network}_linear"] = torch.zeros(n_in, k, dtype=torch.float64)
            params[f"{network}_inner"] = dense(generator, n_in, hidden)
            params[f"{network}_outer"] = torch.zeros(hidden, k, dtype=torch.float64)
        return params

    def of_items(self, params: Params, attributes: Tensor) -> Tensor:
        return 1.0 + _network(params, "scale", attributes)

    def warmed(self, params: Params, given: Tensor, shots: Ratings) -> Tensor:
        config, common = self.config, torch.zeros_like(given)
        cold = shots.descend(common, config.warm_steps, config.warm_rate, config.warm_prior)
        count = shots.mask.sum(1, keepdim=True)
        raters = (shots.user * shots.mask.unsqueeze(2)).sum(1) / count.clamp(min=1)
        # The common embedding is one in every coordinate here: zero, as in the base model's, could not be scaled.
        return given * (1.0 + cold) + _network(params, "shift", raters) - 1.0

    def loss(self, params: Params, given: Tensor, shots: Ratings, query: Ratings) -> Tensor:
        return query.mse(self.warmed(params, given, shots))


def _network(params: Params, name: str, x: Tensor) -> Tensor:
    """Return (n, k) of inputs (n, d): a linear map plus a hidden layer's."""
    hidden = torch.tanh(x @ params[f"{name}_inner"]) @ params[f"{name}_outer"]
    return params[f"{name}_bias"] + x @ params[f"{name}_linear"] + hidden
