"""``fewrec finetune`` as a user meets it: a small table, an estimate, and one line for what can't be run."""

import json
import re

import pytest
from click.testing import CliRunner

from fewrec.cli import main


def invoke(*arguments):
    return CliRunner().invoke(main, ["finetune", *map(str, arguments)])


@pytest.fixture
def small(tiny_bert):
    return (
        "--backbone",
        tiny_bert,
        "--epochs",
        2,
        "--batch-size",
        8,
        "--threads",
        1,
        "--device",
        "cpu",
        "--out",
        "out",
    )


def test_two_files_give_a_table_beside_trivial_rows(here, small, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")  # a table without wrapped cells
    result = invoke("train.csv", "test.csv", "--items", "titles.csv", *small)
    assert result.exit_code == 0, result.output
    for text in (
        "test MSE [95 %]",
        "MAE [95 %]",
        "RMSE [95 %]",
        "bias",
        "user-mean",
        "item-mean",
        "global-mean",
        "fine-tuned",
    ):
        assert text in result.stdout
    assert "30 test ratings" in result.stdout
    said = result.stderr
    assert re.search(
        r"2 epochs of 15 steps \(8 ratings, \d+ tokens each\): about .* on cpu with 1 thread, by 3 steps", said
    )
    assert said.count("train MSE") == 2 and "ETA 0:00" in said
    assert "no item texts" not in said
    table = (here / "out" / "results.md").read_text()
    assert table.count("\n") == 7 and "*bias*" in table
    assert invoke("train.csv", "test.csv", "--items", "titles.csv", *small).stdout == result.stdout


def test_ids_as_text_are_announced(here, small):
    result = invoke("train.csv", "test.csv", *small)
    assert result.exit_code == 0, result.output
    assert "warning: no item texts: the encoder reads 'user 1: item 100'" in result.stderr
    assert json.loads((here / "out" / "results.json").read_bytes())["data"]["item_texts"] == "ids"


def test_a_data_sets_texts_and_scale_are_used(here, small, ml_100k):
    (here / "train.csv").write_text("item,user,score\n50,1,5\n181,1,4\n50,2,4\n")
    (here / "test.csv").write_text("181,2,5\n")
    result = invoke("train.csv", "test.csv", "--dataset", "ml-100k", *small)
    assert result.exit_code == 0, result.output
    data = json.loads((here / "out" / "results.json").read_bytes())["data"]
    assert data["item_texts"] == "data set" and data["scale"] == [1, 5] and data["items_without_text"] == 0


BAD = {
    "empty.csv": "",
    "word.csv": "1,1,3\n1,2,good\n",
    "short.csv": "1,1,3\n4\n",
    "other.csv": "item,title\n7000,Film\n",
}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("empty.csv", "test.csv"), "empty.csv: the file is empty"),
        (("train.csv", "word.csv"), "word.csv:2: rating 'good' is not a number"),
        (("train.csv", "short.csv"), "short.csv:"),
        (("train.csv", "nowhere.csv"), "nowhere.csv: no such file"),
        (("train.csv", "test.csv", "--items", "other.csv"), "other.csv: not one of the rated items is in it"),
        (("train.csv", "test.csv", "--items", "titles.csv", "--template", "{tilte}"), "--template: "),
        (("train.csv", "test.csv", "--dataset", "ml-100"), "unknown dataset 'ml-100'; did you mean 'ml-100k'?"),
        (("train.csv", "test.csv", "--dataset", "ml-100k", "--items", "titles.csv"), "exclude one another"),
        (("train.csv", "test.csv", "--learning-rate", "0"), "--learning-rate: 0 is not above 0"),
        (("train.csv", "test.csv", "--dropout", "1"), "--dropout: 1 is not below 1"),
        (("train.csv", "test.csv", "--epochs", "0"), "--epochs: 0 is too small; give 1 or more"),
        (("train.csv", "test.csv", "--threads", "0"), "--threads 0: at least one thread"),
        (("train.csv", "test.csv", "--device", "abacus"), "--device abacus: choose auto, cpu, cuda or mps"),
        (("train.csv", "test.csv", "--max-length", "65"), "reads at most 64 tokens"),
        (("train.csv", "test.csv", "--backbone", "all-MiniLM"), "unknown weights 'all-MiniLM'"),
        (("train.csv", "test.csv", "--scale", "5", "1"), "--scale 5 1: the lowest rating must be below the highest"),
        (("train.csv", "test.csv", "--out", "train.csv/out"), "can't write there"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_one_line_before_weights_are_loaded(here, small, monkeypatch, arguments, message):
    for name, text in BAD.items():
        (here / name).write_text(text)
    monkeypatch.setattr("fewrec.finetune.api.load_regressor", lambda *args: pytest.fail("weights were loaded"))
    changed = {option for option in arguments if option.startswith("--")}
    rest = [part for option, value in zip(small[::2], small[1::2], strict=True) if option not in changed
            for part in (option, value)]  # fmt: skip
    result = invoke(*arguments, *rest)
    assert result.exit_code == 2, result.output
    errors = [line for line in result.stderr.splitlines() if line.lower().startswith("error")]
    assert len(errors) == 1 and message in errors[0]
    assert not (here / "out" / "model").exists()


def test_pairs_of_both_files_are_a_warning_and_other_options_are_refused(here, small):
    first = invoke("train.csv", "train.csv", *small)
    assert first.exit_code == 0, first.output
    assert "warning: train.csv: 120 of 120 pairs are also in train.csv" in first.stderr
    refused = invoke("train.csv", "train.csv", *small, "--seed", 3)
    assert refused.exit_code == 2 and "belongs to another run (seed: 0 -> 3)" in refused.stderr


def test_naming_the_command_imports_no_torch():
    import subprocess
    import sys

    code = "import sys; from fewrec.cli import main; main(['finetune', '--help'], standalone_mode=False)"
    code += "; assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "--backbone" in done.stdout, done.stderr
