"""The rows of a published table that a suite quotes; apart because the terminal and the page show the same ones."""

from __future__ import annotations

import re

from fewrec.report.results import Results


def published_rows(results: Results) -> tuple[list[str], list[tuple[str, list[str], str]]]:
    """Return the names of the figures, and (label, figures as text, source) of each row that the suite quotes.

    A figure that a row lacks is "". Rows keep the order of the suite; names are sorted, numbers in them by size.
    """
    suite = results.manifest.get("suite")
    quoted = (suite.get("published") if isinstance(suite, dict) else None) or []
    names = sorted({name for row in quoted for name in row["figures"]}, key=_by_numbers)
    return names, [
        (row["label"], [f"{row['figures'][n]:g}" if n in row["figures"] else "" for n in names], row["source"])
        for row in quoted
    ]


def _by_numbers(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]
