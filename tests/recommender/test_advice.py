"""What is advised: the best unseen items, an interval, the ratings that moved it, and updates without training."""

import numpy as np
import pandas as pd
import pytest
import torch

from fewrec.episodes.support import SupportBatch
from fewrec.errors import NotApplicable, SuiteError
from fewrec.recommender import show
from fewrec.recommender.advice import AdaptedUser, _support
from fewrec.recommender.api import recommend
from fewrec.recommender.ratings import UserRatings
from fewrec.recommender.trained import train_or_load

MINE = UserRatings(np.array([0, 1, 3, 20, 33]), np.array([5.0, 4.0, 1.0, 2.0, 5.0]))
MORE = UserRatings(np.array([7, 40]), np.array([5.0, 1.0]))


def advised(name, dataset, titles, ratings=MINE, **settings):
    return AdaptedUser.of(train_or_load(name, dataset, settings=settings), titles, ratings)


def test_the_best_unseen_items_come_first_and_rated_ones_never(dataset, titles):
    user = advised("gp", dataset, titles, rank=3)
    frame = user.recommend(top=60).frame
    assert len(frame) == 60 - len(MINE) and not set(frame["item"]) & set(dataset.catalog.item_ids[MINE.item])
    assert (frame["score"].diff().dropna() <= 0).all() and list(frame["rank"]) == list(range(1, 56))
    by_item = pd.Series(user.scores().numpy(), dataset.catalog.item_ids)
    assert np.array_equal(frame["score"], by_item[frame["item"]])
    counts = np.bincount(dataset.table.item, minlength=60)
    assert np.array_equal(frame["ratings"], counts[frame["item"] - 1])


def test_predictions_and_intervals_are_shown_within_the_scale_and_ranked_without_it(dataset, titles):
    extreme = UserRatings(np.arange(40), np.full(40, 5.0))
    user = advised("gp", dataset, titles, extreme, rank=3)
    frame = user.recommend(top=20).frame
    assert frame["score"].max() > 5 and frame["predicted"].max() == 5
    assert frame[["predicted", "low", "high"]].to_numpy().min() >= 1 and frame["high"].max() == 5
    assert (frame["low"] < frame["predicted"]).all()
    assert (frame["score"].diff().dropna() <= 0).all()


def test_the_interval_is_the_normal_one_of_the_learners_distribution(dataset, titles):
    user = advised("gp", dataset, titles, rank=3)
    found = user.recommend(top=60)
    items = torch.tensor([int(item) - 1 for item in found.frame["item"]])
    mean, deviation = user.predictor.distribution(torch.zeros_like(items), items)
    assert found.level == 0.9
    expected = (mean - 1.6448536269514722 * deviation).clip(1, 5)
    assert np.allclose(found.frame["low"], expected, rtol=0, atol=1e-12)
    assert found.frame["low"].gt(1).any()


def test_a_learner_without_a_distribution_has_no_interval(dataset, titles):
    found = advised("bias", dataset, titles).recommend(top=3)
    assert found.frame[["low", "high"]].isna().all(axis=None)
    assert "interval" not in show_text(found)


def show_text(found, width=200):
    from io import StringIO

    from rich.console import Console

    out = StringIO()
    Console(file=out, width=width).print(show.as_table(found, width))
    return out.getvalue()


def test_what_moved_a_prediction_is_the_prediction_without_that_rating(dataset, titles):
    user = advised("maml-mf", dataset, titles, meta_steps=10, rank=3)
    found = user.recommend(top=4, explain=len(MINE))
    for row in found.moved.itertuples():
        kept = dataset.catalog.item_ids[MINE.item] != row.rated_item
        without = advised("maml-mf", dataset, titles, UserRatings(MINE.item[kept], MINE.rating[kept]),
                          meta_steps=10, rank=3)  # fmt: skip
        at = int(row.item) - 1
        assert float(user.scores()[at] - without.scores()[at]) == pytest.approx(row.change, abs=1e-4)
    assert len(found.moved) == 4 * len(MINE)
    for _, part in found.moved.groupby("rank"):
        assert (part["change"].abs().diff().dropna() <= 0).all()


