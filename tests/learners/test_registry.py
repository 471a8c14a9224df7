"""The registry: plugins by file, by module:Class and by entry point; broken ones are listed, duplicates refused."""

from importlib.metadata import EntryPoint

import pytest

from fewrec.errors import SuiteError
from fewrec.learners import registry
from fewrec.learners.registry import BUILTIN, add_plugin_file, known_learners, learner_class, listed_learners
from fewrec.learners.sources import describe_class

PLUGIN = '''
"""A plugin."""
from fewrec.learners.base import Learner, Predictor


class Mine(Learner):
    """The support mean.

    More of it.
    """

    name = "{name}"
    needs = frozenset({{"k>0"}})
    paper = "Me, 2020"

    def adapt(self, support, ctx):
        raise NotImplementedError
'''


@pytest.fixture(autouse=True)
def no_plugins_stay(monkeypatch):
    monkeypatch.setattr(registry, "_files", {})
    install(monkeypatch)


def install(monkeypatch, *points):
    """Pretend that the given (name, value, distribution) entry points are all that is installed."""

    class Distribution:
        def __init__(self, name):
            self.name = name

    made = [EntryPoint(name, value, registry.GROUP)._for(Distribution(dist)) for name, value, dist in points]
    monkeypatch.setattr(registry, "entry_points", lambda group: made)


def write(tmp_path, text, name="plugin.py"):
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", sorted(BUILTIN))
def test_the_index_says_what_the_class_says(name):
    info, cls = BUILTIN[name], learner_class(name)
    assert (cls.name, cls.needs, cls.paper) == (name, info.needs, info.paper)


def test_a_plugin_file_adds_its_learners(tmp_path):
    (info,) = add_plugin_file(write(tmp_path, PLUGIN.format(name="mine")))
    assert known_learners()["mine"] == info
    assert (info.summary, info.needs, info.paper) == ("The support mean.", {"k>0"}, "Me, 2020")
    assert learner_class("mine").__name__ == "Mine"


def test_a_plugin_file_that_was_changed_replaces_what_it_brought(tmp_path):
    path = write(tmp_path, PLUGIN.format(name="mine"))
    add_plugin_file(path)
    write(tmp_path, PLUGIN.format(name="mine-too"))
    add_plugin_file(path)
    assert "mine" not in known_learners() and learner_class("mine-too").__name__ == "Mine"


def test_two_plugin_files_of_one_name_do_not_share_a_module(tmp_path):
    (tmp_path / "other").mkdir()
    add_plugin_file(write(tmp_path, PLUGIN.format(name="mine")))
    add_plugin_file(write(tmp_path / "other", PLUGIN.format(name="theirs")))
    assert learner_class("mine").name == "mine" and learner_class("theirs").name == "theirs"


def test_a_learner_is_found_as_module_and_class():
    assert learner_class("fewrec.learners.bias:Bias").name == "bias"
    with pytest.raises(SuiteError, match="not a subclass"):
        learner_class("fewrec.learners.bias:BiasConfig")
    with pytest.raises(SuiteError, match="there is no module 'no'"):
        learner_class("no.such.module:Learner")


def test_a_plugin_file_whose_name_is_taken_is_refused_at_once(tmp_path):
    with pytest.raises(SuiteError, match="'bias' is claimed twice: by this file and by a built-in learner; rename"):
        add_plugin_file(write(tmp_path, PLUGIN.format(name="bias")))
    add_plugin_file(write(tmp_path, PLUGIN.format(name="mine")))
    with pytest.raises(SuiteError, match=r"'mine' is claimed twice: by this file and by .*plugin\.py"):
        add_plugin_file(write(tmp_path, PLUGIN.format(name="mine"), "second.py"))
    twice = PLUGIN.format(name="own") + PLUGIN.format(name="own").replace("class Mine", "class Other")
    with pytest.raises(SuiteError, match="two of its learners are called 'own'"):
        add_plugin_file(write(tmp_path, twice, "twice.py"))
    assert learner_class("mine").name == "mine" and learner_class("bias").__module__ == "fewrec.learners.bias"


def test_a_plugin_file_whose_name_an_installed_plugin_has_is_refused(tmp_path, monkeypatch):
    install(monkeypatch, ("mine", "fewrec.learners.bias:Bias", "their-plugin"))
    with pytest.raises(SuiteError, match="claimed twice: by this file and by .*their-plugin.*do without the other"):
        add_plugin_file(write(tmp_path, PLUGIN.format(name="mine")))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x = 1\nimport no_such_package_at_all\n", "ModuleNotFoundError in line 2: No module named"),
        ("x = 1\n", "defines no Learner"),
        (
            "from fewrec.learners.base import Learner\n\nclass A(Learner):\n    pass\n",
            'A has no name: add name = "..."',
        ),
        ("\ndef (:\n", "SyntaxError in line 2: "),
        ("raise SystemExit('no')\n", "it ends the program in line 1"),
    ],
)
def test_a_broken_plugin_is_listed_with_its_reason_and_the_rest_works(tmp_path, text, reason):
    add_plugin_file(write(tmp_path, text, "broken.py"))
    assert reason in known_learners()["broken"].problem
    assert learner_class("bias").name == "bias"
    with pytest.raises(SuiteError, match="'broken' .*can't be used"):
        learner_class("broken")


