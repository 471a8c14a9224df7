"""Checks of what a learner's class declares, before anything is run."""

from __future__ import annotations

import json
import re

from fewrec.conformance.bench import DEPENDS, Bench
from fewrec.conformance.check import Broken, check
from fewrec.learners.base import Learner, LearnerConfig

NEEDS = frozenset({"k>0", "item_text", "item_features", "user_features", "item_ratings", "timestamps"})


@check("name")
def it_has_a_name_and_a_docstring(bench: Bench) -> None:
    """`name` is what the command line and the table call the learner: lower case, without spaces. The docstring says
    what it predicts and where it comes from; its first line is the summary of `fewrec list learners`."""
    name = getattr(bench.learner, "name", None)
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9][a-z0-9+._-]*", name):
        raise Broken(
            f"name is {name!r}.",
            'Give the class a name of lower-case letters, digits and "-", like name = "genre-mean".',
        )
    if not (bench.learner.__doc__ or "").strip():
        raise Broken(
            f"class {bench.learner.__name__} has no docstring.",
            "Write one below the class line: first what it predicts, in one line, then formula, paper and deviations.",
        )


@check("config", hint="Config must be made from its options, and from the JSON of model_dump, without an error.")
def its_configuration_survives_json(bench: Bench) -> None:
    """`Config` is a LearnerConfig (pydantic, frozen) that works without arguments, can be hashed, and is the same after
    being stored as JSON: configurations name the cells of a run."""
    cls = bench.learner.Config
    if not (isinstance(cls, type) and issubclass(cls, LearnerConfig)):
        raise Broken(f"Config is {cls!r}.", "Let it inherit fewrec.learners.base.LearnerConfig.")
    cls()
    config = cls(**bench.config)
    again = cls(**json.loads(json.dumps(config.model_dump(mode="json"))))
    if again != config:
        raise Broken(
            f"{config!r} came back from JSON as {again!r}.",
            "An option has a type that JSON doesn't keep; use numbers, strings, bools, None and tuples of them.",
        )
    try:
        same = hash(config) == hash(cls(**bench.config))
    except TypeError as error:
        raise Broken(f"hash(config): {error}.", "An option is a list or dict; use a tuple: `hidden: tuple[int, ...]`."
                     ) from None  # fmt: skip
    if not same:
        raise Broken("Two equal configurations have different hashes.", "Don't override __hash__ or __eq__ of Config.")
    if not cls.model_config.get("frozen") or cls.model_config.get("extra") != "forbid":
        raise Broken(
            "Config can be changed after it was made, or takes options that it doesn't have.",
            "Its model_config overrides that of LearnerConfig; keep frozen=True and extra='forbid'.",
        )


@check("declarations", after=("config",))
def its_declarations_name_what_exists(bench: Bench) -> None:
    """`needs`, `meta_depends` and `adapt_options` are sets of names that fewrec or `Config` knows; `task` is "user" or
    "episode"; `batch_episodes` is at least 1; `paper` is a string, `closed_form` and `informs` are bools."""
    cls = bench.learner
    known = {"needs": NEEDS, "meta_depends": frozenset(DEPENDS), "adapt_options": frozenset(cls.Config.model_fields)}
    for name, allowed in known.items():
        value = getattr(cls, name)
        if not isinstance(value, set | frozenset):
            raise Broken(f"{name} is {value!r}.", f'Write a set: {name} = frozenset({{"..."}}).')
        if not value <= allowed:
            raise Broken(
                f"{name} has {', '.join(map(repr, sorted(value - allowed, key=str)))}.",
                f"Known are {', '.join(map(repr, sorted(allowed))) or 'none: Config has no options'}.",
            )
    if cls.task not in ("user", "episode"):
        raise Broken(f"task is {cls.task!r}.", '"user": each user on its own; joint over users: "episode".')
    for name, kind in (("batch_episodes", int), ("paper", str), ("closed_form", bool), ("informs", bool)):
        if not isinstance(getattr(cls, name), kind):
            raise Broken(f"{name} is {getattr(cls, name)!r}.", f"Its type is {kind.__name__}.")
    if cls.batch_episodes < 1:
        raise Broken(f"batch_episodes is {cls.batch_episodes}.", "It is how many episodes adapt_batch likes at once.")


@check("state-methods")
def who_overrides_meta_fit_overrides_both_state_methods(bench: Bench) -> None:
    """What meta_fit learns is stored once and loaded by other cells and later runs: a learner with meta_fit has state()
    and load_state() too."""
    cls = bench.learner
    missing = [name for name in ("state", "load_state") if getattr(cls, name) is getattr(Learner, name)]
    if cls.has_meta_fit() and missing:
        raise Broken(
            f"{cls.__name__} has meta_fit but no {' and no '.join(missing)}.",
            "Return what meta_fit computed from state() as ({name: tensor}, {name: JSON value}), and put it back in "
            "load_state(tensors, values, ctx).",
        )