def test_leaving_out_agrees_with_the_exact_identity_of_a_gaussian_process(dataset, titles):
    """Without the model of choice, dropping rating i moves the prediction by ``explain`` times i's own surprise."""
    user = advised("gp", dataset, titles, rank=3, selection=0.0)
    found = user.recommend(top=10, explain=len(MINE))
    surprise = {}
    for i, item in enumerate(MINE.item):
        kept = np.arange(len(MINE)) != i
        left = advised("gp", dataset, titles, UserRatings(MINE.item[kept], MINE.rating[kept]), rank=3, selection=0.0)
        surprise[int(dataset.catalog.item_ids[item])] = float(MINE.rating[i] - left.scores()[item])
    for rank, part in found.moved.groupby("rank"):
        item = int(found.frame["item"][rank - 1]) - 1
        weight = dict(zip(dataset.catalog.item_ids[MINE.item].tolist(), user.predictor.explain(0, item).tolist(),
                          strict=True))  # fmt: skip
        expected = np.array([weight[row.rated_item] * surprise[row.rated_item] for row in part.itertuples()])
        np.testing.assert_allclose(part["change"].to_numpy(float), expected, rtol=0, atol=1e-9)
        assert np.array_equal(np.sign(part["change"].to_numpy(float)), np.sign(expected))
        assert (np.diff(np.abs(expected)) <= 1e-9).all()
    assert found.moved["change"].abs().max() > 0.05


def test_very_many_ratings_are_left_out_in_parts_with_the_same_result(dataset, titles, monkeypatch):
    user = advised("gp", dataset, titles, rank=3)
    whole = user.recommend(top=3, explain=5).moved
    monkeypatch.setattr("fewrec.recommender.advice._AT_ONCE", 2)
    pd.testing.assert_frame_equal(user.recommend(top=3, explain=5).moved, whole, atol=1e-10)


def test_all_ratings_are_left_out_in_one_batch(dataset, titles, monkeypatch):
    user = advised("gp", dataset, titles, rank=3)
    sizes = []
    adapt_batch = type(user.trained.learner).adapt_batch

    def counted(self, supports, ctx):
        sizes.append(len(supports))
        return adapt_batch(self, supports, ctx)

    monkeypatch.setattr(type(user.trained.learner), "adapt_batch", counted)
    user.recommend(top=3, explain=2)
    assert sizes == [1 + len(MINE)]


SMALL = {"gp": {"rank": 3}, "bias": {}, "knn": {}, "mf-scratch": {}, "maml-mf": {"meta_steps": 10, "rank": 3}}


@pytest.mark.parametrize("name", SMALL)
def test_an_update_equals_adapting_to_all_ratings_at_once(name, dataset, titles):
    updated = advised(name, dataset, titles, **SMALL[name]).update(MORE)
    at_once = advised(name, dataset, titles, MINE.joined(MORE), **SMALL[name])
    torch.testing.assert_close(updated.scores(), at_once.scores(), rtol=0, atol=1e-4)
    found, expected = updated.recommend(10), at_once.recommend(10)
    assert list(found.frame["item"]) == list(expected.frame["item"]) and found.k_shot == 7
    assert "update" in found.seconds and "rank_before" in found.frame and "rank_before" not in expected.frame


def test_an_update_goes_through_the_predictors_own_update(dataset, titles, monkeypatch):
    user = advised("gp", dataset, titles, rank=3)
    calls = []
    update = type(user.predictor).update

    def counted(self, support, ctx):
        calls.append(support.item.tolist())
        return update(self, support, ctx)

    monkeypatch.setattr(type(user.predictor), "update", counted)
    user.update(MORE)
    assert calls == [MORE.item.tolist()]


