"""TALLRec's movie protocol again in plain Python: its windows, likes and test users, and the trivial rows' figures.

Nothing of fewrec's split, sampler, learners or metrics is used but what a run leaves behind.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

import fewrec
from fewrec.data.likes import likes_of
from fewrec.episodes.sampler import EpisodeSampler
from fewrec.episodes.split import split_dataset
from fewrec.runner.suite import load_suite
from tests.published.test_trivial_rows import effects

SUITE = "published/tallrec-movie"
LEARNERS = ("user-mean", "user-median", "global-mean", "item-mean", "item-popularity", "bias")


@pytest.fixture(scope="module")
def windows(ml_100k):
    """Return the 10,000 windows, as the protocol is described: user, history (items, likes), item, like."""
    table = ml_100k.table
    of_user: dict[int, list[tuple[str, int, int]]] = {}
    for user, item, rating, time in zip(table.user, table.item, table.rating, table.timestamp, strict=True):
        of_user.setdefault(int(user), []).append((str(time), int(item), int(rating > 3)))
    found = []
    for user, rows in of_user.items():
        rows.sort(key=lambda row: row[0])
        for i in range(10, len(rows)):
            history = rows[i - 10 : i]
            found.append((user, [r[1] for r in history], [r[2] for r in history], rows[i][1], rows[i][2]))
    return found[-10_000:]


@pytest.fixture(scope="module")
def split(ml_100k):
    (protocol,) = load_suite(SUITE)[1].protocols_of("user-cold")
    return split_dataset(likes_of(ml_100k, 3), protocol, 0)


@pytest.mark.parametrize(("name", "part"), [("validation", slice(8000, 9000)), ("test", slice(9000, 10_000))])
def test_the_windows_are_those_of_the_description(split, windows, name, part):
    episodes = EpisodeSampler.of(split, split.protocol, name).sample(0, 1000, n_users=1, k_shot=10, n_query=1)
    user, items, likes, item, like = (np.array(column) for column in zip(*windows[part], strict=True))
    np.testing.assert_array_equal(episodes.answers.table_user, user)
    np.testing.assert_array_equal(episodes.support.item.reshape(-1, 10), items)
    np.testing.assert_array_equal(episodes.support.rating.reshape(-1, 10), likes)
    np.testing.assert_array_equal(episodes.query.item, item)
    np.testing.assert_array_equal(episodes.answers.rating, like)


def test_the_test_users_are_sixteen_and_new(split, windows, ml_100k):
    tested = list(dict.fromkeys(user for user, *_ in windows[9000:]))
    assert split.pools["test"].users.tolist() == tested and len(tested) == 16
    assert ml_100k.user_ids[tested[0]] == 934 and ml_100k.user_ids[tested[-1]] == 941
    assert not {user for user, *_ in windows[:8000]} & set(tested)
    assert windows[7999][0] == windows[8000][0] and windows[8999][0] == windows[9000][0]  # two users are cut in two
    held = {(user, i) for user, items, _, item, _ in windows[:8000] for i in (*items, item)}
    train = zip(split.meta_users[split.meta_train.user].tolist(), split.meta_train.item.tolist(), strict=True)
    assert set(train) == held
    assert not held & {(user, item) for user, _, _, item, _ in windows[8000:]}


def predictions(windows, n_items: int) -> dict[str, np.ndarray]:
    """Return the trivial rows' scores of the test windows, from the train windows alone."""
    rows = {(user, i): like for user, items, likes, item, target in windows[:8000]
            for i, like in zip((*items, item), (*likes, target), strict=True)}  # fmt: skip
    codes = {user: code for code, user in enumerate(sorted({user for user, _ in rows}))}
    train = pd.DataFrame([(codes[user], item, like) for (user, item), like in rows.items()],
                         columns=["user", "item", "rating"]).astype(int)  # fmt: skip
    mean = train.rating.mean()
    count, liked = (np.bincount(train.item, w, n_items) for w in (None, train.rating))
    _, items, likes, item, _ = (np.array(column) for column in zip(*windows[9000:], strict=True))
    mu, of_item = effects(train, n_items)
    popularity = np.log1p(liked)
    for of_items in (of_item, popularity):  # an item that meta-train lacks is as the mean of meta-train's rows
        of_items[count == 0] = of_items[train.item].mean()
    return {
        "user-mean": likes.mean(1),
        "user-median": np.median(likes, axis=1),
        "global-mean": np.full(len(item), mean),
        "item-mean": ((liked + 5 * mean) / (count + 5))[item],
        "item-popularity": popularity[item],
        "bias": mu + of_item[item] + (likes - mu - of_item[items]).sum(1) / 16,
    }


def test_a_few_lines_of_numpy_give_the_same_figures(ml_100k, windows, tmp_path):
    run = fewrec.run(SUITE, learners=LEARNERS, data=ml_100k, seeds=[0], out=tmp_path, progress=False)
    table = run.leaderboard.set_index("learner")
    user, truth = (np.array([window[place] for window in windows[9000:]]) for place in (0, 4))
    for learner, score in predictions(windows, ml_100k.table.n_items).items():
        score = score.round(9)
        assert table.loc[learner, "auc_all"] == pytest.approx(roc_auc_score(truth, score), abs=1e-6), learner
        by_user = [roc_auc_score(truth[user == one], score[user == one]) for one in np.unique(user)]
        assert table.loc[learner, "auc"] == pytest.approx(np.mean(by_user), abs=1e-6), learner
    assert table["users"].eq(16).all() and table["episodes"].eq(1000).all()
