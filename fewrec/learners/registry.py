"""The registry of learners: resolves a name to a class, finds plugins, and imports nothing before it is used.

A name is, in this order: ``module:Class``, a built-in learner, one of a plugin file given on the command line, one of
the entry-point group ``fewrec.learners``. A name that two installed plugins claim is refused when it is used; a
built-in one keeps its name; a file whose learner's name is taken is refused at once.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from fewrec.errors import SuiteError, nearest, printable
from fewrec.learners.index import BUILTIN, LearnerInfo
from fewrec.learners.sources import describe_class

if TYPE_CHECKING:
    from fewrec.learners.base import Learner

__all__ = ["BUILTIN", "GROUP", "LearnerInfo", "add_plugin_file", "known_learners", "learner_class", "listed_learners"]

GROUP = "fewrec.learners"

_files: dict[str, LearnerInfo] = {}


def known_learners() -> dict[str, LearnerInfo]:
    """Return every learner by name: built-in, by plugin file, by entry point. Imports none of them.

    A plugin that can't be used is among them, with its problem; one whose name is a built-in learner's is left out.
    """
    return {info.name: info for info in reversed(listed_learners())}


def listed_learners() -> list[LearnerInfo]:
    """Return what ``fewrec list learners`` shows: the known learners and, with the reason, those that were refused.

    Where several have one name, the first is the one that the name stands for.
    """
    listed = [*BUILTIN.values(), *_files.values()]
    taken = {info.name: info for info in listed}
    claims: dict[str, dict[str, LearnerInfo]] = defaultdict(dict)
    for point in entry_points(group=GROUP):
        info = _of_entry_point(point)
        claims[info.name].setdefault(info.target, info)
    for name, rivals in claims.items():
        listed += _judged(name, list(rivals.values()), taken.get(name))
    return listed


def _judged(name: str, rivals: list[LearnerInfo], owner: LearnerInfo | None) -> list[LearnerInfo]:
    """Return the entry points of one name, with a problem where they can't have it."""
    if owner is not None:
        whose = "a built-in learner" if owner.origin == "built-in" else f"the learner of {owner.origin}"
        problem = f"its name is that of {whose}, which keeps it; use it as"
        return [replace(info, problem=f"{problem} {info.target}") for info in rivals]
    if len(rivals) > 1:
        claimed = " and ".join(f"{info.target} ({info.origin})" for info in rivals)
        problem = f"its name is claimed by {claimed}; uninstall one of them, or name the class as module:Class"
        return [replace(info, problem=problem) for info in rivals]
    return rivals


def _of_entry_point(point: EntryPoint) -> LearnerInfo:
    origin = f"entry point of {point.dist.name if point.dist else point.value}"
    target = f"{point.module}:{point.attr}"
    if not point.attr:
        return LearnerInfo(point.name, point.value, "", origin=origin, problem="its entry point is not module:Class")
    found = describe_class(point.module, point.attr)
    return LearnerInfo(point.name, target, found.summary, found.needs, found.paper, origin, found.problem)


def add_plugin_file(path: str | Path) -> list[LearnerInfo]:
    """Import a plugin file, make its learners known by their ``name``, and return them.

    A broken file is listed under the file's name, with its reason. Adding a file again replaces what it brought.
    Raises ``SuiteError`` for a missing file, and for a learner whose name another one has.
    """
    path = Path(path)
    if not path.is_file():
        raise SuiteError(f"--plugin {path}: {'this is a folder, not a file' if path.is_dir() else 'no such file'}")
    if path.suffix != ".py":
        raise SuiteError(f"--plugin {path}: not a Python file (its name must end in .py)")
    origin = f"plugin {path}"
    module_name = f"fewrec_plugin_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    for name in [name for name, info in _files.items() if info.target.split(":")[0] == module_name]:
        del _files[name]
    classes, problem = _import_file(path, module_name)
    if problem is None and not classes:
        problem = "it defines no Learner: a class that inherits fewrec.learners.base.Learner and has a name"
    if problem is not None:
        found = [LearnerInfo(path.stem, module_name, "", origin=origin, problem=problem)]
    else:
        found = [_of_class(cls, f"{module_name}:{cls.__name__}", origin) for cls in classes]
    _refuse_taken_names(path, found)
    _files.update({info.name: info for info in found})
    return found


