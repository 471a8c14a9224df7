"""``fewrec score``: predictions of another framework on frozen episodes, as a row beside trivial ones."""

from __future__ import annotations

import click

from fewrec.cli.group import console
from fewrec.terminal import echo


@click.command()
@click.argument("predictions", type=click.Path())
@click.option("--episodes", required=True, type=click.Path(), help="The export, or one task's folder in it.")
@click.option("--label", metavar="NAME", help="What the table calls the row (default: the file's name).")
@click.option("--out", type=click.Path(), help="A new folder for scores and tables, as `fewrec compare` reads them.")
def command(predictions: str, episodes: str, label: str | None, out: str | None) -> None:
    """Score PREDICTIONS (.parquet or .csv: episode, user, item, prediction) on frozen episodes.

    There must be one row for every query row, in any order; where the episodes have several tasks, the column task
    names each row's.
    """
    from fewrec.report.row_text import row_lines
    from fewrec.report.terminal import terminal_table
    from fewrec.runner.score import EXTERNAL, score

    results = score(predictions, episodes, label=label, out=out, told=lambda name: echo(name, err=True))
    frame = results.leaderboard
    console().print(terminal_table(frame))
    (shown,) = frame["label"][frame["learner"] == EXTERNAL].unique()
    for line in row_lines(frame, shown):
        echo(line)
    if out is not None:
        echo(f"{out}: leaderboard.md has the whole table")
