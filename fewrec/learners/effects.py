"""Rating effects by ridge, and the meta-train ratings of known users: what several closed forms begin with."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fewrec.data.table import RatingTable
from fewrec.episodes.support import SupportBatch
from fewrec.learners.base import Context


@dataclass(frozen=True, eq=False)
class Effects:
    """The minimiser of ``ridge_effects``: ``mu`` + ``item`` (n_items,) + ``user`` (n_users,), float64, rating scale."""

    mu: float
    item: np.ndarray
    user: np.ndarray


def ridge_effects(
    table: RatingTable, item_ridge: float, user_ridge: float, tolerance: float = 1e-11, max_sweeps: int = 2000
) -> Effects:
    """Fit global, item and user effects to a rating table by alternating least squares, to convergence.

    Minimises ``sum (r - mu - b_i - b_u)^2 + item_ridge sum b_i^2 + user_ridge sum b_u^2`` over mu (not penalised), b_i
    and b_u (Koren, Bell & Volinsky, IEEE Computer 2009, without the factors). A free mu makes the effects of either
    side sum to zero, so that zero is the mean user: what a new one is to be shrunk towards. The sweeps end once no
    effect moves by more than ``tolerance``. Items and users without ratings get zero.
    """
    n_user, n_item = np.bincount(table.user, minlength=table.n_users), np.bincount(table.item, minlength=table.n_items)
    rated_user, rated_item = n_user > 0, n_item > 0
    mu, user, item = float(table.rating.mean()), np.zeros(table.n_users), np.zeros(table.n_items)
    for _ in range(max_sweeps):
        residual = table.rating - mu - user[table.user]
        new_item = np.bincount(table.item, residual, table.n_items) / np.maximum(n_item + item_ridge, 1e-12)
        residual = table.rating - mu - new_item[table.item]
        new_user = np.bincount(table.user, residual, table.n_users) / np.maximum(n_user + user_ridge, 1e-12)
        # Moving the means into mu changes no prediction and lowers the penalty; without it the sweeps creep.
        for effect, rated in ((new_item, rated_item), (new_user, rated_user)):
            shift = effect[rated].mean()
            effect[rated] -= shift
            mu += shift
        moved = max(np.abs(new_item - item).max(), np.abs(new_user - user).max())
        item, user = new_item, new_user
        if moved < tolerance:
            break
    return Effects(float(mu), item, user)


def with_unseen(effect: np.ndarray, table: RatingTable) -> np.ndarray:
    """Return item effects in which an item without a rating has the rating-weighted mean effect, (n_items,)."""
    return np.where(np.bincount(table.item, minlength=table.n_items) > 0, effect, effect[table.item].mean())


def precise_device(ctx: Context) -> torch.device:
    """Return the context's device, or the CPU where that device has no float64 (mps)."""
    return torch.device("cpu") if ctx.device.type == "mps" else ctx.device


def sums_by(index: Tensor, values: Tensor, size: int) -> Tensor:
    """Return ``values`` (n, ...) summed by ``index`` (n,) into (size, ...)."""
    return values.new_zeros(size, *values.shape[1:]).index_add_(0, index, values)


@dataclass(frozen=True, eq=False)
class KnownUsers:
    """The meta-train ratings, ordered by user: rows of meta-train user *u* lie at ``offsets[u]:offsets[u + 1]``.

    In the states `warm` and `item-cold` the users of an episode are known (``meta_user`` >= 0), and what is known of
    them counts as much as their support.
    """

    item: Tensor
    rating: Tensor
    offsets: Tensor

    @classmethod
    def of(cls, table: RatingTable) -> KnownUsers:
        order = np.argsort(table.user, kind="stable")
        ends = np.cumsum(np.bincount(table.user, minlength=table.n_users))
        offsets = torch.from_numpy(np.concatenate([[0], ends]).astype(np.int64))
        return cls(torch.from_numpy(table.item[order]), torch.from_numpy(table.rating[order]), offsets)

    def tensors(self) -> dict[str, Tensor]:
        """Return what ``from_tensors`` takes, for a learner's state; ratings are float64."""
        return {"known_item": self.item, "known_rating": self.rating, "known_offsets": self.offsets}

    @classmethod
    def from_tensors(cls, tensors) -> KnownUsers:
        return cls(*(tensors[name].cpu() for name in ("known_item", "known_rating", "known_offsets")))

    def ratings(self, supports: SupportBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Return (user numbered through the batch, item, rating) of all that is known: the support, then meta-train."""
        user, item, rating = supports.flat_user().cpu(), supports.item.cpu(), supports.rating.cpu().double()
        meta_user = supports.meta_user.cpu()
        known = (meta_user >= 0).nonzero().squeeze(1)
        if not len(known):
            return user, item, rating
        start = self.offsets[meta_user[known]]
        count = self.offsets[meta_user[known] + 1] - start
        within = torch.arange(int(count.sum())) - torch.repeat_interleave(count.cumsum(0) - count, count)
        rows = torch.repeat_interleave(start, count) + within
        more = torch.repeat_interleave(known, count)
        return torch.cat([user, more]), torch.cat([item, self.item[rows]]), torch.cat([rating, self.rating[rows]])

    def joined(self, supports: SupportBatch, largest: int) -> SupportBatch:
        """Return the supports with at most ``largest`` evenly spaced meta-train ratings of each known user added."""
        meta_user = supports.meta_user.cpu()
        known = (meta_user >= 0).nonzero().squeeze(1)
        start = self.offsets[meta_user[known]]
        count = self.offsets[meta_user[known] + 1] - start
        kept = count.clamp(max=largest)
        within = torch.arange(int(kept.sum())) - torch.repeat_interleave(kept.cumsum(0) - kept, kept)
        each = [torch.repeat_interleave(column, kept) for column in (start, count, kept, known)]
        rows = each[0] + within * each[1] // each[2]
        owner = torch.repeat_interleave(torch.arange(len(supports)), supports.n_users)[each[3]]
        user = each[3] - supports.user_offsets[owner]
        episode = torch.cat([supports.episode.cpu(), owner])
        order = episode.argsort(stable=True)
        counts = torch.bincount(episode, minlength=len(supports))
        return replace(
            supports,
            episode=episode[order],
            user=torch.cat([supports.user.cpu(), user])[order],
            item=torch.cat([supports.item.cpu(), self.item[rows]])[order],
            rating=torch.cat([supports.rating.cpu(), self.rating[rows].to(supports.rating.dtype)])[order],
            timestamp=None,
            offsets=torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]),
        )
