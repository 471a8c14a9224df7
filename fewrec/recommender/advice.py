"""What a trained learner advises a user of whom a few ratings are known, how sure it is, and which rating moved it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fewrec.episodes.support import Support, SupportBatch
from fewrec.errors import FewrecError, NotApplicable
from fewrec.learners.base import Learner, Predictor
from fewrec.recommender.ratings import UserRatings
from fewrec.recommender.titles import TitleIndex
from fewrec.recommender.trained import TrainedLearner, failures_named
from fewrec.runner.timing import Stopwatch
from fewrec.seeding import substream_keys

LEVEL = 0.9  # of the predictive interval
_AT_ONCE = 200  # ratings that are left out one by one in one batch: bounds the memory of a user with very many


@dataclass(frozen=True, eq=False, repr=False)
class Recommendations:
    """The best unseen items, as tidy frames.

    ``frame``: one row an item: ``rank``, ``item`` (the data set's id), ``title``, ``year``, ``genres``, ``predicted``
    (limited to the scale), ``low`` and ``high`` (the ends of the ``level`` predictive interval, limited to the scale;
    NaN where the learner has no distribution), ``ratings`` (how many the data set has of the item), ``score`` (the
    prediction as it is ranked by), and after an update ``rank_before``.
    ``moved``: one row an (item, rating of the user): ``rank``, ``item``, ``rated_item``, ``rated_title``, ``rating``
    and ``change``: the prediction with that rating minus the one without it.
    ``seconds``: what adapting, updating and explaining took. ``notes`` are warnings.
    """

    frame: pd.DataFrame
    moved: pd.DataFrame
    learner: str
    dataset: str
    k_shot: int
    level: float
    seconds: dict[str, float]
    notes: tuple[str, ...]
    user: AdaptedUser

    def __repr__(self) -> str:
        return self.frame.drop(columns=["score", "genres"]).to_string(index=False, float_format="{:.2f}".format)

    def _repr_html_(self) -> str:
        return self.frame.to_html(index=False, float_format="{:.2f}".format)

    def update(self, ratings: Any, top: int | None = None, explain: int = 3) -> Recommendations:
        """Return the recommendations once more ratings are known (a file or a mapping); nothing is trained again."""
        from fewrec.recommender.ratings import read_ratings

        user = self.user
        more = read_ratings(ratings, user.titles, user.trained.dataset.scale)
        return user.update(more).recommend(len(self.frame) if top is None else top, explain=explain)


@dataclass(frozen=True, eq=False)
class AdaptedUser:
    """A trained learner adapted to one user's ratings; ``before`` are the scores (n_items,) before the last update."""

    trained: TrainedLearner
    titles: TitleIndex
    ratings: UserRatings
    predictor: Predictor
    seed: int
    seconds: dict[str, float]
    notes: tuple[str, ...]
    before: tuple[UserRatings, Tensor] | None = None

    @classmethod
    def of(cls, trained: TrainedLearner, titles: TitleIndex, ratings: UserRatings, seed: int = 0) -> AdaptedUser:
        """Adapt to the ratings. Raises ``NotApplicable`` where there is none and the learner needs one."""
        refuse_without_ratings(type(trained.learner), len(ratings))
        with failures_named(type(trained.learner), "adapting"), Stopwatch(trained.ctx.device) as watch:
            predictor = trained.learner.adapt(_support(ratings, seed), trained.ctx)
        return cls(trained, titles, ratings, predictor, seed, {"adapt": watch.seconds}, trained.notes)

    def update(self, more: UserRatings) -> AdaptedUser:
        """Return the user with ``more`` ratings, through the predictor's ``update``.

        An item that was rated before has its new rating alone; an update can't take a rating back, so that then the
        learner adapts anew to all ratings.
        """
        again = np.isin(more.item, self.ratings.item)
        joined, notes = self.ratings.joined(more), list(self.notes)
        for item, rating in zip(more.item[again], more.rating[again], strict=True):
            old = self.ratings.rating[self.ratings.item == item][0]
            if old != rating:
                notes.append(f"'{self.titles.shown(int(item))}' was rated {old:g}, and is {rating:g} now")
        before = (self.ratings, self.scores())
        with failures_named(type(self.trained.learner), "updating"), Stopwatch(self.trained.ctx.device) as watch:
            if again.any():
                predictor = self.trained.learner.adapt(_support(joined, self.seed), self.trained.ctx)
            else:
                predictor = self.predictor.update(_support(more, self.seed), self.trained.ctx)
        seconds = {**self.seconds, "update": self.seconds.get("update", 0.0) + watch.seconds}
        return replace(
            self, ratings=joined, predictor=predictor, seconds=seconds, notes=tuple(notes), before=self.before or before
        )

    def scores(self) -> Tensor:
        """Return the prediction of every item of the catalog, (n_items,) float64."""
        items = torch.arange(len(self.trained.dataset.catalog))
        with failures_named(type(self.trained.learner), "predicting"), torch.no_grad():
            found = self.predictor.predict(torch.zeros_like(items), items).detach().cpu().double()
        if found.shape != items.shape or not torch.isfinite(found).all():
            raise FewrecError(f"learner '{self.trained.learner.name}' predicts NaN here, or not one number an item")
        return found

    def recommend(self, top: int = 10, *, explain: int = 3, genre: str | None = None) -> Recommendations:
        """Return the ``top`` items without a rating of this user, each with the ``explain`` ratings that moved it most.

        Ties are broken by the number of ratings in the data set. ``genre``: only items of that genre.
        """
        scores = self.scores()
        allowed = self.titles.of_genre(genre)
        order = self._ranked(scores, self.ratings, allowed)[:top]
        frame = self._frame(scores, order)
        if self.before is not None:
            was = self._ranked(self.before[1], self.before[0], allowed)
            place = {item: rank for rank, item in enumerate(was.tolist(), 1)}
            frame["rank_before"] = [place[item] for item in order.tolist()]
        seconds = dict(self.seconds)
        moved = _NOTHING_MOVED
        if explain and len(order) and len(self.ratings):
            with failures_named(type(self.trained.learner), "adapting"), Stopwatch(self.trained.ctx.device) as watch:
                moved = self._moved(order, explain)
            seconds["explain"] = watch.seconds
        return Recommendations(
            frame, moved, self.trained.learner.name, self.trained.dataset.name, len(self.ratings), LEVEL, seconds,
            self.notes, self,
        )  # fmt: skip

    def _ranked(self, scores: Tensor, ratings: UserRatings, allowed: np.ndarray) -> np.ndarray:
        """Return the unseen items, the best first."""
        unseen = allowed.copy()
        unseen[ratings.item] = False
        items = np.flatnonzero(unseen)
        return items[np.lexsort((items, -self.titles.count[items], -scores.numpy()[items]))]

    def _frame(self, scores: Tensor, order: np.ndarray) -> pd.DataFrame:
        scale, titles = self.trained.dataset.scale, self.titles
        items = torch.from_numpy(order)
        with torch.no_grad():
            found = self.predictor.distribution(torch.zeros_like(items), items) if len(items) else None
        low = high = np.full(len(items), math.nan)
        if found is not None:
            mean, deviation = (part.detach().cpu().double().numpy() for part in found)
            half = NormalDist().inv_cdf(0.5 + LEVEL / 2) * deviation
            low, high = scale.clip(mean - half), scale.clip(mean + half)
        score = scores.numpy()[order]
        return pd.DataFrame(
            {
                "rank": np.arange(1, len(order) + 1),
                "item": [self.trained.dataset.catalog.item_ids[item] for item in order],
                "title": [titles.title(item) for item in order],
                "year": [titles.years[item] for item in order],
                "genres": [titles.genres[item] for item in order],
                "predicted": scale.clip(score),
                "low": low,
                "high": high,
                "ratings": titles.count[order],
                "score": score,
            }
        )

    def _moved(self, order: np.ndarray, explain: int) -> pd.DataFrame:
        """Return by how much each rating moves the items' predictions: exactly, by adapting without it."""
        ratings, k, ids = self.ratings, len(self.ratings), self.trained.dataset.catalog.item_ids
        if k == 1 and "k>0" in self.trained.learner.needs:
            return _NOTHING_MOVED
        change = np.concatenate(
            [self._change(order, range(first, min(first + _AT_ONCE, k))) for first in range(0, k, _AT_ONCE)]
        )
        rows = []
        for at, item in enumerate(order):
            for i in np.argsort(-np.abs(change[:, at]), kind="stable")[:explain]:
                rated = int(ratings.item[i])
                rows.append((at + 1, ids[item], ids[rated], self.titles.shown(rated), ratings.rating[i], change[i, at]))
        return pd.DataFrame(rows, columns=_NOTHING_MOVED.columns)

    def _change(self, order: np.ndarray, left_out: range) -> np.ndarray:
        """Return (ratings left out, items): prediction with the rating minus without; one batch, one seed for all."""
        without = [_support(_without(self.ratings, i), self.seed) for i in left_out]
        batch = SupportBatch.of([_support(self.ratings, self.seed), *without])
        predictor = self.trained.learner.adapt_batch(batch, self.trained.ctx)
        episode = torch.arange(len(batch)).repeat_interleave(len(order))
        item = torch.from_numpy(order).repeat(len(batch))
        with torch.no_grad():
            found = predictor.predict(episode, torch.zeros_like(item), item).detach().cpu().double()
        table = found.reshape(len(batch), len(order)).numpy()
        return table[0] - table[1:]


_NOTHING_MOVED = pd.DataFrame(columns=["rank", "item", "rated_item", "rated_title", "rating", "change"])


def refuse_without_ratings(cls: type[Learner], k_shot: int) -> None:
    """Raise ``NotApplicable`` where a learner predicts nothing for a user without ratings and there is none."""
    if k_shot == 0 and "k>0" in cls.needs:
        raise NotApplicable(
            f"'{cls.name}' can't recommend without a rating; give --ratings FILE, or take a learner that can (gp)"
        )


def _support(ratings: UserRatings, seed: int) -> Support:
    return Support(
        n_users=1,
        user=torch.zeros(len(ratings), dtype=torch.int64),
        item=torch.from_numpy(ratings.item.copy()),
        rating=torch.from_numpy(ratings.rating.copy()),
        timestamp=None,
        meta_user=torch.tensor([-1]),
        seed=int(substream_keys(seed, "recommend", np.zeros(1, np.int64))[0] >> np.uint64(1)),
    )


def _without(ratings: UserRatings, row: int) -> UserRatings:
    kept = np.arange(len(ratings)) != row
    return UserRatings(ratings.item[kept], ratings.rating[kept])
