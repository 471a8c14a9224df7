"""What is committed holds no ratings, no predictions and no original user ids, and no file of an unknown kind."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from fewrec.data.own import load_own
from fewrec.errors import DataError
from fewrec.report import export_reference

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "results" / "reference"
FOLDERS = sorted(path.parent for path in REFERENCE.glob("*/manifest.json"))
SCORES = re.compile(
    r"cell|episode|user|n|se|ae|auc|ndcg\d+|top\d+_(precision|ndcg|mrr)|pred_(mean|min|max)|log_density|within90"
)  # sums and means over a user's query ratings, never one of them: n is 2 or more
PAIRS, STEPS = ["cell", "user", "other", "pairs", "right"], ["cell", "episode", "user", "step", "n", "se", "ae"]
FILES = {"manifest.json", "scores.parquet", "pairs.parquet", "steps.parquet", "curves.csv", "leaderboard.csv",
         "leaderboard.json", "leaderboard.md", "leaderboard.tex", "report.html"}  # fmt: skip
MANIFEST = {"cells", "command", "datasets", "environment", "name", "nodes", "schema", "splits", "suite"}
DATASET = {"citation", "homepage", "licence", "notes", "scale", "sha256", "sources", "text_sha256", "features_sha256",
           "kind"}  # fmt: skip
CELL = {"code_hash", "dataset_sha256", "eligible_users", "excluded_users", "features_sha256", "loaded",
        "meta_dataset_sha256", "other_configurations", "reason", "schema", "spec", "spec_hash", "split_hash", "status",
        "text_sha256", "timing", "trainable_params", "tuning"}  # fmt: skip
KNOWN = {
    ".py",
    ".md",
    ".toml",
    ".json",
    ".csv",
    ".tex",
    ".txt",
    ".yml",
    ".yaml",
    ".cff",
    ".css",
    ".js",
    ".j2",
    ".html",
    ".sh",
    ".cfg",
    ".ini",
    "",
}  # text
BINARY = {".png", ".parquet"}
LARGEST = 16_000_000  # bytes: the score rows of the largest table have 14 MB
LARGEST_TEXT = 2_500_000  # a manifest has 1.8 MB


def columns_of(file: Path) -> list[str]:
    return pq.ParquetFile(file).schema_arrow.names


def check_scores(file: Path) -> None:
    """Check that a file has columns that are allowed, and codes in place of ids: whole numbers, all below a limit."""
    names = columns_of(file)
    if file.name == "pairs.parquet":
        assert names == PAIRS
        frame = pq.read_table(file, columns=["user", "other"]).to_pandas()
    elif file.name == "steps.parquet":
        assert names == STEPS
        frame = pq.read_table(file, columns=["user"]).to_pandas()
    else:
        assert all(SCORES.fullmatch(name) for name in names), names
        frame = pq.read_table(file, columns=["user", "episode", "n"]).to_pandas()
        assert (frame["n"] >= 2).all(), "of one rating, error and prediction tell the rating"
    assert all(pd.api.types.is_integer_dtype(frame[name]) and (frame[name] >= 0).all() for name in frame)
    assert pq.ParquetFile(file).schema_arrow.metadata is None  # pandas' notes hold whatever was in the frame


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_reference_holds_scores_and_nothing_that_was_rated(folder):
    assert {path.name for path in folder.iterdir()} <= FILES
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert set(manifest) <= MANIFEST
    for file in folder.glob("*.parquet"):
        check_scores(file)
    for dataset in manifest["datasets"].values():
        assert set(dataset) <= DATASET, set(dataset) - DATASET
    for cell in manifest["cells"]:
        assert set(cell) <= CELL, set(cell) - CELL
    table = json.loads((folder / "leaderboard.json").read_text(encoding="utf-8"))
    assert set(table) == {"columns", "command", "datasets", "environment", "interval", "ranks", "rows", "schema",
                          "splits", "suite"}  # fmt: skip
    assert not {name for name in table["columns"] if re.search(r"rating|prediction|item_?id|user_?id", name)}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_users_of_a_reference_are_places_in_its_table(folder):
    """Codes begin at 0 and end below the number of users; MovieLens numbers its users from 1."""
    from fewrec.data.cards import card_names, load_card

    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    known = [load_card(name) for name in manifest["datasets"] if name in card_names()]
    users = {card.expected.users for card in known if card.expected.users}
    frame = pq.read_table(folder / "scores.parquet", columns=["user"]).to_pandas()
    assert not users or frame["user"].max() < max(users)


def test_an_export_of_own_data_holds_no_id_and_no_rating(tmp_path, monkeypatch):
    """Run, export, and look for the ids, which are unlike anything else, in the bytes of every file."""
    import fewrec

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    users, items = [f"zqu{n}zq" for n in rng.permutation(900)[:60]], [f"zqi{n}zq" for n in rng.permutation(900)[:30]]
    rows = [f"{u},{i},{rating}\n" for u in users for i, rating in zip(items, rng.integers(1, 6, 30), strict=True)]
    Path("my.csv").write_text("user,item,rating\n" + "".join(rows))
    data = load_own("my.csv")
    assert set(data.user_ids) == set(users)
    fewrec.run("check", data=data, learners=["bias", "item-mean", "gp"], states=["user-cold"], shots=[5], seeds=[0],
               episodes=3, out="out", progress=False)  # fmt: skip
    export_reference("out", "reference")
    files = [path for path in Path("reference").rglob("*") if path.is_file()]
    assert {path.name for path in files} <= FILES and len(files) >= 6
    for file in files:
        content = file.read_bytes()
        if file.suffix == ".parquet":
            check_scores(file)
            content = pq.read_table(file).to_pandas().to_csv().encode()
        assert b"zqu" not in content and b"zqi" not in content, file
    assert pq.read_table("reference/scores.parquet")["user"].to_pandas().between(0, 59).all()
    assert not list(Path("reference").rglob("predictions*"))


@pytest.mark.parametrize("column", ["prediction", "rating", "item", "user_id"])
def test_an_export_refuses_a_column_that_is_no_score(small_run, column, tmp_path):
    for file in small_run.path.glob("cells/*/block-*.parquet"):
        pd.read_parquet(file).assign(**{column: 1.0}).to_parquet(file)
    with pytest.raises(DataError, match=f"column '{column}' is none of those that may be committed"):
        export_reference(small_run.path, tmp_path / "reference")
    assert not list(tmp_path.glob("reference/*.parquet"))


def test_every_table_beside_the_references_is_of_measurements():
    for file in sorted(REFERENCE.glob("*.csv")):
        with file.open(newline="") as stream:
            names = next(csv.reader(stream))
        assert not set(names) & {"user", "item", "rating", "prediction", "user_id", "item_id", "timestamp"}, file.name


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a checkout of git")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).exists()]


def test_every_file_is_of_a_known_kind_and_size():
    for file in tracked():
        name, size = file.relative_to(ROOT).as_posix(), file.stat().st_size
        assert not file.is_symlink(), name
        if file.suffix in BINARY:
            assert name.startswith(("results/reference/", "docs/")) and size <= LARGEST, name
            start = file.read_bytes()[:8]
            assert start.startswith(b"PAR1" if file.suffix == ".parquet" else b"\x89PNG\r\n\x1a\n"), name
            if file.suffix == ".parquet":
                check_scores(file)
        else:
            assert file.suffix in KNOWN or name.startswith(".ci/"), name
            assert size <= LARGEST_TEXT, name
            file.read_text(encoding="utf-8")  # text, or it raises


def test_no_file_is_a_table_of_ratings():
    """A table of many lines in which the columns of user, item and rating stand is data, wherever it lies."""
    for file in tracked():
        if file.suffix in (".csv", ".tsv", ".txt", ".data", ".inter"):
            head = file.open(encoding="utf-8", errors="replace").readline().lower()
            names = {part.strip(' "').split(":")[0] for part in re.split(r"[,\t;|]", head)}
            assert not ({"rating", "prediction"} & names and {"user", "user_id", "item", "item_id"} & names), file
