"""The errors for what the user can mend, apart because all layers raise them; the command line prints one line."""

from __future__ import annotations

import difflib
import gzip
import json
import tomllib
from collections.abc import Iterable
from typing import Any

_MOST = 60  # characters of a value, and
_MOST_NAMES = 12  # names that a message shows

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
    more = f" ... ({len(names)} in all)" if len(names) > _MOST_NAMES + 3 else ""
    return f"; known: {', '.join(names[:_MOST_NAMES] if more else names)}{more}" if names else ""


def shown(value: Any) -> str:
    """Return a value as a person would write it: text in quotes, short, and without what a terminal would obey."""
    if isinstance(value, str):
        text = "".join(c if c.isprintable() else " " for c in value)
        return f"'{text}'" if len(text) <= _MOST else f"'{text[:_MOST]}...'"
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return f"something of the type {type(value).__name__}"
    text = {"NaN": "nan", "Infinity": "inf", "-Infinity": "-inf", "null": "nothing"}.get(text, text)
    return (text if len(text) <= _MOST else f"{text[:_MOST]}...").removesuffix(".0")


def reason_of(error: BaseException) -> str:
    """Return in a few words of the user's why a file can't be read or written, from what Python or a library raised."""
    if isinstance(error, json.JSONDecodeError):
        return f"the mistake is in line {error.lineno}, column {error.colno}"
    if isinstance(error, tomllib.TOMLDecodeError):
        return str(error).replace("Cannot overwrite a value", "A key stands twice")
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8; save it as UTF-8"
    if isinstance(error, gzip.BadGzipFile):
        return "it is no gzip file, whatever its name ends in"
    if isinstance(error, EOFError):
        return "it is cut off; get it again"
    if isinstance(error, FileExistsError | NotADirectoryError):
        return "a file stands where a folder should be"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
