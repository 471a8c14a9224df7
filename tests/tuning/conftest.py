"""The data and the suite of the runner's tests, and what is needed to tune on them."""

import importlib.util

import pytest

from tests.runner.conftest import bad_learners, click_data, tiny_data, tiny_suite  # noqa: F401  (fixtures)


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


needs_optuna = pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="optuna is not installed")
