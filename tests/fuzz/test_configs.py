"""Files that say what to do: cards, suites, tuned rows (TOML), plugins (Python)."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path

import pytest

from fewrec.data.cards import describe, list_cards, list_weights, load_card
from fewrec.data.own_cards import add_card
from fewrec.learners import registry
from fewrec.learners.registry import add_plugin_file, learner_class, listed_learners
from fewrec.learners.sources import describe_class
from fewrec.learners.templates import filled_template
from fewrec.paths import data_folder
from fewrec.runner.suite import load_suite
from fewrec.runner.tuned_rows import load_tuned
from tests.fuzz.harness import Target
from tests.fuzz.inputs import folders

TOML = tuple(text.encode() for text in (
    "1", "1.5", "inf", "-nan", '"x"', "'''a\nb'''", '"""x"""', "[]", "[1, 2]", '["x"]', "{}", "{ a = 1 }", "true",
    "1979-05-27", "0x7f",
    "[x]", "[[x]]", "[sources]", "[[learners]]", "x = 1", "a.b.c = 1", "\\u0000", "\\ud800", "[" * 1500,
    "{a=" * 1500, "1" * 5000,
    "user-cold", "rest", "9999999999999999999", "-1", "1e400", "10000000000",
))  # fmt: skip


def _sample(folder: Path, most: int) -> list[dict[str, bytes]]:
    """Return the smaller of the TOML files that come with fewrec: each change then hits more of what counts."""
    files = sorted(folder.rglob("*.toml"), key=lambda path: path.stat().st_size)[:most]
    return [{path.name: path.read_bytes()} for path in files]


@pytest.fixture(autouse=True)
def no_entry_points(monkeypatch):
    """Looking for installed plugins takes longer than reading a suite, once for each of its rows."""
    monkeypatch.setattr(registry, "entry_points", lambda group: ())


def test_a_card_of_a_data_set(fuzz, tmp_path, monkeypatch):
    monkeypatch.setenv("FEWREC_CARDS", str(tmp_path / "cards"))
    ratings = tmp_path / "mine.csv"
    ratings.write_text("user,item,rating\n1,10,5\n1,11,3\n2,10,4\n")
    own = add_card(ratings, name="mine").path
    seeds = [files for files in _sample(data_folder("datasets"), 30) if not (set(files) & {p.name for p in _weights()})]
    seeds = [*seeds[:6], {"mine.toml": own.read_bytes()}]

    def read(folder):
        (file,) = folder.iterdir()
        card = load_card(str(file))
        assert all(isinstance(value, str) for value in describe(card).values())

    fuzz(Target("card", "`fewrec.data.cards.load_card`", read), seeds, folders(seeds, TOML, lose=False))


def _weights() -> list[Path]:
    return sorted((data_folder("datasets") / "weights").glob("*.toml"))


def test_cards_of_weights_and_cards_in_the_users_folder(fuzz, tmp_path, monkeypatch):
    """A broken card of one's own takes no other card away."""
    monkeypatch.setattr("fewrec.data.cards.data_folder", lambda kind: tmp_path / "builtin")
    (tmp_path / "builtin").mkdir()
    shutil.copy(data_folder("datasets") / "ml-1m.toml", tmp_path / "builtin")
    seeds = [{f"weights/{path.name}": path.read_bytes()} for path in _weights()]
    seeds += [{"cards/x.toml": path.read_bytes()} for path in sorted(data_folder("datasets").glob("*.toml"))[:2]]

    def read(folder):
        shutil.rmtree(tmp_path / "builtin/weights", ignore_errors=True)
        if (folder / "weights").is_dir():
            shutil.copytree(folder / "weights", tmp_path / "builtin/weights")
        monkeypatch.setenv("FEWREC_CARDS", str(folder / "cards"))
        assert "ml-1m" in [card.name for card in list_cards()]
        for card in (*list_cards(), *list_weights()):
            describe(card)

    target = Target("cards-of-weights", "`fewrec.data.cards.list_weights`, `list_cards`", read)
    fuzz(target, seeds, folders(seeds, TOML, lose=False))


