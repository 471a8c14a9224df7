"""The attention that backbones run with, against float64 written out, and prefixes against peft's."""

import pytest
import torch
from torch import nn
from torch.nn.functional import gelu, layer_norm

from fewrec.learners.text import attention
from fewrec.learners.text.attention import attend
from fewrec.learners.text.backbone import load_backbone, run_layer
from fewrec.learners.text.packing import pack

TEXTS = ["Quiet river (1995). Drama, comedy.", "Rating", "A title, from 1 to 5: the river. War, romance.", "A rating"]
MODELS = ("tiny_bert", "tiny_gpt2", "tiny_llama", "tiny_t5")
B, HEADS, KEY_HEADS, T, D, P = 6, 4, 2, 7, 8, 3


def drawn(*shape, seed=0, device="cpu"):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device)


def by_hand(query, key, value, seen, scale=None, bias=None, softcap=None):
    """Attention in float64, (B, T, heads, d); ``seen`` (B or 1, 1, T, S) bool."""
    query, key, value = (x.double() for x in (query, key, value))
    key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
    scores = torch.einsum("bhqd,bhkd->bhqk", query, key) * (query.shape[-1] ** -0.5 if scale is None else scale)
    scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
    scores = scores if bias is None else scores + bias
    shares = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    return torch.einsum("bhqk,bhkd->bqhd", shares, value)


def with_prefix(key_tokens, value_tokens):
    module = nn.Module()
    for name, tokens in zip(attention.PREFIX, (key_tokens, value_tokens), strict=True):
        module.register_parameter(name, nn.Parameter(tokens))
    return module


@pytest.fixture
def states(device):
    query = drawn(B, HEADS, T, D, device=device)
    key, value = (drawn(B, KEY_HEADS, T, D, seed=seed, device=device) for seed in (1, 2))
    seen = (drawn(B, 1, T, T, seed=3, device=device) > 0) | torch.eye(T, dtype=torch.bool, device=device)
    return query, key, value, seen


