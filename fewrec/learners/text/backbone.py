"""Pretrained language models, taken apart: any encoder, decoder or encoder-decoder that transformers loads.

What a learner needs of one is the same for all: the input of the first layer for given tokens, the layers, one after
the other, and what follows the last. The model itself says how its layers are called: it is run once with probes in
their place (``Backbone.calls``), so that masks, rotary and relative positions are its own. That the parts give what the
whole gives is checked whenever a model is loaded.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fewrec.data.pretrained import hide_broken_torchvision, quiet_transformers
from fewrec.errors import DataError
from fewrec.learners.text import attention
from fewrec.learners.text.packing import Layout, pack

Kind = Literal["encoder", "decoder", "encoder-decoder"]
_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "final_norm", "layer_norm")
_CHECK = ("A quiet river.", "The second and longer of two texts, read beside the first.")


@dataclass(frozen=True)
class Call:
    """What a model gives one of its layers besides the hidden states."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(eq=False)
class Backbone:
    """A pretrained language model in evaluation mode, float32, its parameters frozen.

    ``trunk`` is the part that reads texts: of an encoder-decoder, its encoder. ``whole`` is the model with its
    language-model head, where it has one. ``causal``: whether a token sees the ones before it alone. ``sha256`` is that
    of the weights.
    """

    name: str
    kind: Kind
    trunk: Any
    whole: Any
    tokenizer: Any
    sha256: str
    causal: bool

    def __post_init__(self) -> None:
        n_layers = getattr(self.trunk.config, "num_hidden_layers", None)
        lists = [n for n, m in self.trunk.named_modules() if isinstance(m, nn.ModuleList) and len(m) == n_layers]
        if not lists:
            kind = self.trunk.config.model_type
            raise DataError(f"backbone {self.name}: a '{kind}' model has no list of layers that fewrec could work on")
        owner, _, self._list = min(lists, key=lambda n: n.count(".")).rpartition(".")
        self._owner = self.trunk.get_submodule(owner)
        self.layers: nn.ModuleList = getattr(self._owner, self._list)
        self.norm = next((getattr(self._owner, n) for n in _NORMS if hasattr(self._owner, n)), None)
        self._takes_positions = _takes_positions(self.trunk)
        self.width = int(self.trunk.config.hidden_size)

    @property
    def n_layers(self) -> int:
        return len(self.layers)

    @property
    def device(self) -> torch.device:
        return next(self.trunk.parameters()).device

    @property
    def first_position(self) -> int:
        """What position ids count from: RoBERTa's are behind the padding token's id."""
        words, length = self.trunk.get_input_embeddings(), getattr(self.trunk.config, "max_position_embeddings", None)
        for module in self.trunk.modules():
            if isinstance(module, nn.Embedding) and module is not words and module.num_embeddings == length:
                return 0 if module.padding_idx is None else int(module.padding_idx) + 1
        return 0

    def to(self, device: torch.device) -> Backbone:
        (self.trunk if self.whole is None else self.whole).to(device)
        return self

    def tokenise(self, texts: Sequence[str], max_length: int) -> list[list[int]]:
        """Return the token ids of each text, at most ``max_length``, with the special tokens that the model expects."""
        ids = self.tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"]
        return [row if row else [self._some_token()] for row in ids]  # a text without a token is a single special one

    def _some_token(self) -> int:
        for name in ("eos_token_id", "pad_token_id", "unk_token_id"):
            if getattr(self.tokenizer, name, None) is not None:
                return int(getattr(self.tokenizer, name))
        return 0

    def calls(
        self, positions: Tensor, mask: Tensor, *, ids: Tensor | None = None, vectors: Tensor | None = None
    ) -> tuple[Tensor, list[Call]]:
        """Return the first layer's input (B, T, d), and what the model gives each layer besides its hidden states.

        ``positions`` (B, T) count from 0; ``mask`` (B, 1, T, T) bool says which tokens (last axis) a token sees. Either
        ``ids`` (B, T) or word ``vectors`` (B, T, d); without both, the first layer's input is that of zeros.
        """
        if ids is None and vectors is None:
            dtype = next(self.trunk.parameters()).dtype
            width = self.trunk.get_input_embeddings().weight.shape[1]  # of ELECTRA narrower than the layers
            vectors = torch.zeros(*positions.shape, width, dtype=dtype, device=positions.device)
        given: dict[str, Any] = {"input_ids": ids} if vectors is None else {"inputs_embeds": vectors}
        if self._takes_positions:
            given["position_ids"] = positions + self.first_position
        if self.causal:
            given["use_cache"] = False
        probes = [_Probe(layer, self._outputs) for layer in self.layers]
        setattr(self._owner, self._list, nn.ModuleList(probes))
        try:
            with self._table_at(positions):
                self.trunk(attention_mask=mask, **given)
        finally:
            setattr(self._owner, self._list, self.layers)
        calls = [probe.call for probe in probes]
        bias = self._relative_bias(positions.shape[1])
        if bias is not None:  # of T5: computed by the first layer, handed on to all as the second argument
            calls = [Call((call.args[0], bias, *call.args[2:]), call.kwargs) for call in calls]
        assert probes[0].hidden is not None
        return probes[0].hidden, calls

    @contextlib.contextmanager
    def _table_at(self, positions: Tensor) -> Iterator[None]:
        """Have BART and its kin, whose encoders number a row's tokens themselves, look up these positions instead."""
        table = getattr(self._owner, "embed_positions", None)
        if self._takes_positions or table is None or not _takes_positions(table):
            yield
            return

        def look_up(_: nn.Module, args: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            return args, given | {"position_ids": positions}

        hooks = [
            table.register_forward_pre_hook(look_up, with_kwargs=True),
            table.register_forward_hook(lambda module, args, out: out.reshape(*positions.shape, -1)),
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @property
    def _outputs(self) -> int:
        return 3 if self.trunk.config.model_type in ("t5", "mt5") else 1

    def _relative_bias(self, length: int) -> Tensor | None:
        if self._outputs == 1:
            return None
        module: Any
        for module in self.layers[0].modules():
            if getattr(module, "has_relative_attention_bias", False):
                return module.compute_bias(length, length)
        return None

    def encode(self, layout: Layout, ids: Tensor, last: int | None = None) -> Tensor:
        """Return the input of layer ``last`` (default: the output of the whole trunk), (B, T, d), for ids (B, T)."""
        hidden, calls = self.calls(layout.positions, layout.mask(self.causal), ids=ids)
        stop = self.n_layers if last is None else last
        for layer, call in zip(self.layers[:stop], calls, strict=False):
            hidden = run_layer(layer, hidden, call)
        return self.norm(hidden) if last is None and self.norm is not None else hidden


def _takes_positions(module: nn.Module) -> bool:
    return "position_ids" in inspect.signature(module.forward).parameters


def run_layer(layer: nn.Module, hidden: Tensor, call: Call) -> Tensor:
    """Return a layer's output (B, T, d)."""
    out = layer(hidden, *call.args, **call.kwargs)
    return out[0] if isinstance(out, tuple) else out


class _Probe(nn.Module):
    """Stands in for a layer and keeps what it is called with."""

    def __init__(self, layer: nn.Module, outputs: int) -> None:
        super().__init__()
        self._of = [layer]  # in a list, so as not to become a submodule
        self._outputs = outputs
        self.hidden: Tensor | None = None
        self.call = Call((), {})

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self._of[0], name)

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        self.hidden, self.call = hidden, Call(args, kwargs)
        return hidden if self._outputs == 1 else (hidden, *(None,) * (self._outputs - 1))


def load_backbone(name: str) -> Backbone:
    """Load a language model by the name of its weights, a hub repository or a local folder; no code of its own is run.

    Raises ``DataError`` where there are no such weights, parts of them are missing, or the model can't be taken apart.
    """
    from fewrec.data.weights import find_weights

    weights = find_weights(name)
    hide_broken_torchvision()
    from transformers import AutoConfig, AutoTokenizer

    attention.register()
    given = {"local_files_only": True, "trust_remote_code": False}
    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(weights.folder, **given)
            kind, loader, extra = _loader(config)
            tokenizer = AutoTokenizer.from_pretrained(weights.folder, **given)
            model, report = loader.from_pretrained(
                weights.folder,
                use_safetensors=True,
                dtype=torch.float32,
                attn_implementation=attention.NAME,
                output_loading_info=True,
                **given,
                **extra,
            )
    except Exception as error:  # transformers raises a dozen kinds, and tokenizers no kind in particular
        if error.args == (attention.NAME,):
            raise _unfit(name, config.model_type, "its attention can't be replaced") from None
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"backbone {name}: transformers can't load it ({type(error).__name__}: {reason})") from None
    missing = sorted(report["missing_keys"])
    if missing:
        raise DataError(f"backbone {name}: its weights lack {missing[0]} ({len(missing)} in all)")
    model = model.eval().requires_grad_(False)
    trunk = model if kind == "encoder" else model.get_encoder() if kind == "encoder-decoder" else model.base_model
    whole = None if kind == "encoder" else model
    backbone = Backbone(name, kind, trunk, whole, tokenizer, weights.sha256, kind == "decoder")
    _check_parts(backbone)
    return backbone


