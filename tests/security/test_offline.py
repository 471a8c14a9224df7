"""Offline mode opens no socket: commands run in a process in which any use of the network is an error and is counted.

That the hub isn't asked and that a missing data set is one line is in tests/data.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

WATCHED = """
import sys
seen = []
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.bind",
                 "socket.sendto", "socket.sendmsg", "urllib.Request", "http.client.connect", "ftplib.connect",
                 "smtplib.connect", "webbrowser.open", "subprocess.Popen", "os.system"):
        if event == "subprocess.Popen" and "pip" not in map(str, arguments[1] or ()):
            return
        if event in ("socket.connect", "socket.bind") and isinstance(arguments[1], (str, bytes)):
            return  # AF_UNIX: another process of this machine
        seen.append(f"{event} {arguments[1:]}")
        raise OSError(f"no network here: {event}")
sys.addaudithook(watch)
from click.testing import CliRunner
from fewrec.cli import main
result = CliRunner().invoke(main, sys.argv[1:])
print(result.output)
if result.exception is not None and not isinstance(result.exception, SystemExit):
    raise result.exception
print("EVENTS", seen)
sys.exit(result.exit_code)
"""


@pytest.fixture
def folder(tmp_path):
    """A folder with a small file of ratings, its items, and one user's ratings."""
    rows = [f"u{u},i{i},{1 + (3 * u + i) % 5}\n" for u in range(60) for i in range(40)]
    (tmp_path / "my.csv").write_text("user,item,rating\n" + "".join(rows))
    (tmp_path / "items.csv").write_text("item,title\n" + "".join(f"i{i},Film {i}\n" for i in range(40)))
    (tmp_path / "mine.csv").write_text("item,rating\ni3,5\ni4,1\n")
    return tmp_path


@pytest.fixture
def fewrec(child, folder):
    """Run a command offline, away from all caches; return (exit code, output) after checking that no socket was used."""

    def run(*arguments: object, **environment: str) -> tuple[int, str]:
        away = {"FEWREC_CACHE": str(folder / "cache"), "HF_HOME": str(folder / "hub"), "FEWREC_OFFLINE": ""}
        done = child(WATCHED, *arguments, folder=folder, **(away | environment))
        assert "EVENTS []" in done.stdout, (done.stdout[-2000:], done.stderr[-2000:])
        return done.returncode, done.stdout

    return run


def test_the_watch_would_notice(fewrec, folder, child):
    """Without --offline the same watch counts what a data set that isn't there asks for."""
    done = child(WATCHED, "data", "fetch", "ml-100k", folder=folder, FEWREC_CACHE=str(folder / "cache"), FEWREC_OFFLINE="")
    assert done.returncode == 2 and "EVENTS [" in done.stdout and "EVENTS []" not in done.stdout


def test_a_suite_its_report_and_its_verification(fewrec, folder):
    code, said = fewrec("run", "check", "--data", "my.csv", "--learner", "bias,mf-scratch,gp", "--state", "user-cold",
                        "--shots", "5", "--seed", "0", "--episodes", "4", "--out", "out", "--offline")  # fmt: skip
    assert code == 0 and "mf-scratch" in said, said
    for command in (("report", "out"), ("show", "out"), ("verify", "out", "--data", "my.csv", "--sample", "1"),
                    ("compare", "out", "out"), ("export", "out", "reference")):  # fmt: skip
        code, said = fewrec(*command, FEWREC_OFFLINE="1")
        assert code == 0, said
    manifest = json.loads((folder / "reference" / "manifest.json").read_text())
    assert len(manifest["cells"]) >= 3


def test_recommendations(fewrec):
    code, said = fewrec("recommend", "--data", "my.csv", "--items", "items.csv", "--ratings", "mine.csv", "--offline")
    assert code == 0 and "Film" in said, said
    code, said = fewrec("ask", "--data", "my.csv", "--items", "items.csv", "--ratings", "mine.csv", "--offline")
    assert code == 0 and "Film" in said, said


def test_lists(fewrec):
    for what in ("learners", "data", "suites", "weights"):
        assert fewrec("list", what, FEWREC_OFFLINE="1")[0] == 0


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("data", "fetch", "ml-100k", "--offline"), "ml-100k is not in the cache"),
        (("data", "fetch", "all-MiniLM-L6-v2", "--offline"), "is not in the cache"),
        (("run", "smoke", "--dataset", "ml-1m", "--offline"), "ml-1m is not in the cache"),
        (("run", "quick", "--data", "my.csv", "--learner", "bert-finetune", "--backbone", "some/model", "--offline"),
         "some/model is not in the model hub's cache, and offline mode forbids to fetch it"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_one_line(fewrec, command, said):
    code, output = fewrec(*command)
    errors = [line for line in output.splitlines() if line.startswith("error:")]
    assert code == 2 and len(errors) == 1 and said in errors[0], output
