"""The command line: parses, calls, prints. Everything it does is a function elsewhere."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from fewrec import __version__
from fewrec.errors import FewrecError, nearest
from fewrec.options import OWN_DATA, names, open_own, own_data_options, seeds, settings, shots


class _Commands(click.Group):
    """A group that turns what the user can mend into one line and exit code 2, and names the nearest command."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise click.UsageError(f"no such command '{args[0]}'{nearest(args[0], self.list_commands(ctx))}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except FewrecError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(2)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fewrec")
def main() -> None:
    """Benchmark few-shot recommenders: sample episodes, adapt learners, write leaderboards that can be believed."""


@main.command()
@click.argument("suite", default="quick")
@click.option(
    "--learner", "learners", multiple=True, callback=names, help="Only these rows, or other registered learners."
)
@click.option("--dataset", "datasets", multiple=True, callback=names, help="Instead of the suite's data sets.")
@click.option("--state", "states", multiple=True, callback=names, help="Instead of the suite's states.")
@click.option("--shots", multiple=True, callback=shots, help="Instead of the suite's K; a number or 'rest'.")
@click.option("--seed", "seeds", multiple=True, callback=seeds, help="Instead of the suite's seeds.")
@click.option("--episodes", type=click.IntRange(min=1), help="Instead of the suite's number of episodes a cell.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    callback=settings,
    metavar="LEARNER.OPTION=VALUE",
    help="Change an option; the row's label says so.",
)
@click.option(
    "--plugin", "plugins", multiple=True, type=click.Path(), help="A Python file with learners. It is run: trust it."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps.")
@click.option("--threads", type=int, help="Processor threads (default: all that this process may use).")
@click.option("--time-limit", type=float, metavar="SECONDS", help="A cell that runs longer gets a timeout row.")
@click.option("--out", type=click.Path(), help="Results folder (default: results/SUITE).")
@click.option("--dry-run", is_flag=True, help="Print the cells and an estimate of the time, and stop.")
@click.option("--offline", is_flag=True, help="Open no connection: use what is in the cache.")
@own_data_options
def run(suite: str, dry_run: bool, time_limit: float | None, **options: Any) -> None:
    """Run SUITE (a name or a TOML file) and print its leaderboard. Interrupted runs are resumed."""
    own = {key: options.pop(key) for key in OWN_DATA}
    if own["data"] is not None and options["datasets"]:
        raise click.UsageError("--data and --dataset exclude one another")
    dataset = open_own(**own)
    from fewrec.runner import api  # imports torch: after the cheap checks

    plan = api.plan(suite, data=dataset, **options)
    if dry_run:
        _print_plan(plan)
        return
    from rich.console import Console

    from fewrec.report.render import terminal_table
    from fewrec.runner.progress import reporter_for

    command = f"fewrec run {' '.join(_shown_arguments())}".strip()
    try:
        results = api.execute(plan, reporter=reporter_for(Console(stderr=True)), time_limit=time_limit, command=command)
    except KeyboardInterrupt:
        click.echo(f"interrupted; what is complete is in {plan.out}: run the same command again to go on", err=True)
        sys.exit(130)
    _console().print(terminal_table(results.leaderboard))
    click.echo(f"{plan.out / 'leaderboard.md'} has the whole table")


def _shown_arguments() -> list[str]:
    """Return the arguments as given, for the manifest, without the folder that only this machine has."""
    arguments = sys.argv[1:]
    shown = arguments[1:] if arguments[:1] == ["run"] else arguments
    return [Path(a).name if os.path.isabs(a) else a for a in shown]


def _console() -> Any:
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=200)


def _print_plan(plan: Any) -> None:
    for spec in plan.cells:
        click.echo(
            f"{spec.spec_hash}  {spec.dataset}  {spec.protocol.state}  "
            f"N={spec.n_users} K={spec.k_shot} Q={spec.n_query}  seed {spec.seed}  "
            f"{spec.episodes} episodes  {spec.label}"
        )
    seconds, unknown = sum(plan.estimate.seconds), plan.estimate.unknown
    click.echo(
        f"{len(plan.cells)} cells, about {seconds / 60:.1f} minutes by the timings of earlier runs, into {plan.out}"
    )
    if unknown:
        click.echo(f"not timed yet, so guessed: {', '.join(unknown)}")


@main.command()
@click.argument("folder", type=click.Path())
def report(folder: str) -> None:
    """Rebuild the tables of a results FOLDER (a local run or results/reference/...) from its cells alone."""
    from fewrec.report.render import terminal_table, write_leaderboard
    from fewrec.report.results import load_results

    write_leaderboard(Path(folder))
    _console().print(terminal_table(load_results(Path(folder)).leaderboard))


@main.command()
@click.argument("folder", type=click.Path())
@click.argument("target", type=click.Path())
def export(folder: str, target: str) -> None:
    """Copy a run's tables, manifest and scores (no predictions, no ratings) from FOLDER to TARGET, to be committed."""
    from fewrec.report.export import export_reference

    export_reference(Path(folder), Path(target))
    click.echo(f"wrote {target}")


@main.group(cls=_Commands)
def data() -> None:
    """List, describe and fetch data sets."""


@data.command("list")
def data_list() -> None:
    """List the data sets and the model weights that have a card, and whether they are in the cache."""
    from fewrec.data.cards import list_cards, list_weights
    from fewrec.data.fetch import is_cached

    for card in list_cards():
        cached = "cached" if is_cached(card) else ""
        click.echo(f"{card.name:<18} {card.expected.ratings:>9,} ratings  {cached:<7} {card.title}")
    for weights in list_weights():
        cached = "cached" if is_cached(weights) else ""
        click.echo(f"{weights.name:<18} {'weights':>17}  {cached:<7} {weights.title}")


@data.command("info")
@click.argument("name")
def data_info(name: str) -> None:
    """Show the card of NAME: sources, checksums, licence, citation."""
    from fewrec.data.cards import describe, load_card

    for key, value in describe(load_card(name)).items():
        lines = value if isinstance(value, list) else [value]
        for number, line in enumerate(lines):
            click.echo(f"{key if number == 0 else '':<12} {line}")


@data.command("fetch")
@click.argument("name")
@click.option("--offline", is_flag=True, help="Only verify what is in the cache.")
def data_fetch(name: str, offline: bool) -> None:
    """Download and verify the files of NAME, a data set or model weights, or use the cache."""
    from fewrec.data.cards import list_weights
    from fewrec.data.load import load_dataset
    from fewrec.data.weights import find_weights

    if name in [card.name for card in list_weights()]:
        weights = find_weights(name, offline=offline)
        click.echo(f"{name}: {weights.source}, model.safetensors sha256 {weights.sha256}")
        return
    dataset = load_dataset(name, offline=offline)
    table = dataset.table
    click.echo(
        f"{name}: {len(table):,} ratings by {table.n_users:,} users of {table.n_items:,} items, sha256 {table.sha256}"
    )
    for source, sha256 in dataset.sources.items():
        click.echo(f"  {source} {sha256}")


@main.group("list", cls=_Commands)
def listing() -> None:
    """List learners or suites."""


@listing.command("learners")
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


@listing.command("suites")
def list_suites() -> None:
    """List the suites that come with fewrec."""
    from fewrec.runner import suite

    for name, title in suite.list_suites().items():
        click.echo(f"{name:<12} {title}")
