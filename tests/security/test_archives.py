"""Archives and packed files that mean harm: what they name, what they are, and what they unpack to.

That members with ``..`` or absolute names write nothing outside is in tests/data/test_fetch.py.
"""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import tracemalloc
import warnings
import zipfile

import pytest

from fewrec.data import download
from fewrec.data.cards import Card
from fewrec.data.own import load_own
from fewrec.data.readers import packed
from fewrec.data.sources import ArchiveSource
from fewrec.errors import DataError

URL = "https://files.invalid/data.zip"


def zipped(*members, **options) -> bytes:
    """Return a ZIP archive of (ZipInfo or name, content) pairs."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", options.get("compression", zipfile.ZIP_DEFLATED)) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return out.getvalue()


def special(name: str, mode: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.create_system, entry.external_attr = 3, mode << 16
    return entry


def unpack(content: bytes, folder, name="a.csv"):
    """Unpack one member as a fetched archive is; return the folder's files."""
    folder.mkdir(exist_ok=True)
    (folder.parent / "archive.zip").write_bytes(content)
    source = ArchiveSource(type="archive", url=URL, files={name: ""})
    download._extract(folder.parent / "archive.zip", source, folder)
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def refused(content: bytes, folder, name="a.csv") -> str:
    with pytest.raises(DataError) as caught:
        unpack(content, folder, name)
    assert "\n" not in str(caught.value) and not [p for p in folder.rglob("*") if p.is_symlink()]
    return str(caught.value)


def test_a_plain_member_is_unpacked_and_nothing_else(tmp_path):
    content = zipped(("a.csv", b"1"), ("b\\..\\..\\c", b"2"), ("C:\\evil", b"3"), ("d\x1b[2J", b"4"))
    assert unpack(content, tmp_path / "out") == ["a.csv"]


@pytest.mark.parametrize(
    ("mode", "said"),
    [(stat.S_IFLNK | 0o777, "is a link"), (stat.S_IFCHR | 0o666, "is a special file"), (stat.S_IFDIR | 0o777, "folder"),
     (stat.S_IFIFO | 0o666, "is a special file"), (stat.S_IFSOCK | 0o666, "is a special file")],
)  # fmt: skip
def test_a_member_that_is_no_file_is_refused(mode, said, tmp_path):
    assert said in refused(zipped((special("a.csv", mode), b"/etc/passwd")), tmp_path / "out")


@pytest.mark.parametrize("second", ["a.csv", "a.csv\x00.exe"])  # what is behind NUL is cut off when it is read
def test_a_name_that_stands_twice_is_refused(second, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = zipped(("a.csv", b"1"), (second, b"2"))
    assert "holds 2 files of the name a.csv" in refused(content, tmp_path / "out")


def test_an_encrypted_member_is_refused(tmp_path):
    content = bytearray(zipped(("a.csv", b"12345678901234567890")))
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + flags] |= 1
    assert "is encrypted" in refused(bytes(content), tmp_path / "out")


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "gz"])
def test_an_archive_of_another_kind_is_refused(kind, tmp_path):
    out = io.BytesIO()
    if kind == "gz":
        out.write(gzip.compress(b"1"))
    else:
        with tarfile.open(fileobj=out, mode="w:gz" if kind == "tar.gz" else "w") as archive:
            link = tarfile.TarInfo("a.csv")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
    assert "is not a readable archive" in refused(out.getvalue(), tmp_path / "out")


@pytest.mark.parametrize(
    ("compression", "said"),
    [(zipfile.ZIP_DEFLATED, "to 100,000,000 bytes, as no data do"), (zipfile.ZIP_BZIP2, "not packed as ZIP files"),
     (zipfile.ZIP_LZMA, "not packed as ZIP files")],
)  # fmt: skip
def test_a_member_that_unpacks_to_far_more_is_refused_before_it_is_written(compression, said, tmp_path):
    content = zipped(("a.csv", bytes(100_000_000)), compression=compression)
    assert len(content) < 200_000
    assert said in refused(content, tmp_path / "out")
    assert not (tmp_path / "out" / "a.csv").exists()


