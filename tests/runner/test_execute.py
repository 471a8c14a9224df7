"""Running cells: statuses instead of crashes, shared meta-fits, resuming, and the files that a cell leaves."""

import json
from dataclasses import replace

import pandas as pd
import pytest

import fewrec
from fewrec.data.table import Scale
from fewrec.errors import FolderError, SuiteError
from fewrec.report.files import read_json
from fewrec.runner.progress import Reporter
from fewrec.seeding import digest


def cells_of(out):
    return {file.parent: read_json(file) for file in sorted((out / "cells").glob("*/cell.json"))}


def score_bytes(out):
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted((out / "cells").glob("*/block-*.parquet"))}


def test_a_run_gives_tidy_frames_and_one_row_an_episode_and_user(tiny_suite, tiny_data, tmp_path):
    results = fewrec.run(str(tiny_suite), data=tiny_data, out=tmp_path / "out", device="cpu", threads=1)
    assert len(results.cells) == 12 and set(results.cells["status"]) == {"ok"}
    assert len(results.scores) == 12 * 6 * 2
    assert set(results.leaderboard["label"]) == {"global-mean", "user-mean", "bias"}
    assert set(results.scores["user"]) <= set(range(tiny_data.table.n_users))


def test_no_file_of_a_cell_but_the_predictions_holds_predictions_and_none_holds_ratings(
    tiny_suite, tiny_data, tmp_path
):
    fewrec.run(str(tiny_suite), data=tiny_data, out=tmp_path / "out", learners=["bias"], seeds=[0], shots=[2])
    (folder,) = cells_of(tmp_path / "out")
    predictions = pd.concat(pd.read_parquet(file) for file in sorted(folder.glob("predictions-*.parquet")))
    assert list(predictions.columns) == ["episode", "user", "item", "prediction"] and len(predictions) == 6 * 2 * 6
    for file in folder.glob("block-*.parquet"):
        assert not {"prediction", "rating", "item"} & set(pd.read_parquet(file).columns)


def test_the_same_run_twice_gives_the_same_score_bytes(tiny_suite, tiny_data, tmp_path):
    for name in ("a", "b"):
        fewrec.run(str(tiny_suite), data=tiny_data, out=tmp_path / name, threads=1)
    assert score_bytes(tmp_path / "a") == score_bytes(tmp_path / "b") != {}


def test_adding_a_learner_changes_nobody_elses_bytes(tiny_suite, tiny_data, tmp_path):
    fewrec.run(str(tiny_suite), data=tiny_data, out=tmp_path / "a", learners=["bias"])
    fewrec.run(str(tiny_suite), data=tiny_data, out=tmp_path / "b", learners=["random", "bias", "user-median"])
    alone, among = score_bytes(tmp_path / "a"), score_bytes(tmp_path / "b")
    assert alone.items() <= among.items()


class Count(Reporter):
    """Counts the episodes that were computed and notes the phases."""

    def __init__(self):
        self.phases = []

    def phase(self, name):
        self.phases.append(name)


def test_a_second_run_computes_nothing_and_keeps_the_timings(tiny_suite, tiny_data, tmp_path):
    out = tmp_path / "out"
    fewrec.run(str(tiny_suite), data=tiny_data, out=out)
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file() and file.name != "manifest.json"}
    count = Count()
    fewrec.run(str(tiny_suite), data=tiny_data, out=out, reporter=count)
    assert count.phases == []
    assert {file: file.read_bytes() for file in before} == before


def test_cells_of_different_k_share_one_meta_fit(tiny_suite, tiny_data, tmp_path):
    count = Count()
    fewrec.run(str(tiny_suite), data=tiny_data, out=tmp_path / "out", learners=["bias"], seeds=[0], reporter=count)
    assert count.phases.count("meta-fit") == 1 and count.phases.count("adapt") == 2


