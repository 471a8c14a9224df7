"""The leaderboard as LaTeX that a paper can \\input: a booktabs table a task, with what the marks mean beneath it.

Apart from the page (markdown.py), because a printed table has room for fewer columns and needs other escapes.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import pandas as pd

from fewrec.report.leaderboard import TRIVIAL, is_best, is_tie, tasks
from fewrec.report.measure import AUC, measure_of
from fewrec.report.naming import grouped_signs
from fewrec.report.numbers import fixed, one_line, short
from fewrec.report.optional import CALIBRATION
from fewrec.report.results import Results

_ASCII = {
    "\\": "\\textbackslash{}", "{": "\\{", "}": "\\}", "&": "\\&", "%": "\\%", "$": "\\$", "#": "\\#", "_": "\\_",
    "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "<": "\\textless{}", ">": "\\textgreater{}",
    "|": "\\textbar{}", "`": "\\char96{}", '"': "\\char34{}",
}  # fmt: skip
_SIGNS = {
    "–": "\\textendash{}", "—": "\\textemdash{}", "‘": "\\textquoteleft{}", "’": "\\textquoteright{}",
    "“": "\\textquotedblleft{}", "”": "\\textquotedblright{}", "…": "\\dots{}", "−": "$-$", "×": "$\\times$",
    "≈": "$\\approx$", "≤": "$\\leq$", "≥": "$\\geq$", "±": "$\\pm$", "·": "\\textperiodcentered{}", "ß": "\\ss{}",
    "ø": "\\o{}", "Ø": "\\O{}", "æ": "\\ae{}", "Æ": "\\AE{}", "œ": "\\oe{}", "Œ": "\\OE{}", "ł": "\\l{}", "Ł": "\\L{}",
}  # fmt: skip
_ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".",
    "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c",
}  # fmt: skip
_GREEK = "alpha beta gamma delta epsilon zeta eta theta iota kappa mu nu xi pi rho sigma tau upsilon phi chi psi omega"


def latex(results: Results, frame: pd.DataFrame) -> str:
    """Return leaderboard.tex for ``frame``, the leaderboard of ``results``: it needs the package booktabs alone."""
    made_by = _comment(results.manifest.get("command"))
    lines = [
        f"% {_comment(results.suite)}: tables made by fewrec from the cells of `{made_by}`",
        "% In the preamble: \\usepackage{booktabs}. A table takes the width of a page, 17 cm, across two columns.",
    ]
    labels: set[str] = set()
    for task, rows in tasks(frame):
        lines += ["", *_table(task, rows, frame.attrs.get("interval", "percentile"), labels)]
    return "\n".join(lines) + "\n"


def latex_text(value: Any) -> str:
    """Return ``value`` as LaTeX that prints it literally, in one line, with any engine and without packages.

    Latin letters with accents and Greek small letters are written as commands; another character that plain LaTeX can't
    be trusted to have is named by its code point, ``[U+4E2D]``.
    """
    text = "".join(_character(character) for character in one_line(value))
    return re.sub(r"([-',])(?=\1)", r"\1{}", text)  # two hyphens would become a dash, two commas a quotation mark


def _character(character: str) -> str:
    if character in _ASCII or character in _SIGNS:
        return _ASCII.get(character) or _SIGNS[character]
    if character.isascii():
        return character
    decomposed = unicodedata.normalize("NFD", character)
    if len(decomposed) == 2 and decomposed[0].isascii() and decomposed[1] in _ACCENTS:
        return f"\\{_ACCENTS[decomposed[1]]}{{{decomposed[0]}}}"
    name = unicodedata.name(character, "").lower().removeprefix("greek small letter ").replace("lamda", "lambda")
    if name in (*_GREEK.split(), "lambda"):
        return f"$\\{name}$"
    return f"[U+{ord(character):04X}]"


def _table(task: tuple, rows: pd.DataFrame, kind: str, labels: set[str]) -> list[str]:
    dataset, protocol, _, n_users, k_shot, n_query = task
    title = latex_text(f"{dataset}, {protocol}: N = {n_users}, K = {k_shot}, Q = {n_query}")
    scored, others = rows[rows["status"] == "ok"], rows[rows["status"] != "ok"]
    lines = [
        "\\begin{table*}[tbp]",
        "\\centering",
        f"\\caption{{{title}.{_counts(scored)}}}",
        f"\\label{{{_label(task, labels)}}}",
        "\\scriptsize",
        "\\setlength{\\tabcolsep}{2pt}",
    ]
    if len(scored):
        columns = _columns(scored)
        lines += [f"\\begin{{tabular}}{{l{'r' * len(columns)}}}", "\\toprule"]
        lines += [" & ".join(["learner", *(head for head, _ in columns)]) + " \\\\", "\\midrule"]
        for row in scored.to_dict("records"):
            lines.append(" & ".join([_name(row), *(cell(row) for _, cell in columns)]) + " \\\\")
        lines += ["\\bottomrule", "\\end{tabular}"]
    lines += ["\\par\\smallskip", f"\\begin{{minipage}}{{\\linewidth}}\\raggedright {_note(scored, others, kind)}"]
    return [*lines, "\\end{minipage}", "\\end{table*}"]


def _columns(scored: pd.DataFrame) -> list[tuple[str, Any]]:
    """Return the head of each column that has a figure in it, and the function that gives a row's cell."""
    difference = "AUC $-$ item-popularity [95\\,\\%]"
    first: list[tuple[str, str, Any]] = [
        ("rmse", "RMSE [95\\,\\%]", lambda row: _best(row, _interval(row, "rmse", 4, 3))),
        ("diff_bias", "$-$ bias [95\\,\\%]", lambda row: _interval(row, "diff_bias", 4, 4, sign=True)),
        ("ndcg5", "nDCG@5", lambda row: fixed(row["ndcg5"], 4)),
        ("auc", "AUC", lambda row: fixed(row["auc"], 4)),
    ]
    if measure_of(scored) is AUC:
        first = [
            ("auc", "AUC [95\\,\\%]", lambda row: _best(row, _interval(row, "auc", 4, 3))),
            ("diff_popularity", difference, lambda row: _interval(row, "diff_popularity", 4, 4, sign=True)),
            ("ndcg5", "nDCG@5", lambda row: fixed(row["ndcg5"], 4)),
        ]
    columns = [
        *first,
        ("skill", "skill", lambda row: _number(fixed(row["skill"], 3, sign=True))),
        ("rank", "rank", lambda row: f"{fixed(row['rank'], 2)} {row['rank_group']}".strip()),
        ("meta_fit_s", "meta-fit s", lambda row: short(row["meta_fit_s"])),
        ("adapt_ms_p50", "adapt ms", lambda row: short(row["adapt_ms_p50"])),
        ("predict_ms", "predict ms", lambda row: short(row["predict_ms"])),
    ]
    if _calibrated(scored):  # in the room of the one cost that says least
        columns[-3:] = [
            ("nlpd", "NLPD", lambda row: _number(fixed(row["nlpd"], 4))),
            ("coverage90", "cover", lambda row: fixed(row["coverage90"], 3)),
            *columns[-3:-1],
        ]
    if not scored["tuning"].isin(["", "default"]).all():
        columns.append(("tuning", "tuning", lambda row: latex_text(row["tuning"])))
    return [(head, cell) for name, head, cell in columns if scored[name].notna().any()]


