"""Augmentation of a support: hidden tokens, jittered ratings, mixed features; drawn for each episode on its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fewrec.learners.text.config import TextConfig
from fewrec.learners.text.features import Plan
from fewrec.learners.text.heads import Rows


class Augmentation:
    """Draws anew at each step, from one generator an episode: what an episode gets is the same in any batch."""

    def __init__(self, config: TextConfig, generators: Sequence[torch.Generator]) -> None:
        self.config, self.generators = config, generators

    def kept(self, plan: Plan, episodes: int) -> Tensor | None:
        """Return which places (B, T) are not hidden, or None where nothing is; a text's first token always stays."""
        share = self.config.mask_tokens
        if share == 0:
            return None
        return kept_tokens(
            plan, share, [self.generators[g * episodes // len(plan.items)] for g in range(len(plan.items))]
        )

    def of_rows(self, x: Tensor, target: Tensor, on_host: Rows) -> tuple[Tensor, Tensor]:
        """Return features (E, n, d) and targets (E, n) as they are trained on; ``on_host``: the rows, on the CPU."""
        config = self.config

        def there(drawn: Tensor) -> Tensor:
            return drawn.to(x.device, x.dtype, non_blocking=x.is_cuda)

        if config.dropout:
            drawn = there(self._stacked(lambda g: torch.rand(x.shape[1:], generator=g)))
            x = x * (drawn >= config.dropout) / (1 - config.dropout)
        if config.jitter:
            target = target + config.jitter * there(self._stacked(lambda g: torch.randn(target.shape[1], generator=g)))
        if config.mixup:
            partner, share = self._partners(on_host)
            partner, share = partner.to(x.device, non_blocking=x.is_cuda), there(share)
            mixed = x.gather(1, partner.unsqueeze(2).expand_as(x))
            x = share.unsqueeze(2) * x + (1 - share).unsqueeze(2) * mixed
            target = share * target + (1 - share) * target.gather(1, partner)
        return x, target

    def _stacked(self, draw) -> Tensor:
        return torch.stack([draw(generator) for generator in self.generators])

    def _partners(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Return each row's partner, a random row of the same user, and its share, both (E, n)."""
        n, users = len(rows), rows.user
        partners, shares = [], []
        for user, generator in zip(users, self.generators, strict=True):
            order = torch.randperm(n, generator=generator)
            partner = torch.empty(n, dtype=torch.int64)
            for one in torch.unique(user).tolist():
                partner[user == one] = order[user[order] == one]
            seed = int(torch.randint(2**62, (), generator=generator))
            shares.append(torch.from_numpy(np.random.default_rng(seed).beta(self.config.mixup, self.config.mixup, n)))
            partners.append(partner)
        return torch.stack(partners), torch.stack(shares)


def kept_tokens(plan: Plan, share: float, generators: Sequence[torch.Generator]) -> Tensor:
    """Return which places (B, T) are not hidden, by one generator a group; a text's first token always stays."""
    layout = plan.on_host
    length = layout.length
    longest = int(length.max())
    kept = torch.zeros(*length.shape, longest, dtype=torch.bool)
    for group, generator in enumerate(generators):
        own = int((length[group] > 0).sum())
        most = int(length[group].max())
        kept[group, :own, :most] = torch.rand(own, most, generator=generator) >= share
    kept[:, :, 0] = True
    offsets = torch.arange(length.numel()).reshape(length.shape) * longest
    index = layout.index(offsets)
    here = torch.where(index >= 0, kept.reshape(-1)[index.clamp_min(0)], True)
    return here.to(plan.mask.device, non_blocking=plan.mask.is_cuda)