def test_a_new_rating_of_a_rated_item_replaces_the_old_one_and_says_so(dataset, titles):
    again = UserRatings(np.array([3, 40]), np.array([5.0, 1.0]))
    user = advised("gp", dataset, titles, rank=3).update(again)
    assert user.notes == ("'Sabrina (1954)' was rated 1, and is 5 now",)
    assert dict(zip(user.ratings.item.tolist(), user.ratings.rating.tolist(), strict=True))[3] == 5
    expected = advised("gp", dataset, titles, MINE.joined(again), rank=3)
    torch.testing.assert_close(user.scores(), expected.scores(), rtol=0, atol=1e-10)


def test_an_update_tells_the_rank_before_it(dataset, titles):
    user = advised("gp", dataset, titles, rank=3)
    before = user.recommend(60).frame.set_index("item")["rank"]
    after = user.update(MORE).recommend(60).frame
    assert np.array_equal(after["rank_before"], before[after["item"]])
    assert not np.array_equal(after["rank_before"], after["rank"])


def test_without_ratings_learners_that_can_recommend_what_is_liked_and_others_refuse(dataset, titles):
    found = advised("gp", dataset, titles, UserRatings.none(), rank=3).recommend(5)
    assert len(found.frame) == 5 and found.moved.empty and found.k_shot == 0
    for name in ("user-median", "mf-scratch"):
        with pytest.raises(NotApplicable, match=f"'{name}' can't recommend without a rating; give --ratings"):
            recommend(dataset=dataset, learner=name)


def test_one_rating_explains_itself_where_the_learner_works_without_it(dataset, titles):
    one = UserRatings(MINE.item[:1], MINE.rating[:1])
    assert len(advised("gp", dataset, titles, one, rank=3).recommend(2).moved) == 2
    assert advised("mf-scratch", dataset, titles, one).recommend(2).moved.empty


def test_only_items_of_a_genre_are_shown_when_asked(dataset, titles):
    user = advised("bias", dataset, titles)
    frame = user.recommend(60, genre="sci-fi").frame
    assert len(frame) and frame["genres"].str.contains("Sci-Fi").all()
    with pytest.raises(SuiteError, match="no item has the genre 'scifi'; did you mean 'Sci-Fi'"):
        user.recommend(genre="scifi")


def test_a_user_who_has_rated_everything_gets_nothing(dataset, titles):
    everything = UserRatings(np.arange(60), np.tile([1.0, 5.0], 30))
    found = advised("gp", dataset, titles, everything, rank=3).recommend()
    assert found.frame.empty and found.moved.empty
    assert show.as_json(found) and show.as_csv(show.rows_of(found), show.csv_columns(found)).startswith("rank,item,")


def test_equal_predictions_are_ordered_by_the_number_of_ratings(dataset, titles):
    frame = advised("user-mean", dataset, titles).recommend(60).frame
    assert frame["score"].nunique() == 1 and (frame["ratings"].diff().dropna() <= 0).all()


def test_the_python_function_reads_ratings_updates_and_saves(dataset, titles, tmp_path):
    (tmp_path / "mine.csv").write_text("title,rating\nStar Wars,5\nThe Matrix,4\nSabrina (1954),2\n")
    (tmp_path / "more.csv").write_text("title,rating\nNikita,5\n")
    settings = {"rank": 3}
    found = recommend(tmp_path / "mine.csv", dataset=dataset, update=[tmp_path / "more.csv"], settings=settings,
                      save=tmp_path / "saved", top=4, explain=2)  # fmt: skip
    assert found.learner == "gp" and found.k_shot == 4 and len(found.frame) == 4 and len(found.moved) == 8
    loaded = recommend({"Star Wars": 5, "The Matrix": 4, "Sabrina (1954)": 2}, model=tmp_path / "saved",
                       dataset=dataset, top=4)  # fmt: skip
    again = loaded.update({"Nikita": 5})
    pd.testing.assert_frame_equal(again.frame, found.frame)
    only_update = recommend(dataset=dataset, update=[{"Star Wars": 5}], settings=settings)
    pd.testing.assert_frame_equal(
        only_update.frame, recommend({"Star Wars": 5}, dataset=dataset, settings=settings).frame
    )


