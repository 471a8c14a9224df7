"""Fine-tuning a pretrained encoder on an episode's support, from the pretrained weights or from meta-train's."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call

from fewrec.learners.text_encoder import ItemActivations, UpperLayers, mean_pool
from fewrec.learners.text_meta import MetaTextConfig, MetaTextRegressor
from fewrec.learners.text_regression import Params, TextConfig, TextFeatures, TextRegressor


class TunedLayers(TextFeatures):
    """Mean-pooled output of the encoder whose last layers are trained."""

    def initial(self, generator: torch.Generator) -> Params:
        return {name: value.detach().clone() for name, value in self.upper.named_parameters()}

    def pooled(self, params: Params, hidden: Tensor, mask: Tensor) -> Tensor:
        return mean_pool(functional_call(self.upper, params, (hidden, mask)), mask)


class BertFinetuneConfig(TextConfig):
    """Options of ``bert-finetune``; ``layers`` is how many of the last layers are trained (0: the head alone)."""


class BertFinetune(TextRegressor):
    """Fine-tune a pretrained text encoder with a regression head on the support's (item text, user, rating) rows.

    Targets are standardised over the support. A user is an offset and a head of its own, both shrunk; offsets and heads
    start at their exact solution for the pretrained features, then everything is trained by AdamW. The embeddings and
    the layers below the trained ones stay frozen. Source: Devlin et al., NAACL 2019; Kumar et al., ICLR 2022.
    """

    name = "bert-finetune"
    paper = "Devlin et al., NAACL 2019; Kumar et al., ICLR 2022"
    Config = BertFinetuneConfig

    def make_features(self, upper: UpperLayers, activations: ItemActivations, device: torch.device) -> TextFeatures:
        return TunedLayers(upper, activations, device)


class BertMetaConfig(MetaTextConfig):
    """Options of ``bert-meta``."""


class BertMeta(MetaTextRegressor):
    """``bert-finetune``, first fine-tuned on meta-train: see ``MetaTextRegressor``."""

    name = "bert-meta"
    paper = "Devlin et al., NAACL 2019; Kumar et al., ICLR 2022"
    Config = BertMetaConfig

    def make_features(self, upper: UpperLayers, activations: ItemActivations, device: torch.device) -> TextFeatures:
        return TunedLayers(upper, activations, device)
