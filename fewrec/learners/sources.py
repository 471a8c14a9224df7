"""Reading what a class says of itself from its source, apart from the registry because nothing is imported here."""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Described:
    """The first line of a class's docstring, its ``needs`` and ``paper``; ``problem`` where it isn't there at all."""

    summary: str = ""
    needs: frozenset[str] = frozenset()
    paper: str = ""
    problem: str | None = None


def describe_class(module: str, name: str) -> Described:
    """Return what the source of ``module:name`` says, without importing it or any of its packages.

    Empty where the source is not a file of Python text, or the class isn't defined in it but imported there.
    """
    try:
        top = importlib.util.find_spec(module.partition(".")[0])  # finding a package imports it only with submodules
    except (ImportError, ValueError):
        top = None
    if top is None:
        return Described(problem=f"there is no module '{module.partition('.')[0]}'")
    path = _file_of(module, top.origin, list(top.submodule_search_locations or ()))
    if path is None:
        return Described()
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        return Described(problem=f"SyntaxError in line {error.lineno} of {path.name}: {error.msg}")
    except (RecursionError, MemoryError):  # which is what Python's parser calls too many brackets
        return Described(problem=f"{path.name} can't be parsed: it is nested too deeply")
    except (OSError, ValueError):
        return Described()
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _of_node(node)
    return Described()


def _file_of(module: str, origin: str | None, folders: list[str]) -> Path | None:
    inner = module.split(".")[1:]
    if not inner:
        return Path(origin) if origin and origin.endswith(".py") else None
    for folder in folders:
        base = Path(folder, *inner)
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                return path
    return None


def _of_node(node: ast.ClassDef) -> Described:
    values = {}
    for statement in node.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            values[statement.targets[0].id] = statement.value
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
            values[statement.target.id] = statement.value
    needs, paper = _literal(values.get("needs")), _literal(values.get("paper"))
    return Described(
        summary=(ast.get_docstring(node) or "").split("\n")[0],
        needs=frozenset(str(need) for need in needs) if isinstance(needs, set | list | tuple) else frozenset(),
        paper=paper if isinstance(paper, str) else "",
    )


def _literal(node: ast.expr | None) -> object:
    """Return the value of a literal, or of ``frozenset(literal)``."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "frozenset":
        node = node.args[0] if node.args else None
    try:
        return ast.literal_eval(node) if node is not None else None
    except (ValueError, TypeError):  # no literal, or a set of lists
        return None