def test_an_entry_point_is_described_without_being_imported(tmp_path, monkeypatch):
    package = tmp_path / "their_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('imported')\n")
    (package / "mine.py").write_text(PLUGIN.format(name="mine"))
    monkeypatch.syspath_prepend(str(tmp_path))
    install(monkeypatch, ("mine", "their_package.mine:Mine", "their-plugin"))
    info = known_learners()["mine"]
    assert (info.summary, info.needs, info.paper) == ("The support mean.", {"k>0"}, "Me, 2020")
    assert info.problem is None and info.origin == "entry point of their-plugin"
    with pytest.raises(
        SuiteError, match="'mine' can't be imported from their_package.mine:Mine: ImportError: imported"
    ):
        learner_class("mine")


def test_a_plugin_that_exits_when_it_is_imported_ends_nothing_but_itself(tmp_path, monkeypatch):
    (tmp_path / "exits_on_import.py").write_text("raise SystemExit('no licence')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(SuiteError, match="can't be imported from exits_on_import:Mine: SystemExit: no licence"):
        learner_class("exits_on_import:Mine")


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("no_such_module:Theirs", "there is no module 'no_such_module'"),
        ("fewrec", "its entry point is not module:Class"),
    ],
)
def test_an_entry_point_that_leads_nowhere_is_listed_with_the_reason(value, problem, monkeypatch):
    install(monkeypatch, ("theirs", value, "their-plugin"))
    assert known_learners()["theirs"].problem == problem
    with pytest.raises(SuiteError, match="'theirs' .*can't be used"):
        learner_class("theirs")


def test_a_name_that_two_installed_plugins_claim_is_refused_when_it_is_used_and_the_rest_works(monkeypatch):
    points = [("twin", "fewrec.learners.bias:Bias", "one"), ("twin", "fewrec.learners.knn:KNN", "two")]
    install(monkeypatch, *points, ("gp-too", "fewrec.learners.gp:GP", "three"))
    twins = [info for info in listed_learners() if info.name == "twin"]
    assert [info.target for info in twins] == ["fewrec.learners.bias:Bias", "fewrec.learners.knn:KNN"]
    with pytest.raises(
        SuiteError, match=r"bias:Bias \(entry point of one\) and .*knn:KNN \(entry point of two\); unins"
    ):
        learner_class("twin")
    assert learner_class("bias").name == "bias" and "gp-too" in known_learners()
    assert learner_class("fewrec.learners.knn:KNN").name == "knn"


def test_a_built_in_learner_keeps_its_name_when_a_plugin_claims_it(monkeypatch):
    install(monkeypatch, ("bias", "fewrec.learners.knn:KNN", "their-plugin"))
    assert learner_class("bias").__name__ == "Bias"
    refused = [info for info in listed_learners() if info.origin == "entry point of their-plugin"]
    assert [info.problem for info in refused] == [
        "its name is that of a built-in learner, which keeps it; use it as fewrec.learners.knn:KNN"
    ]


def test_an_entry_point_whose_class_has_another_name_is_refused(monkeypatch):
    install(monkeypatch, ("theirs", "fewrec.learners.knn:KNN", "their-plugin"))
    with pytest.raises(SuiteError, match="calls itself 'knn'; the entry point and the class must agree"):
        learner_class("theirs")


def test_a_plugin_that_raises_what_is_no_exception_or_speaks_to_the_terminal_is_listed_with_its_reason(tmp_path):
    for name, text in {
        "own.py": "class Stop(BaseException):\n    pass\nraise Stop('end')\n",
        "odd.py": "raise ValueError('\\x1b[2J')\n",
    }.items():
        (info,) = add_plugin_file(write(tmp_path, text, name))
        assert info.problem in ("Stop in line 3: end", "ValueError in line 1: \\x1b[2J")


@pytest.mark.parametrize("text", ["x = " + "(" * 300, "x = " + "-" * 5_000 + "1", "class A:\n    needs = {[1]}\n"])
def test_a_source_that_python_can_not_parse_or_evaluate_is_described_without_a_traceback(tmp_path, monkeypatch, text):
    monkeypatch.syspath_prepend(tmp_path)
    write(tmp_path, text, "nested_source.py")
    problem = describe_class("nested_source", "A").problem
    assert problem is None if "class" in text else "nested" in problem
