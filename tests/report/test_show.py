"""``fewrec show``: filters, orders, formats, and that it writes nothing and needs no torch."""

import csv
import io
import subprocess
import sys

import pytest
from click.testing import CliRunner

from fewrec.cli import main


def show(run, *arguments, code=0):
    done = CliRunner().invoke(main, ["show", str(run.path), *arguments])
    assert done.exit_code == code, done.output
    return done.output


def shown(run, *arguments):
    """Return the rows that ``--format csv`` prints."""
    return list(csv.DictReader(io.StringIO(show(run, "--format", "csv", *arguments))))


def test_the_whole_table_is_printed_and_no_file_is_written(small_run):
    before = sorted(small_run.path.rglob("*"))
    text = show(small_run)
    for said in ("toy, user-cold: N=5, K=5, Q=10", "K=10", "better", "bias", "worse", "needs-text: not applicable"):
        assert said in text
    for form in ("markdown", "csv", "latex"):
        assert "better" in show(small_run, "--format", form)
    assert sorted(small_run.path.rglob("*")) == before


def test_filters_keep_rows_and_change_no_figure(small_run):
    everything = shown(small_run)
    kept = shown(small_run, "--learner", "bias,worse", "--shots", "10", "--state", "user-cold", "--dataset", "toy")
    assert [row["label"] for row in kept] == ["bias", "worse"]
    assert kept == [row for row in everything if row["k_shot"] == "10" and row["label"] in ("bias", "worse")]


def test_options_can_be_repeated_and_learners_named_by_their_label(new_run, scores_of):
    run = new_run()
    run.cell("bias", scores_of(1.0))
    for rate in (1, 2):
        run.cell("mine", scores_of(0.8 + 0.05 * rate), label=f"mine[rate={rate}]", config={"rate": rate})
    assert [row["label"] for row in shown(run, "--learner", "mine")] == ["mine[rate=1]", "mine[rate=2]"]
    kept = shown(run, "--learner", "mine[rate=2]", "--learner", "bias")
    assert [row["label"] for row in kept] == ["mine[rate=2]", "bias"]


def test_a_filter_that_leaves_nothing_is_one_error_that_lists_what_there_is(small_run):
    text = show(small_run, "--state", "warm", "--learner", "bias", code=2)
    assert text.count("\n") == 1 and text.startswith("error: ") and "no row has --state warm and --learner bias" in text
    for said in ("dataset: toy", "state: user-cold", "shots: 5, 10", "learner: better, bias, worse"):
        assert said in text


@pytest.fixture
def differing_run(new_run, scores_of):
    """Three rows whose orders by RMSE, nDCG@5, AUC and time differ."""
    run = new_run()
    timing = {"prepare_s": 0.1, "meta_fit_s": 1.0, "predict_ms": [1.0], "episodes_per_s": 9.0, "peak_mb": 1.0}
    for name, noise, ndcg, auc, adapt in (
        ("bias", 1.0, 0.9, 0.7, 3.0),
        ("b", 0.9, 0.7, 0.9, 9.0),
        ("c", 1.1, 0.8, 0.8, 1.0),
    ):
        for k in (5, 10):
            frame = scores_of(noise).assign(ndcg5=ndcg, auc=auc)
            run.cell(name, frame, k_shot=k, timing={**timing, "adapt_ms": [adapt], "device_peak_mb": None})
    run.cell("broken", status="failed", reason="NaN")
    return run


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("rmse", ["b", "bias", "c"]),
        ("diff_bias", ["b", "bias", "c"]),
        ("ndcg5", ["bias", "c", "b"]),
        ("auc", ["b", "c", "bias"]),
        ("time", ["c", "bias", "b"]),
    ],
)
def test_rows_are_sorted_inside_their_tables_best_first(differing_run, sort, order):
    rows = shown(differing_run, "--sort", sort)
    assert [(row["k_shot"], row["label"]) for row in rows] == [
        *(("5", label) for label in [*order, "broken"]), *(("10", label) for label in order),
    ]  # fmt: skip


def test_bca_intervals_can_be_asked_for(small_run):
    percentile, bca = shown(small_run), shown(small_run, "--interval", "bca")
    assert percentile[0]["rmse"] == bca[0]["rmse"] and percentile[0]["rmse_low"] != bca[0]["rmse_low"]
    assert "95 % BCa" in show(small_run, "--interval", "bca", "--format", "markdown")


def test_a_run_that_is_not_finished_says_so(small_run):
    next(iter(small_run.path.glob("cells/*/cell.json"))).unlink()
    assert "not finished: 1 cell has no result yet" in show(small_run)


def test_a_folder_that_is_not_there_is_one_line():
    done = CliRunner().invoke(main, ["show", "nowhere"])
    assert done.exit_code == 2 and done.output.startswith("error: nowhere: no such folder of results")


def test_showing_needs_neither_torch_nor_a_learner(small_run):
    code = (
        "import sys\nfrom fewrec.cli import main\n"
        f"main(['show', {str(small_run.path)!r}], standalone_mode=False)\n"
        "print(sorted({'torch', 'transformers', 'pydantic', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr
