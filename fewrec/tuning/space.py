"""What is searched of a learner's options: one rule for all learners, read from the options' types, bounds and names.

The rule, option by option of the learner's ``Config``:

- an option that the suite's row or ``--set`` gives stays as it is;
- a float above 0: log-uniform from a tenth of its default to ten times that, within its bounds (of an open bound it
  keeps a tenth of the way from the default away); a float at or below 0 with two bounds: uniform between them;
- an integer from 1: log-uniform over the integers from a quarter of its default to four times that, within its bounds;
- bool and Literal: every value;
- a default of 0 or None says that something is off or left to the learner: it stays so. Texts, paths, tuples stay too;
- not searched by their names are budgets of training, for which early stopping is there (last word ``steps``,
  ``sweeps``, ``epochs``, ``iterations``, ``patience`` or ``every``; the steps of an inner loop, ``inner_...``, are
  searched), and what decides cost, precision or the training tasks (last word ``dtype``, ``split``, ``query``,
  ``seed``, ``batch`` or ``minibatch``, and ``max_...``, ``...batch_size``).

A learner overrules this with ``search: ClassVar[Mapping[str, ...]]``: an option's ``[low, high]`` or
``[low, high, "log"]``, a list of choices, or None where it is not to be searched.
"""

from __future__ import annotations

import math
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from fewrec.errors import SuiteError, nearest
from fewrec.learners.base import Learner

