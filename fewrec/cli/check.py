"""``fewrec check``: a learner against the contract, one line a check, and an explanation of each that fails."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from fewrec.cli.one_user import options_of_learner
from fewrec.cli.options import names
from fewrec.terminal import echo

if TYPE_CHECKING:
    from fewrec.conformance import Outcome
    from fewrec.learners.base import Learner

_STYLE = {"ok": "green", "FAILED": "red", "skipped": "yellow"}


@click.command()
@click.argument("target")
@click.option("--learner", help="Only this one of the file's learners.")
@click.option("--set", "config", multiple=True, callback=options_of_learner, metavar="OPTION=VALUE",
              help="Change an option.")  # fmt: skip
@click.option("-k", "--only", multiple=True, callback=names, metavar="CHECK", help="Only these checks.")
@click.pass_context
def command(
    ctx: click.Context, target: str, learner: str | None, config: dict[str, Any], only: tuple[str, ...]
) -> None:
    """Check TARGET, a Python file, a learner's name or module:Class, against the contract.

    Exit code 0: it keeps the contract; 1: a check failed; 2: it could not be checked. A file is run: trust it.
    """
    from fewrec.conformance.target import configured, learners_of

    learners = learners_of(target, learner)  # imports torch, so after the options are read
    options = [configured(cls, config) for cls in learners]
    failed = [_checked(cls, given, only) for cls, given in zip(learners, options, strict=True)]
    ctx.exit(1 if any(failed) else 0)


def _checked(cls: type[Learner], config: dict[str, Any], only: tuple[str, ...]) -> bool:
    """Print what every check finds; return whether one failed."""
    import tempfile
    from pathlib import Path

    from fewrec.conformance import CHECKS, Bench, examine
    from fewrec.errors import DataError, NotApplicable, SuiteError, nearest

    for name in only:
        if name not in CHECKS:
            raise SuiteError(f"--only {name}: no such check{nearest(name, CHECKS)}")
    start, outcomes = time.perf_counter(), []
    label = getattr(cls, "name", cls.__name__)
    echo(f"{label} ({cls.__name__}) on 60 synthetic users and 50 items")
    with tempfile.TemporaryDirectory() as cache:
        try:
            for outcome in examine(Bench(cls, config, Path(cache)), only):
                _print_line(outcome)
                outcomes.append(outcome)
        except (NotApplicable, DataError) as error:
            raise SuiteError(f"learner '{label}' can't be checked here: {error}") from None
    failures = [outcome for outcome in outcomes if outcome.status == "FAILED"]
    for outcome in failures:
        echo(f"\n{outcome.explanation()}", nl=False)
    counts = ", ".join(f"{sum(o.status == status for o in outcomes)} {status}" for status in _STYLE)
    echo(f"\n{label}: {counts}, in {time.perf_counter() - start:.1f} s\n")
    return bool(failures)


def _print_line(outcome: Outcome) -> None:
    reason = f" ({outcome.reason})" if outcome.reason else ""
    seconds = f"  {outcome.seconds:.1f} s" if outcome.seconds >= 0.1 else ""
    line = f" {outcome.check.name:<20} {outcome.check.title}{reason}{seconds}"
    echo(line, head=f"{outcome.status:<8}", colour=_STYLE[outcome.status])
