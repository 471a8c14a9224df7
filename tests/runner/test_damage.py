"""What a disk makes of a run's files is noticed: the next run says so and makes it anew, report and verify refuse."""

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import fewrec
from fewrec.checksums import sealed, sha256_of, unsealed
from fewrec.cli import main
from fewrec.errors import DataError, FolderError
from fewrec.report.comparison.integrity import check_integrity
from fewrec.report.files import json_bytes
from fewrec.report.results import load_results
from fewrec.runner import store
from fewrec.runner.damage import begun_of, damaged, read_json
from fewrec.runner.files import write_json
from fewrec.runner.progress import Reporter
from tests.runner.test_execute import score_bytes


class Told(Reporter):
    """Keeps warnings and the phases that were gone through."""

    def __init__(self):
        self.lines, self.phases = [], []

    def phase(self, name):
        self.phases.append(name)

    def warn(self, text):
        self.lines.append(text)


@pytest.fixture
def again(tiny_suite, tiny_data, tmp_path, monkeypatch):
    """Return a function that runs a suite of two learners, one of them meta-fitted, and returns what it was told."""
    monkeypatch.chdir(tmp_path)  # references of other suites, which estimates are made from, take seconds to read
    suite = tiny_suite.read_text().replace('["global-mean", "user-mean", "bias"]', '["user-mean", "mf-foldin"]')
    tiny_suite.write_text(suite.replace("shots = [2, 3]", "shots = [3]").replace("seeds = [0, 1]", "seeds = [0]"))

    def run():
        told = Told()
        fewrec.run(str(tiny_suite), data=tiny_data, out=tmp_path / "out", threads=1, device="cpu", reporter=told)
        return told

    return run


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(bytes(content))


def tear(file):
    file.write_bytes(file.read_bytes()[:-20])


def cell_of(out, learner):
    (folder,) = [f.parent for f in out.glob("cells/*/cell.json") if read_json(f)["spec"]["learner"] == learner]
    return folder


KINDS = ["block-0001.parquet", "predictions-0001.parquet", "sums-0001.json", "block-0001.timing.json", "cell.json",
         "timing.json", "begun.json"]  # fmt: skip


@pytest.mark.parametrize("spoil", [flip, tear])
def test_a_damaged_file_of_a_cell_is_said_and_made_anew_and_nothing_else(again, tmp_path, spoil):
    out = tmp_path / "out"
    assert again().lines == []
    before = score_bytes(out)
    for kind in KINDS:
        folder = cell_of(out, "mf-foldin")
        others = {file: file.stat().st_ino for file in out.glob("cells/*/block-*.parquet") if "0001" not in file.name}
        whole = {file.name: file.read_bytes() for file in folder.iterdir() if "tim" not in file.name}
        spoil(folder / kind)
        told = again()
        assert any(f"{folder / kind}: damaged" in line and "made anew" in line for line in told.lines), kind
        assert "meta-fit" not in told.phases
        assert score_bytes(out) == before
        assert {file.name: file.read_bytes() for file in folder.iterdir() if "tim" not in file.name} == whole, kind
        assert {file: file.stat().st_ino for file in others} == others, "a complete block was written again"
        assert again().lines == [] and again().phases == []


@pytest.fixture
def unfinished(again, tmp_path):
    """Return the folder of a cell that lacks its last block and its record, as a killed run leaves it."""
    assert again().lines == []
    folder = cell_of(tmp_path / "out", "mf-foldin")
    last = max(folder.glob("block-*.parquet")).name.removeprefix("block-").removesuffix(".parquet")
    for file in (*folder.glob(f"*-{last}.*"), *folder.glob("cell.json"), *folder.glob("timing.json")):
        file.unlink()
    return folder


def drop(file):
    file.unlink()


@pytest.mark.parametrize("spoil", [flip, tear, drop])
def test_blocks_of_an_unfinished_cell_stay_where_begun_json_is_damaged(again, unfinished, tmp_path, spoil):
    kept = {file: file.stat().st_ino for file in unfinished.glob("*-0*.parquet")}
    before = {name: data for name, data in score_bytes(tmp_path / "out").items()}
    assert len(kept) >= 4
    begun = (unfinished / "begun.json").read_bytes()
    spoil(unfinished / "begun.json")
    told = again()
    assert told.lines == ([] if spoil is drop else [
        f"{unfinished / 'begun.json'}: damaged (its values are not those that it was written with); it is made anew"
    ])  # fmt: skip
    assert {file: file.stat().st_ino for file in kept} == kept, "a complete block was written again"
    assert (unfinished / "begun.json").read_bytes() == begun and not (tmp_path / "out" / "superseded").exists()
    assert before.items() <= score_bytes(tmp_path / "out").items()
    assert again().lines == [] and again().phases == []


