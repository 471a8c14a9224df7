"""Likes from ratings: what becomes 1 and 0, what stays, and what is refused."""

import numpy as np
import pytest

from fewrec.data.likes import likes_of
from fewrec.data.synthetic import make_synthetic
from fewrec.data.table import Scale
from fewrec.errors import DataError


@pytest.fixture(scope="module")
def data():
    return make_synthetic(n_users=20, n_items=15, ratings_per_user=10, seed=0)


def test_ratings_above_the_limit_are_ones_and_all_else_stays(data):
    likes = likes_of(data, 3)
    np.testing.assert_array_equal(likes.table.rating, np.where(data.table.rating > 3, 1.0, 0.0))
    for name in ("user", "item", "timestamp", "n_users", "n_items"):
        np.testing.assert_array_equal(getattr(likes.table, name), getattr(data.table, name))
    assert (likes.kind, likes.scale) == ("clicks", Scale(0, 1, 1)) and "above 3" in likes.notes[-1]
    assert likes.table.sha256 != data.table.sha256 and likes.catalog is data.catalog
    assert likes_of(data, None) is data


@pytest.mark.parametrize("limit", [0, 5])
def test_a_limit_that_all_ratings_are_on_one_side_of_is_refused(data, limit):
    with pytest.raises(DataError, match=f"likes_above = {limit} puts all ratings on one side; give a number"):
        likes_of(data, limit)


def test_clicks_are_refused(data):
    with pytest.raises(DataError, match="for ratings, and these are clicks"):
        likes_of(likes_of(data, 3), 0)
