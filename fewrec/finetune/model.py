"""The model: a pretrained encoder with a sequence-classification head of one output, as transformers builds it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from fewrec.data.pretrained import hide_broken_torchvision, quiet_transformers
from fewrec.data.weights import Weights
from fewrec.errors import DataError, SuiteError, reason_of
from fewrec.finetune.options import FinetuneOptions

FAMILIES = ("bert", "roberta", "xlm-roberta", "camembert")
"""Model types whose attention takes a mask of shape (b, 1, T, T): one that the host need not look at."""


def check_backbone(weights: Weights, options: FinetuneOptions) -> None:
    """Refuse, from ``config.json`` and the heads of the files, damaged weights, other models and too long texts."""
    try:
        config = json.loads((weights.folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise DataError(
            f"--backbone {options.backbone}: config.json can't be read ({reason_of(error)}); get it again"
        ) from None
    if not isinstance(config, dict):
        raise DataError(f"--backbone {options.backbone}: config.json is not the configuration of a model; get it again")
    if config.get("model_type") not in FAMILIES:
        raise DataError(
            f"--backbone {options.backbone}: a '{config.get('model_type')}' model; give an encoder of "
            f"{', '.join(FAMILIES)}"
        )
    for file in sorted(weights.folder.glob("*.safetensors")):
        try:
            with safe_open(file, "pt"):
                pass
        except (OSError, SafetensorError):
            raise DataError(f"--backbone {options.backbone}: {file.name} is damaged or cut off; get it again") from None
    limit, pad = config.get("max_position_embeddings", 512), config.get("pad_token_id", 1)
    if not (isinstance(limit, int) and isinstance(pad, int)):
        raise DataError(f"--backbone {options.backbone}: config.json has no number of positions, or none for padding")
    if config["model_type"] != "bert":  # positions begin behind the padding token's id
        limit -= pad + 1
    if options.max_length > limit:
        raise SuiteError(f"--max-length {options.max_length}: {options.backbone} reads at most {limit} tokens")


def load_regressor(weights: Weights, options: FinetuneOptions, generator: torch.Generator) -> tuple[Any, Any]:
    """Return (model, tokenizer): ``AutoModelForSequenceClassification`` with one output, float32, on the CPU.

    What the weights lack, the head (and the pooler of an encoder without one), is drawn by ``generator`` from
    N(0, ``initializer_range``), biases zero. No code of the weights' folder is run.

    Raises:
        DataError: if transformers can't load the folder, or the encoder itself lacks weights.
    """
    hide_broken_torchvision()
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    safe = {"local_files_only": True, "trust_remote_code": False}
    p = options.dropout
    dropout = {"hidden_dropout_prob": p, "attention_probs_dropout_prob": p, "classifier_dropout": p}
    try:
        # The new head, of which transformers warns, is what was asked for; it is drawn from the global generator there.
        with quiet_transformers(), torch.random.fork_rng(devices=[]):
            config = AutoConfig.from_pretrained(
                weights.folder, num_labels=1, problem_type="regression", **dropout, **safe
            )
            tokenizer = AutoTokenizer.from_pretrained(weights.folder, **safe)
            model, report = AutoModelForSequenceClassification.from_pretrained(
                weights.folder,
                config=config,
                use_safetensors=True,
                dtype=torch.float32,
                attn_implementation="sdpa",
                output_loading_info=True,
                **safe,
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"--backbone {options.backbone}: transformers can't load it ({reason})") from None
    encoder = f"{model.base_model_prefix}."
    new = sorted(report["missing_keys"])
    lacking = [name for name in new if name.startswith(encoder) and ".pooler." not in name]
    if lacking:
        raise DataError(f"--backbone {options.backbone}: its weights lack {lacking[0]} ({len(lacking)} in all)")
    _draw(model, new, generator)
    return model, tokenizer


@torch.no_grad()
def _draw(model: nn.Module, names: list[str], generator: torch.Generator) -> None:
    spread = float(getattr(model.config, "initializer_range", 0.02))
    for name in names:
        parameter = model.get_parameter(name)
        if parameter.ndim > 1:
            parameter.normal_(0.0, spread, generator=generator)
        else:
            parameter.zero_()


def regression(model: Any, ids: Tensor, length: Tensor) -> Tensor:
    """Return the model's output (b,) for padded ids (b, T) and lengths (b,), float32.

    The mask is made on the device from the lengths: given one of shape (b, T), transformers would look at its values,
    and the host would wait for the device at every step.
    """
    step = torch.arange(ids.shape[1], device=ids.device)
    mask = (step < length.unsqueeze(1))[:, None, None, :].expand(-1, 1, ids.shape[1], -1)
    return model(input_ids=ids, attention_mask=mask).logits.squeeze(1).float()


@torch.no_grad()
def fold_scale(model: Any, mean: float, spread: float) -> None:
    """Change the last layer so that the output is ``mean + spread * output``: the rating itself."""
    last = [module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features == 1][-1]
    last.weight.mul_(spread)
    last.bias.mul_(spread).add_(mean)


def save_regressor(model: Any, tokenizer: Any, mean: float, spread: float, folder: Path) -> None:
    """Write a trained model, which then outputs scores (``fold_scale``), as a folder that transformers loads."""
    fold_scale(model, mean, spread)
    model.config._name_or_path = ""  # the folder that the backbone came from concerns this machine alone
    with quiet_transformers():
        model.cpu().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
