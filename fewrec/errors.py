"""The errors for what the user can mend, apart because all layers raise them; the command line prints one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FewrecError(Exception):
    """A problem with the input, the options or the surroundings; its text names the place and the fix."""


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
