"""Item attributes: what the catalog's columns become."""

import numpy as np
import pandas as pd
import torch

from fewrec.data.synthetic import make_synthetic
from fewrec.data.table import Catalog
from fewrec.learners.attributes import item_attributes


def catalog(features=None, **text) -> Catalog:
    size = len(next(iter(text.values()))) if text else len(features)
    frame = None
    if text:
        frame = pd.DataFrame({"title": "t", "year": "", "genres": "", "description": ""} | text, index=range(size))
    return Catalog(np.arange(size), frame, features)


def test_genres_and_decades_are_ones_by_falling_frequency():
    years = ["1994", "1999", "2001", "soon"]
    found = item_attributes(catalog(genres=["War, Drama", "Drama", "", "Comedy"], year=years))
    assert found.dtype == torch.float32
    drama, comedy, war, nineties, noughties = found.T.tolist()
    assert drama == [1, 1, 0, 0] and comedy == [0, 0, 0, 1] and war == [1, 0, 0, 0]
    assert nineties == [1, 1, 0, 0] and noughties == [0, 0, 1, 0]


def test_only_the_most_frequent_genres_are_kept():
    found = item_attributes(catalog(genres=["A, B", "A", "C", "B, A"]), largest=2)
    assert found.tolist() == [[1, 1], [1, 0], [0, 0], [1, 1]]


def test_features_are_standardised_and_missing_ones_are_zero_before_that():
    found = item_attributes(catalog(np.array([[1.0, 7.0], [3.0, 7.0], [np.nan, 7.0]], np.float32)))
    column = np.array([1.0, 3.0, 0.0])
    np.testing.assert_allclose(found[:, 0], (column - column.mean()) / column.std(), rtol=1e-6)
    assert found[:, 1].tolist() == [0, 0, 0]


def test_a_catalog_without_attributes_has_none():
    assert item_attributes(Catalog(np.arange(4))).shape == (4, 0)


def test_the_synthetic_items_have_their_genre():
    found = item_attributes(make_synthetic(n_users=10, n_items=12, density=0.5, n_genres=3).catalog)
    assert (found[:, :3].sum(1) == 1).all()
