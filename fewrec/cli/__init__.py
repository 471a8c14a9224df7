"""The command line, one module a command: each parses, calls, prints. Everything they do is a function elsewhere."""

from __future__ import annotations

import click

from fewrec import __version__
from fewrec.cli.group import Commands

_COMMANDS = {
    "run": "Run a suite and print its leaderboard; interrupted runs are resumed.",
    "report": "Rebuild the tables, plots and the HTML page of a results folder from its cells alone.",
    "export": "Copy a run's tables, manifest and scores into a folder that can be committed.",
    "list": "List learners or suites.",
    "data": "List, describe and fetch data sets.",
}


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    lazy={name: (f"fewrec.cli.{name.replace('-', '_')}:command", summary) for name, summary in _COMMANDS.items()},
)
@click.version_option(__version__, prog_name="fewrec")
def main() -> None:
    """Benchmark few-shot recommenders: sample episodes, adapt learners, write leaderboards that can be believed."""
