"""Learners whose meta-training amplifies rounding run in float64, and say what to do where a device has none."""

from pathlib import Path

import pytest
import torch

from fewrec.data.synthetic import make_synthetic
from fewrec.errors import NotApplicable
from fewrec.learners.base import Context
from fewrec.learners.registry import learner_class


@pytest.mark.parametrize("name", ["lwa", "nlba", "mamo", "tanp"])
def test_a_device_without_float64_is_refused_with_the_option_to_give(name):
    data, cls = make_synthetic(n_users=5, n_items=5), learner_class(name)
    ctx = Context(torch.device("mps"), data.catalog, data.scale, Path("unused"))
    with pytest.raises(NotApplicable, match=f"--set {name}.dtype=float32"):
        cls().prepare(ctx)
    cls(cls.Config(dtype="float32")).prepare(ctx)
    cls().prepare(Context(torch.device("cpu"), data.catalog, data.scale, Path("unused")))
