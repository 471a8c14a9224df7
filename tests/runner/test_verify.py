"""Verifying: what was recorded is run again in another process, and every way in which it can differ is named."""

import csv
import io
import json
import os
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from rich.console import Console

import fewrec
from fewrec.checksums import sealed, sha256_of
from fewrec.cli import main
from fewrec.errors import DataError, FewrecError, SuiteError
from fewrec.report.comparison.integrity import check_integrity
from fewrec.report.comparison.verification import judge, terminal_report
from fewrec.report.files import read_json
from fewrec.report.render import write_leaderboard
from fewrec.runner.cell import CellSpec
from fewrec.runner.choose import Filter, draw_sample
from fewrec.runner.progress import Reporter
from fewrec.runner.verify import verify
from fewrec.seeding import digest

SUITE = """
title = "made up"
datasets = ["synthetic"]
states = ["user-cold", "both-cold"]
n_users = 2
shots = [2, 3]
n_query = 6
seeds = [0]
episodes = 4
block = 2
learners = ["user-mean", "bias"]
"""
PLUGIN = '''
"""Learners of a plugin: one that works, one that fails, one that needs what the data set lacks."""
import os

import torch

from fewrec.learners.base import Learner, Predictor


class Constant(Predictor):
    def predict(self, users, items):
        return torch.full((len(items),), 3.0)


class Three(Learner):
    """Always three."""
    name = "verify-three"

    def adapt(self, support, ctx):
        print("noise on the standard output")
        BODY
        return Constant()


class Raises(Learner):
    """Raises in adapt."""
    name = "verify-raises"

    def adapt(self, support, ctx):
        raise RuntimeError("no | luck")


class NeedsFeatures(Learner):
    """Needs what the data set lacks."""
    name = "verify-needs-features"
    needs = frozenset({"item_features"})

    def adapt(self, support, ctx):
        return Constant()
'''


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A finished run of two learners in two states, on one thread; not to be changed."""
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "made-up.toml").write_text(SUITE)
    fewrec.run(str(folder / "made-up.toml"), out=folder / "run", progress=False, threads=1, device="cpu")
    return folder / "run"


@pytest.fixture
def run(recorded, tmp_path):
    """A copy of the recorded run, to be tampered with."""
    shutil.copytree(recorded, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Where temporary folders are made during the test."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def cells_of(run, **fields):
    """Return the folders of the cells whose specification has these fields, in a fixed order."""
    found = []
    for folder in sorted((run / "cells").iterdir()):
        spec = json.loads((folder / "cell.json").read_text())["spec"]
        if all({**spec, **spec["protocol"]}[name] == value for name, value in fields.items()):
            found.append(folder)
    return found


def edit_score(cell, by, column="se"):
    """Change the score of one user of a cell, and the checksum in its record, as somebody does who wants to deceive."""
    file = sorted(cell.glob("block-*.parquet"))[0]
    frame = pd.read_parquet(file)
    frame.loc[1, column] += by
    rewrite(file, frame)


def rewrite(file, frame):
    """Write other score rows, with the checksum that the cell's record then needs."""
    frame.to_parquet(file, index=False)
    record = read_json(file.with_name("cell.json"))
    edit_record(file.parent, files={**record["files"], file.name: sha256_of(file)})


def edit_record(cell, **fields):
    record = json.loads((cell / "cell.json").read_text())
    (cell / "cell.json").write_text(json.dumps(sealed({**record, **fields})))


def edit_spec(cell, **fields):
    """Change a cell's specification and everything that hangs on its hash, as another version would have written it."""
    record = json.loads((cell / "cell.json").read_text())
    spec = {name: value for name, value in {**record["spec"], **fields}.items() if value != "absent"}
    edit_record(cell, spec=spec, spec_hash=digest(spec))
    cell.rename(cell.with_name(digest(spec)))
    return digest(spec)


def edit_manifest(run, **environment):
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["environment"].update(environment)
    (run / "manifest.json").write_text(json.dumps(sealed(manifest)))


def shown(verification):
    console = Console(width=250, record=True, file=io.StringIO())
    console.print(terminal_report(verification))
    return console.export_text()


# the same machine


