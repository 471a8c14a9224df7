"""The contract of a learner (design, contract 2): what an author writes, what the runner calls, and what is timed.

The smallest learner implements ``adapt`` and returns a ``Predictor``; everything else is optional. The runner makes a
learner as ``cls(config)``, then ``prepare``, then ``meta_fit`` or ``load_state``, then many ``adapt`` or
``adapt_batch``. Each of these phases is timed on its own.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from fewrec.data.table import Catalog, Scale
from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.support import Support, SupportBatch

T = TypeVar("T")


class LearnerConfig(BaseModel):
    """A learner's options: frozen, validated, hashable. Defaults are those chosen on meta-validation."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


@dataclass(frozen=True)
class Context:
    """The surroundings of a learner: it has no other source of randomness, of paths or of a device.

    ``catalog`` and ``scale`` are those of the data set that is evaluated. ``cache`` is a folder that learners may fill
    with what is expensive to compute and independent of ratings; it may be emptied at any time.
    """

    device: torch.device
    catalog: Catalog
    scale: Scale
    cache: Path
    track: Callable[[Sequence[T], str], Iterator[T]] = field(default=lambda steps, label: iter(steps))
    record: Callable[[int, Mapping[str, float]], None] = field(default=lambda step, scalars: None)

    def generator(self, seed: int) -> torch.Generator:
        """Return a CPU generator seeded with ``seed``; numbers are drawn on the CPU so that devices agree."""
        return torch.Generator().manual_seed(seed)

    def progress(self, steps: Sequence[T], label: str) -> Iterator[T]:
        """Yield ``steps`` while the runner shows how far a long loop is."""
        return self.track(steps, label)

    def log(self, step: int, **scalars: float) -> None:
        """Record numbers of one step of meta-training, for learning curves."""
        self.record(step, scalars)


