"""Comparing two runs: pairs on equal ground alone, differences that are right, a reason for all that has no pair."""

import io
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from rich.console import Console

import fewrec
from fewrec.cli import main
from fewrec.errors import DataError
from fewrec.metrics.statistics import holm
from fewrec.report.comparison.compare import compare
from fewrec.report.comparison.paired import PairedScores, paired_figures
from fewrec.report.comparison.text import TerminalComparison, csv_text, json_value, markdown, summary


def change(cell, **fields):
    record = json.loads((cell / "cell.json").read_text())
    (cell / "cell.json").write_text(json.dumps({**record, **fields}))


def change_environment(run, **fields):
    manifest = json.loads((run.path / "manifest.json").read_text())
    manifest["environment"].update(fields)
    (run.path / "manifest.json").write_text(json.dumps(manifest))


def the_reason(a, b):
    """Return the one reason why the one row of A and of B can't be compared."""
    found = compare(a.path, b.path)
    assert len(found.rows) == 0
    (reason,) = found.not_comparable["reason"]
    return reason


# differences


def test_equal_runs_have_the_same_bytes_and_a_difference_of_zero(new_run, scores_of):
    a, b = new_run("a"), new_run("b")
    for run in (a, b):
        for seed in (0, 1):
            run.cell("bias", scores_of(1.0, seed=seed), seed=seed)
            run.cell("knn", scores_of(0.9, seed=seed), seed=seed)
        change_environment(run, processor="X1")
    found = compare(a.path, b.path)
    assert found.rows["verdict"].tolist() == ["same bytes", "same bytes"]
    assert (found.rows[["rmse_diff", "rmse_diff_low", "rmse_diff_high", "auc_diff"]] == 0).all(axis=None)
    assert found.rows["p_holm"].isna().all() and found.rows["seeds"].tolist() == [2, 2]
    assert found.costs_comparable and found.caution == "" and len(found.not_comparable) == 0
    assert not found.environment["differs"].any()


def test_figures_are_those_of_the_score_rows_and_the_paired_interval_holds_the_difference(new_run, scores_of):
    a, b = new_run("a"), new_run("b")
    old, new = scores_of(1.0, episodes=80), scores_of(0.8, episodes=80)
    a.cell("gp", old)
    b.cell("gp", new)
    (row,) = compare(a.path, b.path).rows.to_dict("records")
    rmse = [np.sqrt(part["se"].sum() / part["n"].sum()) for part in (old, new)]
    assert row["rmse_a"] == pytest.approx(rmse[0]) and row["rmse_b"] == pytest.approx(rmse[1])
    assert row["rmse_diff"] == pytest.approx(rmse[1] - rmse[0]) and row["rmse_diff"] < 0
    assert row["rmse_diff_low"] < row["rmse_diff"] < row["rmse_diff_high"] < 0
    assert row["mae_diff"] == pytest.approx((new["ae"].sum() - old["ae"].sum()) / old["n"].sum())
    both = old["auc"].notna() & new["auc"].notna()
    assert row["auc_diff"] == pytest.approx((new["auc"] - old["auc"])[both].mean())
    assert row["ndcg5_diff"] == pytest.approx(new["ndcg5"].mean() - old["ndcg5"].mean())
    assert row["verdict"] == "B better" and row["p_holm"] == pytest.approx(2 / 2001)
    assert row["users"] == old["user"].nunique() and row["keys"] == len(old)
    back = compare(b.path, a.path).rows.iloc[0]
    assert back["verdict"] == "B worse" and back["rmse_diff"] == pytest.approx(-row["rmse_diff"])


def test_noise_between_two_runs_is_not_shown_as_a_difference(new_run, scores_of):
    a, b = new_run("a"), new_run("b")
    rng = np.random.default_rng(1)
    frame = scores_of(1.0)
    a.cell("gp", frame)
    b.cell("gp", frame.assign(se=frame["se"] * rng.uniform(0.95, 1.05, len(frame))))
    (row,) = compare(a.path, b.path).rows.to_dict("records")
    assert row["verdict"] == "no difference shown" and row["rmse_diff_low"] < 0 < row["rmse_diff_high"]


