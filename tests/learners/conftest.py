"""Tiny language models made on the spot: random weights and a word list, saved as folders like any other backbone's."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fewrec.data.pretrained import hide_broken_torchvision, quiet_transformers
from fewrec.data.synthetic import make_synthetic
from fewrec.data.table import Scale
from fewrec.episodes.protocol import Protocol
from fewrec.episodes.split import Split, split_dataset
from fewrec.learners.base import Context

QUERY_WORDS = ("rating", "from", "to", "title", "1", "2", "3", "4", "5", ":")


def catalog_words() -> list[str]:
    return sorted({word for text in make_synthetic(n_users=60, n_items=50, density=0.6, seed=5).catalog.texts()
                   for word in "".join(c if c.isalnum() else " " for c in text.lower()).split()})  # fmt: skip


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    hide_broken_torchvision()
    from transformers import BertConfig, BertModel, BertTokenizer

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ",", "(", ")"]
    vocabulary = {word: i for i, word in enumerate(special + catalog_words())}
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
    with quiet_transformers():
        BertModel(config).save_pretrained(folder)
        BertTokenizer(vocab=vocabulary).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def save_tiny() -> Callable[..., str]:
    """Save a model with random weights and a word-level tokenizer: ``save_tiny(folder, Model, Config, **options)``.

    Biases and norms are drawn too, so that one that is left out shows. ``before`` and ``after`` are special tokens that
    the tokenizer puts around a text.
    """

    hide_broken_torchvision()

    def save(
        folder: Path, model_class: type, config_class: type, *, before: str = "", after: str = "", **options
    ) -> str:
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
        from transformers import PreTrainedTokenizerFast

        words = ["[PAD]", "[UNK]", "<s>", "</s>", "[MASK]", ".", ",", "(", ")", *QUERY_WORDS]
        words += [word for word in catalog_words() if word not in words]
        vocabulary = {word: i for i, word in enumerate(words)}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # white space, and each mark of punctuation
        if before or after:
            special = [(token, vocabulary[token]) for token in {before, after} - {""}]
            tokenizer.post_processor = processors.TemplateProcessing(
                single=f"{before} $A {after}".strip(), special_tokens=special
            )
        names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "bos_token": "<s>", "eos_token": "</s>"}
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
        config = config_class(vocab_size=len(words), pad_token_id=0, bos_token_id=2, eos_token_id=3, **options)
        torch.manual_seed(0)
        model = model_class(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    parameter.add_(0.1 * torch.randn_like(parameter))
        with quiet_transformers():
            model.save_pretrained(folder)
        return str(folder)

    return save


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory, save_tiny: Callable[..., str]) -> str:
    from transformers import GPT2Config, GPT2LMHeadModel

    options = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 256, "initializer_range": 0.3}
    return save_tiny(tmp_path_factory.mktemp("tiny-gpt2"), GPT2LMHeadModel, GPT2Config, **options)


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory, save_tiny: Callable[..., str]) -> str:
    from transformers import LlamaConfig, LlamaForCausalLM

    return save_tiny(
        tmp_path_factory.mktemp("tiny-llama"),
        LlamaForCausalLM,
        LlamaConfig,
        before="<s>",
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        max_position_embeddings=256,
        initializer_range=0.3,
    )


@pytest.fixture(scope="session")
def tiny_t5(tmp_path_factory: pytest.TempPathFactory, save_tiny: Callable[..., str]) -> str:
    from transformers import T5Config, T5ForConditionalGeneration

    return save_tiny(
        tmp_path_factory.mktemp("tiny-t5"),
        T5ForConditionalGeneration,
        T5Config,
        after="</s>",
        d_model=32,
        num_layers=3,
        num_heads=4,
        d_kv=8,
        d_ff=48,
        feed_forward_proj="gated-gelu",
        initializer_factor=1.0,
        decoder_start_token_id=0,
    )


@pytest.fixture(scope="session")
def text_split() -> Split:
    dataset = make_synthetic(n_users=60, n_items=50, density=0.6, seed=5)
    return split_dataset(dataset, Protocol(state="both-cold", k_max=6), 0)


@pytest.fixture(scope="session")
def text_ctx(text_split: Split, tmp_path_factory: pytest.TempPathFactory) -> Context:
    return Context(torch.device("cpu"), text_split.catalog, Scale(1, 5, 1), tmp_path_factory.mktemp("cache"))
