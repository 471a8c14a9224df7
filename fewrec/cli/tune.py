"""``fewrec tune``: a learner's options, chosen on meta-validation with a budget of trials."""

from __future__ import annotations

import sys
from typing import Any

import click

from fewrec.cli.options import (
    OWN_DATA,
    Number,
    WholeNumber,
    backbone_option,
    grid_options,
    machine_options,
    names,
    open_own,
    own_data_options,
    settings,
)
from fewrec.terminal import echo


@click.command()
@click.argument("suite", default="quick")
@click.option("--learner", "learners", multiple=True, callback=names, required=True,
              help="The row or learner to tune; several are tuned one after the other.")  # fmt: skip
@click.option("--budget", type=WholeNumber(1), default=30, show_default=True, help="Trials a learner, in all.")
@grid_options
@click.option(
    "--set",
    "settings",
    multiple=True,
    callback=settings,
    metavar="LEARNER.OPTION=VALUE",
    help="Give an option a value; it is not searched then.",
)
@backbone_option
@machine_options
@click.option("--time-limit", type=Number(), metavar="SECONDS", help="A trial that runs longer counts as failed.")
@click.option("--out", type=click.Path(), help="Where trials and results go (default: results/tune/SUITE).")
@click.option("--space", is_flag=True, help="Print what is searched and what is not, and stop.")
@own_data_options
def command(
    suite: str, learners: tuple[str, ...], budget: int, space: bool, backbone: str | None, **options: Any
) -> None:
    """Choose options of a learner of SUITE (a name or a TOML file) on meta-validation; meta-test is out of reach.

    Every learner gets the same number of trials, the same method (Optuna's TPE) and the same rule of what is searched;
    the first trial is the configuration that the suite has. The result is a row: fewrec run SUITE --tuned FILE.
    Interrupted searches go on, and a larger budget adds trials.
    """
    own = {key: options.pop(key) for key in OWN_DATA}
    if own["data"] is not None and options["datasets"]:
        raise click.UsageError("--data and --dataset exclude one another; give one of them")
    dataset = open_own(**own)
    from fewrec.tuning import api

    kept = ("datasets", "states", "shots", "seeds", "episodes", "order", "conditions", "plugins", "out")
    planned = {k: options[k] for k in kept}
    given = options.pop("settings")
    if backbone is not None:  # not searched, like what --set gives
        for learner in learners:
            given[learner] = {"backbone": backbone, **given.get(learner, {})}
    if space:
        for learner in learners:
            _print_space(api.plan_tuning(suite, learner, settings=_of(given, learners, learner), **planned))
        return
    for learner in learners:
        try:
            result = api.tune(
                suite, learner, budget=budget, data=dataset, settings=_of(given, learners, learner), **options
            )
        except KeyboardInterrupt:
            echo("interrupted; the trials that ended are kept: run the same command again to go on", err=True)
            sys.exit(130)
        _print_result(result, suite)


def _of(given: dict[str, dict[str, Any]], learners: tuple[str, ...], learner: str) -> dict[str, dict[str, Any]]:
    """Return the settings of one of several learners; what belongs to none of them is left in, to be refused."""
    return {target: options for target, options in given.items() if target == learner or target not in learners}


def _print_space(plan: Any) -> None:
    width = max(map(len, plan.start), default=0)
    echo(f"{plan.row.shown}: {len(plan.space.searched)} of {len(plan.start)} options are searched")
    for name, one in plan.space.searched.items():
        echo(f"  {name:{width}}  {one.describe()}; the search starts at {_shown(plan.start[name])}")
    for name, reason in plan.space.left_out.items():
        echo(f"  {name:{width}}  stays {_shown(plan.start[name])}: {reason}")


def _print_result(result: Any, suite: str) -> None:
    tuned = result.row.tuned
    for reason in dict.fromkeys(result.left_out.values()):
        cells = [cell for cell, why in result.left_out.items() if why == reason]
        echo(f"left out, {cells[0]}" + (f" and {len(cells) - 1} more" if cells[1:] else "") + f": {reason}")
    failed = tuned.budget - tuned.trials
    echo(
        f"{result.row.label}: {tuned.metric.upper()} on meta-validation {tuned.score:.4f}, "
        f"trial {result.best.number + 1} of {tuned.budget}" + (f" ({failed} failed)" if failed else "")
    )
    start = "failed" if tuned.default_score is None else f"{tuned.default_score:.4f}"
    echo(f"before tuning: {start}" + ("" if result.changed else "; no trial was better"))
    for name, (was, now) in result.changed.items():
        share = f"  (importance {result.importance[name]:.0%})" if name in result.importance else ""
        echo(f"  {name}: {_shown(was)} -> {_shown(now)}{share}")
    echo(f"use it: fewrec run {suite} --tuned {result.path}")


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    return f"{value:g}" if isinstance(value, float) else str(value)
