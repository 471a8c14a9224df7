"""The conformance suite under pytest (design, contract 2), as a class that a plugin's tests inherit.

    class TestMine(LearnerConformance):
        learner = MyLearner
        config = {"rank": 4}  # optional: smaller than the defaults, so that the suite takes seconds

Needs pytest. The checks are those of ``fewrec check``, one test a check, on 60 synthetic users and 50 items.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest

from fewrec.conformance import CHECKS, Bench, Check, outcome_of
from fewrec.errors import DataError, NotApplicable
from fewrec.learners.base import Learner


class LearnerConformance:
    """Inherit, set ``learner`` (and ``config``), and pytest runs every check of the contract on it.

    A test fails with the explanation that ``fewrec check`` prints. One is skipped, with the reason, where there is
    nothing to check, where a check that it builds on failed, and where the learner can't be prepared here.
    """

    learner: ClassVar[type[Learner]]
    config: ClassVar[Mapping[str, Any]] = {}
    rounding: ClassVar[float] = 1e-4
    """How far the batch that an episode came in may move a prediction: 1e-4 in float32, 1e-10 in float64."""

    @pytest.fixture(scope="class")
    @classmethod
    def bench(cls, tmp_path_factory: pytest.TempPathFactory) -> Bench:
        return Bench(cls.learner, cls.config, tmp_path_factory.mktemp("cache"), cls.rounding)


def _as_test(check: Check) -> Callable[[LearnerConformance, Bench], None]:
    def test(self: LearnerConformance, bench: Bench) -> None:
        try:
            outcome = outcome_of(bench, check)
        except (NotApplicable, DataError) as error:
            pytest.skip(str(error))
        if outcome.status == "skipped":
            pytest.skip(outcome.reason)
        if outcome.broken is not None:
            pytest.fail(outcome.explanation(), pytrace=False)

    test.__name__ = f"test_{check.function.__name__}"
    test.__doc__ = check.contract
    return test


for _check in CHECKS.values():
    setattr(LearnerConformance, f"test_{_check.function.__name__}", _as_test(_check))
