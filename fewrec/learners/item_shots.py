"""The few ratings of unseen items that a protocol may give (``item_shots``), gathered for a whole batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fewrec.episodes.support import SupportBatch


@dataclass(frozen=True, eq=False)
class ItemShots:
    """The item ratings of a batch of supports, grouped by (episode, item).

    ``episode``, ``item`` (P,) name the pairs that have ratings, in ascending order; ``pair``, ``meta_user``, ``rating``
    (n,) are the ratings: of which pair, by which meta-train user, float64 on the rating scale.
    """

    n_items: int
    episode: Tensor
    item: Tensor
    pair: Tensor
    meta_user: Tensor
    rating: Tensor

    @classmethod
    def of(cls, supports: SupportBatch, cold: Tensor) -> ItemShots:
        """Gather the ratings of those items that ``cold`` (n_items,) marks; those of other items are left out."""
        given = [(e, r) for e, r in enumerate(supports.item_ratings or ()) if r is not None and len(r.item)]
        none = torch.zeros(0, dtype=torch.int64)
        episode = torch.cat([none] + [torch.full_like(r.item, e) for e, r in given]).cpu()
        item = torch.cat([none] + [r.item for _, r in given]).cpu()
        meta_user = torch.cat([none] + [r.meta_user for _, r in given]).cpu()
        rating = torch.cat([none.double()] + [r.rating.double() for _, r in given]).cpu()
        kept = cold.cpu()[item]
        key, pair = torch.unique(episode[kept] * len(cold) + item[kept], return_inverse=True)
        pairs = torch.div(key, len(cold), rounding_mode="floor"), key % len(cold)
        return cls(len(cold), *pairs, pair, meta_user[kept], rating[kept])

    def __len__(self) -> int:
        return len(self.item)

    def find(self, episode: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        """Return (pair, found), each (n,), for (episode, item) triples; ``pair`` is 0 where there is none."""
        wanted, key = episode * self.n_items + item, self.episode * self.n_items + self.item
        if not len(key):
            return torch.zeros_like(wanted), torch.zeros_like(wanted, dtype=torch.bool)
        pair = torch.searchsorted(key, wanted).clamp(max=len(key) - 1)
        found = key[pair] == wanted
        return pair * found, found


def padded(group: Tensor, n_groups: int) -> tuple[Tensor, Tensor]:
    """Return (rows, mask), each (n_groups, largest group): the rows of each group in order, 0 where mask is False."""
    count = torch.bincount(group, minlength=n_groups)
    step = torch.arange(int(count.max()) if n_groups else 0, device=group.device)
    mask = step < count.unsqueeze(1)
    position = ((count.cumsum(0) - count).unsqueeze(1) + step) * mask
    order = group.argsort(stable=True)
    return (order[position] if len(order) else position), mask
