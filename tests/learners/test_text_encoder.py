"""The cached lower layers and the upper ones on top, against the whole model run by transformers."""

import pytest
import torch
from safetensors.torch import load_file

from fewrec.errors import DataError
from fewrec.learners.text_encoder import (
    UpperLayers,
    hide_broken_torchvision,
    item_activations,
    load_backbone,
    mean_pool,
)

TEXTS = ["Toy Story (1995). Animation, Comedy.", "Heat", "The Quiet River Returns (1991). Drama, Romance, War, Comedy."]
CPU = torch.device("cpu")


@pytest.fixture(params=["tiny", "MiniLM"])
def backbone(request, tiny_bert):
    if request.param == "tiny":
        return load_backbone(tiny_bert)
    return load_backbone(_minilm())


def _minilm() -> str:
    from fewrec.data.weights import find_weights

    try:
        return str(find_weights("all-MiniLM-L6-v2").folder)
    except DataError as error:
        pytest.skip(f"the weights of MiniLM can't be had here: {error}")


def _whole(backbone, texts, **kwargs):
    encoded = backbone.tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")
    return backbone.model(**encoded, **kwargs).last_hidden_state, encoded["attention_mask"].bool()


@pytest.mark.parametrize("frozen", [0, 2, "all"])
def test_upper_layers_on_cached_activations_equal_the_whole_model(backbone, frozen, tmp_path):
    first = backbone.n_layers if frozen == "all" else frozen
    activations = item_activations(backbone, TEXTS, first, 64, tmp_path, CPU)
    hidden, mask = activations.padded(torch.arange(3), CPU)
    with torch.no_grad():
        found = UpperLayers(backbone, first)(hidden, mask)[-1]
        expected, expected_mask = _whole(backbone, TEXTS)
    assert torch.equal(mask, expected_mask)
    torch.testing.assert_close(found[mask], expected[mask], rtol=0, atol=1e-5)
    torch.testing.assert_close(mean_pool([found], mask)[1], expected[1][mask[1]].mean(0), rtol=0, atol=1e-5)


def test_gradients_of_trained_layers_equal_those_of_the_whole_model(backbone, tmp_path):
    first = backbone.n_layers - 1
    activations = item_activations(backbone, TEXTS, first, 64, tmp_path, CPU)
    upper = UpperLayers(backbone, first)
    trained = [p.requires_grad_() for p in upper.parameters()]
    weight = torch.randn(backbone.model.config.hidden_size, generator=torch.Generator().manual_seed(0))

    hidden, mask = activations.padded(torch.arange(3), CPU)
    found = torch.autograd.grad((mean_pool(upper(hidden, mask)[-1:], mask) @ weight).square().sum(), trained)
    whole, mask = _whole(backbone, TEXTS)
    expected = torch.autograd.grad((mean_pool([whole], mask) @ weight).square().sum(), trained)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()) + 1e-6)


def test_what_a_text_is_batched_with_does_not_change_its_activations(backbone, tmp_path):
    together = item_activations(backbone, TEXTS, 1, 64, tmp_path, CPU)
    for i, text in enumerate(TEXTS):
        alone = item_activations(backbone, [text], 1, 64, tmp_path, CPU)
        rows = slice(int(together.offsets[i]), int(together.offsets[i + 1]))
        torch.testing.assert_close(together.tokens[rows], alone.tokens, rtol=0, atol=1e-5)


def test_activations_come_from_the_cache_the_second_time(tiny_bert, tmp_path):
    backbone = load_backbone(tiny_bert)
    first = item_activations(backbone, TEXTS, 1, 64, tmp_path, CPU)
    files = list(tmp_path.iterdir())
    assert [file.suffix for file in files] == [".safetensors"]
    assert torch.equal(load_file(files[0])["tokens"], first.tokens)
    backbone.model.forward = None  # whoever computes again fails
    again = item_activations(backbone, TEXTS, 1, 64, tmp_path, CPU)
    assert torch.equal(again.tokens, first.tokens) and torch.equal(again.offsets, first.offsets)


def test_other_texts_layers_or_lengths_have_other_cache_entries(tiny_bert, tmp_path):
    backbone = load_backbone(tiny_bert)
    for texts, layer, length in [(TEXTS, 1, 64), (TEXTS[:2], 1, 64), (TEXTS, 2, 64), (TEXTS, 1, 4)]:
        item_activations(backbone, texts, layer, length, tmp_path, CPU)
    assert len(list(tmp_path.iterdir())) == 4


def test_long_texts_are_cut_at_the_token_limit(tiny_bert, tmp_path):
    activations = item_activations(load_backbone(tiny_bert), TEXTS, 1, 4, tmp_path, CPU)
    assert activations.lengths.tolist() == [4, 3, 4]


def test_a_model_of_another_family_is_refused_by_name(tmp_path):
    hide_broken_torchvision()
    from transformers import GPT2Config, GPT2Model

    GPT2Model(GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=2, n_positions=8)).save_pretrained(tmp_path / "gpt")
    with pytest.raises(DataError, match="'gpt2' model; give an encoder of bert"):
        load_backbone(str(tmp_path / "gpt"))


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(DataError):
        load_backbone(str(tmp_path / "nothing"))
