"""One data set on several scales: learners whose options are in rating units must not care which one it is."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fewrec.data.synthetic import make_synthetic
from fewrec.data.table import Scale
from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.protocol import Protocol
from fewrec.episodes.split import split_dataset
from fewrec.learners.base import Context
from fewrec.learners.registry import learner_class
from fewrec.learners.units import RatingUnits

SCALES = [Scale(-10.0, 10.0), Scale(1.0, 10.0), Scale(0.5, 5.0), Scale(0.0, 100.0)]
COLD = {"meta_steps": 10, "evaluate_every": 10}
OPTIONS = {
    "mf-foldin": {},
    "gp": {"sweeps": 5, "patience": 5},
    "knn": {},
    "proto": {"sweeps": 8},
    "maml-mf": {"meta_steps": 8, "dtype": "float64"},
    "reptile-mf": {"meta_steps": 8, "dtype": "float64"},
    "meta-sgd-mf": {"meta_steps": 8, "dtype": "float64"},
    "melu": {"meta_steps": 8, "meta_batch": 30, "dtype": "float64"},
    "mamo": {"meta_steps": 8, "meta_batch": 30, "dtype": "float64"},
    "tanp": {"meta_steps": 8, "meta_batch": 30, "dtype": "float64"},
    "lwa": {"meta_steps": 8, "meta_batch": 30, "dtype": "float64"},
    "nlba": {"meta_steps": 8, "meta_batch": 30, "dtype": "float64"},
    "metaemb": COLD,
    "mwuf": COLD,
}


def predictions(name: str, scale: Scale) -> torch.Tensor:
    """Return a learner's test predictions on synthetic ratings stretched to the scale, mapped back to 1..5."""
    dataset = make_synthetic(n_users=60, n_items=40, density=0.6, seed=3)
    units = RatingUnits.of(scale)
    stretched = dataset.table.rating * units.size + (units.low - units.size)
    dataset = replace(dataset, table=replace(dataset.table, rating=stretched), scale=scale)
    shots = 2 if "item_ratings" in learner_class(name).needs else 0
    split = split_dataset(dataset, Protocol(state="both-cold", k_max=5, item_shots=shots), 0)
    source, ctx = MetaTrainSet(split, scale), Context(torch.device("cpu"), split.catalog, scale, Path("."))
    learner = learner_class(name)(learner_class(name).Config(**OPTIONS[name]))
    learner.meta_fit(source, ctx)
    drawn = source.validation_episodes(0, 4, n_users=2, k_shot=4, n_query=3)
    query = drawn.query
    predicted = learner.adapt_batch(drawn.support, ctx).predict(query.episode, query.user, query.item).double()
    return units.to_units(predicted)


@pytest.mark.parametrize("name", list(OPTIONS))
def test_a_learner_predicts_the_same_on_every_scale(name):
    expected = predictions(name, Scale(1.0, 5.0))
    for scale in SCALES:
        torch.testing.assert_close(predictions(name, scale), expected, rtol=0, atol=1e-6)


def test_on_a_scale_from_1_to_5_no_bit_changes():
    units = RatingUnits.of(Scale(1.0, 5.0, 1.0))
    rating = torch.rand(1000, generator=torch.Generator().manual_seed(0)) * 6
    assert torch.equal(units.to_units(rating), rating) and torch.equal(units.from_units(rating), rating)


@pytest.mark.parametrize("scale", SCALES)
def test_units_go_from_1_to_5_and_back(scale):
    units, rating = RatingUnits.of(scale), np.linspace(scale.low, scale.high, 7)
    np.testing.assert_allclose(units.to_units(rating), np.linspace(1, 5, 7))
    np.testing.assert_allclose(units.from_units(torch.from_numpy(units.to_units(rating))), rating, atol=1e-12)