def test_on_its_machine_every_score_of_a_run_has_the_same_bytes_and_nothing_is_left_behind(recorded, temporary):
    before = {file: file.read_bytes() for file in recorded.rglob("*") if file.is_file()}
    found = verify(recorded, count=None)
    assert [one.outcome for one in found.cells] == ["same bytes"] * 8
    assert found.agrees and found.exact and not found.differences and not found.integrity.problems
    assert "8 of 8 cells agree (8 same bytes)" in shown(found)
    assert {file: file.read_bytes() for file in recorded.rglob("*") if file.is_file()} == before
    assert list(temporary.iterdir()) == []


def test_an_edited_score_is_caught_named_and_ends_with_exit_code_1(run, tmp_path):
    (cell,) = cells_of(run, learner="bias", state="user-cold", k_shot=3)
    edit_score(cell, 0.5)
    write_leaderboard(run)  # so that the tables fit to what was edited
    report = tmp_path / "report.json"
    done = CliRunner().invoke(
        main, ["verify", str(run), "--learner", "bias", "--state", "user-cold", "--json", str(report)]
    )
    assert done.exit_code == 1, done.output
    value = json.loads(report.read_text())
    wrong, right = ([one for one in value["cells"] if one["agrees"] is agrees] for agrees in (False, True))
    assert [one["cell"] for one in wrong] == [cell.name] and [one["outcome"] for one in right] == ["same bytes"]
    old = pd.read_parquet(sorted(cell.glob("block-*.parquet"))[0]).iloc[1]
    place = f"se of episode {int(old['episode'])}, user {int(old['user'])}: {float(old['se'])!r} -> "
    assert wrong[0]["details"][0].startswith(place)
    assert wrong[0]["metrics"]["rmse"]["recorded"] > wrong[0]["metrics"]["rmse"]["now"]
    assert wrong[0]["metrics"]["mae"]["difference"] == 0
    assert value["largest"]["rmse"] == pytest.approx(-wrong[0]["metrics"]["rmse"]["difference"])
    assert "DIFFERS: other bytes" in done.output and "1 of 2 cells agree" in done.output


# another machine


def test_on_another_machine_closed_forms_may_differ_by_1e_5_and_trained_learners_by_2e_3(run):
    edit_manifest(run, processor="An older processor")
    cells = [cells_of(run, learner="bias", k_shot=3)[0], *cells_of(run, learner="bias", k_shot=2)]
    for cell, by in zip(cells, (1e-6, 1e-2, 0.0), strict=True):  # of 48 squared errors
        edit_score(cell, by)
    write_leaderboard(run)
    found = verify(run, count=None, wanted=Filter(learners=("bias",), cells=tuple(cell.name for cell in cells)))
    verdicts = {one.cell: one for one in found.cells}
    assert not found.exact and found.differences == ("processor: An older processor -> " + _processor(found),)
    assert "processor: An older processor" in found.rule and "another" in found.rule
    assert verdicts[cells[0].name].outcome == "within tolerance"
    assert verdicts[cells[0].name].verdict.startswith("within 1e-5 (")
    assert verdicts[cells[1].name].outcome == "differs" and "more than 1e-5" in verdicts[cells[1].name].verdict
    assert verdicts[cells[2].name].outcome == "same bytes"


def _processor(found):
    return found.environment["processor"]


def score_frame(**columns):
    return pd.DataFrame({"episode": [0, 0], "user": [4, 7], "n": [2, 2], "se": [2.0, 1.0], "ae": [2.0, 1.0],
                         "auc": [0.5, np.nan], **columns})  # fmt: skip


RECORD = {"spec_hash": "ab", "status": "ok", "reason": "", "code_hash": "c0de", "split_hash": "5p1it", "loaded": {},
          "text_sha256": "7e47", "spec": {"label": "x", "learner": "x", "dataset": "toy", "n_users": 1, "k_shot": 5,
          "n_query": 2, "seed": 0, "protocol": {"state": "warm"}}}  # fmt: skip


def event(closed_form=False, new_options=None, **record):
    return {"event": "finished", "closed_form": closed_form, "new_options": new_options or {},
            "record": {**RECORD, **record}}  # fmt: skip


def test_a_trained_learner_within_2e_3_agrees_elsewhere_and_differs_on_the_same_machine():
    old, new = score_frame(), score_frame(se=[2.0, 1.003])
    elsewhere, here = (judge(RECORD, event(), old, new, exact) for exact in (False, True))
    assert elsewhere.outcome == "within tolerance" and elsewhere.verdict == "within 2e-3 (0.00043)"
    assert here.outcome == "differs" and here.verdict == "DIFFERS: other bytes (RMSE by 0.00043, within 2e-3)"
    assert here.details[0] == "se of episode 0, user 7: 1.0 -> 1.003"
    assert judge(RECORD, event(closed_form=True), old, new, False).outcome == "differs"
    assert judge(RECORD, event(), old, score_frame(se=[2.0, 1.03]), False).outcome == "differs"


