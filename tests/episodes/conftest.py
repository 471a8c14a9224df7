"""Small data sets for the tests of splits and episodes."""

import numpy as np
import pytest

from fewrec.data.table import Catalog, Dataset, RatingTable, Scale


def random_dataset(n_users: int, n_items: int, share: float, seed: int, times: int | None = 50) -> Dataset:
    """Return a data set in which each (user, item) pair is rated with probability ``share``."""
    rng = np.random.default_rng(seed)
    user, item = np.nonzero(rng.random((n_users, n_items)) < share)
    rating = rng.integers(1, 6, len(user)).astype(float)
    time = None if times is None else rng.integers(0, times, len(user))
    table = RatingTable(user, item, rating, time, n_users, n_items)
    ids = np.arange(n_items).astype(str)
    return Dataset("small", table, Catalog(ids), Scale(1, 5, 1), np.arange(n_users).astype(str))


@pytest.fixture(scope="session")
def small() -> Dataset:
    return random_dataset(60, 80, 0.5, seed=1)