def test_a_suite(fuzz):
    names = ("smoke.toml", "check.toml", "l2l.toml", "tallrec-movie.toml", "recbole-metarec-ml-100k.toml")
    seeds = [
        {path.name: path.read_bytes()} for path in sorted(data_folder("suites").rglob("*.toml")) if path.name in names
    ]

    def read(folder):
        (file,) = folder.iterdir()
        name, suite = load_suite(str(file))
        cells = suite.cells()
        assert cells and len({cell.spec_hash for cell in cells[:50]}) == len(cells[:50])
        assert set(suite.tuning()) == {row.shown for row in suite.learners}

    target = Target(
        "suite", "`fewrec.runner.suite.load_suite`, `Suite.cells`", read, names=("learner '", "unknown learner")
    )
    words = [
        b"shots",
        b"seeds",
        b"[protocol]",
        b'order = ["random", "time"]',
        b"bias",
        b"melu",
        b"k_max",
        b"[" + b"1," * 3000 + b"]",
    ]
    fuzz(target, seeds, folders(seeds, (*TOML, *words), lose=False))


TUNED = b"""# written by fewrec tune
[[learners]]
learner = "knn"
label = "knn (tuned)"

[learners.config]
neighbour_ridge = 20.0

[learners.tuned]
budget = 4
trials = 4
method = "tpe"
seeds = [0]
dataset = "ml-100k"
suite = "quick"
states = ["user-cold"]
shots = [5, "rest"]
episodes = 20
study = "0123456789abcdef"
config_hash = "0123456789abcdef"
validation_rmse = 0.95
default_rmse = 1.0
"""


def test_tuned_rows(fuzz):
    def read(folder):
        rows = load_tuned(sorted(folder.iterdir()))
        assert rows and all(row.tuned is not None for row in rows)

    seeds = [{"a.toml": TUNED}, {"a.toml": TUNED, "b.toml": TUNED.replace(b"knn (tuned)", b"other")}]
    fuzz(Target("tuned-rows", "`fewrec.runner.tuned_rows.load_tuned`", read), seeds, folders(seeds, TOML, lose=False))


SOURCE = (
    b"class ", b"import nothing", b"raise SystemExit", b"raise KeyError", b"raise ValueError('a\\nb')", b"1/0",
    b"def f(:", b"name = 7",
    b"name = None", b"name = 'x'", b"name = 'bias'", b"needs = 3", b"paper = None", b"\t", b"    ", b"\\", b'"""',
    b"(", b"(" * 300, b"[" * 90,
    b"lambda: 0", b"# -*- coding: utf-7 -*-\n", b"# coding: nothing\n", b"\x00", b"__slots__ = 1", b"if True:",
    b"return", b"@", b"1" * 5000,
    b"-" * 5000, b"Learner = 1", b"frozenset(", b"raise Exception", b"assert False, '\\x1b[31m'",
    b"class X(BaseException): pass\nraise X",
)  # fmt: skip


@pytest.fixture
def no_plugins(monkeypatch):
    monkeypatch.setattr(registry, "_files", {})


@pytest.mark.usefixtures("no_plugins")
def test_a_plugin_file(fuzz, monkeypatch):
    """A plugin may fail in any way; it is listed with the reason. Nothing among the words of these does harm."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    seeds = [
        {"mine.py": filled_template(kind, "my-learner", "mine.py").encode()}
        for kind in ("simple", "batched", "meta-fit")
    ]

    def read(folder):
        (file,) = folder.iterdir()
        registry._files.clear()
        if str(folder) not in sys.path:
            monkeypatch.syspath_prepend(str(folder))
        importlib.invalidate_caches()
        found = add_plugin_file(file)
        assert found and all(info.problem or info.target for info in found)
        assert all((info.problem or "").isprintable() and info.summary.isprintable() for info in found), found
        assert set(found) <= set(listed_learners())
        describe_class(file.stem, "MyLearner")
        for info in found:
            if not info.problem:
                learner_class(info.name)

    target = Target(
        "plugin-file",
        "`fewrec.learners.registry.add_plugin_file`",
        read,
        names=("learner '",),
        ignored=(SyntaxWarning, DeprecationWarning),
    )  # noqa: E501
    fuzz(target, seeds, folders(seeds, SOURCE, lose=False))
