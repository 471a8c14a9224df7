"""Distributions on their way into score rows: of batches, of single episodes, online, of clicks, and broken ones."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

import fewrec
from fewrec.checksums import unsealed
from fewrec.data.load import open_dataset
from fewrec.data.table import Scale
from fewrec.errors import DataError
from fewrec.report.comparison.integrity import check_integrity
from fewrec.report.comparison.score_difference import score_difference
from fewrec.report.export import export_reference
from fewrec.runner.choose import Filter
from fewrec.runner.frozen import export_suite
from fewrec.runner.score import score
from fewrec.runner.verify import verify
from tests.runner.conftest import TINY

NEW = ["log_density", "within90"]
SUITE = TINY.replace("[2, 3]", "[3]").replace("[0, 1]", "[0]").replace('"tiny"]', '"synthetic"]')
OPTIONS = {"progress": False, "threads": 1, "device": "cpu"}
LEARNERS = '''
"""Learners that know their error, or say that they do."""
import time

import torch

from fewrec.learners.base import Learner, Predictor


class Spread(Predictor):
    def __init__(self, center, sd, asked):
        self.center, self.sd, self.asked = center, sd, asked

    def predict(self, users, items):
        return self.center + 0.01 * items.double()

    def distribution(self, users, items):
        time.sleep(0.01)
        return self.predict(users, items), torch.full((len(items),), self.sd, dtype=torch.float64)


class Wide(Learner):
    """One episode at a time: the deviation is 30."""
    name = "wide"
    sd = 30.0

    def adapt(self, support, ctx):
        return Spread(support.rating.double().mean(), self.sd, 0)


class Certain(Wide):
    """A deviation of 0."""
    name = "certain"
    sd = 0.0


class Narrow(Wide):
    """A deviation of a hundredth."""
    name = "narrow"
    sd = 0.01


class Shapeless(Wide):
    """A number in the place of a distribution."""
    name = "shapeless"

    def adapt(self, support, ctx):
        predictor = super().adapt(support, ctx)
        predictor.distribution = lambda users, items: 1.0
        return predictor


class Plain(Learner):
    """Wide without its distribution."""
    name = "plain"

    def adapt(self, support, ctx):
        predictor = Spread(support.rating.double().mean(), 1.0, 0)
        predictor.distribution = lambda users, items: None
        return predictor
'''


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run of gp, bias and the learners above, in one task and online."""
    here = tmp_path_factory.mktemp("made")
    (here / "tiny.toml").write_text(f"{SUITE}[protocol]\nonline = [false, true]\n")
    (here / "spread.py").write_text(LEARNERS)
    learners = ["bias", "gp", "wide", "narrow", "certain", "shapeless", "plain"]
    run = fewrec.run(here / "tiny.toml", learners=learners, plugins=[here / "spread.py"], out=here / "run",
                     **OPTIONS)  # fmt: skip
    return here, open_dataset("synthetic"), run


def cell_of(run, label, online=False):
    protocol = "user-cold, online=True" if online else "user-cold"
    (cell,) = run.cells[(run.cells["label"] == label) & (run.cells["protocol"] == protocol)].to_dict("records")
    return cell


@pytest.mark.parametrize("online", [False, True])
@pytest.mark.parametrize("label", ["gp", "wide", "narrow"])
def test_rows_are_the_sums_of_the_stored_predictions_and_deviations(made, label, online):
    here, data, run = made
    cell = cell_of(run, label, online)
    folder = here / "run/cells" / cell["cell"]
    said = pd.concat(
        [pd.read_parquet(file) for file in sorted(folder.glob("predictions-*.parquet"))], ignore_index=True
    )
    rows = pd.concat([pd.read_parquet(file) for file in sorted(folder.glob("block-*.parquet"))], ignore_index=True)
    assert list(said.columns) == ["episode", "user", "item", "prediction", "sd"]
    rating = {(u, i): r for u, i, r in zip(data.table.user, data.table.item, data.table.rating, strict=True)}
    users = rows["user"].to_numpy().reshape(-1, 2)
    truth = np.array([rating[users[e, u], i] for e, u, i in said[["episode", "user", "item"]].to_numpy()])
    density = norm.logpdf(truth, said["prediction"], said["sd"]).reshape(-1, 6).sum(1)
    np.testing.assert_allclose(rows["log_density"], density, rtol=1e-9)
    low, high = norm.interval(0.9, said["prediction"], said["sd"])
    assert rows["within90"].tolist() == ((low <= truth) & (truth <= high)).reshape(-1, 6).sum(1).tolist()
    table = run.leaderboard.set_index(["label", "protocol"]).loc[(label, cell["protocol"])]
    assert table["nlpd"] == pytest.approx(-density.sum() / len(truth))
    assert table["coverage90"] == pytest.approx(rows["within90"].sum() / len(truth))
    if label == "gp" and online:  # what arrives narrows what follows
        first, last = said["sd"].to_numpy().reshape(-1, 6)[:, [0, 5]].T
        assert last.mean() < first.mean()


