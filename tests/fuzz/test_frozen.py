"""Frozen episodes and predictions on them: crafted folders whose checksums are right, and torn ones whose are not."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pandas as pd
import pytest

from fewrec.data.synthetic import make_synthetic
from fewrec.episodes.frozen import load
from fewrec.episodes.frozen.write import Task, write_export
from fewrec.episodes.protocol import Protocol
from fewrec.runner.predictions import read_predictions
from tests.fuzz.harness import Target
from tests.fuzz.inputs import as_json, changed_tree, folders, inside_parquet, read_back

DATA = make_synthetic(n_users=40, n_items=20, ratings_per_user=12, seed=3)


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Return the files of exports: of unseen items with shots, and of two tasks of one split, by their root."""
    out = []
    for state, shots, k_shots in (("both-cold", 1, (2,)), ("user-cold", 0, (1, "rest"))):
        protocol = Protocol(state=state, k_max=2, item_shots=shots)
        tasks = [Task("data", protocol, 0, 2, k, 3, episodes=3, block=2, ndcg_at=3) for k in k_shots]
        folder = tmp_path_factory.mktemp("frozen") / "out"
        write_export(folder, tasks, {"data": DATA}, suite="tiny", definition={})
        out.append(files_of(folder))
    return out


def believed(files: dict[str, bytes]) -> dict[str, bytes]:
    """Return the files with the checksums and row counts that an enemy would write."""
    files, sums = dict(files), {}
    for name in [name for name in files if name.endswith("episode.json")]:
        try:
            record = json.loads(files[name])
            for part, base in (("files", name.rsplit("/", 1)[0]), ("split_files", name.rsplit("/", 2)[0])):
                for file, one in record[part].items():
                    content = files.get(f"{base}/{file}")
                    if content is not None:
                        one["sha256"] = hashlib.sha256(content).hexdigest()
                        table = read_back(content) if len(content) < 40_000 else None
                        one["rows"] = table.num_rows if table is not None else one["rows"]
            files[name] = json.dumps(record).encode()
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, IndexError):
            pass
        sums[name.rsplit("/", 1)[0]] = hashlib.sha256(files[name]).hexdigest()
    try:
        export = json.loads(files["export.json"])
        export["tasks"] = {task: sums.get(task, said) for task, said in export["tasks"].items()}
        files["export.json"] = json.dumps(export).encode()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    return files


def inside(r, name, content):
    if name.endswith(".json"):
        try:
            return as_json(r, changed_tree(r, json.loads(content)))
        except (ValueError, RecursionError):
            return None
    return inside_parquet(r, name, content)


def test_a_folder_of_frozen_episodes(fuzz, exports):
    def read(folder):
        frozen = load(folder)
        frozen.verify()
        for task in frozen:
            table, catalog = task.known()
            assert len(catalog) == task.record.dataset.n_items and len(table) >= 1
            query = task.query()
            assert len(query.item) == task.record.episodes * task.record.n_users * task.record.n_query
            support = task.support()
            assert (support.item < len(catalog)).all() and np.isfinite(support.rating.numpy()).all()
            if task.has_answers:
                assert len(task.episodes().answers.rating) == len(query.item)
            task.source()

    torn = folders(exports, inside=inside)
    crafted = folders(exports, inside=inside).map(believed)
    fuzz(Target("frozen-torn", "`fewrec.episodes.frozen.load`, changed files", read), exports, torn)
    fuzz(Target("frozen-crafted", "`fewrec.episodes.frozen.load`, checksums made right", read), exports, crafted)


def test_a_file_of_predictions(fuzz, exports, tmp_path):
    for name, content in exports[1].items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    tasks = list(load(tmp_path))
    parts = [
        pd.DataFrame(task.query_columns).assign(
            prediction=np.linspace(1, 5, len(task.query_columns["item"])), task=task.name, sd=0.9
        )
        for task in tasks
    ]
    frame = pd.concat(parts, ignore_index=True)
    parquet = tmp_path / "p.parquet"
    frame.to_parquet(parquet, index=False)
    text = frame.to_csv(index=False).encode()
    seeds = [
        {"p.csv": text}, {"p.csv": frame.drop(columns="sd").to_csv(index=False).encode()},
        {"p.parquet": parquet.read_bytes()},
    ]  # fmt: skip

    def read(folder):
        (file,) = folder.iterdir()
        for task, (prediction, sd) in zip(tasks, read_predictions(file, tasks), strict=True):
            assert prediction.shape == (len(task.query_columns["item"]),) and np.isfinite(prediction).all()
            assert sd is None or (np.isfinite(sd) & (sd > 0)).all()

    words = [task.name.encode() for task in tasks] + [b"sd", b"prediction", b"episode", b"task"]
    target = Target("predictions", "`fewrec.runner.predictions.read_predictions`", read)
    fuzz(target, seeds, folders(seeds, words, inside=inside_parquet, lose=False))
