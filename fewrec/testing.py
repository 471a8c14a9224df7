"""The conformance suite: what every learner promises (design, contract 2), as a class that a plugin's tests inherit.

    class TestMine(LearnerConformance):
        learner = MyLearner
        config = {"rank": 4}      # optional: smaller than the defaults, so that the suite takes seconds

Needs pytest. The data are synthetic: 60 users, 50 items, with text, user attributes and timestamps.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file

from fewrec.data.synthetic import make_synthetic
from fewrec.data.table import Scale
from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.protocol import Protocol
from fewrec.episodes.sampler import EpisodeSampler
from fewrec.episodes.split import Split, split_dataset
from fewrec.episodes.support import Episodes, Support, SupportBatch
from fewrec.learners.base import Context, Learner

_DEPENDS = {"n_users": 3, "k_shot": 4, "n_query": 5}


class LearnerConformance:
    """Inherit, set ``learner`` (and ``config``), and pytest runs the checks on it."""

    learner: ClassVar[type[Learner]]
    config: ClassVar[Mapping[str, Any]] = {}
    rounding: ClassVar[float] = 1e-4
    """How far the batch that an episode came in may move a prediction: 1e-4 in float32, 1e-10 in float64."""

    @pytest.fixture(scope="class")
    @classmethod
    def split(cls) -> Split:
        shots = 2 if "item_ratings" in cls.learner.needs else 0
        dataset = make_synthetic(n_users=60, n_items=50, density=0.6, seed=5)
        return split_dataset(dataset, Protocol(state="both-cold", k_max=6, item_shots=shots), 0)

    @pytest.fixture(scope="class")
    @classmethod
    def ctx(cls, split: Split, tmp_path_factory: pytest.TempPathFactory) -> Context:
        cache: Path = tmp_path_factory.mktemp("cache")
        return Context(torch.device("cpu"), split.catalog, Scale(1, 5, 1), cache)

    @pytest.fixture(scope="class")
    @classmethod
    def fitted(cls, split: Split, ctx: Context) -> Learner:
        learner = cls.make(ctx)
        learner.meta_fit(cls.source(split, ctx), ctx)
        return learner

    @classmethod
    def make(cls, ctx: Context) -> Learner:
        """Return a prepared learner, not yet meta-fitted."""
        learner = cls.learner(cls.learner.Config(**cls.config))
        learner.prepare(ctx)
        return learner

    @classmethod
    def source(cls, split: Split, ctx: Context) -> MetaTrainSet:
        return MetaTrainSet(split, ctx.scale, {key: _DEPENDS[key] for key in cls.learner.meta_depends})

    def episodes(self, split: Split, count: int = 3, k_shot: int = 4, n_users: int = 3) -> Episodes:
        """Return test episodes (new users; support on seen items, query on unseen ones)."""
        shots = split.protocol.item_shots
        sampler = EpisodeSampler(split.pools["test"], 0, "test", k_max=6, item_shots=shots)
        return sampler.sample(0, count, n_users=n_users, k_shot=k_shot, n_query=5)

    def everything(self, support: Support, split: Split) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (users, items) that ask for the whole catalog, seen and unseen items, for every user."""
        n_items = len(split.catalog)
        users = torch.arange(support.n_users).repeat_interleave(n_items)
        return users, torch.arange(n_items).repeat(support.n_users)

    def predictions(self, learner: Learner, support: Support, split: Split, ctx: Context) -> torch.Tensor:
        return learner.adapt(support, ctx).predict(*self.everything(support, split)).detach().cpu().double()

    def test_it_has_a_name_and_a_docstring(self) -> None:
        assert self.learner.name and self.learner.name == self.learner.name.strip().lower()
        assert (self.learner.__doc__ or "").strip(), "say what the learner does and where it comes from"

    def test_its_configuration_survives_json(self) -> None:
        config = self.learner.Config(**self.config)
        assert self.learner.Config(**config.model_dump(mode="json")) == config
        assert hash(config) == hash(self.learner.Config(**self.config))

    def test_its_options_and_declarations_exist(self) -> None:
        assert self.learner.adapt_options <= set(self.learner.Config.model_fields)
        assert self.learner.meta_depends <= set(_DEPENDS)
        assert self.learner.task in ("user", "episode") and self.learner.batch_episodes >= 1

    def test_who_overrides_meta_fit_overrides_both_state_methods(self) -> None:
        if self.learner.has_meta_fit():
            assert self.learner.state is not Learner.state and self.learner.load_state is not Learner.load_state

    def test_predictions_are_finite_for_every_item_of_the_catalog(self, fitted, split, ctx) -> None:
        support = self.episodes(split).support[0]
        users, _ = self.everything(support, split)
        found = self.predictions(fitted, support, split, ctx)
        assert found.shape == users.shape and torch.isfinite(found).all()

    def test_the_same_episode_gives_the_same_bytes_twice(self, fitted, split, ctx) -> None:
        support = self.episodes(split).support[0]
        first, second = (self.predictions(fitted, support, split, ctx) for _ in range(2))
        assert torch.equal(first, second), "take randomness from ctx.generator(support.seed) alone"

    def test_a_second_meta_fit_gives_the_same_bytes(self, fitted, split, ctx) -> None:
        again = self.make(ctx)
        again.meta_fit(self.source(split, ctx), ctx)
        support = self.episodes(split).support[0]
        assert torch.equal(
            self.predictions(again, support, split, ctx), self.predictions(fitted, support, split, ctx)
        ), "take randomness of meta_fit from source.seed alone"

    def test_neither_order_nor_company_of_a_query_changes_its_prediction(self, fitted, split, ctx) -> None:
        support = self.episodes(split).support[0]
        users, items = self.everything(support, split)
        whole = self.predictions(fitted, support, split, ctx)
        order = torch.randperm(len(users), generator=torch.Generator().manual_seed(1))[: len(users) // 2]
        part = fitted.adapt(support, ctx).predict(users[order], items[order]).detach().cpu().double()
        torch.testing.assert_close(part, whole[order], rtol=0, atol=self.rounding)

    def test_adapting_changes_neither_the_learner_nor_its_support(self, fitted, split, ctx) -> None:
        batch = self.episodes(split).support
        before_state = {name: tensor.clone() for name, tensor in fitted.state()[0].items()}
        before = self.predictions(fitted, batch[0], split, ctx)
        rating, item = batch.rating.clone(), batch.item.clone()
        self.predictions(fitted, batch[1], split, ctx)
        fitted.adapt_batch(batch, ctx)
        assert all(torch.equal(tensor, before_state[name]) for name, tensor in fitted.state()[0].items())
        assert torch.equal(batch.rating, rating) and torch.equal(batch.item, item)
        assert torch.equal(self.predictions(fitted, batch[0], split, ctx), before)

    def test_the_batch_moves_a_prediction_by_rounding_only(self, fitted, split, ctx) -> None:
        episodes = self.episodes(split)
        predictor = fitted.adapt_batch(episodes.support, ctx)
        for e, support in enumerate(episodes.support):
            users, items = self.everything(support, split)
            together = predictor.predict(torch.full_like(users, e), users, items).detach().cpu().double()
            alone = self.predictions(fitted, support, split, ctx)
            torch.testing.assert_close(together, alone, rtol=0, atol=self.rounding)

    @pytest.mark.parametrize("k_shot", [1, 2, 6])
    def test_every_number_of_shots_works(self, fitted, split, ctx, k_shot: int) -> None:
        for support in self.episodes(split, k_shot=k_shot).support:
            assert torch.isfinite(self.predictions(fitted, support, split, ctx)).all()

    def test_without_support_it_predicts_or_declares_that_it_cannot(self, fitted, split, ctx) -> None:
        if "k>0" not in self.learner.needs:
            support = self.episodes(split, k_shot=0).support[0]
            assert torch.isfinite(self.predictions(fitted, support, split, ctx)).all()

    def test_ragged_supports_and_equal_ratings_work(self, fitted, split, ctx) -> None:
        support = self.episodes(split, k_shot=6).support[0]
        kept = (support.user != 0) | (torch.arange(len(support.user)) == 0)  # one rating of user 0, six of the others
        ragged = _rows(support, kept)
        assert torch.isfinite(self.predictions(fitted, ragged, split, ctx)).all()
        equal = _rows(support, kept, rating=torch.full_like(support.rating, 3.0))
        assert torch.isfinite(self.predictions(fitted, equal, split, ctx)).all()

    def test_the_support_matters_unless_the_learner_has_no_use_for_it(self, fitted, split, ctx) -> None:
        support = self.episodes(split).support[0]
        everything = torch.ones(len(support.user), dtype=torch.bool)
        low, high = (_rows(support, everything, rating=torch.full_like(support.rating, r)) for r in (1.0, 5.0))
        difference = (
            self.predictions(fitted, high, split, ctx).mean() - self.predictions(fitted, low, split, ctx).mean()
        )
        assert difference > -1e-9, "a user who rates everything higher must not be predicted lower on average"

    def test_a_user_learner_is_blind_to_the_other_users(self, fitted, split, ctx) -> None:
        if self.learner.task != "user":
            return
        support = self.episodes(split).support[0]
        together = self.predictions(fitted, support, split, ctx).reshape(support.n_users, -1)
        everyone = torch.ones(len(support.user), dtype=torch.bool)
        for user in range(support.n_users):
            mirrored = torch.where(
                support.user == user, support.rating, ctx.scale.low + ctx.scale.high - support.rating
            )
            among_others = self.predictions(fitted, _rows(support, everyone, rating=mirrored), split, ctx)
            found = among_others.reshape(support.n_users, -1)[user]
            torch.testing.assert_close(found, together[user], rtol=0, atol=self.rounding)
        features = None if support.user_features is None else support.user_features[:1]
        first = replace(
            _rows(support, support.user == 0), n_users=1, meta_user=support.meta_user[:1], user_features=features
        )
        torch.testing.assert_close(self.predictions(fitted, first, split, ctx), together[0], rtol=0, atol=self.rounding)

    def test_state_survives_saving_and_loading(self, fitted, split, ctx, tmp_path) -> None:
        tensors, values = fitted.state()
        if tensors:
            save_file(
                {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
                tmp_path / "s.safetensors",
            )
            tensors = load_file(tmp_path / "s.safetensors")
        again = self.make(ctx)
        if self.learner.has_meta_fit():
            again.load_state(tensors, json.loads(json.dumps(values)), ctx)
        support = self.episodes(split).support[0]
        assert torch.equal(self.predictions(again, support, split, ctx), self.predictions(fitted, support, split, ctx))

    def test_updating_equals_adapting_to_all_ratings_at_once(self, fitted, split, ctx) -> None:
        support = self.episodes(split, k_shot=6).support[0]
        early = torch.arange(len(support.user)) % 6 < 4
        first, more = _rows(support, early), _rows(support, ~early)
        users, items = self.everything(support, split)
        updated = fitted.adapt(first, ctx).update(more, ctx).predict(users, items).detach().cpu().double()
        wanted = self.predictions(fitted, first.joined(more), split, ctx)
        torch.testing.assert_close(updated, wanted, rtol=0, atol=self.rounding)
        batch = fitted.adapt_batch(SupportBatch.of([first]), ctx).update(SupportBatch.of([more]), ctx)
        found = batch.predict(torch.zeros_like(users), users, items).detach().cpu().double()
        torch.testing.assert_close(found, wanted, rtol=0, atol=self.rounding)

    def test_an_accelerator_predicts_what_the_processor_does(self, fitted, split, ctx) -> None:
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device here")
        on_device = replace(ctx, device=torch.device("cuda"))
        there = self.make(on_device)
        if self.learner.has_meta_fit():
            tensors, values = fitted.state()
            there.load_state(tensors, values, on_device)
        support = self.episodes(split).support[0]
        found = self.predictions(there, support, split, on_device)
        assert (found - self.predictions(fitted, support, split, ctx)).square().mean().sqrt() < 2e-3

    def test_it_counts_its_parameters(self, fitted) -> None:
        assert fitted.trainable_parameters() >= 0


def _rows(support: Support, kept: torch.Tensor, rating: torch.Tensor | None = None) -> Support:
    """Return the support of the given rows alone, with other ratings if given."""
    time = None if support.timestamp is None else support.timestamp[kept]
    rating = support.rating if rating is None else rating
    return replace(support, user=support.user[kept], item=support.item[kept], rating=rating[kept], timestamp=time)
