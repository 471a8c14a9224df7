"""The two hashes of a cell: what changes them and what does not."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import fewrec
from fewrec.learners.bias import Bias
from fewrec.learners.registry import learner_class
from fewrec.learners.trivial import UserMean
from fewrec.runner.cell import code_hash
from fewrec.runner.suite import parse_suite
from tests.runner.conftest import TINY


def test_every_field_of_the_specification_changes_the_hash():
    base = parse_suite(TINY, "t").cells()[0]
    changes = [("seeds = [0, 1]", "seeds = [5]"), ("n_users = 2", "n_users = 1"), ("n_query = 6", "n_query = 7"),
               ("shots = [2, 3]", "shots = [1, 3]"), ("episodes = 6", "episodes = 7"), ("block = 2", "block = 3"),
               ('"tiny"]', '"other"]'), ('"user-cold"', '"warm"'), ('["global-mean"', '["item-mean"')]  # fmt: skip
    hashes = {parse_suite(TINY.replace(*change), "t").cells()[0].spec_hash for change in changes}
    assert len(hashes) == len(changes) and base.spec_hash not in hashes


def test_the_hash_is_the_same_in_another_process():
    code = f"from fewrec.runner.suite import parse_suite; print(parse_suite({TINY!r}, 't').cells()[0].spec_hash)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == parse_suite(TINY, "t").cells()[0].spec_hash


def test_cells_that_differ_in_k_or_in_options_of_adapting_share_a_meta_fit():
    cells = [cell for cell in parse_suite(TINY, "t").cells() if cell.learner == "bias" and cell.seed == 0]
    assert len({cell.spec_hash for cell in cells}) == 2
    assert cells[0].meta_fields(Bias) == cells[1].meta_fields(Bias)
    other = parse_suite(TINY.replace('"bias"', '{learner = "bias", config = {user_ridge = 9}}'), "t").cells()[-1]
    assert other.meta_fields(Bias) == {**cells[0].meta_fields(Bias), "seed": other.seed}
    third = parse_suite(TINY.replace('"bias"', '{learner = "bias", config = {item_ridge = 9}}'), "t").cells()[-1]
    assert third.meta_fields(Bias)["config"] != cells[0].meta_fields(Bias)["config"]


EDIT_AND_HASH = """
import json, sys
from pathlib import Path
import fewrec
from fewrec.learners.registry import learner_class
from fewrec.runner.cell import code_hash

root = Path(fewrec.__file__).parent
hashes = []
for edited in json.loads(sys.argv[1]):
    for name in edited:
        (root / name).write_text((root / name).read_text() + "\\n# edited\\n")
    code_hash.cache_clear()
    hashes.append([code_hash(learner_class(name)) for name in ("mf-foldin", "bias")])
print(json.dumps(hashes))
"""


def test_the_code_hash_follows_the_learners_sources_and_nothing_else(tmp_path):
    """Edit a copy of the package step by step: the sources that decide a score change the hash, the others do not."""
    ignored = shutil.ignore_patterns("__pycache__", "_data")
    shutil.copytree(Path(fewrec.__file__).parent, tmp_path / "fewrec", ignore=ignored)
    steps = [
        [], ["report/render.py", "runner/execute.py", "learners/meta_mf.py", "data/readers/raw.py",
             "episodes/frozen/write.py"],
        ["learners/mf_foldin.py"], ["learners/effects.py"], ["episodes/sampler.py"],
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", EDIT_AND_HASH, json.dumps(steps)], capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    start, elsewhere, own, imported, everywhere = json.loads(done.stdout)
    assert elsewhere == start
    assert own[0] != start[0] and own[1] == start[1]
    assert imported[0] != own[0] and imported[1] != own[1]
    assert everywhere[0] != imported[0] and everywhere[1] != imported[1]


def test_two_learners_have_two_code_hashes_unless_they_share_a_module():
    assert code_hash(Bias) != code_hash(UserMean)
    assert code_hash(UserMean) == code_hash(learner_class("global-mean"))
