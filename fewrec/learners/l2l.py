"""``maml-mf`` by learn2learn's MAML wrapper, task after task: the same numbers, for checking them and their speed."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from fewrec.bridges.learn2learn import import_learn2learn
from fewrec.learners.base import Context
from fewrec.learners.engine.inner import Params
from fewrec.learners.engine.tasks import PaddedRatings, Tasks, table_rows
from fewrec.learners.meta_mf import MAMLMF, MF


class WholeTables(nn.Module):
    """``MF`` for items given by catalog code (n,), as one would write it for learn2learn: whole tables adapt."""

    def __init__(self, mf: MF) -> None:
        super().__init__()
        self.mf = mf

    def forward(self, item: Tensor) -> Tensor:
        bias, factor = table_rows(self.mf.item_bias, item), table_rows(self.mf.item_factor, item)
        return self.mf.user_bias + bias + factor @ self.mf.user_vector


class MAMLMFL2L(MAMLMF):
    """``maml-mf`` (Finn, Abbeel & Levine, ICML 2017, algorithm 1) through ``learn2learn.algorithms.MAML`` 0.2.0.

    Same options, initialisation, batches, loss and outer loop; each task clones the whole model and adapts it by
    learn2learn, one after the other. Items that a task does not touch have no gradient in it, so that the results are
    those of ``maml-mf`` up to rounding. Deviations: those of ``maml-mf``; the option ``split`` has no effect.
    """

    name = "maml-mf-l2l"

    def prepare(self, ctx: Context) -> None:
        self.learn2learn = import_learn2learn()

    def meta_gradient(self, tasks: Tasks) -> float:
        maml, total, objective = self.maml(self.module), tasks.query.mask.sum(), 0.0
        for task in range(len(tasks)):
            items, ratings = ratings_of(tasks.query, task)
            loss = (self.adapted(maml, tasks, task)(items) - ratings).square().sum() / total
            loss.backward()
            objective += float(loss.detach())
        return objective

    def adapt_tasks(self, tasks: Tasks) -> Params:
        """Return what ``maml-mf`` does, the rows of each task's own items, taken from its adapted tables."""
        # A copy: after meta-fit the learner's own parameters ask for no gradient, which learn2learn needs.
        maml, adapted = self.maml(copy.deepcopy(self.module).requires_grad_()), []
        for task in range(len(tasks)):
            with torch.enable_grad():
                mf = self.adapted(maml, tasks, task, first_order=True).module.mf
            rows = {name: getattr(mf, name).detach() for name in self.adapts}
            adapted.append(rows | {name: rows[name][tasks.items[task]] for name in ("item_bias", "item_factor")})
        return {name: torch.stack([rows[name] for rows in adapted]) for name in self.adapts}

    def maml(self, mf: Any) -> Any:
        return self.learn2learn.algorithms.MAML(WholeTables(mf), lr=self.config.inner_lr)

    def adapted(self, maml: Any, tasks: Tasks, task: int, first_order: bool = False) -> Any:
        """Return a clone of ``maml`` adapted to the task; ``first_order`` changes its graph, not its values."""
        clone = maml.clone(first_order=first_order)
        items, ratings = ratings_of(tasks.support, task)
        # Without a support there is no gradient to follow, and none that torch can take twice.
        for _ in range(self.config.inner_steps if len(items) else 0):
            loss = (clone(items) - ratings).square().sum() / max(len(items) + self.config.inner_prior, 1e-6)
            clone.adapt(loss)
        return clone


def ratings_of(padded: PaddedRatings, task: int) -> tuple[Tensor, Tensor]:
    """Return one task's items and ratings (n,), without the padding."""
    kept = padded.mask[task] > 0
    return padded.item[task][kept], padded.rating[task][kept]
