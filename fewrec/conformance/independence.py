"""Checks that a prediction depends on the learner, the support and its seed, and on nothing beside them."""

from __future__ import annotations

import torch

from fewrec.conformance.bench import SIZES, Bench, alone, cloned, rated
from fewrec.conformance.check import Broken, Skipped, check
from fewrec.conformance.compare import equal, must_agree, of_support
from fewrec.conformance.surroundings import double_by_default
from fewrec.episodes.support import Support, SupportBatch


@check("learner-kept", after=("global-randomness",))
def adapting_does_not_change_the_learner(bench: Bench) -> None:
    """adapt must not change the learner: after adapting to other episodes, its state has the same bytes, and the same
    episode gets the same predictions. Otherwise the order of episodes would decide the scores."""
    cause = (
        "adapt writes to self: it trains the learner's own tensors in place, or counts, appends or caches there. Work "
        "on copies (tensor.clone(), torch.func.functional_call) and keep the result in the predictor."
    )

    def body(support: Support) -> None:
        learner, other = bench.copy(), bench.another(support)
        state = {name: tensor.clone() for name, tensor in learner.state()[0].items()}
        before = bench.predictions(support, learner)
        bench.predictions(other, learner)
        batch = SupportBatch.of([cloned(support), other])
        bench.call("adapt_batch", lambda: learner.adapt_batch(batch, bench.ctx))
        after = bench.predictions(support, learner)
        changed = [name for name, tensor in learner.state()[0].items() if not equal(tensor, state[name])]
        if changed:
            raise Broken(f"After adapt, {', '.join(changed)} of state() had other values.", cause, of_support(support))
        must_agree(
            support, bench.everything(support), before, after, names=("before", "after"), tolerance=0, cause=cause,
            seen="After adapting to another episode, this one gets other predictions",
        )  # fmt: skip

    bench.smallest(body)


@check("default-dtype", after=("learner-kept",), hint=(
    "Tensors of two dtypes meet: give dtype= to torch.zeros, torch.ones, torch.full and torch.tensor."
))  # fmt: skip
def the_default_dtype_decides_nothing(bench: Bench) -> None:
    """With torch.set_default_dtype(torch.float64), which a notebook may have called, adapting and predicting give the
    same numbers to rounding: tensors have the dtype of what they are computed from, or one that is written out."""

    def body(support: Support) -> None:
        wanted = bench.predictions(support)
        with double_by_default():
            found = bench.predictions(support)
        must_agree(
            support, bench.everything(support), found, wanted, names=("float64", "float32"), tolerance=bench.rounding,
            seen="With torch.float64 as the default dtype, predictions differ by more than rounding",
            cause="Something is computed from the default dtype, like torch.finfo(torch.get_default_dtype()).eps, or "
            "a threshold lies near the precision of float32.",
        )  # fmt: skip

    bench.smallest(body)


@check("repeatable-meta-fit", after=("learner-kept",))
def a_second_meta_fit_gives_the_same_bytes(bench: Bench) -> None:
    """meta_fit is a function of (configuration, source, source.seed) alone: another process that meta-fits the learner
    gets the same predictions."""
    support = bench.ordinary
    must_agree(
        support, bench.everything(support), bench.predictions(support), bench.predictions(support, bench.refitted),
        names=("first", "second"), tolerance=0, seen="Two meta-fits on the same data predict differently",
        cause="meta_fit or prepare takes randomness from elsewhere than ctx.generator(source.seed) (an unseeded "
        "generator, the clock, the order of a set), or goes on from an earlier fit that is kept on the class.",
    )  # fmt: skip


@check("earlier-predictors", after=("learner-kept",))
def adapting_to_an_episode_leaves_the_predictors_of_others_alone(bench: Bench) -> None:
    """A predictor belongs to its episode: adapting the learner to other episodes changes none of its predictions."""

    def body(support: Support) -> None:
        other = bench.another(support)
        pairs = bench.everything(support)
        predictor = bench.adapt(support)
        before = bench.ask(predictor, *pairs)
        bench.adapt(other)
        bench.support_at_hand = support
        must_agree(
            support, pairs, before, bench.ask(predictor, *pairs), names=("before", "after"), tolerance=0,
            seen="After adapting to another episode, the predictor of this one answers differently",
            cause="The predictor reads what the next adapt overwrites, such as self.user_vector of the learner; give "
            "it tensors of its own.",
        )  # fmt: skip

    bench.smallest(body)


