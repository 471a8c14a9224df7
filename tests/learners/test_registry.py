"""The registry: plugins by file, by module:Class and by entry point; broken ones are listed, duplicates refused."""

import sys
from importlib.metadata import EntryPoint

import pytest

from fewrec.errors import SuiteError
from fewrec.learners import registry
from fewrec.learners.registry import BUILTIN, add_plugin_file, known_learners, learner_class, listed_learners

PLUGIN = '''
"""A plugin."""
from fewrec.learners.base import Learner, Predictor


class Mine(Learner):
    """The support mean."""

    name = "{name}"

    def adapt(self, support, ctx):
        raise NotImplementedError
'''


@pytest.fixture(autouse=True)
def no_plugins_stay(monkeypatch):
    monkeypatch.setattr(registry, "_files", {})


def write(tmp_path, text, name="plugin.py"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_plugin_file_adds_its_learners(tmp_path):
    add_plugin_file(write(tmp_path, PLUGIN.format(name="mine")))
    assert known_learners()["mine"].summary == "The support mean."
    assert learner_class("mine").__name__ == "Mine"


def test_a_learner_is_found_as_module_and_class():
    assert learner_class("fewrec.learners.bias:Bias").name == "bias"
    with pytest.raises(SuiteError, match="not a subclass"):
        learner_class("fewrec.learners.bias:BiasConfig")
    with pytest.raises(SuiteError, match="can't be imported"):
        learner_class("no.such.module:Learner")


def test_a_name_that_is_taken_is_refused(tmp_path):
    with pytest.raises(SuiteError, match="'bias' is claimed twice"):
        add_plugin_file(write(tmp_path, PLUGIN.format(name="bias")))
    add_plugin_file(write(tmp_path, PLUGIN.format(name="mine")))
    with pytest.raises(SuiteError, match="'mine' is claimed twice"):
        add_plugin_file(write(tmp_path, PLUGIN.format(name="mine"), "second.py"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import no_such_package_at_all\n", "ModuleNotFoundError"),
        ("x = 1\n", "defines no Learner"),
        ("def (:\n", "SyntaxError"),
    ],
)
def test_a_broken_plugin_is_listed_with_its_reason_and_the_rest_works(tmp_path, text, reason):
    add_plugin_file(write(tmp_path, text, "broken.py"))
    assert reason in known_learners()["broken"].problem
    assert learner_class("bias").name == "bias"
    with pytest.raises(SuiteError, match="'broken' .*can't be used"):
        learner_class("broken")


def installed(monkeypatch, *points):
    """Let (name, target) pairs be the entry points that are installed."""
    found = [EntryPoint(name, target, registry.GROUP) for name, target in points]
    monkeypatch.setattr(registry, "entry_points", lambda group: found)


@pytest.fixture
def installed(monkeypatch):
    """Pretend that packages with these entry points, (name, module:Class), are installed."""

    def pretend(*points):
        found = [EntryPoint(name, target, registry.GROUP) for name, target in points]
        monkeypatch.setattr(registry, "entry_points", lambda group: found)

    return pretend


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A module on the path that says so when it is imported."""
    text = PLUGIN.format(name="theirs") + "\nraise SystemExit('this module was imported')\n"
    (tmp_path / "their_package.py").write_text(text.replace("name =", 'needs = frozenset({"k>0"})\n    name ='))
    monkeypatch.syspath_prepend(tmp_path)
    return "their_package"


def test_an_entry_point_is_found_and_described_without_being_imported(installed, package):
    installed(("theirs", f"{package}:Mine"))
    info = known_learners()["theirs"]
    assert (info.target, info.summary, info.needs, info.problem) == (
        "their_package:Mine",
        "The support mean.",
        frozenset({"k>0"}),
        None,
    )
    assert package not in sys.modules


def test_a_built_in_learner_keeps_its_name_and_who_claims_it_is_listed_with_the_reason(installed, package):
    installed(("bias", f"{package}:Mine"))
    assert learner_class("bias").__module__ == "fewrec.learners.bias"
    first, second = (info for info in listed_learners() if info.name == "bias")
    assert first.problem is None
    assert "a built-in learner, which keeps it; use it as their_package:Mine" in second.problem


def test_a_name_that_two_packages_claim_is_refused_when_it_is_used_and_the_rest_works(installed, package):
    installed(("theirs", f"{package}:Mine"), ("theirs", "fewrec.learners.bias:Bias"), ("more", f"{package}:Mine"))
    with pytest.raises(SuiteError, match="(?s)'theirs' .* is claimed by .*Mine .*Bias .*uninstall one of them"):
        learner_class("theirs")
    assert known_learners()["more"].problem is None
    assert learner_class("user-mean").name == "user-mean"


def test_one_learner_that_two_entry_points_name_alike_is_no_duplicate(installed, package):
    installed(("theirs", f"{package}:Mine"), ("theirs", f"{package}:Mine"))
    assert known_learners()["theirs"].problem is None


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("no_such_module_at_all:Theirs", "no module 'no_such_module_at_all'"),
        ("their_package", "not module:Class"),
    ],
)
def test_a_broken_entry_point_is_listed_with_its_reason(installed, package, target, reason):
    installed(("theirs", target))
    assert reason in known_learners()["theirs"].problem
    with pytest.raises(SuiteError, match="can't be used"):
        learner_class("theirs")


def test_a_plugin_that_fails_when_it_is_imported_is_refused_with_the_reason(installed, tmp_path, monkeypatch):
    (tmp_path / "breaks_on_import.py").write_text("import no_such_package_at_all\n\nclass Mine: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    installed(("breaks", "breaks_on_import:Mine"))
    with pytest.raises(SuiteError, match="can't be imported from breaks_on_import:Mine: ModuleNotFoundError"):
        learner_class("breaks")


def test_an_entry_point_and_its_class_must_agree_on_the_name(installed):
    installed(("other", "fewrec.learners.bias:Bias"))
    with pytest.raises(SuiteError, match="calls itself 'bias'"):
        learner_class("other")


def test_the_index_says_what_the_classes_say():
    for name, info in BUILTIN.items():
        cls = learner_class(name)
        assert (info.needs, info.paper) == (cls.needs, cls.paper), name
