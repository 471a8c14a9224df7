"""What the campaign's runs are made of: ratings behind a slow server, a suite, folders, and processes with an end."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .server import SlowServer

HERE = Path(__file__).resolve().parent
SECONDS = 240.0  # after which a run is taken to hang
_TIMES = re.compile(r"_s$|_ms|_mb$|_per_s$")  # columns of costs, which differ from run to run
_PROGRESS = re.compile(r"^\[\d+/\d+\] ")

SUITE = """
title = "what the fault campaign runs"
datasets = ["faults"]
states = ["user-cold"]
n_users = 2
shots = [2, 3]
n_query = 6
seeds = [0]
episodes = {episodes}
block = {block}
learners = [{learners}]
"""
LEARNERS = ("bias", "mf-foldin", "slow-means")

CARD = """
name = "faults"
title = "Synthetic ratings of the fault campaign"
licence = "none"
citation = "none"
homepage = "none"
scale = {{ low = 1, high = 5, step = 1 }}
columns = {{ ratings = ["user", "item", "rating", "timestamp"], items = ["title", "genres"] }}

[[sources]]
type = "archive"
url = "{url}"
sha256 = "{archive}"
format = "movielens-csv"

[sources.files]
"ratings.csv" = "{ratings}"
"movies.csv" = "{movies}"
"""


@dataclass(frozen=True)
class Ended:
    """How a process ended: ``code`` (negative: the signal), what it printed, and after how many seconds."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def said(self) -> list[str]:
        """The lines for its user: of the standard error, without the progress."""
        return [line for line in self.err.splitlines() if line.strip() and not _PROGRESS.match(line)]

    @property
    def traceback(self) -> bool:
        return "Traceback (most recent call last)" in self.err + self.out


@dataclass
class Process:
    """A run that has begun. ``log``: the file of its phases, if it tells them."""

    popen: subprocess.Popen
    begun: float
    log: Path | None = None

    def signal(self, number: int) -> None:
        """Send a signal to the run and all that it has started."""
        os.killpg(self.popen.pid, number)

    def end(self, seconds: float = SECONDS) -> Ended:
        """Wait for the end; a process that hangs is killed, and ends with code -9 after ``seconds``."""
        try:
            out, err = self.popen.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            out, err = self.popen.communicate()
        return Ended(self.popen.returncode, out, err, time.monotonic() - self.begun)

    def phases(self) -> list[str]:
        """Return the phases that have begun so far, in order."""
        return self.log.read_text().split() if self.log is not None and self.log.exists() else []

    def wait_for(self, phase: str, occurrence: int = 1) -> bool:
        """Return True once ``phase`` has begun so many times, False if the run ends before."""
        limit = time.monotonic() + SECONDS
        while self.phases().count(phase) < occurrence:
            if self.popen.poll() is not None or time.monotonic() > limit:
                return False
            time.sleep(0.005)
        return True


@dataclass
class Place:
    """The folders of one run: results and cache."""

    folder: Path

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def log(self) -> Path:
        return self.folder / "phases"


