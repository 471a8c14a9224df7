"""``fewrec list``: what there is to run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from fewrec.cli.group import Commands, console
from fewrec.terminal import echo

if TYPE_CHECKING:
    from fewrec.learners.index import LearnerInfo


@click.group(cls=Commands)
def command() -> None:
    """List learners, data sets, suites or model weights."""


@command.command("learners")
@click.argument("names", nargs=-1)
@click.option("--plugin", "plugins", multiple=True, type=click.Path(), help="A Python file with learners. It is run.")
@click.option("-v", "--verbose", is_flag=True, help="Import each learner, and show its options with their defaults.")
def list_learners(names: tuple[str, ...], plugins: tuple[str, ...], verbose: bool) -> None:
    """List the learners that are known, or those of the given NAMES: built-in, installed plugins, files.

    Nothing is imported without -v. What a broken plugin fails of is said in its line.
    """
    from fewrec.errors import SuiteError, nearest
    from fewrec.learners.registry import add_plugin_file, listed_learners

    for plugin in plugins:
        add_plugin_file(plugin)
    listed = listed_learners()
    known = {info.name for info in listed}
    for name in names:
        if name not in known:
            raise SuiteError(f"unknown learner '{name}'{nearest(name, known)}")
    listed = [info for info in listed if not names or info.name in names]
    if verbose:
        for info in listed:
            _print_details(info)
    else:
        console().print(_table(listed))


def _table(listed: list[LearnerInfo]) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("learner", no_wrap=True)
    table.add_column("what it does", min_width=24)
    for column in ("needs", "paper"):
        table.add_column(column)
    foreign = any(info.origin != "built-in" for info in listed)
    if foreign:
        table.add_column("where from")
    for info in listed:
        row = [_text(info.name), _text(info.summary), _text(", ".join(sorted(info.needs))), _text(info.paper, "dim")]
        if info.problem:
            row[1] = _text(f"can't be used: {info.problem}", "red")
        table.add_row(*row, *[_text("" if info.origin == "built-in" else info.origin)] * foreign)
    return table


def _text(text: str, style: str = "") -> Any:
    """Return text without line breaks, whose brackets are no markup."""
    from rich.text import Text

    return Text(" ".join(text.split()), style=style)


def _print_details(info: LearnerInfo) -> None:
    """Import a learner and print its declarations and options, or why it can't be used."""
    from rich import box
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from fewrec.errors import SuiteError
    from fewrec.learners.registry import learner_class

    out = console()
    out.print(Text.assemble((info.name, "bold"), f"  {' '.join(info.summary.split())}"))
    try:
        if info.problem:
            raise SuiteError(info.problem)
        cls = learner_class(info.name)
    except SuiteError as error:
        out.print(Padding(_text(f"can't be used ({info.origin}): {error}", "red"), (0, 0, 1, 2), expand=False))
        return
    from fewrec.learners.options import notes_on, options_of

    facts = {
        "from": info.origin, "needs": ", ".join(sorted(cls.needs)), "paper": cls.paper,
        "predicts": "each user from that user's support alone" if cls.task == "user" else "the episode's users jointly",
        "class": "" if info.origin.startswith("plugin ") else f"{cls.__module__}:{cls.__name__}",
    }  # fmt: skip
    for name, value in facts.items():
        if value:
            out.print(Padding(_text(f"{name}: {value}"), (0, 0, 0, 2), expand=False))
    options = options_of(cls.Config)
    if options:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        described = any(option.description for option in options)
        for column in ("option", "type", "default", *["description"] * described):
            table.add_column(column)
        for option in options:
            cells = [option.name, option.type, option.default, *[option.description] * described]
            table.add_row(*map(_text, cells))
        out.print(Padding(table, (0, 0, 0, 2), expand=False))
        for note in notes_on(cls.Config):
            paragraphs = "\n\n".join(" ".join(part.split()) for part in note.split("\n\n"))
            out.print(Padding(Text(paragraphs, style="dim"), (0, 0, 1, 4), expand=False))
    else:
        out.print(Padding(Text("no options"), (0, 0, 1, 2), expand=False))


@command.command("data")
def list_data() -> None:
    """List the data sets that come with fewrec and those of your own, and whether they are in the cache."""
    from fewrec.cli.data import print_data_sets

    print_data_sets()


@command.command("suites")
def list_suites() -> None:
    """List the suites that come with fewrec."""
    from fewrec.runner import suite

    for name, title in suite.list_suites().items():
        echo(f"{name:<12} {title}")


@command.command("weights")
def list_weights() -> None:
    """List the model weights that --backbone takes by name, and whether they are in the cache."""
    from fewrec.data import cards
    from fewrec.data.fetch import is_cached

    for card in cards.list_weights():
        others = f"; also {', '.join(card.aliases)}" if card.aliases else ""
        echo(f"{card.name:<24} {'cached' if is_cached(card) else '':<7} {card.title}; {card.licence}{others}")
