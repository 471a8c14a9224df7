"""What to ask next: unrated items by what their rating would tell, weighted by the chance of an answer."""

import numpy as np
import pytest
import torch

import fewrec
from fewrec.errors import DataError, FewrecError, NotApplicable, SuiteError
from fewrec.learners.gp import GPPredictor
from fewrec.recommender import show
from fewrec.recommender.advice import AdaptedUser
from fewrec.recommender.questions import questions
from fewrec.recommender.ratings import UserRatings
from fewrec.recommender.trained import train_or_load
from tests.recommender.test_advice import MINE, show_text

SMALL = {"rank": 3, "sweeps": 6}


@pytest.fixture(scope="module")
def user(dataset, titles):
    return AdaptedUser.of(train_or_load("gp", dataset, settings=SMALL), titles, MINE)


def test_unrated_items_come_in_the_order_of_what_they_tell_times_the_chance_to_know_them(user, dataset, titles):
    frame = questions(user, top=60).frame
    assert len(frame) == 60 - len(MINE) and not set(frame["item"]) & set(dataset.catalog.item_ids[MINE.item])
    item = frame["item"].to_numpy() - 1
    raters = np.array([len(set(dataset.table.user[dataset.table.item == i])) for i in item])
    np.testing.assert_allclose(frame["known"], raters / dataset.table.n_users, rtol=1e-12)
    np.testing.assert_allclose(frame["expected"], frame["information"] * frame["known"], rtol=1e-12)
    assert (frame["expected"].diff().dropna() <= 0).all() and (frame["information"] > 0).all()
    assert list(frame["rank"]) == list(range(1, 56)) and (frame["ratings"] == titles.count[item]).all()


def test_without_the_chance_to_know_them_the_order_is_that_of_information_alone(user):
    weighted, alone = questions(user, top=60), questions(user, top=60, popular=False)
    assert (alone.frame["information"].diff().dropna() <= 0).all()
    assert list(alone.frame["expected"]) == list(alone.frame["information"])
    assert list(alone.frame["item"]) != list(weighted.frame["item"])


def test_information_is_what_the_answer_takes_from_the_mean_variance_over_items_by_popularity(user, titles):
    def variance(adapted):
        items = torch.arange(60)
        deviation = adapted.predictor.distribution(torch.zeros_like(items), items)[1].numpy()
        return np.average(deviation**2, weights=titles.count)

    for row in questions(user, top=3).frame.itertuples():
        after = user.update(UserRatings(np.array([int(row.item) - 1]), np.array([2.0])))
        assert variance(user) - variance(after) == pytest.approx(row.information, abs=1e-10)


def test_of_a_genre_only_its_items_are_asked_with_the_information_about_all(user):
    found = questions(user, top=60).frame.set_index("item")["information"]
    frame = questions(user, top=60, genre="sci-fi").frame
    of_genre = set(np.flatnonzero(user.titles.of_genre("sci-fi")))
    assert set(frame["item"] - 1) == of_genre - set(MINE.item) and len(frame) < 30
    assert (frame["information"].to_numpy() == found[frame["item"]].to_numpy()).all()


def test_answers_lead_to_other_questions_without_training_and_keep_what_was_chosen(dataset):
    first = fewrec.ask(dataset=dataset, settings=SMALL, popular=False, top=4)
    assert first.k_shot == 0 and not first.popular and "information" in repr(first)
    answered = int(first.frame["item"][0])
    second = first.update({answered: 4})
    assert second.k_shot == 1 and len(second.frame) == 4 and not second.popular and "update" in second.seconds
    assert answered not in set(second.frame["item"])
    again = fewrec.ask({answered: 4}, dataset=dataset, settings=SMALL, popular=False, top=4)
    assert list(again.frame["item"]) == list(second.frame["item"])


@pytest.mark.parametrize("name", ["bias", "maml-mf"])
def test_a_learner_that_can_not_say_is_refused_before_training_with_those_that_can(name, dataset):
    said = []
    with pytest.raises(NotApplicable, match=f"'{name}' can't say what a rating would tell; learners that can: gp"):
        fewrec.ask(dataset=dataset, learner=name, say=said.append)
    bias = train_or_load("bias", dataset)
    with pytest.raises(NotApplicable, match="'bias' can't say what a rating would tell"):
        fewrec.ask(MINE_BY_ID, model=bias)
    assert said == []


MINE_BY_ID = dict(zip((MINE.item + 1).tolist(), MINE.rating.tolist(), strict=True))


def test_a_learner_that_promised_but_does_not_say_is_named(user, monkeypatch):
    monkeypatch.setattr(GPPredictor, "information", lambda self, *asked: None)
    with pytest.raises(FewrecError, match="learner 'gp' declares informs, but doesn't say"):
        questions(user)


def test_bad_input_is_one_line(dataset):
    for problem, match in (
        ({"top": 0}, "top = 0: give 1 or more"),
        ({"genre": "dram"}, "no item has the genre 'dram'"),
        ({"threads": 0}, "--threads 0"),
    ):
        with pytest.raises(SuiteError, match=match):
            fewrec.ask(dataset=dataset, **problem)
    with pytest.raises(DataError, match="unknown item or title 'Star Warz'; nearest: Star Wars"):
        fewrec.ask({"Star Warz": 5}, dataset=dataset)


def test_the_table_shows_the_chance_only_where_it_counts_and_titles_are_text(user):
    text = show_text(questions(user, top=60))
    assert "known by" in text and "expected" in text and "\x1b[31mRed" not in text
    assert "expected" not in show_text(questions(user, popular=False)) and "genres" not in show_text(
        questions(user), width=80
    )
    rows = show.rows_of(questions(user, top=60))
    assert "'=HYPERLINK(evil)" in show.as_csv(rows, show.csv_columns(questions(user)))
