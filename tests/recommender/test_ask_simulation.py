"""Asking for the rating that tells most, on real users: fewer answers to the same error than asking at random."""

import numpy as np
import pytest

from fewrec.data.synthetic import make_synthetic
from scripts.ask_simulation import Simulation, by_user, curves, difference


@pytest.mark.slow
def test_on_real_users_asking_beats_random_and_popular_questions_and_needs_fewer_answers(ml_100k):
    """``gp`` without the model of choice, since asked items are not chosen; all test users of five splits."""
    error, _ = curves(ml_100k, ["random", "popular", "information"], 10, [0, 1, 2, 3, 4], settings={"selection": 0.0})
    assert len(error["random"]) > 400
    for other in ("random", "popular"):
        mean, low, high = difference(error["information"], error[other])
        assert low < mean < high < 0, other
    rmse = {name: np.sqrt(values.mean(0)) for name, values in error.items()}
    assert rmse["information"][0] == rmse["random"][0], "without an answer all strategies are the same"
    assert (rmse["information"][1:] < rmse["random"][1:]).all()
    assert rmse["information"][7] < rmse["random"][8] and rmse["information"][9] < rmse["random"][10]


@pytest.mark.slow
def test_where_users_know_few_items_the_default_of_ask_beats_random_questions(ml_100k):
    error, answers = curves(ml_100k, ["random", "information-popular"], 10, [0, 1], catalog=True, halvings=1)
    mean, low, high = difference(error["information-popular"], error["random"])
    assert low < mean < high < 0
    assert answers["information-popular"][:, -1].mean() > 2 * answers["random"][:, -1].mean()


def test_it_asks_only_for_what_is_not_yet_known_and_never_for_the_query():
    data = make_synthetic(n_users=60, n_items=120, density=0.6, rank=2, seed=1)
    simulation = Simulation(data, "gp", {"rank": 2, "sweeps": 3}, 0, catalog=True, halvings=1)
    pairs = set(zip(simulation.user.tolist(), simulation.item.tolist(), strict=True))
    assert len(pairs) == len(simulation.user)
    assert pairs.isdisjoint(zip(simulation.query[0].tolist(), simulation.query[1].tolist(), strict=True))
    error, count = simulation.run("information", 8)
    assert error.shape == count.shape == (len(simulation.table_user), 9)
    assert (np.diff(count) >= 0).all() and (np.diff(count) <= 1).all() and 0 < count[:, -1].mean() < 8
    simulation.user, simulation.item, simulation.rating = (
        column[~np.isnan(simulation.rating)] for column in (simulation.user, simulation.item, simulation.rating)
    )
    assert (simulation.run("random", 4)[1] == np.arange(5)).all(), "whoever knows all items answers all questions"


def test_users_count_once_whatever_the_number_of_their_halvings():
    values = np.array([[1.0, 2.0], [3.0, 4.0], [10.0, 20.0]])
    np.testing.assert_array_equal(by_user(values, np.array([7, 7, 2])), [[10.0, 20.0], [2.0, 3.0]])
