"""``fewrec compare``: two results folders, side by side."""

from __future__ import annotations

import click

from fewrec.cli.group import console
from fewrec.terminal import echo


@click.command()
@click.argument("a", type=click.Path())
@click.argument("b", type=click.Path())
@click.option(
    "--format", "form", type=click.Choice(["table", "markdown", "csv", "json"]), default="table", show_default=True
)
def command(a: str, b: str, form: str) -> None:
    """Compare results folder A with B (runs, machines or versions), row by row on the episodes that both have.

    Shows paired differences B - A with 95 % intervals over users, what differs in environment, code, data and options,
    and what can't be compared, with the reason.
    """
    from fewrec.report.comparison.compare import compare
    from fewrec.report.comparison.text import TerminalComparison, csv_text, json_value, markdown
    from fewrec.report.files import json_bytes

    found = compare(a, b)
    if form == "table":
        console().print(TerminalComparison(found))
    elif form == "json":
        echo(json_bytes(json_value(found)).decode(), nl=False)
    else:
        echo(markdown(found) if form == "markdown" else csv_text(found), nl=False)