_POOLED = ("bert", "roberta", "xlm-roberta", "camembert")


def _loader(config: Any) -> tuple[Kind, Any, dict[str, Any]]:
    """Return what kind of model a configuration is of, the class that loads it, and further options of that."""
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForTextEncoding
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    if any(name.endswith("EncoderModel") for name in config.architectures or ()):  # T5's, saved without the decoder
        return "encoder", AutoModelForTextEncoding, {}
    if getattr(config, "is_encoder_decoder", False):
        return "encoder-decoder", AutoModelForSeq2SeqLM, {}
    if config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys() - MODEL_FOR_MASKED_LM_MAPPING_NAMES.keys():
        return "decoder", AutoModelForCausalLM, {}
    return "encoder", AutoModel, {"add_pooling_layer": False} if config.model_type in _POOLED else {}


def _unfit(name: str, kind: str, reason: object) -> DataError:
    return DataError(f"backbone {name}: fewrec can't work on the layers of a '{kind}' model ({reason}); give another")


@torch.no_grad()
def _check_parts(backbone: Backbone) -> None:
    """Compare two texts in one row, through the parts, with each alone, through the whole; raise where they differ."""
    rows = backbone.tokenise(_CHECK, 32)
    layout = pack(torch.tensor([[len(row) for row in rows]]), capacity=64)
    try:
        with attention.recording() as seen:
            found = backbone.encode(layout, layout.fill(rows))
        if len(seen) < backbone.n_layers:
            raise ValueError("its attention can't be replaced")
        for i, row in enumerate(rows):
            whole = backbone.trunk(input_ids=torch.tensor([row])).last_hidden_state[0]
            part = found[0, layout.start[0, i] : layout.start[0, i] + len(row)]
            if not torch.allclose(part, whole, rtol=1e-3, atol=1e-3 * float(whole.abs().max())):
                raise ValueError("its layers, run one after the other, give something else than the model")
    except (ValueError, TypeError, RuntimeError, AttributeError, IndexError) as error:
        raise _unfit(backbone.name, backbone.trunk.config.model_type, error) from error
