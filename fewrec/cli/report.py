"""``fewrec report``: the files of a results folder, made anew from its cells."""

from __future__ import annotations

from pathlib import Path

import click

from fewrec.cli.group import console


@click.command()
@click.argument("folder", type=click.Path())
def command(folder: str) -> None:
    """Rebuild the tables of a results FOLDER (a local run or results/reference/...) from its cells alone."""
    from fewrec.report.render import terminal_table, write_leaderboard
    from fewrec.report.results import load_results

    write_leaderboard(Path(folder))
    console().print(terminal_table(load_results(Path(folder)).leaderboard))
