"""Every check fails on a learner that breaks its promise, alone, and says why with a small example."""

import functools
import time

import numpy as np
import pytest
import torch
from pydantic import BaseModel

from fewrec.conformance import CHECKS, Bench, examine, lifecycle
from fewrec.learners.base import BatchedLearner, BatchPredictor, Learner, LearnerConfig, LoopedPredictor, Predictor


class Effects(Predictor):
    """An item's number plus a user's."""

    def __init__(self, base, above):
        self.base, self.above = base, above

    def predict(self, users, items):
        return self.base[items] + self.above[users]


class SoundConfig(LearnerConfig):
    ridge: float = 4.0


class Sound(Learner):
    """Predict the item's mean plus the user's mean residual, both shrunk: the learner that the others spoil."""

    name = "sound"
    Config = SoundConfig

    def meta_fit(self, source, ctx):
        item, rating = torch.tensor(source.table.item), torch.tensor(source.table.rating)
        count = torch.bincount(item, minlength=source.table.n_items)
        above = torch.zeros(len(count), dtype=torch.float64).index_add(0, item, rating - rating.mean())
        self.base = rating.mean() + above / (count + self.config.ridge)

    def above(self, support, rating=None):
        rating = support.rating if rating is None else rating
        total = torch.zeros(support.n_users, dtype=torch.float64)
        total = total.index_add(0, support.user, rating - self.base[support.item])
        return total / (torch.bincount(support.user, minlength=support.n_users) + self.config.ridge)

    def adapt(self, support, ctx):
        return Effects(self.base, self.above(support))

    def state(self):
        return {"base": self.base}, {}

    def load_state(self, tensors, values, ctx):
        self.base = tensors["base"]

    def trainable_parameters(self):
        return len(self.base) + 1


BROKEN: list[tuple[str, type[Learner], str]] = []


def breaks(check, says):
    """Note that a class breaks exactly one check, whose explanation has the words ``says``."""

    def note(cls):
        cls.name = vars(cls).get("name", "sound")
        if cls.__doc__ is None and cls.__name__ != "NoDocstring":
            cls.__doc__ = "Broken."
        BROKEN.append((check, cls, says))
        return cls

    return note


@breaks("name", "name is 'My Method'")
class NameWithSpaces(Sound):
    name = "My Method"


@breaks("name", "has no docstring")
class NoDocstring(Sound):
    pass


@breaks("config", "An option is a list or dict; use a tuple")
class ListOption(Sound):
    class Config(SoundConfig):
        hidden: list[int] = [4]


@breaks("config", "or takes options that it doesn't have")
class LooseConfig(Sound):
    class Config(SoundConfig):
        model_config = {"frozen": True, "extra": "ignore"}


@breaks("config", "Let it inherit fewrec.learners.base.LearnerConfig")
class ForeignConfig(Sound):
    class Config(BaseModel):
        ridge: float = 4.0


@breaks("declarations", "Write a set: needs")
class NeedsAString(Sound):
    needs = "k>0"


@breaks("declarations", "needs has 'moonlight'")
class NeedsMoonlight(Sound):
    needs = frozenset({"moonlight"})


@breaks("declarations", "adapt_options has 'rigde'")
class MisspeltOption(Sound):
    adapt_options = frozenset({"rigde"})


@breaks("declarations", "task is 'users'")
class MisspeltTask(Sound):
    task = "users"


@breaks("state-methods", "has meta_fit but no load_state")
class NoLoadState(Sound):
    load_state = Learner.load_state


@breaks("fits", "missing in meta_depends")
class UndeclaredDepends(Sound):
    def meta_fit(self, source, ctx):
        super().meta_fit(source, ctx)
        self.k_shot = source.depends["k_shot"]


@breaks("adapts", "returned shape (1, 1) for 1 pairs")
class ColumnOfPredictions(Sound):
    def adapt(self, support, ctx):
        class Column(Effects):
            def predict(self, users, items):
                return super().predict(users, items)[:, None]

        return Column(self.base, self.above(support))


