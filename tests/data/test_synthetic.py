"""Synthetic data has the structure that it claims: low rank, biases, and text that carries the genre."""

from __future__ import annotations

import numpy as np
import pytest

from fewrec.data.synthetic import GENRE_WORDS, make_synthetic
from fewrec.data.table import Scale
from fewrec.errors import SuiteError


def test_the_same_arguments_give_the_same_bytes_and_another_seed_others():
    first, again, other = make_synthetic(seed=3), make_synthetic(seed=3), make_synthetic(seed=4)
    assert first.table.sha256 == again.table.sha256 != other.table.sha256
    assert first.catalog.text_sha256 == again.catalog.text_sha256 != other.catalog.text_sha256


def test_every_user_rates_as_many_distinct_items_as_asked():
    table = make_synthetic(50, 40, ratings_per_user=12).table
    assert np.bincount(table.user).tolist() == [12] * 50
    assert len(set(zip(table.user, table.item, strict=True))) == len(table)
    assert len(make_synthetic(50, 40, density=0.25).table) == 500


def test_ratings_are_on_the_scale_and_its_steps():
    rating = make_synthetic(noise=2.0).table.rating
    assert set(rating) == {1, 2, 3, 4, 5}
    halves = make_synthetic(scale=Scale(0.5, 5, 0.5)).table.rating
    assert halves.min() >= 0.5 and np.array_equal(halves * 2, np.round(halves * 2))


def test_without_noise_and_rounding_the_ratings_are_the_truth_and_of_its_rank():
    data = make_synthetic(60, 50, density=1.0, rank=3, noise=0.0, scale=Scale(-100, 100, None))
    table, truth = data.table, data.truth
    assert np.allclose(table.rating, truth.expected(table.user, table.item))
    matrix = np.zeros((60, 50))
    matrix[table.user, table.item] = table.rating
    centred = matrix - truth.mean - truth.user_bias[:, None] - truth.item_bias
    assert np.linalg.matrix_rank(centred, tol=1e-8) == 3


def test_noise_and_factors_have_the_spread_that_was_asked_for():
    data = make_synthetic(400, 300, density=0.5, noise=0.3, factor_std=0.6, scale=Scale(-100, 100, None))
    table, truth = data.table, data.truth
    noise = table.rating - truth.expected(table.user, table.item)
    assert abs(noise.std() - 0.3) < 0.01
    dot = np.sum(truth.user_factors[table.user] * truth.item_factors[table.item], axis=1)
    assert 0.4 < dot.std() < 0.8


def test_titles_carry_the_genre_and_the_genre_carries_the_factors():
    data = make_synthetic(20, 600, genre_share=0.8)
    for title, genre in zip(data.catalog.text.title, data.catalog.text.genres, strict=True):
        assert set(title.split()) & set(GENRE_WORDS[genre])
        assert not any(set(title.split()) & set(words) for other, words in GENRE_WORDS.items() if other != genre)
    factors, genre = data.truth.item_factors, data.truth.item_genre
    within = np.concatenate([factors[genre == g] - factors[genre == g].mean(axis=0) for g in np.unique(genre)])
    assert within.var() / factors.var() < 0.4


def test_time_stamps_rise_within_a_user_or_are_absent():
    table = make_synthetic(30, 40, ratings_per_user=10).table
    assert (np.diff(table.timestamp.reshape(30, 10), axis=1) > 0).all()
    assert make_synthetic(timestamps=False).table.timestamp is None


@pytest.mark.parametrize(
    "arguments",
    [{"n_users": 0}, {"ratings_per_user": 101}, {"ratings_per_user": 0}, {"n_genres": 9}, {"rank": 0},
     {"genre_share": 1.5}, {"density": 0.1, "ratings_per_user": 3}],
)  # fmt: skip
def test_an_impossible_request_is_refused(arguments):
    with pytest.raises(SuiteError, match="make_synthetic"):
        make_synthetic(**arguments)
