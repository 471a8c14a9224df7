"""What ``fewrec new-learner`` writes: each template is a module of its own, so that it is linted and run."""

from __future__ import annotations

import re
from pathlib import Path

from fewrec.errors import SuiteError
from fewrec.learners.registry import listed_learners

KINDS = {
    "simple": "adapt alone, for methods that look at the support only",
    "meta-fit": "learns from meta-train, has options and a state that is stored",
    "batched": "like meta-fit, but written for many episodes at once",
}

_TAKEN = ("Learner", "Predictor", "BatchedLearner", "BatchPredictor", "LearnerConfig", "Field", "True", "False", "None")


def name_from(path: str | Path) -> str:
    """Return the learner's name that a file's name suggests: ``my_method.py`` is ``my-method``."""
    return re.sub(r"[^a-z0-9]+", "-", Path(path).stem.lower()).strip("-")


def class_name(name: str) -> str:
    """Return the class name for a learner's name: ``my-method`` is ``MyMethod``."""
    parts = "".join(part.capitalize() for part in re.split(r"[^a-z0-9]+", name))
    return parts if parts.isidentifier() and parts not in _TAKEN else f"Method{parts}"


def filled_template(kind: str, name: str, file: str) -> str:
    """Return the source of a learner called ``name``, to be written to ``file``.

    Raises ``SuiteError`` for a name that can't be one, or that another learner has.
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise SuiteError(f"--name '{name}': use lower-case letters, digits and '-' between them, like genre-mean")
    other = next((info for info in listed_learners() if info.name == name), None)
    if other is not None:
        raise SuiteError(f"--name {name}: that is the name of a learner already ({other.origin}); choose another one")
    source = (Path(__file__).parent / f"{kind.replace('-', '_')}.py").read_text(encoding="utf-8")
    return source.replace("my_method.py", file).replace("MyMethod", class_name(name)).replace("my-method", name)