@pytest.mark.parametrize("whose", ["of all blocks", "of one block", "of none"])
def test_blocks_of_other_or_unknown_code_are_never_kept_where_begun_json_is_damaged(again, unfinished, tmp_path, whose):
    files = sorted(unfinished.glob("sums-*.json"))
    for file in files[:1] if whose == "of one block" else files:
        record = read_json(file)
        if whose == "of none":  # as earlier versions wrote them
            del record["code_hash"]
        else:
            record["code_hash"] = "0thercode"
        write_json(file, record)
    old = {file.name: file.read_bytes() for file in unfinished.glob("*.parquet")}
    flip(unfinished / "begun.json")
    again()
    (aside,) = (tmp_path / "out" / "superseded").iterdir()
    assert aside.name.endswith("-0thercode" if whose == "of all blocks" else "-unknown")
    assert {file.name: file.read_bytes() for file in aside.glob("*.parquet")} == old
    assert again().lines == [] and again().phases == []


def test_a_block_without_checksums_is_vouched_for_by_no_other(unfinished):
    assert begun_of(unfinished) == {**read_json(unfinished / "begun.json")}
    (unfinished / "begun.json").unlink()
    assert set(begun_of(unfinished)) == {"code_hash", "row"}
    (unfinished / "sums-0000.json").unlink()
    assert begun_of(unfinished) == {}


def test_a_cell_that_another_configuration_replaces_is_set_aside_though_its_begun_json_is_damaged(
    again, tiny_suite, tmp_path
):
    again()
    old = cell_of(tmp_path / "out", "mf-foldin")
    flip(old / "begun.json")
    other = '{ learner = "mf-foldin", label = "mf-foldin", config = { rank = 3 } }'
    tiny_suite.write_text(tiny_suite.read_text().replace('"mf-foldin"', other))
    again()
    assert cell_of(tmp_path / "out", "mf-foldin").name != old.name and not old.exists()


@pytest.mark.parametrize("kind", ["block-0001.parquet", "timing.json"])
def test_a_file_that_the_disk_does_not_give_is_said_with_its_reason_and_made_anew(again, tmp_path, monkeypatch, kind):
    again()
    out = tmp_path / "out"
    before, file = score_bytes(out), cell_of(out, "mf-foldin") / kind
    broken(monkeypatch, file)
    told = again()
    assert told.lines[0] == f"{file}: damaged, can't be read (Input/output error); it is made anew"
    monkeypatch.undo()
    assert score_bytes(out) == before


@pytest.mark.parametrize("kind", ["block-0001.parquet", "predictions-0001.parquet"])
def test_a_report_of_a_file_that_the_disk_does_not_give_is_one_line(again, tmp_path, monkeypatch, kind):
    again()
    file = cell_of(tmp_path / "out", "user-mean") / kind
    broken(monkeypatch, file)
    found = check_integrity(load_results(tmp_path / "out")).problems if "predictions" in kind else None
    if found is None:
        with pytest.raises(DataError) as error:
            load_results(tmp_path / "out")
        found = [str(error.value)]
    assert found == [f"{file}: can't be read (Input/output error); run the suite again, which makes it anew"]


def test_a_damaged_file_that_cannot_be_removed_is_named(again, tmp_path):
    again()
    file = cell_of(tmp_path / "out", "mf-foldin") / "timing.json"
    file.unlink()
    file.mkdir()
    with pytest.raises(
        FolderError, match=r"timing\.json: damaged, can't be read .*, and can't be removed .*; remove it"
    ):
        again()


def broken(monkeypatch, file):
    """Let every opening of a file fail, as a disk with a bad sector does, until it is another file."""
    bad, opened = file.stat().st_ino, Path.open

    def failing(path, *args, **kwargs):
        if path == file and path.exists() and path.stat().st_ino == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", failing)


def test_a_missing_file_of_a_complete_cell_is_made_anew(again, tmp_path):
    out = tmp_path / "out"
    again()
    before = score_bytes(out)
    for name in ("block-0001.parquet", "predictions-0000.parquet", "timing.json"):
        (cell_of(out, "mf-foldin") / name).unlink()
        again()
        assert score_bytes(out) == before and (cell_of(out, "mf-foldin") / name).exists()


@pytest.mark.parametrize("spoil", [flip, tear])
@pytest.mark.parametrize("file", ["state.safetensors", "meta.json"])
def test_a_damaged_meta_fit_is_said_and_made_anew(again, tmp_path, spoil, file):
    out = tmp_path / "out"
    again()
    before = score_bytes(out)
    spoil(next(out.glob(f"meta/*/{file}")))
    shutil.rmtree(cell_of(out, "mf-foldin"))
    folder = store.RunFolder(out)
    assert folder.meta_fits.packed(next(out.glob("meta/*")).name) is None, "it would go to the nodes of a cluster"
    told = again()
    assert len(told.lines) == 1 and file in told.lines[0] and "the meta-fit is made anew" in told.lines[0]
    assert "meta-fit" in told.phases and score_bytes(out) == before


