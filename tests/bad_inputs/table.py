"""The table of bad inputs as a page; ``pytest tests/bad_inputs --write`` writes results/reference/bad_inputs.md."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from tests.bad_inputs.case import Case

TABLE = Path(__file__).resolve().parents[2] / "results" / "reference" / "bad_inputs.md"
CATEGORIES = (
    ("The command line", "command_line"),
    ("Files of ratings", "own_data"),
    ("Tables of items and users, templates", "items_and_users"),
    ("Cards, `fewrec data`, the cache", "cards"),
    ("Suites and conditions", "suites"),
    ("Learners, their options, plugins", "plugins"),
    ("Running, tuning, tracking", "running"),
    ("Frozen episodes and predictions", "frozen"),
    ("Results folders", "results"),
    ("Recommending and asking, saved learners", "recommending"),
    ("Model weights and fine-tuning", "weights"),
    ("From Python", "python"),
)
_HEAD = """\
# Bad inputs, and what fewrec says

{n} mistakes and the one line that each gets, with exit code 2 unless it says otherwise, before anything is written or
any long work begins. tests/bad_inputs runs them all. "…" stands for what depends on the machine, on a library's version
or on a hash. Commands stand without `fewrec`, messages without `error: ` in front; in a file `⏎` ends a line. What a
case doesn't say is as it should be: own.toml is a suite, mine.csv has ratings, items.csv titles, taste.csv ratings of one
user, out and reference are results, frozen is an export of episodes, model a saved learner, encoder a language model.

Each message was read against one rule: it says where the mistake is (the file, with its line, row or key; or the option,
or the value as it was given), what is wrong there, and what to do about it, unless what is wrong says that already.
"""


def text() -> str:
    """Return the whole page."""
    parts, n = [], 0
    for title, module in CATEGORIES:
        cases = import_module(f"tests.bad_inputs.{module}").CASES
        n += len(cases)
        parts += [f"## {title}", "", "| input | message |", "| --- | --- |", *map(_row, cases), ""]
    return "\n".join([_HEAD.format(n=n), *parts]).rstrip("\n") + "\n"


def _row(case: Case) -> str:
    given = [_code(case.given)]
    given += [f"{name}={value}" for name, value in case.env.items()]
    given += [f"without {case.lacks}"] if case.lacks else []
    given += [
        f"{name}: {_code(content)}" for name, content in case.files.items()
        if isinstance(content, str) and 0 < len(content) <= 160
    ]  # fmt: skip
    code = "" if case.code == 2 else f" (exit code {case.code})"
    return f"| {_cell(case.did)}: {'; '.join(given)} | {_cell(case.message)}{code} |"


def _code(content: str) -> str:
    shown = "".join(chr(0x2400 + ord(c)) if c < " " and c not in "\n\t" else c for c in content)
    shown = shown.replace("|", "\\|").rstrip("\n").replace("\n", "⏎").replace("\t", "⇥").replace("`", "'")
    return f"`` {shown} ``"


def _cell(said: str) -> str:
    return said.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_").replace("\n", " ⏎ ")