class Predictor(ABC):
    """A learner adapted to one episode."""

    _origin: tuple[Learner, Support] | None = None

    @abstractmethod
    def predict(self, users: Tensor, items: Tensor) -> Tensor:
        """Return (n,) ratings on the data set's scale (scores for clicks) for (n,) users and items of the catalog."""

    def distribution(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return (mean, standard deviation) of the ratings, each (n,), or None where the learner has none.

        The mean is what ``predict`` returns, the deviation is that of a rating: noise included, always above 0. Tables
        of ratings score it as a normal distribution; it is asked for after ``predict`` and not timed.
        """
        return None

    def explain(self, user: int, item: int) -> Tensor | None:
        """Return the share of each support rating in a prediction, (n_support,), or None."""
        return None

    def information(self, users: Tensor, items: Tensor, targets: Tensor, weights: Tensor) -> Tensor | None:
        """Return what each item's rating would tell, (n,), for (n,) pairs of user and candidate item; or None.

        That is the expected fall of the mean variance of ``distribution`` over the items ``targets`` (m,), weighted by
        ``weights`` (m,) >= 0 of any positive sum, once ``update`` knows this one rating more (Cohn, Ghahramani &
        Jordan, JAIR 1996): in squared units of the rating, never below 0, each pair apart from the others. Who has it
        declares ``informs``.
        """
        return None

    def update(self, support: Support, ctx: Context) -> Predictor:
        """Return a new predictor that knows ``support`` too. Default: adapt again on the joined support, same seed."""
        if self._origin is None:
            raise RuntimeError("this predictor was not made by a learner's adapt")
        learner, known = self._origin
        return learner.adapt(known.joined(support), ctx)


class BatchPredictor(ABC):
    """A learner adapted to a batch of episodes."""

    _origin: tuple[Learner, SupportBatch] | None = None

    @abstractmethod
    def predict(self, episode: Tensor, user: Tensor, item: Tensor) -> Tensor:
        """Return (n,) ratings for (n,) triples; ``user`` counts from 0 within its episode."""

    def distribution(self, episode: Tensor, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return (mean, standard deviation), each (n,), or None; see ``Predictor.distribution``."""
        return None

    def explain(self, episode: int, user: int, item: int) -> Tensor | None:
        """Return the share of each rating of the episode's support in a prediction, or None."""
        return None

    def information(
        self, episode: Tensor, user: Tensor, item: Tensor, targets: Tensor, weights: Tensor
    ) -> Tensor | None:
        """Return what each item's rating would tell, (n,), for (n,) triples; else like ``Predictor.information``."""
        return None

    def update(self, supports: SupportBatch, ctx: Context) -> BatchPredictor:
        """Return a new predictor that knows ``supports`` too, episode by episode; else like ``Predictor.update``."""
        if self._origin is None:
            raise RuntimeError("this predictor was not made by a learner's adapt_batch")
        learner, known = self._origin
        return learner.adapt_batch(known.joined(supports), ctx)


def _remember_origin(adapt: Callable) -> Callable:
    """Let every predictor know its learner and support, so that ``update`` works without an author's doing."""

    @functools.wraps(adapt)
    def wrapped(self: Learner, support: Any, ctx: Context) -> Any:
        predictor = adapt(self, support, ctx)
        predictor._origin = (self, support)
        return predictor

    return wrapped


class Learner(ABC):
    """A method of few-shot recommendation.

    ``task``: "user" if each user's prediction depends on that user's support alone, "episode" if it is joint over the
    N users. ``needs``: what the data or the cell must offer, of k>0, item_text, item_features, user_features,
    item_ratings, timestamps. ``meta_depends``: the fields of the cell that ``meta_fit`` depends on, of n_users, k_shot,
    n_query.
    ``adapt_options``: the options of ``Config`` that ``meta_fit`` does not depend on, so that rows that differ in them
    alone share one meta-fit. ``batch_episodes``: the number of episodes that ``adapt_batch`` prefers at once.
    ``paper``: the source, as listings show it. ``closed_form``: whether meta-fit and adapting are closed forms, so that
    another machine must agree to 1e-5 and not merely to 2e-3 of RMSE. ``informs``: whether its predictors have
    ``information``, so that it can say what to ask a user next.
    """

    name: ClassVar[str]
    Config: ClassVar[type[LearnerConfig]] = LearnerConfig
    task: ClassVar[Literal["user", "episode"]] = "user"
    needs: ClassVar[frozenset[str]] = frozenset()
    meta_depends: ClassVar[frozenset[str]] = frozenset()
    adapt_options: ClassVar[frozenset[str]] = frozenset()
    batch_episodes: ClassVar[int] = 1000
    paper: ClassVar[str] = ""
    closed_form: ClassVar[bool] = False
    informs: ClassVar[bool] = False

    def __init__(self, config: LearnerConfig | None = None) -> None:
        self.config: Any = config if config is not None else self.Config()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in ("adapt", "adapt_batch"):
            if name in cls.__dict__:
                setattr(cls, name, _remember_origin(cls.__dict__[name]))

    def prepare(self, ctx: Context) -> None:  # noqa: B027  # optional
        """Load weights, encode texts, compile. Raise ``NotApplicable`` with the reason where something is missing."""

    def meta_fit(self, source: MetaTrainSet, ctx: Context) -> None:  # noqa: B027  # optional
        """Learn from meta-train, once for many episodes. Who overrides this overrides state and load_state."""

    @abstractmethod
    def adapt(self, support: Support, ctx: Context) -> Predictor:
        """Adapt to one episode's support; must not change the learner."""

    def adapt_batch(self, supports: SupportBatch, ctx: Context) -> BatchPredictor:
        """Adapt to many episodes. Default: a loop over ``adapt``."""
        predictor = LoopedPredictor([self.adapt(support, ctx) for support in supports])
        predictor._origin = (self, supports)
        return predictor

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return what ``meta_fit`` learnt: tensors (stored as safetensors) and JSON values."""
        return {}, {}

    def load_state(  # noqa: B027  # optional, like meta_fit
        self, tensors: Mapping[str, Tensor], values: Mapping[str, Any], ctx: Context
    ) -> None:
        """Restore what ``state`` returned, instead of ``meta_fit``."""

    def loaded(self) -> dict[str, str]:
        """Return the SHA-256 of every file of weights that ``prepare`` loaded, by name; kept with each cell."""
        return {}

    def trainable_parameters(self) -> int:
        """Return how many numbers the learner fits: those of meta-fit plus those of adapting to one user or episode."""
        return 0

    @classmethod
    def has_meta_fit(cls) -> bool:
        return cls.meta_fit is not Learner.meta_fit


class BatchedLearner(Learner):
    """A learner that is written for batches: implements ``adapt_batch``, and ``adapt`` is a batch of one."""

    @abstractmethod
    def adapt_batch(self, supports: SupportBatch, ctx: Context) -> BatchPredictor: ...

    def adapt(self, support: Support, ctx: Context) -> Predictor:
        return _OneOfBatch(self.adapt_batch(SupportBatch.of([support]), ctx))


class LoopedPredictor(BatchPredictor):
    """One predictor an episode."""

    def __init__(self, predictors: Sequence[Predictor]) -> None:
        self.predictors = predictors

    def predict(self, episode: Tensor, user: Tensor, item: Tensor) -> Tensor:
        out = torch.empty(len(item), dtype=torch.float64)
        for e in torch.unique(episode).tolist():
            rows = episode == e
            out[rows] = self.predictors[e].predict(user[rows], item[rows]).detach().cpu().double()
        return out

    def distribution(self, episode: Tensor, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return those of the episodes' predictors, float64 on the CPU; None where one of them has none."""
        mean, deviation = torch.empty(len(item), dtype=torch.float64), torch.empty(len(item), dtype=torch.float64)
        for e in torch.unique(episode).tolist():
            rows = episode == e
            found = self.predictors[e].distribution(user[rows], item[rows])
            if found is None:
                return None
            if not isinstance(found, tuple):
                kind = type(found).__name__
                raise TypeError(f"distribution returned a {kind}, not (mean, standard deviation) or None")
            mean[rows], deviation[rows] = (part.detach().cpu().double() for part in found)
        return mean, deviation


class _OneOfBatch(Predictor):
    def __init__(self, batch: BatchPredictor) -> None:
        self.batch = batch

    def predict(self, users: Tensor, items: Tensor) -> Tensor:
        return self.batch.predict(torch.zeros_like(users), users, items)

    def distribution(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor] | None:
        return self.batch.distribution(torch.zeros_like(users), users, items)

    def explain(self, user: int, item: int) -> Tensor | None:
        return self.batch.explain(0, user, item)

    def information(self, users: Tensor, items: Tensor, targets: Tensor, weights: Tensor) -> Tensor | None:
        return self.batch.information(torch.zeros_like(users), users, items, targets, weights)
