"""Tuning: never meta-test, never worse than the start, the same result after an interruption, and a row for suites."""

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import fewrec
from fewrec.cli import main
from fewrec.episodes.split import split_dataset
from fewrec.errors import FolderError, SuiteError
from fewrec.learners.registry import learner_class
from fewrec.runner.suite import parse_suite, validated_config
from fewrec.runner.tuned_rows import load_tuned
from fewrec.seeding import digest
from fewrec.tuning.api import plan_tuning, tune
from fewrec.tuning.objective import Objective, cell_name, tasks_of
from tests.runner.conftest import TINY
from tests.runner.test_execute import cells_of, score_bytes
from tests.tuning.conftest import needs_optuna

pytestmark = needs_optuna
OPTIONS = {"threads": 1, "device": "cpu", "progress": False}

PLUGIN = '''
"""Learners whose trials end in every way that a trial can."""
import os
import time

import torch
from pydantic import Field

from fewrec.episodes.sampler import EpisodeSampler
from fewrec.learners.base import Learner, LearnerConfig, Predictor


class Constant(Predictor):
    def __init__(self, value):
        self.value = value

    def predict(self, users, items):
        return torch.full((len(items),), self.value)


class LevelConfig(LearnerConfig):
    level: float = Field(1.0, gt=0, le=5)


class Level(Learner):
    """Predicts the level; notes every meta-fit."""
    name = "level"
    Config = LevelConfig

    def meta_fit(self, source, ctx):
        if "LEVEL_LOG" in os.environ:
            with open(os.environ["LEVEL_LOG"], "a") as log:
                log.write("fit\\n")
            time.sleep(0.1)

    def adapt(self, support, ctx):
        return Constant(self.config.level)


class Fussy(Level):
    """Breaks or predicts NaN at some options, never comes back at others."""
    name = "fussy"
    adapt_options = frozenset({"level"})

    def adapt(self, support, ctx):
        if self.config.level > 3:
            raise RuntimeError("level\\nis too high")
        if 1 < self.config.level:
            time.sleep(60)
        return Constant(float("nan") if self.config.level < 0.5 else self.config.level)


class Hopeless(Level):
    """Always breaks."""
    name = "hopeless"

    def adapt(self, support, ctx):
        raise RuntimeError("never")


class Peeks(Level):
    """Tries to sample meta-test."""
    name = "peeks"

    def meta_fit(self, source, ctx):
        EpisodeSampler(source._pools["test"], source.seed, "test", k_max=3).sample(0, 1, n_users=2, k_shot=2, n_query=6)
'''


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    monkeypatch.setattr("fewrec.learners.registry._files", {})  # each test brings the same names from a file of its own
    path = tmp_path / "plugin.py"
    path.write_text(PLUGIN)
    return path


def test_the_result_is_the_best_trial_and_never_worse_than_the_start(tiny_suite, tiny_data, tmp_path):
    result = tune(str(tiny_suite), "bias", budget=8, data=tiny_data, out=tmp_path / "t", **OPTIONS)
    trials, tuned = result.trials, result.row.tuned
    assert trials["trial"].tolist() == list(range(8)) and trials["rmse"].notna().all()
    assert trials.loc[0, ["item_ridge", "meta_user_ridge", "user_ridge"]].tolist() == [5.0, 10.0, 6.0]
    assert trials["user_ridge"].nunique() == 8
    assert tuned.validation_rmse == trials["rmse"].min() <= tuned.default_rmse == trials["rmse"][0]
    best = trials.loc[trials["rmse"].idxmin()]
    assert {name: result.row.config[name] for name in result.best.options} == {
        name: best[name] for name in ("item_ridge", "meta_user_ridge", "user_ridge")
    }
    assert (tuned.budget, tuned.trials, tuned.seeds, tuned.dataset, tuned.suite) == (8, 8, (0, 1), "tiny", "tiny")
    assert result.path == tmp_path / "t" / "bias.toml" and load_tuned([result.path]) == [result.row]


