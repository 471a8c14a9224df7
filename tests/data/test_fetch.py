"""Fetching: verified, retried, atomic, safe from other processes and hostile archives; a local server is the net."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from fewrec.data.cards import WeightsCard
from fewrec.data.fetch import fetch, is_cached
from fewrec.errors import DataError

MEMBERS = {"data/a.csv": b"user,item,rating\n1,1,5\n", "data/b.csv": b"b" * 400_000, "data/unwanted.txt": b"x"}


@pytest.fixture
def source(server, zip_of, sha):
    """An archive source on the local server, of two of its three members."""
    archive = zip_of(MEMBERS).read_bytes()
    server.content = archive
    files = {name: sha(MEMBERS[f"data/{name}"]) for name in ("a.csv", "b.csv")}
    return {"type": "archive", "url": server.url, "sha256": sha(archive), "root": "data", "files": files}


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def leftovers(cache: Path) -> list[str]:
    return [str(path) for path in cache.rglob("*") if ".incoming" in str(path) or path.name == "archive.zip"]


def test_an_archive_is_fetched_once_and_only_its_named_members_are_kept(card_of, source, server, cache):
    card = card_of(source)
    assert not is_cached(card, cache)
    fetched = fetch(card, cache=cache)
    assert (fetched.folder / "a.csv").read_bytes() == MEMBERS["data/a.csv"]
    assert sorted(p.name for p in fetched.folder.iterdir() if p.name[0] != ".") == ["a.csv", "b.csv"]
    assert fetch(card, cache=cache).folder == fetched.folder
    assert len(server.requests) == 1
    assert is_cached(card, cache) and leftovers(cache) == []


def test_a_wrong_archive_checksum_names_file_expected_and_actual(card_of, source, server, cache, sha):
    card = card_of(source | {"sha256": "0" * 64})
    with pytest.raises(DataError) as caught:
        fetch(card, cache=cache)
    message = str(caught.value)
    assert server.url in message and "0" * 64 in message and sha(server.content) in message
    assert "\n" not in message and leftovers(cache) == [] and not is_cached(card, cache)


def test_a_wrong_member_checksum_names_file_expected_and_actual(card_of, source, cache, sha):
    card = card_of(source | {"files": {"a.csv": "1" * 64}})
    with pytest.raises(DataError, match=f"data/a.csv.*expected sha256 {'1' * 64}, actual {sha(MEMBERS['data/a.csv'])}"):
        fetch(card, cache=cache)
    assert leftovers(cache) == [] and not is_cached(card, cache)


def test_a_missing_member_is_named(card_of, source, cache):
    with pytest.raises(DataError, match="holds no data/c.csv"):
        fetch(card_of(source | {"files": {"c.csv": "1" * 64}}), cache=cache)


def test_something_that_is_no_archive_is_refused(card_of, source, server, cache, sha):
    server.content = b"<html>please log in</html>"
    with pytest.raises(DataError, match="not a readable archive"):
        fetch(card_of(source | {"sha256": sha(server.content)}), cache=cache)


def test_a_broken_download_continues_where_it_broke_off(card_of, source, server, cache):
    server.script = ["cut"]
    fetched = fetch(card_of(source), cache=cache)
    assert (fetched.folder / "b.csv").read_bytes() == MEMBERS["data/b.csv"]
    assert [wanted for _, wanted in server.requests] == [None, f"bytes={len(server.content) // 2}-"]


def test_a_broken_download_begins_anew_where_the_server_cannot_continue(card_of, source, server, cache):
    server.script, server.ranges = ["cut", 503], False
    fetched = fetch(card_of(source), cache=cache)
    assert (fetched.folder / "b.csv").read_bytes() == MEMBERS["data/b.csv"]
    assert len(server.requests) == 3


def test_a_server_that_keeps_failing_is_given_up_after_three_attempts(card_of, source, server, cache):
    server.script = [500] * 9
    with pytest.raises(DataError, match="the server answered 500"):
        fetch(card_of(source), cache=cache)
    assert len(server.requests) == 3 and leftovers(cache) == []


def test_a_missing_page_is_not_asked_for_again(card_of, source, server, cache):
    server.script = [404] * 9
    with pytest.raises(DataError, match="the server answered 404"):
        fetch(card_of(source), cache=cache)
    assert len(server.requests) == 1


def test_a_refused_connection_falls_through_to_the_package_with_one_line(card_of, source, wheel_of, cache, sha):
    requirement = wheel_of({"tiny_data/x/a.csv": b"1", "tiny_data/x/other.py": b"raise SystemExit"})
    package = {"type": "package", "requirement": requirement, "root": "tiny_data/x", "files": {"a.csv": sha(b"1")}}
    lines: list[str] = []
    fetched = fetch(card_of(source | {"url": "http://127.0.0.1:9/data.zip"}, package), cache=cache, notify=lines.append)
    assert fetched.source.label == f"package {requirement}"
    assert sorted(p.name for p in fetched.folder.iterdir() if p.name[0] != ".") == ["a.csv"]
    assert len(lines) == 1 and "can't be reached" in lines[0] and f"trying package {requirement}" in lines[0]


def test_when_no_source_works_each_is_named_with_its_reason(card_of, source, server, wheel_of, cache):
    wheel_of({})
    server.script = [404]
    package = {"type": "package", "requirement": "tiny-data==9.9", "files": {"a.csv": "0" * 64}}
    with pytest.raises(DataError) as caught:
        fetch(card_of(source, package), cache=cache, notify=lambda line: None)
    message = str(caught.value)
    assert "the server answered 404" in message and "tiny-data==9.9" in message and "\n" not in message


def test_offline_mode_refuses_to_download_and_uses_the_cache(card_of, source, server, cache, monkeypatch):
    card = card_of(source)
    with pytest.raises(DataError, match="tiny is not in the cache .* offline"):
        fetch(card, offline=True, cache=cache)
    monkeypatch.setenv("FEWREC_OFFLINE", "1")
    with pytest.raises(DataError, match="offline"):
        fetch(card, cache=cache)
    assert server.requests == []
    monkeypatch.delenv("FEWREC_OFFLINE")
    folder = fetch(card, cache=cache).folder
    assert fetch(card, offline=True, cache=cache).folder == folder


def test_a_damaged_file_in_the_cache_is_fetched_again(card_of, source, server, cache):
    card, lines = card_of(source), []
    damaged = fetch(card, cache=cache).folder / "a.csv"
    damaged.write_bytes(b"user,item,rating\n1,1,4\n")
    with pytest.raises(DataError, match="a.csv is damaged .*offline"):
        fetch(card, offline=True, cache=cache)
    assert fetch(card, cache=cache, notify=lines.append).folder == damaged.parent
    assert damaged.read_bytes() == MEMBERS["data/a.csv"]
    assert len(lines) == 1 and "a.csv is damaged" in lines[0]
    (damaged.parent / "b.csv").unlink()
    fetch(card, cache=cache, notify=lines.append)
    assert len(server.requests) == 3


def test_weights_are_read_again_only_when_size_or_time_have_changed(source, cache, server, sha, zip_of, monkeypatch):
    from fewrec.data import download

    archive = zip_of({"m.safetensors": b"weights"}, "w.zip").read_bytes()
    server.content = archive
    files = {"m.safetensors": sha(b"weights")}
    entry = {"type": "archive", "url": server.url, "sha256": sha(archive), "files": files}
    card = WeightsCard(name="w", title="w", licence="", citation="", homepage="", sources=[entry])
    path = fetch(card, cache=cache).folder / "m.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(download, "sha256_of", lambda path: pytest.fail("read again"))
        fetch(card, cache=cache)
    path.write_bytes(b"WEIGHTS")
    os.utime(path, ns=(1, 1))
    fetch(card, cache=cache, notify=lambda line: None)
    assert path.read_bytes() == b"weights"


def test_an_archive_cannot_write_outside_its_folder(card_of, source, server, cache, sha, zip_of):
    hostile = {**MEMBERS, "../evil.txt": b"evil", "/tmp/fewrec-evil.txt": b"evil", "data/../../evil.txt": b"evil"}
    server.content = zip_of(hostile).read_bytes()
    fetch(card_of(source | {"sha256": sha(server.content)}), cache=cache)
    assert not [path for path in cache.parent.rglob("*evil*")] and not Path("/tmp/fewrec-evil.txt").exists()


@pytest.mark.parametrize("name", ["../evil.txt", "/etc/evil", "a/../../evil", "..\\evil", "C:evil"])
def test_a_card_cannot_name_a_file_outside_its_folder(card_of, source, name):
    with pytest.raises(ValueError, match="not a plain path"):
        card_of(source | {"files": {name: "0" * 64}})


@pytest.mark.parametrize("requirement", ["tiny", "tiny>=1", "--index-url=http://x", "tiny==1 --pre", "git+https://x"])
def test_a_package_is_pinned_and_cannot_smuggle_options(card_of, requirement):
    with pytest.raises(ValueError, match="requirement"):
        card_of({"type": "package", "requirement": requirement, "files": {"a": "0" * 64}})


def test_what_a_killed_process_left_behind_is_removed(card_of, source, cache):
    stale = cache / "datasets" / "tiny" / ".incoming-abc"
    stale.mkdir(parents=True)
    (stale / "a.csv").write_bytes(b"half")
    fetch(card_of(source), cache=cache)
    assert leftovers(cache) == []


def test_a_cache_that_cannot_be_written_is_named(card_of, source, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DataError, match="file.*the cache can't be written.*FEWREC_CACHE"):
        fetch(card_of(source), cache=tmp_path / "file")


def test_concurrent_runs_fetch_once_and_all_get_the_files(card_of, source, server, cache):
    server.script = ["slow"]
    program = textwrap.dedent(
        """
        import json, sys
        from fewrec.data.cards import Card
        from fewrec.data.fetch import fetch
        print(fetch(Card.model_validate_json(sys.argv[1]), cache=sys.argv[2]).folder)
        """
    )
    command = [sys.executable, "-c", program, card_of(source).model_dump_json(), str(cache)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    folders = {run.communicate(timeout=60)[0].strip() for run in runs}
    assert [run.returncode for run in runs] == [0, 0]
    assert len(folders) == 1 and len(server.requests) == 1
    assert (Path(folders.pop()) / "b.csv").read_bytes() == MEMBERS["data/b.csv"]