def paired(difference, rng, users=200, column="se"):
    user = np.arange(users)
    score = rng.uniform(1, 3, users)
    noise = difference + rng.normal(0, 0.3, users)
    return PairedScores(
        user, {"n": np.full(users, 10), column: score}, {"n": np.full(users, 10), column: score + noise}
    )


def test_p_values_are_corrected_over_the_rows_that_are_tested():
    rng = np.random.default_rng(0)
    same = paired(0.0, rng)
    pairs = [paired(0.05, rng), PairedScores(same.user, same.a, same.a), paired(0.0, rng), paired(1.0, rng)]
    found = paired_figures(pairs)
    tested = [0, 2, 3]
    assert found["p_holm"].iloc[tested].tolist() == holm(found["p"].to_numpy()[tested]).tolist()
    assert np.isnan(found["p_holm"].iloc[1]) and found["verdict"].iloc[1] == "same bytes"
    assert found["verdict"].iloc[3] == "B worse"


def test_without_squared_errors_auc_decides_and_more_is_better():
    rng = np.random.default_rng(0)
    found = paired_figures([paired(0.5, rng, column="auc")])
    assert found["verdict"].tolist() == ["B better"] and "rmse_diff" not in found


def test_one_user_alone_has_a_difference_and_no_interval():
    found = paired_figures([paired(0.5, np.random.default_rng(0), users=1)]).iloc[0]
    assert np.isfinite(found["rmse_diff"]) and np.isnan(found["rmse_diff_low"]) and np.isnan(found["p_holm"])
    assert found["verdict"] == "no difference shown"


def test_users_not_ratings_are_resampled():
    """The same 20 users' rows ten times over say no more about new users, so the interval stays as wide."""
    rng = np.random.default_rng(4)
    once = paired(0.1, rng, users=20)
    tenfold = PairedScores(
        np.tile(once.user, 10), *({k: np.tile(v, 10) for k, v in s.items()} for s in (once.a, once.b))
    )
    found = paired_figures([once, tenfold])
    assert np.allclose(found["rmse_diff_low"].iloc[0], found["rmse_diff_low"].iloc[1])
    assert np.allclose(found["rmse_diff_high"].iloc[0], found["rmse_diff_high"].iloc[1])


# pairs


def test_fewer_episodes_are_paired_on_the_common_ones_and_it_is_said(new_run, scores_of):
    a, b = new_run("a"), new_run("b")
    frame = scores_of(1.0, episodes=30)
    a.cell("gp", frame)
    b.cell("gp", frame[frame["episode"] < 12])
    (row,) = compare(a.path, b.path).rows.to_dict("records")
    assert row["verdict"] == "same bytes" and row["keys"] == 60
    assert (row["episodes"], row["episodes_a"], row["episodes_b"]) == (12, 30, 12)
    assert row["note"] == "paired on 12 common episodes of 30 in A and 12 in B"


def test_seeds_that_one_side_lacks_or_failed_are_left_out_and_named(new_run, scores_of):
    a, b = new_run("a"), new_run("b")
    for seed in (0, 1, 2):
        a.cell("gp", scores_of(1.0, seed=seed), seed=seed)
    b.cell("gp", scores_of(1.0, seed=0), seed=0)
    b.cell("gp", seed=1, status="failed", reason="ValueError: no", episodes=30)
    (row,) = compare(a.path, b.path).rows.to_dict("records")
    assert row["seeds"] == 1 and row["verdict"] == "same bytes"
    assert row["note"] == "seed 2 only in A; seed 1 left out: failed in B: ValueError: no"


