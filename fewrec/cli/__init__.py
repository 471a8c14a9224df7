"""The command line, one module a command: each parses, calls, prints. Everything they do is a function elsewhere."""

from __future__ import annotations

import click

from fewrec import __version__
from fewrec.cli.group import Commands

_COMMANDS = {
    "run": "Run a suite and print its leaderboard; interrupted runs are resumed.",
    "report": "Rebuild the tables, plots and the HTML page of a results folder from its cells alone.",
    "show": "Print the leaderboard of a results folder.",
    "compare": "Compare two results folders row by row: paired differences, and what can't be compared.",
    "verify": "Run cells of a results folder again and compare their scores.",
    "tune": "Choose a learner's options on meta-validation, with a budget of trials.",
    "export": "Copy a run's tables, manifest and scores into a folder that can be committed.",
    "episodes": "Write a suite's episodes for other frameworks, or verify what was written.",
    "score": "Score predictions that were made elsewhere on frozen episodes, beside trivial rows.",
    "list": "List learners, suites or model weights.",
    "new-learner": "Write a commented template of a learner, ready to run.",
    "check": "Check a learner against the contract, and explain what it breaks.",
    "recommend": "Recommend items to a user of whom a few ratings are known.",
    "ask": "Say which rating of a user to ask for next.",
    "finetune": "Fine-tune an encoder on two files of ratings, and report its errors beside trivial rows.",
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
