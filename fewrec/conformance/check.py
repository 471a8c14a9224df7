"""What a check is, and how it says that a promise is broken; apart from the checks because all of them share it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fewrec.conformance.bench import Bench


class Broken(Exception):
    """A learner breaks a promise: what was seen, the likely cause with its fix, and the smallest example of it."""

    def __init__(self, seen: str, cause: str, example: str = "") -> None:
        super().__init__(seen)
        self.seen, self.cause, self.example = seen, cause, example


class Skipped(Exception):
    """A check has nothing to look at, for the reason given."""


@dataclass(frozen=True)
class Check:
    """One promise of the contract.

    ``name`` is what ``--only`` takes, ``title`` the promise as a sentence, ``contract`` what the contract says about
    it. ``after``: the checks without which this one would only repeat their failure. ``hint``: the likely cause where
    the learner raises an exception during the check.
    """

    name: str
    function: Callable[[Bench], None]
    after: tuple[str, ...]
    hint: str

    @property
    def title(self) -> str:
        sentence = self.function.__name__.replace("_", " ")
        for said, written in (("meta fit", "meta-fit"), ("meta train", "meta-train"), ("json", "JSON")):
            sentence = sentence.replace(said, written)
        return sentence

    @property
    def contract(self) -> str:
        return " ".join(inspect.cleandoc(self.function.__doc__ or "").split())


CHECKS: dict[str, Check] = {}
"""All checks by name, in the order in which they run: those that others build on come first."""


def check(name: str, *, after: tuple[str, ...] = (), hint: str = "") -> Callable:
    """Make a function of a ``Bench`` a check; its name is the promise, its docstring what the contract says."""

    def register(function: Callable[[Bench], None]) -> Callable[[Bench], None]:
        missing = [earlier for earlier in after if earlier not in CHECKS]
        if missing or name in CHECKS:
            raise ValueError(f"check '{name}': defined twice, or before {missing}")
        CHECKS[name] = Check(name, function, after, hint)
        return function

    return register
