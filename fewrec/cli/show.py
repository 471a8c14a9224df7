"""``fewrec show``: the leaderboard of a results folder in the terminal, or as text for elsewhere; it writes no file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from fewrec.cli.group import console
from fewrec.cli.options import names, shots
from fewrec.terminal import echo

if TYPE_CHECKING:
    import pandas as pd

_SORTS = ("rmse", "diff_bias", "ndcg5", "auc", "time")
_FILTERS = {"dataset": ("dataset",), "state": ("state",), "shots": ("k_shot",), "learner": ("learner", "label")}


@click.command()
@click.argument("folder", type=click.Path())
@click.option("--dataset", multiple=True, callback=names, help="Only these data sets.")
@click.option("--state", multiple=True, callback=names, help="Only these states.")
@click.option("--shots", multiple=True, callback=shots, help="Only these K; a number or 'rest'.")
@click.option("--learner", multiple=True, callback=names, help="Only these learners, or rows of that label.")
@click.option(
    "--sort", type=click.Choice(_SORTS), help="The order of the rows, best first; time is adapt + predict an episode."
)
@click.option("--interval", type=click.Choice(["percentile", "bca"]), default="percentile", show_default=True)
@click.option(
    "--format", "form", type=click.Choice(["table", "markdown", "csv", "latex"]), default="table", show_default=True
)
def command(folder: str, sort: str | None, interval: Any, form: str, **wanted: tuple[Any, ...]) -> None:
    """Print the leaderboard of a results FOLDER (a local run or results/reference/...).

    Options that choose rows change no figure: each row is compared with all rows of its table, shown or not.
    """
    from fewrec.report.leaderboard import leaderboard
    from fewrec.report.results import load_results

    results = load_results(folder)
    frame = ordered(chosen(leaderboard(results, interval), folder, wanted), sort)
    if form == "table":
        from fewrec.report.terminal import terminal_table

        console().print(terminal_table(frame))
        if results.unfinished:
            number = len(results.unfinished)
            said = "1 cell has" if number == 1 else f"{number} cells have"
            echo(f"not finished: {said} no result yet", err=True)
    elif form == "csv":
        from fewrec.report.render import csv_text

        echo(csv_text(frame), nl=False)
    elif form == "latex":
        from fewrec.report.latex import latex

        echo(latex(results, frame), nl=False)
    else:
        from fewrec.report.markdown import notes, sections

        echo("\n".join([*sections(results, frame), notes(frame)]))


def chosen(frame: pd.DataFrame, folder: str, wanted: dict[str, tuple[Any, ...]]) -> pd.DataFrame:
    """Return the rows that every filter keeps; raise ``DataError``, which lists what there is, where none is left."""
    from fewrec.errors import DataError

    said = []
    left = frame
    for option, columns in _FILTERS.items():
        values = wanted[option]
        if values:
            said.append(f"--{option} {','.join(map(str, values))}")
            keep = frame[columns[0]].isin(values)
            for column in columns[1:]:
                keep |= frame[column].isin(values)
            left = left[keep.loc[left.index]]
    if len(frame) and not len(left):
        there = "; ".join(
            f"{option}: {', '.join(map(str, dict.fromkeys(frame[columns[-1]])))}"
            for option, columns in _FILTERS.items()
        )
        raise DataError(f"{folder}: no row has {' and '.join(said)}; there are {there}")
    return left


def ordered(frame: pd.DataFrame, sort: str | None) -> pd.DataFrame:
    """Return the rows sorted inside their tables, best first, rows without that figure last."""
    if sort is None:
        return frame
    if sort == "time":
        key = frame["adapt_ms_p50"] + frame["predict_ms"]
    else:
        key = -frame[sort] if sort in ("ndcg5", "auc") else frame[sort]
    from fewrec.report.leaderboard import tasks

    places = [place for _, rows in tasks(frame) for place in key[rows.index].sort_values(kind="stable").index]
    return frame.loc[places]
