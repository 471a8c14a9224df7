"""The command line end to end: a small real run, and one clear line with exit code 2 for what can't be run."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from fewrec.cli import main

ROOT = Path(__file__).parent.parent


@pytest.fixture
def mine(tmp_path):
    """Return a small file of one's own ratings: 30 users x 12 of 20 items."""
    rows = [(u, (u * 7 + 3 * k) % 20, 1 + (u + k) % 5) for u in range(30) for k in range(12)]
    path = tmp_path / "mine.csv"
    pd.DataFrame(rows, columns=["user", "item", "rating"]).drop_duplicates(["user", "item"]).to_csv(path, index=False)
    return path


SUITE = """
title = "own"
datasets = ["ml-100k"]
states = ["user-cold"]
n_users = 2
shots = 3
n_query = 6
seeds = 0
episodes = 4
learners = ["global-mean", "user-mean", "bias"]
"""


@pytest.fixture
def suite(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(SUITE)
    return str(path)


def invoke(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_a_real_run_through_the_benchmark_script_prints_a_leaderboard(ml_100k, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, ROOT / "benchmarks" / "run.py", "check",
               "--learner", "global-mean,user-mean,bias,mf-scratch",
               "--shots", "5", "--seed", "0", "--episodes", "20", "--out", out, "--threads", "1"]  # fmt: skip
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "bias" in done.stdout and "user-cold" in done.stdout and "both-cold" in done.stdout
    table = pd.read_csv(out / "leaderboard.csv").set_index(["state", "label"])
    assert set(table["status"]) == {"ok"}
    # The bias model knows the items, the others do not: an order that no split of MovieLens-100K turns round.
    rmse = table["rmse"]["user-cold"]
    assert 0.85 < rmse["bias"] < rmse["global-mean"] < 1.3
    before = {name: (out / f"leaderboard.{name}").read_bytes() for name in ("csv", "md", "json")}
    assert invoke("report", out).exit_code == 0
    assert {name: (out / f"leaderboard.{name}").read_bytes() for name in before} == before


def test_own_data_run_from_a_csv(mine, suite, tmp_path):
    result = invoke("run", suite, "--data", mine, "--out", tmp_path / "out", "--threads", 1)
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "out" / "leaderboard.csv")
    assert set(table["dataset"]) == {"mine"} and set(table["label"]) == {"global-mean", "user-mean", "bias"}


def test_a_dry_run_prints_the_cells_and_an_estimate_and_writes_nothing(mine, suite, tmp_path):
    result = invoke("run", suite, "--data", mine, "--out", tmp_path / "out", "--dry-run")
    assert result.exit_code == 0
    assert "3 cells, about" in result.output and result.output.count("seed 0") == 3
    assert not (tmp_path / "out").exists()


def test_conditions_given_twice_make_two_tables_that_say_so(mine, suite, tmp_path):
    conditions = ("--condition", "support_noise=0.0", "--condition", "support_noise=0.5")
    result = invoke("run", suite, "--data", mine, "--out", tmp_path / "out", *conditions)
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "out" / "leaderboard.csv")
    assert table["protocol"].unique().tolist() == ["user-cold", "user-cold, support_noise=0.5"]
    rmse = table.pivot(index="label", columns="protocol", values="rmse")
    same = rmse.iloc[:, 0] == rmse.iloc[:, 1]
    assert same["global-mean"] and not same["user-mean"]  # the query is the same, the support is not
    planned = invoke("run", suite, "--data", mine, "--order", "time", "--dry-run")
    assert planned.exit_code == 2 and "no timestamps" in planned.output


def test_a_setting_shows_in_the_label(mine, suite, tmp_path):
    result = invoke(
        "run", suite, "--data", mine, "--out", tmp_path / "out", "--set", "bias.user_ridge=2.5", "--learner", "bias"
    )
    assert result.exit_code == 0, result.output
    assert pd.read_csv(tmp_path / "out" / "leaderboard.csv")["label"].tolist() == ["bias[user_ridge=2.5]"]


def test_export_holds_no_predictions_and_reports_the_same_table(mine, suite, tmp_path):
    out, reference = tmp_path / "out", tmp_path / "reference"
    assert invoke("run", suite, "--data", mine, "--out", out).exit_code == 0
    assert invoke("export", out, reference).exit_code == 0
    assert sorted(p.name for p in reference.iterdir()) == [
        "leaderboard.csv", "leaderboard.json", "leaderboard.md", "leaderboard.tex", "manifest.json", "scores.parquet",
    ]  # fmt: skip
    assert "prediction" not in pd.read_parquet(reference / "scores.parquet").columns
    before = (reference / "leaderboard.csv").read_bytes()
    assert before == (out / "leaderboard.csv").read_bytes()
    assert invoke("report", reference).exit_code == 0
    assert (reference / "leaderboard.csv").read_bytes() == before


