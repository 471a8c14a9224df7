"""Frozen text embeddings and ridge regressions: the cheap row that trained language models have to beat."""

from __future__ import annotations

import torch
from pydantic import Field

from fewrec.learners.base import Context
from fewrec.learners.text.backbone import Backbone
from fewrec.learners.text.config import HeadConfig, PriorConfig
from fewrec.learners.text.features import TextFeatures
from fewrec.learners.text.meta import MetaTextRegressor
from fewrec.learners.text.stack import Params


class EmbedRidgeConfig(HeadConfig, PriorConfig):
    """Options of ``embed-ridge``; no head is shared by an episode's users, so that each is predicted alone."""

    head_variance: float = Field(0.0, ge=0, le=0)
    n_query: int = Field(10, ge=1)


class EmbedRidge(MetaTextRegressor):
    """Ridge on frozen text embeddings: items' effects over meta-train, each user's own head on the support.

    Meta-fit: the weighted ridge regression of meta-train's item effects on their texts' features; a seen item's effect
    is corrected by its own ratings. Adapt: a user's offset and head, the posterior mean of a Gaussian prior, in closed
    form. The language model is not trained. Source: Hoerl & Kennard, Technometrics 1970; text features as in Reimers &
    Gurevych, EMNLP 2019.
    """

    name = "embed-ridge"
    paper = "Hoerl & Kennard, Technometrics 1970; Reimers & Gurevych, EMNLP 2019"
    Config = EmbedRidgeConfig
    task = "user"
    adapt_options = frozenset({"item_effects", "user_variance", "user_head_variance", "memory_mb"})

    def make_features(self, backbone: Backbone, ctx: Context) -> TextFeatures:
        stack, activations = self.stack_of(backbone, ctx, "head")
        return TextFeatures(stack, activations, self.config, ctx)

    @property
    def trains_on_supports(self) -> bool:
        return False

    def initial(self, generator: torch.Generator) -> Params:
        return {}
