"""Running checks on a learner: in order, each with its prerequisites, and any exception turned into a finding."""

from __future__ import annotations

import inspect
import linecache
import textwrap
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal

import torch

import fewrec
from fewrec.conformance.bench import Bench
from fewrec.conformance.check import CHECKS, Broken, Check, Skipped
from fewrec.conformance.compare import of_support
from fewrec.errors import DataError, NotApplicable

for _name in ("declared", "fitting", "independence", "shots", "lifecycle", "outputs"):
    import_module(f"fewrec.conformance.{_name}")  # registers its checks, in this order: some build on earlier ones

Status = Literal["ok", "FAILED", "skipped"]


@dataclass(frozen=True)
class Outcome:
    """What a check found: ``broken`` where it failed, ``reason`` where it was skipped."""

    check: Check
    status: Status
    seconds: float
    reason: str = ""
    broken: Broken | None = None

    def explanation(self) -> str:
        """Return the promise, what was seen, the likely cause and the smallest example, as text of several lines."""
        assert self.broken is not None
        parts = [
            ("The contract", self.check.contract),
            ("Seen", self.broken.seen),
            ("Likely cause", self.broken.cause),
        ]
        text = f"{self.check.name}: {self.check.title}\n"
        text += "".join(f"\n{_wrapped(head, body)}\n" for head, body in parts if body)
        if self.broken.example:
            text += "\n  Smallest example\n" + "".join(f"    {line}\n" for line in self.broken.example.splitlines())
        return text


def _wrapped(head: str, body: str) -> str:
    return f"  {head}\n" + textwrap.fill(body, 110, initial_indent="    ", subsequent_indent="    ")


def examine(bench: Bench, only: Sequence[str] = ()) -> Iterator[Outcome]:
    """Yield the outcome of every check, or of those named in ``only``, as each is done, on one processor thread.

    Raises ``NotApplicable`` or ``DataError`` where the learner can't be prepared here.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on tensors of this size threads wait for one another: up to twenty times slower
    try:
        for name, check in CHECKS.items():
            if not only or name in only:
                yield outcome_of(bench, check)
    finally:
        torch.set_num_threads(threads)


def outcome_of(bench: Bench, check: Check) -> Outcome:
    """Return the outcome of a check on a bench, run once; what it builds on is run before it.

    Raises ``NotApplicable`` or ``DataError`` where the learner can't be prepared here.
    """
    if check.name not in bench.outcomes:
        bench.outcomes[check.name] = _run(bench, check)
    return bench.outcomes[check.name]


def _run(bench: Bench, check: Check) -> Outcome:
    for name in check.after:
        earlier = outcome_of(bench, CHECKS[name])
        if earlier.status == "FAILED":
            return Outcome(check, "skipped", 0.0, f"mend '{name}' first")
        if earlier.status == "skipped" and earlier.reason.startswith("mend "):
            return Outcome(check, "skipped", 0.0, earlier.reason)
    bench.support_at_hand = None
    start = time.perf_counter()
    try:
        check.function(bench)
    except Skipped as reason:
        return Outcome(check, "skipped", time.perf_counter() - start, str(reason))
    except (NotApplicable, DataError):
        raise
    except Broken as broken:
        return Outcome(check, "FAILED", time.perf_counter() - start, broken=broken)
    except Exception as error:  # the learner's own code, or what it gave back
        return Outcome(check, "FAILED", time.perf_counter() - start, broken=_raised(error, check, bench))
    return Outcome(check, "ok", time.perf_counter() - start)


def _raised(error: Exception, check: Check, bench: Bench) -> Broken:
    """Return an exception as a finding that points at the line of the learner's code."""
    frames = traceback.extract_tb(error.__traceback__)
    conformance = Path(fewrec.__file__).parent / "conformance"
    theirs = [frame for frame in frames if not Path(frame.filename).is_relative_to(conformance)]
    source = inspect.getfile(bench.learner)
    own = [frame for frame in theirs if frame.filename == source] or theirs
    seen = f"{type(error).__name__}: {' '.join(str(error).split()) or '(no message)'}"
    if own:
        place = own[-1]
        line = linecache.getline(place.filename, place.lineno or 0).strip()
        seen += f", raised in {place.name} at {Path(place.filename).name}:{place.lineno}: {line}"
    cause = check.hint or "The line above fails on an input that the contract allows."
    support = bench.support_at_hand
    return Broken(seen, cause, of_support(support) if support is not None else "")