@dataclass
class World:
    """Everything that is the same for all runs of a campaign, in ``folder``."""

    folder: Path
    server: SlowServer = field(default_factory=SlowServer)
    _places: int = 0

    def __post_init__(self) -> None:
        from fewrec.data.synthetic import make_synthetic

        (self.folder / "cards").mkdir(parents=True)
        data = make_synthetic(n_users=60, n_items=40, ratings_per_user=20, seed=3)
        table = data.table
        ratings = _csv(
            ["userId", "movieId", "rating", "timestamp"],
            zip(table.user.tolist(), table.item.tolist(), table.rating.tolist(), table.timestamp.tolist(), strict=True),
        )
        text = data.catalog.text
        movies = _csv(["movieId", "title", "genres"], zip(range(40), text["title"], text["genres"], strict=True))
        files = {"ratings.csv": ratings, "movies.csv": movies}
        self.server.content = archive_of({**files, "padding.bin": bytes(range(256)) * 1024})
        sums = {"archive": self.server.content, "ratings": ratings, "movies": movies}
        card = CARD.format(url=self.server.url, **{name: _sha256(content) for name, content in sums.items()})
        (self.folder / "cards" / "faults.toml").write_text(card)
        self.suite = self.write_suite("faults")

    def write_suite(self, name: str, learners: Iterable[str] = LEARNERS, episodes: int = 6, block: int = 2) -> Path:
        path = self.folder / f"{name}.toml"
        listed = ", ".join(f'"{learner}"' for learner in learners)
        path.write_text(SUITE.format(episodes=episodes, block=block, learners=listed))
        return path

    def place(self) -> Place:
        """Return new, empty folders."""
        self._places += 1
        folder = self.folder / f"run-{self._places:03d}"
        folder.mkdir()
        return Place(folder)

    def environment(self, place: Place, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment of a run: nothing of the user's own settings, and no proxy before the local server."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("FEWREC_") and not k.lower().endswith("_proxy")}
        kept.pop("PYTHONPATH", None)
        return {
            **kept, "FEWREC_CACHE": str(place.cache), "FEWREC_CARDS": str(self.folder / "cards"),
            "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1", **(more or {}),
        }  # fmt: skip

    def start(
        self,
        place: Place,
        phase: str | None = None,
        pause: float = 0.0,
        *,
        suite: Path | None = None,
        arguments: Iterable[str] = (),
        environment: Mapping[str, str] | None = None,
        command: Iterable[str] | None = None,
    ) -> Process:
        """Start ``fewrec run`` in a place, telling its phases where ``phase`` names the one to draw out.

        ``command`` are the arguments of another command of fewrec instead.
        """
        words = list(command) if command is not None else [
            "run", str(suite or self.suite), "--plugin", str(HERE / "slow_learner.py"), "--out", str(place.out),
            "--threads", "1", "--device", "cpu", *arguments,
        ]  # fmt: skip
        head = ["-m", "fewrec"]
        if phase is not None:
            place.log.unlink(missing_ok=True)
            head = [str(HERE / "child.py"), str(place.log), phase, str(pause)]
        popen = subprocess.Popen(
            [sys.executable, "-P", *head, *words], cwd=self.folder, env=self.environment(place, environment),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        return Process(popen, time.monotonic(), place.log if phase is not None else None)

    def run(self, place: Place, **options: object) -> Ended:
        """Run ``fewrec run`` in a place to its end, as a user would."""
        return self.start(place, **options).end()  # type: ignore[arg-type]

    def close(self) -> None:
        self.server.close()


def final_state(out: Path) -> dict[str, bytes]:
    """Return what has to be the same bytes in every run: scores, predictions, records, states and the tables' figures.

    Costs are left out, and so are files that only they are in. Hidden files but the lock are told: none may be left.
    """
    state = {}
    for file in sorted(out.rglob("*")):
        name = file.relative_to(out).as_posix()
        if not file.is_file() or name == ".lock":
            continue
        if file.name.startswith("."):
            state[name] = b"left over"
        elif file.suffix in (".parquet", ".safetensors") or file.name in ("cell.json", "begun.json", "manifest.json"):
            state[name] = file.read_bytes()
        elif file.name.startswith("sums-"):
            state[name] = file.read_bytes()
        elif name == "leaderboard.csv":
            state[name] = _without_costs(file.read_text())
    return state


def differences(wanted: Mapping[str, bytes], found: Mapping[str, bytes]) -> list[str]:
    """Return one line for each file that is missing, too many, or of other bytes; files set aside are no difference."""
    lines = [f"{name} is missing" for name in sorted(set(wanted) - set(found))]
    extra = sorted(name for name in set(found) - set(wanted) if not name.startswith("superseded/"))
    lines += [f"{name} is left over" for name in extra]
    return lines + [
        f"{name} has other bytes" for name in sorted(set(wanted) & set(found)) if wanted[name] != found[name]
    ]


def complete_files(out: Path) -> dict[str, tuple[int, int]]:
    """Return (inode, time of change) of the files of complete blocks and meta-fits, none of which may be made again."""
    found = [*out.glob("cells/*/block-*.parquet"), *out.glob("meta/*/meta.json")]
    return {str(file.relative_to(out)): (file.stat().st_ino, file.stat().st_mtime_ns) for file in found}


def _without_costs(text: str) -> bytes:
    rows = list(csv.reader(io.StringIO(text)))
    kept = [i for i, name in enumerate(rows[0]) if not _TIMES.search(name)] if rows else []
    return "\n".join(",".join(row[i] for i in kept) for row in rows).encode()


def archive_of(files: Mapping[str, bytes]) -> bytes:
    """Return a ZIP archive, the same bytes each time."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def _csv(header: list[str], rows: Iterable[Iterable[object]]) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue().encode()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