def _calibrated(scored: pd.DataFrame) -> bool:
    return CALIBRATION[0] in scored and bool(scored[CALIBRATION[0]].notna().any())


def _interval(row: dict[str, Any], name: str, decimals: int, of_ends: int, *, sign: bool = False) -> str:
    point = fixed(row[name], decimals, sign)
    ends = [fixed(row[f"{name}_{end}"], of_ends, sign) for end in ("low", "high")]
    return f"{_number(point)} [{_number(ends[0])}, {_number(ends[1])}]" if point and all(ends) else _number(point)


def _best(row: dict[str, Any], cell: str) -> str:
    if is_best(row):
        return f"\\textbf{{{cell}}}"
    return f"{cell}\\,$\\approx$" if is_tie(row) else f"{cell}\\phantom{{\\,$\\approx$}}"


def _number(text: str) -> str:
    return f"${text}$" if text.startswith(("-", "+")) else text


def _name(row: dict[str, Any]) -> str:
    learner, label = one_line(row["learner"]), one_line(row["label"])
    name = latex_text(label if label.startswith(learner) else f"{label} ({learner})")
    name = f"{{}}{name}" if name.startswith(("[", "*")) else name  # else an option of the \\ before it
    name = f"\\textit{{{name}}}" if row["learner"] in TRIVIAL else name
    return f"\\textbf{{{name}}}" if is_best(row) else name


