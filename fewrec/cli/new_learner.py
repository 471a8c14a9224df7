"""``fewrec new-learner``: a template of a learner, commented and ready to run."""

from __future__ import annotations

import re
from pathlib import Path

import click

from fewrec.terminal import echo


@click.command()
@click.argument("path", metavar="FILE.py")
@click.option("--name", help="The learner's name (default: that of the file, my_method.py -> my-method).")
@click.option(
    "--kind",
    type=click.Choice(["simple", "meta-fit", "batched"]),
    default="simple",
    show_default=True,
    help="simple: adapt alone; meta-fit: learns from meta-train, has options; batched: many episodes at once.",
)
def command(path: str, name: str | None, kind: str) -> None:
    """Write FILE.py, a short learner to start from. An existing file is never overwritten."""
    from fewrec.errors import SuiteError
    from fewrec.learners.templates import class_name, filled_template, name_from
    from fewrec.report.files import write_whole

    file = Path(path)
    if file.suffix != ".py":
        raise SuiteError(f"{path}: a learner is a Python file; call it {file.with_suffix('.py').name}")
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", file.name):
        raise SuiteError(f"{path}: use letters, digits, '_' and '-' in the file's name")
    if file.exists():
        raise SuiteError(f"{path} exists already; give another file name")
    if not file.parent.is_dir():
        raise SuiteError(f"{path}: there is no folder {file.parent}")
    name = name or name_from(file)
    write_whole(file, filled_template(kind, name, file.name).encode())
    echo(f"wrote {path}: learner '{name}', class {class_name(name)}")
    echo(f"next: fewrec check {path}")
    echo(f"      fewrec run smoke --plugin {path} --learner {name},bias")
