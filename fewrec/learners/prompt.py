"""Soft prompts for a frozen language model: trained on an episode's support, from scratch or from meta-train's."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from fewrec.learners.text_encoder import ItemActivations, UpperLayers, mean_pool
from fewrec.learners.text_meta import MetaTextConfig, MetaTextRegressor
from fewrec.learners.text_regression import Params, TextConfig, TextFeatures, TextRegressor


class SoftPrompt(TextFeatures):
    """Mean-pooled output of the frozen encoder, virtual tokens being put in where its cached part ends."""

    def __init__(self, upper: UpperLayers, activations: ItemActivations, device: torch.device, tokens: int) -> None:
        super().__init__(upper, activations, device)
        self.n_prompt = tokens

    def initial(self, generator: torch.Generator) -> Params:
        # Activations of random tokens of the catalog: a prompt that the layers can read (Lester et al., section 3.2).
        rows = torch.randint(len(self.activations.tokens), (self.n_prompt,), generator=generator)
        return {"prompt": self.activations.tokens[rows].to(self.device, copy=True)}

    def pooled(self, params: Params, hidden: Tensor, mask: Tensor) -> Tensor:
        return mean_pool(self.upper(hidden, mask, params["prompt"]), mask)


class PromptLMConfig(TextConfig):
    """Options of ``prompt-lm``: ``tokens`` virtual tokens enter ``layers`` layers below the encoder's output."""

    tokens: int = Field(4, ge=1, le=128)
    layers: int = Field(1, ge=1)
    learning_rate: float = Field(2e-2, ge=0)
    weight_decay: float = Field(0.0, ge=0)


class PromptLM(TextRegressor):
    """Train a soft prompt and a small head on the support; the language model stays frozen.

    Everything else is as in ``bert-finetune``. Source: Lester, Al-Rfou & Constant, EMNLP 2021.
    """

    name = "prompt-lm"
    paper = "Lester, Al-Rfou & Constant, EMNLP 2021"
    Config = PromptLMConfig
    config: PromptLMConfig

    def make_features(self, upper: UpperLayers, activations: ItemActivations, device: torch.device) -> TextFeatures:
        return SoftPrompt(upper, activations, device, self.config.tokens)


class PromptLMMetaConfig(MetaTextConfig):
    """Options of ``prompt-lm-meta``: those of ``prompt-lm`` and of meta-fitting."""

    meta_learning_rate: float = Field(1e-2, ge=0)
    meta_weight_decay: float = Field(0.0, ge=0)

    tokens: int = Field(4, ge=1, le=128)
    layers: int = Field(1, ge=1)
    learning_rate: float = Field(1e-3, ge=0)
    weight_decay: float = Field(0.0, ge=0)


class PromptLMMeta(MetaTextRegressor):
    """``prompt-lm``, prompt and head initialised on meta-train: see ``MetaTextRegressor``."""

    name = "prompt-lm-meta"
    paper = "Lester, Al-Rfou & Constant, EMNLP 2021"
    Config = PromptLMMetaConfig
    config: PromptLMMetaConfig

    def make_features(self, upper: UpperLayers, activations: ItemActivations, device: torch.device) -> TextFeatures:
        return SoftPrompt(upper, activations, device, self.config.tokens)
