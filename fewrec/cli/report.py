"""``fewrec report``: the files of a results folder, made anew from its cells: tables, plots and the HTML page."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from fewrec.cli.group import console
from fewrec.terminal import echo


@click.command()
@click.argument("folder", type=click.Path())
@click.option("--out", type=click.Path(), help="Write everything into this folder instead of FOLDER.")
@click.option("--no-plots", is_flag=True, help="Only the tables: neither plots/ nor report.html.")
@click.option(
    "--interval",
    type=click.Choice(["percentile", "bca"]),
    default="percentile",
    show_default=True,
    help="The kind of bootstrap interval.",
)
def command(folder: str, out: str | None, no_plots: bool, interval: str) -> None:
    """Rebuild the tables, plots and the HTML page of a results FOLDER from its cells alone.

    FOLDER is a local run (results/quick) or a reference (results/reference/quick). Writes leaderboard.md, .csv, .tex
    and .json, report.html, which needs no network, and its plots as SVG and PNG into plots/.
    """
    from fewrec.report.files import check_folder, write_whole
    from fewrec.report.leaderboard import leaderboard
    from fewrec.report.page import write_page
    from fewrec.report.render import leaderboard_files, terminal_table
    from fewrec.report.results import load_results

    if out is not None:
        check_folder(Path(out), "--out")
    results = load_results(folder)
    frame = leaderboard(results, interval)  # type: ignore[arg-type]  # click has checked it
    target = Path(out) if out else results.path
    tables = leaderboard_files(results, frame)
    for name, content in tables.items():
        write_whole(target / name, content)
    console().print(terminal_table(frame))
    echo(f"Tables: {', '.join(tables)} in {target}")
    if not no_plots:
        with click.progressbar(length=1, label="Drawing plots", file=sys.stderr) as bar:

            def drawn(count: int, total: int) -> None:
                bar.length = total
                bar.update(count - bar.pos)

            page, plots = write_page(results, frame, target, drawn)
        echo(f"Plots: {len(plots)} as SVG and PNG in {target / 'plots'}")
        echo(f"Page: {page}")
