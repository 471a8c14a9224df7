"""References made of runs: the same table, no predictions, no paths."""

import json

import pandas as pd
import pytest

from fewrec.errors import DataError
from fewrec.report import export_reference, leaderboard, load_results, write_leaderboard
from fewrec.report.curves import learning_curves
from fewrec.report.export import without_paths


def test_a_reference_gives_the_same_tables_as_its_run(small_run, tmp_path):
    target = tmp_path / "reference" / "tiny"
    export_reference(small_run.path, target)
    write_leaderboard(small_run.path)
    assert sorted(p.name for p in target.iterdir()) == [
        "leaderboard.csv", "leaderboard.json", "leaderboard.md", "leaderboard.tex", "manifest.json", "scores.parquet",
    ]  # fmt: skip
    for name in ("leaderboard.csv", "leaderboard.json", "leaderboard.md", "leaderboard.tex"):
        assert (target / name).read_bytes() == (small_run.path / name).read_bytes()
    run, reference = load_results(small_run.path), load_results(target)
    pd.testing.assert_frame_equal(run.scores, reference.scores)
    pd.testing.assert_frame_equal(run.cells, reference.cells)
    pd.testing.assert_frame_equal(leaderboard(run), leaderboard(reference))


def test_exporting_again_gives_the_same_bytes(small_run, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    export_reference(small_run.path, first)
    export_reference(small_run.path, second)
    export_reference(small_run.path, second)
    assert {p.name: p.read_bytes() for p in first.iterdir()} == {p.name: p.read_bytes() for p in second.iterdir()}


def test_a_reference_knows_what_was_tuned_and_what_was_replaced(new_run, scores_of, set_aside, tmp_path):
    run = new_run()
    set_aside(run.cell("mine", scores_of(1.0), config={"rate": 1}))
    run.cell("mine", scores_of(0.9), config={"rate": 2}, tuning={"kind": "set"})
    export_reference(run.path, tmp_path / "reference")
    cells = load_results(tmp_path / "reference").cells
    assert cells["tuning"].tolist() == [{"kind": "set"}] and cells["other_configurations"].tolist() == [1]
    said = leaderboard(load_results(tmp_path / "reference"))["warning"][0]
    assert "1 other configuration" in said and said == leaderboard(load_results(run.path))["warning"][0]


def meta_fit(run, key, cell, curve, **fields):
    """Write a meta-fit of which the given cell is one; ``fields`` are those in which it differs."""
    record = json.loads((cell / "cell.json").read_text())
    names = ("dataset", "meta_dataset", "protocol", "seed", "learner", "config")
    about = {name: record["spec"][name] for name in names}
    folder = run.path / "meta" / key
    folder.mkdir(parents=True)
    code = fields.pop("code_hash", record["code_hash"])
    (folder / "meta.json").write_text(json.dumps({"fields": about | fields, "code_hash": code, "curve": curve}))


def test_the_learning_curves_of_a_runs_cells_go_with_the_reference(new_run, scores_of, tmp_path):
    run = new_run()
    first = run.cell("better", scores_of(0.9), config={"hidden": [4, 2], "shrinkage": 1.0})
    second = run.cell("better", scores_of(0.9), seed=1, config={"hidden": [4, 2], "shrinkage": 1.0})
    curve = [{"step": 0, "validation_rmse": 1.0}, {"step": 50, "validation_rmse": 0.9}]
    meta_fit(run, "b", first, curve, config={"hidden": [4, 2]})  # the other option is one of adapting alone
    meta_fit(run, "a", second, [{"step": 9, "noise": 0.5, "validation_rmse": 0.8}])
    meta_fit(run, "no-curve", first, [])
    meta_fit(run, "other-options", first, curve, config={"hidden": [4, 3]})
    meta_fit(run, "other-code", first, curve, code_hash="0ld")
    meta_fit(run, "other-seed", first, curve, seed=7)
    meta_fit(run, "broken", first, curve)
    (run.path / "meta" / "broken" / "meta.json").write_text("{")
    export_reference(run.path, tmp_path / "reference")
    curves = pd.read_csv(tmp_path / "reference" / "curves.csv")
    assert curves["step"].tolist() == [0, 50, 9] and curves["seed"].tolist() == [0, 0, 1]
    assert curves["validation_rmse"].tolist() == [1.0, 0.9, 0.8]
    assert curves["noise"].notna().tolist() == [False, False, True]
    assert curves["configuration"].nunique() == 2 and set(curves["learner"]) == {"better"}
    pd.testing.assert_frame_equal(curves, learning_curves(run.path))


def test_predictions_are_never_exported(small_run, tmp_path):
    for folder in (small_run.path / "cells").iterdir():
        pd.DataFrame({"prediction": [1.0]}).to_parquet(folder / "predictions-0000.parquet")
    export_reference(small_run.path, tmp_path / "reference")
    names = pd.read_parquet(tmp_path / "reference" / "scores.parquet").columns
    assert "prediction" not in names and "rating" not in names


def test_paths_of_the_machine_are_left_out(new_run, scores_of, tmp_path):
    run = new_run()
    run.cell("bias", scores_of(1.0), config={"model": "/home/me/models/bert"})
    run.cell("broken", status="failed", reason="OSError: '/home/me/weights.safetensors' is broken")
    manifest = json.loads((run.path / "manifest.json").read_text())
    (run.path / "manifest.json").write_text(json.dumps({**manifest, "command": "fewrec run x --out=/home/me/out"}))
    export_reference(run.path, tmp_path / "reference")
    for name in ("manifest.json", "leaderboard.md", "leaderboard.json", "leaderboard.csv", "leaderboard.tex"):
        assert "home" not in (tmp_path / "reference" / name).read_text()
    assert "'weights.safetensors' is broken" in (tmp_path / "reference" / "leaderboard.csv").read_text()


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("see /var/tmp/a/b.txt:17: bad", "see b.txt:17: bad"),
        ("--data ~/mine/ratings.csv", "--data ratings.csv"),
        (r"C:\Users\me\model.bin is broken", "model.bin is broken"),
        ("/opt/data/", "..."),
        ("https://files.example.org/data/ml-100k.zip", "https://files.example.org/data/ml-100k.zip"),
        ("sentence-transformers/all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
        ("results/quick and 1/2/3 and/or this", "results/quick and 1/2/3 and/or this"),
    ],
)
def test_only_absolute_paths_are_shortened(text, left):
    assert without_paths(text) == left


def test_a_run_is_not_overwritten_by_its_reference(small_run, new_run):
    with pytest.raises(DataError, match="holds a run"):
        export_reference(small_run.path, small_run.path)
    other = new_run("other")
    (other.path / "cells").mkdir()
    with pytest.raises(DataError, match="holds a run"):
        export_reference(small_run.path, other.path)


def test_an_unfinished_run_is_not_exported(new_run, scores_of, tmp_path):
    run = new_run()
    run.cell("bias", scores_of(1.0), episodes=50)
    with pytest.raises(DataError, match="not finished"):
        export_reference(run.path, tmp_path / "reference")


def test_a_reference_whose_scores_belong_elsewhere_is_refused(small_run, tmp_path):
    target = tmp_path / "reference"
    export_reference(small_run.path, target)
    scores = pd.read_parquet(target / "scores.parquet")
    scores.assign(cell="0" * 16).to_parquet(target / "scores.parquet")
    with pytest.raises(DataError, match="cell 0000000000000000 is not in manifest.json"):
        load_results(target)
