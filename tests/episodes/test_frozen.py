"""Frozen episodes: what comes back is what the sampler drew, and a folder that says anything else is refused."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from fewrec.data.synthetic import make_synthetic
from fewrec.episodes.frozen import load
from fewrec.episodes.frozen.layout import folder_name, task_name
from fewrec.episodes.frozen.write import Task, write_export
from fewrec.episodes.protocol import STATES, UNSEEN_ITEM_STATES, Protocol
from fewrec.episodes.sampler import EpisodeSampler
from fewrec.episodes.split import split_dataset
from fewrec.errors import DataError, FolderError, NotApplicable, SuiteError
from fewrec.runner.frozen import export_suite
from tests.episodes.conftest import random_dataset

TIMED = make_synthetic(n_users=60, n_items=40, ratings_per_user=24, seed=3)  # has text and user attributes
PLAIN = random_dataset(60, 80, 0.5, seed=1, times=None)


def task(state="user-cold", order="random", dataset="data", **fields) -> Task:
    shots = 2 if state in UNSEEN_ITEM_STATES else 0
    protocol = Protocol(state=state, order=order, k_max=3, item_shots=fields.pop("item_shots", shots))
    values = {"seed": 0, "n_users": 2, "k_shot": 3, "n_query": 4, "episodes": 5, "block": 2, "ndcg_at": 3, **fields}
    return Task(dataset, protocol, **values)


def export(folder, tasks, dataset=TIMED, name="data"):
    return write_export(folder, tasks, {name: dataset}, suite="tiny", definition={})


def assert_equal(actual, expected):
    """Compare (nested) dataclasses of tensors, exactly."""
    assert type(actual) is type(expected)
    if dataclasses.is_dataclass(expected):
        for field in dataclasses.fields(expected):
            assert_equal(getattr(actual, field.name), getattr(expected, field.name))
    elif isinstance(expected, tuple):
        assert len(actual) == len(expected)
        for one, other in zip(actual, expected, strict=True):
            assert_equal(one, other)
    elif isinstance(expected, torch.Tensor):
        assert actual.dtype == expected.dtype and torch.equal(actual, expected)
    else:
        assert actual == expected


@pytest.mark.parametrize("dataset", [TIMED, PLAIN], ids=["timed", "plain"])
@pytest.mark.parametrize("state", STATES)
def test_what_is_loaded_equals_what_the_sampler_draws_and_what_the_split_holds(tmp_path, state, dataset):
    order = "time" if dataset is TIMED and state != "item-cold" else "random"
    tasks = [task(state, order, k_shot=k) for k in (0, 3, "rest")]
    export(tmp_path / "out", tasks, dataset)
    frozen = load(tmp_path / "out")
    assert len(frozen) == 3 and frozen.verify() == sum(len(one.record.files) for one in frozen) + len(
        next(iter(frozen)).record.split_files
    )
    for wanted in tasks:
        protocol = wanted.protocol
        split = split_dataset(dataset, protocol, 0)
        sampler = EpisodeSampler(split.pools["test"], 0, "test", k_max=3, order=order, item_shots=protocol.item_shots)
        drawn = sampler.sample(0, 5, n_users=2, k_shot=wanted.k_shot, n_query=4)
        found = frozen[task_name("data", wanted.protocol.canonical(), 0, 2, wanted.k_shot, 4)]
        assert_equal(found.episodes(), drawn)
        assert found.record.split_sha256 == split.sha256 and found.record.as_protocol == protocol
        source = found.source()
        assert source.table.sha256 == split.meta_train.sha256
        assert source.scale == dataset.scale and (source.catalog.seen == split.catalog.seen).all()
        assert source.catalog.text_sha256 == split.catalog.text_sha256
        assert source.catalog.item_ids.tolist() == split.catalog.item_ids.tolist()
        with pytest.raises(NotApplicable, match="episodes"):
            source.train_episodes(0, 1, n_users=1, k_shot=1, n_query=1)


def test_validation_ratings_and_attributes_of_known_users_are_those_of_the_split(tmp_path):
    export(tmp_path / "out", [task("both-cold"), task("warm")])
    for one in load(tmp_path / "out"):
        split = split_dataset(TIMED, one.record.as_protocol, 0)
        pool, rows = split.pools["validation"], pd.DataFrame(one.columns("validation.parquet"))
        assert rows.groupby("role").size().to_dict() == (
            {"support": len(pool.support.item), "query": len(pool.query.item)}
            if one.record.protocol["state"] == "both-cold"
            else {"either": len(pool.support.item)}
        )
        first = rows[rows["role"] != "query"]
        assert first["rating"].tolist() == pool.support.rating.tolist()
        assert np.bincount(first["user"], minlength=len(pool.users)).tolist() == pool.support.counts.tolist()
        users = one.columns("validation_users.parquet")
        assert users["meta_user"].tolist() == pool.meta_user.tolist()
        width = pool.user_features.shape[1]
        train = one.columns("meta_users.parquet")
        for i in range(width):
            assert (users[f"feature_{i}"] == pool.user_features[:, i]).all()
        where = np.flatnonzero(pool.meta_user >= 0)  # in the warm state these users are in meta-train too
        known = np.stack([train[f"feature_{i}"] for i in range(width)], axis=1)
        assert (known[pool.meta_user[where]] == pool.user_features[where]).all()


def all_bytes(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_the_same_export_twice_gives_the_same_bytes_and_another_one_is_never_written_over_it(tmp_path):
    tasks = [task(k_shot=1), task(k_shot=3)]
    for name in ("a", "b"):
        export(tmp_path / name, tasks)
    before = all_bytes(tmp_path / "a")
    assert before == all_bytes(tmp_path / "b") and len(before) == 2 * 5 + 5 + 1
    export(tmp_path / "a", tasks)  # the same again: nothing to do
    with pytest.raises(FolderError, match="--out .* holds another export"):
        export(tmp_path / "a", [task(seed=1)])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(FolderError, match="--out .* something else already"):
        export(tmp_path / "mine", tasks)
    assert all_bytes(tmp_path / "a") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "mine"]


def test_what_cannot_be_drawn_leaves_no_folder_behind(tmp_path):
    with pytest.raises(SuiteError, match="data, user-cold: N = 500"):
        export(tmp_path / "out", [task(n_users=500)])
    assert list(tmp_path.iterdir()) == []


def test_the_query_has_no_ratings_and_who_predicts_needs_no_answers(tmp_path):
    export(tmp_path / "out", [task()])
    folder = tmp_path / "out" / "data/user-cold/seed-0/n2-k3-q4"
    assert pq.read_schema(folder / "query.parquet").names == ["episode", "user", "item"]
    (whole,) = load(folder)
    expected = whole.episodes()
    (folder / "answers.parquet").unlink()
    frozen = load(tmp_path / "out")
    (one,) = frozen
    assert frozen.verify() == 3 + 5 and not one.has_answers
    assert_equal(one.support(), expected.support)
    assert_equal(one.query(), expected.query)
    with pytest.raises(DataError, match=r"answers\.parquet: not there"):
        one.episodes()


def test_a_data_set_may_have_any_name(tmp_path):
    names = ["../../evil", "a/b", "a\\b", ".hidden", "", "x" * 300, "ml-100k", "naïve"]
    assert len({folder_name(name) for name in names}) == len(names) and folder_name("ml-100k") == "ml-100k"
    for number, name in enumerate(names):
        out = tmp_path / str(number) / "out"
        export(out, [task(dataset=name)], PLAIN, name)
        assert [path.name for path in (tmp_path / str(number)).iterdir()] == ["out"]
        (one,) = load(out)
        one.verify()
        assert one.record.dataset.name == name and one.folder.resolve().is_relative_to(out.resolve())


# what others wrote


@pytest.fixture
def folder(tmp_path) -> Path:
    """One task's folder, of item shots and user attributes, which has every kind of file."""
    export(tmp_path / "out", [task("both-cold")])
    return tmp_path / "out" / "data/both-cold+item_shots=2/seed-0/n2-k3-q4"


