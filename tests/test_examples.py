"""The example plugin is a package that works: built, installed into a new environment, found there, checked and run."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pandas as pd
import pytest

from fewrec.data.synthetic import make_synthetic

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = ROOT / "examples" / "fewrec-example-plugin"


def run(command, cwd):
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    env |= {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "300"}
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """An environment with the plugin in it; torch and fewrec are those of the environment that runs the tests."""
    folder = tmp_path_factory.mktemp("plugin")
    run([sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder], PLUGIN)
    (wheel,) = folder.glob("fewrec_example_plugin-*.whl")
    venv.create(folder / "venv", with_pip=False)
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    reused = sysconfig.get_paths()["purelib"]
    (packages / "reused.pth").write_text(f"import site; site.addsitedir({reused!r})\n")
    run([sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", packages, wheel], folder)
    return folder / "venv" / "bin" / "python"


def test_it_is_found_by_its_entry_point_and_described_without_being_imported(python, tmp_path):
    listed = run([python, "-m", "fewrec", "list", "learners", "genre-taste"], tmp_path)
    for words in ("genre-taste", "Predict bias with genre means", "item_text", "entry point of fewrec-example-plugin"):
        assert words in listed
    code = (
        "import sys; from fewrec.learners.registry import known_learners; known_learners(); "
        "assert not {'torch', 'fewrec_example_plugin'} & set(sys.modules); "
        "import fewrec_example_plugin; print(fewrec_example_plugin.__file__)"
    )
    assert Path(run([python, "-c", code], tmp_path).strip()).is_relative_to(python.parents[1])
    options = run([python, "-m", "fewrec", "list", "learners", "-v", "genre-taste"], tmp_path)
    assert "taste_ridge" in options and "shrinks the mean residual of a user in a genre" in options


def test_it_passes_the_check(python, tmp_path):
    assert ", 0 FAILED, " in run([python, "-m", "fewrec", "check", "genre-taste"], tmp_path)


def test_its_own_tests_pass(python):
    printed = run([python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:benchmark", "tests"], PLUGIN)
    assert " passed" in printed and "failed" not in printed


def test_a_run_has_its_row_which_beats_user_mean_and_bias(python, tmp_path):
    data = make_synthetic(n_users=150, n_items=80, ratings_per_user=65, seed=2)
    table, text = data.table, data.catalog.text
    ratings = pd.DataFrame({"user": table.user, "item": table.item, "rating": table.rating})
    ratings.to_csv(tmp_path / "mine.csv", index=False)
    text.assign(item=range(len(text)))[["item", "title", "year", "genres"]].to_csv(tmp_path / "titles.csv", index=False)
    run([python, "-m", "fewrec", "run", "smoke", "--learner", "genre-taste,user-mean,bias", "--data", "mine.csv",
         "--items", "titles.csv", "--scale", "1", "5", "--episodes", "40", "--out", "out"], tmp_path)  # fmt: skip
    board = pd.read_csv(tmp_path / "out" / "leaderboard.csv").set_index(["state", "label"])
    assert set(board["status"]) == {"ok"}
    for state in ("user-cold", "both-cold"):
        rmse = board["rmse"][state]
        assert rmse["genre-taste"] < rmse["user-mean"] and rmse["genre-taste"] < rmse["bias"]
