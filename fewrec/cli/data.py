"""``fewrec data``: what data sets and weights there are, their cards, and fetching them."""

from __future__ import annotations

from typing import Any

import click

from fewrec.cli.group import Commands
from fewrec.cli.options import file_options
from fewrec.terminal import echo

N_QUERY = 10  # of the standard suites
SHOTS = (1, 3, 5, 10, 20)


@click.group(cls=Commands)
def command() -> None:
    """List, describe, fetch and add data sets."""


@command.command("list")
def data_list() -> None:
    """List the data sets and the model weights that have a card, and whether they are in the cache."""
    from fewrec.data.cards import list_weights
    from fewrec.data.fetch import is_cached

    print_data_sets()
    for weights in list_weights():
        cached = "cached" if is_cached(weights) else ""
        echo(f"{weights.name:<22} {'weights':>18}  {cached:<7} {weights.title}")


def print_data_sets() -> None:
    """Print one line for each data set with a card, the user's own last, and one for each card that can't be read."""
    from fewrec.data.cards import broken_cards, list_cards
    from fewrec.data.fetch import is_cached

    for card in list_cards():
        count = card.expected.ratings
        size = "" if count is None else f"{count:,} ratings"
        state = "yours" if card.own else "cached" if is_cached(card) else ""
        echo(f"{card.name:<22} {size:>18}  {state:<7} {card.title}")
    for problem in broken_cards():
        echo(f"can't be used: {problem}")


@command.command("add")
@click.argument("file", type=click.Path())
@click.option("--name", help="What the data set is to be called (default: the file's name without its ending).")
@click.option("--replace", is_flag=True, help="Write over the card of that name.")
@file_options
def data_add(file: str, name: str | None, replace: bool, **options: Any) -> None:
    """Check FILE, ratings of your own, show what was understood, and write a card that finds it by name.

    The card names the file where it lies; nothing is copied, and a file that changes is refused later. Cards go into
    the folder FEWREC_CARDS, or else into fewrec's settings.
    """
    from fewrec.data.own_cards import add_card, can_give, sparsity

    given = {key: value for key, value in options.items() if value is not None}
    added = add_card(file, name=name, replace_card=replace, **given)
    data, table = added.dataset, added.dataset.table
    for note in data.notes:
        echo(f"{file}: {note}")
    step = "continuous" if data.scale.step is None else f"in steps of {data.scale.step:g}"
    users = ", ".join(f"K = {k}: {n:,}" for k, n in can_give(data, N_QUERY, SHOTS).items())
    entries = {
        "name": data.name,
        "size": f"{len(table):,} ratings by {table.n_users:,} users of {table.n_items:,} items",
        "kind": data.kind,
        "scale": f"{data.scale.low:g} to {data.scale.high:g}, {step}",
        "sparsity": f"{100 * sparsity(data):.2f} % of the pairs of user and item have no rating",
        f"K + {N_QUERY}": f"users with that many ratings: {users}",
        "card": str(added.path),
    }
    for key, value in entries.items():
        echo(f"{key:<12} {value}")


@command.command("info")
@click.argument("name")
def data_info(name: str) -> None:
    """Show the card of NAME: sources, checksums, licence, citation."""
    from fewrec.data.cards import describe, list_weights, load_card

    weights = {card.name: card for card in list_weights()}
    for key, value in describe(weights[name] if name in weights else load_card(name)).items():
        lines = value if isinstance(value, list) else [value]
        for number, line in enumerate(lines):
            echo(f"{key if number == 0 else '':<12} {line}")


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
        echo(f"{name}: {weights.source}, sha256 of the weights {weights.sha256}")
        return
    dataset = load_dataset(name, offline=offline)
    table = dataset.table
    echo(f"{name}: {len(table):,} ratings by {table.n_users:,} users of {table.n_items:,} items, sha256 {table.sha256}")
    for source, sha256 in dataset.sources.items():
        echo(f"  {source} {sha256}")
