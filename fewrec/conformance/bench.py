"""The bench that learners are checked on: synthetic data, small episodes, and every call of a learner in isolation."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from fewrec.conformance.check import Broken
from fewrec.conformance.surroundings import Surroundings, known_surroundings
from fewrec.data.synthetic import make_synthetic
from fewrec.data.table import Dataset, Scale
from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.protocol import Protocol
from fewrec.episodes.sampler import EpisodeSampler
from fewrec.episodes.split import Split, split_dataset
from fewrec.episodes.support import Support, SupportBatch
from fewrec.learners.base import BatchPredictor, Context, Learner, Predictor

T = TypeVar("T")

DEPENDS = {"n_users": 3, "k_shot": 4, "n_query": 5}
"""The fields of the cell that ``meta_depends`` may name, as they are on the bench."""

SIZES = ((1, 1), (1, 2), (2, 2), (3, 4))
"""(users, ratings a user) of the episodes, the smallest first: an example is the first that shows a failure."""

K_MAX = 6


class Bench:
    """A learner class with its configuration, on 60 synthetic users and 50 items, half of them to be tested on unseen.

    ``rounding``: how far the batch that an episode came in may move a prediction. ``cache``: an empty folder. The
    protocol is ``both-cold``: new users, support on seen items. Every call of the learner's code starts from the same
    global random state and leaves none behind; what it changed there is kept in ``disturbed`` and ``drawn``, by phase.
    """

    def __init__(self, learner: type[Learner], config: Mapping[str, Any], cache: Path, rounding: float = 1e-4) -> None:
        self.learner, self.config, self.cache, self.rounding = learner, dict(config), cache, rounding
        self.outcomes: dict[str, Any] = {}
        self.bare: Any = None  # what two checks learn from one meta-fit on a bare data set
        self.support_at_hand: Support | None = None
        self.disturbed: dict[str, set[str]] = defaultdict(set)
        self.drawn: dict[str, set[str]] = defaultdict(set)

    # data

    @cached_property
    def split(self) -> Split:
        return self.split_of(self._dataset())

    @cached_property
    def ctx(self) -> Context:
        return Context(torch.device("cpu"), self.split.catalog, Scale(1, 5, 1), self.cache)

    def _dataset(self) -> Dataset:
        data = make_synthetic(n_users=60, n_items=50, density=0.6, seed=5)
        if "item_features" in self.learner.needs:
            features = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
            return replace(data, catalog=replace(data.catalog, features=features))
        return data

    def elsewhere(self, *, bare: bool, scale: Scale) -> tuple[Split, Context]:
        """Return the same ratings on another scale; ``bare``: without what the learner does not declare to need."""
        data, old = self._dataset(), self.ctx.scale
        rating = scale.low + (data.table.rating - old.low) * (scale.high - scale.low) / (old.high - old.low)
        table, needs = replace(data.table, rating=rating), self.learner.needs
        if bare:
            table = table if "timestamps" in needs else replace(table, timestamp=None)
            catalog = data.catalog if "item_text" in needs else replace(data.catalog, text=None)
            users = data.user_features if "user_features" in needs else None
            data = replace(data, catalog=catalog, user_features=users)
        split = self.split_of(replace(data, table=table, scale=scale))
        return split, replace(self.ctx, catalog=split.catalog, scale=scale)

    def split_of(self, data: Dataset) -> Split:
        shots = 2 if "item_ratings" in self.learner.needs else 0
        return split_dataset(data, Protocol(state="both-cold", k_max=K_MAX, item_shots=shots), 0)

    def source(self, split: Split | None = None, scale: Scale | None = None) -> MetaTrainSet:
        depends = {key: DEPENDS[key] for key in self.learner.meta_depends}
        return MetaTrainSet(split or self.split, scale or self.ctx.scale, depends)

    def support(self, n_users: int, k_shot: int, episode: int = 0, split: Split | None = None) -> Support:
        """Return the support of one meta-test episode, its tensors its own."""
        split = split or self.split
        sampler = EpisodeSampler(split.pools["test"], 0, "test", k_max=K_MAX, item_shots=split.protocol.item_shots)
        drawn = sampler.sample(episode, 1, n_users=n_users, k_shot=k_shot, n_query=DEPENDS["n_query"])
        return cloned(drawn.support[0])

    @property
    def ordinary(self) -> Support:
        """The support of an episode of three users with four ratings each."""
        return self.support(*SIZES[-1])

    def another(self, support: Support) -> Support:
        """Return the support of the next episode, with as many users and ratings."""
        return self.support(support.n_users, max(1, len(support.item) // support.n_users), 1)

    def everything(self, support: Support) -> tuple[Tensor, Tensor]:
        """Return (users, items) that ask for the whole catalog, seen and unseen items, for every user."""
        n_items = len(self.split.catalog)
        users = torch.arange(support.n_users).repeat_interleave(n_items)
        return users, torch.arange(n_items).repeat(support.n_users)

    # the learner

    def call(self, phase: str, function: Callable[[], T], seed: int = 0) -> T:
        """Return ``function()``, run in known surroundings; record what it did to them under ``phase``."""
        with known_surroundings(seed) as before:
            found = function()
            after = Surroundings.now()
            self.disturbed[phase].update(before.changed_settings(after))
            self.drawn[phase].update(before.drawn_from(after))
        return found

    def make(self, ctx: Context | None = None, seed: int = 0) -> Learner:
        """Return a prepared learner, not yet meta-fitted."""
        learner = self.call("the constructor", lambda: self.learner(self.learner.Config(**self.config)), seed)
        self.call("prepare", lambda: learner.prepare(ctx or self.ctx), seed)
        return learner

    def fit(self, seed: int = 0, split: Split | None = None, ctx: Context | None = None) -> Learner:
        """Return a learner that is prepared and meta-fitted from scratch."""
        ctx = ctx or self.ctx
        learner, source = self.make(ctx, seed), self.source(split, ctx.scale)
        self.call("meta_fit", lambda: learner.meta_fit(source, ctx), seed)
        return learner

    @cached_property
    def fitted(self) -> Learner:
        return self.fit()

    @cached_property
    def refitted(self) -> Learner:
        """A second learner, meta-fitted with the global generators seeded otherwise."""
        return self.fit(seed=1)

    def adapt(
        self, support: Support, learner: Learner | None = None, ctx: Context | None = None, seed: int = 0
    ) -> Predictor:
        """Return the learner (default: the fitted one) adapted to a copy of ``support``."""
        learner = learner or self.fitted
        self.support_at_hand = support
        return self.call("adapt", lambda: learner.adapt(cloned(support), ctx or self.ctx), seed)

    def adapt_batch(self, supports: list[Support]) -> BatchPredictor:
        batch = SupportBatch.of([cloned(support) for support in supports])
        return self.call("adapt_batch", lambda: self.fitted.adapt_batch(batch, self.ctx))

    def ask(self, predictor: Predictor, users: Tensor, items: Tensor, seed: int = 0) -> Tensor:
        """Return predictions, (n,) float64 on the CPU."""
        found = self.call("predict", lambda: predictor.predict(users.clone(), items.clone()), seed)
        return as_float64(found, len(items))

    def ask_batch(self, predictor: BatchPredictor, episode: int, users: Tensor, items: Tensor) -> Tensor:
        """Return predictions for one episode of a batch, (n,) float64 on the CPU."""
        of = torch.full_like(users, episode)
        return as_float64(self.call("predict", lambda: predictor.predict(of, users.clone(), items.clone())), len(items))

    def predictions(
        self, support: Support, learner: Learner | None = None, ctx: Context | None = None, seed: int = 0
    ) -> Tensor:
        """Return what the learner, adapted to ``support``, predicts for ``everything``."""
        return self.ask(self.adapt(support, learner, ctx, seed), *self.everything(support), seed)

    def copy(self, learner: Learner | None = None) -> Learner:
        """Return a copy of the learner that shares nothing with it, or the learner itself where it can't be copied."""
        learner = learner or self.fitted
        try:
            return copy.deepcopy(learner)
        except Exception:  # a learner may hold what can't be copied; the check then sees a little less
            return learner

    @cached_property
    def gaps(self) -> Tensor:
        """Which items have no finite prediction on the ordinary episode, (n_items,): the business of one check."""
        return ~torch.isfinite(self.predictions(self.ordinary)).reshape(-1, len(self.split.catalog)).all(0)

    def smallest(
        self, body: Callable[[Support], None], sizes: tuple[tuple[int, int], ...] = SIZES, *, ordinary: bool = False
    ) -> None:
        """Run ``body`` on the smallest and the largest episode; where that fails, on the smallest that fails too.

        ``ordinary``: run it on the largest alone, and on smaller ones only to find a smaller example.
        """
        if not ordinary:
            body(self.support(*sizes[0]))
        try:
            body(self.support(*sizes[-1]))
        except Exception:
            at_hand = self.support_at_hand
            for size in sizes[0 if ordinary else 1 : -1]:
                body(self.support(*size))
            self.support_at_hand = at_hand
            raise