def test_a_learner_with_other_options_and_another_label_is_paired_and_the_options_are_named(new_run, scores_of):
    a, b = new_run("a"), new_run("b")
    a.cell("gp", scores_of(1.0), config={"rank": 8, "ridge": 1.0})
    b.cell("gp", scores_of(1.2), config={"rank": 2, "ridge": 1.0, "depth": 1}, label="gp[rank=2]", block=10)
    (row,) = compare(a.path, b.path).rows.to_dict("records")
    assert (row["label"], row["label_b"]) == ("gp", "gp[rank=2]")
    assert row["configuration"] == "block: 50 -> 10; depth: absent -> 1; rank: 8 -> 2"


def test_labels_that_could_pair_in_more_than_one_way_are_not_guessed(new_run, scores_of):
    a, b = new_run("a"), new_run("b")
    a.cell("gp", scores_of(1.0), label="one")
    for label in ("two", "three"):
        b.cell("gp", scores_of(1.0), label=label, config={"rank": len(label)})
    found = compare(a.path, b.path)
    assert len(found.rows) == 0 and sorted(found.not_comparable["label"]) == ["one", "three", "two"]


def test_changed_sources_and_text_are_notes_of_a_row_that_is_still_paired(new_run, scores_of):
    a, b = new_run("a"), new_run("b")
    a.cell("gp", scores_of(1.0))
    change(b.cell("gp", scores_of(1.0)), code_hash="f00d", text_sha256="d" * 64)
    found = compare(a.path, b.path)
    assert found.rows["note"].tolist() == ["sources changed; other item text"]
    code = found.environment[found.environment["kind"] == "code"]
    assert code[["name", "a", "b", "differs"]].values.tolist() == [["gp", "c0de", "f00d", True]]


# what has no pair


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"dataset_sha256": "e" * 64}, f"other data: sha256 {'a' * 12} -> {'e' * 12}"),
        ({"split_hash": "other"}, "another split: 5p1it0 -> other"),
        ({"split_hash": None}, "another split: not recorded in B"),
        ({"status": "failed", "reason": "ValueError: x"}, "failed in B: ValueError: x"),
    ],
)
def test_cells_of_other_data_another_split_or_without_scores_are_never_paired(new_run, scores_of, fields, reason):
    a, b = new_run("a"), new_run("b")
    a.cell("gp", scores_of(1.0))
    change(b.cell("gp", scores_of(1.0)), **fields)
    assert the_reason(a, b) == reason


def test_episodes_with_other_users_are_never_paired_even_where_some_users_meet(new_run, scores_of):
    a, b = new_run("a"), new_run("b")
    frame = scores_of(1.0)
    a.cell("gp", frame)
    b.cell("gp", frame.assign(user=frame["user"].where(frame["episode"] != 3, frame["user"] + 1000)))
    assert the_reason(a, b) == "other episodes: episode 3 has other users or queries, so another sampler drew it"


def test_runs_without_a_common_seed_or_episode_say_so(new_run, scores_of):
    a, b, c = new_run("a"), new_run("b"), new_run("c")
    frame = scores_of(1.0, episodes=10)
    a.cell("gp", frame)
    b.cell("gp", frame, seed=4)
    c.cell("gp", frame.assign(episode=frame["episode"] + 10))
    assert the_reason(a, b) == "no seed in common: 0 -> 4"
    assert the_reason(a, c) == "no episode in common"


def reasons(a, b):
    frame = compare(a.path, b.path).not_comparable
    return dict(zip(frame["label"], frame["reason"], strict=True))


def test_a_row_that_only_one_run_has_gets_the_reason(new_run, scores_of):
    a, b = new_run("a"), new_run("b")
    frame = scores_of(1.0)
    for run in (a, b):
        run.cell("bias", frame)
    a.cell("gp", frame)
    b.cell("knn", frame, k_shot=1)
    b.cell("melu", frame, protocol={"order": "time"})
    b.cell("tanp", frame, protocol={"state": "warm"})
    b.cell("mamo", frame, dataset="other")
    assert reasons(a, b) == {
        "gp": "only in A: B has no such row there",
        "knn": "only in B: A has other sizes: N=5 K=5 Q=10",
        "melu": "only in B: A has another protocol: user-cold",
        "tanp": "only in B: A has no cells of warm",
        "mamo": "only in B: A has no cells of other",
    }