@breaks("adapts", "raised in adapt at test_broken_learners.py")
class RaisesInAdapt(Sound):
    def adapt(self, support, ctx):
        raise RuntimeError("out of luck")


@breaks("finite", "Items without a rating in meta-train have no mean")
class NoMeanForUnseenItems(Sound):
    def meta_fit(self, source, ctx):
        super().meta_fit(source, ctx)
        self.base = torch.where(torch.tensor(source.catalog.seen), self.base, torch.nan)


@breaks("shots", "a variance of one value")
class SpreadOfOneRating(Sound):
    def adapt(self, support, ctx):
        above, count = self.above(support), torch.bincount(support.user, minlength=support.n_users)
        squares = torch.zeros_like(above).index_add(0, support.user, (support.rating - 3) ** 2)
        return Effects(self.base, torch.where((squares / (count - 1)) < 1e9, above, torch.nan))


@breaks("shots", "can't handle that number of ratings")
class NeedsTwoRatings(Sound):
    def adapt(self, support, ctx):
        if len(support.item) < 2:
            raise ValueError("give me more")
        return super().adapt(support, ctx)


@breaks("inputs", "support.rating had other values")
class CentresInPlace(Sound):
    def adapt(self, support, ctx):
        above = self.above(support)
        support.rating.sub_(support.rating.mean())
        return Effects(self.base, above)


@breaks("global-state", "gradients on or off (torch.set_grad_enabled): True -> False")
class SwitchesGradientsOff(Sound):
    def adapt(self, support, ctx):
        torch.set_grad_enabled(False)
        return super().adapt(support, ctx)


@breaks("repeatable-predict", "a counter")
class CountsQueries(Sound):
    def adapt(self, support, ctx):
        class Counting(Effects):
            asked = 0

            def predict(self, users, items):
                self.asked += 1
                return super().predict(users, items) + self.asked

        return Counting(self.base, self.above(support))


@breaks("repeatable-adapt", "an unseeded generator, the clock")
class Unseeded(Sound):
    def adapt(self, support, ctx):
        return Effects(self.base, self.above(support) + np.random.default_rng().normal())


@breaks("global-randomness", "torch.randn or torch.randperm without generator=")
class DrawsGlobally(Sound):
    def adapt(self, support, ctx):
        return Effects(self.base, self.above(support) + torch.randn(1))


@breaks("global-randomness", "meta_fit learns something else")
class InitialWeightsFromTheGlobalGenerator(Sound):
    def meta_fit(self, source, ctx):
        super().meta_fit(source, ctx)
        self.base = self.base + torch.nn.Embedding(1, 1).weight.detach().double()[0, 0]


@breaks("global-randomness", "draws from the global generator of numpy.random, here without any effect")
class DrawsForNothing(Sound):
    def adapt(self, support, ctx):
        np.random.rand()
        return super().adapt(support, ctx)


@breaks("default-dtype", "Tensors of two dtypes meet")
class MixesDtypes(Sound):
    def adapt(self, support, ctx):
        single = self.above(support).float()
        return Effects(self.base, torch.eye(len(single)) @ single)


@breaks("repeatable-meta-fit", "takes randomness from elsewhere than ctx.generator(source.seed)")
class UnseededMetaFit(Sound):
    def meta_fit(self, source, ctx):
        super().meta_fit(source, ctx)
        self.base = self.base + np.random.default_rng().normal()


@breaks("learner-kept", "base of state() had other values")
class TrainsItself(Sound):
    def adapt(self, support, ctx):
        above = self.above(support)
        self.base = self.base + 0.01 * above.mean()
        return Effects(self.base, above)


@breaks("earlier-predictors", "reads what the next adapt overwrites")
class KeepsTheUserOnItself(Sound):
    def adapt(self, support, ctx):
        learner = self
        self.user = self.above(support)

        class Reading(Predictor):
            def predict(self, users, items):
                return learner.base[items] + learner.user[users]

        return Reading()


