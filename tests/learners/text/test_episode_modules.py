"""Layers with many tasks' own weights in one pass: against each task alone, and low-rank additions against peft's."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.func import functional_call

from fewrec.learners.text.backbone import load_backbone, run_layer
from fewrec.learners.text.episode_modules import EpisodeLayerNorm, EpisodeLinear, convert, fit_to_rows, linear_layers
from fewrec.learners.text.packing import pack

TEXTS = [
    "Quiet river (1995). Drama.",
    "Rating",
    "A title, from 1 to 5: the river. War, romance.",
    "A rating",
    "War",
    "From",
]
TINY = ("tiny_bert", "tiny_gpt2", "tiny_llama", "tiny_t5")
QUERY_AND_VALUE = {"tiny_bert": ["query", "value"], "tiny_gpt2": ["c_attn"], "tiny_llama": ["q_proj", "v_proj"],
                   "tiny_t5": ["q", "v"]}  # fmt: skip


@pytest.fixture(scope="module")
def folder_of(request, save_tiny, tmp_path_factory):
    """Tiny models, and one that normalises each head's queries and keys too (Gemma's norms multiply by 1 + weight)."""

    def folder(name: str) -> str:
        if name in TINY:
            return request.getfixturevalue(name)
        from transformers import Gemma3ForCausalLM, Gemma3TextConfig

        sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}
        return save_tiny(tmp_path_factory.mktemp(name), Gemma3ForCausalLM, Gemma3TextConfig, head_dim=8,
                         intermediate_size=48, max_position_embeddings=64, initializer_range=0.3, **sizes)  # fmt: skip

    return folder


class Layers(nn.Module):
    """All layers of a backbone, and its norm."""

    def __init__(self, backbone):
        super().__init__()
        self.layers, self.norm = backbone.layers, backbone.norm or nn.Identity()

    def forward(self, hidden, calls):
        for layer, call in zip(self.layers, calls, strict=True):
            hidden = run_layer(layer, hidden, call)
        return self.norm(hidden)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def laid_out(backbone, device="cpu"):
    """Three groups of two texts in two rows each, and the input of the first layer."""
    rows = backbone.tokenise(TEXTS, 20)
    layout = pack(torch.tensor([len(row) for row in rows]).reshape(3, 2), capacity=1).to(device)
    assert layout.rows == 6
    hidden, calls = backbone.calls(layout.positions, layout.mask(backbone.causal), ids=layout.fill(rows))
    return layout, hidden.detach(), calls


def of_rows(calls, rows, of):
    """The calls for some of ``of`` rows."""

    def cut(value):
        if isinstance(value, tuple):
            return tuple(cut(v) for v in value)
        return value[rows] if isinstance(value, torch.Tensor) and len(value) == of else value

    return [type(c)(cut(c.args), {name: cut(v) for name, v in c.kwargs.items()}) for c in calls]


def close(found, wanted, tolerance):
    found, wanted = found.detach(), wanted.detach()
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance * max(1.0, float(wanted.abs().max())))


@pytest.mark.parametrize("name", [*TINY, "gemma3"])
def test_conversion_changes_nothing(name, folder_of):
    backbone = load_backbone(folder_of(name))
    layout, hidden, calls = laid_out(backbone)
    model = Layers(backbone)
    names = {n: p.shape for n, p in model.named_parameters()}
    before, converted = model(hidden, calls), deepcopy(model)
    convert(converted)
    after = {n: p.shape for n, p in converted.named_parameters()}
    assert names.keys() == after.keys() and all(sorted(names[n]) == sorted(after[n]) for n in names)
    assert not any(isinstance(m, nn.Linear | nn.LayerNorm) for m in converted.modules())
    close(converted(hidden, calls), before, 1e-6)
    assert len(list(linear_layers(converted))) == sum(
        len(shape) == 2 for n, shape in names.items() if "relative" not in n
    )
    convert(converted)  # again: nothing is left to convert
    close(converted(hidden, calls), before, 1e-6)


def trained(model, what):
    """What each method trains, as three groups have it: the pretrained parameters, moved apart."""
    chosen = {"full": lambda n: True, "bias": lambda n: n.endswith("bias"), "lora": lambda n: "lora_" in n}[what]
    params = {n: p for n, p in model.named_parameters() if chosen(n) and "relative" not in n}
    return {n: p.detach() + 0.1 * drawn(3, *p.shape, seed=i).to(p) for i, (n, p) in enumerate(params.items())}


@pytest.mark.parametrize("what", ["full", "bias", "lora"])
@pytest.mark.parametrize("name", [*TINY, "gemma3"])
def test_groups_with_their_own_parameters_in_one_pass_are_the_groups_one_by_one(name, what, folder_of, device):
    backbone = load_backbone(folder_of(name)).to(device)
    (backbone.whole or backbone.trunk).double()
    layout, hidden, calls = laid_out(backbone, device)
    model = Layers(backbone)
    convert(model)
    if what == "lora":
        for _, layer in linear_layers(model):
            layer.add_lora(rank=2, alpha=4)
    groups = trained(model, what)
    if not groups:
        assert what == "bias" and name in ("tiny_llama", "tiny_t5", "gemma3")
        return
    side = drawn(*hidden.shape, seed=99).to(hidden)

    stacked = {n: p.clone().requires_grad_() for n, p in groups.items()}
    together = functional_call(model, fit_to_rows(model, stacked), (hidden, calls))
    found = torch.autograd.grad((together * side).sum(), list(stacked.values()))
    for group in range(3):
        rows = slice(2 * group, 2 * group + 2)
        own = {n: p[group].clone().requires_grad_() for n, p in groups.items()}
        alone = functional_call(model, own, (hidden[rows], of_rows(calls, rows, 6)))
        close(together[rows], alone, 1e-6)
        wanted = torch.autograd.grad((alone * side[rows]).sum(), list(own.values()))
        for ours, theirs in zip(found, wanted, strict=True):
            close(ours[group], theirs, 1e-6)
    assert not torch.allclose(together[:2], model(hidden, calls)[:2], atol=1e-3)


@pytest.mark.parametrize("name", ["tiny_bert", "tiny_llama"])
def test_groups_may_share_some_parameters_and_have_others_of_their_own(name, folder_of):
    backbone = load_backbone(folder_of(name))
    _, hidden, calls = laid_out(backbone)
    model = Layers(backbone)
    convert(model)
    groups = trained(model, "full")
    mixed = {n: p if i % 2 else p[0] for i, (n, p) in enumerate(groups.items())}
    together = functional_call(model, fit_to_rows(model, mixed), (hidden, calls))
    for group in range(3):
        rows = slice(2 * group, 2 * group + 2)
        own = {n: p[group] if i % 2 else p[0] for i, (n, p) in enumerate(groups.items())}
        close(together[rows], functional_call(model, own, (hidden[rows], of_rows(calls, rows, 6))), 1e-5)


@pytest.mark.parametrize("targets", ["query-and-value", "all-linear"])
@pytest.mark.parametrize("name", TINY)
def test_low_rank_additions_are_pefts(name, targets, folder_of):
    peft = pytest.importorskip("peft")
    backbone = load_backbone(folder_of(name))
    theirs = deepcopy(backbone.trunk)
    theirs.set_attn_implementation("eager")
    wanted_layers = QUERY_AND_VALUE[name] if targets == "query-and-value" else targets
    theirs = peft.get_peft_model(
        theirs, peft.LoraConfig(r=3, lora_alpha=6, target_modules=wanted_layers, init_lora_weights=False)
    )
    theirs = theirs.double().eval()
    convert(backbone.trunk.double())
    pairs = []
    for path, layer in linear_layers(backbone.trunk):
        part = theirs.base_model.model.get_submodule(path)
        if not hasattr(part, "lora_A"):
            assert targets == "query-and-value"
            continue
        pair = part.lora_A["default"].weight, part.lora_B["default"].weight
        layer.add_lora(rank=3, alpha=6)
        for ours, other in zip((layer.lora_a, layer.lora_b), pair, strict=True):
            assert ours.shape == other.shape and not ours.any()
            ours.copy_(other.detach())
            pairs.append((ours.requires_grad_(), other))
    assert len(pairs) == 2 * len([m for m in theirs.modules() if hasattr(m, "lora_A")]) > 0

    rows = backbone.tokenise(TEXTS, 20)
    layout = pack(torch.tensor([[len(row) for row in rows]]), capacity=20)
    states = backbone.encode(layout, layout.fill(rows))
    for i, row in enumerate(rows):
        found = states[layout.row[0, i], layout.start[0, i] :][: len(row)]
        wanted = theirs(input_ids=torch.tensor([row])).last_hidden_state[0]
        close(found, wanted, 1e-5)
        side = drawn(*wanted.shape, seed=i).double()
        for output in (found, wanted):
            (output * side).sum().backward(retain_graph=True)
    for ours, other in pairs:
        assert ours.grad.any()
        close(ours.grad, other.grad, 1e-5)


def test_a_low_rank_addition_is_nothing_at_first_and_scaled_by_alpha_over_rank():
    layer = EpisodeLinear(nn.Parameter(drawn(5, 4)), None)
    x = drawn(2, 3, 4, seed=1)
    before = layer(x)
    layer.add_lora(rank=2, alpha=8)
    assert torch.equal(layer(x), before)
    a, b = drawn(2, 4, seed=2), drawn(5, 2, seed=3)
    found = functional_call(layer, {"lora_a": a, "lora_b": b}, (x,))
    close(found, before + 4 * x @ a.T @ b.T, 1e-6)


@pytest.mark.parametrize("shape", [(6, 3, 4), (18, 4), (6, 3, 2, 4)])
def test_rows_of_any_shape_belong_to_their_groups(shape):
    x = drawn(*shape)
    linear = EpisodeLinear(nn.Parameter(drawn(5, 4, seed=1)), nn.Parameter(drawn(5, seed=2)))
    norm = EpisodeLayerNorm(nn.LayerNorm(4))
    weights, biases, scales = drawn(3, 5, 4, seed=3), drawn(3, 5, seed=4), drawn(3, 4, seed=5)
    found = functional_call(linear, {"weight": weights, "bias": biases}, (x,))
    normed = functional_call(norm, {"weight": scales}, (x,))
    for group, rows in enumerate(torch.arange(len(x)).split(len(x) // 3)):
        close(found[rows], x[rows] @ weights[group].T + biases[group], 1e-6)
        close(normed[rows], nn.functional.layer_norm(x[rows], (4,), scales[group]), 1e-6)


def test_under_autocast_a_frozen_weight_is_converted_once_and_a_trained_one_is_not_mistaken_for_it():
    torch.manual_seed(0)
    plain, x = nn.Linear(8, 5).requires_grad_(False), torch.randn(2, 3, 8)
    layer = EpisodeLinear(plain.weight, plain.bias)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), plain(x)) and layer(x).dtype == torch.bfloat16
        kept = layer._weight(x)
        assert kept.dtype == torch.bfloat16 and layer._weight(x) is kept
        other = {"weight": plain.weight * 2}
        assert torch.equal(functional_call(layer, other, (x,)), functional_call(plain, other, (x,)))
        layer.weight.requires_grad_(True)
        assert layer._weight(x) is layer.weight
    layer.weight.requires_grad_(False)
    assert torch.equal(layer(x), plain(x)) and layer(x).dtype == torch.float32
