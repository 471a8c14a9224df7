"""A small synthetic data set, a tiny suite, and learners that misbehave, for the tests of the runner."""

import dataclasses

import numpy as np
import pytest

from fewrec.data.synthetic import make_synthetic
from fewrec.data.table import Scale

TINY = """
title = "tiny"
datasets = ["tiny"]
states = ["user-cold"]
n_users = 2
shots = [2, 3]
n_query = 6
seeds = [0, 1]
episodes = 6
block = 2
learners = ["global-mean", "user-mean", "bias"]
"""


@pytest.fixture(scope="session")
def tiny_data():
    data = make_synthetic(n_users=60, n_items=40, ratings_per_user=20, seed=3)
    object.__setattr__(data, "name", "tiny")
    return data


@pytest.fixture
def click_data(tiny_data):
    """The synthetic ratings as clicks: what is above the median was clicked."""
    table = tiny_data.table
    clicked = (table.rating > np.median(table.rating)).astype(float)
    table = dataclasses.replace(table, rating=clicked)
    return dataclasses.replace(tiny_data, table=table, scale=Scale(0, 1, 1), kind="clicks")


@pytest.fixture
def tiny_suite(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


BAD_LEARNERS = '''
"""Learners that fail in every way that a learner can."""
import time

import torch

from fewrec.learners.base import Learner, Predictor


class Constant(Predictor):
    def __init__(self, value):
        self.value = value

    def predict(self, users, items):
        return torch.full((len(items),), self.value)


class Raises(Learner):
    """Raises in adapt."""
    name = "raises"

    def adapt(self, support, ctx):
        raise RuntimeError("no\\n| luck")


class NotANumber(Learner):
    """Predicts NaN."""
    name = "nan"

    def adapt(self, support, ctx):
        return Constant(float("nan"))


class Sleeps(Learner):
    """Never comes back."""
    name = "sleeps"

    def adapt(self, support, ctx):
        try:
            time.sleep(60)
        except Exception:
            pass
        return Constant(3.0)


class BreaksMetaFit(Learner):
    """Raises in meta_fit."""
    name = "breaks-meta-fit"

    def meta_fit(self, source, ctx):
        raise ValueError("cannot learn")

    def adapt(self, support, ctx):
        return Constant(3.0)

    def state(self):
        return {}, {}

    def load_state(self, tensors, values, ctx):
        pass


class NeedsMoonlight(Learner):
    """Needs what no data set has."""
    name = "needs-features"
    needs = frozenset({"item_features"})

    def adapt(self, support, ctx):
        return Constant(3.0)
'''


@pytest.fixture
def bad_learners(tmp_path, monkeypatch):
    monkeypatch.setattr("fewrec.learners.registry._files", {})  # each test brings the same names from a file of its own
    path = tmp_path / "bad_learners.py"
    path.write_text(BAD_LEARNERS)
    return path
