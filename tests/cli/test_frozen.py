"""``fewrec episodes`` and ``fewrec score`` end to end: export, verify, predict elsewhere, score, compare."""

import subprocess
import sys

import pandas as pd
import pytest
from click.testing import CliRunner

from fewrec.cli import main

SUITE = """
title = "tiny"
datasets = ["synthetic"]
states = ["user-cold", "warm"]
n_users = 2
shots = [2, 5]
n_query = 6
seeds = [0, 1]
episodes = 4
learners = ["bias"]
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.toml").write_text(SUITE)
    return tmp_path


def fewrec(*arguments: str, code: int = 0) -> str:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(main, list(arguments))
    assert result.exit_code == code, result.output
    return result.output


def test_an_export_takes_the_options_that_choose_cells_and_is_verified(here):
    out = fewrec("episodes", "export", "tiny.toml", "--state", "warm", "--shots", "2,rest", "--seed", "1", "--out", "x")
    assert "wrote 2 tasks of tiny to x" in out
    shown = fewrec("episodes", "import", "x")
    assert "synthetic/warm/seed-1/n2-krest-q6" in shown and "verified: 13 files of 2 tasks" in shown
    one = fewrec("episodes", "import", "x/synthetic/warm/seed-1/n2-k2-q6")
    assert "verified: 9 files of 1 task" in one
    again = fewrec("episodes", "export", "tiny.toml", "--out", "x", code=2)
    assert again.strip().splitlines()[-1].startswith("error: --out x: it holds another export")
    (here / "x/synthetic/warm/seed-1/items.parquet").write_bytes(b"PAR1")
    assert "error: x/synthetic/warm/seed-1/items.parquet: its SHA-256" in fewrec("episodes", "import", "x", code=2)
    assert "error: nowhere: no frozen episodes there" in fewrec("episodes", "import", "nowhere", code=2)


def test_your_own_ratings_are_exported_under_the_name_of_their_file(here):
    rows = [(u, (u * 7 + 3 * k) % 20, 1 + (u + k) % 5) for u in range(60) for k in range(12)]
    pd.DataFrame(rows, columns=["user", "item", "rating"]).drop_duplicates(["user", "item"]).to_csv("my own.csv")
    options = ("--data", "my own.csv", "--state", "user-cold", "--seed", "0", "--shots", "2")
    fewrec("episodes", "export", "tiny.toml", *options, "--scale", "1", "5", "--out", "x")
    (folder,) = [path.name for path in (here / "x").iterdir() if path.is_dir()]
    assert folder.startswith("my_own-") and "my own" in fewrec("episodes", "import", "x")


def test_verifying_an_export_needs_no_torch(here):
    fewrec("episodes", "export", "tiny.toml", "--out", "x", "--state", "warm")
    code = "import sys; from fewrec.episodes.frozen import load; load('x').verify(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_predictions_are_scored_shown_and_kept(here):
    fewrec("episodes", "export", "tiny.toml", "--state", "user-cold", "--shots", "5", "--seed", "0", "--out", "x")
    query = pd.read_parquet("x/synthetic/user-cold/seed-0/n2-k5-q6/query.parquet")
    query.assign(prediction=[3 + row % 2 for row in range(len(query))]).to_csv("waves.csv", index=False)
    shown = fewrec("score", "waves.csv", "--episodes", "x", "--label", "up and down", "--out", "scored")
    (row,) = [line for line in shown.splitlines() if line.startswith("up and down, synthetic")]
    for part in ("RMSE ", "MAE ", "nDCG@5 ", "AUC ", "RMSE − bias "):
        assert part in row
    for label in ("global-mean", "user-mean", "item-mean", "bias", "item-popularity", "random"):
        assert label in shown
    assert "up and down" in (here / "scored/leaderboard.md").read_text()
    assert "up and down" in fewrec("show", "scored")
    assert "7 same bytes" in fewrec("compare", "scored", "scored")
    query.assign(prediction=3.0).iloc[1:].to_csv("waves.csv", index=False)
    assert "(1 of 48 are missing)" in fewrec("score", "waves.csv", "--episodes", "x", code=2)
    assert "error: none.csv: no such file" in fewrec("score", "none.csv", "--episodes", "x", code=2)