def path_of(folder: Path, file: str) -> Path:
    return folder / file if (folder / file).exists() else folder.parent / file


def sign(folder: Path, file: str, rows: int | None = None) -> None:
    """Write a file's checksum (and rows) into the records, as one would who means to deceive."""
    record = json.loads((folder / "episode.json").read_text())
    for part in ("files", "split_files"):
        if file in record[part]:
            record[part][file]["sha256"] = hashlib.sha256(path_of(folder, file).read_bytes()).hexdigest()
            if rows is not None:
                record[part][file]["rows"] = rows
    (folder / "episode.json").write_text(json.dumps(record))


def change(folder: Path, file: str, column: str, row: int, value) -> None:
    path = path_of(folder, file)
    table = pq.read_table(path)
    values = table.column(column).to_pylist()
    values[row] = value
    place = table.schema.get_field_index(column)
    pq.write_table(
        table.set_column(place, table.schema.field(column), pa.array(values, table.schema[place].type)), path
    )
    sign(folder, file)


def refusal(folder: Path) -> str:
    """Return the one line with which a folder is refused."""
    with pytest.raises(DataError) as caught:
        load(folder).verify()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("file", "column", "value", "said"),
    [
        ("meta_train.parquet", "user", -1, "meta_train.parquet: row 3: user -1 is outside 0.."),
        ("meta_train.parquet", "item", 40, "item 40 is outside 0..39"),
        ("meta_train.parquet", "rating", float("nan"), "rating nan is outside the scale 1..5"),
        ("meta_train.parquet", "rating", 9.0, "rating 9 is outside the scale 1..5"),
        ("items.parquet", "item", 7, "items are not all of the 40"),
        ("items.parquet", "item_id", None, "column 'item_id' has 1 empty places"),
        ("validation.parquet", "role", "spy", "role 'spy' is none of either, support, query"),
        ("validation_users.parquet", "meta_user", 10**9, "meta_user 1000000000 is outside -1.."),
        ("meta_users.parquet", "user", 0, "users are not all of the"),
        ("users.parquet", "seed", 5, "two seeds"),
        ("users.parquet", "episode", 2**62, "episode 4611686018427387904 is outside 0..4"),
        ("support.parquet", "user", 2, "user 2 is outside 0..1"),
        ("support.parquet", "episode", -2**63, "is outside 0..4"),
        ("support.parquet", "meta_user", 0, "another meta_user than in users.parquet"),
        ("support.parquet", "user", 1, "episode 0, user 0 has 2 rows, K is 3"),
        ("support.parquet", "episode", 4, "its rows are not in the order of episodes and users"),
        ("query.parquet", "item", -5, "item -5 is outside 0..39"),
        ("answers.parquet", "rating", float("inf"), "rating inf is outside the scale"),
        ("answers.parquet", "item", 0, "its rows are not those of query.parquet"),
        ("answers.parquet", "table_user", 60, "table_user 60 is outside 0..59"),
        ("answers.parquet", "table_user", 59, "is two users of the data set"),
        ("item_ratings.parquet", "item", 39, "is not in the episode's query"),
        ("item_ratings.parquet", "episode", 4, "its rows are not in the order of episodes"),
    ],
)  # fmt: skip
def test_a_number_that_cannot_be_is_refused_though_its_checksum_fits(folder, file, column, value, said):
    if (file, column) == ("item_ratings.parquet", "item"):
        asked = set(pq.read_table(folder / "query.parquet").column("item").to_pylist())
        value = next(item for item in range(40) if item not in asked)
    if (file, value) == ("answers.parquet", 0):
        value = (pq.read_table(folder / file).column("item")[2].as_py() + 1) % 40
    change(folder, file, column, 2, value)
    assert said in refusal(folder)


def test_a_query_item_that_is_in_the_support_is_refused(folder):
    known = pq.read_table(folder / "support.parquet").column("item")[0].as_py()
    change(folder, "query.parquet", "item", 1, known)
    assert f"episode 0, user 0, item {known} is in the support too (1 such rows)" in refusal(folder)


def test_a_query_that_holds_its_answers_is_refused(folder):
    answers = pq.read_table(folder / "answers.parquet").select(["episode", "user", "item", "rating"])
    pq.write_table(answers, folder / "query.parquet")
    sign(folder, "query.parquet")
    assert "query.parquet: column 'rating' doesn't belong there (a query must not hold its answers)" in refusal(folder)


@pytest.mark.parametrize("kind", [pa.float64(), pa.string(), pa.int32(), pa.bool_(), pa.binary()])
def test_a_column_of_another_type_is_refused(folder, kind):
    query = pq.read_table(folder / "query.parquet")
    value = {pa.string(): "1", pa.binary(): b"\x80\x04.", pa.bool_(): True}.get(kind, 1)
    pq.write_table(query.set_column(2, "item", pa.array([value] * len(query), kind)), folder / "query.parquet")
    sign(folder, "query.parquet")
    assert f"query.parquet: column 'item' is {pa.field('x', kind).type}, it must be int64" in refusal(folder)


