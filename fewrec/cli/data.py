"""``fewrec data``: what data sets and weights there are, their cards, and fetching them."""

from __future__ import annotations

import click

from fewrec.cli.group import Commands


@click.group(cls=Commands)
def command() -> None:
    """List, describe and fetch data sets."""


@command.command("list")
def data_list() -> None:
    """List the data sets and the model weights that have a card, and whether they are in the cache."""
    from fewrec.data.cards import list_cards, list_weights
    from fewrec.data.fetch import is_cached

    for card in list_cards():
        cached = "cached" if is_cached(card) else ""
        click.echo(f"{card.name:<21} {card.expected.ratings:>9,} ratings  {cached:<7} {card.title}")
    for weights in list_weights():
        cached = "cached" if is_cached(weights) else ""
        click.echo(f"{weights.name:<21} {'weights':>17}  {cached:<7} {weights.title}")


@command.command("info")
@click.argument("name")
def data_info(name: str) -> None:
    """Show the card of NAME: sources, checksums, licence, citation."""
    from fewrec.data.cards import describe, list_weights, load_card

    weights = {card.name: card for card in list_weights()}
    for key, value in describe(weights[name] if name in weights else load_card(name)).items():
        lines = value if isinstance(value, list) else [value]
        for number, line in enumerate(lines):
            click.echo(f"{key if number == 0 else '':<12} {line}")


@command.command("fetch")
@click.argument("name")
@click.option("--offline", is_flag=True, help="Only verify what is in the cache.")
def data_fetch(name: str, offline: bool) -> None:
    """Download and verify the files of NAME, a data set or model weights, or use the cache."""
    from fewrec.data.cards import list_weights
    from fewrec.data.load import load_dataset
    from fewrec.data.weights import find_weights

    if name in [card.name for card in list_weights()]:
        weights = find_weights(name, offline=offline)
        click.echo(f"{name}: {weights.source}, sha256 of the weights {weights.sha256}")
        return
    dataset = load_dataset(name, offline=offline)
    table = dataset.table
    click.echo(
        f"{name}: {len(table):,} ratings by {table.n_users:,} users of {table.n_items:,} items, sha256 {table.sha256}"
    )
    for source, sha256 in dataset.sources.items():
        click.echo(f"  {source} {sha256}")