def test_a_lost_block_alone_is_recomputed_with_the_stored_meta_fit(tiny_suite, tiny_data, tmp_path):
    out = tmp_path / "out"
    fewrec.run(str(tiny_suite), data=tiny_data, out=out, learners=["bias"], seeds=[0], shots=[3])
    before = score_bytes(out)
    (folder,) = cells_of(out)
    fit_s = json.loads((folder / "timing.json").read_text())["meta_fit_s"]
    (folder / "block-0001.parquet").unlink()
    (folder / "cell.json").unlink()
    kept = (folder / "block-0000.parquet").stat().st_mtime_ns
    count = Count()
    fewrec.run(str(tiny_suite), data=tiny_data, out=out, learners=["bias"], seeds=[0], shots=[3], reporter=count)
    assert "meta-fit" not in count.phases
    assert score_bytes(out) == before and (folder / "block-0000.parquet").stat().st_mtime_ns == kept
    timing = json.loads((folder / "timing.json").read_text())
    assert timing["meta_fit_s"] == fit_s and len(timing["adapt_ms"]) == 6


def test_failing_learners_get_a_row_with_the_reason_and_the_rest_goes_on(tiny_suite, tiny_data, tmp_path, bad_learners):
    results = fewrec.run(
        str(tiny_suite), data=tiny_data, out=tmp_path / "out", plugins=[bad_learners], seeds=[0], shots=[2],
        learners=["raises", "nan", "sleeps", "breaks-meta-fit", "needs-features", "bias"], time_limit=0.5,
    )  # fmt: skip
    table = results.leaderboard.set_index("label")
    assert table["status"].to_dict() == {
        "raises": "failed", "nan": "failed", "sleeps": "timeout", "breaks-meta-fit": "failed",
        "needs-features": "not applicable", "bias": "ok",
    }  # fmt: skip
    reasons = table["reason"]
    assert "RuntimeError: no | luck" in reasons["raises"]
    assert "12 of 12 predictions are NaN" in reasons["nan"]
    assert "not finished within 0.5 s" in reasons["sleeps"]
    assert "ValueError: cannot learn" in reasons["breaks-meta-fit"]
    assert "tiny has no item features" in reasons["needs-features"]
    assert table["rmse"].notna().to_dict() == {label: label == "bias" for label in table.index}


def test_a_failure_is_tried_again_and_a_failed_meta_fit_only_once_a_run(tiny_suite, tiny_data, tmp_path, bad_learners):
    for _ in range(2):
        count = Count()
        fewrec.run(str(tiny_suite), data=tiny_data, out=tmp_path / "out", plugins=[bad_learners], seeds=[0],
                   learners=["breaks-meta-fit"], reporter=count)  # fmt: skip
        assert count.phases.count("meta-fit") == 1


def test_a_learner_without_zero_shot_prediction_is_not_applicable_at_k_zero(tiny_suite, tiny_data, tmp_path):
    results = fewrec.run(str(tiny_suite), data=tiny_data, out=tmp_path / "out", shots=[0], seeds=[0],
                         learners=["user-median", "user-mean", "bias"])  # fmt: skip
    table = results.leaderboard.set_index("label")
    assert table.loc["user-median", "status"] == "not applicable" and "K = 0" in table.loc["user-median", "reason"]
    assert set(table.loc[["user-mean", "bias"], "status"]) == {"ok"}


def test_another_environment_or_other_data_is_refused_without_a_new_folder(tiny_suite, tiny_data, tmp_path):
    out = tmp_path / "out"
    fewrec.run(str(tiny_suite), data=tiny_data, out=out, threads=1, learners=["bias"])
    before = score_bytes(out)
    with pytest.raises(FolderError, match="another environment .threads: 1 -> 2.*--out"):
        fewrec.run(str(tiny_suite), data=tiny_data, out=out, threads=2, learners=["bias"])
    from fewrec.data.synthetic import make_synthetic

    other = make_synthetic(n_users=60, n_items=40, ratings_per_user=20, seed=4)
    object.__setattr__(other, "name", "tiny")
    with pytest.raises(FolderError, match="other ratings of 'tiny' .its sha256 differs"):
        fewrec.run(str(tiny_suite), data=other, out=out, threads=1, learners=["bias"])
    features = pd.DataFrame({"age": range(len(tiny_data.user_ids))})
    for changed, said in (({"user_features": features}, "other features"), ({"scale": Scale(0, 9)}, "another scale")):
        with pytest.raises(FolderError, match=f"made with {said} of 'tiny'"):
            fewrec.run(str(tiny_suite), data=replace(tiny_data, **changed), out=out, threads=1, learners=["bias"])
    assert score_bytes(out) == before


