"""Sources beside archives and packages: files at an address, files by hand, files whose checksum nobody publishes."""

from __future__ import annotations

import gzip

import pytest

from fewrec.data.cards import describe
from fewrec.data.fetch import fetch, is_cached
from fewrec.data.load import load_dataset
from fewrec.errors import DataError

RATINGS = b"user_id,book_id,rating\n1,1,5\n2,1,3\n"
BOOKS = b"book_id,authors,original_publication_year,title\n1,Homer,,The Iliad\n"


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def files(server):
    """A source of one file without a published checksum, on the local server."""
    server.content = gzip.compress(RATINGS)
    return {"type": "files", "url": server.url.removesuffix("/data.zip"), "files": {"a/ratings.csv.gz": ""}}


@pytest.fixture
def by_hand():
    names = {"ratings.csv": "", "books.csv": ""}
    return {
        "type": "manual",
        "url": "https://example.org/log-in",
        "how": "log in",
        "format": "goodbooks",
        "files": names,
    }


def test_files_at_an_address_are_fetched_once_as_they_are(card_of, files, server, cache, sha):
    card = card_of(files)
    fetched = fetch(card, cache=cache)
    assert (fetched.folder / "a/ratings.csv.gz").read_bytes() == server.content
    assert fetched.files == {"a/ratings.csv.gz": sha(server.content)}
    assert fetch(card, cache=cache).files == fetched.files
    assert server.requests == [("/a/ratings.csv.gz", None)]


def test_a_published_checksum_of_a_file_is_checked(card_of, files, server, cache, sha):
    wrong = card_of(files | {"files": {"a/ratings.csv.gz": "0" * 64}})
    with pytest.raises(DataError, match=f"a/ratings.csv.gz: wrong checksum: .*actual {sha(server.content)}"):
        fetch(wrong, cache=cache)
    right = card_of(files | {"files": {"a/ratings.csv.gz": sha(server.content)}})
    assert fetch(right, cache=cache).source.is_pinned


def test_a_missing_file_is_named_by_its_address(card_of, files, server, cache):
    server.script = [404]
    with pytest.raises(DataError, match=r"http://127.0.0.1:\d+/a/ratings.csv.gz: the server answered 404"):
        fetch(card_of(files), cache=cache)


def test_an_unpublished_checksum_is_recorded_and_checked_ever_after(card_of, files, server, cache):
    card, lines = card_of(files), []
    path = fetch(card, cache=cache).folder / "a/ratings.csv.gz"
    first = path.read_bytes()
    path.write_bytes(gzip.compress(b"other"))
    assert not is_cached(card, cache)
    assert fetch(card, cache=cache, notify=lines.append).folder == path.parents[1] and path.read_bytes() == first
    assert len(lines) == 1 and "a/ratings.csv.gz is damaged" in lines[0]


def test_an_address_that_serves_another_file_later_is_refused(card_of, files, server, cache):
    card = card_of(files)
    path = fetch(card, cache=cache).folder / "a/ratings.csv.gz"
    path.unlink()
    server.content = gzip.compress(b"something else")
    with pytest.raises(DataError, match="is not what it was at the first download .* to take the new one"):
        fetch(card, cache=cache, notify=lambda line: None)
    with pytest.raises(DataError, match="missing or unreadable .*offline"):
        fetch(card, cache=cache, offline=True)


def test_a_download_whose_record_is_gone_is_fetched_again(card_of, files, cache):
    card, lines = card_of(files), []
    (fetch(card, cache=cache).folder / ".verified.json").unlink()
    fetch(card, cache=cache, notify=lines.append)
    assert len(lines) == 1 and "the record of its first download (.verified.json) is gone" in lines[0]


def test_the_members_of_a_verified_archive_need_no_checksum_of_their_own(card_of, server, zip_of, cache, sha):
    server.content = zip_of({"x/a.csv": RATINGS}).read_bytes()
    entry = {"type": "archive", "url": server.url, "root": "x", "sha256": sha(server.content), "files": {"a.csv": ""}}
    card = card_of(entry)
    assert fetch(card, cache=cache).files == {"a.csv": sha(RATINGS)}
    assert describe(card)["checksum"] == "published; checked at every use"
    with pytest.raises(DataError, match="wrong checksum"):
        fetch(card_of(entry | {"sha256": "0" * 64}), cache=cache)


@pytest.mark.parametrize("type", ["archive", "files"])
def test_trust_on_first_use_needs_https(card_of, type):
    with pytest.raises(ValueError, match="without a published SHA-256 the address has to be https"):
        card_of({"type": type, "url": "http://example.org/a", "files": {"a": ""}})
    assert card_of({"type": type, "url": "http://example.org/a", "files": {"a": "0" * 64}})


