"""``fewrec ask``: which rating of a user to ask for next."""

from __future__ import annotations

from typing import Any

import click

from fewrec.cli.one_user import answer, user_options
from fewrec.cli.options import own_data_options


@click.command()
@user_options
@click.option("--any", "any_item", is_flag=True, help="Ask for any item, however few know it: by information alone.")
@own_data_options
def command(any_item: bool, **options: Any) -> None:
    """Say which items to ask a user to rate: those whose rating would tell most about all other predictions.

    The learner is trained on the data set once and kept in the cache; without --ratings nothing is known of the user.
    """
    from fewrec.recommender.api import ask

    answer(ask, popular=not any_item, **options)