def close(found, wanted, tolerance=1e-5):
    torch.testing.assert_close(found.double(), wanted.double(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("scaling", [None, 1.0])
def test_attention_with_fewer_key_heads_is_the_one_written_out(states, scaling, softcap):
    query, key, value, seen = states
    found, _ = attend(nn.Module(), query, key, value, seen, scaling=scaling, softcap=softcap)
    assert found.shape == (B, T, HEADS, D)
    close(found, by_hand(query, key, value, seen, scaling, softcap=softcap))
    low = torch.zeros_like(seen, dtype=query.dtype).masked_fill(~seen, torch.finfo(query.dtype).min)
    close(attend(nn.Module(), query, key, value, low, scaling=scaling, softcap=softcap)[0], found, 1e-6)


@pytest.mark.parametrize("softcap", [None, 1.5])
def test_decoders_without_a_mask_are_causal(states, softcap):
    query, key, value, _ = states
    module = nn.Module()
    module.is_causal = True
    earlier = torch.ones(1, 1, T, T, dtype=torch.bool, device=query.device)
    close(attend(module, query, key, value, None, softcap=softcap)[0],
          by_hand(query, key, value, earlier.tril(), softcap=softcap))  # fmt: skip
    close(attend(module, query, key, value, None, is_causal=False)[0], by_hand(query, key, value, earlier))


@pytest.mark.parametrize("masked", [True, False])
def test_gradients_in_bfloat16_are_those_of_float64_nearly(states, masked):
    # On a CPU these are not torch's own attention, whose gradients are slow there.
    query, key, value, seen = states
    sides = []
    for half in (True, False):
        parts = [part.clone().requires_grad_() for part in (query, key, value)]
        if half:
            with torch.autocast(query.device.type, torch.bfloat16):
                out, _ = attend(nn.Module(), *parts, seen if masked else None)
        else:
            out = by_hand(*parts, seen if masked else torch.ones_like(seen))
        sides.append([out, *torch.autograd.grad((out.double() * drawn(*out.shape, seed=9).to(out)).sum(), parts)])
    assert sides[0][0].dtype == torch.bfloat16
    for found, wanted in zip(*sides, strict=True):
        close(found, wanted, 0.05)


def test_a_window_hides_what_is_as_many_positions_away(states):
    query, key, value, seen = states
    place = torch.arange(T, device=query.device)
    near = (place.unsqueeze(1) - place).abs() < 3
    found, _ = attend(nn.Module(), query, key, value, seen, sliding_window=3)
    close(found, by_hand(query, key, value, seen & near))
    positions = torch.tensor([[0, 1, 2, 1, 2, 1, 2]], device=query.device)  # three texts behind one token
    near = (positions.unsqueeze(2) - positions.unsqueeze(1)).abs() < 2
    found, _ = attend(nn.Module(), query, key, value, seen, sliding_window=2, position_ids=positions)
    close(found, by_hand(query, key, value, seen & near.unsqueeze(1)))


@pytest.mark.parametrize("softcap", [None, 1.5])
def test_a_prefix_is_seen_by_every_token_before_its_own_keys_and_values(states, softcap):
    query, key, value, seen = states
    tokens = [drawn(P, KEY_HEADS * D, seed=seed, device=query.device) for seed in (4, 5)]
    bias = drawn(1, HEADS, T, T, seed=6, device=query.device)
    before = [x.reshape(P, KEY_HEADS, D).transpose(0, 1).expand(B, -1, -1, -1) for x in tokens]
    longer = torch.cat([before[0], key], 2), torch.cat([before[1], value], 2)
    all_seen = torch.cat([seen.new_ones(B, 1, T, P), seen], 3)
    found, _ = attend(with_prefix(*tokens), query, key, value, seen, softcap=softcap)
    close(found, by_hand(query, *longer, all_seen, softcap=softcap))
    if softcap is None:  # relative positions are between tokens: a prefix has none
        found, _ = attend(with_prefix(*tokens), query, key, value, seen, position_bias=bias)
        close(found, by_hand(query, *longer, all_seen, bias=torch.cat([bias.new_zeros(1, HEADS, T, P), bias], 3)))
        found, _ = attend(with_prefix(*tokens), query, key, value, None, position_bias=bias)
        close(
            found,
            by_hand(
                query, *longer, torch.ones_like(all_seen), bias=torch.cat([bias.new_zeros(1, HEADS, T, P), bias], 3)
            ),
        )


def test_each_group_of_rows_sees_its_own_prefix(states):
    query, key, value, seen = states
    tokens = [drawn(3, P, KEY_HEADS * D, seed=seed, device=query.device) for seed in (4, 5)]
    together, _ = attend(with_prefix(*tokens), query, key, value, seen)
    for group in range(3):
        rows = slice(2 * group, 2 * group + 2)
        alone, _ = attend(with_prefix(*(x[group] for x in tokens)), query[rows], key[rows], value[rows], seen[rows])
        close(together[rows], alone, 1e-6)


def test_a_prefix_of_no_tokens_changes_nothing(states):
    query, key, value, seen = states
    none = drawn(0, KEY_HEADS * D, device=query.device)
    assert torch.equal(attend(with_prefix(none, none), query, key, value, seen)[0],
                       attend(nn.Module(), query, key, value, seen)[0])  # fmt: skip


def test_what_it_does_not_know_is_refused(states):
    query, key, value, seen = states
    with pytest.raises(ValueError, match="s_aux"):
        attend(nn.Module(), query, key, value, seen, s_aux=drawn(HEADS))
    module = with_prefix(*(drawn(P, KEY_HEADS * D, device=query.device) for _ in range(2)))
    module.is_causal = True
    with pytest.raises(ValueError, match="explicit mask"):
        attend(module, query, key, value, None)


# Prefixes of whole models


def attentions(backbone):
    """The attention modules of a backbone in order, with the width of their keys."""
    layout = pack(torch.tensor([[4]]))
    with torch.no_grad(), attention.recording() as found:
        backbone.encode(layout, torch.ones(1, 4, dtype=torch.int64))
    return [(module, key.shape[1] * key.shape[3]) for module, key, _ in found]


def give_prefixes(modules, prefixes):
    for module, pair in zip(modules, prefixes, strict=True):
        for name, tokens in zip(attention.PREFIX, pair, strict=True):
            module.register_parameter(name, nn.Parameter(tokens.clone()))


def run(backbone, layout, ids, shift=0):
    hidden, calls = backbone.calls(layout.positions + shift, layout.mask(backbone.causal), ids=ids)
    for layer, call in zip(backbone.layers, calls, strict=True):
        hidden = run_layer(layer, hidden, call)
    return hidden if backbone.norm is None else backbone.norm(hidden)


@pytest.mark.parametrize("model", ["tiny_gpt2", "tiny_llama"])
def test_prefixes_in_every_layer_are_pefts_prefix_tuning(model, request):
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    folder = request.getfixturevalue(model)
    config = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=P)
    whole = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    theirs = peft.get_peft_model(whole, config).eval()
    table = theirs.prompt_encoder["default"].embedding.weight
    with torch.no_grad():
        table.copy_(drawn(*table.shape))

    backbone = load_backbone(folder)
    modules = [module for module, _ in attentions(backbone)]
    parts = table.detach().unflatten(1, (3, 2, -1))  # of every layer, keys and values
    give_prefixes(modules, [(parts[:, i, 0], parts[:, i, 1]) for i in range(3)])
    rows = backbone.tokenise(TEXTS, 20)
    sides = [drawn(len(row), 32, seed=i) for i, row in enumerate(rows)]
    layout = pack(torch.tensor([[len(row) for row in rows]]), capacity=24)
    states = run(backbone, layout, layout.fill(rows), shift=P)  # peft counts a text's positions behind the prefix
    ours = [states[layout.row[0, i], layout.start[0, i] :][: len(row)] for i, row in enumerate(rows)]
    sum((s * side).sum() for s, side in zip(ours, sides, strict=True)).backward()

    for row, found, side in zip(rows, ours, sides, strict=True):
        wanted = theirs(input_ids=torch.tensor([row]), output_hidden_states=True).hidden_states[-1][0]
        close(found, wanted)
        (wanted * side).sum().backward()
    wanted = table.grad.unflatten(1, (3, 2, -1))
    for i, module in enumerate(modules):
        for j, name in enumerate(attention.PREFIX):
            close(getattr(module, name).grad, wanted[:, i, j], 1e-4)


def bert_by_hand(model, ids, prefixes):
    """A BERT's last states (T, d) of one text in float64, each layer with its prefix of keys and values (P, d)."""
    weights = {name: p.detach().double() for name, p in model.named_parameters()}

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x, name):
        return layer_norm(x, (32,), weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-12)

    tables = {name: weights[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")}
    x = norm(tables["word"][ids] + tables["position"][: len(ids)] + tables["token_type"][0], "embeddings.LayerNorm")
    for i, (key_tokens, value_tokens) in enumerate(prefixes):
        layer = f"encoder.layer.{i}"
        query, key, value = (linear(x, f"{layer}.attention.self.{name}") for name in ("query", "key", "value"))
        key, value = torch.cat([key_tokens.double(), key]), torch.cat([value_tokens.double(), value])
        heads = []
        for head in range(4):
            columns = slice(8 * head, 8 * head + 8)
            shares = (query[:, columns] @ key[:, columns].T / 8**0.5).softmax(1)
            heads.append(shares @ value[:, columns])
        x = norm(
            linear(torch.cat(heads, 1), f"{layer}.attention.output.dense") + x, f"{layer}.attention.output.LayerNorm"
        )
        inner = gelu(linear(x, f"{layer}.intermediate.dense"))
        x = norm(linear(inner, f"{layer}.output.dense") + x, f"{layer}.output.LayerNorm")
    return x


def test_prefixes_of_an_encoder_are_p_tuning_v2_written_out(tiny_bert):
    backbone = load_backbone(tiny_bert)
    prefixes = [(drawn(P, 32, seed=2 * i), drawn(P, 32, seed=2 * i + 1)) for i in range(3)]
    give_prefixes([module for module, _ in attentions(backbone)], prefixes)
    rows = backbone.tokenise(TEXTS, 20)
    layout = pack(torch.tensor([[len(row) for row in rows]]), capacity=24)
    with torch.no_grad():
        states = run(backbone, layout, layout.fill(rows))
    for i, row in enumerate(rows):
        found = states[layout.row[0, i], layout.start[0, i] :][: len(row)]
        close(found, bert_by_hand(backbone.trunk, torch.tensor(row), prefixes))


@pytest.mark.parametrize("model", MODELS)
def test_the_prefixes_of_two_groups_in_one_pass_are_those_of_each_alone(model, request, device):
    backbone = load_backbone(request.getfixturevalue(model))
    found = attentions(backbone)
    backbone.to(device)
    modules = [module for module, _ in found]
    both = [
        tuple(drawn(2, P, width, seed=2 * i + j, device=device) for j in range(2)) for i, (_, width) in enumerate(found)
    ]
    rows = backbone.tokenise(TEXTS, 20)
    side = drawn(32, seed=9, device=device)

    def results(lengths, texts, prefixes):
        give_prefixes(modules, prefixes)
        layout = pack(lengths, capacity=24).to(device)
        states = run(backbone, layout, layout.fill(texts))
        weights, place = layout.means()
        means = (weights @ states).flatten(0, 1)[place]
        (means @ side).square().sum().backward()
        return means.detach(), [getattr(m, name).grad for m in modules for name in attention.PREFIX]

    lengths = torch.tensor([len(row) for row in rows]).reshape(2, 2)
    together, gradients = results(lengths, rows, both)
    for group in range(2):
        own = slice(2 * group, 2 * group + 2)
        alone, wanted = results(lengths[group : group + 1], rows[own], [(k[group], v[group]) for k, v in both])
        close(together[group], alone[0])
        for ours, theirs in zip(gradients, wanted, strict=True):
            assert theirs.abs().sum() > 0
            close(ours[group], theirs, 1e-4)