def test_a_file_that_differs_from_its_checksum_is_refused(folder):
    content = bytearray((folder / "support.parquet").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "support.parquet").write_bytes(content)
    assert "support.parquet: its SHA-256 is not the recorded one" in refusal(folder)
    (folder.parent / "items.parquet").unlink()
    assert "items.parquet: can't be read (No such file or directory)" in refusal(folder)


def test_a_changed_record_is_noticed_by_the_export_that_lists_it(folder):
    record = json.loads((folder / "episode.json").read_text())
    (folder / "episode.json").write_text(json.dumps({**record, "ndcg_at": 1}))
    assert "episode.json: its SHA-256 is not the recorded one" in refusal(folder.parents[3])


def lying_about_rows(content: bytes, rows: int) -> bytes:
    """Return a Parquet file whose footer says 8191 rows wherever it said ``rows`` (64..8191, two bytes as a varint)."""
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    old = bytes([(2 * rows) & 0x7F | 0x80, 2 * rows >> 7])
    assert content.count(old, footer) >= 2  # of the file and of its row group
    return content[:footer] + content[footer:].replace(old, b"\xfe\x7f")


def test_parquet_that_lies_about_its_size_is_refused(tmp_path):
    export(tmp_path / "out", [task(episodes=10)])  # 80 query ratings
    folder = tmp_path / "out" / "data/user-cold/seed-0/n2-k3-q4"
    path = folder / "query.parquet"
    path.write_bytes(lying_about_rows(path.read_bytes(), 80))
    sign(folder, "query.parquet")
    assert "query.parquet: it says that it holds 8,191 rows, its record 80" in refusal(folder)
    sign(folder, "query.parquet", rows=8191)
    assert "episode.json: broken (query.parquet has 8,191 rows, the counts beside it say 80)" in refusal(folder)
    known = folder.parent / "meta_train.parquet"
    rows = pq.read_metadata(known).num_rows
    sign(folder, "query.parquet", rows=80)
    known.write_bytes(lying_about_rows(known.read_bytes(), rows))
    sign(folder, "meta_train.parquet", rows=8191)  # whose number of rows follows from nothing else
    assert "meta_train.parquet: " in refusal(folder)
    sign(folder, "query.parquet", rows=2**40)
    assert "episode.json: broken (files.query.parquet.rows: " in refusal(folder)