def as_float64(found: Any, count: int) -> Tensor:
    """Return predictions as (n,) float64 on the CPU; raise ``Broken`` where they aren't n numbers."""
    cause = "predict(users, items) returns one number for each pair, in the order asked: a tensor of shape (n,)."
    if not isinstance(found, Tensor):
        raise Broken(f"predict returned a {type(found).__name__}, not a tensor.", cause)
    if found.shape != (count,):
        raise Broken(f"predict returned shape {tuple(found.shape)} for {count} pairs.", cause)
    if found.dtype.is_complex or found.dtype == torch.bool:
        raise Broken(f"predict returned {found.dtype}.", cause)
    return found.detach().cpu().double()


def cloned(support: Support) -> Support:
    """Return a support whose tensors are its own, so that nothing that is done to it reaches another one."""
    shots = support.item_ratings
    if shots is not None:
        shots = replace(shots, **{f.name: getattr(shots, f.name).clone() for f in fields(shots)})
    values = ((f.name, getattr(support, f.name)) for f in fields(support))
    tensors: dict[str, Any] = {name: value.clone() for name, value in values if isinstance(value, Tensor)}
    return replace(support, item_ratings=shots, **tensors)


def rows(support: Support, kept: Tensor, rating: Tensor | None = None) -> Support:
    """Return the support of the given rows alone, with other ratings (for all of its rows) if given."""
    time = None if support.timestamp is None else support.timestamp[kept]
    rating = support.rating if rating is None else rating
    return replace(support, user=support.user[kept], item=support.item[kept], rating=rating[kept], timestamp=time)


def rated(support: Support, rating: float | Tensor) -> Support:
    """Return the support with one rating, or the given ones, everywhere."""
    given = rating if isinstance(rating, Tensor) else torch.full_like(support.rating, rating)
    return replace(support, rating=given)


def alone(support: Support, user: int) -> Support:
    """Return the episode of one of the users, who becomes user 0."""
    features = None if support.user_features is None else support.user_features[user : user + 1]
    one = rows(support, support.user == user)
    return replace(
        one, n_users=1, user=one.user - user, meta_user=support.meta_user[user : user + 1], user_features=features
    )