def test_other_users_differ_under_either_rule_even_where_the_metrics_agree():
    other = score_frame(user=[4, 8])
    for exact in (True, False):
        found = judge(RECORD, event(), score_frame(), other, exact)
        assert found.outcome == "differs" and "user 7" in found.details[0] and "user 8" in found.details[0]


def test_the_order_of_rows_in_a_file_and_the_bits_of_nan_are_no_difference():
    other = score_frame(auc=[0.5, -np.nan]).iloc[::-1]
    assert judge(RECORD, event(), score_frame(), other, True).outcome == "same bytes"
    assert judge(RECORD, event(), score_frame(), score_frame(auc=[-0.5, np.nan]), True).outcome == "differs"
    assert judge(RECORD, event(), score_frame(se=[0.0, 1.0]), score_frame(se=[-0.0, 1.0]), True).outcome == "differs"


def test_without_squared_errors_the_tolerance_is_that_of_auc():
    old, new = (score_frame(auc=[value, 0.5]).drop(columns=["se", "ae"]) for value in (0.5, 0.503))
    assert judge(RECORD, event(), old, new, False).verdict == "within 2e-3 (0.0015)"
    assert "AUC by" in judge(RECORD, event(closed_form=True), old, new, False).verdict


def test_what_surrounds_equal_scores_is_named():
    again = event(new_options={"depth": 3}, code_hash="f00d", text_sha256="new", loaded={"lm": "1" * 64})
    found = judge(RECORD, again, score_frame(), score_frame(), True)
    assert found.outcome == "same bytes"
    assert dict(found.notes) == {
        "code": "c0de -> f00d", "options": "depth is new and takes its default 3", "text": "sha256 7e47 -> new",
        "weights": f"lm: sha256 not recorded -> {'1' * 12}",
    }  # fmt: skip


def test_a_status_that_changes_differs_and_missing_weights_compare_nothing():
    none = score_frame().iloc[:0]
    failed = {**RECORD, "status": "failed", "reason": "ValueError: a"}
    found = judge(RECORD, event(status="failed", reason="ValueError: a"), score_frame(), None, True)
    assert found.verdict == "DIFFERS: recorded ok, now failed (ValueError: a)"
    assert (
        judge(failed, event(), none, score_frame(), True).verdict == "DIFFERS: recorded failed (ValueError: a), now ok"
    )
    same = judge(failed, event(status="failed", reason="ValueError: b"), none, None, True)
    assert same.outcome == "same status" and same.notes == (("reason", "'ValueError: a' -> 'ValueError: b'"),)
    lacking = judge(RECORD, event(status="failed", reason="DataError: no weights"), score_frame(), None, True)
    assert lacking.outcome == "not compared" and lacking.verdict == "can't be compared: no weights"


# what can't be compared


def test_each_reason_why_a_cell_cannot_be_compared_is_said(run):
    first, second, third, fourth = cells_of(run, learner="bias")
    config = json.loads((first / "cell.json").read_text())["spec"]["config"]
    unknown = edit_spec(first, config={**config, "twist": 1})
    lacking = edit_spec(second, block="absent")
    edit_record(third, dataset_sha256="f" * 64)
    edit_record(fourth, split_hash="0" * 64)
    stranger = edit_spec(cells_of(run, learner="user-mean")[0], learner="of-a-plugin")
    found = verify(run, count=None)
    said = {one.cell: one.verdict for one in found.cells}
    assert said[unknown].endswith("this version of bias refuses the recorded option 'twist': it has no such option")
    assert "its specification lacks 'block': it was made by another version of fewrec" in said[lacking]
    assert "other data: synthetic has sha256" in said[third.name] and "f" * 12 in said[third.name]
    assert said[fourth.name].startswith("DIFFERS: this version splits the data otherwise (split hash 000000000000 -> ")
    assert "unknown learner 'of-a-plugin'" in said[stranger] and "--plugin FILE" in said[stranger]
    assert [one.outcome for one in found.cells].count("same bytes") == 3 and not found.agrees
    assert any(third.name in problem and "the manifest says" in problem for problem in found.integrity.problems)


