"""Training for use: once, on every user but those of meta-validation, kept in the cache and loaded from there."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fewrec.data.synthetic import make_synthetic
from fewrec.episodes.split import split_dataset
from fewrec.errors import DataError, FewrecError, NotApplicable, SuiteError
from fewrec.learners import registry
from fewrec.recommender.advice import AdaptedUser
from fewrec.recommender.ratings import UserRatings
from fewrec.recommender.trained import all_users, open_learner, train_or_load

MINE = UserRatings(np.array([0, 1, 2]), np.array([5.0, 4.0, 1.0]))


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FEWREC_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def said():
    return []


def scores(trained, titles):
    return AdaptedUser.of(trained, titles, MINE).scores()


def test_the_second_call_loads_what_the_first_one_trained(dataset, titles, said):
    first = train_or_load("gp", dataset, settings={"rank": 2}, say=said.append)
    assert "training gp on" in said[0] and "kept in" in said[1]
    second = train_or_load("gp", dataset, settings={"rank": 2}, say=said.append)
    assert len(said) == 2 and second.seconds == first.seconds and second.notes == ()
    assert torch.equal(scores(first, titles), scores(second, titles))


def test_options_seed_and_data_make_another_learner(dataset, said):
    for options in ({"settings": {"rank": 2}}, {"settings": {"rank": 3}}, {"settings": {"rank": 3}, "seed": 1}):
        train_or_load("gp", dataset, say=said.append, **options)
    fewer = replace(dataset, table=dataset.table.select(dataset.table.user > 3))
    train_or_load("gp", fewer, settings={"rank": 3}, say=said.append)
    assert len({line.split()[-1] for line in said if "kept in" in line}) == 4


def test_options_of_adapting_share_one_training(dataset, titles, said):
    first = train_or_load("user-mean", dataset, settings={"shrinkage": 1.0}, say=said.append)
    second = train_or_load("user-mean", dataset, settings={"shrinkage": 9.0}, say=said.append)
    assert len(said) == 2 and (first.learner.config.shrinkage, second.learner.config.shrinkage) == (1.0, 9.0)
    assert not torch.equal(scores(first, titles), scores(second, titles))


def test_a_broken_entry_of_the_cache_is_made_anew(dataset, titles, said):
    first = train_or_load("bias", dataset, seed=7, say=said.append)
    folder = said[1].split()[-1]
    with open(f"{folder}/state.safetensors", "r+b") as stream:
        stream.truncate(10)
    again = train_or_load("bias", dataset, seed=7, say=said.append)
    assert len(said) == 4 and torch.equal(scores(first, titles), scores(again, titles))


def test_a_cache_that_cannot_be_written_costs_a_training_and_nothing_else(dataset, said, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FEWREC_CACHE", str(tmp_path / "file" / "cache"))
    train_or_load("bias", dataset, say=said.append)
    assert "but not kept" in said[1]


@pytest.mark.parametrize("n_users", [1, 2, 5, 15, 25, 35, 80])
def test_every_user_is_meta_train_or_meta_validation(n_users):
    dataset = make_synthetic(n_users=n_users, n_items=20, ratings_per_user=12)
    split = split_dataset(dataset, all_users(dataset), 0)
    validation = len(split.pools["validation"].users)
    assert split.meta_train.n_users + validation == n_users and len(split.pools["test"].users) == 0
    assert validation == (max(1, round(n_users / 10)) if n_users > 1 else 0)


@pytest.mark.parametrize("name", ["gp", "bias", "knn"])
def test_a_data_set_of_very_few_users_trains(name, titles):
    dataset = make_synthetic(n_users=3, n_items=20, ratings_per_user=5)
    trained = train_or_load(name, dataset)
    assert torch.isfinite(AdaptedUser.of(trained, titles, MINE).scores()).all()


def test_a_learner_that_needs_more_ratings_than_there_are_says_so():
    dataset = make_synthetic(n_users=3, n_items=20, ratings_per_user=5)
    with pytest.raises(SuiteError, match="learner 'lwa' can't be used here, in training: .* 2 train users have"):
        train_or_load("lwa", dataset)


def test_a_learner_is_saved_where_the_user_wants_and_opened_again(dataset, titles, tmp_path):
    trained = train_or_load("gp", dataset, settings={"rank": 2})
    trained.save(tmp_path / "mine")
    opened = open_learner(tmp_path / "mine", dataset=dataset)
    assert torch.equal(scores(opened, titles), scores(trained, titles)) and opened.notes == ()
    with pytest.raises(DataError, match="trained on data of your own"):
        open_learner(tmp_path / "mine")
    with pytest.raises(DataError, match="holds learner 'gp', not 'bias'"):
        open_learner(tmp_path / "mine", dataset=dataset, learner="bias")


def test_opening_with_other_ratings_warns_and_with_other_items_refuses(dataset, tmp_path):
    train_or_load("bias", dataset).save(tmp_path / "mine")
    fewer = replace(dataset, table=dataset.table.select(dataset.table.user > 3))
    assert "ratings" in open_learner(tmp_path / "mine", dataset=fewer).notes[0]
    with pytest.raises(DataError, match="trained on the 60 items"):
        open_learner(tmp_path / "mine", dataset=make_synthetic(n_users=20, n_items=30, density=0.5))


def test_a_learner_without_meta_fit_is_saved_too(dataset, titles, tmp_path):
    trained = train_or_load("mf-scratch", dataset)
    trained.save(tmp_path / "mine")
    assert torch.equal(scores(open_learner(tmp_path / "mine", dataset=dataset), titles), scores(trained, titles))


@pytest.mark.parametrize("name", ["bias-shots", "metaemb", "mwuf"])
def test_learners_for_new_items_say_why_they_cannot(name, dataset):
    with pytest.raises(NotApplicable, match=f"'{name}' can't recommend here: it needs item_ratings"):
        train_or_load(name, dataset)


def test_a_learner_that_reads_text_says_that_there_is_none(dataset):
    silent = replace(dataset, catalog=replace(dataset.catalog, text=None))
    with pytest.raises(NotApplicable, match="it needs item_text, and synthetic-.* has no item text"):
        train_or_load("prompt-lm", silent)


def test_a_misspelt_option_is_named_with_the_nearest(dataset):
    with pytest.raises(SuiteError, match="'gp' has no option 'rnk'; did you mean 'rank'"):
        train_or_load("gp", dataset, settings={"rnk": 3})
    with pytest.raises(SuiteError, match="option 'rank' of 'gp'"):
        train_or_load("gp", dataset, settings={"rank": 0})


BROKEN = '''
from fewrec.learners.base import Learner


class Broken(Learner):
    """Fail in training."""

    name = "broken"

    def meta_fit(self, source, ctx):
        raise KeyError("the author's mistake")

    def adapt(self, support, ctx):
        raise AssertionError
'''


def test_a_plugin_that_fails_is_named_in_one_line(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_files", {})
    (tmp_path / "broken.py").write_text(BROKEN)
    registry.add_plugin_file(tmp_path / "broken.py")
    with pytest.raises(FewrecError, match="learner 'broken' failed in training: KeyError: .*the author's mistake"):
        train_or_load("broken", dataset)