def test_a_run_with_other_defaults_moves_the_old_cell_aside(tiny_suite, tiny_data, tmp_path):
    out = tmp_path / "out"
    options = {"data": tiny_data, "out": out, "seeds": [0], "shots": [2]}
    fewrec.run(str(tiny_suite), learners=["bias"], **options)
    (old,) = cells_of(out)
    tiny_suite.write_text(tiny_suite.read_text().replace('"bias"', '{learner = "bias", config = {user_ridge = 1}}'))
    results = fewrec.run(str(tiny_suite), learners=["bias"], **options)
    assert len(results.cells) == 1 and old not in cells_of(out)
    assert [folder.name.split("-")[0] for folder in (out / "superseded").iterdir()] == [old.name]


def test_impossible_episodes_are_refused_before_anything_is_written(tiny_suite, tiny_data, tmp_path):
    with pytest.raises(SuiteError, match="tiny, user-cold: N = 2 .* possible"):
        fewrec.run(str(tiny_suite), data=tiny_data, out=tmp_path / "out", shots=[19])
    assert not (tmp_path / "out").exists()


def test_an_interrupt_leaves_what_is_complete_and_the_next_run_goes_on(tiny_suite, tiny_data, tmp_path):
    class Interrupts(Reporter):
        done = 0

        def episodes_done(self, count):
            self.done += count
            if self.done == 14:
                raise KeyboardInterrupt

    out, whole = tmp_path / "out", tmp_path / "whole"
    fewrec.run(str(tiny_suite), data=tiny_data, out=whole)
    with pytest.raises(KeyboardInterrupt):
        fewrec.run(str(tiny_suite), data=tiny_data, out=out, reporter=Interrupts())
    assert 0 < len(score_bytes(out)) < len(score_bytes(whole))
    fewrec.run(str(tiny_suite), data=tiny_data, out=out)
    assert score_bytes(out) == score_bytes(whole)
    assert (out / "leaderboard.csv").exists()


def test_a_cells_record_says_where_its_options_come_from(tiny_suite, tiny_data, tmp_path):
    rows = '["user-mean", {learner = "user-mean", label = "same", config = {shrinkage = 6}}, "bias"]'
    tiny_suite.write_text(tiny_suite.read_text().replace('["global-mean", "user-mean", "bias"]', rows))
    fewrec.run(str(tiny_suite), data=tiny_data, out=tmp_path / "out", seeds=[0], shots=[2],
               settings={"bias": {"user_ridge": 2.0}}, progress=False)  # fmt: skip
    kinds = {record["spec"]["label"]: record["tuning"] for record in cells_of(tmp_path / "out").values()}
    assert kinds == {
        "user-mean": {"kind": "default"}, "same": {"kind": "default"}, "bias[user_ridge=2.0]": {"kind": "set"},
    }  # fmt: skip


def test_a_finished_cell_found_with_another_provenance_is_updated_and_not_run_again(tiny_suite, tiny_data, tmp_path):
    out, text = tmp_path / "out", tiny_suite.read_text()
    row = '{learner = "bias", label = "b", config = {user_ridge = 2.0}%s}'

    def run(tuned):
        tiny_suite.write_text(text.replace('"bias"]', row % tuned + "]"))
        count = Count()
        options = {"learners": ["b"], "seeds": [0], "shots": [2], "data": tiny_data, "out": out, "reporter": count}
        fewrec.run(str(tiny_suite), **options)
        (folder, record) = next(iter(cells_of(out).items()))
        return count.phases, folder, record

    _, folder, record = run("")
    files = {file: file.read_bytes() for file in folder.iterdir() if file.name != "cell.json"}
    assert record["tuning"] == {"kind": "set"}
    right, wrong = digest(record["spec"]["config"]), "0" * 16
    table = ', tuned = {budget = 9, trials = 8, method = "tpe", seeds = [0, 1], dataset = "tiny", suite = "t", '
    table += 'study = "abc", validation_rmse = 0.5, config_hash = "%s"}'
    phases, folder, found = run(table % right)
    assert phases == [] and found == {**record, "tuning": {
        "kind": "tuned", "budget": 9, "trials": 8, "method": "tpe", "seeds": [0, 1], "dataset": "tiny", "suite": "t",
        "states": [], "shots": [], "study": "abc", "validation_rmse": 0.5}}  # fmt: skip
    phases, folder, found = run(table % wrong)  # an option was changed after tuning
    assert phases == [] and found == record
    assert {file: file.read_bytes() for file in files} == files
