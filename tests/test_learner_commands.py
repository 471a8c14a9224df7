"""What a learner's author types: `fewrec new-learner`, `fewrec check` and `fewrec list learners`."""

import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from fewrec.cli import main
from fewrec.conformance import CHECKS
from fewrec.data.synthetic import make_synthetic
from fewrec.learners import registry
from fewrec.learners.index import BUILTIN
from fewrec.learners.registry import learner_class
from fewrec.learners.templates import KINDS, class_name, name_from

LEAKY = '''
import torch
from fewrec.learners.base import Learner, Predictor


class Constant(Predictor):
    def __init__(self, value):
        self.value = value

    def predict(self, users, items):
        return self.value.expand(len(users))


class Leaky(Learner):
    """The mean of all ratings of the episode."""

    name, needs = "leaky", frozenset({"k>0"})

    def adapt(self, support, ctx):
        return Constant(support.rating.mean())
'''


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")  # a table without wrapped cells
    monkeypatch.setattr(registry, "_files", {})
    monkeypatch.setattr(registry, "entry_points", lambda group: [])


def invoke(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_the_kinds_that_the_command_offers_are_those_that_there_are():
    assert all(kind in invoke("new-learner", "--help").output for kind in KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_template_passes_the_check_as_it_is_written(kind):
    written = invoke("new-learner", "my_method.py", "--kind", kind)
    assert written.exit_code == 0 and "fewrec check my_method.py" in written.output
    source = Path("my_method.py").read_text()
    assert len(source.splitlines()) < 90 and "class MyMethod(" in source
    result = invoke("check", "my_method.py")
    assert result.exit_code == 0, result.output
    assert "\nmy-method: " in result.output and " 0 FAILED" in result.output


@pytest.mark.parametrize("kind", KINDS)
def test_a_template_runs_beside_a_baseline(kind):
    table = make_synthetic(n_users=80, n_items=60, ratings_per_user=50, seed=2).table
    pd.DataFrame({"user": table.user, "item": table.item, "rating": table.rating}).to_csv("mine.csv", index=False)
    invoke("new-learner", "other.py", "--kind", kind, "--name", "my-own")
    result = invoke("run", "smoke", "--data", "mine.csv", "--state", "user-cold", "--plugin", "other.py",
                    "--learner", "my-own,bias", "--out", "out", "--threads", 1)  # fmt: skip
    assert result.exit_code == 0, result.output
    board = pd.read_csv("out/leaderboard.csv").set_index("label")
    assert list(board["status"]) == ["ok", "ok"] and abs(board["rmse"]["my-own"] - board["rmse"]["bias"]) < 0.2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["there.py"], "there.py exists already; give another file name"),
        (["gp.py"], "--name gp: that is the name of a learner already (built-in)"),
        (["mine.py", "--name", "My Method"], "--name 'My Method': use lower-case letters"),
        (["mine.txt"], "mine.txt: a learner is a Python file; call it mine.py"),
        (["none/mine.py"], "none/mine.py: there is no folder none"),
        (['a"b.py'], "use letters, digits"),
    ],
)
def test_what_can_not_be_written_is_refused_in_one_line_and_nothing_is_overwritten(arguments, message):
    Path("there.py").write_text("mine")
    result = invoke("new-learner", *arguments)
    assert result.exit_code == 2 and message in result.output and result.output.count("\n") == 1
    assert Path("there.py").read_text() == "mine" and [path.name for path in Path().iterdir()] == ["there.py"]


@pytest.mark.parametrize(
    ("file", "name", "cls"),
    [("my_method.py", "my-method", "MyMethod"), ("Genre Mean.py", "genre-mean", "GenreMean"),
     ("learner.py", "learner", "MethodLearner"), ("3d.py", "3d", "Method3d")],
)  # fmt: skip
def test_names_are_derived_from_the_file(file, name, cls):
    assert name_from(file) == name and class_name(name) == cls


def test_check_prints_a_line_a_check_and_explains_failures_with_an_example():
    Path("leaky.py").write_text(LEAKY)
    result = invoke("check", "leaky.py")
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert [line.split()[1] for line in lines[1 : 1 + len(CHECKS)]] == list(CHECKS)
    assert [line.split()[1] for line in lines[1 : 1 + len(CHECKS)] if line.startswith("FAILED")] == ["other-users"]
    assert "(it declares k>0)" in result.output and 'declare task = "episode"' in result.output
    assert "support: 2 users, 2 ratings, seed" in result.output
    assert lines[-2].startswith("leaky: ") and ", 1 FAILED, " in lines[-2] and lines[-2].endswith(" s")


def test_the_failure_that_the_documentation_shows_is_the_one_that_is_printed():
    page = (Path(__file__).parents[1] / "docs" / "add_a_learner.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(\w+)\n(.*?)```", page, re.DOTALL)
    (source,) = [code for _, code in blocks if code.startswith("# leaky.py")]
    (shown,) = [code for language, code in blocks if language == "text" and "Smallest example" in code]
    Path("leaky.py").write_text(source)
    assert shown in invoke("check", "leaky.py", "--only", "other-users").output


def test_check_runs_only_the_checks_and_the_learner_that_are_asked_for():
    Path("two.py").write_text(LEAKY + LEAKY.replace("Leaky", "Other").replace("leaky", "other"))
    result = invoke("check", "two.py", "--learner", "other", "-k", "finite,query")
    assert result.exit_code == 0
    assert [line.split()[1] for line in result.output.splitlines()[1:3]] == ["finite", "query"]
    assert "other: 2 ok" in result.output and "leaky" not in result.output
    both = invoke("check", "two.py", "-k", "other-users")
    assert both.exit_code == 1 and "leaky: 0 ok, 1 FAILED" in both.output and "other: 0 ok, 1 FAILED" in both.output


