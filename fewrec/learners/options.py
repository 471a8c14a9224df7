"""A learner's options as a listing shows them; apart from the registry because this needs the class."""

from __future__ import annotations

import inspect
import types
from dataclasses import dataclass

from fewrec.learners.base import LearnerConfig


@dataclass(frozen=True)
class Option:
    """One option of a ``Config``: its type with its limits, its default, both as text, and its description."""

    name: str
    type: str
    default: str
    description: str


_LIMITS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "min_length": "length >=", "max_length": "length <="}


def options_of(config: type[LearnerConfig]) -> list[Option]:
    """Return the options of a configuration in the order of their definition."""
    found = []
    for name, field in config.model_fields.items():
        annotation = field.annotation
        shown = annotation.__name__ if type(annotation) is type else str(annotation).replace("typing.", "")
        if isinstance(annotation, types.NoneType):
            shown = "None"
        given = [(sign, m, key) for m in field.metadata for key, sign in _LIMITS.items() if hasattr(m, key)]
        limits = [f"{sign} {getattr(m, key):g}" for sign, m, key in given]
        default = "required" if field.is_required() else repr(field.get_default(call_default_factory=True))
        found.append(Option(name, ", ".join([shown, *limits]), default, field.description or ""))
    return found


def notes_on(config: type[LearnerConfig]) -> list[str]:
    """Return the docstrings that describe the options: that of the configuration and of those that it inherits from."""
    own = [cls for cls in config.__mro__ if issubclass(cls, LearnerConfig) and cls is not LearnerConfig]
    return [inspect.cleandoc(doc) for cls in own if (doc := vars(cls).get("__doc__")) and cls.model_fields]