@pytest.mark.parametrize("label", ["bias", "plain"])
def test_learners_without_a_distribution_have_the_columns_that_they_always_had(made, label):
    here, _, run = made
    folder = here / "run/cells" / cell_of(run, label)["cell"]
    for file in folder.glob("block-*.parquet"):
        assert list(pd.read_parquet(file).columns) == [
            "episode", "user", "n", "se", "ae", "ndcg5", "auc", "pred_mean", "pred_min", "pred_max"
        ]  # fmt: skip
    assert "sd" not in pd.read_parquet(folder / "predictions-0000.parquet")
    table = run.leaderboard[run.leaderboard["label"] == label]
    assert table[["nlpd", "nlpd_low", "coverage90", "coverage90_high"]].isna().all(axis=None)
    own, others = (run.scores[run.scores["cell"] == cell_of(run, one)["cell"]] for one in ("wide", "plain"))
    same = ["se", "ae", "auc", "ndcg5", "pred_mean"]
    np.testing.assert_array_equal(own[same].to_numpy(), others[same].to_numpy())  # it changes no other score


def test_a_distribution_that_is_none_fails_with_the_reason(made):
    _, _, run = made
    for online in (False, True):
        reason = {label: cell_of(run, label, online)["reason"] for label in ("certain", "shapeless")}
        assert "standard deviations are not finite and above 0 (first: 0.0 at 0)" in reason["certain"]
        assert "distribution returned a float, not (mean, standard deviation) or None" in reason["shapeless"]
        assert cell_of(run, "certain", online)["status"] == cell_of(run, "shapeless", online)["status"] == "failed"


def test_intervals_that_are_too_wide_or_too_narrow_are_warned_of(made):
    warning = made[2].leaderboard.set_index(["label", "protocol"])["warning"].xs("user-cold", level="protocol")
    assert "intervals too wide: those of 90 % hold 100.0 % of the ratings" in warning["wide"]
    assert "intervals too narrow: those of 90 % hold " in warning["narrow"]
    assert "intervals" not in warning["bias"] + warning["plain"]


def test_its_time_is_that_of_no_phase(made):
    here, _, run = made
    folder = here / "run/cells" / cell_of(run, "wide")["cell"]
    timing = json.loads((folder / "timing.json").read_text())
    blocks = [json.loads(file.read_text())["batches"] for file in folder.glob("block-*.timing.json")]
    assert np.median(timing["predict_ms"]) < 10  # what the distribution of one episode takes at least
    assert min(p for block in blocks for _, _, p in block) < 0.02  # of two; the least, as the machine may be busy


def test_clicks_are_never_asked_for_a_distribution(made, tiny_data, tmp_path):
    (tmp_path / "tiny.toml").write_text(SUITE)
    table = tiny_data.table
    table = dataclasses.replace(table, rating=(table.rating > np.median(table.rating)).astype(float))
    clicks = dataclasses.replace(tiny_data, table=table, scale=Scale(0, 1, 1), kind="clicks")
    run = fewrec.run(tmp_path / "tiny.toml", data=clicks, learners=["item-popularity", "certain"],
                     plugins=[made[0] / "spread.py"], out=tmp_path / "run", **OPTIONS)  # fmt: skip
    assert set(run.cells["status"]) == {"ok"} and "nlpd" not in run.leaderboard
    assert not set(NEW) & set(run.scores.columns)


# older results


def forget(run):
    """Take the new columns from the cells of a run's folder, as an earlier version would have left them."""
    for file in sorted((run / "cells").glob("*/*-*.parquet")):
        frame = pd.read_parquet(file)
        frame.drop(columns=[name for name in (*NEW, "sd") if name in frame]).to_parquet(file, index=False)
    for file in (run / "cells").glob("*/sums-*.json"):  # nor had it checksums
        file.unlink()
    for file in (run / "cells").glob("*/cell.json"):
        record = unsealed(json.loads(file.read_text()))
        file.write_text(json.dumps({name: value for name, value in record.items() if name != "files"}))


@pytest.fixture
def older(made, tmp_path):
    shutil.copytree(made[0] / "run", tmp_path / "older")
    forget(tmp_path / "older")
    return tmp_path / "older"


def test_older_results_are_read_and_give_the_tables_that_they_gave(older, made):
    frame = fewrec.load_results(older).leaderboard
    assert "nlpd" not in frame and not frame["warning"].str.contains("intervals").any()
    both = [name for name in frame if name != "warning"]
    pd.testing.assert_frame_equal(frame[both], made[2].leaderboard[both])


