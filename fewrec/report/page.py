"""report.html: one page that needs no network, made of a leaderboard and its rendered plots; all text is escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from fewrec.report.files import write_whole
from fewrec.report.leaderboard import TASK, tasks
from fewrec.report.measure import measure_of
from fewrec.report.numbers import one_line
from fewrec.report.page_table import headlines, shown_columns, table_groups, task_findings
from fewrec.report.plots import Rendered, all_plots, render, require_matplotlib
from fewrec.report.plots.figure import task_scope
from fewrec.report.results import Results, shot_rank

_TEMPLATES = Path(__file__).parent / "templates"
SECTIONS = (  # id, title, kinds of plots, what to look for
    ("shots", "Accuracy against K", ("shots", "shots-difference"), "What each further support rating is worth."),
    ("online", "Online", ("online",), "What each rating that arrives is worth."),
    ("speed", "Accuracy against time", ("speed-episode", "speed-meta-fit"), "What accuracy costs."),
    ("skill", "Skill at a glance", ("heat-map",), "Where a learner helps, and where it doesn't."),
    ("ranks", "Which rows are told apart", ("ranks",), "Mean ranks over users, and the critical difference."),
    ("meta-training", "Meta-training", ("meta-training",), "Whether meta-training still improves, and how steadily."),
    ("costs", "Costs", ("costs",), "Time and memory of each row."),
)
_SELECTORS = (("dataset", "Data set"), ("protocol", "State and conditions"), ("n", "N"), ("k", "K"), ("q", "Q"))


def write_page(
    results: Results, frame: pd.DataFrame, folder: Path, drawn: Callable[[int, int], None] = lambda count, total: None
) -> tuple[Path, list[Path]]:
    """Write report.html and plots/*.svg, *.png into ``folder``; return the page's path and the SVG files'.

    ``frame`` is the leaderboard of ``results``; ``drawn`` is told how many of all plots are drawn. Raises
    ``PlotsMissing`` without matplotlib, ``FolderError`` where ``folder`` can't be written.
    """
    require_matplotlib()
    plots = all_plots(results, frame)
    rendered = render(plots, lambda count: drawn(count, len(plots)))
    for one in rendered:
        write_whole(folder / "plots" / f"{one.name}.svg", f"{one.svg}\n".encode())
        write_whole(folder / "plots" / f"{one.name}.png", one.png)
    write_whole(folder / "report.html", page(results, frame, rendered).encode())
    return folder / "report.html", [folder / "plots" / f"{one.name}.svg" for one in rendered]


def page(results: Results, frame: pd.DataFrame, rendered: list[Rendered]) -> str:
    """Return report.html: a function of the results, their leaderboard and its plots alone.

    Without JavaScript all tasks and all plots are shown; with it, one task at first, and the table sorts and filters.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    style, script = ((_TEMPLATES / name).read_text(encoding="utf-8").strip() for name in ("page.css", "page.js"))
    columns, findings = shown_columns(frame), task_findings(frame)
    suite = results.manifest.get("suite")
    title = suite.get("title") if isinstance(suite, dict) else ""
    return environment.get_template("page.html.j2").render(
        suite=one_line(results.suite),
        title=one_line(title or ""),
        facts=_facts(results, frame),
        unfinished=len(results.unfinished),
        headlines=headlines(frame, findings),
        findings=findings,
        selectors=_selectors(frame),
        columns=columns,
        sorted_by=_sorted_by(frame),
        has_tuning=bool((frame.get("tuning", pd.Series(dtype=object)).fillna("") != "").any()),
        groups=table_groups(results, frame, columns),
        sections=[section for section in _sections(rendered, Markup) if section["figures"]],
        data=_data(results),
        environment=_environment(results),
        splits=_splits(results),
        interval={"bca": "BCa"}.get(frame.attrs.get("interval", ""), frame.attrs.get("interval", "percentile")),
        policy=_policy(style, script),
        style=Markup(style),
        script=Markup(script),
    )


def _policy(style: str, script: str) -> str:
    """Return a Content-Security-Policy that lets nothing run, style or load but the page's own style and script."""

    def of(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; style-src {of(style)}; script-src {of(script)}; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )


def _facts(results: Results, frame: pd.DataFrame) -> list[tuple[str, str]]:
    """Return what the suite is, in a few pairs of name and value."""

    def of(name: str) -> str:
        values = list(dict.fromkeys(frame[name].dropna()))
        if name == "k_shot":
            values.sort(key=shot_rank)
        return ", ".join(one_line(value) for value in values)

    cells = results.cells
    seeds = ", ".join(map(str, sorted(set(cells["seed"]))))
    episodes = " or ".join(f"{count:,}" for count in sorted(set(cells["episodes"])))
    tasks_count = frame.groupby(TASK, dropna=False).ngroups if len(frame) else 0
    facts = [
        ("Data", of("dataset")),
        ("States", "; ".join(one_line(value) for value in dict.fromkeys(frame["protocol"].dropna()))),
        ("N users", of("n_users")),
        ("K support ratings", of("k_shot")),
        ("Q query ratings", of("n_query")),
        ("Seeds", seeds),
        ("Episodes a seed", episodes),
        ("Tasks", f"{tasks_count}"),
        ("Rows", f"{frame['label'].nunique()}"),
        ("Cells", f"{len(cells):,}"),
        ("Command", one_line(results.manifest.get("command") or "")),
    ]
    return [(name, value) for name, value in facts if value]


def _selectors(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return what tells tasks apart, with the values of one task chosen: of the first state, its middle K."""
    every = [task for task, _ in tasks(frame)]
    if not every:
        return []
    head = [task for task in every if task[:3] == every[0][:3]]
    chosen = task_scope(head[len(head) // 2])
    out = []
    for name, title in _SELECTORS:
        values = list(dict.fromkeys(task_scope(task)[name] for task in every))
        if len(values) > 1:
            if name in ("n", "k", "q"):
                values.sort(key=lambda value: shot_rank(int(value) if value.isdigit() else value))
            out.append({"name": name, "title": title, "values": values, "chosen": chosen[name]})
    return out


def _sorted_by(frame: pd.DataFrame) -> str | None:
    """Return the column that all tasks are sorted by, or None where they are not sorted by one."""
    used = {measure_of(rows).column for _, rows in tasks(frame)}
    return used.pop() if len(used) == 1 else None


def _sections(rendered: list[Rendered], markup: Any) -> list[dict[str, Any]]:
    return [
        {"id": name, "title": title, "intro": intro,
         "figures": [{"name": one.name.replace(".", "-"), "plot": one.plot, "svg": markup(one.svg)}
                     for one in rendered if one.plot.kind in kinds]}
        for name, title, kinds, intro in SECTIONS
    ]  # fmt: skip


def _data(results: Results) -> list[dict[str, Any]]:
    out = []
    for name, data in sorted((results.manifest.get("datasets") or {}).items()):
        named = (("rating table, SHA-256", "sha256"), ("item text, SHA-256", "text_sha256"), ("scale", "scale"),
                 ("licence", "licence"), ("citation", "citation"), ("home page", "homepage"))  # fmt: skip
        facts = []
        for title, key in named:
            value = data.get(key)
            if isinstance(value, dict):
                value = [value.get("low"), value.get("high")]
            if isinstance(value, list):
                value = " to ".join(f"{end:g}" if isinstance(end, int | float) else str(end) for end in value)
            if value:
                facts.append((title, one_line(value), key.endswith("sha256")))
        for source, digest in sorted((data.get("sources") or {}).items()):
            facts.append((one_line(source), one_line(digest), True))
        out.append({"name": one_line(name), "facts": facts})
    return out


def _environment(results: Results) -> list[tuple[str, str]]:
    environment = dict(results.manifest.get("environment") or {})
    versions = environment.pop("versions", None) or {}
    facts = [(one_line(name), one_line(value)) for name, value in sorted(environment.items()) if value is not None]
    facts += [(one_line(name), one_line(value)) for name, value in sorted(versions.items())]
    return [*facts, ("code hashes", f"{results.cells['code_hash'].dropna().nunique()}")]


def _splits(results: Results) -> list[tuple[str, str]]:
    splits = results.manifest.get("splits")
    if isinstance(splits, dict) and splits:
        return [(one_line(name), one_line(value)) for name, value in sorted(splits.items())]
    known = results.cells.dropna(subset=["split_hash"]).drop_duplicates(["dataset", "protocol", "seed", "split_hash"])
    return [
        (one_line(f"{cell['dataset']}, {cell['protocol']}, seed {cell['seed']}"), one_line(cell["split_hash"]))
        for cell in known.sort_values(["dataset", "protocol", "seed", "split_hash"]).to_dict("records")
    ]