def test_a_trials_score_is_the_mean_rmse_over_the_suites_cells_on_meta_validation(tiny_suite, tiny_data):
    suite = parse_suite(tiny_suite.read_text(), "tiny")
    cells = [spec for spec in suite.cells() if spec.learner == "global-mean"]
    cls = learner_class("global-mean")
    tasks, left_out = tasks_of(cells, {"tiny": tiny_data}, cls)
    import torch

    errors = Objective(cls, tasks, torch.device("cpu"), None)(cells[0].config)
    assert set(errors) == {cell_name(spec) for spec in cells} and len(errors) == 4 and not left_out
    for spec in cells:
        split = split_dataset(tiny_data, spec.protocol, spec.seed)
        from fewrec.episodes.sampler import EpisodeSampler

        sampler = EpisodeSampler(split.pools["validation"], spec.seed, "validation", k_max=3)
        truth = sampler.sample(0, 6, n_users=2, k_shot=spec.k_shot, n_query=6).answers.rating.numpy()
        mean = split.meta_train.rating.mean()
        assert errors[cell_name(spec)] == pytest.approx(np.sqrt(np.mean((truth - mean) ** 2)))


def test_clicks_are_tuned_by_auc_and_the_row_says_so(tiny_suite, click_data, tmp_path):
    result = tune(str(tiny_suite), "knn", budget=6, data=click_data, out=tmp_path / "t", seeds=[0], **OPTIONS)
    trials, tuned = result.trials, result.row.tuned
    assert "rmse" not in trials and trials["auc"].between(0, 1).all() and trials["auc"].nunique() > 1
    assert (tuned.metric, tuned.score, tuned.default_score) == ("auc", trials["auc"].max(), trials["auc"][0])
    assert tuned.validation_rmse is None and load_tuned([result.path]) == [result.row]
    assert f"by mean AUC on meta-validation: {tuned.score:.4f}" in result.path.read_text()
    from fewrec.tuning.objective import validation_episodes

    cls, cells = learner_class("item-popularity"), parse_suite(tiny_suite.read_text(), "tiny").cells()
    cells = [spec for spec in cells if spec.learner == "bias" and spec.seed == 0]
    (task,), _ = tasks_of(cells, {"tiny": click_data}, cls)
    import torch

    errors = Objective(cls, [task], torch.device("cpu"), None)({})
    clicks = np.bincount(task.split.meta_train.item, task.split.meta_train.rating, minlength=len(task.split.catalog))
    seen = np.where(task.split.catalog.seen, clicks, np.nan)
    for spec in task.cells:
        drawn, each = validation_episodes(task, spec, 0, 6), []
        user = drawn.support.flat_user(drawn.query.episode, drawn.query.user).numpy()
        for one in range(drawn.support.total_users):
            answers, popularity = drawn.answers.rating.numpy()[user == one], seen[drawn.query.item.numpy()[user == one]]
            pairs = popularity[answers == 1][:, None] - popularity[answers == 0]
            each += [(np.sign(pairs).mean() + 1) / 2] if pairs.size else []
        assert errors[cell_name(spec)] == pytest.approx(1 - np.mean(each)) and not np.isnan(each).any()


def test_ratings_and_clicks_are_not_tuned_together(tiny_suite, tiny_data, click_data):
    cells = parse_suite(tiny_suite.read_text(), "tiny").cells()
    mixed = [*cells, *(replace(spec, dataset="clicks") for spec in cells)]
    with pytest.raises(SuiteError, match="one kind by --dataset .ratings: tiny; clicks: clicks."):
        tasks_of(mixed, {"tiny": tiny_data, "clicks": replace(click_data, name="clicks")}, learner_class("bias"))


def test_a_tuned_row_has_one_metric(tiny_suite, click_data, tmp_path):
    text = tune(str(tiny_suite), "knn", budget=1, data=click_data, out=tmp_path / "t", **OPTIONS).path.read_text()
    for bad in (text + "validation_rmse = 0.5\n", text + "default_rmse = 0.5\n",
                "\n".join(line for line in text.split("\n") if not line.startswith("validation_auc"))):  # fmt: skip
        (tmp_path / "bad.toml").write_text(bad)
        with pytest.raises(SuiteError, match="validation_"):
            load_tuned([tmp_path / "bad.toml"])


def test_meta_test_is_not_in_what_tuning_is_given(tiny_suite, tiny_data, tmp_path, plugin):
    cells = parse_suite(tiny_suite.read_text(), "tiny").cells()
    tasks, _ = tasks_of(cells, {"tiny": tiny_data}, learner_class("bias"))
    for task in tasks:
        assert set(task.split.pools) == {"train", "validation"}
        with pytest.raises(LookupError, match="meta-test can't be reached from tuning"):
            task.split.pools["test"]
    with pytest.raises(SuiteError, match="none of 2 trials of 'peeks' gave a score; .*KeyError: 'test'"):
        tune(str(tiny_suite), "peeks", budget=2, data=tiny_data, plugins=[plugin], **OPTIONS)


