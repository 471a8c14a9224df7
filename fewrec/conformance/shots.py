"""Checks on unusual supports and data sets: ragged, equal or no ratings, known users, bare data, another scale."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fewrec.conformance.bench import K_MAX, Bench, rated, rows
from fewrec.conformance.check import Broken, Skipped, check
from fewrec.conformance.compare import of_support, table
from fewrec.conformance.fitting import must_be_finite
from fewrec.data.table import Scale
from fewrec.episodes.support import Support

_WIDE = Scale(0, 100, 25)


@check(
    "no-support", after=("shots",), hint='If it can say nothing without ratings, declare needs = frozenset({"k>0"}).'
)
def without_support_it_predicts_or_declares_that_it_cannot(bench: Bench) -> None:
    """K = 0 is a valid task: a learner predicts what it knows of anyone, or declares "k>0" in `needs` and gets a "not
    applicable" row."""
    if "k>0" in bench.learner.needs:
        raise Skipped("it declares k>0")
    cause = (
        "The mean of no ratings is 0/0. Shrink it, fall back on meta-train's mean, or declare "
        'needs = frozenset({"k>0"}).'
    )
    must_be_finite(bench, bench.support(1, 0), cause)


@check("ragged", after=("shots",), hint="adapt takes it that all users have as many ratings; they need not.")
def users_with_different_numbers_of_ratings_work(bench: Bench) -> None:
    """Users of an episode may have different numbers of ratings (K = "rest", updates): support.user says whose a row
    is."""
    cause = "Rows are reshaped to (n_users, K), or padded places are counted; use support.user, bincount and index_add."
    for n_users, k_shot in ((2, 2), (3, K_MAX)):
        support = bench.support(n_users, k_shot)
        kept = (support.user != 0) | (torch.arange(len(support.user)) == 0)  # one rating of user 0, K of the others
        must_be_finite(bench, rows(support, kept), cause)


@check("equal-ratings", after=("shots",))
def a_user_who_gives_every_item_the_same_rating_gets_predictions(bench: Bench) -> None:
    """Some users rate everything alike: a support without spread still has a mean."""

    def body(support: Support) -> None:
        must_be_finite(bench, rated(support, 3.0), "Ratings are divided by their spread, which is zero here: add a "
                       "constant, or skip the division.")  # fmt: skip

    bench.smallest(body)


@check("known-users", after=("shots",), hint="support.meta_user is a user's index in source.table, -1 for a new user.")
def users_of_meta_train_get_predictions_beside_new_ones(bench: Bench) -> None:
    """In the states `warm` and `item-cold` users are known: support.meta_user has their index in meta-train, and -1
    marks a new user. A learner may use it or not."""
    for n_users in (1, 3):
        support = bench.support(n_users, 4)
        known = torch.tensor([bench.split.meta_train.n_users - 1, -1, 0])[:n_users]
        must_be_finite(bench, replace(support, meta_user=known), "Index -1 reads the last row: take new users apart.")


@check("higher-ratings", after=("repeatable-adapt",))
def higher_ratings_do_not_lower_the_mean_prediction(bench: Bench) -> None:
    """A user who rates everything higher is not predicted lower on average. Ignoring the support is allowed."""
    low, high = bench.ctx.scale.low, bench.ctx.scale.high

    def body(support: Support) -> None:
        means = [float(bench.predictions(rated(support, rating)).mean()) for rating in (low, high)]
        if means[1] - means[0] < -1e-9:
            listed = [[f"{rating:g}", f"{mean:.6g}"] for rating, mean in zip((low, high), means, strict=True)]
            shown = table(["all rated", "mean predicted"], listed)
            raise Broken(
                f"Rating everything {high:g} instead of {low:g} lowers the mean prediction from {means[0]:.4g} to "
                f"{means[1]:.4g}.",
                "A sign is wrong, such as mean - rating for a residual, or predictions are errors or ranks instead of "
                "ratings.",
                f"{of_support(support)}\n{shown}",
            )

    bench.smallest(body, ((3, 4),))


def _elsewhere(bench: Bench, *, bare: bool) -> tuple[Support, Any, Tensor]:
    """Return support, split and predictions on the wide scale."""
    split, ctx = bench.elsewhere(bare=bare, scale=_WIDE)
    learner, support = bench.fit(split=split, ctx=ctx), bench.support(3, 4, split=split)
    return support, split, bench.predictions(support, learner, ctx)


@check("needs", after=("shots",))
def it_runs_on_data_that_offer_only_what_it_declares(bench: Bench) -> None:
    """`needs` names what the data must offer: item_text, item_features, user_features, timestamps, item_ratings. Where
    it is missing the table says "not applicable"; what is not declared may be missing."""
    try:
        bench.bare = _elsewhere(bench, bare=True)
    except Exception as error:
        bench.bare = None
        try:
            _elsewhere(bench, bare=False)
        except Exception:
            raise Skipped("it fails on another scale with all data as well: see 'other-scale'") from None
        lacking = [name for name, what in {
            "item_text": "ctx.catalog.text", "user_features": "support.user_features",
            "timestamps": "support.timestamp"}.items() if name not in bench.learner.needs]  # fmt: skip
        bench.support_at_hand = None
        raise Broken(
            f"Without {', '.join(lacking)}: {type(error).__name__}: {' '.join(str(error).split())}.",
            "It uses what it doesn't declare. Add the name to needs, or do without where the value is None "
            "(ctx.catalog.text, support.user_features, support.timestamp).",
        ) from error


@check("other-scale", after=("needs",))
def on_another_rating_scale_its_predictions_are_on_that_scale(bench: Bench) -> None:
    """Ratings and predictions are on the data set's scale, ctx.scale, which is not always 1 to 5."""
    support, split, found = bench.bare or _elsewhere(bench, bare=False)
    mean, span = float(split.meta_train.rating.mean()), _WIDE.high - _WIDE.low
    if not abs(float(found.nanmean()) - mean) <= span / 4:
        raise Broken(
            f"With ratings from {_WIDE.low:g} to {_WIDE.high:g} whose mean is {mean:.1f}, the mean prediction is "
            f"{float(found.nanmean()):.4g}.",
            "A constant of the scale from 1 to 5 is in the code (3.0, clamp(1, 5), a prior in stars). Take it from "
            "ctx.scale or source.scale, or map ratings with fewrec.learners.units.RatingUnits.",
            of_support(support),
        )
