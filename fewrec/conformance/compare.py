"""Comparing predictions, and printing the support and the pairs on which they disagree."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fewrec.conformance.check import Broken
from fewrec.episodes.support import Support

_SHOWN = 12


def equal(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors have the same values, NaN being one of them."""
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())


def must_agree(
    support: Support,
    pairs: tuple[Tensor, Tensor],
    found: Tensor,
    wanted: Tensor,
    *,
    names: tuple[str, str],
    tolerance: float,
    seen: str,
    cause: str,
) -> None:
    """Raise ``Broken`` where two predictions (n,) for the same (users, items) differ by more than ``tolerance``.

    Two NaN agree: that they are none is another check's matter. ``names`` head the two columns of the example.
    """
    difference = (found - wanted).abs()
    difference[torch.isnan(found) & torch.isnan(wanted)] = 0.0
    difference[(found == wanted)] = 0.0  # two infinities
    difference[torch.isnan(difference)] = float("inf")
    wrong = difference > tolerance
    if not wrong.any():
        return
    worst = difference.argsort(descending=True, stable=True)[: min(3, int(wrong.sum()))]
    allowed = "the same bytes are promised" if tolerance == 0 else f"{tolerance:g} is allowed for rounding"
    raise Broken(
        f"{seen}: {int(wrong.sum())} of {len(found)} predictions differ, by up to {float(difference.max()):.4g} "
        f"({allowed}).",
        cause,
        example(support, pairs, {names[0]: found, names[1]: wanted}, worst),
    )


def example(
    support: Support | None, pairs: tuple[Tensor, Tensor], columns: dict[str, Tensor], which: Tensor | Sequence[int]
) -> str:
    """Return a support and, for the chosen pairs, the numbers of each column, as text."""
    picked = torch.as_tensor(which, dtype=torch.int64)
    asked = table(
        ["user", "item", *columns],
        [
            [int(pairs[0][i]), int(pairs[1][i]), *(f"{float(column[i]):.7g}" for column in columns.values())]
            for i in picked.tolist()
        ],
    )
    return (f"{of_support(support)}\n" if support is not None else "") + f"query:\n{asked}"


def of_support(support: Support) -> str:
    """Return a support as text: its size, its seed and its rows (the first of them where there are many)."""
    n = len(support.item)
    known = support.meta_user[support.meta_user >= 0].tolist()
    head = f"support: {plural(support.n_users, 'user')}, {plural(n, 'rating')}, seed {support.seed}"
    if known:
        head += f", known in meta-train as {known}"
    if not n:
        return head
    lines = zip(support.user.tolist(), support.item.tolist(), support.rating.tolist(), strict=True)
    listed = [[user, item, f"{rating:g}"] for user, item, rating in lines]
    more = f"\n  ... and {n - _SHOWN} more" if n > _SHOWN else ""
    return f"{head}\n{table(['user', 'item', 'rating'], listed[:_SHOWN])}{more}"


def plural(n: int, word: str) -> str:
    return f"{n} {word}" + ("" if n == 1 else "s")


def table(head: list[str], body: list[list]) -> str:
    """Return columns aligned to the right, indented."""
    lines = [head, *([str(cell) for cell in row] for row in body)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    aligned = ([cell.rjust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "\n".join("  " + "  ".join(line) for line in aligned)
