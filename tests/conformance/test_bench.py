"""The bench offers what a learner declares, leaves no trace, and skips with a reason."""

import pytest
import torch

from fewrec.conformance import CHECKS, Bench, examine
from fewrec.errors import NotApplicable
from fewrec.learners.base import Learner, Predictor
from fewrec.learners.trivial import SupportMean, UserMean


class Demanding(Learner):
    """Looks at everything that a learner may need."""

    name = "demanding"
    needs = frozenset({"item_text", "item_features", "user_features", "timestamps", "item_ratings", "k>0"})
    meta_depends = frozenset({"n_users", "k_shot", "n_query"})

    def prepare(self, ctx):
        assert len(ctx.catalog.texts()) == len(ctx.catalog.features)

    def meta_fit(self, source, ctx):
        assert set(source.depends) == {"n_users", "k_shot", "n_query"}
        assert source.table.timestamp is not None

    def adapt(self, support, ctx):
        assert support.user_features.shape[0] == support.n_users
        assert len(support.timestamp) == len(support.item) and len(support.item_ratings.item)
        middle = ctx.scale.middle

        class Middle(Predictor):
            def predict(self, users, items):
                return torch.full((len(items),), middle, dtype=torch.float64)

        return Middle()

    def state(self):
        return {}, {}

    def load_state(self, tensors, values, ctx):
        pass

    def trainable_parameters(self):
        return 0


def statuses(cls, cache):
    return {outcome.check.name: outcome.status for outcome in examine(Bench(cls, {}, cache))}


def test_the_bench_offers_whatever_is_declared(tmp_path):
    assert set(statuses(Demanding, tmp_path).values()) == {"ok", "skipped"}


def test_the_smallest_learner_passes(tmp_path):
    found = statuses(SupportMean, tmp_path)
    skipped = {name for name, status in found.items() if status == "skipped"}
    assert set(found.values()) == {"ok", "skipped"} and list(found) == list(CHECKS)
    assert skipped - {"device"} == {"no-support", "save-load", "distribution", "explain", "information"}


def test_a_learner_that_can_not_be_prepared_here_says_so_and_is_not_judged(tmp_path):
    class Elsewhere(UserMean):
        """Needs what this machine lacks."""

        def prepare(self, ctx):
            raise NotApplicable("no telescope")

    with pytest.raises(NotApplicable, match="no telescope"):
        statuses(Elsewhere, tmp_path)


def test_only_the_named_checks_are_reported_and_what_they_build_on_is_run(tmp_path):
    bench = Bench(UserMean, {"shrinkage": 2.0}, tmp_path)
    assert [outcome.check.name for outcome in examine(bench, ["query"])] == ["query"]
    assert {"adapts", "learner-kept"} <= set(bench.outcomes) and "update" not in bench.outcomes


def test_the_number_of_threads_is_as_before_after_the_checks(tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        list(examine(Bench(UserMean, {}, tmp_path), ["name"]))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_every_check_says_what_the_contract_promises():
    for check in CHECKS.values():
        assert len(check.contract) > 60 and check.title[0].islower() and len(check.title) > 15
