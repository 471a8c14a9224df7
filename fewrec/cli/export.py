"""``fewrec export``: from a run's folder to one that is committed."""

from __future__ import annotations

from pathlib import Path

import click

from fewrec.terminal import echo


@click.command()
@click.argument("folder", type=click.Path())
@click.argument("target", type=click.Path())
def command(folder: str, target: str) -> None:
    """Copy a run's tables, manifest and scores (no predictions, no ratings) from FOLDER to TARGET, to be committed."""
    from fewrec.report.export import export_reference

    export_reference(Path(folder), Path(target))
    echo(f"wrote {target}")