@pytest.mark.parametrize("state", ["user-cold", "both-cold", "warm"])
def test_poisoned_ratings_of_meta_test_leave_the_result_byte_for_byte(state, tiny_suite, tiny_data, tmp_path):
    protocol = (
        parse_suite(TINY.replace("user-cold", state).replace("n_query = 6", "n_query = 2"), "t").cells()[0].protocol
    )
    test = split_dataset(tiny_data, protocol, 0).pools["test"]
    table = tiny_data.table
    pairs = {
        (user, item)
        for rows in (test.support, test.query)
        for user, item in zip(np.repeat(test.users, rows.counts), rows.item, strict=True)
    }
    hit = np.array([pair in pairs for pair in zip(table.user, table.item, strict=True)])
    poison = replace(tiny_data, table=replace(table, rating=np.where(hit, 6.0 - table.rating, table.rating)))
    assert hit.any() and (poison.table.rating != table.rating).any()
    options = {"seeds": [0], "states": [state], **OPTIONS}
    tiny_suite.write_text(tiny_suite.read_text().replace("n_query = 6", "n_query = 2"))
    bytes_of, scores = [], []
    for name, data in (("clean", tiny_data), ("poison", poison)):
        bytes_of.append(
            tune(str(tiny_suite), "bias", budget=2, data=data, out=tmp_path / name, **options).path.read_bytes()
        )
        fewrec.run(str(tiny_suite), data=data, out=tmp_path / f"run-{name}", learners=["bias"], **options)
        scores.append(list(score_bytes(tmp_path / f"run-{name}").values()))
    assert bytes_of[0] == bytes_of[1]
    assert scores[0] != scores[1], "the poison was to change the scores on meta-test"


def test_other_ratings_of_meta_validation_are_another_study(tiny_suite, tiny_data, tmp_path):
    protocol = parse_suite(TINY, "t").cells()[0].protocol
    users = split_dataset(tiny_data, protocol, 0).pools["validation"].users
    table = tiny_data.table
    rating = np.where(np.isin(table.user, users), 6.0 - table.rating, table.rating)
    other = replace(tiny_data, table=replace(table, rating=rating))
    tune(str(tiny_suite), "bias", budget=1, data=tiny_data, out=tmp_path / "t", seeds=[0], **OPTIONS)
    with pytest.raises(FolderError, match=r"t/bias: it holds trials of another search \(other data\).*--out"):
        tune(str(tiny_suite), "bias", budget=1, data=other, out=tmp_path / "t", seeds=[0], **OPTIONS)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"shots": [2]}, "episodes"),
        ({"episodes": 5}, "episodes"),
        ({"seeds": [0]}, "data, episodes"),
    ],
)
def test_another_search_in_the_same_folder_is_refused_and_leaves_it_alone(
    change, what, tiny_suite, tiny_data, tmp_path
):
    path = tune(str(tiny_suite), "bias", budget=1, data=tiny_data, out=tmp_path / "t", **OPTIONS).path
    before = path.read_bytes()
    with pytest.raises(FolderError, match=rf"other {what}\)"):
        tune(str(tiny_suite), "bias", budget=1, data=tiny_data, out=tmp_path / "t", **{**OPTIONS, **change})
    assert path.read_bytes() == before


def test_another_space_is_refused(tiny_suite, tiny_data, tmp_path, monkeypatch):
    tune(str(tiny_suite), "bias", budget=1, data=tiny_data, out=tmp_path / "t", **OPTIONS)
    monkeypatch.setattr(learner_class("bias"), "search", {"user_ridge": [1, 9]}, raising=False)
    with pytest.raises(FolderError, match=r"other space\)"):
        tune(str(tiny_suite), "bias", budget=1, data=tiny_data, out=tmp_path / "t", **OPTIONS)


