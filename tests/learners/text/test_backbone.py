"""Language models taken apart, against transformers' own run of the whole model on one text at a time."""

import pytest
import torch

from fewrec.errors import DataError
from fewrec.learners.text.backbone import load_backbone, run_layer
from fewrec.learners.text.packing import pack

TEXTS = [
    "Quiet river (1995). Drama, comedy.",
    "Rating",
    "The long title of a third text, from 1 to 5: the quiet river returns. War, romance (1991), comedy, drama.",
    "A rating from 1 to 5",
]
WIDE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
BERT = WIDE | {"max_position_embeddings": 64, "initializer_range": 0.3}
LLAMA = BERT | {"num_key_value_heads": 2}
GEMMA = LLAMA | {"head_dim": 8, "sliding_window": 4}
GEMMA["layer_types"] = ["sliding_attention", "full_attention", "sliding_attention"]
T5 = {"d_model": 32, "num_layers": 3, "num_heads": 4, "d_kv": 8, "d_ff": 48, "initializer_factor": 1.5}
BART = {"encoder_layers": 3, "decoder_layers": 3, "d_model": 32, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
BART |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_position_embeddings": 64, "init_std": 0.3}
DISTIL = {"n_layers": 3, "dim": 32, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 64}
OPT = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "ffn_dim": 48, "init_std": 0.3}

# How tiny models are made: class, configuration, options. Windows of 4 tokens are shorter than the texts.
MADE = {
    "bert-mlm": ("BertForMaskedLM", "BertConfig", BERT),
    "roberta": ("RobertaForMaskedLM", "RobertaConfig", BERT),
    "distilbert": ("DistilBertModel", "DistilBertConfig", DISTIL | {"initializer_range": 0.3}),
    "electra": ("ElectraModel", "ElectraConfig", BERT | {"embedding_size": 16}),
    "modernbert": ("ModernBertForMaskedLM", "ModernBertConfig",
                   BERT | {"local_attention": 4, "global_attn_every_n_layers": 2}),
    "mistral": ("MistralForCausalLM", "MistralConfig", LLAMA | {"sliding_window": 4}),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", LLAMA | {"head_dim": 8}),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", GEMMA | {"attn_logit_softcapping": 1.0}),
    "gemma3": ("Gemma3ForCausalLM", "Gemma3TextConfig", GEMMA),
    "opt": ("OPTForCausalLM", "OPTConfig", OPT | {"max_position_embeddings": 64, "word_embed_proj_dim": 32}),
    "gpt-neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", BERT),
    "t5-encoder": ("T5EncoderModel", "T5Config", T5),
    "umt5": ("UMT5ForConditionalGeneration", "UMT5Config", T5),
    "bart": ("BartForConditionalGeneration", "BartConfig", BART),
}  # fmt: skip
KINDS = {"tiny_bert": "encoder", "tiny_gpt2": "decoder", "tiny_llama": "decoder", "tiny_t5": "encoder-decoder"}
KINDS |= dict.fromkeys(("bert-mlm", "roberta", "distilbert", "electra", "modernbert", "t5-encoder"), "encoder")
KINDS |= dict.fromkeys(("mistral", "qwen3", "gemma2", "gemma3", "opt", "gpt-neox"), "decoder")
KINDS |= dict.fromkeys(("umt5", "bart"), "encoder-decoder")
DECODERS = [name for name, kind in KINDS.items() if kind == "decoder"]


@pytest.fixture(scope="module")
def folder_of(request, save_tiny, tmp_path_factory):
    import transformers

    made: dict[str, str] = {}

    def folder(name: str) -> str:
        if name not in MADE:
            return request.getfixturevalue(name)
        if name not in made:
            model, config, options = MADE[name]
            model, config = getattr(transformers, model), getattr(transformers, config)
            made[name] = save_tiny(tmp_path_factory.mktemp(name), model, config, **options)
        return made[name]

    return folder


@pytest.fixture(scope="module")
def backbone_of(folder_of):
    loaded = {}

    def backbone(name: str):
        if name not in loaded:
            loaded[name] = load_backbone(folder_of(name))
        return loaded[name]

    return backbone


def laid_out(rows, device="cpu", **options):
    """Two groups, of two texts each, in rows of several texts."""
    layout = pack(torch.tensor([len(row) for row in rows]).reshape(2, 2), capacity=48, **options).to(device)
    return layout, layout.fill(rows)


def of_texts(layout, states):
    """Each text's states (n, d), in order."""
    places = torch.stack([layout.row, layout.start, layout.length], 2).flatten(0, 1).tolist()
    return [states[row, start : start + n] for row, start, n in places]


def close(found, wanted, tolerance=1e-5):
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance * max(1.0, float(wanted.abs().max())))


@pytest.mark.parametrize("name", KINDS)
def test_packed_texts_have_the_states_of_the_whole_model_on_each_alone(name, backbone_of, plainly):
    backbone = backbone_of(name)
    assert backbone.kind == KINDS[name] and backbone.causal == (KINDS[name] == "decoder")
    assert (backbone.whole is None) == (KINDS[name] == "encoder") and backbone.n_layers == 3 and backbone.width == 32
    rows = backbone.tokenise(TEXTS, 40)
    layout, ids = laid_out(rows)
    assert int(layout.segment.max()) > 1
    with torch.no_grad(), plainly(backbone.trunk):
        wanted = [backbone.trunk(input_ids=torch.tensor([row])).last_hidden_state[0] for row in rows]
    for ours, theirs in zip(of_texts(layout, backbone.encode(layout, ids)), wanted, strict=True):
        close(ours, theirs)


