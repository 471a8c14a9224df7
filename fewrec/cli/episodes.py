"""``fewrec episodes``: a suite's episodes as files for any framework, written and verified."""

from __future__ import annotations

from typing import Any

import click

from fewrec.cli.group import Commands, console
from fewrec.cli.options import OWN_DATA, grid_options, open_own, own_data_options
from fewrec.terminal import echo


@click.group(cls=Commands)
def command() -> None:
    """Write a suite's episodes for other frameworks, or verify what was written."""


@command.command("export")
@click.argument("suite")
@grid_options
@click.option("--out", required=True, type=click.Path(), help="The folder to write; it must be new.")
@click.option("--offline", is_flag=True, help="Open no connection: use what is in the cache.")
@own_data_options
def episodes_export(suite: str, out: str, **options: Any) -> None:
    """Write the episodes of SUITE (a name or a TOML file) as Parquet and JSON, without running any learner.

    The same options name the same episodes as in `fewrec run`. The files hold ratings: the licence of the data set
    decides whom they may be given to.
    """
    own = {key: options.pop(key) for key in OWN_DATA}
    if own["data"] is not None and options["datasets"]:
        raise click.UsageError("--data and --dataset exclude one another; give one of them")
    dataset = open_own(**own)
    from fewrec.runner.frozen import export_suite  # imports torch: after the cheap checks

    record = export_suite(suite, out, data=dataset, told=lambda name: echo(name, err=True), **options)
    number = "1 task" if len(record.tasks) == 1 else f"{len(record.tasks)} tasks"
    echo(f"wrote {number} of {record.suite} to {out}; score predictions with: fewrec score FILE --episodes {out}")


@command.command("import")
@click.argument("folder", type=click.Path())
def episodes_import(folder: str) -> None:
    """Verify an export (FOLDER, or one task's folder in it) and show what is in it: checksums, columns, ranges."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from fewrec.episodes.frozen import load
    from fewrec.report.numbers import one_line

    frozen = load(folder)
    files = frozen.verify()
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for head in ("task", "data set", "scale", "episodes", "meta-train", "support", "query", "answers"):
        table.add_column(head, justify="left" if head in ("task", "data set") else "right", overflow="fold")
    for task in frozen:
        record, about = task.record, task.record.dataset
        rows = {name: f"{file.rows:,}" for name, file in (record.files | record.split_files).items()}
        cells = [
            task.name, about.name, f"{about.scale[0]:g} to {about.scale[1]:g}", f"{record.episodes:,}",
            rows["meta_train.parquet"], rows["support.parquet"], rows["query.parquet"],
            rows["answers.parquet"] if task.has_answers else "not there",
        ]  # fmt: skip
        table.add_row(*(Text(one_line(cell)) for cell in cells))
    console().print(table)
    echo(f"verified: {files} files of {len(frozen)} task{'s' * (len(frozen) > 1)}")
