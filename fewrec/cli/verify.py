"""``fewrec verify``: recorded cells, run again and compared."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from fewrec.cli.group import console
from fewrec.cli.options import OWN_DATA, WholeNumber, names, own_data_options, shots, without_data
from fewrec.terminal import echo, rich_console


@click.command()
@click.argument("folder", type=click.Path())
@click.option("--cells", "count", type=WholeNumber(1), default=5, show_default=True, help="How many are drawn.")
@click.option("--all", "everything", is_flag=True, help="All cells, also those recorded as failed or not applicable.")
@click.option("--seed", "draw", type=WholeNumber(0), default=0, show_default=True, help="Which are drawn.")
@click.option("--learner", "learners", multiple=True, callback=names, help="Draw from these rows alone.")
@click.option("--dataset", "datasets", multiple=True, callback=names, help="Draw from these data sets alone.")
@click.option("--state", "states", multiple=True, callback=names, help="Draw from these states alone.")
@click.option("--shots", multiple=True, callback=shots, help="Draw from these K alone; a number or 'rest'.")
@click.option("--cell", "hashes", multiple=True, callback=names, help="These cells, by (the beginning of) their hash.")
@click.option(
    "--plugin", "plugins", multiple=True, type=click.Path(), help="A Python file with learners. It is run: trust it."
)
@click.option("--device", help="auto, cpu, cuda or mps (default: the recorded one, where it is there).")
@click.option("--offline", is_flag=True, help="Open no connection: use what is in the cache.")
@click.option("--json", "report", type=click.Path(dir_okay=False), help="Write the whole report there as JSON.")
@own_data_options
def command(folder: str, everything: bool, count: int, draw: int, report: str | None, **options: Any) -> None:
    """Run cells of a results FOLDER (a local run or results/reference/...) again and compare their scores.

    In the recorded environment every score must be the same bytes; in another one RMSE must agree to 1e-5 for closed
    forms and 2e-3 for trained learners. Exit code 0: all agree, 1: a cell differs or can't be compared, or the folder
    does not fit together, 2: the input can't be used.
    """
    own = {key: options.pop(key) for key in OWN_DATA}
    own = {key: value for key, value in own.items() if value is not None}
    if own and "data" not in own:
        raise click.UsageError(without_data(own))

    from fewrec.report.comparison.verification import terminal_report
    from fewrec.report.files import check_folder, json_bytes, write_whole
    from fewrec.runner.progress import reporter_for
    from fewrec.runner.verify import Filter, verify

    if report is not None:
        check_folder(Path(report).parent, "--json", report)
    fields = ("learners", "datasets", "states", "shots")
    wanted = Filter(**{name: options.pop(name) for name in fields}, cells=options.pop("hashes"))
    try:
        found = verify(folder, count=None if everything else count, draw=draw, wanted=wanted, own=own or None,
                       reporter=reporter_for(rich_console(stderr=True)), **options)  # fmt: skip
    except KeyboardInterrupt:
        echo("interrupted; nothing was written", err=True)
        sys.exit(130)
    if report is not None:
        write_whole(Path(report), json_bytes(found.json_value()))
    console().print(terminal_report(found))
    if not found.agrees:
        sys.exit(1)
