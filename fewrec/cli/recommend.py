"""``fewrec recommend``: from a few ratings to the best unseen items of a data set."""

from __future__ import annotations

from typing import Any

import click

from fewrec.cli.one_user import answer, user_options
from fewrec.cli.options import WholeNumber, own_data_options


@click.command()
@user_options
@click.option(
    "--explain",
    type=WholeNumber(0),
    default=2,
    show_default=True,
    help="How many ratings to name for each item.",
)
@own_data_options
def command(**options: Any) -> None:
    """Recommend items to a user of whom a few ratings are known.

    The learner is trained on the data set once and kept in the cache; a user's ratings never need training.
    """
    from fewrec.recommender.api import recommend

    answer(recommend, **options)
