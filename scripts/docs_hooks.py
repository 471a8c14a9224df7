"""What the documentation's build adds to its pages: the reference of every learner, from the registry and the code."""

from __future__ import annotations

from typing import Any

from fewrec.learners.registry import BUILTIN, learner_class

MARK = "<!-- learner reference -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for each page's source, before Markdown is rendered."""
    return markdown.replace(MARK, "\n\n".join(_section(name) for name in BUILTIN))


def _section(name: str) -> str:
    info, cls = BUILTIN[name], learner_class(name)
    facts = [
        ("Source", info.paper),
        ("Needs", ", ".join(f"`{need}`" for need in sorted(cls.needs))),
        ("Each prediction depends on", "that user's support alone" if cls.task == "user" else "the whole episode"),
        ("On another machine", "equal to 1e-5" if cls.closed_form else "equal to about 2e-3 of RMSE"),
    ]
    lines = [f"## {name}", "", f"{info.summary[:1].upper()}{info.summary[1:]}.", ""]
    lines += [f"- {title}: {text}" for title, text in facts if text]
    place = f"{cls.__module__}.{cls.__name__}"
    config = cls.Config
    if config.model_fields:
        lines += ["", "| option | default |", "| --- | --- |"]
        lines += [f"| `{option}` | `{field.get_default()!r}` |" for option, field in config.model_fields.items()]
        lines += ["", _autodoc(f"{config.__module__}.{config.__name__}")]
    return "\n".join([*lines, "", _autodoc(place), ""])


def _autodoc(place: str) -> str:
    """Return the directive that puts the docstring of ``place`` here, without its members."""
    options = ("show_root_heading: false", "show_root_toc_entry: false", "members: false", "show_signature: false")
    return "\n".join([f"::: {place}", "    options:", *(f"      {option}" for option in options)])
