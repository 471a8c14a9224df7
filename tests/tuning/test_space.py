"""The rule that says what is searched of a learner's options, and how a learner overrules it."""

from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from fewrec.errors import SuiteError
from fewrec.learners.base import Learner, LearnerConfig
from fewrec.learners.registry import BUILTIN, learner_class
from fewrec.tuning.space import Choices, Range, search_space


class Config(LearnerConfig):
    ridge: float = Field(5.0, gt=0)
    rate: float = Field(0.5, gt=0, lt=1)
    capped: float = Field(2.0, ge=1, le=3)
    shift: float = Field(-1.0, ge=-2, le=2)
    free: float = -1.0
    plain: float = 0.3
    off: float = Field(0.0, ge=0)
    left: float | None = Field(None, gt=0)
    perhaps: float | None = Field(3.0, gt=0)
    rank: int = Field(8, ge=1, le=20)
    one: int = Field(1, ge=1)
    none: int = Field(0, ge=0)
    single: int = Field(1, ge=1, le=1)
    inner_steps: int = Field(5, ge=1)
    steps: int = Field(60, ge=1)
    meta_epochs: int = Field(3, ge=1)
    patience: int = Field(3, ge=1)
    evaluate_every: int = Field(3, ge=1)
    n_query: int = Field(10, ge=1)
    max_shots: int = Field(10, ge=1)
    meta_batch: int = Field(250, ge=1)
    batch_size: int = Field(64, ge=1)
    dtype: Literal["float32", "float64"] = "float32"
    flag: bool = False
    kind: Literal["a", "b", "c"] = "b"
    path: Path = Path("x")
    name: str = "x"
    hidden: tuple[int, ...] = (32, 16)


class Method(Learner):
    name = "method"
    Config = Config

    def adapt(self, support, ctx):
        raise NotImplementedError


def narrowed(**told):
    return type("Narrowed", (Method,), {"search": told})


def test_the_rule_reads_types_bounds_and_names():
    assert search_space(Method).searched == {
        "ridge": Range(0.5, 50.0, log=True, integer=False),
        "rate": Range(0.05, 0.95, log=True, integer=False),
        "capped": Range(1.0, 3.0, log=True, integer=False),
        "shift": Range(-2.0, 2.0, log=False, integer=False),
        "plain": Range(0.03, 3.0, log=True, integer=False),
        "perhaps": Range(pytest.approx(0.3), 30.0, log=True, integer=False),
        "rank": Range(2, 20, log=True, integer=True),
        "one": Range(1, 4, log=True, integer=True),
        "inner_steps": Range(2, 20, log=True, integer=True),
        "flag": Choices((False, True)),
        "kind": Choices(("a", "b", "c")),
    }


def test_every_other_option_is_left_out_with_a_reason():
    space = search_space(Method, held=["ridge"])
    assert set(space.searched) | set(space.left_out) == set(Config.model_fields)
    assert not set(space.searched) & set(space.left_out)
    assert space.left_out["ridge"] == "given by hand"
    assert {space.left_out[name] for name in ("steps", "meta_epochs", "patience", "evaluate_every")} == {
        "a budget of training"
    }
    assert {space.left_out[name] for name in ("n_query", "max_shots", "meta_batch", "batch_size", "dtype")} == {
        "decides cost, precision or the training tasks"
    }
    assert {space.left_out[name] for name in ("off", "left", "none")} == {"off or left to the learner by default"}
    assert all(space.left_out.values())


def test_a_learner_overrules_the_rule():
    cls = narrowed(ridge=[1, 3], rank=[4, 16, "log"], steps=[10, 100, "log"], left=[0.5, 2], flag=None,
                   hidden=[[32, 16], [64, 32]], kind=["a", "b"])  # fmt: skip
    space = search_space(cls)
    assert space.searched["ridge"] == Range(1.0, 3.0, log=False, integer=False)
    assert space.searched["rank"] == Range(4, 16, log=True, integer=True)
    assert space.searched["steps"] == Range(10, 100, log=True, integer=True)
    assert space.searched["left"] == Range(0.5, 2.0, log=False, integer=False)
    assert space.searched["hidden"] == Choices(([32, 16], [64, 32]))
    assert space.searched["kind"] == Choices(("a", "b"))
    assert space.left_out["flag"] == "the learner says so"


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"rigde": [1, 2]}, "its search names no option 'rigde'; did you mean 'ridge'"),
        ({"ridge": [2, 1]}, "low < high"),
        ({"ridge": [0, 1, "log"]}, "for log, low above 0"),
        ({"kind": []}, "no choices"),
        ({"rank": [None, 4, 8]}, "the choice None, which only a default may be"),
    ],
)
def test_a_search_that_cannot_be_understood_is_refused_by_the_learners_name(told, message):
    with pytest.raises(SuiteError, match=f"learner 'method': .*{message}"):
        search_space(narrowed(**told))


def test_drawn_numbers_are_rounded_to_four_digits_and_stay_within_the_range():
    one = Range(0.12346789, 1.0, log=True, integer=False)
    assert one.rounded(0.987654321) == 0.9877 and one.rounded(0.12346789) == 0.1235
    assert Range(0.12344, 1.0, log=True, integer=False).rounded(0.12344) == 0.12344, "not 0.1234, below the range"
    assert Range(1, 4, log=True, integer=True).rounded(3) == 3
    assert Choices((1, 2)).holds(True) is False and Choices((False, True)).holds(True) is True


@pytest.mark.parametrize("name", sorted(BUILTIN))
def test_the_defaults_of_every_learner_lie_in_its_space_and_both_ends_are_valid(name):
    cls = learner_class(name)
    defaults = cls.Config().model_dump(mode="json")
    for option, one in search_space(cls).searched.items():
        narrowed_by_learner = option in getattr(cls, "search", {})
        assert one.holds(defaults[option]) or narrowed_by_learner, option
        for value in one.values if isinstance(one, Choices) else (one.rounded(one.low), one.rounded(one.high)):
            cls.Config(**{**defaults, option: value})


class WithoutDefault(LearnerConfig):
    needed: float = Field(gt=0)


def test_an_option_without_a_default_is_asked_for():
    cls = type("Other", (Method,), {"Config": WithoutDefault})
    assert search_space(cls).left_out["needed"] == "it has no default; give it with --set"
