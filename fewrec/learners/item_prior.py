"""Items' parameters regressed on their texts' features: the prior that ``hybrid-gp`` gives them."""

from __future__ import annotations

import torch
from torch import Tensor

_RIDGES = torch.logspace(-1, 5, 61, dtype=torch.float64)
_ALIGN = 10.0  # the ridge of the regression by which the factors are turned; 1 and 100 did as well


class ItemPrior:
    """A Gaussian prior of items' ``c_i`` (d,) whose mean is linear in their texts' features: ``c_i ~ N(B' e_i, V)``.

    ``features`` (n_items, p): centred over the ``seen`` items, turned to their principal axes, the largest first.
    Column k of B has the prior ``N(0, I / ridge[k])``; its posterior given the items' means, and the ridge, which
    maximises the evidence of that regression, are found together (MacKay, Neural Computation 1992; on a grid, since
    his fixed point can get stuck at B = 0). ``mean`` (n_items, d) is B' e_i at the posterior mean of B, ``spread``
    (n_items, d) its posterior variance.
    """

    def __init__(self, features: Tensor, seen: Tensor, d: int) -> None:
        features = features - features[seen].mean(0)
        _, scale, axes = torch.linalg.svd(features[seen], full_matrices=False)
        kept = scale > 1e-6 * scale.max()  # as many as the seen items' features span
        self.features, self.squares, self.seen = features @ axes[kept].mT, scale[kept] ** 2, seen
        self.ridge = torch.full((d,), float(_RIDGES[-1]), dtype=torch.float64, device=features.device)
        self.mean = features.new_zeros(len(features), d)
        self.spread = torch.zeros_like(self.mean)

    def regress(self, item: Tensor, precision: Tensor) -> None:
        """Find B and the ridges for items' means ``item`` (n_items, d), whose residuals have ``precision`` (d,)."""
        projected = self.features[self.seen].mT @ item[self.seen]
        self.ridge = _RIDGES.to(item.device)[self._evidence(projected, precision).argmax(1)]
        posterior = self.squares[:, None] * precision + self.ridge
        self.mean = self.features @ (projected * precision / posterior)
        self.spread = self.features.square() @ (1 / posterior)

    def turn(self, factor: Tensor) -> Tensor | None:
        """Return the rotation (r, r) of the factors ``factor`` (n_items, r) after which text explains them one by one.

        Their own prior does not tell rotations apart, but B's columns have a ridge each: a direction that text explains
        is to be a column of its own, and not a part of all. None where turning would not raise the evidence.
        """
        if not factor.shape[1]:
            return None
        projected = self.features[self.seen].mT @ factor[self.seen]
        weight = self.squares.sqrt() / (self.squares + _ALIGN)
        explained = projected * weight[:, None]
        rotation = torch.linalg.eigh(explained.mT @ explained)[1].flip(1)
        one = torch.ones(factor.shape[1], dtype=factor.dtype, device=factor.device)
        before, after = (self._evidence(p, one).max(1).values.sum() for p in (projected, projected @ rotation))
        return rotation if after > before else None

    def _evidence(self, projected: Tensor, precision: Tensor) -> Tensor:
        """Return (d, ridges): each column's log evidence, but for what neither a ridge nor a turn moves."""
        ridge = _RIDGES.to(projected.device)
        posterior = self.squares[:, None, None] * precision[None, :, None] + ridge
        fit = (precision[:, None] * projected[:, :, None]).square() / posterior
        return 0.5 * ((ridge / posterior).log().sum(0) + fit.sum(0))
