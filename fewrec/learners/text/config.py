"""Options of the learners that read item text, by what they belong to."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fewrec.learners.base import LearnerConfig


class BackboneConfig(LearnerConfig):
    """What reads the texts, and how its states become features.

    ``backbone``: a language model, by built-in name, hub repository or folder. ``max_length``: tokens a text.
    ``layers``: how many of the last layers are run for each episode; those below are frozen and their output is cached
    (-1: all are run). ``pooling``: a text's features are the means over its tokens, or its last token's
    (auto: mean, and last where a token sees only the ones before it), of the states before, between and after these
    layers side by side (``states`` "all"), or after them ("last").

    ``precision``: "float32", "bfloat16" (matrix products in half precision), or "auto": bfloat16 on a GPU that has it.
    ``pack_tokens``: texts are laid out in rows of about so many tokens. ``memory_mb``: as many episodes are adapted at
    once as fit into this by an estimate.
    """

    backbone: str = "all-MiniLM-L6-v2"
    max_length: int = Field(64, ge=2, le=4096)
    layers: int = Field(1, ge=-1)
    pooling: Literal["auto", "mean", "last"] = "auto"
    states: Literal["all", "last"] = "all"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    pack_tokens: int = Field(128, ge=16)
    memory_mb: int = Field(512, ge=1)


class HeadConfig(BackboneConfig):
    """The linear model on the features: variances of the prior of each user's offset, of the head that users share and
    of each user's own head, in units of the noise; 0: left out."""

    user_variance: float = Field(0.2, ge=0)
    head_variance: float = Field(0.2, ge=0)
    user_head_variance: float = Field(0.2, ge=0)

    @property
    def variances(self) -> tuple[float, float, float]:
        return self.user_variance, self.head_variance, self.user_head_variance


class TextConfig(HeadConfig):
    """Training on a support, besides the options of backbone and head.

    ``epochs``, ``batch_size`` (ratings), ``optimizer``, ``learning_rate`` (of what makes the features),
    ``head_learning_rate``, ``weight_decay``, ``schedule`` of the rates after a ``warmup`` (share of the steps) that
    rises from zero; ``loss``: "mse", "mae", or "huber" (quadratic up to one standard deviation). ``dropout``: of the
    features. ``holdout``: the share of the support that is kept apart to stop early, after ``patience`` epochs without
    a better loss there; of what was trained the best is kept (0: all epochs on the whole support).

    Augmentation, anew at each step: ``mask_tokens``, the share of a text's tokens that is hidden; ``jitter``, the
    standard deviation of noise on the ratings, in standard deviations of the support; ``mixup``: features and ratings
    of two ratings of a user are mixed by a share drawn from Beta(mixup, mixup) (Zhang et al., ICLR 2018; 0: not).
    """

    epochs: int = Field(4, ge=0)
    batch_size: int = Field(256, ge=1)
    optimizer: Literal["adamw", "adafactor", "sgd"] = "adamw"
    learning_rate: float = Field(5e-5, ge=0)
    head_learning_rate: float = Field(1e-3, ge=0)
    weight_decay: float = Field(0.01, ge=0)
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup: float = Field(0.0, ge=0, lt=1)
    loss: Literal["mse", "mae", "huber"] = "mse"
    dropout: float = Field(0.0, ge=0, lt=1)
    holdout: float = Field(0.0, ge=0, lt=1)
    patience: int = Field(2, ge=1)
    mask_tokens: float = Field(0.0, ge=0, lt=1)
    jitter: float = Field(0.0, ge=0)
    mixup: float = Field(0.0, ge=0)


class TunedWeights(LearnerConfig):
    """What is trained of the backbone's weights in its last ``layers`` layers.

    ``method``: "last" (all of their weights), "full" (those of the whole model, embeddings included, whatever
    ``layers`` says), "bias" (BitFit: Ben Zaken, Ravfogel & Goldberg, ACL 2022), "lora" (additions of rank
    ``lora_rank``, scaled by ``lora_alpha / lora_rank``, to the layers' ``lora_targets``: the attention's projections or
    all linear layers; Hu et al., ICLR 2022), or "head": nothing, so that the head alone is.
    """

    method: Literal["last", "full", "bias", "lora", "head"] = "last"
    lora_rank: int = Field(8, ge=1)
    lora_alpha: float = Field(16.0, gt=0)
    lora_targets: Literal["attention", "all"] = "attention"


class SoftPrompts(LearnerConfig):
    """Virtual tokens that a frozen backbone reads beside a text.

    ``method``: "prompt" puts ``tokens`` vectors before each text where the last ``layers`` layers begin (prompt tuning
    at the input where these are all: Lester et al., EMNLP 2021); "prefix" gives each of these layers ``tokens`` keys
    and values of its own (Li & Liang, ACL 2021; P-tuning v2: Liu et al., ACL 2022). ``per``: one prompt an episode, or
    one a user. ``readout``: a regression "head" on the features, or "words": the expected rating by the probabilities
    of the rating words (decoders and encoder-decoders), with each user's offset.
    """

    method: Literal["prompt", "prefix"] = "prompt"
    tokens: int = Field(4, ge=1, le=128)
    per: Literal["episode", "user"] = "episode"
    readout: Literal["head", "words"] = "head"


class PriorConfig(LearnerConfig):
    """What meta-train says of items, and how far each part of it is shrunk.

    ``item_effects``: whether a seen item's own ratings correct what its text says, shrunk by ``effect_ridge`` ratings.
    ``item_ridge`` and ``meta_user_ridge`` shrink the effects that are regressed on text; there an item with n ratings
    has the weight n / (n + ``weight_ridge``), and ``text_ridge`` shrinks the head.
    """

    item_effects: bool = True
    effect_ridge: float = Field(8.0, gt=0)
    item_ridge: float = Field(5.0, gt=0)
    meta_user_ridge: float = Field(10.0, gt=0)
    weight_ridge: float = Field(3.0, ge=0)
    text_ridge: float = Field(2.0, gt=0)


class MetaTextConfig(TextConfig, PriorConfig):
    """Meta-training, besides the options of an episode.

    The ``meta_`` options and ``token_dropout`` (the share of a text's tokens hidden at each step) belong to training on
    meta-train; ``meta_patience`` epochs without a better score on meta-validation end it, and the best epoch, the start
    included, is kept. ``n_query``: ratings a user of the meta-validation episodes.
    """

    meta_epochs: int = Field(6, ge=0)
    meta_batch_size: int = Field(64, ge=1)
    meta_learning_rate: float = Field(1e-4, ge=0)
    meta_head_learning_rate: float = Field(1e-4, ge=0)
    meta_weight_decay: float = Field(0.01, ge=0)
    token_dropout: float = Field(0.2, ge=0, lt=1)
    meta_patience: int = Field(2, ge=1)
    n_query: int = Field(10, ge=1)
    head_variance: float = Field(0.0, ge=0)
    epochs: int = Field(3, ge=0)
    learning_rate: float = Field(1e-5, ge=0)
    head_learning_rate: float = Field(1e-4, ge=0)


ADAPT_OPTIONS = frozenset(
    {"item_effects", "epochs", "batch_size", "optimizer", "learning_rate", "head_learning_rate", "weight_decay",
     "schedule", "warmup", "loss", "dropout", "holdout", "patience", "mask_tokens", "jitter", "mixup", "memory_mb"}
)  # fmt: skip
"""Options of an episode alone, which the meta-fit of a meta-trained text learner does not depend on."""
