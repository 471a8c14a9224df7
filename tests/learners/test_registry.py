"""The registry: plugins by file, by module:Class and by entry point; broken ones are listed, duplicates refused."""

import pytest

from fewrec.errors import SuiteError
from fewrec.learners import registry
from fewrec.learners.registry import add_plugin_file, known_learners, learner_class

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


def test_an_entry_point_is_found_without_being_imported(monkeypatch):
    from importlib.metadata import EntryPoint

    points = [EntryPoint("theirs", "no_such_module:Theirs", registry.GROUP)]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    assert known_learners()["theirs"].target == "no_such_module:Theirs"
    monkeypatch.setattr(registry, "entry_points", lambda group: [EntryPoint("bias", "other:Bias", registry.GROUP)])
    with pytest.raises(SuiteError, match="'bias' is claimed twice"):
        known_learners()