def test_a_damaged_manifest_is_refused_and_nothing_is_touched(again, tmp_path):
    again()
    manifest = tmp_path / "out" / "manifest.json"
    whole = manifest.read_bytes()
    flip(manifest)
    with pytest.raises(FolderError, match="manifest.json: damaged.*put a copy of it back"):
        again()
    with pytest.raises(DataError, match="manifest.json"):
        load_results(tmp_path / "out")
    manifest.write_bytes(whole)
    assert again().phases == []


@pytest.mark.parametrize("name", ["block-0000.parquet", "cell.json", "timing.json"])
def test_a_report_of_damaged_files_is_refused_in_one_line(again, tmp_path, name):
    again()
    flip(cell_of(tmp_path / "out", "user-mean") / name)
    done = CliRunner().invoke(main, ["report", str(tmp_path / "out"), "--no-plots"])
    assert done.exit_code == 2 and name in done.stderr and len(done.stderr.splitlines()) == 1


def test_verify_names_predictions_that_are_damaged_or_missing(again, tmp_path):
    again()
    file = cell_of(tmp_path / "out", "user-mean") / "predictions-0001.parquet"
    flip(file)
    assert check_integrity(load_results(tmp_path / "out")).problems == [
        f"{file}: damaged (its SHA-256 is not the recorded one); run the suite again"
    ]
    file.unlink()
    assert "missing" in check_integrity(load_results(tmp_path / "out")).problems[0]


def test_results_of_earlier_versions_without_checksums_are_taken_as_they_are(again, tmp_path):
    out = tmp_path / "out"
    again()
    before = score_bytes(out)
    for file in out.rglob("*.json"):
        if file.name.startswith("sums-"):
            file.unlink()
        elif file.name != "leaderboard.json":
            record = read_json(file)
            file.write_bytes(json_bytes({k: v for k, v in record.items() if k not in ("files", "state_sha256")}))
    told = again()
    assert told.lines == [] and told.phases == [] and score_bytes(out) == before
    tear(cell_of(out, "mf-foldin") / "block-0002.parquet")
    assert "not a readable Parquet file" in again().lines[0] and score_bytes(out) == before


def test_what_a_killed_run_was_writing_is_cleared_away(again, tmp_path):
    out = tmp_path / "out"
    again()
    folder = cell_of(out, "mf-foldin")
    for stale in (folder / ".block-0009.parquet.77.tmp", out / ".leaderboard.md.x.part", out / ".manifest.json.7.tmp"):
        stale.write_bytes(b"half")
    assert damaged(folder) == []
    again()
    assert [file.name for file in out.rglob(".*") if file.is_file()] in ([], [".lock"])


def test_every_flipped_bit_of_a_record_and_of_a_block_is_noticed_or_changes_no_value(again, tmp_path):
    again()
    folder = cell_of(tmp_path / "out", "user-mean")
    record, block = folder / "cell.json", folder / "block-0000.parquet"
    value, text, sha256 = read_json(record), record.read_bytes(), sha256_of(block)
    rng = np.random.default_rng(0)
    for file, content, same in (
        (record, text, lambda: read_json(record) in (None, value)),
        (block, block.read_bytes(), lambda: sha256_of(block) != sha256),
    ):
        for place in rng.integers(0, len(content), 200):
            changed = bytearray(content)
            changed[place] ^= 1 << int(rng.integers(8))
            file.write_bytes(bytes(changed))
            assert same(), "a value was changed and nobody noticed"
        file.write_bytes(content)


def test_a_seal_covers_every_value_and_is_no_part_of_the_record():
    record = {"a": 1.5, "b": [1, {"c": "x"}]}
    assert unsealed(sealed(record)) == record == unsealed(record) and sealed(sealed(record)) == sealed(record)
    with pytest.raises(ValueError, match="damaged, or edited by hand"):
        unsealed({**sealed(record), "a": 1.6})


def test_a_full_disk_while_a_state_is_written_is_the_folder_s_fault_not_the_learner_s(again, monkeypatch, tmp_path):
    from safetensors import SafetensorError

    def full(tensors, path):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("fewrec.runner.meta_fits.save_file", full)
    with pytest.raises(FolderError, match="state.safetensors: can't be written .*No space left.*run again: it resumes"):
        again()
    monkeypatch.undo()
    assert "meta-fit" in again().phases
