"""The only way to the terminal: text that came out of a file must not command it.

Titles, names, reasons and the parts of files that errors quote may hold escape sequences, which move the cursor, rename
the window or hide text. Everything that fewrec prints goes through here, and each such character is shown as U+FFFD.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def plain(text: Any) -> str:
    """Return ``text`` with U+FFFD in place of every character that isn't printable, line ends and tabs apart.

    These are control characters, marks that reverse the direction of text, and lone surrogates; unusual spaces become
    ordinary ones.
    """
    text = str(text)
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character.isprintable() or character in "\n\t":
        return character
    return " " if unicodedata.category(character) == "Zs" else "\ufffd"


def echo(text: Any = "", *, err: bool = False, nl: bool = True, head: str = "", colour: str | None = None) -> None:
    """Print ``text`` on standard output, or with ``err`` on standard error, behind ``head``, which has a colour."""
    import click

    click.echo((click.style(plain(head), fg=colour) if head else "") + plain(text), err=err, nl=nl)


def rich_console(**options: Any) -> Console:
    """Return a rich console, made with ``options``, that prints no control character but its own."""
    return _console_class()(**options)


@functools.cache
def _console_class() -> type[Console]:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class SafeConsole(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                is_own = bool(segment.control) or segment.text.isprintable()
                yield segment if is_own else Segment(plain(segment.text), segment.style)

    return SafeConsole
