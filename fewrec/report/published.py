"""The rows of a published table that a suite quotes; apart because the terminal and the page show the same ones."""

from __future__ import annotations

import re

from fewrec.report.results import Results


def published_rows(results: Results) -> tuple[list[str], list[tuple[str, list[str], str]]]:
    """Return the names of the figures, and (label, figures as text, source) of each row that the suite quotes.

    A figure that a row lacks is "". Rows keep the order of the suite, names that of their first appearance; those
    that differ in their numbers alone are in the order of these.
    """
    suite = results.manifest.get("suite")
    quoted = (suite.get("published") if isinstance(suite, dict) else None) or []
    names = list(dict.fromkeys(name for row in quoted for name in row["figures"]))
    kinds = list(dict.fromkeys(re.sub(r"\d+", "#", name) for name in names))
    names.sort(key=lambda name: (kinds.index(re.sub(r"\d+", "#", name)), _numbers(name)))
    return names, [
        (row["label"], [f"{row['figures'][n]:g}" if n in row["figures"] else "" for n in names], row["source"])
        for row in quoted
    ]


def _numbers(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d{1,18}", name)]