def _import_file(path: Path, module_name: str) -> tuple[list[type[Learner]], str | None]:
    """Return the named learners that a file defines, and why it can't be imported."""
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin may fail in any way; the rest of the suite must still run
        sys.modules.pop(module_name, None)
        return [], import_failure(error, path)
    from fewrec.learners.base import Learner

    own = (c for c in vars(module).values() if isinstance(c, type) and c.__module__ == module_name)
    learners = [c for c in own if issubclass(c, Learner)]
    named = [c for c in learners if isinstance(vars(c).get("name"), str)]
    if learners and not named:
        return [], f'its learner {learners[-1].__name__} has no name: add name = "..." to the class'
    return named, None


def import_failure(error: BaseException, path: Path) -> str:
    """Return in one line what an import failed of, and at which line of the file."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).absolute() == path.absolute()]
    line = error.lineno if isinstance(error, SyntaxError) else (lines[-1] if lines else None)
    if isinstance(error, SystemExit):
        return f"it ends the program{f' in line {line}' if line else ''}, where it should only define a learner"
    message = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())
    return printable(f"{type(error).__name__}{f' in line {line}' if line else ''}: {message}")


def _refuse_taken_names(path: Path, found: list[LearnerInfo]) -> None:
    names = [info.name for info in found]
    known: Mapping[str, LearnerInfo] = known_learners()
    for info in found:
        if names.count(info.name) > 1:
            raise SuiteError(f"--plugin {path}: two of its learners are called '{info.name}'; rename one of them")
        other = known.get(info.name)
        if other is not None:
            whose = f"{other.target} ({other.origin})" if other.origin != "built-in" else "a built-in learner"
            raise SuiteError(
                f"--plugin {path}: learner name '{info.name}' is claimed twice: by this file and by {whose}; "
                f"rename yours" + ("" if other.origin == "built-in" else ", or do without the other one")
            )


def _of_class(cls: type[Learner], target: str, origin: str) -> LearnerInfo:
    summary = printable(str(cls.__doc__ or "").strip().split("\n")[0])
    needs = frozenset(map(str, cls.needs)) if isinstance(cls.needs, set | frozenset | list | tuple) else frozenset()
    return LearnerInfo(cls.name, target, summary, needs, str(cls.paper), origin)


def learner_class(name: str) -> type[Learner]:
    """Return the class of a learner given by name or as ``module:Class``.

    Raises ``SuiteError`` for an unknown or ambiguous name, and for a class that can't be imported.
    """
    if ":" in name:
        return _load(name, name)
    known = known_learners()
    if name not in known:
        raise SuiteError(f"unknown learner '{name}'{nearest(name, known)}")
    info = known[name]
    if info.problem:
        raise SuiteError(f"learner '{name}' ({info.origin}) can't be used: {info.problem}")
    cls = _load(name, info.target)
    if getattr(cls, "name", None) != name:
        raise SuiteError(
            f"learner '{name}' ({info.origin}): {info.target} calls itself '{getattr(cls, 'name', '')}'; "
            "the entry point and the class must agree"
        )
    return cls


def _load(name: str, target: str) -> type[Learner]:
    from fewrec.learners.base import Learner

    module_name, _, class_name = target.partition(":")
    try:
        cls = getattr(importlib.import_module(module_name), class_name)
    except (Exception, SystemExit) as error:  # a plugin may fail in any way
        if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
            raise SuiteError(f"learner '{name}': there is no module '{error.name}'; give module:Class") from None
        if isinstance(error, AttributeError) and module_name in sys.modules:
            raise SuiteError(f"learner '{name}': the module {module_name} has no class '{class_name}'") from None
        raise SuiteError(
            f"learner '{name}' can't be imported from {target}: {type(error).__name__}: {' '.join(str(error).split())}"
        ) from error
    if not (isinstance(cls, type) and issubclass(cls, Learner)):
        raise SuiteError(f"learner '{name}': {target} is not a subclass of fewrec.learners.base.Learner")
    if inspect.isabstract(cls):
        lacking = ", ".join(sorted(cls.__abstractmethods__))
        raise SuiteError(f"learner '{name}': its class {cls.__name__} lacks the method {lacking}; write it")
    return cls
