"""What the options of the command line mean: from their texts to values, apart from the commands that take them."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from fewrec.terminal import echo

if TYPE_CHECKING:
    from fewrec.data.table import Dataset


class WholeNumber(click.ParamType):
    """A whole number, of ``low`` or more."""

    name = "integer"

    def __init__(self, low: int | None = None) -> None:
        self.low = low

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            number = int(value)
        except ValueError:
            self.fail(f"'{value}' is not a whole number", param, ctx)
        if self.low is not None and number < self.low:
            self.fail(f"{number} is too small; give {self.low} or more", param, ctx)
        return number


class Number(click.ParamType):
    """A number, also one with decimals."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return float(value)
        except ValueError:
            self.fail(f"'{value}' is not a number", param, ctx)


def shots(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[int | str, ...]:
    """Return K values of ``--shots 1,5 --shots rest``."""
    out: list[int | str] = []
    for value in _split(values):
        try:
            out.append("rest" if value == "rest" else int(value))
        except ValueError:
            raise click.BadParameter(f"'{value}' is neither a whole number nor 'rest'") from None
        if out[-1] != "rest" and int(out[-1]) < 0:
            raise click.BadParameter(f"K = {value}: the number of support ratings can't be negative")
    return tuple(out)


def seeds(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[int, ...]:
    """Return the seeds of ``--seed 0,1``."""
    for value in _split(values):
        if not value.isdigit():
            raise click.BadParameter(f"'{value}' is not a whole number from 0")
    return tuple(int(value) for value in _split(values))


def _split(values: tuple[str, ...]) -> list[str]:
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def names(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of an option that is repeated or holds a list with commas."""
    return tuple(_split(values))


def settings(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Return {learner: {option: value}} of ``--set learner.option=value``; values are TOML, a bare word is a string."""
    out: dict[str, dict[str, Any]] = {}
    for text in values:
        target, equals, value = text.partition("=")
        learner, dot, option = target.rpartition(".")
        if not (equals and dot and learner and option):
            raise click.BadParameter(f"'{text}' is not of the form learner.option=value")
        out.setdefault(learner, {})[option] = _toml(value)
    return out


def conditions(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, list[Any]]:
    """Return {condition: values} of ``--condition name=value``; a condition that is given again gets both values."""
    out: dict[str, list[Any]] = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not (equals and name):
            raise click.BadParameter(f"'{text}' is not of the form name=value, say support_noise=0.2")
        out.setdefault(name, []).append(_toml(value))
    return out


def _toml(value: str) -> Any:
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return value  # a bare word is a string


def backbone(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Return the name of ``--backbone``; refuse one that can't be weights before anything is loaded."""
    if value is not None:
        from fewrec.data.weights import check_option

        check_option(value)
    return value


def backbone_option(command: Callable) -> Callable:
    """Give a command the option that names the language model of the learners that read texts."""
    return click.option(
        "--backbone", callback=backbone, metavar="NAME",
        help="The language model of all learners that have one: a name (fewrec list weights), owner/name on the hub, "
        "or a folder.",
    )(command)  # fmt: skip


def grid_options(command: Callable) -> Callable:
    """Give a command the options that replace parts of a suite's grid."""
    options = [
        click.option("--dataset", "datasets", multiple=True, callback=names, help="Instead of the suite's data sets."),
        click.option("--state", "states", multiple=True, callback=names, help="Instead of the suite's states."),
        click.option("--shots", multiple=True, callback=shots, help="Instead of the suite's K; a number or 'rest'."),
        click.option("--seed", "seeds", multiple=True, callback=seeds, help="Instead of the suite's seeds."),
        click.option("--episodes", type=WholeNumber(1), help="Instead of the suite's episodes a cell."),
        click.option("--order", type=click.Choice(["random", "time"]), help="Instead of the suite's order."),
        click.option("--condition", "conditions", multiple=True, callback=conditions, metavar="NAME=VALUE",
                     help="Instead of the suite's, an entry of its table [protocol], say support_noise=0.2; "
                     "given again, a table for each value."),
    ]  # fmt: skip
    return _with(options, command)


def machine_options(command: Callable) -> Callable:
    """Give a command the options that say where learners come from and on what they run."""
    options = [
        click.option("--plugin", "plugins", multiple=True, type=click.Path(),
                     help="A Python file with learners. It is run: trust it."),
        click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps."),
        click.option("--threads", type=WholeNumber(),
                     help="Processor threads, of each worker (default: a fair share of all)."),
        click.option("--offline", is_flag=True, help="Open no connection: use what is in the cache."),
    ]  # fmt: skip
    return _with(options, command)


def _with(options: list[Callable], command: Callable) -> Callable:
    for option in reversed(options):
        command = option(command)
    return command


def own_data_options(command: Callable) -> Callable:
    """Give a command the options of a file of the user's own ratings, and of how it is read."""
    data = "Your own ratings (CSV, TSV, Parquet, .inter), or a data set's name, instead of the suite's data."
    return click.option("--data", type=click.Path(), help=data)(file_options(command))


def file_options(command: Callable) -> Callable:
    """Give a command the options that say how a file of the user's own ratings is read."""
    options = [
        click.option("--items", type=click.Path(), help="Item texts of --data: item,title[,year,genres,description]."),
        click.option("--users", type=click.Path(), help="User features of --data: user, and any other columns."),
        click.option("--template", help="What an item's text is made of, from --items, e.g. '{title}. {genres}.'"),
        click.option("--columns", help="What the columns of --data are, in order: user,item,rating[,timestamp]."),
        click.option("--user-col", help="The name of the user column of --data, where it can't be guessed."),
        click.option("--item-col", help="Likewise, the item column."),
        click.option("--rating-col", help="Likewise, the rating column."),
        click.option("--time-col", help="Likewise, the timestamp column."),
        click.option("--delimiter", help="What separates the columns of --data."),
        click.option("--scale", type=(Number(), Number()), metavar="LOW HIGH", help="The rating scale of --data."),
        click.option("--duplicates", type=click.Choice(["error", "last", "mean"]), help="On repeated pairs."),
        click.option("--negatives", type=WholeNumber(1), metavar="R",
                     help="Clicks alone in --data: sample R items of no click beside each, as 0s."),
    ]  # fmt: skip
    return _with(options, command)


OWN_DATA = (
    "data", "items", "users", "template", "columns", "user_col", "item_col", "rating_col", "time_col", "delimiter",
    "scale", "duplicates", "negatives",
)  # fmt: skip


def without_data(given: Iterable[str]) -> str:
    """Return what is said of options that describe the file of ``--data`` where there is none."""
    options = ["--" + key.replace("_", "-") for key in given]
    return f"{', '.join(options)} only {'go' if len(options) > 1 else 'goes'} with --data; give the file too"


def open_own(data: str | None, **own: Any) -> Dataset | None:
    """Return the data set of ``--data``, or None; refuse options that describe a file where none is given."""
    given = {key: value for key, value in own.items() if value is not None}
    if data is None:
        if given:
            raise click.UsageError(without_data(given))
        return None
    from fewrec.data.load import open_dataset

    dataset = open_dataset(data, **given)
    for note in dataset.notes:
        echo(f"{data}: {note}", err=True)
    return dataset