def test_bad_ratings_are_refused_before_anything_is_trained(dataset, monkeypatch):
    monkeypatch.setattr("fewrec.recommender.api.train_or_load", lambda *a, **k: pytest.fail("it trained"))
    with pytest.raises(Exception, match="Star Warz"):
        recommend({"Star Warz": 5}, dataset=dataset)
    with pytest.raises(SuiteError, match="no data set to recommend from"):
        recommend({"Star Wars": 5})
    with pytest.raises(SuiteError, match="give 1 or more"):
        recommend(dataset=dataset, top=0)


def test_titles_are_harmless_in_every_format(dataset, titles):
    found = advised("gp", dataset, titles, rank=3).recommend(60, explain=5)
    assert "HYPERLINK" in " ".join(found.frame["title"])
    csv = show.as_csv(show.rows_of(found), show.csv_columns(found))
    assert ",'=HYPERLINK(evil)," in csv and "\x1b" not in csv
    assert len(csv.splitlines()) == 1 + len(found.frame)
    table = show_text(found)
    assert "\x1b" not in table and "\x07" not in table and "=HYPERLINK(evil)" in table
    assert "\\u001b" not in show.as_json(found)


def test_markup_in_a_title_is_shown_as_it_stands(dataset, titles):
    assert "[31mRed Line" in show_text(advised("bias", dataset, titles).recommend(60))


def test_in_a_notebook_the_table_is_shown_and_its_titles_escaped(dataset, titles):
    from dataclasses import replace

    text = dataset.catalog.text.copy()
    text["title"] = "<script>x</script>"
    hostile = replace(dataset, catalog=replace(dataset.catalog, text=text))
    found = recommend({1: 5}, dataset=hostile, learner="bias", top=3)
    assert "&lt;script&gt;" in found._repr_html_() and "<script>" not in found._repr_html_()
    assert len(repr(found).splitlines()) == 4


def test_nine_in_ten_ratings_of_new_users_lie_within_the_interval(ml_100k, tmp_path):
    from statistics import NormalDist

    from fewrec.episodes.meta import MetaTrainSet
    from fewrec.episodes.protocol import Protocol
    from fewrec.episodes.sampler import EpisodeSampler
    from fewrec.episodes.split import split_dataset
    from fewrec.learners.base import Context
    from fewrec.learners.gp import GP
    from fewrec.recommender.advice import LEVEL

    split = split_dataset(ml_100k, Protocol(state="user-cold", k_max=5), 0)
    ctx = Context(torch.device("cpu"), split.catalog, ml_100k.scale, tmp_path)
    gp = GP(GP.Config(sweeps=5))
    gp.meta_fit(MetaTrainSet(split, ml_100k.scale), ctx)
    test = EpisodeSampler(split.pools["test"], 0, "test", k_max=5)
    drawn = test.sample(0, 200, n_users=5, k_shot=5, n_query=10)
    query = drawn.query
    mean, deviation = gp.adapt_batch(drawn.support, ctx).distribution(query.episode, query.user, query.item)
    half = NormalDist().inv_cdf(0.5 + LEVEL / 2) * deviation
    inside = float(((drawn.answers.rating - mean).abs() <= half).double().mean())
    assert LEVEL == 0.9 and 0.87 < inside < 0.93


def test_narrow_terminals_get_the_columns_that_matter(dataset, titles):
    text = show_text(advised("gp", dataset, titles, rank=3).recommend(3), 80)
    assert "predicted" in text and "interval" in text and "genres" not in text and "item" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_support_of_an_update_and_of_a_whole_have_one_seed():
    batch = SupportBatch.of([_support(MINE, 3), _support(MORE, 3)])
    assert batch.seeds[0] == batch.seeds[1] != _support(MINE, 4).seed
    assert batch.meta_user.tolist() == [-1, -1]