BAD = "user,item,rating\n1,1,3\n1,2,nan\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "quik"], "unknown suite 'quik'; did you mean 'quick'?"),
        (["run", "nowhere.toml"], "suite nowhere.toml: no such file"),
        (["run", "SUITE", "--learner", "bais"], "unknown learner 'bais'; did you mean 'bias'?"),
        (["run", "SUITE", "--dataset", "ml-100"], "unknown dataset 'ml-100'; did you mean 'ml-100k'?"),
        (["run", "SUITE", "--shots", "-1"], "can't be negative"),
        (["run", "SUITE", "--shots", "few"], "neither a whole number nor 'rest'"),
        (["run", "SUITE", "--seed", "-2"], "not a whole number from 0"),
        (["run", "SUITE", "--data", "MINE", "--shots", "40"], "possible"),
        (["run", "SUITE", "--data", "MINE", "--set", "bias.ridge=1"], "unknown key 'ridge'; did you mean"),
        (["run", "SUITE", "--data", "MINE", "--set", "bias=1"], "not of the form learner.option=value"),
        (["run", "SUITE", "--data", "MINE", "--set", "mf.rank=1"], "--set mf: no such learner in suite own"),
        (["run", "SUITE", "--data", "MINE", "--device", "abacus"], "--device abacus: choose auto, cpu, cuda or mps"),
        (["run", "SUITE", "--data", "MINE", "--threads", "0"], "--threads 0"),
        (["run", "SUITE", "--data", "MINE", "--time-limit", "0"], "--time-limit 0"),
        (["run", "SUITE", "--data", "MINE", "--plugin", "none.py"], "--plugin none.py: no such file"),
        (["run", "SUITE", "--data", "BAD"], "bad.csv:3: "),
        (["run", "SUITE", "--data", "missing.csv"], "missing.csv"),
        (["run", "SUITE", "--scale", "1", "5"], "--scale only goes with --data"),
        (["run", "SUITE", "--data", "MINE", "--out", "FILE"], "can't write there"),
        (["report", "nowhere"], "nowhere"),
        (["data", "info", "ml-1ook"], "unknown dataset 'ml-1ook'; did you mean 'ml-100k'?"),
        (["data", "fecth", "ml-100k"], "no such command 'fecth'; did you mean 'fetch'?"),
        (["rum"], "no such command 'rum'; did you mean 'run'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_run_gives_one_line_and_exit_code_2(arguments, message, mine, suite, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.csv").write_text(BAD)
    (tmp_path / "file").write_text("")
    places = {
        "SUITE": suite,
        "MINE": str(mine),
        "BAD": str(tmp_path / "bad.csv"),
        "FILE": str(tmp_path / "file" / "out"),
    }
    result = invoke(*[places.get(a, a) for a in arguments])
    assert result.exit_code == 2, result.output
    assert message in result.output
    said = [line for line in result.output.splitlines() if line.lower().startswith("error")]
    assert len(said) == 1 and "Traceback" not in result.output
    assert not (tmp_path / "results").exists()


def test_a_full_or_read_only_folder_is_refused_before_training(mine, suite, tmp_path, monkeypatch):
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("fewrec.runner.store.shutil.disk_usage", lambda path: usage._replace(free=1000))
    result = invoke("run", suite, "--data", mine, "--out", tmp_path / "out")
    assert result.exit_code == 2 and "MB free" in result.output
    assert not list((tmp_path / "out").rglob("*.parquet"))


def test_a_disk_that_fills_up_in_mid_run_keeps_what_is_complete_and_says_so(mine, suite, tmp_path, monkeypatch):
    import errno

    whole = tmp_path / "whole"
    assert invoke("run", suite, "--data", mine, "--out", whole).exit_code == 0
    real, writes = os.replace, []

    def full(source, target):
        writes.append(target)
        if len(writes) == 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    monkeypatch.setattr("fewrec.runner.store.os.replace", full)
    result = invoke("run", suite, "--data", mine, "--out", tmp_path / "out")
    assert result.exit_code == 2 and "No space left on device" in result.output and "it resumes" in result.output
    monkeypatch.undo()
    assert invoke("run", suite, "--data", mine, "--out", tmp_path / "out").exit_code == 0
    from tests.runner.test_execute import score_bytes

    assert score_bytes(tmp_path / "out") == score_bytes(whole)


def test_listing_learners_is_instant_because_it_imports_none():
    code = "import sys; from fewrec.cli import main; main(['list', 'learners'], standalone_mode=False)"
    code += "; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "maml-mf" in done.stdout and "prompt-lm-meta" in done.stdout


def test_data_commands_show_the_card_and_fetch_verified_files(ml_100k):
    assert "ml-100k" in invoke("data", "list").output
    info = invoke("data", "info", "ml-100k").output
    assert "files.grouplens.org" in info and "research" in info.lower()
    fetched = invoke("data", "fetch", "ml-100k")
    assert fetched.exit_code == 0 and "100,000 ratings by 943 users of 1,682 items" in fetched.output
