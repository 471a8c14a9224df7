"""Fine-tuning a pretrained language model on an episode's support, from its own weights or from meta-train's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fewrec.learners.base import Context
from fewrec.learners.text.backbone import Backbone
from fewrec.learners.text.config import MetaTextConfig, TextConfig, TunedWeights
from fewrec.learners.text.features import TextFeatures
from fewrec.learners.text.heads import Rows
from fewrec.learners.text.meta import MetaTextRegressor
from fewrec.learners.text.regression import TextLearner, TextRegressor
from fewrec.learners.text.stack import WORDS, Params, add_lora, starting_weights
from fewrec.learners.text.training import Slots


class _Tuned(TextLearner):
    """Features whose layers, biases or low-rank additions are trained."""

    config: Any

    def make_features(self, backbone: Backbone, ctx: Context) -> TextFeatures:
        config = self.config
        stack, activations = self.stack_of(backbone, ctx, config.method)
        if config.method == "lora":
            add_lora(stack, config.lora_rank, config.lora_alpha, config.lora_targets)
        return TextFeatures(stack, activations, config, ctx, whole=config.method == "full")

    def initial(self, generator: torch.Generator) -> Params:
        params = starting_weights(self.features.stack, self.config.method, generator)
        if self.config.method == "full":
            params[WORDS] = self.features.words_of_catalog()
        return params

    # Whatever is trained starts where the pretrained model is, whose features are known.

    def starting_features(self, params: Params, rows: Rows, texts: Slots) -> Tensor:
        assert self.features.pretrained is not None
        return self.features.pretrained[rows.item]

    def starting_table(self, params: Params) -> Tensor:
        assert self.features.pretrained is not None
        return self.features.pretrained


class BertFinetuneConfig(TunedWeights, TextConfig):
    """Options of ``bert-finetune``."""


class BertFinetune(_Tuned, TextRegressor):
    """Fine-tune a pretrained language model with a regression head on the support's (item text, user, rating) rows.

    Targets are standardised over the support. A user is an offset and a head of its own, both shrunk; offsets and heads
    start at their exact solution for the pretrained features, then everything is trained. What is trained of the
    model is an option (``method``, ``layers``); what is below stays frozen. Source: Devlin et al., NAACL 2019; Kumar et
    al., ICLR 2022.
    """

    name = "bert-finetune"
    paper = "Devlin et al., NAACL 2019; Kumar et al., ICLR 2022"
    Config = BertFinetuneConfig


class BertMetaConfig(TunedWeights, MetaTextConfig):
    """Options of ``bert-meta``."""


class BertMeta(_Tuned, MetaTextRegressor):
    """``bert-finetune``, first fine-tuned on meta-train: see ``MetaTextRegressor``."""

    name = "bert-meta"
    paper = "Devlin et al., NAACL 2019; Kumar et al., ICLR 2022"
    Config = BertMetaConfig
