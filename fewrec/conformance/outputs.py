"""Checks of what a predictor may offer beside predictions: a distribution, shares of the ratings, information."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from fewrec.conformance.bench import Bench
from fewrec.conformance.check import Broken, Skipped, check
from fewrec.conformance.compare import example, must_agree, of_support
from fewrec.episodes.support import Support


@check("distribution", after=("finite", "learner-kept"))
def its_distribution_has_a_spread_and_the_predicted_mean(bench: Bench) -> None:
    """distribution(users, items) returns (mean, standard deviation), each (n,), finite, the deviation above 0, the mean
    being what predict returns; or None where a learner has none. A batch's predictor, which tables ask, says the same
    to rounding."""

    def body(support: Support) -> None:
        predictor, pairs = bench.adapt(support), bench.everything(support)
        found = bench.call("distribution", lambda: predictor.distribution(*pairs))
        if found is None:
            raise Skipped("it offers no distribution")
        if not (isinstance(found, tuple) and len(found) == 2 and all(isinstance(x, Tensor) for x in found)):
            raise Broken(f"distribution returned a {type(found).__name__}.", "Return (mean, deviation) or None.")
        mean, deviation = (x.detach().cpu().double() for x in found)
        n = len(pairs[0])
        if mean.shape != (n,) or deviation.shape != (n,):
            shapes = f"{tuple(mean.shape)} and {tuple(deviation.shape)}"
            raise Broken(f"distribution returned shapes {shapes} for {n} pairs.", "Return two tensors of shape (n,).")
        wrong = (~(torch.isfinite(mean) & torch.isfinite(deviation) & (deviation > 0))).nonzero().squeeze(1)
        if len(wrong):
            raise Broken(
                f"{len(wrong)} of {n} pairs have no finite mean, or a standard deviation that is not above 0.",
                "A variance came out as 0 or below: keep the noise of a rating in it, and clamp rounding errors.",
                example(support, pairs, {"mean": mean, "deviation": deviation}, wrong[:3]),
            )
        must_agree(
            support, pairs, mean, bench.ask(predictor, *pairs), names=("distribution", "predict"),
            tolerance=bench.rounding, seen="The mean of the distribution is not the prediction",
            cause="Let predict return distribution(users, items)[0].",
        )  # fmt: skip
        batch, first = bench.adapt_batch([support, bench.another(support)]), torch.zeros_like(pairs[0])
        of_batch = bench.call("distribution", lambda: batch.distribution(first, *pairs))
        if not (isinstance(of_batch, tuple) and len(of_batch) == 2 and all(isinstance(x, Tensor) for x in of_batch)):
            raise Broken(
                f"The predictor of adapt_batch has no distribution: it returned a {type(of_batch).__name__}.",
                "Write distribution(episode, user, item) for the predictor of adapt_batch too.",
            )
        for name, alone, together in zip(("mean", "deviation"), (mean, deviation), of_batch, strict=True):
            if together.shape != alone.shape:
                raise Broken(
                    f"In a batch, distribution returned a {name} of shape {tuple(together.shape)} for {n} triples.",
                    "Return two tensors of shape (n,).",
                )
            must_agree(
                support, pairs, together.detach().cpu().double(), alone, names=("in the batch", "alone"),
                tolerance=bench.rounding, seen=f"In a batch, the distribution has another {name} than alone",
                cause="The two predictors of the learner compute it in two ways, or episodes meet in the batch.",
            )  # fmt: skip

    bench.smallest(body)


@check("explain", after=("shots",))
def its_explanation_has_a_share_for_each_support_rating(bench: Bench) -> None:
    """explain(user, item) returns the share of each support rating in a prediction, (n_support,), finite; or None."""

    def body(support: Support) -> None:
        predictor = bench.adapt(support)
        for item in (0, int(support.item[0])):
            found = bench.call("explain", partial(predictor.explain, support.n_users - 1, item))
            if found is None:
                raise Skipped("it offers no explanation")
            n = len(support.item)
            if not isinstance(found, Tensor) or found.shape != (n,) or not torch.isfinite(found).all():
                shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
                raise Broken(
                    f"explain({support.n_users - 1}, {item}) returned {shape}, or numbers that are not finite.",
                    f"Return one finite number for each of the {n} rows of the support, 0 for those of other users.",
                    of_support(support),
                )

    bench.smallest(body)


@check("information", after=("finite", "learner-kept"))
def what_a_rating_would_tell_is_known_of_each_candidate_apart(bench: Bench) -> None:
    """information(users, items, targets, weights) returns how much each rating would lower the mean variance of the
    targets, (n,), finite, not below 0, whichever the other pairs are; or None. Who has it declares informs = True."""
    targets = torch.arange(len(bench.split.catalog))
    weights = 1.0 + (targets % 5).double()

    def body(support: Support) -> None:
        predictor, pairs = bench.adapt(support), bench.everything(support)

        def ask(rows: Tensor) -> Tensor | None:
            asked = pairs[0][rows], pairs[1][rows], targets.clone(), weights.clone()
            return bench.call("information", lambda: predictor.information(*asked))

        n = len(pairs[0])
        found = ask(torch.arange(n))
        if found is None and not bench.learner.informs:
            raise Skipped("it doesn't say what a rating would tell")
        if found is None or not bench.learner.informs:
            seen = "returned None" if found is None else "returned something"
            raise Broken(
                f"informs is {bench.learner.informs}, but information {seen}.",
                "informs = True is for a learner whose predictors implement information, and for no other.",
            )
        if not isinstance(found, Tensor) or found.shape != (n,):
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise Broken(f"information returned {shape} for {n} pairs.", "Return a tensor of shape (n,).")
        found = found.detach().cpu().double()
        wrong = (~(torch.isfinite(found) & (found >= 0))).nonzero().squeeze(1)
        if len(wrong):
            raise Broken(
                f"{len(wrong)} of {n} pairs have information that is below 0 or not finite.",
                "Knowing more can't raise the expected variance: it is a sign turned round, or a rounding error.",
                example(support, pairs, {"information": found}, wrong[:3]),
            )
        some = torch.arange(n).flip(0)[::3]
        again = ask(some)
        assert again is not None
        must_agree(
            support, (pairs[0][some], pairs[1][some]), again.detach().cpu().double(), found[some],
            names=("among some", "among all"), tolerance=bench.rounding,
            seen="What a rating would tell depends on the other pairs that were asked for, or on their order",
            cause="Judge each pair as if it were the only one, and leave the order of the pairs as it is.",
        )  # fmt: skip

    bench.smallest(body)
