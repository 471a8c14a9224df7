"""``fewrec run``: a suite, from its name to its leaderboard."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from fewrec.cli.group import console, end_interrupted, sigterm_interrupts
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
from fewrec.terminal import echo, rich_console


@click.command()
@click.argument("suite", default="quick")
@click.option(
    "--learner", "learners", multiple=True, callback=names, help="Only these rows, or other registered learners."
)
@grid_options
@click.option(
    "--meta-dataset",
    "meta_datasets",
    multiple=True,
    callback=names,
    help="Meta-train on this data set (a name or a file), not on the one that is tested; a table for each.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    callback=settings,
    metavar="LEARNER.OPTION=VALUE",
    help="Change an option; the row's label says so.",
)
@backbone_option
@click.option(
    "--tuned",
    multiple=True,
    type=click.Path(),
    metavar="FILE",
    help="Add the rows of a file that `fewrec tune` wrote, beside the suite's.",
)
@click.option(
    "--track",
    multiple=True,
    callback=names,
    metavar="BACKEND",
    help="Follow the run in tensorboard, wandb (offline unless WANDB_MODE is set) or mlflow; writes into OUT/tracking.",
)
@machine_options
@click.option(
    "--jobs", type=WholeNumber(), metavar="N", help="Run N units at once, each in a process of its own [default: 1]."
)
@click.option("--executor", type=click.Choice(["local", "ray"]), help="Where units run: on this machine, or on Ray.")
@click.option(
    "--ray-address", metavar="ADDRESS", help="The cluster of --executor ray (default: a Ray of this machine)."
)
@click.option("--time-limit", type=Number(), metavar="SECONDS", help="A cell that runs longer gets a timeout row.")
@click.option("--out", type=click.Path(), help="Results folder (default: results/SUITE).")
@click.option("--dry-run", is_flag=True, help="Print the cells and an estimate of the time, and stop.")
@own_data_options
def command(suite: str, dry_run: bool, time_limit: float | None, track: tuple[str, ...], **options: Any) -> None:
    """Run SUITE (a name or a TOML file) and print its leaderboard. Interrupted runs are resumed."""
    own = {key: options.pop(key) for key in OWN_DATA}
    if own["data"] is not None and options["datasets"]:
        raise click.UsageError("--data and --dataset exclude one another; give one of them")
    place = ""
    with sigterm_interrupts():
        try:
            dataset = open_own(**own)
            from fewrec.runner import api  # imports torch: after the cheap checks
            from fewrec.tracking.base import open_trackers

            open_trackers(track)  # a package that is missing is said before data are read
            plan = api.plan(suite, data=dataset, **options)
            if dry_run:
                _print_plan(plan)
                return
            place = f"what is complete is in {plan.out}: "
            _execute(plan, time_limit, track)
        except KeyboardInterrupt as stop:
            end_interrupted(stop, f"{place}run the same command again to go on")


def _execute(plan: Any, time_limit: float | None, track: tuple[str, ...]) -> None:
    from fewrec.report.render import terminal_table
    from fewrec.runner import api
    from fewrec.runner.progress import reporter_for

    command = f"fewrec run {' '.join(_shown_arguments())}".strip()
    reporter = reporter_for(rich_console(stderr=True))
    results = api.execute(plan, reporter=reporter, time_limit=time_limit, command=command, track=track)
    console().print(terminal_table(results.leaderboard))
    echo(f"{plan.out / 'leaderboard.md'} has the whole table")


def _shown_arguments() -> list[str]:
    """Return the arguments as given, for the manifest, without the folder that only this machine has."""
    arguments = sys.argv[1:]
    shown = arguments[1:] if arguments[:1] == ["run"] else arguments
    return [Path(a).name if os.path.isabs(a) else a for a in shown]


def _print_plan(plan: Any) -> None:
    from fewrec.report.naming import protocol_name

    for spec in plan.cells:
        echo(
            f"{spec.spec_hash}  {spec.dataset}  {protocol_name(spec.protocol.canonical(), spec.meta_dataset)}  "
            f"N={spec.n_users} K={spec.k_shot} Q={spec.n_query}  seed {spec.seed}  "
            f"{spec.episodes} episodes  {spec.label}"
        )
    seconds, unknown = sum(plan.estimate.seconds), plan.estimate.unknown
    echo(
        f"{len(plan.cells)} cells, about {seconds / 60:.1f} minutes by the timings of earlier runs, into {plan.out}"
    )
    if unknown:
        echo(f"not timed yet, so guessed: {', '.join(unknown)}")
