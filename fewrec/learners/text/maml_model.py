"""The model of ``maml-lm``: users' heads on features of item texts, apart from the learner that meta-trains it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewrec.learners.engine.inner import TaskView
from fewrec.learners.text.stack import PROMPT


class UserHead(nn.Module):
    """Predict a user's ratings from ``inputs`` (n, r + 1): r directions of the item's features, then its effect."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(()))
        self.head = nn.Parameter(torch.zeros(rank))

    def forward(self, view: TaskView) -> Tensor:
        return rated(self.offset, self.head, view.inputs)


def rated(offset: Tensor, head: Tensor, inputs: Tensor) -> Tensor:
    """Return ``offset + effect_i + head . z_i`` (..., n) for offset (...), head (..., r) and inputs (..., n, r + 1)."""
    return offset.unsqueeze(-1) + inputs[..., -1] + (inputs[..., :-1] * head.unsqueeze(-2)).sum(-1)


class TextModel(nn.Module):
    """Predict ``offset_u + item_effect_i + (text + map head_u) . x_i``, x_i being the features (d,) of the item's text.

    ``item_effect`` (n_items,) is what a seen item's own ratings say beyond its text, ``text`` (d,) what all users'
    heads have in common, ``map`` (d, r) the directions in which they differ; ``prompt`` (tokens, width) where features
    have one. ``rate``: factors of the inner rates by parameter, where they are learnt. ``features`` (n_items, d): those
    of the catalog, where all users have the same.
    """

    features: Tensor | None
    rate: nn.ParameterDict

    def __init__(self, n_items: int, size: int, rank: int) -> None:
        super().__init__()
        self.item_effect = nn.Parameter(torch.zeros(n_items))
        self.text = nn.Parameter(torch.zeros(size))
        self.map = nn.Parameter(torch.zeros(size, min(rank, size)))
        self.user = UserHead(min(rank, size))
        self.prompt: nn.Parameter | None = None
        self.rate = nn.ParameterDict()
        self.register_buffer("features", None, persistent=False)

    def starts(self) -> dict[str, nn.Parameter]:
        """Return the parameters that each user gets a copy of."""
        own = {"offset": self.user.offset, "head": self.user.head}
        return own if self.prompt is None else own | {PROMPT: self.prompt}

    def inputs(self, x: Tensor, items: Tensor) -> Tensor:
        """Return the user heads' inputs (..., r + 1) for features x (..., d) of catalog items (...)."""
        effect = nn.functional.embedding(items, self.item_effect.unsqueeze(1)) + (x @ self.text).unsqueeze(-1)
        return torch.cat([x @ self.map, effect], -1)


def principal_directions(x: Tensor, rank: int) -> Tensor:
    """Return the ``rank`` principal directions (d, rank) of x (n, d), scaled so that products have mean square norm 1.

    They are not whitened: equal variances were worse on meta-validation than the features' own.
    """
    values, vectors = torch.linalg.eigh(x.T @ x / len(x))
    return vectors.flip(1)[:, :rank] / values.flip(0)[:rank].sum().clamp_min(1e-12).sqrt()
