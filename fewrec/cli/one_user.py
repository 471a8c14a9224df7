"""What ``fewrec recommend`` and ``fewrec ask`` share: one user's options, finding titles, printing."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from fewrec.cli.group import console
from fewrec.cli.options import OWN_DATA, WholeNumber, backbone_option, machine_options, open_own
from fewrec.terminal import echo, rich_console

if TYPE_CHECKING:
    from fewrec.data.table import Dataset


def options_of_learner(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    """Return {option: value} of ``--set option=value``; values are TOML, a bare word is a string."""
    out: dict[str, Any] = {}
    for text in values:
        option, equals, value = text.partition("=")
        if not (equals and option.strip()):
            raise click.BadParameter(f"'{text}' is not of the form option=value")
        try:
            out[option.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            out[option.strip()] = value
    return out


def user_options(command: Callable) -> Callable:
    """Give a command the options that say who is advised, by which learner, and in which form."""
    options: list[Callable[[Callable], Callable]] = [
        click.option("--ratings", type=click.Path(),
                     help="The user's ratings: a file with the columns item (or title), rating."),
        click.option("--update", multiple=True, type=click.Path(),
                     help="More ratings of the user, added without training; repeatable."),
        click.option("--dataset", help="The data set to learn from, and to choose items of, say ml-100k."),
        click.option("--learner", help="A registered learner or module:Class (default: gp)."),
        click.option("--model", type=click.Path(), help="A folder with a saved learner, instead of training one."),
        click.option("--save", type=click.Path(), help="A folder to save the learner into, for --model."),
        click.option("--top", type=WholeNumber(1), default=10, show_default=True, help="How many items."),
        click.option("--genre", help="Only items of this genre."),
        click.option("--find", metavar="TEXT", help="List the items whose title has these words, and stop."),
        click.option("--set", "settings", multiple=True, callback=options_of_learner, metavar="OPTION=VALUE",
                     help="Change an option."),
        backbone_option,
        click.option("--seed", type=WholeNumber(0), default=0, show_default=True,
                     help="The seed of all randomness."),
        click.option("--format", "form", type=click.Choice(["table", "json", "csv"]), default="table",
                     show_default=True),
        click.option("--json", "as_json", is_flag=True, help="The same as --format json."),
        machine_options,
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def answer(
    what: Callable[..., Any],
    *,
    dataset: str | None,
    find: str | None,
    form: str,
    as_json: bool,
    threads: int | None,
    backbone: str | None,
    **options: Any,
) -> None:
    """Call ``what``, ``fewrec.recommend`` or ``fewrec.ask``, with a command's options, and print what it returns."""
    own = {key: options.pop(key) for key in OWN_DATA}
    if own["data"] is not None and dataset is not None:
        raise click.UsageError("--data and --dataset exclude one another; give one of them")
    if backbone is not None:
        options["settings"] = {"backbone": backbone, **options["settings"]}
    form = "json" if as_json else form
    data = open_own(**own)
    if find is not None:
        _find(find, data, dataset, form, options["offline"])
        return
    from fewrec.recommender import show
    from fewrec.runner.environment import available_threads

    with _progress() as track:
        found = what(
            dataset=data if data is not None else dataset,
            threads=available_threads() if threads is None else threads,
            track=track,
            say=lambda text: echo(text, err=True),
            **options,
        )
    for note in found.notes:
        echo(f"note: {note}", err=True)
    if form == "json":
        echo(show.as_json(found))
    elif form == "csv":
        echo(show.as_csv(show.rows_of(found), show.csv_columns(found)))
    else:
        out = console()
        out.print(show.as_table(found, out.width))
        known = f"{found.k_shot} rating{'s' if found.k_shot != 1 else ''}"
        parts = ", ".join(f"{name} {seconds * 1000:.1f} ms" for name, seconds in found.seconds.items())
        echo(f"{found.learner} on {found.dataset}, {known} of this user known; {parts}", err=True)


def _find(text: str, data: Dataset | None, dataset: str | None, form: str, offline: bool) -> None:
    from fewrec.data.load import open_dataset
    from fewrec.recommender import show
    from fewrec.recommender.titles import TitleIndex
    from fewrec.report.files import json_bytes

    if data is None and dataset is None:
        raise click.UsageError("--find needs the data set to look in: give --dataset NAME or --data FILE")
    titles = TitleIndex(data if data is not None else open_dataset(str(dataset), offline=offline))
    found = titles.find(text)
    rows = show.found_rows(titles, found or titles.nearest(text, 5))
    if not found:
        echo(f"no title has all of '{text}'" + ("; the nearest:" if rows else ""), err=True)
    if form == "json":
        echo(json_bytes({"items": rows}).decode().rstrip("\n"))
    elif form == "csv":
        echo(show.as_csv(rows, show.FOUND))
    elif rows:
        console().print(show.found_table(rows))


@contextmanager
def _progress() -> Iterator[Any]:
    """Yield what shows the steps of training on a terminal, and nothing elsewhere."""
    from rich.progress import track

    out = rich_console(stderr=True)
    if not sys.stderr.isatty():
        yield None
    else:
        yield lambda steps, label: track(steps, label, console=out, transient=True)
