"""Items as embeddings on top of the bias model: what learners with networks over items begin with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewrec.data.table import Catalog
from fewrec.episodes.meta import MetaTrainSet
from fewrec.learners.attributes import item_attributes
from fewrec.learners.base import Context
from fewrec.learners.effects import precise_device
from fewrec.learners.engine.tasks import PaddedRatings
from fewrec.learners.mf_foldin import AlternatingLeastSquares, MFFoldInConfig


class EmbeddedItems(nn.Module):
    """Items as embeddings, and the additive model whose residuals a network on top of them explains.

    ``base`` (n_items,): mu + b_i on the rating scale. An embedding (d,) is the item's ID embedding plus a linear map of
    its attributes; an item without a rating in meta-train has zeros for the former.
    """

    base: Tensor
    attributes: Tensor

    def __init__(self, n_items: int, rank: int, catalog: Catalog) -> None:
        super().__init__()
        attributes = item_attributes(catalog)
        self.register_buffer("base", torch.zeros(n_items))
        self.register_buffer("attributes", attributes, persistent=False)
        self.id = nn.Embedding(n_items, rank)
        self.content = nn.Linear(attributes.shape[1], rank, bias=False) if attributes.shape[1] else None

    def forward(self, items: Tensor) -> Tensor:
        """Return the embeddings (..., d) of catalog items (...)."""
        of_item = nn.functional.embedding(items, self.id.weight)  # backwards deterministic, which indexing is not
        return of_item if self.content is None else of_item + self.content(self.attributes[items])

    def residuals(self, ratings: PaddedRatings, user_ridge: float) -> tuple[Tensor, Tensor]:
        """Return user effects (T,) by ridge, and r - base - effect of the ratings (T, n), 0 for padding."""
        left = (ratings.rating - self.base[ratings.item]) * ratings.mask
        effect = left.sum(1) / (ratings.mask.sum(1) + user_ridge)
        return effect, (left - effect.unsqueeze(1)) * ratings.mask

    @torch.no_grad()
    def start(
        self, source: MetaTrainSet, ctx: Context, generator: torch.Generator, sweeps: int, scale: float, ridge: float
    ) -> None:
        """Set the items to those of a factorization of meta-train, factors times ``scale``.

        Their part that attributes explain, by ridge regression over the rated items, goes into the attributes' map.
        """
        als = AlternatingLeastSquares(
            source.table, MFFoldInConfig(rank=self.id.embedding_dim), generator, precise_device(ctx)
        )
        for _ in range(sweeps):
            als.sweep()
        base, factor = als.normalised()
        self.base.copy_(base)
        self.id.weight.copy_(factor * scale)
        if self.content is not None:
            seen = (~als.unseen).unsqueeze(1).to(factor)
            x = self.attributes.to(factor) * seen
            inner = x.mT @ x + ridge * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
            weight = torch.linalg.solve(inner, x.mT @ (factor * scale))
            self.content.weight.copy_(weight.mT)
            self.id.weight.copy_(factor * scale - x @ weight)
