"""The trivial rows of the published protocols, computed again by a few lines of NumPy on the exported episodes.

Nothing of fewrec's learners, sampler or metrics is used here but the files that ``fewrec episodes export`` writes.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import fewrec
from fewrec.data.cards import load_card
from fewrec.data.load import read_files
from fewrec.runner.frozen import export_suite

LEARNERS = ("global-mean", "user-mean", "user-median", "item-mean", "item-popularity", "bias")
EPISODES = 60


def effects(train: pd.DataFrame, n_items: int) -> tuple[float, np.ndarray]:
    """Solve the normal equations of mu + b_i + b_u, ridge 5 on items and 10 on users, mu free: (mu, b_i)."""
    n_users = int(train.user.max()) + 1
    columns = np.stack([np.zeros(len(train), int), 1 + train.item, 1 + n_items + train.user])
    size = 1 + n_items + n_users
    gram = np.zeros((size, size))
    for a in columns:
        for b in columns:
            np.add.at(gram, (a, b), 1.0)
    gram += np.diag(np.r_[0.0, np.full(n_items, 5.0), np.full(n_users, 10.0)])
    right = sum(np.bincount(column, train.rating, size) for column in columns)
    found = np.linalg.solve(gram, right)
    return found[0], found[1 : 1 + n_items]


def predictions(train: pd.DataFrame, support: pd.DataFrame, query: pd.DataFrame, n_items: int) -> dict[str, np.ndarray]:
    mean, count = train.rating.mean(), np.bincount(train.item, minlength=n_items)
    own = support.groupby(["episode", "user"]).rating.agg(["sum", "count", "median"])
    own = own.reindex(pd.MultiIndex.from_frame(query[["episode", "user"]])).to_numpy()
    line = np.polyfit(np.log1p(count)[train.item], train.rating, 1)
    mu, of_item = effects(train, n_items)
    left = (support.rating - mu - of_item[support.item]).groupby([support.episode, support.user]).sum()
    left = left.reindex(pd.MultiIndex.from_frame(query[["episode", "user"]])).to_numpy()
    return {
        "global-mean": np.full(len(query), mean),
        "user-mean": (own[:, 0] + 6 * mean) / (own[:, 1] + 6),
        "user-median": own[:, 2],
        "item-mean": ((np.bincount(train.item, train.rating, n_items) + 5 * mean) / (count + 5))[query.item],
        "item-popularity": np.polyval(line, np.log1p(count))[query.item],
        "bias": mu + of_item[query.item] + left / (own[:, 1] + 6),
    }


def precision_of_top(truth: np.ndarray, prediction: np.ndarray, k: int = 5) -> float:
    """Return the expected share of the k highest-rated items among the k first, ties broken at random."""

    def share(values: np.ndarray) -> np.ndarray:
        above, tied = (values[None] > values[:, None]).sum(1), (values[None] == values[:, None]).sum(1)
        return np.clip(k - above, 0, tied) / tied

    return float((share(truth) * share(prediction)).sum() / k)


@pytest.fixture
def data(request, ml_100k):
    name = request.param
    if name == "ml-100k":
        return ml_100k
    test_data = request.getfixturevalue("test_data")
    return read_files(load_card(name), test_data / name, "clover", "")


@pytest.mark.parametrize(
    "suite, data",
    [
        ("published/recbole-metarec-ml-100k", "ml-100k"),
        ("published/clover-ml-100k", "clover-ml-100k"),
    ],
    indirect=["data"],
)
def test_a_few_lines_of_numpy_give_the_same_figures(suite, data, tmp_path):
    options = {"data": data, "seeds": [0], "episodes": EPISODES}
    table = fewrec.run(suite, learners=LEARNERS, out=tmp_path / "run", progress=False, **options).leaderboard
    export_suite(suite, tmp_path / "frozen", **options)
    (task,) = (tmp_path / "frozen").glob("*/*/seed-0/n1-krest-q10")
    support, query, answers = (pd.read_parquet(task / f"{name}.parquet") for name in ("support", "query", "answers"))
    train = pd.read_parquet(task.parent / "meta_train.parquet")
    truth, scale = answers.rating.to_numpy(), data.scale
    found = table.set_index("label")
    for label, predicted in predictions(train, support, query, data.table.n_items).items():
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


def test_the_shares_of_users_are_those_of_the_protocols(ml_100k, tmp_path):
    suite = "published/recbole-metarec-ml-100k"
    record = export_suite(suite, tmp_path / "frozen", data=ml_100k, seeds=[0], episodes=2)
    (name,) = record.tasks
    counts = np.bincount(ml_100k.table.user)
    eligible = ((counts >= 13) & (counts <= 100)).sum()
    train = pd.read_parquet((tmp_path / "frozen" / name).parent / "meta_train.parquet")
    assert train.user.nunique() == round(0.8 * eligible)