def test_a_member_that_lies_about_its_size_gives_no_more_than_it_says(tmp_path):
    content = bytearray(zipped(("a.csv", bytes(100_000_000))))
    for signature, size in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = content.index(signature) + size
        content[at : at + 4] = (1000).to_bytes(4, "little")
    assert "is not a readable archive" in refused(bytes(content), tmp_path / "out")  # its checksum is another
    assert all(path.stat().st_size <= 1000 for path in (tmp_path / "out").iterdir())


def test_an_archive_in_an_archive_is_a_file_like_any_other(tmp_path):
    inner = zipped(("../evil.txt", b"evil"))
    assert unpack(zipped(("a.csv", inner)), tmp_path / "out") == ["a.csv"]
    assert (tmp_path / "out" / "a.csv").read_bytes() == inner


@pytest.mark.parametrize("damage", range(6))
def test_a_broken_member_is_one_line(damage, tmp_path):
    content = bytearray(zipped(("a.csv", bytes(range(256)) * 40), compression=(8, 0)[damage % 2]))
    at = 40 + 7 * damage
    content[at : at + 20] = b"\xff" * 20
    assert "is not a readable archive" in refused(bytes(content), tmp_path / "out")


@pytest.mark.parametrize(
    "name",
    ["../a", "a/../../b", "/etc/passwd", "\\\\host\\share", "C:a", "a\x00b", "a\x1b[2Jb", "a\nb", "a\u202eb",
     ".verified.json", "a/.hidden", ".", ""],
)  # fmt: skip
def test_a_card_names_no_file_that_is_not_plain(name):
    with pytest.raises(ValueError, match="is not a plain path"):
        ArchiveSource(type="archive", url=URL, files={name: "0" * 64})


@pytest.mark.parametrize("name", ["../x", "a/b", ".x", "a\n", "a\x1b", "a\x00", "", "a\\b", "a b"])
def test_a_card_has_a_name_that_is_one_part_of_a_path(name, tmp_path):
    card = {
        "title": "", "licence": "", "citation": "", "homepage": "", "scale": {"low": 1, "high": 5},
        "columns": {"ratings": ["user", "item", "rating"]},
        "sources": [{"type": "archive", "url": URL, "files": {"a.csv": ""}}],
    }  # fmt: skip
    Card.model_validate(card | {"name": "plain"})
    with pytest.raises(ValueError, match="begins like a word"):
        Card.model_validate(card | {"name": name})


def test_a_download_is_cut_off_at_the_largest_size(tmp_path, monkeypatch, server):
    from rich.progress import Progress

    monkeypatch.setattr(download, "LARGEST", 1000)
    server.content = bytes(1001)
    with pytest.raises(DataError, match="the server says 1,001 bytes"):
        download.download(server.url, tmp_path / "a", Progress(disable=True))
    assert not (tmp_path / "a").exists()


def test_a_packed_table_that_unpacks_to_far_more_is_refused_in_little_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(packed, "FREE_BYTES", 1 << 20)
    file = tmp_path / "bomb.csv.gz"
    with gzip.open(file, "wb") as out:
        out.write(b"user,item,rating\n")
        for _ in range(200):
            out.write(b"1,1,5\n" * 200_000)
    assert file.stat().st_size < 2_000_000
    tracemalloc.start()
    with pytest.raises(DataError, match=r"bomb.csv.gz: .* bytes of gzip unpack to more than .*as no table does"):
        load_own(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 240_000_000  # all of it is 240 MB of text alone


def test_a_packed_table_of_the_usual_kind_is_read(tmp_path):
    with gzip.open(tmp_path / "my.csv.gz", "wt") as out:
        out.write("user,item,rating\n" + "".join(f"{u},{i},{1 + (u * i) % 5}\n" for u in range(300) for i in range(50)))
    assert len(load_own(tmp_path / "my.csv.gz").table) == 15_000
