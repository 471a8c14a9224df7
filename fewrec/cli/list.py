"""``fewrec list``: what there is to run."""

from __future__ import annotations

from pathlib import Path

import click

from fewrec.cli.group import Commands


@click.group(cls=Commands)
def command() -> None:
    """List learners or suites."""


@command.command("learners")
@click.option("--plugin", "plugins", multiple=True, type=click.Path(), help="A Python file with learners.")
def list_learners(plugins: tuple[str, ...]) -> None:
    """List every learner that is known, with what a broken plugin fails of."""
    from fewrec.learners.registry import add_plugin_file, known_learners

    for plugin in plugins:
        add_plugin_file(Path(plugin))
    for info in known_learners().values():
        origin = "" if info.origin == "built-in" else f"  [{info.origin}]"
        click.echo(
            f"{info.name:<18} {info.summary}{origin}" + (f"  can't be used: {info.problem}" if info.problem else "")
        )


@command.command("suites")
def list_suites() -> None:
    """List the suites that come with fewrec."""
    from fewrec.runner import suite

    for name, title in suite.list_suites().items():
        click.echo(f"{name:<12} {title}")