def _counts(scored: pd.DataFrame) -> str:
    parts = []
    for name in ("seeds", "episodes", "users"):
        counts = sorted(set(scored[name].dropna()))
        said = " or ".join(f"{count:,}" for count in counts)
        parts.append(f"{said} {name[:-1] if counts == [1] else name}")
    return f" {', '.join(parts)}." if len(scored) else ""


def _note(scored: pd.DataFrame, others: pd.DataFrame, kind: str) -> str:
    name = "BCa" if kind == "bca" else kind
    parts = []
    measure = measure_of(scored)
    if scored[measure.column].notna().any():
        best = f"{'lowest' if measure.lower_is_better else 'highest'} {measure.name}"
        parts.append(
            f"Bold: the {best}. $\\approx$: not told apart from it (paired bootstrap test over users, "
            "Holm-corrected $p \\geq .05$)."
        )
    if scored["learner"].isin(TRIVIAL).any():
        parts.append("Italics: trivial baselines.")
    if len(scored):
        parts.append(f"Intervals: 95\\,\\% {name} bootstrap over users.")
    if scored["diff_bias"].notna().any():
        parts.append("$-$ bias: paired difference in RMSE to \\textit{bias}, below zero is better.")
    if measure is AUC and scored["diff_popularity"].notna().any():
        parts.append("AUC $-$ item-popularity: paired difference in AUC to it, above zero is better.")
    if scored["rank"].notna().any():
        parts.append("Rank: mean over users; rows that share a letter are not told apart by the Nemenyi test at .05. ")
    if _calibrated(scored):
        parts.append(
            "NLPD: negative log predictive density, below is better. Cover: share of ratings in the central 90\\,\\% "
            "intervals of the predictive distributions."
        )
    for said, labels in grouped_signs(scored):
        parts.append(f"{latex_text(said[:1].upper() + said[1:])}: {latex_text(labels)}.")
    for (status, reason), of_reason in others.groupby(["status", "reason"], sort=False):
        parts.append(f"{latex_text(', '.join(of_reason['label']))}: {latex_text(f'{status}: {reason}')}.")
    return " ".join(part.strip() for part in parts)


def _label(task: tuple, taken: set[str]) -> str:
    """Return a \\label of ASCII letters, digits and hyphens that no other table of the file has."""
    dataset, protocol, _, n_users, k_shot, n_query = task
    plain = re.sub(r"[^a-z0-9]+", "-", f"{dataset} {protocol} n{n_users} k{k_shot} q{n_query}".lower()).strip("-")
    label, number = f"tab:{plain}", 1
    while label in taken:
        number += 1
        label = f"tab:{plain}-{number}"
    taken.add(label)
    return label


def _comment(value: Any) -> str:
    return "".join(c for c in one_line("" if value is None else value) if c.isascii())