def test_protocols_that_differ_in_k_max_alone_are_told_apart(new_run, scores_of):
    a, b = new_run("a"), new_run("b")
    a.cell("gp", scores_of(1.0))
    b.cell("gp", scores_of(1.0), protocol={"k_max": 5})
    found = compare(a.path, b.path)
    assert len(found.rows) == 0
    assert found.not_comparable["reason"].tolist() == [
        "only in A: B has another protocol: user-cold, k_max=5",
        "only in B: A has another protocol: user-cold, k_max=10",
    ]


# around the scores


def test_another_machine_is_named_and_its_times_get_a_caution(new_run, scores_of):
    a, b = new_run("a"), new_run("b")
    timing = {"prepare_s": 0.5, "meta_fit_s": 4.0, "adapt_ms": [4.0], "predict_ms": [0.6], "episodes_per_s": 50.0,
              "peak_mb": 600.0, "device_peak_mb": None}  # fmt: skip
    a.cell("gp", scores_of(1.0))
    b.cell("gp", scores_of(1.0), timing=timing)
    for run, processor in ((a, "X1"), (b, "X1")):
        change_environment(run, processor=processor)
    row = compare(a.path, b.path).rows.iloc[0]
    assert row["meta_fit_s_ratio"] == 2 and row["adapt_ms_ratio"] == 2 and row["peak_mb_ratio"] == 2
    assert row["episodes_per_s_ratio"] == 0.5
    assert compare(a.path, b.path).costs_comparable
    change_environment(b, processor="Y2", versions={"torch": "3.0", "numpy": "2.0"})
    found = compare(a.path, b.path)
    assert not found.costs_comparable and "processor: X1 -> Y2" in found.caution
    differing = found.environment[found.environment["differs"]]
    assert differing[["name", "a", "b"]].values.tolist() == [["processor", "X1", "Y2"], ["torch", "2.0", "3.0"]]


def test_a_machine_that_was_not_recorded_is_not_taken_for_the_same(new_run, scores_of):
    a, b = new_run("a"), new_run("b")
    for run in (a, b):
        run.cell("gp", scores_of(1.0))
        change_environment(run, processor=None)
    assert not compare(a.path, b.path).costs_comparable


# shown


HOSTILE = "<script>|`x`</script>[red]\n=1"


@pytest.fixture
def two_runs(new_run, scores_of):
    """Two runs with a better, a same and a lonely row, all with names that try to break out of a table."""
    a, b = new_run("a"), new_run("b")
    a.cell("bias", scores_of(1.0))
    b.cell("bias", scores_of(1.0))
    a.cell("gp", scores_of(1.2), label=HOSTILE)
    b.cell("gp", scores_of(0.7), label=HOSTILE, config={"rank": 3})
    b.cell("knn", status="failed", reason=HOSTILE)
    a.cell("knn", scores_of(1.0))
    return a.path, b.path


def shown(found, width=220):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(TerminalComparison(found))
    return console.export_text()


def test_the_terminal_shows_tables_differences_and_reasons(two_runs):
    found = compare(*two_runs)
    text = shown(found)
    assert summary(found) == "2 rows compared: 1 B better, 1 same bytes; 1 can't be compared."
    assert summary(found) in text and "toy, user-cold: N=5, K=5, Q=10" in text
    assert "options: rank: absent -> 3" in text and "failed in B: <script>|`x`</script>[red] =1" in text
    assert all(len(line) <= 60 for line in shown(found, width=60).splitlines())
    assert "No room for:" in shown(found, width=60)