@breaks("query", "a mean, softmax, rank or batch norm over the query")
class CentresOverTheQuery(Sound):
    def adapt(self, support, ctx):
        class Centred(Effects):
            def predict(self, users, items):
                found = super().predict(users, items)
                return found - found.mean() + self.base.mean()

        return Centred(self.base, self.above(support))


@breaks("batch", "use supports.flat_user()")
class MixesEpisodes(Sound, BatchedLearner):
    adapt = BatchedLearner.adapt

    def adapt_batch(self, supports, ctx):
        from fewrec.learners.additive import EffectsPredictor
        from fewrec.learners.effects import sums_by

        flat, size = supports.flat_user(), supports.total_users
        total = sums_by(supports.user, supports.rating - self.base[supports.item], size)  # not flat
        count = torch.bincount(supports.user, minlength=size) + self.config.ridge
        within = torch.cat([torch.arange(int(n)) for n in supports.n_users])
        assert len(flat) == len(supports.item)
        return EffectsPredictor(self.base, (total / count)[within], supports)


@breaks("other-users", 'declare task = "episode"')
class PoolsUsers(Sound):
    def adapt(self, support, ctx):
        above = self.above(support)
        return Effects(self.base, above.mean().expand(len(above)))


@breaks("no-support", 'declare needs = frozenset({"k>0"})')
class DividesByNoRatings(Sound):
    def adapt(self, support, ctx):
        count = torch.bincount(support.user, minlength=support.n_users)
        return Effects(self.base, self.above(support) * (count + self.config.ridge) / count)


@breaks("ragged", "reshape")
class ReshapesTheSupport(Sound):
    def adapt(self, support, ctx):
        residual = (support.rating - self.base[support.item]).reshape(support.n_users, -1)
        return Effects(self.base, residual.sum(1) / (residual.shape[1] + self.config.ridge))


@breaks("equal-ratings", "Ratings are divided by their spread")
class DividesBySpread(Sound):
    def adapt(self, support, ctx):
        above = self.above(support)
        if len(support.item) > 1:
            width = torch.stack([(r := support.rating[support.user == u]).max() - r.min() for u in range(len(above))])
            several = torch.bincount(support.user, minlength=len(above)) > 1
            above = torch.where(several, above * width / width, above)
        return Effects(self.base, above)


@breaks("known-users", "-1 for a new user")
class KnowsNobody(Sound):
    def adapt(self, support, ctx):
        torch.zeros(1)[support.meta_user + 1]
        return super().adapt(support, ctx)


@breaks("higher-ratings", "A sign is wrong")
class WrongSign(Sound):
    def adapt(self, support, ctx):
        return Effects(self.base, -self.above(support))


@breaks("needs", "It uses what it doesn't declare")
class ReadsTextsSecretly(Sound):
    def prepare(self, ctx):
        self.long = torch.tensor([len(text) > 30 for text in ctx.catalog.texts()])


@breaks("other-scale", "A constant of the scale from 1 to 5")
class ClampsToFiveStars(Sound):
    def adapt(self, support, ctx):
        class Clamped(Effects):
            def predict(self, users, items):
                return super().predict(users, items).clamp(1, 5)

        return Clamped(self.base, self.above(support))


@breaks("save-load", "loses precision there")
class SavesHalfThePrecision(Sound):
    def state(self):
        return {"base": self.base.float()}, {}

    def load_state(self, tensors, values, ctx):
        self.base = tensors["base"].double()


@breaks("save-load", "must restore everything that adapt uses")
class ForgetsToSave(Sound):
    def state(self):
        return {}, {}

    def load_state(self, tensors, values, ctx):
        pass


@breaks("save-load", "is no JSON")
class SavesATensorAsJSON(Sound):
    def state(self):
        return {"base": self.base}, {"mean": self.base.mean()}


