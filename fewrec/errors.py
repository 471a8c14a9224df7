"""The errors for what the user can mend, apart because all layers raise them; the command line prints one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LONGEST = 2_000  # characters of a line; what it quotes from a file may be a file's whole content


class FewrecError(Exception):
    """A problem with the input, the options or the surroundings; its text names the place and the fix.

    ``lines`` are what is printed, the second and later ones indented. What they quote may be any text from a file: line
    breaks in it become spaces, other characters that a terminal would obey are written as escapes.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__(*map(printable, lines))

    def __str__(self) -> str:
        return "\n  ".join(self.args)


def printable(text: str) -> str:
    """Return text in one line of at most ``_LONGEST`` characters that a terminal only shows."""
    text = str(text)
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " if c in "\n\r\t" else ascii(c)[1:-1] for c in text)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 500]} ... {text[-500:]}"


class DataError(FewrecError):
    """A file of ratings, items or weights can't be used as it is."""


class SuiteError(FewrecError):
    """A suite, an option or a learner's configuration asks for something impossible."""


class FolderError(FewrecError):
    """A results folder can't be written, or belongs to another run, environment or data set."""


class NotApplicable(FewrecError):
    """A learner can't be run on a cell; the text is the reason that the table shows."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known name closest to ``name``, or the list of known names."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known: {', '.join(names)}" if names else ""
