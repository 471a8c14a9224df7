"""Checks that a learner runs at all, gives numbers, and gives the same numbers again; the others build on these."""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import Tensor

from fewrec.conformance.bench import K_MAX, Bench, cloned
from fewrec.conformance.check import Broken, check
from fewrec.conformance.compare import equal, example, must_agree, of_support
from fewrec.episodes.support import Support
from fewrec.learners.base import BatchPredictor, Predictor

_GENERATOR = "ctx.generator(support.seed) in adapt, ctx.generator(source.seed) in meta_fit"


@check("fits", after=("config", "declarations"), hint=(
    "The constructor, prepare or meta_fit fails on ordinary data. A KeyError in source.depends means that the field is "
    "missing in meta_depends."
))  # fmt: skip
def it_can_be_made_prepared_and_meta_fitted(bench: Bench) -> None:
    """Every process makes a learner as cls(config), then prepare(ctx), then meta_fit(source, ctx) or load_state."""
    _ = bench.fitted


@check("adapts", after=("fits",), hint="adapt or predict fails on an ordinary episode: new users, seen items.")
def it_adapts_to_an_episode_and_predicts(bench: Bench) -> None:
    """adapt(support, ctx) returns a Predictor, adapt_batch(supports, ctx) a BatchPredictor; predict(users, items)
    returns (n,) ratings, for any user of the episode and any item of the catalog."""

    def body(support: Support) -> None:
        predictor = bench.adapt(support)
        if not isinstance(predictor, Predictor):
            raise Broken(f"adapt returned a {type(predictor).__name__}.", "Return an object that inherits Predictor.")
        bench.ask(predictor, support.user, support.item)
        batch = bench.adapt_batch([support, support])
        if not isinstance(batch, BatchPredictor):
            raise Broken(f"adapt_batch returned a {type(batch).__name__}.", "Return one that inherits BatchPredictor.")
        bench.ask_batch(batch, 1, support.user, support.item)

    bench.smallest(body, ordinary=True)


@check("finite", after=("adapts",), hint=(
    "predict fails where it is asked for the whole catalog. Items without ratings in meta-train, and those that no "
    "user of the episode rated, are asked for too: tables need a row for all len(ctx.catalog) items."
))  # fmt: skip
def predictions_are_finite_for_every_item_of_the_catalog(bench: Bench) -> None:
    """A prediction is a number for every item of the catalog, seen in meta-train or not. NaN and infinity make a failed
    row, never a score."""

    def body(support: Support) -> None:
        cause = "Something is divided by a count that is zero there, or overflows."
        must_be_finite(bench, support, cause, torch.zeros(len(bench.split.catalog), dtype=torch.bool))

    bench.smallest(body, ordinary=True)


def must_be_finite(bench: Bench, support: Support, cause: str, apart_from: Tensor | None = None) -> None:
    """Raise ``Broken`` where a prediction is NaN or infinite, for any user and any item (default: without ``gaps``)."""
    excused = bench.gaps if apart_from is None else apart_from
    found, (users, items) = bench.predictions(support), bench.everything(support)
    wrong = (~torch.isfinite(found) & ~excused[items]).nonzero().squeeze(1)
    if not len(wrong):
        return
    assert bench.split.catalog.seen is not None
    unseen = int((~torch.from_numpy(bench.split.catalog.seen)[items[wrong]]).sum())
    which = f"{unseen} of them for items without a rating in meta-train"
    if unseen == len(wrong):
        cause = "Items without a rating in meta-train have no mean, no count and no trained row: give them a default."
    raise Broken(
        f"{len(wrong)} of {len(found)} predictions are NaN or infinite, {which}.",
        cause,
        example(support, (users, items), {"predicted": found}, wrong[:3]),
    )


@check("shots", after=("adapts",), hint="adapt or predict can't handle that number of ratings a user.")
def every_number_of_shots_works(bench: Bench) -> None:
    """One learner serves every K, from one rating a user on: K = 1 has neither spread nor a second rating to compare
    with."""
    for k_shot in (1, 2, K_MAX):
        cause = (
            f"A formula breaks down at K = {k_shot}: a variance of one value (use correction=0), a division by K - 1, "
            "an empty neighbourhood."
        )
        must_be_finite(bench, bench.support(1, k_shot), cause)