@pytest.mark.parametrize("name", KINDS)
def test_stopping_at_a_layer_and_running_the_rest_is_the_whole(name, backbone_of):
    backbone = backbone_of(name)
    layout, ids = laid_out(backbone.tokenise(TEXTS, 40))
    whole = backbone.encode(layout, ids)
    with torch.no_grad():
        _, calls = backbone.calls(layout.positions, layout.mask(backbone.causal))  # of no words: they don't matter
    assert len(calls) == 3
    for stop in (0, 1, 3):
        states = backbone.encode(layout, ids, last=stop)
        for layer, call in zip(backbone.layers[stop:], calls[stop:], strict=True):
            states = run_layer(layer, states, call)
        close(states if backbone.norm is None else backbone.norm(states), whole, 1e-6)


@pytest.mark.parametrize("name", KINDS)
def test_gradients_of_word_vectors_are_those_of_the_whole_model(name, backbone_of, plainly):
    backbone = backbone_of(name)
    rows = backbone.tokenise(TEXTS, 40)
    layout, ids = laid_out(rows)
    words = backbone.trunk.get_input_embeddings()
    generator = torch.Generator().manual_seed(0)
    sides = [torch.randn(len(row), 32, generator=generator) for row in rows]

    vectors = words(ids).detach().requires_grad_()
    states, calls = backbone.calls(layout.positions, layout.mask(backbone.causal), vectors=vectors)
    for layer, call in zip(backbone.layers, calls, strict=True):
        states = run_layer(layer, states, call)
    states = states if backbone.norm is None else backbone.norm(states)
    sum((s * side).sum() for s, side in zip(of_texts(layout, states), sides, strict=True)).backward()
    with plainly(backbone.trunk):
        for row, side, ours in zip(rows, sides, of_texts(layout, vectors.grad), strict=True):
            alone = words(torch.tensor([row])).detach().requires_grad_()
            (backbone.trunk(inputs_embeds=alone).last_hidden_state[0] * side).sum().backward()
            close(ours, alone.grad[0])
    assert not vectors.grad[layout.segment < 0].any()


@pytest.mark.parametrize("name", DECODERS)
def test_texts_behind_a_shared_context_are_read_as_if_each_followed_it(name, backbone_of, plainly):
    backbone = backbone_of(name)
    context, *rows = backbone.tokenise(["The context, rating 1: a quiet river.", *TEXTS], 40)
    layout, ids = laid_out(rows, shared=len(context))
    ids[:, : len(context)] = torch.tensor(context)
    with torch.no_grad(), plainly(backbone.trunk):
        alone = [backbone.trunk(input_ids=torch.tensor([context + row])).last_hidden_state[0] for row in rows]
    for ours, theirs in zip(of_texts(layout, backbone.encode(layout, ids)), alone, strict=True):
        close(ours, theirs[len(context) :])


@pytest.mark.parametrize("name", ["tiny_bert", "tiny_gpt2", "tiny_llama", "tiny_t5"])
def test_a_backbone_runs_on_the_device_that_it_is_moved_to(name, backbone_of, folder_of, device):
    here, there = backbone_of(name), load_backbone(folder_of(name)).to(device)
    assert there.device.type == device.type
    rows = here.tokenise(TEXTS, 40)
    layout, ids = laid_out(rows)
    moved, moved_ids = laid_out(rows, device)
    for last in (None, 1):
        found = there.encode(moved, moved_ids, last)
        assert found.device.type == device.type
        for ours, theirs in zip(of_texts(moved, found), of_texts(layout, here.encode(layout, ids, last)), strict=True):
            close(ours.cpu(), theirs, 1e-4)


def test_texts_are_cut_and_one_without_words_is_a_single_token(backbone_of):
    for name in ("tiny_bert", "tiny_gpt2"):
        assert [len(row) for row in backbone_of(name).tokenise([TEXTS[2], TEXTS[1], ""], 6)][0] == 6
    assert backbone_of("tiny_gpt2").tokenise([""], 6) == [[3]]
    assert backbone_of("tiny_bert").tokenise([""], 6) == [[2, 3]]


def test_a_loaded_model_is_frozen_and_in_evaluation_mode(backbone_of):
    for name in ("tiny_bert", "tiny_t5"):
        model = backbone_of(name).whole or backbone_of(name).trunk
        assert not model.training and not any(p.requires_grad for p in model.parameters())
        assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "SmolLM2-135M-Instruct"])
def test_real_weights_packed_are_the_whole_model(name, plainly):
    from fewrec.data.weights import find_weights

    try:
        find_weights(name)
    except DataError as error:
        pytest.skip(f"the weights of {name} can't be had here: {error}")
    backbone = load_backbone(name)
    texts = [
        "Toy Story (1995). Animation, Children's, Comedy.",
        "Heat",
        "Señor, a café in 北京 (1988)",
        "Kolya (1996).",
    ]
    rows = backbone.tokenise(texts, 64)
    layout, ids = laid_out(rows)
    with torch.no_grad():
        found = of_texts(layout, backbone.encode(layout, ids))
        with plainly(backbone.trunk):
            wanted = [backbone.trunk(input_ids=torch.tensor([row])).last_hidden_state[0] for row in rows]
    for ours, theirs in zip(found, wanted, strict=True):
        close(ours, theirs, 1e-5)
