"""Soft prompts for a frozen language model: trained on an episode's support, from scratch or from meta-train's."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor

from fewrec.learners.base import Context
from fewrec.learners.text.backbone import Backbone
from fewrec.learners.text.config import MetaTextConfig, SoftPrompts, TextConfig
from fewrec.learners.text.features import TextFeatures
from fewrec.learners.text.meta import MetaTextRegressor
from fewrec.learners.text.regression import TextLearner, TextRegressor
from fewrec.learners.text.stack import PROMPT, Params, add_prefixes, starting_prefix
from fewrec.learners.text.words import RatingWords


class _Prompted(TextLearner):
    """Features of a frozen model that reads virtual tokens beside each text."""

    config: Any

    def make_features(self, backbone: Backbone, ctx: Context) -> TextFeatures:
        config = self.config
        words = RatingWords(backbone, ctx.scale) if config.readout == "words" else None
        stack, activations = self.stack_of(backbone, ctx, config.method, words)
        if config.method == "prefix":
            add_prefixes(stack)
        tokens = config.tokens if config.method == "prompt" else 0
        return TextFeatures(stack, activations, config, ctx, prompt_tokens=tokens, words=words)

    def initial(self, generator: torch.Generator) -> Params:
        # What random tokens of the catalog are here: something the layers can read (Lester et al., section 3.2).
        tokens = self.features.activations.tokens
        rows = torch.randint(len(tokens), (self.config.tokens,), generator=generator)
        drawn: Tensor = tokens[rows].to(self.features.device, copy=True)
        return {PROMPT: drawn} if self.config.method == "prompt" else starting_prefix(self.features.stack, drawn)


class PromptLMConfig(SoftPrompts, TextConfig):
    """Options of ``prompt-lm``. With the readout "words" the model's own rating is the prediction: the head is one."""

    layers: int = Field(1, ge=-1)
    learning_rate: float = Field(2e-2, ge=0)
    weight_decay: float = Field(0.0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _words_have_no_head(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("readout") == "words":
            return {"head_variance": 0.0, "user_head_variance": 0.0, **values}
        return values


class PromptLM(_Prompted, TextRegressor):
    """Train a soft prompt and a small head on the support; the language model stays frozen.

    Everything else is as in ``bert-finetune``. Source: Lester, Al-Rfou & Constant, EMNLP 2021; Li & Liang, ACL 2021.
    """

    name = "prompt-lm"
    paper = "Lester, Al-Rfou & Constant, EMNLP 2021; Li & Liang, ACL 2021"
    Config = PromptLMConfig


class PromptLMMetaConfig(SoftPrompts, MetaTextConfig):
    """Options of ``prompt-lm-meta``: those of ``prompt-lm`` and of meta-fitting."""

    meta_learning_rate: float = Field(1e-2, ge=0)
    meta_weight_decay: float = Field(0.0, ge=0)
    layers: int = Field(1, ge=-1)
    learning_rate: float = Field(1e-3, ge=0)
    weight_decay: float = Field(0.0, ge=0)


class PromptLMMeta(_Prompted, MetaTextRegressor):
    """``prompt-lm``, prompt and head initialised on meta-train: see ``MetaTextRegressor``."""

    name = "prompt-lm-meta"
    paper = "Lester, Al-Rfou & Constant, EMNLP 2021; Li & Liang, ACL 2021"
    Config = PromptLMMetaConfig
