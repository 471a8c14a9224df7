"""``fewrec.recommend`` and ``fewrec.ask``: from a few ratings to the best unseen items, or to the best question.

The command line calls the same functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from fewrec.data.load import open_dataset
from fewrec.data.table import Dataset
from fewrec.errors import SuiteError
from fewrec.learners.base import Learner
from fewrec.learners.registry import add_plugin_file, learner_class
from fewrec.paths import go_offline, offline_mode_ends
from fewrec.recommender.advice import AdaptedUser, Recommendations, refuse_without_ratings
from fewrec.recommender.questions import Questions, questions, refuse_uninformed
from fewrec.recommender.ratings import UserRatings, read_ratings
from fewrec.recommender.titles import TitleIndex
from fewrec.recommender.trained import Say, Track, TrainedLearner, open_learner, train_or_load
from fewrec.report.files import check_folder

DEFAULT = "gp"  # the learner where none is named
Ratings = str | Path | Mapping[Any, float]


def recommend(
    ratings: Ratings | None = None,
    *,
    dataset: Dataset | str | Path | None = None,
    learner: str | None = None,
    model: str | Path | TrainedLearner | None = None,
    update: Iterable[Ratings] = (),
    top: int = 10,
    explain: int = 3,
    genre: str | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    save: str | Path | None = None,
    plugins: Iterable[str | Path] = (),
    device: str = "auto",
    threads: int | None = None,
    offline: bool = False,
    track: Track | None = None,
    say: Say | None = None,
) -> Recommendations:
    """Return the best items that a user has not rated, from the few ratings that are known of that user.

    ``ratings`` is a file of ``item,rating`` or a mapping from item id or title to rating; None for a user of whom
    nothing is known. ``learner`` (default ``gp``, with the options ``settings``) is trained on all of ``dataset`` (a
    name, a file of ratings or a ``Dataset``), once: after that it comes from the cache folder. ``model`` is a saved
    learner to use instead: a folder, or what ``fewrec.load_learner`` returned. ``save`` is a folder to save it into.
    ``update``: more ratings, added one after the other without training. ``explain``: how many of the user's ratings
    to name for each item. ``track`` shows the steps of training, ``say`` gets lines on what is done.

    Raises ``FewrecError`` (one line, before any training) for ratings, titles or options that can't be used.
    """
    if top < 1:
        raise SuiteError(f"top = {top}: give 1 or more, so many items")
    if explain < 0:
        raise SuiteError(f"explain = {explain}: give 0 or more, so many ratings to name for each item")
    user = _adapted(
        ratings, dataset=dataset, learner=learner, model=model, update=update, genre=genre, settings=settings,
        seed=seed, save=save, plugins=plugins, device=device, threads=threads, offline=offline, track=track, say=say,
    )  # fmt: skip
    return user.recommend(top, explain=explain, genre=genre)


def ask(
    ratings: Ratings | None = None,
    *,
    dataset: Dataset | str | Path | None = None,
    learner: str | None = None,
    model: str | Path | TrainedLearner | None = None,
    update: Iterable[Ratings] = (),
    top: int = 10,
    genre: str | None = None,
    popular: bool = True,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    save: str | Path | None = None,
    plugins: Iterable[str | Path] = (),
    device: str = "auto",
    threads: int | None = None,
    offline: bool = False,
    track: Track | None = None,
    say: Say | None = None,
) -> Questions:
    """Return the items whose rating would tell most about a user of whom a few ratings, or none, are known.

    What a rating tells is the expected fall of the mean variance of the learner's predictions for that user, over all
    items weighted by their number of ratings (``Predictor.information``). ``popular``: weight it by the share of the
    data set's users who rated the item, since nobody can rate what they don't know. All else is as in ``recommend``.

    Raises ``NotApplicable`` (one line, before any training, with the names of those that can) for a learner that can't
    say, and ``FewrecError`` for ratings, titles or options that can't be used.
    """
    if top < 1:
        raise SuiteError(f"top = {top}: give 1 or more, so many items")
    user = _adapted(
        ratings, dataset=dataset, learner=learner, model=model, update=update, genre=genre, settings=settings,
        seed=seed, save=save, plugins=plugins, device=device, threads=threads, offline=offline, track=track, say=say,
        refuse=refuse_uninformed,
    )  # fmt: skip
    return questions(user, top, genre=genre, popular=popular)


@offline_mode_ends
def _adapted(
    ratings: Ratings | None,
    *,
    dataset: Dataset | str | Path | None,
    learner: str | None,
    model: str | Path | TrainedLearner | None,
    update: Iterable[Ratings],
    genre: str | None,
    settings: Mapping[str, Any] | None,
    seed: int,
    save: str | Path | None,
    plugins: Iterable[str | Path],
    device: str,
    threads: int | None,
    offline: bool,
    track: Track | None,
    say: Say | None,
    refuse: Callable[[type[Learner]], None] = lambda cls: None,
) -> AdaptedUser:
    """Return the learner, loaded or trained, adapted to the user; ``refuse`` may refuse its class before training."""
    if threads is not None and threads < 1:
        raise SuiteError(f"--threads {threads}: at least one thread is needed")
    if offline:
        go_offline()
    if save is not None:
        check_folder(Path(save).expanduser(), "--save")
    for plugin in plugins:
        add_plugin_file(Path(plugin))
    chosen: TrainedLearner | None = None
    if isinstance(model, TrainedLearner):
        chosen = model
    elif model is not None:
        chosen = open_learner(
            model, dataset=dataset, learner=learner, settings=settings, device=device, offline=offline
        )
    name = learner or DEFAULT
    refuse(learner_class(name) if chosen is None else type(chosen.learner))
    data = chosen.dataset if chosen is not None else _dataset(dataset, offline)
    titles = TitleIndex(data)
    titles.of_genre(genre)
    known = UserRatings.none() if ratings is None else read_ratings(ratings, titles, data.scale)
    more = [read_ratings(source, titles, data.scale) for source in update]
    if more and not len(known):
        known, more = more[0], more[1:]
    if threads is not None:
        torch.set_num_threads(threads)
    if chosen is None:
        refuse_without_ratings(learner_class(name), len(known))
        chosen = train_or_load(
            name, data, settings=settings, seed=seed, device=device, k_shot=len(known), track=track, say=say
        )
    if save is not None:
        chosen.save(save)
    user = AdaptedUser.of(chosen, titles, known, seed)
    for addition in more:
        user = user.update(addition)
    return user


def _dataset(dataset: Dataset | str | Path | None, offline: bool) -> Dataset:
    if dataset is None:
        raise SuiteError("no data set to recommend from: give --dataset NAME, --data FILE or --model FOLDER")
    return dataset if isinstance(dataset, Dataset) else open_dataset(dataset, offline=offline)