def test_meta_train_is_checked_before_a_learner_gets_it(folder):
    change(folder, "meta_train.parquet", "item", 2, -1)
    (one,) = load(folder)
    with pytest.raises(DataError, match="item -1 is outside 0..39"):
        one.source()


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\xff" * 64 + b"PAR1", b"\x80\x04]\x94."])
def test_what_is_no_parquet_is_refused(folder, content):
    (folder / "support.parquet").write_bytes(content)
    sign(folder, "support.parquet")
    assert "support.parquet: not a readable Parquet file" in refusal(folder)


def test_a_record_that_asks_for_more_than_there_is_allocates_nothing(folder):
    record = json.loads((folder / "episode.json").read_text())
    for name, value, said in (
        ("n_items", 2**30, "items.parquet has 40 rows, the counts beside it say 1,073,741,824"),
        ("item_features", 2**39, "broken (dataset.item_features: "),
        ("user_features", 5, "column 'feature_5' doesn't belong there"),
    ):
        changed = {**record, "dataset": {**record["dataset"], name: value}}
        (folder / "episode.json").write_text(json.dumps(changed))
        assert said in refusal(folder)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"format": 2}, "written in format 2, this fewrec reads format 1"),
        ({"format": "1"}, "not a record of frozen episodes"),
        ({"later": 1}, "broken (unknown key 'later')"),
        ({"episodes": 2.5}, "broken (episodes: 2.5 is not a whole number)"),
        ({"seed": -1}, "broken (seed: -1 is below 0)"),
        ({"episodes": 2**30, "n_users": 2**30}, "more query ratings than a file may hold"),
        ({"k_shot": 4}, "K is outside 0..k_max"),
        ({"protocol": {"state": "sleepy"}}, "broken"),
        ({"files": {}}, "files are not those of this format"),
        ({"split_files": {"../../../etc/passwd": {"sha256": "0" * 64, "rows": 1}}}, "split_files are not those"),
    ],
)
def test_a_record_that_cannot_be_is_refused(folder, changed, said):
    record = json.loads((folder / "episode.json").read_text())
    (folder / "episode.json").write_text(json.dumps({**record, **changed}))
    assert said in refusal(folder)


@pytest.mark.parametrize("text", ["", "[1", "[]", "[" * 100_000, '{"format": NaN}', "\udcff"])
def test_a_record_that_is_no_json_is_refused(folder, text):
    (folder / "episode.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert "episode.json: not" in refusal(folder)


def test_an_export_names_no_folder_outside_of_itself(folder):
    path = folder.parents[3] / "export.json"
    record = json.loads(path.read_text())
    for name in ("../../other/user-cold/seed-0/n2-k3-q4", "/etc/user-cold/seed-0/n2-k3-q4", "data", "..", "a/b\n/c"):
        path.write_text(json.dumps({**record, "tasks": {name: "0" * 64}}))
        assert "is not a task's name" in refusal(path.parent)
    assert "no frozen episodes there" in refusal(folder.parent)


def test_conditions_are_part_of_the_folder_and_of_what_is_drawn(tmp_path):
    data = make_synthetic(n_users=60, n_items=50, ratings_per_user=20, seed=1)
    text = """
datasets = ["synthetic"]
states = ["user-cold"]
n_users = 2
shots = 3
n_query = 4
seeds = 0
episodes = 3
learners = ["bias"]

[protocol]
support_noise = [0, 0.5]
user_ratings = [5, 100]
"""
    suite = tmp_path / "noisy.toml"
    suite.write_text(text)
    export_suite(str(suite), tmp_path / "out", data=dataclasses.replace(data, name="synthetic"))
    frozen = {task.name.split("/")[1]: task for task in load(tmp_path / "out")}
    assert list(frozen) == ["user-cold+support_noise=0.5+user_ratings=5-100", "user-cold+user_ratings=5-100"]
    noisy, plain = (task.episodes() for task in frozen.values())
    assert noisy.support.item.tolist() == plain.support.item.tolist()
    assert noisy.support.rating.tolist() != plain.support.rating.tolist()
    assert noisy.answers.rating.tolist() == plain.answers.rating.tolist()
