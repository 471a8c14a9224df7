"""Every built-in learner keeps the contract: one conformance suite for all of them.

Those that read text run it in test_bert.py and test_prompt.py, on a tiny encoder made there.
"""

from pathlib import Path

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
        if "item_text" not in learner_class(name).needs
    }


globals().update(_cases())


@pytest.mark.parametrize("name", sorted(BUILTIN))
def test_the_index_names_the_class_by_its_own_name(name):
    assert learner_class(name).name == name


def test_the_learners_that_read_text_run_the_suite_too():
    sources = "".join((Path(__file__).parent / name).read_text() for name in ("test_bert.py", "test_prompt.py"))
    text_learners = [learner_class(name) for name in BUILTIN if "item_text" in learner_class(name).needs]
    assert [cls.__name__ for cls in text_learners if f"learner = {cls.__name__}\n" not in sources] == []