def test_compare_takes_what_both_have(older, made):
    old = fewrec.compare(older, made[0] / "run").rows
    assert set(old["verdict"]) == {"same bytes"} and "nlpd_diff" not in old
    new = fewrec.compare(made[0] / "run", made[0] / "run").rows.set_index("label")
    assert (new.loc["gp", "nlpd_diff"] == 0).all() and new.loc["bias", "nlpd_diff"].isna().all()


def test_verify_compares_the_new_columns_where_the_record_has_them(older, made):
    for folder, notes in ((older, [("scores", "log_density, within90")]), (made[0] / "run", [])):
        found = verify(folder, count=None, wanted=Filter(learners=("gp", "bias")))
        verdicts = {
            (one.label, one.outcome): [note for note in one.notes if note[0] == "scores"] for one in found.cells
        }
        assert verdicts == {("gp", "same bytes"): notes, ("bias", "same bytes"): []}
    problems = verify(older, count=1, wanted=Filter(learners=("gp",))).integrity.problems
    assert not any("nlpd" in one for one in problems)


def test_what_only_one_side_has_is_a_difference_when_it_is_lost(older, made):
    scores = (fewrec.load_results(folder).scores for folder in (older, made[0] / "run"))
    old, new = (one[one["cell"] == cell_of(made[2], "gp")["cell"]] for one in scores)
    found = score_difference(old, new)
    assert found.same_bytes and found.unrecorded == ("log_density", "within90")
    assert score_difference(new, new).same_bytes and score_difference(new, new).unrecorded == ()
    lost = score_difference(new, old)
    assert "'log_density' is only in the record" in lost.rows
    edited = score_difference(new, new.assign(within90=new["within90"] - 1))
    assert edited.first.startswith("within90 of episode 0") and not edited.same_bytes


def test_a_folder_and_its_reference_fit_together_with_and_without_the_columns(older, made, tmp_path):
    export_reference(made[0] / "run", tmp_path / "reference")
    again = fewrec.load_results(tmp_path / "reference")
    pd.testing.assert_frame_equal(again.leaderboard, made[2].leaderboard)
    assert check_integrity(again).problems == []
    found = check_integrity(fewrec.load_results(older))  # its tables are of the version that knew of distributions
    assert not any("nlpd" in one for one in found.problems)
    export_reference(older, tmp_path / "older-reference")
    plain = fewrec.load_results(tmp_path / "older-reference")
    assert check_integrity(plain).problems == [] and not set(NEW) & set(plain.scores.columns)


# predictions made elsewhere


@pytest.fixture(scope="module")
def elsewhere(made, tmp_path_factory):
    here, data, run = made
    out = tmp_path_factory.mktemp("frozen")
    (out / "tiny.toml").write_text(SUITE)
    export_suite(str(out / "tiny.toml"), out / "episodes", data=data)
    folder = here / "run/cells" / cell_of(run, "gp")["cell"]
    return out, pd.concat(
        [pd.read_parquet(file) for file in sorted(folder.glob("predictions-*.parquet"))], ignore_index=True
    )


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_predictions_with_deviations_get_the_figures_of_the_run(made, elsewhere, tmp_path, form):
    out, said = elsewhere
    path = tmp_path / f"p.{form}"
    shuffled = said.sample(frac=1, random_state=0)
    shuffled.to_csv(path, index=False) if form == "csv" else shuffled.to_parquet(path, index=False)
    found = score(path, out / "episodes", label="elsewhere").leaderboard.set_index("label").loc["elsewhere"]
    run = made[2].leaderboard.set_index(["label", "protocol"]).loc[("gp", "user-cold")]
    columns = ["rmse", "nlpd", "nlpd_low", "nlpd_high", "coverage90", "coverage90_low", "coverage90_high"]
    assert found[columns].tolist() == run[columns].tolist()


@pytest.mark.parametrize(("bad", "said"), [(0.0, "0.0"), (-1.0, "-1.0"), (np.nan, "nan")])
def test_a_deviation_that_is_none_is_refused_with_its_row(elsewhere, tmp_path, bad, said):
    out, frame = elsewhere
    changed = frame.copy()
    changed.loc[[6, 9], "sd"] = bad
    for form in ("parquet", "csv"):
        path = tmp_path / f"p.{form}"
        changed.to_csv(path, index=False) if form == "csv" else changed.to_parquet(path, index=False)
        with pytest.raises(DataError, match=rf"row 7 \(.*\): its sd is {said}, not finite and above 0; 2 such rows"):
            score(path, out / "episodes")
    frame.assign(sd=1e-200).to_parquet(tmp_path / "tiny.parquet")
    with pytest.raises(DataError, match=r"tiny\.parquet: synthetic.*gives no density"):
        score(tmp_path / "tiny.parquet", out / "episodes")