def test_an_interrupted_search_ends_as_an_undisturbed_one_and_a_larger_budget_extends(
    tiny_suite, tiny_data, tmp_path, monkeypatch
):
    options = {"data": tiny_data, "seeds": [0], "shots": [2], **OPTIONS}
    whole = tune(str(tiny_suite), "bias", budget=14, out=tmp_path / "whole", **options)  # TPE takes over at ten
    real, calls = Objective.__call__, []

    def interrupted(self, config):
        calls.append(config)
        if len(calls) in (1, 4, 13):
            raise KeyboardInterrupt
        return real(self, config)

    monkeypatch.setattr(Objective, "__call__", interrupted)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            tune(str(tiny_suite), "bias", budget=12, out=tmp_path / "parts", **options)
    assert not (tmp_path / "parts" / "bias.toml").exists()
    tune(str(tiny_suite), "bias", budget=12, out=tmp_path / "parts", **options)
    parts = tune(str(tiny_suite), "bias", budget=14, out=tmp_path / "parts", **options)
    assert len(calls) == 14 + 3, "no trial that ended was run again"
    columns = [name for name in whole.trials if name != "seconds"]
    pd.testing.assert_frame_equal(parts.trials[columns], whole.trials[columns])
    assert parts.path.read_bytes() == whole.path.read_bytes()
    less = tune(str(tiny_suite), "bias", budget=5, out=tmp_path / "parts", **options)
    assert less.row.tuned.budget == 5 and less.row.tuned.validation_rmse == whole.trials["rmse"][:5].min()
    assert set(whole.importance) == set(whole.best.options) and less.importance == {}


