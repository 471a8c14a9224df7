"""Asking predictors about a query: predictions and distributions on the CPU, of the right shape or refused.

Apart from executing cells, because scoring frozen episodes and tuning ask likewise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fewrec.episodes.support import QueryBatch
from fewrec.learners.base import BatchPredictor

Normal = tuple[np.ndarray, np.ndarray]  # mean and standard deviation of each rating of a query, (m,) float64 each


@dataclass(frozen=True)
class Answered:
    """What a learner said to a query of m, and the seconds of adapting, of predicting and of each update (online).

    ``prediction`` (m,) float64; ``normal``: its distributions, None where it has none or wasn't asked.
    """

    prediction: np.ndarray
    normal: Normal | None
    adapt_s: float
    predict_s: float
    update_s: list[float]


def predict_query(predictor: BatchPredictor, query: QueryBatch) -> Tensor:
    """Return the predictions of a query as float64 on the CPU, whatever they are."""
    return predictor.predict(query.episode, query.user, query.item).detach().cpu().double()


def checked(prediction: Tensor, query: QueryBatch) -> np.ndarray:
    """Return predictions (n,) of a query of n; raises ``ValueError`` for another shape and for NaN or infinity."""
    if prediction.shape != query.item.shape:
        raise ValueError(f"predict returned shape {tuple(prediction.shape)} for {len(query.item)} queries")
    if not torch.isfinite(prediction).all():
        raise ValueError(
            f"{int((~torch.isfinite(prediction)).sum())} of {len(prediction)} predictions are NaN or infinite"
        )
    return prediction.numpy()


def distribution_of(predictor: BatchPredictor, query: QueryBatch) -> Normal | None:
    """Return the distributions of a query, None where the predictor has none; their numbers are checked when scored.

    Raises ``ValueError`` for what is not two tensors of the query's shape.
    """
    with torch.no_grad():
        found = predictor.distribution(query.episode, query.user, query.item)
    if found is None:
        return None
    if not (isinstance(found, tuple) and len(found) == 2 and all(isinstance(part, Tensor) for part in found)):
        raise ValueError(f"distribution returned a {type(found).__name__}, not (mean, standard deviation) or None")
    mean, sd = (part.detach().cpu().double() for part in found)
    if not mean.shape == sd.shape == query.item.shape:
        shapes = f"{tuple(mean.shape)} and {tuple(sd.shape)}"
        raise ValueError(f"distribution returned shapes {shapes} for {len(query.item)} queries")
    return mean.numpy(), sd.numpy()
