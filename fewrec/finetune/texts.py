"""What the encoder reads: one line for each (user, item) pair, and each distinct line tokenised once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewrec.data.table import Dataset, RatingTable
from fewrec.errors import DataError
from fewrec.finetune.pairs import Pairs
from fewrec.report.numbers import one_line

_AT_ONCE = 1 << 14  # texts a call of the tokenizer: its Python lists are many times as large as what is kept


@dataclass(frozen=True, eq=False)
class ItemTexts:
    """One text an item code; ``source`` says where they are from, ``without`` how many items have their id alone."""

    texts: list[str]
    source: str
    without: int
    warnings: tuple[str, ...] = ()


def texts_of(dataset: Dataset) -> dict[str, str]:
    """Return a data set's item texts by id; raise ``DataError`` where it has none."""
    if dataset.catalog.text is None:
        raise DataError(f"--dataset {dataset.name}: it has no item texts; leave it out, or give --items FILE")
    ids = dataset.catalog.item_ids.tolist()
    return {str(item): text for item, text in zip(ids, dataset.catalog.texts(), strict=True)}


def item_texts(pairs: Pairs, known: Mapping[str, str] | None, source: str) -> ItemTexts:
    """Return each item's text, ``item <id>`` where ``known`` (by id) has none.

    Raises:
        DataError: if ``known`` has not one of the rated items, which means that its ids are others.
    """
    found = [one_line((known or {}).get(item, "")) for item in pairs.item_ids]
    missing = [item for item, text in zip(pairs.item_ids, found, strict=True) if not text]
    texts = [text or one_line(f"item {item}") for item, text in zip(pairs.item_ids, found, strict=True)]
    if known is None:
        warning = (
            f"no item texts: the encoder reads '{input_text(pairs.user_ids[0], texts[0])}', and so knows nothing of an "
            "item but what train says; give --items FILE or --dataset NAME"
        )
        return ItemTexts(texts, "ids", len(texts), (warning,))
    if len(missing) == len(texts):
        raise DataError(
            f"{source}: not one of the rated items has a text there (ids such as {one_line(missing[0])}, "
            f"there {one_line(next(iter(known), 'none'))})"
        )
    warnings: tuple[str, ...] = ()
    if missing:
        shown = ", ".join(one_line(item) for item in missing[:5]) + (", ..." if len(missing) > 5 else "")
        warnings = (
            f"{source}: {len(missing):,} of {len(texts):,} rated items have no text there and are read as "
            f"'item <id>': {shown}",
        )
    return ItemTexts(texts, source, len(missing), warnings)


def input_text(user: str, item: str) -> str:
    """Return the line that the encoder reads for a user's id and an item's text."""
    return one_line(f"user {user}: {item}")


@dataclass(frozen=True, eq=False)
class Inputs:
    """The distinct lines, and which of them each rating of train (n,) and of test (m,) is, int64."""

    lines: list[str]
    train: Tensor
    test: Tensor


def inputs(pairs: Pairs, items: ItemTexts) -> Inputs:
    """Return the lines of all ratings; equal ones are one."""
    number: dict[str, int] = {}

    def of(table: RatingTable) -> Tensor:
        lines = (input_text(pairs.user_ids[u], items.texts[i])
                 for u, i in zip(table.user.tolist(), table.item.tolist(), strict=True))  # fmt: skip
        return torch.tensor([number.setdefault(line, len(number)) for line in lines])

    train, test = of(pairs.train), of(pairs.test)
    return Inputs(list(number), train, test)


@dataclass(frozen=True, eq=False)
class Tokens:
    """Token ids of many lines, on the CPU: those of line *i* are ``ids[offsets[i]:offsets[i + 1]]``; int32, int64."""

    ids: Tensor
    offsets: Tensor
    pad: int

    @property
    def lengths(self) -> Tensor:
        return self.offsets.diff()

    def padded(self, lines: Tensor, multiple: int = 1) -> tuple[Tensor, Tensor]:
        """Return the ids of (b,) lines padded to (b, T), int64, and their lengths (b,); ``multiple`` divides T."""
        start, length = self.offsets[lines], self.offsets[lines + 1] - self.offsets[lines]
        longest = -(-int(length.max()) // multiple) * multiple
        step = torch.arange(longest)
        inside = step < length.unsqueeze(1)
        rows = torch.where(inside, start.unsqueeze(1) + step, 0)
        return torch.where(inside, self.ids[rows].long(), self.pad), length


def tokenise(tokenizer: Any, lines: Sequence[str], max_length: int) -> Tokens:
    """Return the tokens of each line, at most ``max_length`` of them, special tokens included."""
    ids, lengths = [], []
    for begin in range(0, len(lines), _AT_ONCE):
        rows = tokenizer(
            list(lines[begin : begin + _AT_ONCE]), truncation=True, max_length=max_length,
            return_attention_mask=False, return_token_type_ids=False,
        )["input_ids"]  # fmt: skip
        lengths += [len(row) for row in rows]
        ids.append(np.fromiter((token for row in rows for token in row), np.int32, sum(lengths[-len(rows) :])))
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), torch.tensor(lengths).cumsum(0)])
    pad = tokenizer.pad_token_id
    return Tokens(torch.from_numpy(np.concatenate(ids)), offsets, 0 if pad is None else int(pad))