@breaks("update", "forgets the earlier ratings")
class ForgetsOnUpdate(Sound):
    def adapt(self, support, ctx):
        learner = self

        class Forgetful(Effects):
            def update(self, support, ctx):
                return learner.adapt(support, ctx)

        return Forgetful(self.base, self.above(support))


@breaks("parameters", "says that it fits 0 numbers")
class CountsNothing(Sound):
    trainable_parameters = Learner.trainable_parameters


def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


@breaks("constructor", "outside of every timed phase")
class WorksInTheConstructor(Sound):
    def __init__(self, config=None):
        super().__init__(config)
        burn(0.3)


@breaks("work-is-timed", "functools.cache, a dict by seed or items")
class CachesSupports(Sound):
    def __init__(self, config=None):
        super().__init__(config)
        self.cached = {}

    def adapt(self, support, ctx):
        key = (support.seed, *support.user.tolist(), *support.item.tolist(), *support.rating.tolist())
        if key not in self.cached:
            burn(0.1)
            self.cached[key] = self.above(support)
        return Effects(self.base, self.cached[key])


@breaks("device", "it predicts otherwise")
class DependsOnTheDevice(Sound):
    def adapt(self, support, ctx):
        return Effects(self.base, self.above(support) + (ctx.device.index is not None))


@breaks("distribution", "a standard deviation that is not above 0")
class CertainOfEverything(Sound):
    def adapt(self, support, ctx):
        class Certain(Effects):
            def distribution(self, users, items):
                mean = self.predict(users, items)
                return mean, torch.zeros_like(mean)

        return Certain(self.base, self.above(support))


@breaks("distribution", "is not the prediction")
class TwoMeans(Sound):
    def adapt(self, support, ctx):
        class Two(Effects):
            def distribution(self, users, items):
                mean = self.predict(users, items)
                return mean + 1, torch.ones_like(mean)

        return Two(self.base, self.above(support))


@breaks("distribution", "The predictor of adapt_batch has no distribution")
class KeepsTheDistributionFromBatches(Sound):
    def adapt(self, support, ctx):
        class Wide(Effects):
            def distribution(self, users, items):
                mean = self.predict(users, items)
                return mean, torch.ones_like(mean)

        return Wide(self.base, self.above(support))

    def adapt_batch(self, supports, ctx):
        class OfBatch(BatchPredictor):
            def __init__(self, predictors):
                self.predictors = predictors

            def predict(self, episode, user, item):
                return LoopedPredictor(self.predictors).predict(episode, user, item)

        return OfBatch([self.adapt(support, ctx) for support in supports])


@breaks("explain", "one finite number for each of the 1 rows")
class ExplainsWithOneNumber(Sound):
    def adapt(self, support, ctx):
        class Explaining(Effects):
            def explain(self, user, item):
                return torch.tensor(1.0)

        return Explaining(self.base, self.above(support))


class Asking(Effects):
    """Tells what a rating would: the same of every item, in ``tells``."""

    def tells(self, users, items):
        return torch.ones(len(items), dtype=torch.float64)

    def information(self, users, items, targets, weights):
        return self.tells(users, items)


class Informed(Sound):
    """Sound, and its predictors are of the class ``asking``."""

    informs = True
    asking: type[Asking] = Asking

    def adapt(self, support, ctx):
        return self.asking(self.base, self.above(support))


@breaks("information", "informs is False, but information returned something")
class InformedWithoutSayingSo(Informed):
    informs = False


@breaks("information", "informs is True, but information returned None")
class SaysThatItIsInformed(Sound):
    informs = True


@breaks("information", "information returned (1,) for 50 pairs")
class InformedOfOneItem(Informed):
    class asking(Asking):
        def tells(self, users, items):
            return super().tells(users, items)[:1]


@breaks("information", "50 of 50 pairs have information that is below 0")
class KnowsLessByARating(Informed):
    class asking(Asking):
        def tells(self, users, items):
            return -super().tells(users, items)


