"""Reading result folders: what they give, and the one line that a broken one gets."""

import json
import subprocess
import sys

import pytest

from fewrec.errors import DataError
from fewrec.report import load_results
from fewrec.report.leaderboard import tasks


def test_cells_and_scores_come_as_tidy_frames(small_run):
    results = load_results(small_run.path)
    assert results.suite == "tiny" and len(results.cells) == 16
    assert (results.cells["status"] == "ok").sum() == 12
    assert results.cells["label"].tolist() == sorted(results.cells["label"][:10]) + sorted(results.cells["label"][10:])
    assert len(results.scores) == 12 * 150
    first = results.scores[results.scores["cell"] == results.cells["cell"].iloc[0]]
    assert first["episode"].is_monotonic_increasing and not first.duplicated(["episode", "user"]).any()


def test_the_leaderboard_of_results_is_a_property(small_run):
    results = load_results(small_run.path)
    assert results.leaderboard is results.leaderboard and len(results.leaderboard) == 8


def test_a_missing_folder_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such folder of results; run the suite first"):
        load_results(tmp_path / "nowhere")


def test_a_folder_of_something_else_is_named(tmp_path):
    with pytest.raises(DataError, match="no manifest.json"):
        load_results(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(DataError, match="neither cells/ nor scores.parquet"):
        load_results(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", "\xff", '{"schema": 1}'])
def test_a_broken_cell_record_names_its_file(small_run, content):
    file = sorted(small_run.path.glob("cells/*/cell.json"))[0]
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError) as caught:
        load_results(small_run.path)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_a_newer_schema_is_refused(small_run):
    file = sorted(small_run.path.glob("cells/*/cell.json"))[0]
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema": 2}))
    with pytest.raises(DataError, match="schema 2 is newer"):
        load_results(small_run.path)


def test_a_broken_block_names_its_file(small_run):
    file = sorted(small_run.path.glob("cells/*/block-0001.parquet"))[0]
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DataError, match="block-0001.parquet: can't be read"):
        load_results(small_run.path)


def test_a_block_that_occurs_twice_is_refused(new_run, scores_of):
    folder = new_run().cell("bias", scores_of(1.0))
    (folder / "block-0001.parquet").write_bytes((folder / "block-0000.parquet").read_bytes())
    with pytest.raises(DataError, match="occurs twice"):
        load_results(folder.parent.parent)


def test_a_cell_that_was_killed_is_unfinished_and_not_read(new_run, scores_of):
    run = new_run()
    run.cell("bias", scores_of(1.0))
    (run.cell("mine", scores_of(1.0)) / "cell.json").unlink()
    results = load_results(run.path)
    assert len(results.unfinished) == 1 and results.cells["label"].tolist() == ["bias"]


def test_a_cell_without_timing_has_empty_costs(new_run, scores_of):
    run = new_run()
    (run.cell("bias", scores_of(1.0)) / "timing.json").unlink()
    table = load_results(run.path).leaderboard
    assert table["rmse"].notna().all() and table[["meta_fit_s", "adapt_ms_p50", "episodes_per_s"]].isna().all(axis=None)


def test_predictions_beside_the_scores_are_not_read(new_run, scores_of):
    folder = new_run().cell("bias", scores_of(1.0))
    (folder / "predictions-0000.parquet").write_bytes(b"not parquet")
    assert len(load_results(folder.parent.parent).scores) == 150


def test_cells_say_where_their_options_come_from(new_run, scores_of):
    run = new_run()
    run.cell("bias", scores_of(1.0))
    run.cell("mine", scores_of(1.0), tuning={"kind": "tuned", "budget": 5, "trials": 5})
    tuning = load_results(run.path).cells.set_index("label")["tuning"]
    assert tuning["bias"] is None and tuning["mine"] == {"kind": "tuned", "budget": 5, "trials": 5}


def others(run):
    return load_results(run.path).cells.set_index("label")["other_configurations"].to_dict()


def test_other_configurations_of_a_row_are_counted_among_what_was_replaced(new_run, scores_of, set_aside):
    run = new_run()
    run.cell("bias", scores_of(1.0))
    for rate, code in ((1, "c0de"), (2, "c0de"), (2, "0ther")):  # the same configuration twice is one
        folder = run.cell("mine", scores_of(1.0), config={"rate": rate})
        set_aside(folder, code)
    run.cell("mine", scores_of(1.0), config={"rate": 3})
    assert others(run) == {"bias": 0, "mine": 2}


def test_what_has_no_figures_or_stood_elsewhere_is_no_other_configuration(new_run, scores_of, set_aside):
    run = new_run()
    run.cell("mine", scores_of(1.0), config={"rate": 3})
    set_aside(run.cell("mine", scores_of(1.0), config={"rate": 1}, k_shot=10))
    set_aside(run.cell("mine", scores_of(1.0), config={"rate": 1}, seed=7))
    set_aside(run.cell("another", scores_of(1.0), config={"rate": 1}, label="mine"))
    set_aside(run.cell("mine", status="failed", reason="NaN", config={"rate": 4}))
    set_aside(run.cell("mine", scores_of(1.0), config={"rate": 3}, episodes=7))  # other episodes, the same options
    (set_aside(run.cell("mine", scores_of(1.0), config={"rate": 5})) / "cell.json").unlink()
    (set_aside(run.cell("mine", scores_of(1.0), config={"rate": 6})) / "begun.json").write_text("{")
    assert others(run) == {"mine": 0}


def test_the_cells_of_a_task_are_found_by_its_tuple(small_run):
    results = load_results(small_run.path)
    found = {task: results.of_task(task) for task, _ in tasks(results.cells)}
    assert [len(cells) for cells in found.values()] == [10, 6]
    assert all((cells["k_shot"] == task[4]).all() for task, cells in found.items())


def test_reading_results_needs_no_torch():
    code = "import sys, fewrec.report; sys.exit(bool({'torch', 'transformers', 'pydantic', 'rich'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
