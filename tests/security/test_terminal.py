"""Text that came out of a file commands no terminal: titles, names, reasons, and what errors quote."""

from __future__ import annotations

import ast
import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from fewrec.cli import main
from fewrec.report import load_results
from fewrec.terminal import echo, plain, rich_console

ROOT = Path(__file__).resolve().parents[2]
# It names the window, clears it, colours, overwrites, and turns the direction of text round.
EVIL = "\x1b]0;evil\x07\x1b[2J\x9b31m\x08\r\x7f\u202eevil"
FORBIDDEN = set(EVIL) - set("]0;evil[2J31m")


def check(text: str, said: str = "\ufffd") -> None:
    assert said in text
    assert not set(text) & FORBIDDEN, [hex(ord(c)) for c in set(text) & FORBIDDEN]


def run(*arguments) -> str:
    result = CliRunner().invoke(main, [str(one) for one in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result.output


def test_what_is_printed_shows_control_characters_and_keeps_all_else(capsys):
    assert plain("Žižek 名前 🙂 a\tb\nc") == "Žižek 名前 🙂 a\tb\nc"
    assert plain("a\x1bb\x9bc\u202ed\ud800e\u00a0f") == "a\ufffdb\ufffdc\ufffdd\ufffde f"
    echo(EVIL)
    echo(EVIL, err=True)
    out, err = capsys.readouterr()
    check(out)
    check(err)


def test_a_console_prints_its_own_styles_and_no_others():
    from rich.table import Table
    from rich.text import Text

    console = rich_console(file=io.StringIO(), force_terminal=True, width=80)
    table = Table("name")
    table.add_row(Text(EVIL, style="bold"))
    console.print(table)
    console.print(EVIL, markup=False)
    with console.status(EVIL):
        pass
    written = console.file.getvalue()
    assert "\x1b[1m" in written  # bold is the console's own
    assert "\x1b]0" not in written and "\x1b[2J" not in written and "\x9b" not in written and "\u202e" not in written


def test_nothing_of_fewrec_prints_by_another_way():
    allowed = {"fewrec/terminal.py"}
    for file in sorted((ROOT / "fewrec").rglob("*.py")):
        name = file.relative_to(ROOT).as_posix()
        if name in allowed:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            assert called not in {"print", "click.echo", "click.secho", "Console", "rich.print", "sys.stdout.write",
                                  "sys.stderr.write"}, f"{name}:{node.lineno}: {called}"  # fmt: skip


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEWREC_CARDS", str(tmp_path / "cards"))
    monkeypatch.setenv("FEWREC_CACHE", str(tmp_path / "cache"))
    rows = [f"u{u},i{i},{1 + (3 * u + i) % 5}\n" for u in range(40) for i in range(30)]
    Path("my.csv").write_text("user,item,rating\n" + "".join(rows))
    titles = [f"i{i},Film {EVIL.replace(chr(13), '')} number {i}\n" for i in range(30)]
    Path("items.csv").write_text("item,title\n" + "".join(titles), encoding="utf-8")
    Path("mine.csv").write_text("item,rating\ni3,5\ni4,1\n")
    return tmp_path


@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_titles_of_a_file_in_recommendations_and_searches(files, form):
    own = ("--data", "my.csv", "--items", "items.csv")
    found = run("recommend", *own, "--find", "film number 3", "--format", form)
    assert "number 3" in found and not set(found) & FORBIDDEN
    advised = run("recommend", *own, "--ratings", "mine.csv", "--learner", "bias", "--format", form)
    assert "number" in advised and not set(advised) & FORBIDDEN


@pytest.mark.parametrize(
    ("content", "arguments"),
    [
        (f"user,item,rating\n1,1,{EVIL.replace(chr(13), '')}\n", ("--data", "bad.csv")),
        (f"{EVIL.replace(chr(13), '')}\n", ("--data", "bad.csv")),
        (f"a{EVIL.replace(chr(13), '')},b,c\n1,2,x\n", ("--data", "bad.csv")),
        (f"title = '{EVIL[:1]}'\n", ("bad.csv",)),
    ],
)
def test_errors_that_quote_a_file(files, content, arguments):
    Path("bad.csv").write_text(content, encoding="utf-8")
    Path("bad.toml").write_text(content, encoding="utf-8")
    command = ("recommend", *arguments, "--ratings", "mine.csv") if "--data" in arguments else ("run", "bad.toml")
    said = run(*command)
    assert "error" in said.lower() and not set(said) & FORBIDDEN


def test_own_cards_and_names_of_files(files):
    folder = files / "cards"
    folder.mkdir()
    (folder / f"x{EVIL[:9]}.toml").write_text("title = 3")
    for command in (("list", "data"), ("data", "list"), ("data", "info", f"no{EVIL}"), ("run", f"no{EVIL}")):
        said = run(*command)
        assert "evil" in said and not set(said) & FORBIDDEN


@pytest.mark.parametrize(
    ("command", "form"),
    [("report", ""), *(("show", form) for form in ("table", "markdown", "csv", "latex")),
     *(("compare", form) for form in ("table", "markdown", "csv", "json"))],
)  # fmt: skip
def test_labels_and_reasons_of_results(new_run, scores_of, command, form, tmp_path):
    made = new_run()
    made.cell("bias", scores_of(1.0))
    made.cell("mine", scores_of(0.9), label=f"mine {EVIL}")
    made.cell("broken", status="failed", reason=f"ValueError: {EVIL}")
    manifest = json.loads((made.path / "manifest.json").read_text())
    manifest |= {"name": EVIL, "command": EVIL, "environment": {"device": EVIL}}
    (made.path / "manifest.json").write_text(json.dumps(manifest))
    more = {"show": (), "report": ("--no-plots",), "compare": (made.path,)}[command]
    options = ("--format", form) if form else ()
    said = run(command, made.path, *more, *options)
    assert "mine" in said and not set(said) & FORBIDDEN
    for file in made.path.glob("leaderboard.*"):
        assert not set(file.read_text(encoding="utf-8")) & FORBIDDEN, file.name
    assert len(load_results(made.path).cells) == 3


def test_a_label_that_looks_like_markup_ends_no_live_display():
    from fewrec.runner.progress import LiveReporter

    console = rich_console(file=io.StringIO(), force_terminal=True, width=200)
    reporter = LiveReporter(console)

    class Spec:
        dataset, meta_dataset, k_shot, seed, label, episodes = "a", None, 5, 0, f"[/x] [bold]b {EVIL}", 1
        spec_hash = "0"
        protocol = type("P", (), {"state": "warm"})

    reporter.start([Spec], [1.0])
    reporter.cell(Spec)
    reporter.bars.refresh()
    reporter.finished(Spec, "failed")
    reporter.warn("[/x]")
    reporter.stop()
    written = console.file.getvalue()
    assert "[/x] [bold]b" in written and "\x1b]0" not in written and "\x1b[2J" not in written
