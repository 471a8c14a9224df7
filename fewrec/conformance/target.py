"""From what ``fewrec check`` is given, a file, a name or ``module:Class``, to the learners that are meant."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewrec.errors import SuiteError, nearest
from fewrec.learners.registry import add_plugin_file, learner_class
from fewrec.validation import first_problem

if TYPE_CHECKING:
    from fewrec.learners.base import Learner


def learners_of(target: str, name: str | None = None) -> list[type[Learner]]:
    """Return the learners of a Python file (or the one called ``name``), or the one that is registered so.

    Raises ``SuiteError`` for a file that can't be imported or defines no learner, and for an unknown name.
    """
    if not (target.endswith(".py") or Path(target).is_file()):
        if name is not None:
            raise SuiteError(f"--learner {name} goes with a file; '{target}' is one learner already")
        return [learner_class(target)]
    if not Path(target).is_file():
        raise SuiteError(f"{target}: no such file (fewrec new-learner {target} writes one)")
    found = {info.name: info for info in add_plugin_file(target)}
    for info in found.values():
        if info.problem:
            raise SuiteError(f"{target}: {info.problem}")
    if name is None:
        return [learner_class(each) for each in found]
    if name not in found:
        raise SuiteError(f"{target} has no learner '{name}'{nearest(name, found)}")
    return [learner_class(name)]


def configured(cls: type[Learner], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options to make a learner with; raise ``SuiteError`` for those that it refuses."""
    if settings:
        from pydantic import ValidationError

        try:
            cls.Config(**settings)
        except ValidationError as error:
            problem = first_problem(error, cls.Config)
            if problem.unknown:
                raise SuiteError(
                    f"learner '{cls.name}' has no option '{problem.key}'{problem.said or '; it has none'}"
                ) from None
            raise SuiteError(f"learner '{cls.name}': {problem}") from None
    return dict(settings)