def test_weights_are_never_trusted_on_first_use():
    from fewrec.data.cards import WeightsCard

    entry = {"type": "hub", "repository": "a/b", "files": {"m.safetensors": ""}}
    with pytest.raises(ValueError, match="weights need the SHA-256 of every file"):
        WeightsCard(name="w", title="", licence="", citation="", homepage="", sources=[entry])


@pytest.mark.parametrize("offline", [False, True])
def test_files_by_hand_are_asked_for_with_address_and_folder_in_one_line(card_of, by_hand, cache, offline):
    folder = cache / "datasets" / "tiny" / "by-hand"
    with pytest.raises(DataError) as caught:
        fetch(card_of(by_hand), cache=cache, offline=offline)
    assert str(caught.value) == (
        f"tiny: fetch ratings.csv, books.csv by hand from https://example.org/log-in (log in), "
        f"and put them into the folder {folder}"
    )


def test_files_by_hand_are_trusted_when_first_seen_and_verified_afterwards(card_of, by_hand, cache, sha):
    card, folder = card_of(by_hand), cache / "datasets" / "tiny" / "by-hand"
    folder.mkdir(parents=True)
    (folder / "ratings.csv").write_bytes(RATINGS)
    with pytest.raises(DataError, match="fetch books.csv by hand"):
        fetch(card, cache=cache)
    (folder / "books.csv").write_bytes(BOOKS)
    assert fetch(card, cache=cache, offline=True).files == {"ratings.csv": sha(RATINGS), "books.csv": sha(BOOKS)}
    (folder / "books.csv").write_bytes(BOOKS + b"2,A,1,B\n")
    with pytest.raises(
        DataError, match=r"books.csv is damaged .*; get it again from https://example.org/log-in, or del"
    ):
        fetch(card, cache=cache)
    (folder / "books.csv").write_bytes(BOOKS)
    assert is_cached(card, cache)


def test_a_published_checksum_of_a_file_by_hand_is_checked(card_of, by_hand, cache, sha):
    folder = cache / "datasets" / "tiny" / "by-hand"
    folder.mkdir(parents=True)
    (folder / "ratings.csv").write_bytes(RATINGS)
    with pytest.raises(DataError, match=f"ratings.csv is damaged .expected sha256 {'1' * 64}"):
        fetch(card_of(by_hand | {"files": {"ratings.csv": "1" * 64}}), cache=cache)


def test_files_by_hand_come_last(card_of, files, by_hand):
    with pytest.raises(ValueError, match="files to fetch by hand are one source, and the last one"):
        card_of(by_hand, files)


def test_a_data_set_by_hand_tells_its_sources_and_counts(card_of, by_hand, cache, tmp_path, sha):
    folder = cache / "datasets" / "tiny" / "by-hand"
    folder.mkdir(parents=True)
    (folder / "ratings.csv").write_bytes(RATINGS)
    (folder / "books.csv").write_bytes(BOOKS)
    card = card_of(by_hand, expected={"users": 2})
    path = tmp_path / "tiny.toml"
    path.write_text(toml(card), encoding="utf-8")
    data = load_dataset(str(path), cache=cache)
    assert data.sources == {
        "https://example.org/log-in (by hand): books.csv": sha(BOOKS),
        "https://example.org/log-in (by hand): ratings.csv": sha(RATINGS),
    }
    assert data.catalog.text.title.tolist() == ["The Iliad"]
    path.write_text(toml(card).replace("users = 2", "users = 3"), encoding="utf-8")
    with pytest.raises(DataError, match="tiny: the files hold 2 users, the card says 3"):
        load_dataset(str(path), cache=cache)


def test_a_card_says_what_is_known_of_its_checksums_and_size(card_of, files, by_hand):
    known = {"type": "archive", "url": "https://example.org/a.zip", "sha256": "0" * 64, "files": {"a": ""}}
    entries = describe(card_of(files, expected={}))
    assert (entries["checksum"], entries["size"]) == ("not published; recorded at first download", "not published")
    entries = describe(card_of(known, by_hand, expected={"users": 3}, published="about 5 ratings"))
    where = "https://example.org/log-in (by hand)"
    assert entries["checksum"] == f"not published; recorded at first download ({where})"
    assert entries["size"] == "3 users; about 5 ratings"


def toml(card) -> str:
    """Return a card of one source by hand as its file."""
    source = card.sources[0]
    lines = [f'{key} = "{getattr(card, key)}"' for key in ("name", "title", "licence", "citation", "homepage")]
    lines += ["[scale]", "low = 1", "high = 5", "[columns]", 'ratings = ["user", "item", "rating"]']
    lines += ["[expected]", f"users = {card.expected.users}", "[[sources]]"]
    lines += [f'{key} = "{getattr(source, key)}"' for key in ("type", "url", "how", "format")]
    return "\n".join([*lines, "[sources.files]", *(f'"{name}" = ""' for name in source.files)])
