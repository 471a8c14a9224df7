"""What the cases start from: small files of one's own, and what commands make of them, made once a process."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

SUITE = """\
title = "own"
datasets = ["mine"]
states = ["user-cold"]
n_users = 2
shots = [1, 3]
n_query = 6
seeds = 0
episodes = 4
learners = ["global-mean", "user-mean", "bias"]
"""
FINETUNE = "train.csv", "test.csv"


class World:
    """Folders that are copied for each case: the files that all have, and by name what a case ``needs`` besides."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._common()

    def enter(self, folder: Path, needs: str) -> None:
        """Fill ``folder``."""
        shutil.copytree(self.root / "common", folder, dirs_exist_ok=True)
        for name in needs.split():
            if not (self.root / name).exists():
                with pytest.MonkeyPatch.context() as patch:  # the environment of this alone: a session has other tests
                    patch.setenv("FEWREC_CACHE", str(self.root / "cache"))
                    patch.setenv("FEWREC_OFFLINE", "1")
                    getattr(self, f"_make_{name}")(self.root / name)
            shutil.copytree(self.root / name, folder / name)

    def _common(self) -> None:
        """Write own.toml, mine.csv (30 users x 12 of 20 items), items.csv, users.csv, taste.csv, and train and test."""
        common = self.root / "common"
        common.mkdir()
        (common / "own.toml").write_text(SUITE)
        rows = [(u, (u * 7 + 3 * k) % 20, 1 + (u + k) % 5) for u in range(30) for k in range(12)]
        frame = pd.DataFrame(rows, columns=["user", "item", "rating"]).drop_duplicates(["user", "item"])
        frame.to_csv(common / "mine.csv", index=False)
        titles = [(i, f"Film number {i}", 1980 + i, "Drama|War") for i in range(20)]
        pd.DataFrame(titles, columns=["item", "title", "year", "genres"]).to_csv(common / "items.csv", index=False)
        pd.DataFrame({"user": range(30), "age": range(20, 50)}).to_csv(common / "users.csv", index=False)
        (common / "taste.csv").write_text("title,rating\nFilm number 3,5\nFilm number 4,1\n")
        frame[:300].to_csv(common / FINETUNE[0], index=False)
        frame[300:].to_csv(common / FINETUNE[1], index=False)

    def _run(self, *arguments: str) -> None:
        from fewrec.cli import main

        done = CliRunner().invoke(main, list(arguments))
        assert done.exit_code == 0, done.output

    def _make_out(self, folder: Path) -> None:
        """A finished run of own.toml."""
        common = self.root / "common"
        self._run("run", f"{common}/own.toml", "--data", f"{common}/mine.csv", "--out", f"{folder}", "--threads", "1")

    def _make_reference(self, folder: Path) -> None:
        """The same run, exported."""
        if not (self.root / "out").exists():
            self._make_out(self.root / "out")
        self._run("export", f"{self.root}/out", f"{folder}")

    def _make_frozen(self, folder: Path) -> None:
        """Frozen episodes of own.toml: two tasks."""
        common = self.root / "common"
        self._run("episodes", "export", f"{common}/own.toml", "--data", f"{common}/mine.csv", "--out", f"{folder}")

    def _make_model(self, folder: Path) -> None:
        """A saved learner, bias."""
        common = self.root / "common"
        self._run("recommend", "--data", f"{common}/mine.csv", "--items", f"{common}/items.csv", "--learner", "bias",
                  "--save", f"{folder}", "--threads", "1")  # fmt: skip

    def _make_encoder(self, folder: Path) -> None:
        """A tiny encoder with random weights."""
        from fewrec.data.pretrained import hide_broken_torchvision

        hide_broken_torchvision()
        from transformers import BertConfig, BertModel, BertTokenizer

        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "user", "item", ":", *"0123456789"]
        config = BertConfig(vocab_size=len(words), hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
                            intermediate_size=8, max_position_embeddings=64)  # fmt: skip
        BertModel(config).save_pretrained(folder)
        BertTokenizer(vocab={word: i for i, word in enumerate(words)}).save_pretrained(folder)
