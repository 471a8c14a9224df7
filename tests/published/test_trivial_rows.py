"""The trivial rows of the published protocols, computed again by a few lines of NumPy on the exported episodes.

Nothing of fewrec's learners, sampler or metrics is used here but the files that ``fewrec episodes export`` writes.
"""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import cg

import fewrec
from fewrec.data.cards import load_card
from fewrec.data.load import read_files
from fewrec.runner.frozen import export_suite

LEARNERS = ("global-mean", "user-mean", "user-median", "item-mean", "item-popularity", "bias")
EPISODES = 60


def effects(train: pd.DataFrame, n_items: int) -> tuple[float, np.ndarray]:
    """Solve the normal equations of mu + b_i + b_u, ridge 5 on items and 10 on users, mu free: (mu, b_i)."""
    n_users = int(train.user.max()) + 1
    columns = np.stack([np.zeros(len(train), int), 1 + train.item, 1 + n_items + train.user], axis=1)
    size = 1 + n_items + n_users
    design = csr_array((np.ones(columns.size), columns.ravel(), np.arange(0, columns.size + 1, 3)), (len(train), size))
    ridge = diags_array(np.r_[0.0, np.full(n_items, 5.0), np.full(n_users, 10.0)])
    found, failed = cg(design.T @ design + ridge, design.T @ train.rating.to_numpy(), rtol=1e-12)
    assert not failed
    return found[0], found[1 : 1 + n_items]


def predictions(
    train: pd.DataFrame, users: pd.DataFrame, support: pd.DataFrame, query: pd.DataFrame, n_items: int
) -> dict[str, np.ndarray]:
    mean, count = train.rating.mean(), np.bincount(train.item, minlength=n_items)
    own = support.groupby(["episode", "user"]).rating.agg(["sum", "count", "median"])
    own = own.reindex(pd.MultiIndex.from_frame(query[["episode", "user"]])).to_numpy()
    line = np.polyfit(np.log1p(count)[train.item], train.rating, 1)
    mu, of_item = effects(train, n_items)
    of_item[count == 0] = (count * of_item).sum() / count.sum()
    known = pd.concat([support, users.merge(train.rename(columns={"user": "meta_user"}), on="meta_user")])
    left = (known.rating - mu - of_item[known.item]).groupby([known.episode, known.user]).agg(["sum", "count"])
    left = left.reindex(pd.MultiIndex.from_frame(query[["episode", "user"]])).to_numpy()
    return {
        "global-mean": np.full(len(query), mean),
        "user-mean": (own[:, 0] + 6 * mean) / (own[:, 1] + 6),
        "user-median": own[:, 2],
        "item-mean": ((np.bincount(train.item, train.rating, n_items) + 5 * mean) / (count + 5))[query.item],
        "item-popularity": np.where(count > 0, np.polyval(line, np.log1p(count)), mean)[query.item],
        "bias": mu + of_item[query.item] + left[:, 0] / (left[:, 1] + 6),
    }


def precision_of_top(truth: np.ndarray, prediction: np.ndarray, k: int = 5) -> float:
    """Return the expected share of the k highest-rated items among the k first, ties broken at random."""

    def share(values: np.ndarray) -> np.ndarray:
        above, tied = (values[None] > values[:, None]).sum(1), (values[None] == values[:, None]).sum(1)
        return np.clip(k - above, 0, tied) / tied

    return float((share(truth) * share(prediction)).sum() / k)


def ndcg(gain: np.ndarray, prediction: np.ndarray, k: int) -> float:
    """Return nDCG@k with the discount 1 / log2(place + 1), the mean over all orders of what is tied."""
    place = np.arange(len(gain))
    discount = np.where(place < k, 1 / np.log2(place + 2), 0)
    above = (prediction[None] > prediction[:, None]).sum(1)
    tied = (prediction[None] == prediction[:, None]).sum(1)
    mean = np.array([discount[a : a + t].mean() for a, t in zip(above, tied, strict=True)])
    return float((gain * mean).sum() / (np.sort(gain)[::-1] * discount).sum())


@pytest.fixture
def data(request):
    name = request.param
    if name == "ml-100k":
        return request.getfixturevalue("ml_100k")
    test_data = request.getfixturevalue("test_data")
    if name == "ml-1m":
        return request.getfixturevalue("ml_1m")
    return read_files(load_card(name), test_data / name, "clover", "")


@pytest.fixture(scope="module")
def ml_1m(test_data, tmp_path_factory):
    if not (test_data / "ml-1m").is_dir():
        pytest.skip(f"no ml-1m in {test_data}")
    folder = tmp_path_factory.mktemp("ml-1m")
    for name in ("movies.dat", "users.dat"):
        shutil.copy(test_data / "ml-1m" / name, folder)
    frame = pd.read_csv(test_data / "ml-1m" / "ratings.csv.gz").fillna(0).astype(int)  # half of the times are not known
    columns = [frame[name].astype(str) for name in ("user", "item", "rating", "timestamp")]
    lines = columns[0].str.cat(columns[1:], sep="::")
    (folder / "ratings.dat").write_text("\n".join(lines) + "\n")
    return read_files(load_card("ml-1m"), folder, "movielens-dat", "")