@check("query", after=("learner-kept",), hint="predict fails for some of the pairs that it answered among others.")
def neither_order_nor_company_of_a_query_changes_its_prediction(bench: Bench) -> None:
    """predict answers every (user, item) pair for itself: the query set is no input of a method. Shuffling it, or
    asking for a part, changes a prediction by rounding at most."""
    cause = (
        "predict looks at all pairs that are asked together (a mean, softmax, rank or batch norm over the query), or "
        "returns its answers in another order than the pairs came in."
    )

    def body(support: Support) -> None:
        users, items = bench.everything(support)
        whole = bench.ask(bench.adapt(support), users, items)
        n = len(users)
        shuffled = torch.randperm(n, generator=torch.Generator().manual_seed(1))
        for seen, which in (
            ("A pair that is asked alone gets another answer than among others", torch.tensor([n - 1])),
            ("In another order, pairs get other answers", shuffled),
            ("Half of the pairs, asked without the others, get other answers", shuffled[: n // 2]),
        ):
            part = bench.ask(bench.adapt(support), users[which], items[which])
            must_agree(
                support, (users[which], items[which]), part, whole[which], names=("asked so", "among all"),
                tolerance=bench.rounding, seen=seen, cause=cause,
            )  # fmt: skip

    bench.smallest(body)


@check("batch", after=("earlier-predictors", "query"), hint=(
    "adapt_batch or its predictor fails on episodes of different sizes: users and ratings are ragged, and "
    "supports.flat_user() numbers users through the batch."
))  # fmt: skip
def the_batch_moves_a_prediction_by_rounding_only(bench: Bench) -> None:
    """Episodes are adapted to in batches. Which episodes came together, and in which order, changes a prediction by
    rounding at most (1e-10 in float64, 1e-4 in float32)."""
    cause = (
        "adapt_batch lets episodes meet: users are numbered within their episode (use supports.flat_user()), a sum or "
        "a mean runs over the whole batch, episodes share one seed instead of supports.seeds, or rows are mixed up."
    )

    def body(support: Support) -> None:
        others = [bench.another(support), bench.support(*SIZES[0], 2)]
        wanted, pairs = bench.predictions(support), bench.everything(support)
        for seen, batch, place in (
            ("In a batch with others behind it", [support, *others], 0),
            ("In a batch with others before it", [*others, support], 2),
        ):
            found = bench.ask_batch(bench.adapt_batch(batch), place, *pairs)
            must_agree(
                support, pairs, found, wanted, names=("in the batch", "alone"), tolerance=bench.rounding,
                seen=f"{seen}, this episode gets other predictions than alone", cause=cause,
            )  # fmt: skip

    bench.smallest(body)


@check("other-users", after=("learner-kept", "query"))
def a_user_learner_is_blind_to_the_other_users(bench: Bench) -> None:
    """With task = "user", a user's predictions depend on that user's support alone: neither the ratings nor the number
    of the other users of the episode change them."""
    if bench.learner.task != "user":
        raise Skipped('task = "episode": its predictions are joint over the users')
    scale = bench.ctx.scale
    cause = (
        "adapt pools over the episode (a mean over all of its ratings, factors that users share). If that is the "
        'method, declare task = "episode"; else keep users apart, with support.user.'
    )

    def body(support: Support) -> None:
        users, items = bench.everything(support)
        together = bench.predictions(support)
        for user in range(support.n_users):
            own = users == user
            mirrored = torch.where(support.user == user, support.rating, scale.low + scale.high - support.rating)
            for name, seen, changed, place in (
                ("mirrored", "the other users' ratings are mirrored", rated(support, mirrored), own),
                ("alone", "the other users are left out", alone(support, user), slice(None)),
            ):
                found = bench.predictions(changed)[place]
                must_agree(
                    support, (users[own], items[own]), found, together[own], names=(name, "together"),
                    tolerance=bench.rounding, seen=f"When {seen}, user {user} gets other predictions", cause=cause,
                )  # fmt: skip

    bench.smallest(body, ((2, 1), (2, 2), (3, 4)))