@breaks("information", "depends on the other pairs")
class SharesInformationAmongCandidates(Informed):
    class asking(Asking):
        def tells(self, users, items):
            return super().tells(users, items) / len(items)


@pytest.fixture
def outcomes(tmp_path):
    return functools.partial(_outcomes, tmp_path)


def _outcomes(cache, cls, **config):
    return {outcome.check.name: outcome for outcome in examine(Bench(cls, config, cache))}


@pytest.mark.parametrize(("check", "cls", "says"), BROKEN, ids=[f"{check}-{cls.__name__}" for check, cls, _ in BROKEN])
def test_exactly_the_broken_promise_is_found_and_its_cause_is_named(check, cls, says, outcomes, monkeypatch):
    if check == "device":  # a second name of the processor stands in for an accelerator
        monkeypatch.setattr(lifecycle, "accelerator", lambda: "cpu:0")
    found = outcomes(cls)
    assert [name for name, outcome in found.items() if outcome.status == "FAILED"] == [check]
    explanation = found[check].explanation()
    assert says in " ".join(explanation.split())
    assert CHECKS[check].contract[:40] in explanation.replace("\n    ", " ")


def test_every_check_has_a_learner_that_breaks_it():
    assert {check for check, _, _ in BROKEN} == set(CHECKS)


def test_the_learner_that_the_others_spoil_keeps_the_contract(outcomes):
    assert {outcome.status for outcome in outcomes(Sound).values()} == {"ok", "skipped"}


@pytest.mark.parametrize("cls", [Unseeded, DrawsGlobally, CentresInPlace, TrainsItself, KeepsTheUserOnItself,
                                 CentresOverTheQuery, MixesEpisodes, CertainOfEverything])  # fmt: skip
def test_an_example_is_the_smallest_episode_that_shows_the_failure(cls, outcomes):
    check = next(check for check, broken, _ in BROKEN if broken is cls)
    assert "support: 1 user, 1 rating, seed " in outcomes(cls)[check].explanation()


def test_a_failure_that_needs_two_users_is_shown_on_two(outcomes):
    assert "support: 2 users, 2 ratings, seed " in outcomes(PoolsUsers)["other-users"].explanation()


def test_an_example_shows_the_support_the_query_and_the_numbers_that_disagree(outcomes):
    class SevenOff(Sound):
        def adapt(self, support, ctx):
            class Off(Effects):
                def predict(self, users, items):
                    return super().predict(users, items) + 7.0 * (len(items) == 1)

            return Off(torch.full_like(self.base, 2.0), torch.zeros(support.n_users, dtype=torch.float64))

    lines = outcomes(SevenOff)["query"].explanation().splitlines()
    place = lines.index("    query:")
    assert lines[place - 2].split() == ["user", "item", "rating"] and len(lines[place - 1].split()) == 3
    assert lines[place + 1].split() == ["user", "item", "asked", "so", "among", "all"]
    assert lines[place + 2].split() == ["0", "49", "9", "2"]


def test_what_a_failure_makes_pointless_is_skipped_with_the_check_to_mend_first(outcomes):
    found = outcomes(RaisesInAdapt)
    assert found["query"].reason == found["save-load"].reason == "mend 'adapts' first"
    assert found["parameters"].status == "ok"


def test_an_exception_is_shown_with_the_line_that_raised_it(outcomes):
    text = " ".join(outcomes(RaisesInAdapt)["adapts"].explanation().split())
    assert "RuntimeError: out of luck, raised in adapt at test_broken_learners.py:" in text
    assert 'raise RuntimeError("out of luck")' in text


def test_the_surroundings_are_as_before_after_a_learner_that_changes_them(outcomes):
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    outcomes(SwitchesGradientsOff)
    outcomes(DrawsGlobally)
    assert torch.is_grad_enabled() and torch.equal(torch.rand(1), wanted)