_BUDGET = {"steps", "sweeps", "epochs", "iterations", "patience", "every"}
_COST = {"dtype", "split", "query", "seed", "batch", "minibatch"}
_DIGITS = 4  # a tuned value that people read; nothing depends on a fifth digit


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included; ``log``: uniform in the logarithm."""

    low: float
    high: float
    log: bool
    integer: bool

    def holds(self, value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high

    def rounded(self, value: float) -> float | int:
        """Return a drawn value as it is tried: an integer, or with four significant digits."""
        if self.integer:
            return int(value)
        return min(max(float(f"{value:.{_DIGITS}g}"), self.low), self.high)

    def describe(self) -> str:
        kind = ("integer, " if self.integer else "") + ("log-uniform" if self.log else "uniform")
        return f"{self.low:g} to {self.high:g} ({kind})"


@dataclass(frozen=True)
class Choices:
    """One of ``values``, which are JSON values."""

    values: tuple[Any, ...]

    def place(self, value: Any) -> int | None:
        """Return which of the values it is; True is not 1."""
        same = [value == one and isinstance(value, bool) == isinstance(one, bool) for one in self.values]
        return same.index(True) if any(same) else None

    def holds(self, value: Any) -> bool:
        return self.place(value) is not None

    def describe(self) -> str:
        return "one of " + ", ".join("not set" if value is None else str(value) for value in self.values)


@dataclass(frozen=True)
class Space:
    """The options that are searched, and why each of the others is not."""

    searched: dict[str, Range | Choices]
    left_out: dict[str, str]

    def canonical(self) -> dict[str, Any]:
        """Return the space as JSON values: part of what defines a study."""
        return {name: {**vars(one), "kind": type(one).__name__} for name, one in self.searched.items()}


def search_space(cls: type[Learner], held: Iterable[str] = ()) -> Space:
    """Return what is searched of a learner's options; ``held`` are those that are given by hand.

    Raises ``SuiteError`` for a ``search`` of the learner that names no option of its or can't be understood.
    """
    fields, narrowed = cls.Config.model_fields, _narrowed(cls)
    held = set(held)
    searched: dict[str, Range | Choices] = {}
    left_out: dict[str, str] = {}
    for name, info in fields.items():
        found: Range | Choices | str
        if name in held:
            found = "given by hand"
        elif name in narrowed:
            found = _as_told(cls, name, narrowed[name], info)
        else:
            found = _by_name(name) or _by_type(info)
        if isinstance(found, str):
            left_out[name] = found
        else:
            searched[name] = found
    return Space(searched, left_out)


def _narrowed(cls: type[Learner]) -> Mapping[str, Any]:
    narrowed = getattr(cls, "search", {})
    for name in narrowed:
        if name not in cls.Config.model_fields:
            raise SuiteError(
                f"learner '{cls.name}': its search names no option '{name}'{nearest(name, cls.Config.model_fields)}"
            )
    return narrowed


def _as_told(cls: type[Learner], name: str, told: Any, info: FieldInfo) -> Range | Choices | str:
    if told is None:
        return "the learner says so"
    values = list(told)
    log = len(values) == 3 and values[2] == "log"
    if log or (len(values) == 2 and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)):
        low, high = values[:2]
        if not low < high or (log and low <= 0):
            raise SuiteError(
                f"learner '{cls.name}': search of '{name}' is {values}; give [low, high] with low < high"
                + (" and, for log, low above 0" if log else "")
            )
        integer = _inner_type(info) is int
        return Range(int(low), int(high), log, True) if integer else Range(float(low), float(high), log, False)
    if not values:
        raise SuiteError(f"learner '{cls.name}': search of '{name}' has no choices; give None to leave it out")
    default = info.get_default(call_default_factory=True)
    if None in values and default is not None:
        raise SuiteError(f"learner '{cls.name}': search of '{name}' has the choice None, which only a default may be")
    return Choices(tuple(list(v) if isinstance(v, tuple) else v for v in values))


def _by_name(name: str) -> str | None:
    words = name.split("_")
    if words[-1] in _BUDGET and words[0] != "inner":
        return "a budget of training"
    if words[-1] in _COST or words[0] == "max" or name.endswith("batch_size"):
        return "decides cost, precision or the training tasks"
    return None


def _by_type(info: FieldInfo) -> Range | Choices | str:
    if info.is_required():
        return "it has no default; give it with --set"
    default, kind = info.get_default(call_default_factory=True), _inner_type(info)
    if default is None:
        return "off or left to the learner by default"
    if kind is bool:
        return Choices((False, True))
    if get_origin(kind) is Literal:
        values = tuple(value for value in get_args(kind) if value is not None)
        return Choices(values) if len(values) > 1 else "it has one value"
    if kind is int:
        return _integers(default, info)
    if kind is float:
        return _floats(float(default), info)
    return "neither a number nor a choice"


def _integers(default: int, info: FieldInfo) -> Range | str:
    if default < 1:
        return "off or left to the learner by default"
    low, low_open, high, high_open = _bounds(info)
    first = max(1, math.ceil(default / 4), math.floor(low) + 1 if low_open else math.ceil(max(low, 1)))
    last = min(4 * default, math.ceil(high) - 1 if high_open else high)
    return Range(first, int(last), True, True) if first < last else "its bounds leave one value"


def _floats(default: float, info: FieldInfo) -> Range | str:
    low, low_open, high, high_open = _bounds(info)
    if default > 0:
        below = max(default / 10, low + (default - low) / 10 if low_open and low > 0 else low)
        above = min(default * 10, high - (high - default) / 10 if high_open else high)
        return Range(below, above, True, False) if below < above else "its bounds leave one value"
    if default == 0 and low == 0:
        return "off or left to the learner by default"
    if math.isinf(low) or math.isinf(high):
        return "not above 0, and without two bounds"
    below = low + (default - low) / 10 if low_open else low
    above = high - (high - default) / 10 if high_open else high
    return Range(below, above, False, False) if below < above else "its bounds leave one value"


def _bounds(info: FieldInfo) -> tuple[float, bool, float, bool]:
    """Return (low, whether it is open, high, whether it is open) of a numeric option; infinite where there is none."""
    low, low_open, high, high_open = -math.inf, False, math.inf, False
    for constraint in info.metadata:
        for name, value in ((n, getattr(constraint, n, None)) for n in ("ge", "gt", "le", "lt")):
            if value is None:
                continue
            if name in ("ge", "gt") and value >= low:
                low, low_open = float(value), name == "gt"
            elif name in ("le", "lt") and value <= high:
                high, high_open = float(value), name == "lt"
    return low, low_open, high, high_open


def _inner_type(info: FieldInfo) -> Any:
    """Return an option's type without ``| None``."""
    if get_origin(info.annotation) in (Union, types.UnionType):
        inner = [one for one in get_args(info.annotation) if one is not type(None)]
        return inner[0] if len(inner) == 1 else None
    return info.annotation
