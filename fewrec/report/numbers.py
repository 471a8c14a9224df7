"""How numbers and texts are written in tables, so that equal results give equal bytes and no text breaks a table."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pandas as pd

_METRICS = ("rmse", "mae", "ndcg", "top", "auc", "skill", "diff_", "p_b", "p_pop", "nlpd", "coverage")
_DECIMALS = 6  # of metrics: rounding errors of a sum lie ten digits below, so other orders of adding give equal bytes
_DIGITS = 6  # of costs
# What a spreadsheet evaluates: a cell that begins so, also behind what it strips, also in the wide signs of East Asia.
_FORMULA = re.compile(r"'*[\t\r\n]|[\s\x00-\x1f']*[=+\-@\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


def rounded(name: str, value: Any) -> Any:
    """Return a table's value as a Python value with fixed precision: None for what is absent, no negative zero."""
    if value is None or value is pd.NA or (isinstance(value, float | np.floating) and not math.isfinite(value)):
        return None
    if isinstance(value, float | np.floating):
        number = round(float(value), _DECIMALS) if name.startswith(_METRICS) else float(f"{value:.{_DIGITS}g}")
        return number + 0.0
    if isinstance(value, int | np.integer):
        return int(value)
    return one_line(value)


def csv_field(name: str, value: Any) -> str:
    """Return a table's value as the text of a CSV field, quoted where needed.

    A text that a spreadsheet would take for a formula gets an apostrophe in front, see ``guarded``.
    """
    value = rounded(name, value)
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.{_DECIMALS}f}" if name.startswith(_METRICS) else np.format_float_positional(value, trim="-")
    if isinstance(value, int):
        return str(value)
    text = guarded(value)
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"') else text


def guarded(text: str) -> str:
    """Return a text for a CSV file: with an apostrophe in front where a spreadsheet would take it for a formula.

    Numbers stay numbers (``-5``). ``unguarded`` is the inverse for every text: one that has an apostrophe before the
    sign of a formula gets another one.
    """
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def unguarded(text: str) -> str:
    """Return the text of which ``guarded`` made ``text``."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def one_line(value: Any) -> str:
    """Return ``value`` as text without line breaks, tabs or other control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())


def markdown_text(value: Any) -> str:
    """Return ``value`` as Markdown that shows it literally, in one line, inside a table or out of it."""
    text = one_line(value)
    for mark in "\\|*`[]":
        text = text.replace(mark, f"\\{mark}")
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def fixed(value: Any, decimals: int, sign: bool = False) -> str:
    """Return a number with so many decimals ("" where absent), never ``-0.000``."""
    if value is None or value is pd.NA or not math.isfinite(value):
        return ""
    number = round(float(value), decimals) + 0.0
    return f"{number:+.{decimals}f}" if sign and number else f"{number:.{decimals}f}"


def short(value: Any) -> str:
    """Return a cost with about three significant digits ("" where absent)."""
    if value is None or value is pd.NA or not math.isfinite(value):
        return ""
    value = float(value)
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"


def p_text(p: float) -> str:
    """Return a p-value as text: ``p = 0.032``, ``p < 0.001``."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def interval(point: Any, low: Any, high: Any, *, sign: bool = False) -> str:
    """Return ``point [low, high]`` with four decimals; the ends of what isn't a difference with three."""
    text = fixed(point, 4, sign)
    ends = [fixed(end, 4 if sign else 3, sign) for end in (low, high)]
    return f"{text} [{ends[0]}, {ends[1]}]" if text and all(ends) else text
