"""Offline mode opens no socket: commands run in a process in which any use of the network is an error and is counted.

That the hub isn't asked and that a missing data set is one line is in tests/data.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

WATCH = """
import os, sys
NETWORK = {"socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr",
           "socket.sendto", "socket.sendmsg"}
def watch(event, arguments):
    if event in NETWORK and not (event in ("socket.connect", "socket.bind") and isinstance(arguments[1], (str, bytes))):
        # An address that is a text is a socket of this machine's file system.
        file = os.open(os.environ["EVENTS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(file, f"{event} {arguments[1:]}\\n".encode())
        os.close(file)
        raise OSError(f"no network here: {event}")
sys.addaudithook(watch)
"""  # as sitecustomize it is in every Python that a command starts, too


@pytest.fixture
def folder(tmp_path):
    """A folder with a small file of ratings, its items, and one user's ratings."""
    rows = [f"u{u},i{i},{1 + (3 * u + i) % 5}\n" for u in range(60) for i in range(40)]
    (tmp_path / "my.csv").write_text("user,item,rating\n" + "".join(rows))
    (tmp_path / "items.csv").write_text("item,title\n" + "".join(f"i{i},Film {i}\n" for i in range(40)))
    (tmp_path / "mine.csv").write_text("item,rating\ni3,5\ni4,1\n")
    return tmp_path


@pytest.fixture
def watched(folder):
    """Run a command away from all caches; return (exit code, output, what it tried with the network)."""
    (folder / "watch").mkdir()
    (folder / "watch" / "sitecustomize.py").write_text(WATCH)
    events = folder / "events"

    def run(*arguments: object, **environment: str) -> tuple[int, str, str]:
        paths = {"FEWREC_CACHE": folder / "cache", "HF_HOME": folder / "hub", "EVENTS": events, "FEWREC_OFFLINE": "",
                 "PYTHONPATH": f"{folder / 'watch'}{os.pathsep}{ROOT}"}  # fmt: skip
        done = subprocess.run([sys.executable, "-P", "-m", "fewrec", *map(str, arguments)], cwd=folder, text=True,
                              env={**os.environ, "OMP_NUM_THREADS": "1", **{k: str(v) for k, v in paths.items()},
                                   **environment}, stdout=-1, stderr=subprocess.STDOUT, timeout=240)  # fmt: skip
        return done.returncode, done.stdout, events.read_text() if events.exists() else ""

    return run


@pytest.fixture
def fewrec(watched):
    """Run a command; return (exit code, output) after checking that neither it nor its children used the network."""

    def run(*arguments: object, **environment: str) -> tuple[int, str]:
        code, output, events = watched(*arguments, **environment)
        assert events == "", (events, output)
        return code, output

    return run


def test_the_watch_notices_what_a_command_asks_for_when_it_may(watched):
    code, output, events = watched("data", "fetch", "ml-latest-small")
    assert code == 2 and "getaddrinfo" in events, output


def test_the_watch_is_in_the_children_of_verify(watched, folder):
    program = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', CODE]).returncode)"
    code = "import socket; socket.getaddrinfo('files.invalid', 80)"
    environment = {**os.environ, "EVENTS": str(folder / "e"), "PYTHONPATH": str(folder / "watch")}
    command = [sys.executable, "-P", "-c", program.replace("CODE", repr(code))]
    done = subprocess.run(command, capture_output=True, env=environment)
    assert done.returncode == 1 and "getaddrinfo" in (folder / "e").read_text()


def test_a_suite_its_report_and_its_verification(fewrec, folder):
    code, said = fewrec("run", "check", "--data", "my.csv", "--learner", "bias,mf-scratch,gp", "--state", "user-cold",
                        "--shots", "5", "--seed", "0", "--episodes", "4", "--out", "out", "--offline")  # fmt: skip
    assert code == 0 and "mf-scratch" in said, said
    for command in (("report", "out"), ("show", "out"), ("verify", "out", "--data", "my.csv", "--cells", "1"),
                    ("compare", "out", "out"), ("export", "out", "reference")):  # fmt: skip
        code, said = fewrec(*command, FEWREC_OFFLINE="1")
        assert code == 0, said
    manifest = json.loads((folder / "reference" / "manifest.json").read_text())
    assert len(manifest["cells"]) >= 3


def test_a_suite_in_two_processes(fewrec):
    code, said = fewrec("run", "check", "--data", "my.csv", "--learner", "bias,gp", "--state", "user-cold",
                        "--shots", "5", "--seed", "0", "--episodes", "4", "--out", "out", "--offline",
                        "--jobs", "2")  # fmt: skip
    assert code == 0 and "gp" in said, said


def test_offline_mode_ends_with_the_call_that_asked_for_it(monkeypatch, folder):
    import fewrec
    from fewrec.errors import SuiteError

    monkeypatch.delenv("FEWREC_OFFLINE", raising=False)
    options = {"data": folder / "my.csv", "learners": ["bias"], "states": ["user-cold"], "shots": [5], "seeds": [0],
               "episodes": 4, "progress": False}  # fmt: skip
    fewrec.run("check", out=folder / "out", offline=True, **options)
    assert "FEWREC_OFFLINE" not in os.environ
    fewrec.recommend(folder / "mine.csv", dataset=folder / "my.csv", learner="bias", offline=True)
    assert "FEWREC_OFFLINE" not in os.environ
    monkeypatch.setenv("FEWREC_OFFLINE", "0")
    with pytest.raises(SuiteError):
        fewrec.run("check", out=folder / "out", offline=True, learners=["none"])
    assert os.environ["FEWREC_OFFLINE"] == "0"


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
        (("run", "check", "--data", "my.csv", "--state", "user-cold", "--shots", "5", "--learner", "bert-finetune",
          "--backbone", "some/model", "--out", "out", "--offline"),
         "some/model is not in the model hub's cache, and offline mode forbids to fetch it"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_one_line(fewrec, command, said):
    code, output = fewrec(*command)
    errors = [line for line in output.splitlines() if line.startswith("error:")]
    assert code == 2 and len(errors) == 1 and said in errors[0], output
