"""The online protocol: a user's ratings arrive one at a time, each is predicted before it is learnt (prequential)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from fewrec.data.table import Scale
from fewrec.episodes.support import Episodes, QueryBatch, SupportBatch
from fewrec.learners.base import BatchPredictor, Context
from fewrec.metrics.rating import clipped_error_sums
from fewrec.runner.predict import Normal, distribution_of, predict_query
from fewrec.runner.timing import Stopwatch


def arrivals(episodes: Episodes, n_query: int, step: int) -> tuple[QueryBatch, SupportBatch, torch.Tensor]:
    """Return what is asked of all users in a step (from 0), the same with its ratings, and its rows of the query.

    A user's ``n_query`` query rows follow one another in the order in which they arrive.
    """
    query, answers, support = episodes.query, episodes.answers, episodes.support
    rows = torch.arange(step, len(query.item), n_query)
    episode = query.episode[rows]
    learnt = replace(
        support,
        episode=episode,
        user=query.user[rows],
        item=query.item[rows],
        rating=answers.rating[rows],
        timestamp=None if answers.timestamp is None else answers.timestamp[rows],
        offsets=support.user_offsets,  # one rating a user
    )
    return QueryBatch(episode, query.user[rows], query.item[rows]), learnt, rows


@dataclass(frozen=True)
class OnlineAnswer:
    """The predictions (m,) float64 of a query, its distributions (None without), and the seconds of predicting and of
    each update."""

    prediction: torch.Tensor
    normal: Normal | None
    predict_s: float
    update_s: list[float]


def predict_online(
    predictor: BatchPredictor, episodes: Episodes, n_query: int, ctx: Context, *, normal: bool = False
) -> OnlineAnswer:
    """Predict and learn the query, one rating a user at a time; with ``normal`` ask for distributions, not timed.

    The rating of the last step is predicted and not learnt: nothing comes after it.
    """
    out = torch.empty(len(episodes.query.item), dtype=torch.float64)
    spread = np.empty((2, len(out)))
    predict_s, update_s = 0.0, []
    for step in range(n_query):
        asked, learnt, rows = arrivals(episodes, n_query, step)
        with Stopwatch(ctx.device) as predicting, torch.no_grad():
            found = predict_query(predictor, asked)
        predict_s += predicting.seconds
        if found.shape != rows.shape:
            raise ValueError(f"predict returned shape {tuple(found.shape)} for {len(rows)} queries")
        out[rows] = found
        its_normal = distribution_of(predictor, asked) if normal else None
        normal = its_normal is not None
        if its_normal is not None:
            spread[:, rows.numpy()] = its_normal
        if step + 1 < n_query:
            with Stopwatch(ctx.device) as updating:
                predictor = predictor.update(learnt, ctx)
            update_s.append(updating.seconds)
    return OnlineAnswer(out, (spread[0], spread[1]) if normal else None, predict_s, update_s)


def step_rows(episodes: Episodes, prediction: np.ndarray, n_query: int, first: int, scale: Scale) -> pd.DataFrame:
    """Return one row an (episode, user, step), ``user`` as in the data set's table: ``n``, ``se`` and ``ae``."""
    users = episodes.support.total_users
    step = np.tile(np.arange(n_query), users)
    group = episodes.support.flat_user(episodes.query.episode, episodes.query.user).numpy() * n_query + step
    truth = episodes.answers.rating.numpy()
    sums = clipped_error_sums(group, users * n_query, truth, prediction, scale.low, scale.high)
    episode = np.repeat(np.arange(first, first + len(episodes)), episodes.support.n_users.numpy())
    places = {
        "episode": np.repeat(episode, n_query),
        "user": np.repeat(episodes.answers.table_user.numpy(), n_query),
        "step": step + 1,
    }
    return pd.DataFrame({**places, **{name: sums[name] for name in ("n", "se", "ae")}})
