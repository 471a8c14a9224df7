"""``fewrec finetune``: a pretrained encoder with a regression head, on a file of train and a file of test ratings."""

from __future__ import annotations

import sys
from typing import Any

import click

from fewrec.cli.group import console
from fewrec.cli.options import Number, WholeNumber
from fewrec.terminal import echo, rich_console

_READING = ("template", "user_col", "item_col", "rating_col", "columns", "delimiter", "duplicates")


@click.command()
@click.argument("train", type=click.Path())
@click.argument("test", type=click.Path())
@click.option(
    "--backbone",
    default="all-MiniLM-L6-v2",
    show_default=True,
    help="A BERT-like encoder: a built-in name, owner/name on the hub, or a folder.",
)
@click.option("--epochs", type=WholeNumber(1), default=100, show_default=True)
@click.option("--batch-size", type=WholeNumber(1), default=256, show_default=True, help="Ratings a step.")
@click.option("--learning-rate", type=Number(), default=1e-5, show_default=True, help="Of AdamW, in all epochs.")
@click.option("--weight-decay", type=Number(), default=0.01, show_default=True, help="Of AdamW.")
@click.option("--dropout", type=Number(), default=0.1, show_default=True, help="Everywhere in the model, as in BERT.")
@click.option("--max-length", type=WholeNumber(8), default=64, show_default=True, help="Tokens a text.")
@click.option("--seed", type=WholeNumber(0), default=0, show_default=True, help="The seed of all randomness.")
@click.option("--items", type=click.Path(), help="Item texts: a file of item,title[,year,genres,description].")
@click.option("--template", help="What an item's text is made of, from --items, e.g. '{title}. {genres}.'")
@click.option("--dataset", help="Item texts and scale of a data set that fewrec knows, by item id, say ml-100k.")
@click.option("--scale", type=(Number(), Number()), metavar="LOW HIGH", help="What predictions are clipped to.")
@click.option("--columns", help="What the columns of both files are, in order (no header: item,user,rating).")
@click.option("--user-col", help="The name of the user column, where it can't be guessed.")
@click.option("--item-col", help="Likewise, the item column.")
@click.option("--rating-col", help="Likewise, the column of the score.")
@click.option("--delimiter", help="What separates the columns.")
@click.option("--duplicates", type=click.Choice(["error", "last", "mean"]), help="On pairs that come twice in a file.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps.")
@click.option("--threads", type=WholeNumber(), help="Processor threads (default: all that this process may use).")
@click.option("--offline", is_flag=True, help="Open no connection: use what is in the cache.")
@click.option("--out", type=click.Path(), default="results/finetune", show_default=True,
              help="The run's folder; an interrupted run goes on there.")  # fmt: skip
def command(
    train: str, test: str, items: str | None, dataset: str | None, scale: tuple[float, float] | None, device: str,
    threads: int | None, offline: bool, out: str, **given: Any,
) -> None:  # fmt: skip
    """Fine-tune an encoder on TRAIN and report MSE, MAE and RMSE on TEST, beside means and the bias model.

    TRAIN and TEST are files of item,user,score lines (CSV or TSV, .gz too), with or without a header. The encoder reads
    "user <id>: <item text>", and one output is trained on the standardised score by mean squared error.
    """
    columns = {name: value for name in _READING if (value := given.pop(name)) is not None}

    from fewrec.finetune.api import finetune  # imports torch: after the cheap checks
    from fewrec.finetune.options import FinetuneOptions
    from fewrec.finetune.progress import reporter_for
    from fewrec.finetune.show import as_table
    from fewrec.runner.environment import available_threads

    options = FinetuneOptions.of(**given)
    try:
        found = finetune(
            train, test, out, options=options, items=items, dataset=dataset, scale=scale, columns=columns,
            device=device, threads=available_threads() if threads is None else threads, offline=offline or None,
            reporter=reporter_for(rich_console(stderr=True)),
        )  # fmt: skip
    except KeyboardInterrupt:
        echo(f"interrupted; whole epochs are kept in {out}: run the same command again to go on", err=True)
        sys.exit(130)
    console().print(as_table(found.results, found.timings))
    echo(f"{found.out / 'results.json'} has all figures, {found.out / 'model'} the model")
