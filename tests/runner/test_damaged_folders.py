"""What a run finds in its folder and a user in a suite: damaged or odd, it is refused in one line or made anew."""

import json

import pytest
import torch

from fewrec.episodes.protocol import Protocol
from fewrec.errors import FolderError, SuiteError
from fewrec.runner.cell import CellSpec
from fewrec.runner.store import RunFolder
from fewrec.runner.suite import parse_suite
from fewrec.runner.tuned_rows import load_tuned
from tests.runner.conftest import TINY

SPEC = CellSpec("toy", Protocol(state="user-cold", k_max=3), 2, 3, 4, 10, 5, 5, 0, "knn", "knn", {})
MANIFEST = {"environment": {"versions": {}}, "datasets": {"toy": {"sha256": "a"}}, "splits": {}}


@pytest.mark.parametrize("old", [[], {"environment": 3}, {"datasets": {"toy": 3}}, {"splits": []}])
def test_a_manifest_that_is_of_no_run_is_refused(tmp_path, old):
    (tmp_path / "manifest.json").write_text(json.dumps(old))
    with pytest.raises(FolderError, match=r"manifest\.json is not of a run"):
        RunFolder(tmp_path).open(MANIFEST)


def test_a_state_that_is_not_whole_is_fitted_again(tmp_path):
    folder = RunFolder(tmp_path)
    folder.meta_fits.write("key", {"w": torch.ones(3)}, {"values": {}})
    assert folder.meta_fits.read("key")[0]["w"].tolist() == [1, 1, 1]
    state = tmp_path / "meta/key/state.safetensors"
    for content in (state.read_bytes()[:-1], b"", (2**40).to_bytes(8, "little") + b"{"):
        state.write_bytes(content)
        assert folder.meta_fits.read("key") is None
    state.unlink()
    assert folder.meta_fits.read("key") is None
    (tmp_path / "meta/key/meta.json").write_text("[" * 100_000)
    assert folder.meta_fits.read("key") is None


@pytest.mark.parametrize("record", ["[]", "3", "{}", '{"status": "ok"}', "[" * 100_000])
def test_a_record_of_something_else_is_no_finished_cell(tmp_path, record):
    folder = RunFolder(tmp_path)
    folder.cell(SPEC).mkdir(parents=True)
    (folder.cell(SPEC) / "cell.json").write_text(record)
    assert folder.finished(SPEC, "c0de") is None


@pytest.mark.parametrize("code", ["../../outside", "a/b", "", 3, None, "x" * 5_000])
def test_what_a_record_says_of_its_code_is_no_way_out_of_the_folder(tmp_path, code):
    folder = RunFolder(tmp_path / "run")
    folder.cell(SPEC).mkdir(parents=True)
    (folder.cell(SPEC) / "begun.json").write_text(json.dumps({"code_hash": code}))
    folder.begin_cell(SPEC, "c0de")
    assert [path.name for path in (tmp_path / "run/superseded").iterdir()] == [f"{SPEC.spec_hash}-unknown"]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("value", ["[" * 5_000, "1" * 5_000])
def test_toml_of_levels_or_digits_without_end_is_refused(tmp_path, value):
    with pytest.raises(SuiteError, match=r"^odd\.toml: not valid TOML: "):
        parse_suite(f"{TINY}\nk_max = {value}\n", "odd.toml")
    (tmp_path / "tuned.toml").write_text(f"x = {value}\n")
    with pytest.raises(SuiteError, match=r"^--tuned .*tuned\.toml: can't be read: "):
        load_tuned([tmp_path / "tuned.toml"])


def test_a_grid_beyond_a_million_cells_is_refused_before_it_is_built():
    seeds, query = (", ".join(map(str, range(1, n + 1))) for n in (2_000, 1_000))
    text = TINY.replace("seeds = [0, 1]", f"seeds = [{seeds}]").replace("n_query = 6", f"n_query = [{query}]")
    with pytest.raises(
        SuiteError, match=r"^tiny: it asks for 12,000,000 cells, more than 1,000,000; shorten its lists$"
    ):
        parse_suite(text, "tiny")


def test_a_value_that_stands_twice_in_a_list_makes_no_cell_twice():
    twice = parse_suite(TINY.replace("seeds = [0, 1]", "seeds = [0, 1, 0]").replace("[2, 3]", "[2, 3, 3]"), "tiny")
    assert twice.cells() == parse_suite(TINY, "tiny").cells()


def test_conditions_that_combine_to_too_many_protocols_are_refused_before_they_are_built():
    shots = ", ".join(map(str, range(200)))
    noise = ", ".join(str(i / 100) for i in range(100))
    with pytest.raises(SuiteError, match=r"its lists combine to 20,000 protocols, more than 10,000"):
        parse_suite(f"{TINY}\n[protocol]\nitem_shots = [{shots}]\nsupport_noise = [{noise}]\n", "tiny")
