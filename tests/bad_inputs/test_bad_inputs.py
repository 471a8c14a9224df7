"""Every bad input of the table gets its one line, at once: before anything is written and any long work has begun."""

from __future__ import annotations

import functools
import re
import sys
from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.bad_inputs.case import Case
from tests.bad_inputs.table import CATEGORIES, TABLE, text
from tests.bad_inputs.world import World

CASES = [case for _, module in CATEGORIES for case in import_module(f"tests.bad_inputs.{module}").CASES]
LONG_WORK = (
    "fewrec.runner.execute:CellRunner.run", "fewrec.recommender.trained:_fit", "fewrec.finetune.train:Trainer.epoch",
    "fewrec.tuning.study:Search.run", "fewrec.data.fetch:_fetch_from",
    "fewrec.runner.verify:_Rerun.run",
)  # fmt: skip


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("world"))


def refuse_long_work(monkeypatch) -> list[str]:
    """Refuse long work, and return the list of what was begun all the same."""
    found: list[str] = []

    def refused(name):
        def begin(*_, **__):
            found.append(name)
            raise AssertionError(f"{name} has begun")

        return begin

    for name in LONG_WORK:
        module, _, attribute = name.partition(":")
        *outer, last = attribute.split(".")
        monkeypatch.setattr(functools.reduce(getattr, outer, import_module(module)), last, refused(name))
    return found


def there(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of change of all files in a folder, but for locks and what is in fewrec's cache."""
    found = {}
    for path in folder.rglob("*"):
        if path.name != ".lock" and path.relative_to(folder).parts[0] != "cache":
            stat = path.lstat()
            found[str(path)] = (stat.st_size, stat.st_mtime_ns) if path.is_file() else (0, 0)
    return found


def put(files) -> None:
    for name, content in files.items():
        path = Path(name)
        if "*" in name:
            path = min(Path().glob(name))
        if name.endswith("/"):
            path.mkdir(parents=True)
            continue
        if callable(content):
            content = content(path.read_bytes())
        if content is None:
            path.unlink()
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def call(case: Case) -> str:
    """Return the text of the ``FewrecError`` that a call in Python raises."""
    import fewrec
    from fewrec.data.load import load_dataset, open_dataset
    from fewrec.data.own import load_own
    from fewrec.data.own_cards import add_card
    from fewrec.data.weights import find_weights
    from fewrec.episodes.frozen import load
    from fewrec.errors import FewrecError
    from fewrec.finetune.api import finetune
    from fewrec.finetune.options import FinetuneOptions
    from fewrec.runner.api import plan
    from fewrec.runner.score import score
    from fewrec.runner.verify import verify

    names = {one.__name__: one for one in (load_dataset, open_dataset, load_own, add_card, find_weights, load, finetune,
                                           FinetuneOptions, plan, score, verify)}  # fmt: skip
    try:
        eval(case.given, {"fewrec": fewrec, **names})  # a case is source of ours
    except FewrecError as error:
        return str(error)
    raise AssertionError("it was accepted")


def command(case: Case) -> str:
    """Return the one line on standard error that begins with ``error: ``."""
    import shlex

    from fewrec.cli import main

    result = CliRunner().invoke(main, shlex.split(case.given))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == case.code, f"exit code {result.exit_code}: {result.output}"
    assert "Traceback" not in result.output
    if case.code == 1:  # `fewrec check` explains at length what a learner breaks: what was seen, and the likely cause
        seen, cause = result.stdout.split("\n  Seen\n")[1].split("\n  Likely cause\n")
        return " ".join(f"{seen} {cause.split(chr(10) * 2)[0]}".split())
    assert not result.stdout, result.stdout
    lines = result.stderr.splitlines()
    said = [i for i, line in enumerate(lines) if line.lower().startswith("error")]
    assert len(said) == 1, result.stderr
    found = "\n".join(lines[said[0] :])
    assert found.startswith("error: "), found
    return found.removeprefix("error: ")


def run(case: Case, folder: Path) -> str:
    """Return the message that a case gets, the folder's own path left out."""
    found = (call if case.is_call else command)(case)
    return found.replace(f"{folder}/", "").replace(str(folder), ".")


def enter(case: Case, world: World, folder: Path, monkeypatch) -> None:
    world.enter(folder, case.needs)
    monkeypatch.chdir(folder)
    if case.has:
        pytest.importorskip(case.has)
    if case.lacks:
        monkeypatch.setitem(sys.modules, case.lacks, None)
    for name, value in {"FEWREC_CACHE": "cache", "FEWREC_CARDS": "cards", "FEWREC_OFFLINE": "1", **case.env}.items():
        monkeypatch.setenv(name, value)
    put(case.files)
    monkeypatch.setattr("fewrec.learners.registry._files", {})  # plugins of other cases


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.did)
def test_a_bad_input_gets_its_message_at_once(case, world, tmp_path, monkeypatch):
    enter(case, world, tmp_path, monkeypatch)
    begun = refuse_long_work(monkeypatch)
    before = there(tmp_path)
    found = run(case, tmp_path)
    pattern = ".*".join(map(re.escape, case.message.split("…")))
    assert re.fullmatch(pattern, found), f"\nexpected: {case.message}\nfound:    {found}"
    assert not begun
    assert there(tmp_path) == before


def test_there_are_at_least_200_and_no_two_alike():
    assert len(CASES) >= 200
    assert len({case.did for case in CASES}) == len({(case.given, str(case.files)) for case in CASES}) == len(CASES)


def test_no_message_speaks_of_the_inside():
    inside = r"Traceback|(Key|Value|Type)Error|Errno|pydantic|dtype|NoneType| at 0x|Input should|valid \w+ range"
    for case in CASES:
        assert not re.search(inside, case.message), case.message
        assert len(case.message) < 420, case.message


def test_every_command_and_option_has_a_case():
    import click

    from fewrec.cli import main

    used = [case.given.split() for case in CASES if not case.is_call]
    lacking, options = [], {}

    def visit(command, words):
        if isinstance(command, click.Group):
            with click.Context(command) as context:
                for name in command.list_commands(context):
                    visit(command.get_command(context, name), [*words, name])
            return
        own = [given for given in used if given[: len(words)] == words]
        if not own and command.params:
            lacking.append(" ".join(words))
        for option in command.params:
            if isinstance(option, click.Option):
                options.setdefault(option.opts[0], []).append(any(set(option.opts) & set(given) for given in own))

    visit(main, [])
    assert lacking == []
    assert [option for option, found in options.items() if not any(found)] == []


def test_the_committed_table_is_current(request):
    if request.config.getoption("--write"):
        TABLE.write_text(text(), encoding="utf-8")
    assert TABLE.is_file() and TABLE.read_text(encoding="utf-8") == text(), "write it: pytest tests/bad_inputs --write"