def test_markdown_shows_hostile_names_literally(two_runs):
    text = markdown(compare(*two_runs))
    assert "<script>" not in text and "&lt;script&gt;\\|\\`x\\`" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1 and len(rows) == 4  # head, line and two
    assert text == markdown(compare(*two_runs))


def test_csv_has_every_row_compared_or_not_and_json_every_frame(two_runs):
    found = compare(*two_runs)
    table = pd.read_csv(io.StringIO(csv_text(found)))
    assert table["verdict"].tolist() == ["same bytes", "B better", "can't be compared"]
    assert table["note"].iloc[-1].startswith("failed in B")
    value = json.loads(json.dumps(json_value(found), allow_nan=False))
    assert len(value["rows"]) == 2 and len(value["not_comparable"]) == 1
    assert {row["verdict"] for row in value["rows"]} == {"same bytes", "B better"}
    assert value["environment"][0] == {
        "kind": "environment",
        "name": "device",
        "a": "cpu",
        "b": "cpu",
        "differs": False,
    }


@pytest.mark.parametrize("form", ["table", "markdown", "csv", "json"])
def test_the_command_ends_with_exit_code_0_whatever_the_verdict(two_runs, form):
    done = CliRunner().invoke(main, ["compare", *map(str, two_runs), "--format", form])
    assert done.exit_code == 0, done.output
    assert "B better" in done.output and "failed in B" in done.output


def test_runs_without_anything_in_common_are_shown_too(new_run, scores_of):
    a, b = new_run("a"), new_run("b")
    a.cell("gp", scores_of(1.0))
    b.cell("knn", scores_of(1.0))
    found = compare(a.path, b.path)
    assert "0 rows compared; 2 can't be compared." in shown(found)
    assert csv_text(found).count("\n") == 3 and "0 rows compared" in markdown(found)
    assert json_value(found)["rows"] == []


def test_a_folder_that_holds_no_results_is_an_error(new_run, tmp_path):
    a = new_run("a")
    with pytest.raises(DataError, match="not a folder of results"):
        compare(a.path, tmp_path)
    assert CliRunner().invoke(main, ["compare", str(a.path), str(tmp_path / "none")]).exit_code == 2


def test_comparing_imports_no_torch(two_runs):
    code = (
        "import sys; from fewrec.report.comparison.compare import compare; "
        "from fewrec.report.comparison.text import markdown; "
        "markdown(compare(*sys.argv[1:])); "
        "assert not {'torch', 'matplotlib', 'fewrec.learners.base'} & set(sys.modules), 'too much was imported'"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code, *map(str, two_runs)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# real runs


SUITE = """
title = "made up"
datasets = ["synthetic"]
states = ["user-cold"]
n_users = 2
shots = 2
n_query = 6
seeds = [0]
episodes = 30
learners = ["user-mean", "bias"]
"""


def test_two_real_runs_that_differ_in_an_option_and_in_episodes(tmp_path):
    from fewrec.report.export import export_reference

    (tmp_path / "s.toml").write_text(SUITE)
    suite = str(tmp_path / "s.toml")
    options = {"progress": False, "threads": 1, "device": "cpu"}
    fewrec.run(suite, out=tmp_path / "a", **options)
    fewrec.run(suite, out=tmp_path / "b", episodes=10, settings={"bias": {"user_ridge": 500.0}}, **options)
    export_reference(tmp_path / "a", tmp_path / "reference")
    for folder in ("a", "reference"):
        found = compare(tmp_path / folder, tmp_path / "b")
        rows = found.rows.set_index("learner")
        assert rows["verdict"]["user-mean"] == "same bytes" and rows["verdict"]["bias"] != "same bytes"
        assert rows["label_b"]["bias"] == "bias[user_ridge=500.0]"
        assert rows["configuration"]["bias"] == "user_ridge: 6.0 -> 500.0" and rows["episodes"].tolist() == [10, 10]
        assert len(found.not_comparable) == 0 and found.costs_comparable
