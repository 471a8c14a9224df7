"""Many short texts in few rows: laid out one behind the other, each seeing itself alone, so that little is padded.

Padding every text to the longest wastes a third or more of the work on titles. Here rows hold several texts, with their
own positions and a mask between them (the packing of Krell et al., arXiv 2107.02027, 2021). Texts belong to groups (an
episode's, or a user's), each with the same number of rows, so that layers can have weights of a group's own.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the tokens of G groups of U texts are, in B = G R rows of T places.

    ``row``, ``start`` and ``length`` (G, U): a text's tokens are at ``start`` and after, without its prompt; of
    length 0 where a group has fewer texts. ``segment`` (B, T): the text's number within the row from 1, 0 for what all
    texts of the row see (a shared prompt or context at its beginning), -1 for padding. ``positions`` (B, T): what the
    model takes for a token's position. ``prompt`` (B, T): which prompt token is here, -1 for none. ``per_row``: how
    many texts the fullest row has, at least 1.
    """

    row: Tensor
    start: Tensor
    length: Tensor
    segment: Tensor
    positions: Tensor
    prompt: Tensor
    groups: int
    per_row: int

    @property
    def rows(self) -> int:
        return len(self.segment)

    @property
    def width(self) -> int:
        return self.segment.shape[1]

    @property
    def waste(self) -> float:
        """The share of places that hold nothing."""
        return float((self.segment < 0).double().mean())

    def to(self, device: torch.device) -> Layout:
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in _TENSORS})

    def mask(self, causal: bool) -> Tensor:
        """Return (B, 1, T, T) bool: which tokens (last axis) a token sees. Padding sees padding."""
        query, key = self.segment.unsqueeze(2), self.segment.unsqueeze(1)
        seen = (query == key) | ((key == 0) & (query > 0))
        if causal:
            place = torch.arange(self.width, device=query.device)
            seen = seen & (place <= place.unsqueeze(1))
        return seen.unsqueeze(1)

    def index(self, offsets: Tensor) -> Tensor:
        """Return (B, T): for each place the number of its token, -1 for none; a text's begin at ``offsets`` (G, U).

        A shared context's tokens are not known here, and are -1 too.
        """
        out = torch.full_like(self.segment, -1).cpu()
        lengths, starts, rows = (v.cpu().reshape(-1) for v in (self.length, self.start, self.row))
        each = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
        step = torch.arange(len(each)) - torch.repeat_interleave(lengths.cumsum(0) - lengths, lengths)
        out[rows[each], starts[each] + step] = offsets.cpu().reshape(-1)[each] + step
        return out

    def fill(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Return the token ids (B, T) of G U texts, group after group; 0 where there is none."""
        flat = torch.tensor([0, *(i for text in texts for i in text)])
        counts = torch.tensor([len(text) for text in texts])
        where = self.index((counts.cumsum(0) - counts).reshape(self.length.shape))
        return flat[where + 1].to(self.segment.device)

    def means(self, kept: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return weights (B, S, T) that average each text's tokens, S to a row, and each text's place (G, U) in B S.

        ``kept`` (B, T) bool leaves tokens out of the average.
        """
        return self._pooling(lambda numbers: self._own(numbers, kept))

    def lasts(self) -> tuple[Tensor, Tensor]:
        """Return weights (B, S, T) that pick each text's last token, else like ``means``."""

        def last(numbers: Tensor) -> Tensor:
            own = self._own(numbers, None)
            return own & (own.int().cumsum(2) == own.sum(2, keepdim=True))

        return self._pooling(last)

    def _own(self, numbers: Tensor, kept: Tensor | None) -> Tensor:
        own = (self.segment.unsqueeze(1) == numbers.view(1, -1, 1)) & (self.prompt < 0).unsqueeze(1)
        return own if kept is None else own & kept.unsqueeze(1)

    def _pooling(self, choose) -> tuple[Tensor, Tensor]:
        per_row = self.per_row
        numbers = torch.arange(1, per_row + 1, device=self.segment.device)
        chosen = choose(numbers).float()
        weights = chosen / chosen.sum(2, keepdim=True).clamp_min(1)
        first = self.segment[self.row, self.start.clamp_max(self.width - 1)]
        return weights, torch.where(self.length > 0, self.row * per_row + first - 1, 0)


_TENSORS = ("row", "start", "length", "segment", "positions", "prompt")


def pack(lengths: Tensor, *, capacity: int = 128, own: int = 0, shared: int | Tensor = 0) -> Layout:
    """Lay out texts of ``lengths`` (G, U) tokens (0: no text) in rows of about ``capacity`` places.

    ``own``: prompt tokens before each text (of encoders). ``shared``: tokens at the beginning of every row, which all
    of its texts see and which count as ``prompt`` tokens (of decoders: as many for each group, or (G,), a context).
    Texts go, the longest first, to the row with the fewest tokens, and the rows are as long as the fullest.
    """
    lengths = lengths.cpu()
    size = np.where(lengths.numpy() > 0, lengths.numpy() + own, 0).astype(np.int64)
    before = np.broadcast_to(np.asarray(shared, np.int64), (len(size),))
    room = max(capacity, int(size.max(initial=1)) + int(before.max(initial=0)))
    inside = room - int(before.max(initial=0))
    n_rows = max(1, int(np.ceil(size.sum(1).max(initial=1) / max(inside, 1))))
    row, at, width = _place(size, before.tolist(), n_rows)
    row += np.arange(len(size))[:, None] * n_rows

    segment = np.full((len(size) * n_rows, width), -1, np.int64)
    positions, prompt = np.zeros_like(segment), np.full_like(segment, -1)
    first = np.repeat(before, n_rows)
    place = np.broadcast_to(np.arange(width), segment.shape)
    context = place < first[:, None]
    segment[context] = 0
    positions[context] = prompt[context] = place[context]

    there = np.flatnonzero(size)
    text = np.repeat(there, size.flat[there])
    step = np.arange(len(text)) - np.repeat(size.flat[there].cumsum() - size.flat[there], size.flat[there])
    where = row.flat[text], at.flat[text] + step
    segment[where] = _numbers(row, there).flat[text]
    positions[where] = np.where(step < own, 0, step - own + first[where[0]])
    prompt[where] = np.where(step < own, step, -1)
    tensors = [torch.from_numpy(np.ascontiguousarray(t)) for t in (row, at + own, segment, positions, prompt)]
    rows, starts, segments, places, prompts = tensors
    per_row = int(segment.max(initial=1))
    return Layout(rows, starts, lengths.contiguous(), segments, places, prompts, groups=len(size), per_row=per_row)


def _place(size: np.ndarray, before: list[int], n_rows: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Return each text's row of its group's and its place there, (G, U), and how many tokens the fullest row has."""
    row, at, width = [], [], 1
    longest_first = np.argsort(-size, axis=1, kind="stable").tolist()
    for sizes, order, first in zip(size.tolist(), longest_first, before, strict=True):
        heap = [(first, r) for r in range(n_rows)]  # the row with the fewest tokens is on top
        rows, places = [0] * len(sizes), [0] * len(sizes)
        for text in order:
            if sizes[text] == 0:
                break
            places[text], rows[text] = heap[0]
            heapq.heapreplace(heap, (places[text] + sizes[text], rows[text]))
        row.append(rows)
        at.append(places)
        width = max(width, max(heap)[0])
    return np.array(row, np.int64).reshape(size.shape), np.array(at, np.int64).reshape(size.shape), width


def _numbers(row: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Return the number (G, U) of each text that is ``there`` among those of its row, from 1 in their order."""
    numbers = np.zeros_like(row)
    by_row = there[np.argsort(row.flat[there], kind="stable")]
    rows = row.flat[by_row]
    numbers.flat[by_row] = np.arange(len(rows)) - np.searchsorted(rows, rows) + 1
    return numbers
