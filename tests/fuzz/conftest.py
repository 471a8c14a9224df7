"""How fuzz targets are run: few inputs in the test suite, ten thousand each by ``make fuzz``, which writes a report."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.harness import Fault, Files, Target, workplace
from tests.fuzz.report import write_faults, write_report, write_target

EXAMPLES = int(os.environ.get("FEWREC_FUZZ_EXAMPLES", "0"))  # 0: the test suite's few
QUICK = 25
SEED = int(os.environ.get("FEWREC_FUZZ_SEED", "0"))

Fuzz = Callable[[Target, list[Files], st.SearchStrategy], None]


@pytest.fixture
def fuzz(request: pytest.FixtureRequest) -> Fuzz:
    """Return a function that runs a target on its valid inputs, which must be accepted, and on generated ones.

    In the test suite the first fault fails the test with the smallest input that Hypothesis finds. A long run goes on,
    keeps the smallest input of every fault, and fails at the end.
    """

    def run(target: Target, seeds: list[Files], strategy: st.SearchStrategy) -> None:
        wanted = EXAMPLES or QUICK
        said = _progress(request.config, target.name, wanted)
        began = time.perf_counter()
        with workplace() as folder:
            target.warm_up(seeds, folder)
            options: dict[str, Any] = {
                "deadline": None, "suppress_health_check": list(HealthCheck), "database": None, "print_blob": False,
            }  # fmt: skip

            def one(files: Files) -> None:
                try:
                    target.execute(files, folder)
                except Fault as fault:
                    if not EXAMPLES:
                        raise
                    target.note_fault(fault, files)
                said(target)

            for batch in range(20):  # Hypothesis may stop before its number is reached; what counts are inputs read
                left = wanted - target.tally.executed
                if left <= 0:
                    break
                if EXAMPLES:
                    body = settings(max_examples=left, phases=[Phase.generate], **options)(given(strategy)(one))
                    seed(f"{SEED}/{batch}/{target.name}")(body)()
                else:
                    settings(max_examples=left, derandomize=True, **options)(given(strategy)(one))()
        if EXAMPLES:
            write_target(target, wanted, time.perf_counter() - began, SEED)
            assert target.tally.executed >= wanted, f"only {target.tally.executed:,} inputs were generated"
        if target.tally.faults:
            folder_of_faults = write_faults(target)
            lines = [f"{at}\n    {text}" for at, (_, text, _) in sorted(target.tally.faults.items())]
            pytest.fail(f"{len(lines)} faults, inputs in {folder_of_faults}:\n" + "\n".join(lines), pytrace=False)

    return run


def _progress(config: pytest.Config, name: str, wanted: int) -> Callable[[Target], None]:
    """Return a function that prints a line at every tenth of a long run."""
    began, step = time.perf_counter(), max(1, wanted // 10)
    capture = config.pluginmanager.getplugin("capturemanager")

    def said(target: Target) -> None:
        n = target.tally.executed
        if EXAMPLES and n % step == 0:
            with capture.global_and_fixture_disabled():
                spent = time.perf_counter() - began
                line = f"{name}: {n:,} of {wanted:,} inputs, {len(target.tally.faults)} faults, {spent:.0f} s"
                print(f"\r{line:<78}", end="\n" if n >= wanted else "", file=sys.stderr, flush=True)

    return said


def pytest_sessionfinish(session: pytest.Session) -> None:
    if EXAMPLES and not hasattr(session.config, "workerinput"):
        write_report()