@pytest.mark.parametrize("target", ["user-mean", "fewrec.learners.trivial:UserMean"])
def test_check_takes_a_name_and_a_class(target):
    result = invoke("check", target, "--set", "shrinkage=2.5", "-k", "config,adapts")
    assert result.exit_code == 0 and "user-mean: 2 ok" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.py"], "none.py: no such file (fewrec new-learner none.py writes one)"),
        (["broken.py"], "broken.py: ZeroDivisionError in line 2: division by zero"),
        (["empty.py"], "empty.py: it defines no Learner"),
        (["leaky.py", "--learner", "leeky"], "leaky.py has no learner 'leeky'; did you mean 'leaky'?"),
        (["leaky.py", "--only", "finit"], "--only finit: no such check; did you mean 'finite'?"),
        (["user-mean", "--set", "shrinkag=1"], "'user-mean' has no option 'shrinkag'; did you mean 'shrinkage'?"),
        (["user-mean", "--set", "shrinkage=-1"], "learner 'user-mean': shrinkage: -1 is below 0"),
        (["user-meen"], "unknown learner 'user-meen'; did you mean 'user-mean'?"),
        (["user-mean", "--learner", "bias"], "--learner bias goes with a file"),
        (["bias.py"], "learner name 'bias' is claimed twice: by this file and by a built-in learner"),
        (["absent.py"], "learner 'leaky' can't be checked here: it needs a telescope"),
    ],
)
def test_what_can_not_be_checked_is_said_in_one_line(arguments, message):
    Path("leaky.py").write_text(LEAKY)
    Path("bias.py").write_text(LEAKY.replace('"leaky"', '"bias"'))
    Path("empty.py").write_text("x = 1\n")
    Path("broken.py").write_text("\nx = 1 / 0\n")
    needy = "    def prepare(self, ctx):\n        raise NotApplicable('it needs a telescope')\n\n    def adapt("
    Path("absent.py").write_text("from fewrec.errors import NotApplicable\n" + LEAKY.replace("    def adapt(", needy))
    result = invoke("check", *arguments)
    assert result.exit_code == 2
    assert message in result.output.splitlines()[-1] and result.output.splitlines()[-1].startswith("error: ")


def test_check_needs_no_pytest():
    code = "import sys; sys.modules['pytest'] = None; from fewrec.cli import main; main(['check', 'user-median'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "user-median: " in done.stdout


def test_list_shows_every_learner_with_needs_and_paper_and_imports_none():
    code = (
        "import sys; from fewrec.cli import main; main(['list', 'learners'], standalone_mode=False); "
        "assert not {'torch', 'pydantic', 'numpy', 'fewrec.learners.bias'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    for info in BUILTIN.values():
        line = rows[info.name]
        assert info.summary in line and info.paper in line and all(need in line for need in info.needs)


def test_list_says_what_is_wrong_with_a_plugin_and_shows_the_others(monkeypatch):
    class Distribution:
        name = "their-plugin"

    points = [EntryPoint(name, value, registry.GROUP)._for(Distribution()) for name, value in (
        ("bias", "fewrec.learners.knn:KNN"), ("gone", "no_such_module:Gone"))]  # fmt: skip
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    Path("leaky.py").write_text(LEAKY)
    Path("broken.py").write_text("import no_such_package\n")
    result = invoke("list", "learners", "--plugin", "leaky.py", "--plugin", "broken.py")
    assert result.exit_code == 0
    lines = [" ".join(line.split()) for line in result.output.splitlines()]
    assert any(line.startswith("leaky The mean of all ratings of the episode.") and "plugin leaky.py" in line
               for line in lines)  # fmt: skip
    assert any(line.startswith("gone can't be used: there is no module 'no_such_module'") for line in lines)
    assert any(line.startswith("bias can't be used: its name is that of a built-in learner") for line in lines)
    assert any(line.startswith("bias global + item + user effect, shrunk") for line in lines)
    assert "can't be used: ModuleNotFoundError in line 1" in result.output


def test_list_with_v_shows_options_with_type_default_and_description_and_what_can_not_be_imported(monkeypatch):
    class Distribution:
        name = "their-plugin"

    Path("their_module.py").write_text("import no_such_package\n\n\nclass Gone:\n    pass\n")
    monkeypatch.syspath_prepend(str(Path().absolute()))
    point = EntryPoint("gone", "their_module:Gone", registry.GROUP)._for(Distribution())
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    invoke("new-learner", "my_method.py", "--kind", "meta-fit")
    result = invoke("list", "learners", "-v", "user-mean", "my-method", "gone", "--plugin", "my_method.py")
    assert result.exit_code == 0, result.output
    lines = [" ".join(line.split()) for line in result.output.splitlines()]
    assert "shrinkage float, >= 0 6.0" in lines
    assert "user_ridge float, > 0 5.0 so many ratings of zero are added to a user's residuals" in lines
    assert any(line.startswith("Options of ``user-mean``: the support mean is shrunk") for line in lines)
    assert "ModuleNotFoundError: No module named 'no_such_package'" in result.output


def test_every_built_in_learner_can_be_listed_with_its_options():
    from fewrec.learners.options import notes_on, options_of

    for name in BUILTIN:
        config = learner_class(name).Config
        found = options_of(config)
        assert [option.name for option in found] == list(config.model_fields)
        assert all(option.type and option.default for option in found)
        assert not found or notes_on(config), f"the options of {name} are described nowhere"


def test_an_unknown_name_is_refused_with_the_nearest():
    result = invoke("list", "learners", "user-meen")
    assert result.exit_code == 2 and "unknown learner 'user-meen'; did you mean 'user-mean'?" in result.output
