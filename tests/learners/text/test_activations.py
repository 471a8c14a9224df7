"""Item activations: what is on disk, what shares it, and what must not."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from fewrec.learners.text.activations import item_activations
from fewrec.learners.text.backbone import load_backbone

TEXTS = ["Toy Story (1995). Animation, Comedy.", "Heat", "The Quiet River Returns (1991). Drama, Romance, War, Comedy."]


@pytest.fixture
def ctx(text_ctx, tmp_path):
    return replace(text_ctx, cache=tmp_path)


@pytest.mark.parametrize("kind", ["tiny_bert", "tiny_gpt2", "tiny_llama", "tiny_t5"])
def test_activations_are_those_of_the_whole_model_text_by_text(request, kind, ctx):
    backbone = load_backbone(request.getfixturevalue(kind))
    for layer in range(backbone.n_layers):
        found = item_activations(backbone, TEXTS, "t", layer, 64, ctx)
        for i, ids in enumerate(backbone.tokenise(TEXTS, 64)):
            own = slice(int(found.offsets[i]), int(found.offsets[i + 1]))
            assert found.ids[own].tolist() == ids
            whole = backbone.trunk(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[layer][0]
            torch.testing.assert_close(found.tokens[own], whole, rtol=1e-5, atol=1e-5)


def test_what_a_text_is_packed_with_does_not_change_its_activations(tiny_bert, ctx):
    backbone = load_backbone(tiny_bert)
    together = item_activations(backbone, TEXTS, "t", 1, 64, ctx)
    for i, text in enumerate(TEXTS):
        alone = item_activations(backbone, [text], "t", 1, 64, ctx)
        own = slice(int(together.offsets[i]), int(together.offsets[i + 1]))
        torch.testing.assert_close(together.tokens[own], alone.tokens, rtol=0, atol=1e-5)


def test_they_come_from_the_cache_the_second_time(tiny_bert, ctx):
    backbone = load_backbone(tiny_bert)
    first = item_activations(backbone, TEXTS, "t", 1, 64, ctx)
    files = list(ctx.cache.iterdir())
    assert [file.suffix for file in files] == [".safetensors"]
    assert torch.equal(load_file(files[0])["tokens"], first.tokens)
    backbone.tokenizer = backbone.trunk = None  # whoever tokenises or computes again fails
    with pytest.raises(AttributeError):
        item_activations(backbone, TEXTS[:1], "t", 1, 64, ctx)
    again = item_activations(replace_trunk(backbone, tiny_bert), TEXTS, "t", 1, 64, ctx)
    assert all(torch.equal(getattr(again, n), getattr(first, n)) for n in ("tokens", "ids", "offsets"))


def test_a_file_with_another_bit_or_without_its_end_is_computed_again_with_a_line(tiny_bert, ctx, capsys):
    backbone = load_backbone(tiny_bert)
    first = item_activations(backbone, TEXTS, "t", 1, 64, ctx)
    (file,) = ctx.cache.iterdir()
    whole = file.read_bytes()
    for bad in (whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:], whole[:-100]):
        file.write_bytes(bad)
        assert torch.equal(item_activations(backbone, TEXTS, "t", 1, 64, ctx).tokens, first.tokens)
        assert "computed again" in capsys.readouterr().err
        assert file.read_bytes() == whole
    save_file(load_file(file), file)  # of an earlier version: nobody can tell whether it is whole
    item_activations(backbone, TEXTS, "t", 1, 64, ctx)
    assert "without a checksum: computed again" in capsys.readouterr().err and file.read_bytes() == whole


def test_a_cache_that_cannot_be_written_only_costs_time(tiny_bert, ctx, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    found = item_activations(load_backbone(tiny_bert), TEXTS, "t", 1, 64, replace(ctx, cache=tmp_path / "file"))
    assert len(found) == 3 and "can't be written" in capsys.readouterr().err


def replace_trunk(backbone, folder):
    """Return a backbone that knows its parameters and can't tokenise."""
    whole = load_backbone(folder)
    whole.tokenizer = None
    return whole


def test_other_texts_templates_layers_or_lengths_have_other_entries(tiny_bert, ctx):
    backbone = load_backbone(tiny_bert)
    for texts, template, layer, length in [
        (TEXTS, "t", 1, 64), (TEXTS[:2], "t", 1, 64), (TEXTS, "u", 1, 64), (TEXTS, "t", 2, 64), (TEXTS, "t", 1, 4),
    ]:  # fmt: skip
        item_activations(backbone, texts, template, layer, length, ctx)
    assert len(list(ctx.cache.iterdir())) == 5


def test_long_texts_are_cut_at_the_token_limit(tiny_bert, ctx):
    assert item_activations(load_backbone(tiny_bert), TEXTS, "t", 1, 4, ctx).lengths.tolist() == [4, 3, 4]
