"""A tiny encoder of random weights, saved like any other, and two small files of ratings with titles."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from fewrec.data.pretrained import hide_broken_torchvision

WORDS = [
    "quiet",
    "river",
    "second",
    "storm",
    "garden",
    "night",
    "letters",
    "of",
    "the",
    "winter",
    "drama",
    "war",
    "comedy",
]
N_USERS, N_ITEMS = 12, 15


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An encoder without the head (and with a pooler), as pretrained ones come."""
    hide_broken_torchvision()
    from transformers import BertConfig, BertModel, BertTokenizer

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ",", "(", ")", ":", "user", "item"]
    digits = [*"0123456789", *(f"##{d}" for d in range(10))]
    vocabulary = {word: i for i, word in enumerate([*special, *digits, *WORDS])}
    folder: Path = tmp_path_factory.mktemp("tiny-bert")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=48, max_position_embeddings=64, initializer_range=0.1,
        )  # fmt: skip
        BertModel(config).save_pretrained(folder)
    BertTokenizer(vocab=vocabulary).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def ratings() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return train (120 rows) and test (30 rows) of ``item,user,score``; a title's first word decides most of it."""
    rng = np.random.default_rng(3)
    pairs = rng.permutation(N_USERS * N_ITEMS)[:150]
    item, user = pairs % N_ITEMS, pairs // N_ITEMS
    score = np.clip(np.round(3 + 1.5 * (item % 3 - 1) + rng.normal(0, 0.8, len(pairs))), 1, 5).astype(int)
    frame = pd.DataFrame({"item": item + 100, "user": user + 1, "score": score})
    return frame[:120], frame[120:]


def titles() -> pd.DataFrame:
    names = [" ".join([WORDS[i % 3], *(WORDS[(3 * i + k) % 10] for k in range(i % 4))]) for i in range(N_ITEMS)]
    return pd.DataFrame({"item": np.arange(N_ITEMS) + 100, "title": names, "genres": ["Drama|War", "Comedy", ""] * 5})


@pytest.fixture
def here(tmp_path, monkeypatch, ratings):
    """Stand in a folder with train.csv, test.csv and titles.csv."""
    monkeypatch.chdir(tmp_path)
    ratings[0].to_csv("train.csv", index=False)
    ratings[1].to_csv("test.csv", index=False, header=False)
    titles().to_csv("titles.csv", index=False)
    return tmp_path
