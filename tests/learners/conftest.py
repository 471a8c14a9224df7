"""A tiny BERT made on the spot: random weights and a word list, saved as a folder like any other backbone's."""

from pathlib import Path

import pytest
import torch

from fewrec.data.synthetic import make_synthetic
from fewrec.data.table import Scale
from fewrec.episodes.protocol import Protocol
from fewrec.episodes.split import Split, split_dataset
from fewrec.learners.base import Context
from fewrec.learners.text_encoder import hide_broken_torchvision


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    hide_broken_torchvision()
    from transformers import BertConfig, BertModel, BertTokenizer

    words = {word for text in make_synthetic(n_users=60, n_items=50, density=0.6, seed=5).catalog.texts()
             for word in "".join(c if c.isalnum() else " " for c in text.lower()).split()}  # fmt: skip
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ",", "(", ")"]
    vocabulary = {word: i for i, word in enumerate(special + sorted(words))}
    folder: Path = tmp_path_factory.mktemp("tiny-bert")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    BertModel(config).save_pretrained(folder)
    BertTokenizer(vocab=vocabulary).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def text_split() -> Split:
    dataset = make_synthetic(n_users=60, n_items=50, density=0.6, seed=5)
    return split_dataset(dataset, Protocol(state="both-cold", k_max=6), 0)


@pytest.fixture(scope="session")
def text_ctx(text_split: Split, tmp_path_factory: pytest.TempPathFactory) -> Context:

    return Context(torch.device("cpu"), text_split.catalog, Scale(1, 5, 1), tmp_path_factory.mktemp("cache"))
