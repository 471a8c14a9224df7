"""Every built-in learner keeps the contract: one conformance suite for all of them."""

import pytest

from fewrec.learners.registry import BUILTIN, learner_class
from fewrec.testing import LearnerConformance

SMALL = {
    "maml-mf": {"meta_steps": 40},
}
"""Options that make a learner's meta-fit take a second instead of a minute."""


def _cases() -> dict[str, type]:
    return {
        f"Test_{name.replace('-', '_')}": type(
            f"Test_{name.replace('-', '_')}",
            (LearnerConformance,),
            {"learner": learner_class(name), "config": SMALL.get(name, {})},
        )
        for name in BUILTIN
    }


globals().update(_cases())


@pytest.mark.parametrize("name", sorted(BUILTIN))
def test_the_index_names_the_class_by_its_own_name(name):
    assert learner_class(name).name == name