def test_a_plugins_learner_is_run_again_and_a_process_that_dies_takes_only_its_cell_along(tmp_path):
    suite, plugin, out = tmp_path / "s.toml", tmp_path / "plugin.py", tmp_path / "run"
    suite.write_text(SUITE)
    plugin.write_text(PLUGIN.replace("BODY", "pass"))
    fewrec.run(str(suite), learners=["verify-three", "verify-raises", "verify-needs-features", "bias"],
               states=["user-cold"], shots=[2], plugins=[plugin], out=out, progress=False, device="cpu",
               threads=1)  # fmt: skip
    plugin.write_text(PLUGIN.replace("BODY", "os.write(2, b'out of luck\\n'); os._exit(7)"))
    found = verify(out, count=None, plugins=[plugin])
    said = {one.learner: one for one in found.cells}
    assert (
        said["verify-three"].outcome == "not compared" and "exit code 7 (out of luck)" in said["verify-three"].verdict
    )
    assert said["verify-raises"].verdict == "same status: failed (RuntimeError: no | luck)"
    assert (
        said["verify-needs-features"].verdict
        == "same status: not applicable (synthetic-200x100-0 has no item features)"
    )
    assert said["bias"].outcome == "same bytes" and len(found.cells) == 4
    with pytest.raises(SuiteError, match="no such file"):
        verify(out, plugins=[tmp_path / "elsewhere.py"])


def test_results_of_ones_own_file_need_that_file_again(tmp_path):
    rows = [(u, (u * 7 + 3 * k) % 20, 1 + (u * k) % 5) for u in range(30) for k in range(12)]
    mine, suite = tmp_path / "mine.csv", tmp_path / "s.toml"
    pd.DataFrame(rows, columns=["user", "item", "rating"]).drop_duplicates(["user", "item"]).to_csv(mine, index=False)
    suite.write_text(SUITE)
    fewrec.run(str(suite), data=mine, learners=["bias"], states=["user-cold"], shots=[2], out=tmp_path / "run",
               progress=False, device="cpu", threads=1)  # fmt: skip
    with pytest.raises(DataError, match=r"mine: a file of someone's own \(mine.csv, sha256 [0-9a-f]{64}\).*--data"):
        verify(tmp_path / "run")
    moved = mine.rename(tmp_path / "renamed.csv")
    done = CliRunner().invoke(main, ["verify", str(tmp_path / "run"), "--data", str(moved)])
    assert done.exit_code == 0 and "same bytes" in done.output, done.output


class Interrupts(Reporter):
    """Stops as Ctrl-C does, when the second cell begins."""

    cells = 0

    def cell(self, spec):
        self.cells += 1
        if self.cells == 2:
            raise KeyboardInterrupt


def test_an_interrupt_leaves_no_folder_and_no_process(recorded, temporary):
    with pytest.raises(KeyboardInterrupt):
        verify(recorded, reporter=Interrupts())
    assert list(temporary.iterdir()) == []
    assert not _children_with(temporary)


def _children_with(folder):
    """Return the child processes of this one that run a re-run, as Linux knows them."""
    try:
        tasks = Path(f"/proc/{os.getpid()}/task")
        children = [pid for task in tasks.iterdir() for pid in (task / "children").read_text().split()]
        return [pid for pid in children if "fewrec.runner.rerun" in Path(f"/proc/{pid}/cmdline").read_text()]
    except OSError:
        return []


# choosing


def test_a_sample_is_spread_over_learners_states_and_k_and_the_same_each_time():
    cells = pd.DataFrame(
        list(product("abcdef", ("user-cold", "warm"), (1, 5), (0, 1))),
        columns=["label", "state", "k_shot", "seed"],
    ).assign(dataset="toy")  # fmt: skip
    drawn = cells.iloc[draw_sample(cells, 6, seed=0)]
    assert set(drawn["label"]) == set("abcdef")
    assert drawn["state"].value_counts().tolist() == drawn["k_shot"].value_counts().tolist() == [3, 3]
    assert draw_sample(cells, 6, seed=0) == draw_sample(cells, 6, seed=0) != draw_sample(cells, 6, seed=1)
    assert sorted(draw_sample(cells, 100, seed=3)) == list(range(len(cells)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--learner", "biass"], "--learner biass: .* did you mean 'bias'"),
        (["--state", "warm"], "--state warm: .* has no such cell"),
        (["--shots", "9"], "--shots 9: .* has no such cell"),
        (["--cell", "zz"], "--cell zz: .* has no such cell"),
        (["--items", "texts.csv"], "--items only goes with --data"),
    ],
)
def test_a_filter_that_fits_no_cell_is_an_error_with_exit_code_2(recorded, options, said):
    done = CliRunner().invoke(main, ["verify", str(recorded), *options])
    assert done.exit_code == 2
    assert pd.Series([done.output]).str.contains(said)[0], done.output