@pytest.mark.parametrize(
    "suite, data",
    [
        ("published/recbole-metarec-ml-100k", "ml-100k"),
        ("published/clover-ml-100k", "clover-ml-100k"),
        ("published/clover-book-crossing", "clover-book-crossing"),
    ],
    indirect=["data"],
)
def test_a_few_lines_of_numpy_give_the_same_figures(suite, data, tmp_path):
    options = {"data": data, "seeds": [0], "episodes": EPISODES}
    table = fewrec.run(suite, learners=LEARNERS, out=tmp_path / "run", progress=False, **options).leaderboard
    export_suite(suite, tmp_path / "frozen", **options)
    (task,) = (tmp_path / "frozen").glob("*/*/seed-0/n1-krest-q10")
    parts = [pd.read_parquet(task / f"{name}.parquet") for name in ("users", "support", "query", "answers")]
    _, _, query, answers = parts
    train = pd.read_parquet(task.parent / "meta_train.parquet")
    truth, scale = answers.rating.to_numpy(), data.scale
    found = table.set_index("label")
    for label, predicted in predictions(train, *parts[:3], data.table.n_items).items():
        rmse = np.sqrt(((predicted.clip(scale.low, scale.high) - truth) ** 2).mean())
        assert found.loc[label, "rmse"] == pytest.approx(rmse, abs=1e-6), label
        if label == "bias":
            continue  # two solvers differ in the last digits, which breaks its ties in another way
        per_user = [
            precision_of_top(truth[rows], predicted[rows])
            for rows in query.groupby(["episode", "user"]).indices.values()
            if np.ptp(truth[rows]) > 0
        ]
        assert found.loc[label, "top5_precision"] == pytest.approx(np.mean(per_user), abs=1e-6), label


@pytest.mark.parametrize("data", ["ml-1m"], indirect=True)
def test_a_few_lines_of_numpy_give_the_same_figures_of_melus_four_states(data, tmp_path):
    states = ("user-cold", "item-cold", "both-cold", "warm")
    suite = "published/melu-ml-1m"
    options = {"data": data, "states": states, "seeds": [0], "episodes": EPISODES}
    table = fewrec.run(suite, learners=LEARNERS, out=tmp_path / "run", progress=False, **options).leaderboard
    export_suite(suite, tmp_path / "frozen", **options)
    year = data.catalog.text["year"].astype(int).to_numpy()
    for state in states:
        (task,) = (tmp_path / "frozen").glob(f"*/{state}+*/seed-0/n1-krest-q10")
        parts = [pd.read_parquet(task / f"{name}.parquet") for name in ("users", "support", "query", "answers")]
        _, support, query, answers = parts
        train = pd.read_parquet(task.parent / "meta_train.parquet")
        sizes = support.groupby("episode").size() + 10
        assert sizes.between(13, 100).all() and len(sizes) == EPISODES
        unseen = state in ("item-cold", "both-cold")
        for part in (support, query):
            assert ((year[part.item] > 1997) if unseen else (year[part.item] <= 1997)).all()
        assert (year[train.item] <= (1996 if unseen else 1997)).all()
        found = table[table["state"] == state].set_index("label")
        truth = answers.rating.to_numpy()
        for label, predicted in predictions(train, *parts[:3], data.table.n_items).items():
            error = predicted.clip(1, 5) - truth
            assert found.loc[label, "rmse"] == pytest.approx(np.sqrt((error**2).mean()), abs=1e-6), (state, label)
            assert found.loc[label, "mae"] == pytest.approx(np.abs(error).mean(), abs=1e-6), (state, label)
            if label == "bias":
                continue  # two solvers differ in the last digits, which breaks its ties in another way
            for k in (1, 3):
                per_user = [
                    ndcg(truth[rows] - 1, predicted[rows], k)
                    for rows in query.groupby("episode").indices.values()
                    if np.ptp(truth[rows]) > 0
                ]
                assert found.loc[label, f"ndcg{k}"] == pytest.approx(np.mean(per_user), abs=1e-6), (state, label, k)


@pytest.mark.parametrize("data", ["ml-1m"], indirect=True)
def test_as_many_users_have_13_to_100_ratings_in_a_state_as_the_published_files_have(data):
    new = data.catalog.text["year"].astype(int).to_numpy()[data.table.item] > 1997
    of_old, of_new = (np.bincount(data.table.user[rows], minlength=data.table.n_users) for rows in (~new, new))
    assert ((of_old > 0).sum(), (of_new > 0).sum()) == (4_832 + 1_208, 4_769 + 1_197)
    kept = [int(((counts >= 13) & (counts <= 100)).sum()) for counts in (of_old, of_new)]
    assert kept == [4_832 - 2_179 + 1_208 - 540, 4_769 - 1_906 + 1_197 - 474]


def test_the_shares_of_users_are_those_of_the_protocols(ml_100k, tmp_path):
    suite = "published/recbole-metarec-ml-100k"
    record = export_suite(suite, tmp_path / "frozen", data=ml_100k, seeds=[0], episodes=2)
    (name,) = record.tasks
    counts = np.bincount(ml_100k.table.user)
    eligible = ((counts >= 13) & (counts <= 100)).sum()
    train = pd.read_parquet((tmp_path / "frozen" / name).parent / "meta_train.parquet")
    assert train.user.nunique() == round(0.8 * eligible)
