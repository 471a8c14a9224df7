"""``fewrec ask``: which rating of a user to ask for next."""

from __future__ import annotations

from typing import Any

import click

from fewrec.cli.one_user import answer, user_options
from fewrec.cli.options import own_data_options


@click.command()
@user_options
@click.option(
    "--popular/--any",
    default=True,
    show_default=True,
    help="Weight what a rating tells by the share of users who know the item, or ask for any item.",
)
@own_data_options
def command(**options: Any) -> None:
    """Say which items to ask a user to rate: those whose rating would tell most about all other predictions.

    The learner is trained on the data set once and kept in the cache; without --ratings nothing is known of the user.
    """
    from fewrec.recommender.api import ask

    answer(ask, **options)
