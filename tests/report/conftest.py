"""Hand-made folders of results: a small writer of the format that the runner writes (design, contract 3)."""

import json

import numpy as np
import pandas as pd
import pytest

from fewrec.metrics import per_user_scores
from fewrec.seeding import digest

PROTOCOL = {"state": "user-cold", "order": "random", "item_shots": 0, "support_items": "seen",
            "user_shares": [0.7, 0.1, 0.2], "k_max": 10}  # fmt: skip
TIMING = {"prepare_s": 0.5, "meta_fit_s": 2.0, "adapt_ms": [1.0, 2.0, 3.0], "predict_ms": [0.5, 0.7],
          "episodes_per_s": 100.0, "peak_mb": 300.0, "device_peak_mb": None}  # fmt: skip


class RunWriter:
    """Writes cells into one results folder."""

    def __init__(self, path, name="tiny"):
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        manifest = {
            "schema": 1,
            "name": name,
            "suite": {"title": "a suite"},
            "command": "fewrec run tiny",
            "environment": {"python": "3.12.1", "platform": "Linux", "device": "cpu", "threads": 2,
                            "versions": {"torch": "2.0", "numpy": "2.0"}},
            "datasets": {"toy": {"sha256": "a" * 64, "text_sha256": "b" * 64, "sources": {"toy.tsv": "c" * 64},
                                 "licence": "CC0", "citation": "Doe 2020", "scale": [1, 5]}},
        }  # fmt: skip
        (path / "manifest.json").write_text(json.dumps(manifest))

    def cell(self, learner, frame=None, *, seed=0, label="", status="ok", reason="", episodes=None, blocks=1,
             timing=TIMING, protocol=None, config=None, tuning=None, **spec):  # fmt: skip
        """Write one cell; ``frame`` holds its score rows. Returns its folder."""
        if episodes is None:
            episodes = int(frame["episode"].nunique()) if frame is not None else 4
        spec = {
            "dataset": "toy", "meta_dataset": None, "protocol": {**PROTOCOL, **(protocol or {})}, "n_users": 5,
            "k_shot": 5, "n_query": 10, "episodes": episodes, "block": 50, "ndcg_at": 5, "seed": seed,
            "learner": learner, "label": label or learner, "config": config or {}, **spec,
        }  # fmt: skip
        folder = self.path / "cells" / digest(spec)
        folder.mkdir(parents=True)
        record = {
            "schema": 1, "spec": spec, "spec_hash": digest(spec), "code_hash": "c0de", "status": status,
            "reason": reason, "dataset_sha256": "a" * 64, "text_sha256": "b" * 64, "split_hash": f"5p1it{seed}",
            "eligible_users": 150, "excluded_users": 3, "trainable_params": 12,
        }  # fmt: skip
        if tuning is not None:
            record["tuning"] = tuning
        (folder / "cell.json").write_text(json.dumps(record))
        without = ("config", "learner", "block", "episodes", "ndcg_at")
        row = digest({name: value for name, value in spec.items() if name not in without})
        (folder / "begun.json").write_text(json.dumps({"schema": 1, "code_hash": "c0de", "row": row}))
        if status == "ok":
            (folder / "timing.json").write_text(json.dumps(timing))
        if frame is not None:
            for number, part in enumerate(np.array_split(np.arange(len(frame)), blocks)):
                frame.iloc[part].to_parquet(folder / f"block-{number:04d}.parquet", index=False)
        return folder


def superseded(folder, code="c0de"):
    """Move a cell aside as a run does when another configuration takes its place."""
    target = folder.parent.parent / "superseded" / f"{folder.name}-{code}"
    target.parent.mkdir(exist_ok=True)
    return folder.rename(target)


def drawn_scores(noise, *, seed=0, episodes=30, n_users=5, n_query=10, pool=150, offset=0.0):
    """Return score rows of a predictor that is off by ``noise``: the same users and ratings for the same seed."""
    rng = np.random.default_rng(seed)
    user = np.concatenate([rng.choice(pool, n_users, replace=False) for _ in range(episodes)])
    rows = len(user)
    truth = rng.integers(1, 6, (rows, n_query)).astype(float)
    error = rng.normal(size=(rows, n_query))
    prediction = truth + offset + noise * error
    group = np.repeat(np.arange(rows), n_query)
    scores = per_user_scores(group, rows, truth.ravel(), prediction.ravel(), low=1, high=5)
    return pd.DataFrame({"episode": np.repeat(np.arange(episodes), n_users), "user": user, **scores})


@pytest.fixture
def new_run(tmp_path):
    """A function that starts an empty run folder of the given name."""
    return lambda name="run": RunWriter(tmp_path / name)


@pytest.fixture
def set_aside():
    """The function ``superseded``."""
    return superseded


@pytest.fixture
def scores_of():
    """The function ``drawn_scores``."""
    return drawn_scores


@pytest.fixture
def small_run(new_run):
    """A run of three learners over two seeds and two tasks, with one failed and one not applicable row."""
    run = new_run("small")
    for seed in (0, 1):
        for k in (5, 10):
            for learner, noise in (("bias", 1.0), ("better", 0.9), ("worse", 1.2)):
                run.cell(learner, drawn_scores(noise, seed=seed), seed=seed, k_shot=k, blocks=3)
        run.cell("broken", seed=seed, status="failed", reason="ValueError: a | b\nsecond line")
        run.cell("needs-text", seed=seed, status="not applicable", reason="toy has no item text")
    return run
