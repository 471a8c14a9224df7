"""Rating words against the whole models of transformers: decoders, and a decoder that reads an encoder."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from fewrec.data.table import Scale
from fewrec.errors import DataError
from fewrec.learners.text.backbone import Backbone, load_backbone
from fewrec.learners.text.packing import pack
from fewrec.learners.text.words import RatingWords

STARS = Scale(1, 5, 1)
MODELS = ("tiny_gpt2", "tiny_llama", "tiny_t5")
TEXTS = ("rating to 3", "from 1 to 5, title: rating", "title")


def laid_out(words: RatingWords, rows: list[list[int]], capacity: int = 8):
    lengths = torch.tensor([[len(row) for row in rows[:2]], [len(rows[2]), 0]])
    layout = pack(lengths, capacity=capacity)
    return layout, words.backbone.encode(layout, layout.fill([*rows, []]))


def whole_logits(backbone: Backbone, ids: list[int]) -> torch.Tensor:
    given = {"input_ids": torch.tensor([ids])}
    if backbone.kind == "encoder-decoder":
        given["decoder_input_ids"] = torch.tensor([[0]])
    return backbone.whole(**given).logits[0, -1]


@pytest.mark.parametrize("model", MODELS)
def test_packed_logits_are_those_of_the_whole_model_after_each_text(model, request):
    backbone = load_backbone(request.getfixturevalue(model))
    words = RatingWords(backbone, STARS)
    rows = backbone.tokenise([words.text(text) for text in TEXTS], 64)
    for capacity in (8, 100):  # one text a row, or all of a group
        layout, states = laid_out(words, rows, capacity)
        found = words.logits(states, layout)
        assert found.shape == (2, 2, 5) and torch.isfinite(found).all()
        wanted = torch.stack([whole_logits(backbone, row)[words.ids] for row in rows])
        torch.testing.assert_close(found.flatten(0, 1)[:3], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_logits_are_differentiable_in_the_states_of_each_text_alone(model, request):
    words = RatingWords(load_backbone(request.getfixturevalue(model)), STARS)
    layout, states = laid_out(words, words.tokenise(TEXTS, 64), capacity=100)
    states.requires_grad_()
    words.logits(states, layout)[0, 1].sum().backward()
    touched = states.grad.abs().sum(2) > 0
    place = (int(layout.row[0, 1]), int(layout.start[0, 1]))
    own = layout.segment == layout.segment[place]
    own[torch.arange(layout.rows) != place[0]] = False
    assert touched.any() and not touched[~own].any()


def test_a_decoder_reads_its_texts_own_prompt_too_and_nothing_of_others(tiny_t5):
    from transformers.modeling_outputs import BaseModelOutput

    backbone = load_backbone(tiny_t5)
    words = RatingWords(backbone, STARS)
    layout = pack(torch.tensor([[3, 4]]), capacity=16, own=2)
    states = torch.randn(1, layout.width, 32, generator=torch.Generator().manual_seed(0))
    found = words.logits(states, layout)[0]
    for text in range(2):
        start, length = int(layout.start[0, text]), int(layout.length[0, text])
        encoded = BaseModelOutput(last_hidden_state=states[:, start - 2 : start + length])
        alone = backbone.whole(encoder_outputs=encoded, decoder_input_ids=torch.tensor([[0]])).logits[0, 0, words.ids]
        torch.testing.assert_close(found[text], alone, rtol=1e-5, atol=1e-5)


def test_expectation_is_on_the_data_sets_scale(tiny_gpt2):
    words = RatingWords(load_backbone(tiny_gpt2), Scale(0.5, 10, 0.5), ("1", "3", "5"))
    assert words.values.tolist() == [0.5, 5.25, 10.0]
    logits = torch.tensor([[0.0, 0.0, 0.0], [50.0, 0.0, 0.0], [0.0, 0.0, 50.0]])
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        found = words.expectation(logits.to(dtype))
        assert found.dtype == (torch.float32 if dtype == torch.bfloat16 else dtype)
        torch.testing.assert_close(found, torch.tensor([5.25, 0.5, 10.0], dtype=found.dtype))
    assert words.nearest(torch.tensor([0.5, 2.0, 2.875, 6.0, 9.0])).tolist() == [0, 0, 0, 1, 2]


def test_a_logit_scale_and_a_bias_of_the_model_are_kept(save_tiny, tmp_path):
    from transformers import CohereConfig, CohereForCausalLM, PhiConfig, PhiForCausalLM

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    scaled = save_tiny(
        tmp_path / "cohere", CohereForCausalLM, CohereConfig, logit_scale=0.25, initializer_range=0.3, **sizes
    )
    biased = save_tiny(tmp_path / "phi", PhiForCausalLM, PhiConfig, initializer_range=0.3, **sizes)
    for folder in (scaled, biased):
        backbone = load_backbone(folder)
        words = RatingWords(backbone, STARS)
        row = words.tokenise(["title 3"], 64)[0]
        layout = pack(torch.tensor([[len(row)]]))
        found = words.logits(backbone.encode(layout, layout.fill([row])), layout)[0, 0]
        torch.testing.assert_close(found, whole_logits(backbone, row)[words.ids], rtol=1e-5, atol=1e-5)


def test_soft_capped_logits_are_those_of_the_model(save_tiny, tmp_path):
    from transformers import Gemma2Config, Gemma2ForCausalLM

    options = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    options |= {"head_dim": 8, "intermediate_size": 48, "initializer_range": 0.3, "attn_logit_softcapping": None}
    options |= {"final_logit_softcapping": 3.0}
    folder = save_tiny(tmp_path / "gemma2", Gemma2ForCausalLM, Gemma2Config, **options)
    backbone = load_backbone(folder)
    words = RatingWords(backbone, STARS)
    row = words.tokenise(["title 3"], 64)[0]
    layout = pack(torch.tensor([[len(row)]]))
    found = words.logits(backbone.encode(layout, layout.fill([row])), layout)[0, 0]
    torch.testing.assert_close(found, whole_logits(backbone, row)[words.ids], rtol=1e-5, atol=1e-5)
    assert float(found.abs().max()) < 3


def test_a_head_that_cannot_be_reproduced_is_refused(tiny_gpt2):
    backbone = load_backbone(tiny_gpt2)
    head = backbone.whole.lm_head
    plain = head.forward
    head.forward = lambda hidden: plain(hidden).cumsum(-1)
    with pytest.raises(DataError, match="logits, computed alone, are others"):
        RatingWords(backbone, STARS)


def test_an_encoder_has_no_rating_words(tiny_bert):
    with pytest.raises(DataError, match="no language-model head; use readout 'head'"):
        RatingWords(load_backbone(tiny_bert), STARS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("1", "wonderful"), "rating word 'wonderful' is unknown to its tokenizer; give words"),
        (("1", "1 2"), "rating word '1 2' is 2 tokens for its tokenizer; give words"),
        (("from", "From"), "rating words 'from' and 'From' are the same token; give other words"),
        (("1",), "give at least two"),
    ],
)
def test_words_that_are_no_single_tokens_are_named(words, message, tiny_gpt2):
    with pytest.raises(DataError, match=message):
        RatingWords(load_backbone(tiny_gpt2), STARS, words)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("Rating:", "{text}, for an item's text, is missing"),
        ("{text} {title}", "{title} is none of"),
        ("{text", "expected"),
    ],
)
def test_a_template_that_cannot_be_filled_is_refused(template, message, tiny_gpt2):
    with pytest.raises(DataError, match=message):
        RatingWords(load_backbone(tiny_gpt2), STARS, template=template)


def with_byte_level_tokenizer(backbone: Backbone, digits: bool) -> Backbone:
    """Return the backbone with a tokenizer like GPT-2's, whose words begin with their blank, or like SmolLM2's."""
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merged = [] if digits else ["Ġ" + digit for digit in "12345"]
    merges = [("Ġ", word[1]) for word in merged]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(alphabet + merged)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return replace(backbone, tokenizer=PreTrainedTokenizerFast(tokenizer_object=tokenizer))


@pytest.fixture
def many_words(save_tiny, tmp_path) -> Backbone:
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = Path(save_tiny(tmp_path, GPT2LMHeadModel, GPT2Config, n_embd=32, n_layer=1, n_head=4))
    config = json.loads((folder / "config.json").read_text())
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(**{**config, "vocab_size": 300})).save_pretrained(folder)
    return load_backbone(str(folder))


def test_the_blank_before_a_word_is_where_the_tokenizer_has_it(many_words):
    joined = RatingWords(with_byte_level_tokenizer(many_words, digits=False), STARS)
    apart = RatingWords(with_byte_level_tokenizer(many_words, digits=True), STARS)
    assert joined.text("Heat") == "Heat Rating from 1 to 5:"
    assert apart.text("Heat") == "Heat Rating from 1 to 5: "
    for words, blank in ((joined, " "), (apart, "")):
        tokens = [words.backbone.tokenizer.decode([i]) for i in words.ids.tolist()]
        assert tokens == [blank + word for word in "12345"]
        full = words.plain([words.text("Heat") + blank + "4"])
        assert full == [[*words.tokenise(["Heat"], 64)[0], int(words.ids[3])]]
    at_once = RatingWords(with_byte_level_tokenizer(many_words, digits=False), STARS, template="{text}\nassistant\n")
    assert at_once.text("Heat") == "Heat\nassistant\n"
    assert at_once.backbone.tokenizer.decode(at_once.ids[:1]) == "1"


def test_a_long_text_is_cut_and_the_template_kept(tiny_llama):
    backbone = load_backbone(tiny_llama)
    words = RatingWords(backbone, STARS)
    texts = ["title " * 40, "title 3", "", "title," * 30]
    for limit in (9, 12, 20):
        prompts = words.prompts(texts, limit)
        assert [len(row) for row in backbone.tokenise(prompts, 1000)] == [limit, 9, 7, limit] or limit == 9
        assert all(prompt.endswith("Rating from 1 to 5:") for prompt in prompts)
        assert max(len(row) for row in backbone.tokenise(prompts, 1000)) <= limit
        assert prompts[1] == words.text("title 3") and prompts[2] == words.text("")
        assert [words.before + row for row in words.tokenise(texts, limit)] == backbone.tokenise(prompts, 1000)
    with pytest.raises(DataError, match="the template alone is 6 tokens"):
        words.prompts(texts, 5)