@check("inputs", after=("shots",))
def what_it_is_given_stays_as_it_was(bench: Bench) -> None:
    """Support, query, meta-train table and catalog belong to the runner, which uses them again: a learner reads them
    only."""
    cause = "An in-place operation (+=, -=, sub_, index_add_, fill_) works on the caller's tensor; clone it first."

    def body(support: Support) -> None:
        given, (users, items) = cloned(support), bench.everything(support)
        asked = users.clone(), items.clone()
        bench.support_at_hand = support
        predictor = bench.call("adapt", lambda: bench.fitted.adapt(given, bench.ctx))
        bench.call("predict", lambda: predictor.predict(*asked))
        names = [f.name for f in fields(support)]
        changed = [f"support.{name}" for name in names if _differ(getattr(given, name), getattr(support, name))]
        changed += ["users"] * _differ(asked[0], users) + ["items"] * _differ(asked[1], items)
        if changed:
            raise Broken(f"After adapt and predict, {', '.join(changed)} had other values.", cause, of_support(support))

    bench.smallest(body)
    untouched = bench.split_of(bench._dataset())
    ours, theirs = untouched.meta_train, bench.split.meta_train
    changed = [name for name in ("user", "item", "rating") if (getattr(ours, name) != getattr(theirs, name)).any()]
    if changed:
        raise Broken(f"After meta_fit, source.table.{' and '.join(changed)} had other values.", cause)
    before, after = untouched.catalog, bench.split.catalog
    if before.text is not None and after.text is not None and not before.text.equals(after.text):
        raise Broken("After prepare and meta_fit, the texts of ctx.catalog were others.", cause)


def _differ(a: object, b: object) -> bool:
    return isinstance(a, Tensor) and isinstance(b, Tensor) and not torch.equal(a, b)


@check("global-state", after=("shots",))
def global_settings_stay_as_they_were(bench: Bench) -> None:
    """torch's default dtype and device, gradient mode, threads and determinism belong to the process: learners that
    run after this one must find what they would find without it."""
    bench.predictions(bench.ordinary)
    for phase, changed in bench.disturbed.items():
        if changed:
            raise Broken(
                f"{phase} left behind {'; '.join(sorted(changed))}.",
                "Use the context managers (with torch.no_grad(): ..., torch.enable_grad) and arguments (dtype=, "
                "device=) instead of the global setters.",
            )


@check("repeatable-predict", after=("shots",))
def asking_again_gives_the_same_predictions(bench: Bench) -> None:
    """predict is a pure function of (predictor, users, items): asking changes nothing, and asking twice gives the same
    bytes."""

    def body(support: Support) -> None:
        predictor, pairs = bench.adapt(support), bench.everything(support)
        first, second = bench.ask(predictor, *pairs), bench.ask(predictor, *pairs)
        must_agree(
            support, pairs, first, second, names=("first", "second"), tolerance=0,
            seen="One predictor, asked twice for the same pairs, answers differently",
            cause="predict changes the predictor (a counter, a running mean, what was asked so far), or draws random "
            "numbers: draw them in adapt, from ctx.generator(support.seed). Dropout must be off: module.eval().",
        )  # fmt: skip

    bench.smallest(body)


@check("repeatable-adapt", after=("repeatable-predict",))
def the_same_episode_gives_the_same_bytes_twice(bench: Bench) -> None:
    """adapt is a function of (learner, support, support.seed) alone: the same bytes whenever it is called."""

    def body(support: Support) -> None:
        first, second = (bench.predictions(support, bench.copy()) for _ in range(2))
        must_agree(
            support, bench.everything(support), first, second, names=("first", "second"), tolerance=0,
            seen="Two copies of the learner, adapted to the same support, predict differently",
            cause="adapt takes randomness from elsewhere (an unseeded generator, the clock, id(), the order of a set), "
            f"or keeps state outside of the learner (a class attribute, a module's global). Use {_GENERATOR}.",
        )  # fmt: skip

    bench.smallest(body)


@check("global-randomness", after=("repeatable-adapt",))
def nothing_depends_on_the_global_random_state(bench: Bench) -> None:
    """A learner has no source of randomness but its context's generators: torch.manual_seed, numpy.random.seed and
    random.seed, and whatever ran before, change no prediction."""
    cause = (
        "It draws from a global generator: torch.rand, torch.randn or torch.randperm without generator=, the initial "
        f"weights of nn.Linear or nn.Embedding, numpy.random or random. Pass generator={_GENERATOR}; make modules "
        "inside torch.random.fork_rng() after torch.manual_seed(source.seed)."
    )
    names = ("seed 0", "seed 1")

    def body(support: Support) -> None:
        one, other = (bench.predictions(support, bench.copy(), seed=seed) for seed in (0, 1))
        must_agree(support, bench.everything(support), one, other, names=names, tolerance=0, cause=cause,
                   seen="With another seed of the global generators, adapt and predict give other numbers")  # fmt: skip

    bench.smallest(body)
    support = bench.ordinary
    one, other = bench.predictions(support), bench.predictions(support, bench.refitted)
    if not equal(one, other) and equal(bench.predictions(support, bench.fit()), one):
        must_agree(support, bench.everything(support), one, other, names=names, tolerance=0, cause=cause,
                   seen="With another seed of the global generators, meta_fit learns something else")  # fmt: skip
    for phase in ("adapt", "adapt_batch", "predict"):
        if bench.drawn[phase]:
            raise Broken(f"{phase} draws from the global generator of {', '.join(sorted(bench.drawn[phase]))}, here "
                         "without any effect.", cause)  # fmt: skip
