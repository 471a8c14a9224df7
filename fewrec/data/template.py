"""The template of a data set's item texts: checked where a card or an option gives it, before a text is made of it."""

from __future__ import annotations

import string

from fewrec.data.table import TEXT_COLUMNS, Catalog
from fewrec.errors import nearest

DEFAULT_TEMPLATE = Catalog.template


def check_template(template: str) -> str:
    """Return ``template`` if an item's text can be made of it, e.g. ``"{title} ({year}). {genres}. {description}"``.

    It is one line of words separated by spaces. A word with a placeholder is left out for items that lack it, its
    punctuation with it; a word without one stays.

    Raises:
        ValueError: for a placeholder that is no text column, for one with a format, and where there is none.
    """
    if not template.strip():
        raise ValueError("it is empty; give one such as '{title}. {genres}.'")
    if len(template.splitlines()) != 1:
        raise ValueError("a template is one line of text")
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError:
        raise ValueError(f"'{template}' is not a template: a brace lacks its partner") from None
    names = [name for _, name, _, _ in parts if name is not None]
    for name in names:
        if name not in TEXT_COLUMNS:
            raise ValueError(f"'{{{name}}}' is no placeholder{nearest(name, TEXT_COLUMNS)}")
    if any(spec or conversion for _, _, spec, conversion in parts) or "{{" in template or "}}" in template:
        raise ValueError(f"'{template}': braces hold the bare name of a column, and stand nowhere else")
    if not names:
        raise ValueError(f"'{template}' has no placeholder; give one of {{{'}, {'.join(TEXT_COLUMNS)}}}")
    return template
