"""What a value was refused for, in one line for the person who gave it: pydantic's errors in the words of its user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from fewrec.errors import nearest, shown

_EXPECTED = {  # what was wanted, by the beginning of pydantic's name for the error
    "int": "a whole number",
    "float": "a number",
    "finite_number": "a finite number",
    "bool": "true or false",
    "string_type": "text",
    "list": "a list",
    "tuple": "a list",
    "set": "a list",
    "frozen_set": "a list",
    "dict": "a table",
    "model": "a table",
    "none": "left out",
}
_LIMITS = {
    "greater_than_equal": ("ge", "is below {}"),
    "greater_than": ("gt", "is not above {}"),
    "less_than_equal": ("le", "is above {}"),
    "less_than": ("lt", "is not below {}"),
}


@dataclass(frozen=True)
class Problem:
    """The first problem of a refused value.

    ``key`` is the dotted name of the entry, ``place`` the row of a list of tables that it stands in ("learners, row
    2"), both "" where there is none; ``said`` is what is wrong with it; ``unknown`` tells that there is no such entry,
    and then ``said`` is the nearest one that there is.
    """

    key: str
    place: str
    said: str
    unknown: bool = False

    def __str__(self) -> str:
        if self.unknown:
            return f"{self.place}{': ' * bool(self.place)}unknown key '{self.key}'{self.said}"
        said = f"'{self.key}' {self.said}" if self.key and self.said == "is missing" else f"{self.key}: {self.said}"
        return ": ".join(part for part in (self.place, said if self.key else self.said) if part)


def first_problem(error: ValidationError, model: type[BaseModel] | None = None) -> Problem:
    """Return the first problem of a pydantic error; ``model`` has the keys that a misspelt one may have meant."""
    problems = error.errors(include_url=False)
    # A misspelt key explains a missing one.
    first = next((one for one in problems if one["type"] == "extra_forbidden"), problems[0])
    location = _without_branches(first["loc"])
    rivals = [one for one in problems if _without_branches(one["loc"])[: len(location)] == location]
    deepest = max(rivals, key=lambda one: len(_without_branches(one["loc"])))
    location = _without_branches(deepest["loc"])
    rivals = [one for one in rivals if _without_branches(one["loc"]) == location]
    place, key = map(
        _plain, _place(location, of_list=isinstance(deepest["input"], (dict, list)) and deepest["type"] != "missing")
    )
    if deepest["type"] == "extra_forbidden":
        known = set() if model is None else _fields_at(model, deepest["loc"])
        return Problem(key, place, nearest(key.rsplit(".", 1)[-1], known), unknown=True)
    return Problem(key, place, _plain(_said(deepest, rivals)))


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> set[str]:
    """Return the keys of the table that an entry of ``model`` stands in, of all kinds that such a table may be of."""
    models = [model]
    for part in location[:-1]:
        fields = [one.model_fields[part] for one in models if isinstance(part, str) and part in one.model_fields]
        if fields:
            models = [one for field in fields for one in _models_in(field.annotation)]
    return {name for one in models for name in one.model_fields}


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _without_branches(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Return an error's place without the names that pydantic gives to the members of a union."""
    kinds = {"int", "str", "float", "bool", "none"}
    return tuple(
        part for i, part in enumerate(location) if i == 0 or isinstance(part, int) or not (part in kinds or "[" in part)
    )


def _place(location: tuple[int | str, ...], of_list: bool) -> tuple[str, str]:
    """Return (place, key); the number of a plain value in a list is left out, the value itself says more."""
    parts = list(location)
    if parts and isinstance(parts[-1], int) and not of_list:
        parts.pop()
    last = max((i for i, part in enumerate(parts) if isinstance(part, int)), default=-1)
    place = ""
    for part in parts[: last + 1]:
        between = ": " if ", row" in place else "." * bool(place)
        place += f", row {part + 1}" if isinstance(part, int) else f"{between}{part}"
    return place, ".".join(map(str, parts[last + 1 :]))


def _plain(text: str) -> str:
    """Return a text in one line, without what a terminal would obey: keys and values come from files of others."""
    return "".join(c if c.isprintable() else " " for c in text)


def _said(problem: ErrorDetails, rivals: list[ErrorDetails]) -> str:
    kind, context = problem["type"], problem.get("ctx", {})
    value = shown(problem["input"])
    if kind == "missing":
        last = problem["loc"][-1]
        return f"value {last + 1} is missing" if isinstance(last, int) else "is missing"
    if kind == "too_short":
        return "give at least one" if context.get("min_length") == 1 else f"give at least {context.get('min_length')}"
    if kind == "too_long":
        return f"give at most {context.get('max_length')}, not {context.get('actual_length')}"
    if kind in _LIMITS:
        name, phrase = _LIMITS[kind]
        return f"{value} {phrase.format(shown(context[name]))}"
    if kind == "union_tag_not_found":
        return "its type is missing"
    if kind == "union_tag_invalid":
        return f"type '{context['tag']}' is none of {context['expected_tags']}"
    if kind in ("value_error", "assertion_error"):
        return problem["msg"].split(", ", 1)[1]
    wanted = list(dict.fromkeys(filter(None, map(_wanted, rivals))))
    if not wanted:
        return problem["msg"][:1].lower() + problem["msg"][1:]
    if len(wanted) > 1:
        return f"{value} is neither {' nor '.join(wanted)}"
    if kind in ("literal_error", "enum"):
        return f"{value} is none of {wanted[0]}" if "," in wanted[0] else f"{value} is not {wanted[0]}"
    return f"{value} is neither true nor false" if wanted[0] == "true or false" else f"{value} is not {wanted[0]}"


def _wanted(problem: ErrorDetails) -> str:
    kind = problem["type"]
    if kind in ("literal_error", "enum"):
        return str(problem.get("ctx", {}).get("expected", "")).replace(" or ", ", ")
    return _EXPECTED.get(kind) or next((said for start, said in _EXPECTED.items() if kind.startswith(f"{start}_")), "")