def test_a_folder_that_holds_no_results_is_an_error_with_exit_code_2(tmp_path):
    done = CliRunner().invoke(main, ["verify", str(tmp_path)])
    assert done.exit_code == 2 and "not a folder of results" in done.output


# a cell from its record


def test_a_cell_is_read_back_from_its_canonical_form(recorded):
    for folder in cells_of(recorded):
        record = json.loads((folder / "cell.json").read_text())
        spec = CellSpec.from_canonical(record["spec"])
        assert spec.canonical() == record["spec"] and spec.spec_hash == folder.name


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"colour": "red"}, "has 'colour', which this version does not know"),
        ({"n_users": "2"}, "n_users"),
        ({"k_shot": "most"}, "k_shot"),
        ({"protocol": {"state": "user-cold", "k_max": 3}}, "protocol lacks"),
        ({"protocol": {"state": "lukewarm", "k_max": 3}}, "protocol.state"),
    ],
)
def test_a_specification_that_this_version_would_write_otherwise_is_refused(recorded, change, said):
    record = json.loads((cells_of(recorded)[0] / "cell.json").read_text())
    with pytest.raises(SuiteError, match="specification") as error:
        CellSpec.from_canonical({**record["spec"], **change})
    assert said in str(error.value)


# the folder itself


def test_a_finished_run_and_its_export_fit_together(recorded, tmp_path):
    from fewrec.report.export import export_reference

    export_reference(recorded, tmp_path / "reference")
    for folder in (recorded, tmp_path / "reference"):
        found = check_integrity(fewrec.load_results(folder))
        assert found.problems == [] and found.notes == []


def problems(run):
    return check_integrity(fewrec.load_results(run)).problems


def test_an_edited_table_is_named_with_line_column_and_both_values(run):
    table = run / "leaderboard.csv"
    rows = list(csv.DictReader(table.open()))
    table.write_text(table.read_text().replace(rows[1]["rmse"], "0.123456", 1))
    (problem,) = problems(run)
    assert f"line 3: rmse of '{rows[1]['label']}' says 0.123456, the cells give {rows[1]['rmse']}" in problem
    write_leaderboard(run)
    page = run / "leaderboard.md"
    page.write_text(page.read_text().replace("user-mean", "my-method", 1))
    (problem,) = problems(run)
    assert str(page) in problem and "edited" in problem


def test_a_table_that_lacks_a_column_of_this_version_is_a_note(run):
    table = run / "leaderboard.csv"
    frame = pd.read_csv(table, dtype=str, keep_default_na=False).drop(columns="auc")
    frame.to_csv(table, index=False)
    found = check_integrity(fewrec.load_results(run))
    assert found.problems == [] and "it lacks auc" in found.notes[0]


def test_rows_that_are_missing_doubled_or_of_another_size_are_problems(run):
    lost, doubled, shrunk, edited = cells_of(run, learner="bias")
    sorted(lost.glob("block-*.parquet"))[0].unlink()
    for cell, column in ((doubled, "user"), (shrunk, "n")):
        file = sorted(cell.glob("block-*.parquet"))[0]
        frame = pd.read_parquet(file)
        frame.loc[0, column] = frame.loc[0, column] - 1 if column == "n" else 10_000
        rewrite(file, frame[: len(frame) - (column == "user")])
    edit_record(edited, spec={**json.loads((edited / "cell.json").read_text())["spec"], "n_query": 6, "block": 1})
    said = "\n".join(problems(run))
    assert f"{lost.name} (bias" in said and "2 of 4 episodes are there" in said
    assert f"{doubled.name} (bias" in said and "an episode has not N = 2 users" in said
    assert f"{shrunk.name} (bias" in said and "a user has not Q = 6 query ratings" in said
    assert f"{edited.name} (bias" in said and "its hash is not that of its specification" in said
    with pytest.raises(FewrecError):
        verify(run / "cells")