def test_kill_9_in_the_middle_loses_at_most_one_trial(tiny_data, tmp_path, plugin):
    table = tiny_data.table
    pd.DataFrame({"user": table.user, "item": table.item, "rating": table.rating}).to_csv("tiny.csv", index=False)
    (tmp_path / "tiny.toml").write_text(TINY)

    def start(out):
        return subprocess.Popen(
            [sys.executable, "-m", "fewrec", "tune", "tiny.toml", "--data", "tiny.csv", "--learner", "level",
             "--plugin", str(plugin), "--budget", "6", "--seed", "0", "--out", out, "--threads", "1"],
            env={**os.environ, "LEVEL_LOG": f"{out}.log"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    killed, whole = start("killed"), start("whole")
    log, begun = tmp_path / "killed.log", time.monotonic()
    while not (log.exists() and len(log.read_text().split()) == 3):
        assert killed.poll() is None and time.monotonic() - begun < 60
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    again = start("killed")
    output, _ = again.communicate(timeout=120)
    assert again.returncode == 0 and "of 6 trials are there already" in output, output
    assert whole.communicate(timeout=120)[0] and whole.returncode == 0
    assert (tmp_path / "killed" / "level.toml").read_bytes() == (tmp_path / "whole" / "level.toml").read_bytes()
    assert len(log.read_text().split()) == 7, "all but the trial that was under way were kept"


def test_failed_trials_are_recorded_with_their_reason_and_do_not_stop_the_search(
    tiny_suite, tiny_data, tmp_path, plugin
):
    result = tune(str(tiny_suite), "fussy", budget=12, data=tiny_data, plugins=[plugin], seeds=[0], shots=[2],
                  time_limit=1.0, out=tmp_path / "t", **OPTIONS)  # fmt: skip
    trials = result.trials
    failed = trials[trials["rmse"].isna()].set_index("level")["reason"]
    assert set(trials["trial"]) == set(range(12)) and result.row.tuned.trials == 12 - len(failed) > 0
    for level, reason in failed.items():
        expected = "RuntimeError: level is too high" if level > 3 else "not finished within 1 s" if level > 1 else "NaN"
        assert expected in reason
    assert {"R", "n", "V"} == {reason[0] for reason in failed}, "each kind of failure was met"
    assert not trials["level"][trials["rmse"].notna()].gt(1).any()


def test_when_no_trial_gives_a_score_the_last_reason_is_told(tiny_suite, tiny_data, tmp_path, plugin):
    with pytest.raises(SuiteError, match="none of 3 trials of 'hopeless' gave a score; .*RuntimeError: never"):
        tune(str(tiny_suite), "hopeless", budget=3, data=tiny_data, plugins=[plugin], out=tmp_path / "t", **OPTIONS)
    assert not (tmp_path / "t" / "hopeless.toml").exists()


def test_one_meta_fit_serves_all_trials_where_options_of_adapting_alone_are_searched(
    tiny_suite, tiny_data, tmp_path, monkeypatch
):
    fits = []
    cls = learner_class("bias")
    real = cls.meta_fit
    monkeypatch.setattr(cls, "meta_fit", lambda self, source, ctx: (fits.append(source.seed), real(self, source, ctx)))
    held = {"bias": {"item_ridge": 5.0, "meta_user_ridge": 10.0}}
    adapting = tune(str(tiny_suite), "bias", budget=4, data=tiny_data, settings=held, out=tmp_path / "a", **OPTIONS)
    assert fits == [0, 1], "one a seed, shared by both K and by all trials"
    assert set(adapting.best.options) == {"user_ridge"} and adapting.trials["user_ridge"].nunique() == 4
    fits.clear()
    tune(str(tiny_suite), "bias", budget=3, data=tiny_data, out=tmp_path / "b", **OPTIONS)
    assert fits == [0, 1] * 3


def test_shared_meta_fits_change_no_score(tiny_suite, tiny_data):
    import torch

    cells = [spec for spec in parse_suite(tiny_suite.read_text(), "tiny").cells() if spec.learner == "bias"]
    cls = learner_class("bias")
    tasks, _ = tasks_of(cells, {"tiny": tiny_data}, cls)
    configs = [{**cells[0].config, "user_ridge": value} for value in (1.0, 9.0)]
    kept = Objective(cls, tasks, torch.device("cpu"), None, keep_fits=True)
    fresh = [Objective(cls, tasks, torch.device("cpu"), None)(config) for config in configs]
    assert [kept(config) for config in configs] == fresh and fresh[0] != fresh[1]


def test_cells_that_the_learner_cannot_be_run_on_are_left_out_and_named(tiny_suite, tiny_data, tmp_path):
    result = tune(str(tiny_suite), "user-mean", budget=1, data=tiny_data, shots=[0, 2], out=tmp_path / "a", **OPTIONS)
    assert result.left_out == {}
    with pytest.raises(SuiteError, match="'bias-shots' can't be run on suite tiny: the protocol gives no ratings"):
        tune(str(tiny_suite), "bias-shots", budget=1, data=tiny_data, out=tmp_path / "b", **OPTIONS)
    tiny_suite.write_text(TINY.replace('"user-cold"', '"user-cold", "both-cold"').replace("n_query = 6", "n_query = 2")
                          + "[protocol]\nitem_shots = 2\n")  # fmt: skip
    some = tune(str(tiny_suite), "bias-shots", budget=1, data=tiny_data, out=tmp_path / "c", **OPTIONS)
    assert len(some.left_out) == 4 and all("user-cold" in cell for cell in some.left_out)
    assert some.row.tuned.states == ("both-cold",)


def test_a_tuned_row_is_run_beside_the_default_one_and_its_cells_say_how_it_was_found(tiny_suite, tiny_data, tmp_path):
    tuned = tune(str(tiny_suite), "bias", budget=3, data=tiny_data, **OPTIONS)
    assert tuned.path.as_posix() == "results/tune/tiny/bias.toml"
    fewrec.run(str(tiny_suite), data=tiny_data, out=tmp_path / "out", learners=["bias"], tuned=[tuned.path], **OPTIONS)
    records = list(cells_of(tmp_path / "out").values())
    assert len(records) == 8
    for record in records:
        told = record["tuning"]
        if record["spec"]["label"] == "bias":
            assert told == {"kind": "default"}
            continue
        assert record["spec"]["label"] == "bias (tuned)" and told["kind"] == "tuned"
        assert (told["budget"], told["trials"], told["method"], told["seeds"]) == (3, 3, "tpe", [0, 1])
        assert (told["dataset"], told["suite"]) == ("tiny", "tiny")
        assert record["spec"]["config"] == {**tuned.start, **tuned.best.options}


def test_the_file_is_toml_whose_hash_is_that_of_its_whole_configuration(tiny_suite, tiny_data, tmp_path):
    result = tune(str(tiny_suite), "mf-foldin", budget=2, data=tiny_data, seeds=[0], out=tmp_path / "t", **OPTIONS)
    values = tomllib.loads(result.path.read_text())
    (row,) = values["learners"]
    assert row["config"] == json.loads(json.dumps(result.row.config)) and row["tuned"]["method"] == "tpe"
    assert row["tuned"]["config_hash"] == digest(validated_config(result.row))
    assert all(line.startswith("#") for line in result.path.read_text().split("[[learners]]")[0].splitlines())


def test_a_label_a_learner_beside_the_suite_and_settings_choose_what_is_tuned(tiny_suite, tmp_path):
    tiny_suite.write_text(
        TINY.replace('"bias"]', '"bias", {learner = "bias", label = "b2", config = {item_ridge = 3}}]')
    )
    assert plan_tuning(str(tiny_suite), "bias").start["item_ridge"] == 5.0
    labelled = plan_tuning(str(tiny_suite), "b2")
    assert labelled.start["item_ridge"] == 3.0 and "item_ridge" not in labelled.space.searched
    assert plan_tuning(str(tiny_suite), "item-mean").row.shown == "item-mean"
    given = plan_tuning(str(tiny_suite), "bias", settings={"bias": {"user_ridge": 2.0}})
    assert given.row.shown == "bias[user_ridge=2.0]" and set(given.space.searched) == {"item_ridge", "meta_user_ridge"}
    assert given.path.name == "bias-user_ridge-2.0.toml"
    with pytest.raises(SuiteError, match="--set user-mean: the learner that is tuned is 'bias'"):
        plan_tuning(str(tiny_suite), "bias", settings={"user-mean": {"shrinkage": 2.0}})
    tiny_suite.write_text(
        TINY.replace('"bias"]', '{learner = "bias", label = "b1"}, {learner = "bias", label = "b2"}]')
    )
    with pytest.raises(SuiteError, match="suite tiny has it as 'b1', 'b2'; give one of these"):
        plan_tuning(str(tiny_suite), "bias")


# the command line


@pytest.fixture
def mine(tiny_data, tmp_path):
    table = tiny_data.table
    path = tmp_path / "mine.csv"
    pd.DataFrame({"user": table.user, "item": table.item, "rating": table.rating}).to_csv(path, index=False)
    return path


def invoke(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_the_command_prints_progress_the_outcome_and_how_to_use_it(tiny_suite, mine):
    options = ["--data", mine, "--threads", "1", "--device", "cpu", "--seed", "0"]
    done = invoke("tune", tiny_suite, "--learner", "bias,user-mean", "--budget", "3", *options)
    assert done.exit_code == 0, done.output
    assert "[3/3] RMSE " in done.output and "ETA 0:00" in done.output and "best " in done.output
    assert "bias (tuned): RMSE on meta-validation" in done.output and "user-mean (tuned): " in done.output
    assert "before tuning: " in done.output
    assert f"use it: fewrec run {tiny_suite} --tuned results/tune/tiny/bias.toml" in done.output
    used = invoke(
        "run", tiny_suite, *options, "--learner", "bias", "--tuned", "results/tune/tiny/bias.toml", "--out", "o"
    )
    assert used.exit_code == 0, used.output
    assert pd.read_csv("o/leaderboard.csv")["label"].drop_duplicates().tolist().count("bias (tuned)") == 1
    more = invoke("tune", tiny_suite, "--learner", "bias", "--budget", "4", *options)
    assert "3 of 4 trials are there already" in more.output and "[4/4]" in more.output


def test_space_prints_what_is_searched_and_stops(tiny_suite, tmp_path):
    done = invoke("tune", tiny_suite, "--learner", "mf-foldin", "--space", "--set", "mf-foldin.rank=4")
    assert done.exit_code == 0, done.output
    assert "5 of 9 options are searched" in done.output
    assert "item_ridge       0.5 to 50 (log-uniform); the search starts at 5" in done.output
    assert "rank             stays 4: given by hand" in done.output and "sweeps" in done.output
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--learner", "bais"], "unknown learner 'bais'; did you mean 'bias'"),
        (["--learner", "random"], "'random' has no option that is searched; see fewrec tune --space"),
        (["--learner", "bias", "--budget", "0"], "--budget"),
        (["--learner", "bias", "--time-limit", "0"], "--time-limit 0"),
        (["--learner", "bias", "--threads", "0"], "--threads 0"),
        (["--learner", "bias", "--shots", "19"], "meta-validation: N = 2 users an episode"),
        (["--learner", "bias", "--set", "mf.rank=2"], "--set mf: the learner that is tuned is 'bias'"),
        (["--learner", "bias", "--out", "file/t"], "can't write there"),
        ([], "--learner"),
    ],
)
def test_what_cannot_be_tuned_gives_one_line_and_exit_code_2(arguments, message, tiny_suite, mine, tmp_path):
    (tmp_path / "file").write_text("")
    result = invoke("tune", tiny_suite, "--data", mine, *arguments)
    assert result.exit_code == 2 and message in result.output, result.output
    said = [line for line in result.output.splitlines() if line.lower().startswith("error")]
    assert len(said) == 1 and not (tmp_path / "results").exists()


def test_without_optuna_the_command_that_installs_it_is_named(tiny_suite, mine, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    result = invoke("tune", tiny_suite, "--data", mine, "--learner", "bias")
    assert result.exit_code == 2 and "pip install 'fewrec[tune]'" in result.output
