"""Which rating to ask a user for next: the one that is expected to tell most about all that the user may rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from fewrec.errors import FewrecError, NotApplicable
from fewrec.learners.base import Learner
from fewrec.learners.registry import BUILTIN, learner_class
from fewrec.recommender.advice import AdaptedUser
from fewrec.recommender.ratings import read_ratings
from fewrec.recommender.trained import failures_named
from fewrec.runner.timing import Stopwatch


@dataclass(frozen=True, eq=False, repr=False)
class Questions:
    """The items whose rating is worth asking for, the best first, as a tidy frame.

    ``frame``: one row an item: ``rank``, ``item`` (the data set's id), ``title``, ``year``, ``genres``, ``information``
    (by how much its rating would lower the mean variance of the user's predictions, over all items weighted by their
    number of ratings; in squared units of the rating), ``known`` (the share of the data set's users who rated it: the
    chance to get an answer), ``expected`` (what the items are ranked by: ``information`` times ``known``, or
    ``information`` alone where ``popular`` is off) and ``ratings`` (how many the data set has of the item).
    ``seconds``: what adapting, updating and choosing took. ``notes`` are warnings.
    """

    frame: pd.DataFrame
    learner: str
    dataset: str
    k_shot: int
    genre: str | None
    popular: bool
    seconds: dict[str, float]
    notes: tuple[str, ...]
    user: AdaptedUser

    def __repr__(self) -> str:
        return self.frame.drop(columns="genres").to_string(index=False, float_format="{:.4f}".format)

    def _repr_html_(self) -> str:
        return self.frame.to_html(index=False, float_format="{:.4f}".format)

    def update(self, ratings: Any, top: int | None = None) -> Questions:
        """Return what to ask once these answers are known (a file or a mapping); nothing is trained again."""
        user = self.user
        answers = read_ratings(ratings, user.titles, user.trained.dataset.scale)
        top = len(self.frame) if top is None else top
        return questions(user.update(answers), top, genre=self.genre, popular=self.popular)


def refuse_uninformed(cls: type[Learner]) -> None:
    """Raise ``NotApplicable``, with the names of those that can, for a learner that can't say what a rating tells."""
    if not cls.informs:
        able = ", ".join(name for name in BUILTIN if learner_class(name).informs)
        raise NotApplicable(f"'{cls.name}' can't say what a rating would tell; learners that can: {able}")


def questions(user: AdaptedUser, top: int = 10, *, genre: str | None = None, popular: bool = True) -> Questions:
    """Return the ``top`` items without a rating of this user whose rating is expected to tell most.

    ``popular``: weight what a rating tells by the share of the data set's users who gave one, since who doesn't know
    an item can't rate it. Ties are broken by the number of ratings. ``genre``: only items of that genre; what they tell
    is still counted over all items.
    """
    trained, titles = user.trained, user.titles
    asked = titles.of_genre(genre).copy()
    asked[user.ratings.item] = False
    items = np.flatnonzero(asked)
    count = titles.count[items]
    with failures_named(type(trained.learner), "weighing ratings"), Stopwatch(trained.ctx.device) as watch:
        information = _information(user, items)
    known = count / len(np.unique(trained.dataset.table.user))
    expected = information * known if popular else information
    best = np.lexsort((items, -count, -expected))[:top]
    frame = pd.DataFrame(
        {
            "rank": np.arange(1, len(best) + 1),
            "item": [trained.dataset.catalog.item_ids[item] for item in items[best]],
            "title": [titles.title(item) for item in items[best]],
            "year": [titles.years[item] for item in items[best]],
            "genres": [titles.genres[item] for item in items[best]],
            "information": information[best],
            "known": known[best],
            "expected": expected[best],
            "ratings": count[best],
        }
    )
    return Questions(
        frame, trained.learner.name, trained.dataset.name, len(user.ratings), genre, popular,
        {**user.seconds, "choose": watch.seconds}, user.notes, user,
    )  # fmt: skip


def _information(user: AdaptedUser, items: np.ndarray) -> np.ndarray:
    asked, targets = torch.from_numpy(items), torch.arange(len(user.titles.count))
    weights = torch.from_numpy(user.titles.count).double()
    with torch.no_grad():
        found = user.predictor.information(torch.zeros_like(asked), asked, targets, weights)
    if found is None or found.shape != asked.shape or not torch.isfinite(found).all():
        raise FewrecError(
            f"learner '{user.trained.learner.name}' declares informs, but doesn't say what each rating would tell"
        )
    return found.detach().cpu().double().numpy()
