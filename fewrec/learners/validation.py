"""The score on meta-validation by which learners stop early: apart from them because all of them stop alike."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.support import Episodes
from fewrec.learners.base import Context, Learner


class Validation:
    """Meta-validation episodes at several K, drawn once.

    ``users``: about how many (episode, user) pairs are drawn at each K. Those K for which no user has enough ratings
    are left out; where that is all of them, ``n_query`` is halved until it is not.

    Of clicks too learners stop by the RMSE, which is what they minimise, and not by AUC: choosing by AUC gained nothing
    on meta-test and was far worse for ``gp`` where meta-validation has few users (docs/metrics.md has the figures).
    """

    def __init__(self, source: MetaTrainSet, shots: Sequence[int], n_query: int, users: int = 500) -> None:
        self.scale = source.scale
        self.episodes: list[Episodes] = []
        while not self.episodes and n_query:
            for k_shot in shots:
                n_users = min(5, source.largest_n_users("validation", k_shot=k_shot, n_query=n_query))
                if n_users:
                    count = -(-users // n_users)
                    drawn = source.validation_episodes(0, count, n_users=n_users, k_shot=k_shot, n_query=n_query)
                    self.episodes.append(drawn)
            n_query //= 2

    def __bool__(self) -> bool:
        return bool(self.episodes)

    def rmse(self, learner: Learner, ctx: Context) -> float:
        """Return the RMSE of the learner as it is now, mean over the values of K; predictions clipped to the scale."""
        scores = []
        for drawn in self.episodes:
            query = drawn.query
            predictor = learner.adapt_batch(drawn.support, ctx)
            predicted = predictor.predict(query.episode, query.user, query.item).to("cpu", torch.float64)
            scores.append((self.scale.clip(predicted) - drawn.answers.rating).square().mean().sqrt())
        return float(torch.stack(scores).mean())
