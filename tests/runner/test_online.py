"""The online protocol against a plain loop: predict, then learn, one rating at a time."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch

import fewrec
from fewrec.data.synthetic import make_synthetic
from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.protocol import Protocol
from fewrec.episodes.sampler import EpisodeSampler
from fewrec.episodes.split import split_dataset
from fewrec.episodes.support import Support
from fewrec.learners.base import BatchPredictor, Context
from fewrec.learners.registry import learner_class
from fewrec.report.export import export_reference
from fewrec.report.steps import error_by_step
from fewrec.runner.online import predict_online, step_rows
from tests.runner.conftest import TINY

N_QUERY = 6


@pytest.fixture(scope="module")
def data():
    return make_synthetic(n_users=60, n_items=50, ratings_per_user=20, seed=1)


@pytest.fixture(scope="module", params=["random", "time"])
def drawn(request, data):
    time = np.random.default_rng(0).permutation(len(data.table)).astype(np.int64)
    data = dataclasses.replace(data, table=dataclasses.replace(data.table, timestamp=time))
    protocol = Protocol(state="user-cold", k_max=3, online=True, order=request.param)
    split = split_dataset(data, protocol, 0)
    sampler = EpisodeSampler.of(split, protocol)
    return data, split, sampler.sample(0, 3, n_users=2, k_shot=2, n_query=N_QUERY)


@pytest.mark.parametrize("name", ["user-mean", "bias", "mf-foldin", "gp"])
def test_each_prediction_is_that_of_adapting_to_all_that_came_before(drawn, name, tmp_path):
    data, split, episodes = drawn
    ctx = Context(torch.device("cpu"), split.catalog, data.scale, tmp_path)
    learner = learner_class(name)()
    learner.prepare(ctx)
    learner.meta_fit(MetaTrainSet(split, data.scale), ctx)
    answer = predict_online(learner.adapt_batch(episodes.support, ctx), episodes, N_QUERY, ctx)
    found, updates = answer.prediction, answer.update_s
    assert len(updates) == N_QUERY - 1
    query, rating = episodes.query, episodes.answers.rating
    expected = torch.empty(len(rating), dtype=torch.float64)
    for e in range(3):
        rows = torch.nonzero(query.episode == e).squeeze(1)
        start = episodes.support[e]
        for step in range(N_QUERY):
            now = rows[step::N_QUERY]
            before = torch.cat([rows[s::N_QUERY] for s in range(step)]) if step else rows[:0]
            known = Support(
                n_users=2, user=torch.cat([start.user, query.user[before]]), meta_user=start.meta_user, timestamp=None,
                item=torch.cat([start.item, query.item[before]]), rating=torch.cat([start.rating, rating[before]]),
                seed=start.seed,
            )  # fmt: skip
            expected[now] = learner.adapt(known, ctx).predict(query.user[now], query.item[now]).double()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_in_time_order_what_arrives_later_was_rated_later(drawn):
    _, split, episodes = drawn
    if split.protocol.order == "time":
        time = episodes.answers.timestamp.reshape(-1, N_QUERY)
        assert (time.diff(dim=1) >= 0).all()
        assert (episodes.support.timestamp.reshape(-1, 2).max(1).values <= time[:, 0]).all()


class _Spy(BatchPredictor):
    """Notes what it is asked and told; predicts the number of ratings that it knows of the user."""

    def __init__(self, known, log):
        self.known, self.log = known, log

    def predict(self, episode, user, item):
        self.log.append(("asked", list(zip(episode.tolist(), user.tolist(), item.tolist(), strict=True))))
        return torch.tensor([float(self.known[e, u]) for e, u in zip(episode.tolist(), user.tolist(), strict=True)])

    def update(self, supports, ctx):
        told = list(zip(supports.episode.tolist(), supports.user.tolist(), supports.item.tolist(), strict=True))
        self.log.append(("told", told))
        return _Spy({key: n + sum(key == (e, u) for e, u, _ in told) for key, n in self.known.items()}, self.log)


def test_nothing_is_told_before_it_was_asked(drawn, tmp_path):
    data, split, episodes = drawn
    log = []
    ctx = Context(torch.device("cpu"), split.catalog, data.scale, tmp_path)
    known = {(e, u): 2 for e in range(3) for u in range(2)}
    found = predict_online(_Spy(known, log), episodes, N_QUERY, ctx).prediction
    assert [kind for kind, _ in log] == ["asked", "told"] * (N_QUERY - 1) + ["asked"]
    for (_, asked), (_, told) in zip(log[::2], log[1::2], strict=False):
        assert asked == told
    assert found.reshape(-1, N_QUERY).tolist() == [[2.0 + step for step in range(N_QUERY)]] * 6


def test_a_run_keeps_errors_by_step_and_the_latency_of_an_update(data, tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(TINY + "[protocol]\nonline = [false, true]\n")
    out = tmp_path / "out"
    options = {"data": data, "learners": ["user-mean"], "shots": [2], "seeds": [0], "progress": False}
    result = fewrec.run(path, out=out, **options)
    assert set(result.leaderboard["protocol"]) == {"user-cold", "user-cold, online=True"}
    cells = {cell["protocol"]: cell for cell in result.cells.to_dict("records")}
    folder = out / "cells" / cells["user-cold, online=True"]["cell"]
    steps = pd.concat([pd.read_parquet(file) for file in sorted(folder.glob("steps-*.parquet"))])
    scores = result.scores[result.scores["cell"] == folder.name]
    assert steps.groupby("step").size().tolist() == [12] * 6 and steps["n"].eq(1).all()
    for name in ("n", "se", "ae"):
        assert steps[name].sum() == pytest.approx(scores[name].sum())
    timing = json.loads((folder / "timing.json").read_text())
    assert len(timing["update_ms"]) == 6 * 5 and min(timing["update_ms"]) > 0
    plain = out / "cells" / cells["user-cold"]["cell"]
    assert "update_ms" not in json.loads((plain / "timing.json").read_text()) and not list(plain.glob("steps-*"))
    by_step = error_by_step(result)
    assert by_step["step"].tolist() == [1, 2, 3, 4, 5, 6] and set(by_step["protocol"]) == {"user-cold, online=True"}
    assert by_step["diff_bias"].isna().all() and (by_step["rmse_low"] < by_step["rmse"]).all()
    pooled = np.sqrt((by_step["rmse"] ** 2 * by_step["n"]).sum() / by_step["n"].sum())
    online = result.leaderboard.set_index("protocol").loc["user-cold, online=True"]
    assert pooled == pytest.approx(online["rmse"]) and online["update_ms_p95"] >= online["update_ms_p50"] > 0
    export_reference(out, tmp_path / "reference")
    assert error_by_step(fewrec.load_results(tmp_path / "reference")).equals(by_step)
    again = fewrec.run(path, out=tmp_path / "again", **options)
    assert again.scores.equals(result.scores)


def test_there_is_a_step_row_for_each_user_of_an_episode(drawn):
    data, _, episodes = drawn
    prediction = np.full(len(episodes.query.item), 3.0)
    rows = step_rows(episodes, prediction, N_QUERY, 10, data.scale)
    np.testing.assert_allclose(rows["se"], (episodes.answers.rating.numpy() - 3) ** 2)
    assert rows["episode"].tolist() == np.repeat([10, 11, 12], 2 * N_QUERY).tolist() and rows["n"].eq(1).all()
    assert rows["user"].tolist() == np.repeat(episodes.answers.table_user.numpy(), N_QUERY).tolist()
    assert rows["step"].tolist() == list(range(1, N_QUERY + 1)) * 6


def test_a_wrong_shape_is_named(drawn, tmp_path):
    data, split, episodes = drawn
    ctx = Context(torch.device("cpu"), split.catalog, data.scale, tmp_path)

    class Wrong(_Spy):
        def predict(self, episode, user, item):
            return torch.zeros(1)

    with pytest.raises(ValueError, match=r"predict returned shape \(1,\) for 6 queries"):
        predict_online(Wrong({}, []), episodes, N_QUERY, ctx)
