"""Readers of the formats of cards: whatever lies in the folder is a data set, or an error that names the file."""

from __future__ import annotations

import gzip
import json

import pytest

from fewrec.data.cards import load_card
from fewrec.data.load import READERS, read_files
from fewrec.data.readers.movielens_100k import GENRES
from tests.data.test_clover import FILES as CLOVER
from tests.data.test_formats import BX, META_2018, MIND, ML_1M, ML_CSV, REVIEWS_2018
from tests.fuzz.harness import Target
from tests.fuzz.inputs import folders, inside_json
from tests.fuzz.invariants import holds


def lines(*entries: dict) -> bytes:
    return "".join(json.dumps(entry) + "\n" for entry in entries).encode()


def packed(files: dict) -> dict[str, bytes]:
    return {name: gzip.compress(content, mtime=0) for name, content in files.items()}


def encoded(files: dict[str, str], encoding: str = "utf-8") -> dict[str, bytes]:
    return {name: content.encode(encoding) for name, content in files.items()}


_FLAGS = "|".join("1" if name in ("Action", "Drama") else "0" for name in GENRES)
_2023 = [
    {"rating": 5.0, "title": "x", "parent_asin": "P1", "user_id": "U2", "timestamp": 1599450218750},
    {"rating": 2.0, "images": [{"a": 1}], "parent_asin": "P1", "user_id": "U1", "timestamp": 1527475218999},
]
_META_2023 = [
    {"parent_asin": "P1", "title": "A card", "categories": ["Gift", "Gift"], "description": ["First.", "Second."]}
]
_GOODBOOKS = "book_id,goodreads_book_id,isbn,authors,original_publication_year,title\n" \
    '1,2767052,439023483,Suzanne Collins,2008.0,"The Hunger Games (The Hunger Games, #1)"\n' \
    '2,3,439554934,"J.K. Rowling, Mary GrandPré",,Harry Potter\n3,4,,Homer,-750.0,The Odyssey\n'  # fmt: skip
SAMPLES = {  # format: (card, stem, files)
    "movielens-100k": ("ml-100k", "u", {
        "u.data": b"2\t10\t5\t881250949\n1\t2\t3\t881250950\n10\t2\t1\t881250951\n1\t10\t4\t881250952\n",
        "u.item": f"2|GoldenEye (1995)|01-Jan-1995||http://a|{_FLAGS}\n10|Mis\xe9rables (1995) (V)|1995||http://b|{_FLAGS}\n".encode("latin-1"),
        "u.user": b"10|53|F|other|94043\n1|24|M|technician|85711\n2|23|M|writer|32067\n",
    }),
    "movielens-dat": ("ml-1m", "", encoded(ML_1M, "latin-1")),
    "movielens-csv": ("ml-latest-small", "", encoded(ML_CSV)),
    "movietweetings": ("movietweetings", "", {
        "ratings.dat": b"1::0002844::0::1365029107\n2::1853728::8::1366576639\n1::0002844::10::1366576640\n",
        "movies.dat": "0002844::Fantômas (1913)::Crime|Drama\n1853728::Django (2012)::\n".encode(),
    }),
    "recbole-atomic": ("ml-100k", "u", {
        "u.inter": b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n2\t10\t5\t881250949\n1\t2\t3\t8812\n",
        "u.item": b"item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
            b"2\tGoldenEye\t1995\tAction War\n10\tX\t1990\tDrama\n",
        "u.user": b"user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
            b"1\t24\tM\ttechnician\t85711\n2\t23\tM\twriter\t3\n",
    }),
    "book-crossing": ("book-crossing", "", encoded(BX, "latin-1")),
    "goodbooks": ("goodbooks-10k", "", encoded({"ratings.csv": "user_id,book_id,rating\n1,2,5\n2,1,4\n2,3,3\n",
    "books.csv": _GOODBOOKS})),
    "amazon-2018": ("amazon-2018-gift-cards", "", {
        "a/Gift_Cards_5.json": lines(*REVIEWS_2018), **packed({"b/meta_Gift_Cards.json.gz": lines(*META_2018)}),
    }),
    "amazon-2023": ("amazon-2023-gift-cards", "", {
        **packed({"a/Gift_Cards.jsonl.gz": lines(*_2023)}), "b/meta_Gift_Cards.jsonl": lines(*_META_2023),
    }),
    "mind": ("mind-small", "", encoded(MIND)),
    "jester": ("jester", "", {
        "jester_ratings.dat": b"1\t\t5\t\t0.219\n1\t\t1\t\t-9.281\n2\t\t5\t\t10.0\n",
        "jester_items.dat": b"1:\n<p>\nA man &quot;Bad news!&quot;<br/>\n</p>\n5:\n<p>\nQ. What's <b>up</b>?\n</p>\n",
    }),
    "jester-matrix": ("jester-1", "", {"jester-data-1.csv": b"2,-7.82,99,8.79\n1,99,99,0\n",
    "jester-data-2.csv": b"2,1,2,99.0\n"}),
    "anime": ("anime", "", encoded({
        "rating.csv": "user_id,anime_id,rating\n1,20,-1\n1,24,10\n2,20,7\n",
        "anime.csv": 'anime_id,name,genre,type\n24,School &quot;Rumble&quot;,"Comedy, Romance",TV\n20,Naruto,,TV\n',
    })),
    "clover": ("clover-ml-100k", "", {f"{name}.json": json.dumps(content).encode() for name,
    content in CLOVER.items()}),
}  # fmt: skip


@pytest.mark.parametrize("format", sorted(READERS))
def test_a_folder_in_a_known_format_is_a_data_set_or_an_error_that_names_the_file(fuzz, format):
    name, stem, files = SAMPLES[format]
    card = load_card(name)

    def read(folder):
        holds(read_files(card, folder, format, stem))

    target = Target(f"reader-{format}", "`fewrec.data.load.read_files`", read, names=(f"{card.name}: ",))
    fuzz(target, [files], folders([files], inside=inside_json))
