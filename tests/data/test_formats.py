"""Readers of the official formats, on hand-written files: encodings, separators, quotes, entities, what is left out."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from fewrec.data.cards import load_card
from fewrec.data.load import READERS, read_files
from fewrec.errors import DataError


@pytest.fixture
def read(tmp_path):
    """Return a function that writes {name: text or bytes}, ``.gz`` packed, and reads them by the card of that name."""

    def make(card: str, files: dict, encoding: str = "utf-8"):
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            content = content.encode(encoding) if isinstance(content, str) else content
            path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        card = load_card(card)
        return read_files(card, tmp_path, card.sources[0].format, "")

    return make


def rows(data) -> list[tuple]:
    """Return (user id, item id, rating[, time]) of all rows."""
    table = data.table
    columns = [data.user_ids[table.user].tolist(), data.catalog.item_ids[table.item].tolist(), table.rating.tolist()]
    return list(zip(*columns, *([] if table.timestamp is None else [table.timestamp.tolist()]), strict=True))


ML_1M = {
    "ratings.dat": "1::1193::5::978300760\n1::661::3::978302109\n2::1193::4::978298413\n",
    "movies.dat": "661::James and the Giant Peach (1996)::Animation|Children's|Musical\n"
    "1193::One Flew Over the Cuckoo's Nest (1975)::Drama\n1194::Misérables, Les: A: B (1995)::Drama\n",
    "users.dat": "1::F::1::10::48067\n2::M::56::16::70072\n",
}


def test_movielens_1m_has_ratings_titles_and_users(read):
    data = read("ml-1m", ML_1M, "latin-1")
    assert rows(data) == [(1, 1193, 5, 978300760), (1, 661, 3, 978302109), (2, 1193, 4, 978298413)]
    assert data.catalog.text.values.tolist() == [
        ["James and the Giant Peach", "1996", "Animation, Children's, Musical", ""],
        ["One Flew Over the Cuckoo's Nest", "1975", "Drama", ""],
    ]
    assert data.user_features.values.tolist() == [[1, "F", "K-12 student"], [56, "M", "self-employed"]]


def test_movielens_1m_is_latin_1_and_its_titles_hold_colons(read):
    ratings = ML_1M["ratings.dat"] + "2::1194::1::978298414\n"
    data = read("ml-1m", ML_1M | {"ratings.dat": ratings}, "latin-1")
    assert data.catalog.text.title.tolist()[-1] == "Misérables, Les: A: B"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("1::661::x::978302109\n", "ratings.dat:3: column 3 'x' is not a number"),
        ("1::661::3\n", "ratings.dat:3: fewer than 4 columns"),
        ("1::661::3::978302109::9\n", "ratings.dat:3: 5 columns, but 4 are expected"),
        ("1:: ::3::978302109\n", "ratings.dat:3: column 2 ' ' is not a whole number"),
        ("1::661::3.5::978302109\n", "ratings.dat:3: rating 3.5 is not on the scale's steps of 1"),
        ("1::661::6::978302109\n", "ratings.dat:3: rating 6 is outside the scale 1..5"),
        ("1::661::inf::978302109\n", "ratings.dat:3: rating 'inf' is not a finite number"),
        ("1::1193::3::978302109\n", "ratings.dat:3: user 1 and item 1193 come twice, first at ratings.dat:1"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line_blank_lines_counted(read, bad, message):
    ratings = "1::1193::5::978300760\n\n" + bad + "2::1193::4::978298413\n"
    with pytest.raises(DataError) as caught:
        read("ml-1m", ML_1M | {"ratings.dat": ratings}, "latin-1")
    assert message in str(caught.value) and "\n" not in str(caught.value)


ML_CSV = {
    "ratings.csv": "userId,movieId,rating,timestamp\n1,1,4.0,964982703\n1,11,0.5,964981247\n2,1,5.0,1445714835\n",
    "movies.csv": "movieId,title,genres\n1,Toy Story (1995),Adventure|Animation|Children\n"
    '11,"American President, The (1995)",Comedy|Drama|Romance\n'
    '17,"""Great Performances"" Cats (1998)",(no genres listed)\n',
}


def test_the_csv_of_movielens_is_quoted_and_has_half_stars(read):
    for name in ("ml-latest-small", "ml-25m", "ml-32m"):
        data = read(name, ML_CSV)
        assert rows(data) == [(1, 1, 4, 964982703), (1, 11, 0.5, 964981247), (2, 1, 5, 1445714835)]
        assert data.catalog.text.title.tolist() == ["Toy Story", "American President, The"]
        assert (data.scale.low, data.scale.high, data.scale.step) == (0.5, 5, 0.5)


def test_doubled_quotes_and_missing_genres_of_movielens(read):
    ratings = ML_CSV["ratings.csv"] + "2,17,3.0,1445714836\n"
    text = read("ml-25m", ML_CSV | {"ratings.csv": ratings}).catalog.text.values.tolist()
    assert text[-1] == ['"Great Performances" Cats', "1998", "", ""]


def test_a_csv_without_a_known_column_is_refused(read):
    with pytest.raises(DataError, match=r"ratings\.csv:1: no column 'timestamp' among userId, movieId, rating$"):
        read("ml-25m", ML_CSV | {"ratings.csv": "userId,movieId,rating\n1,1,4.0\n"})


def test_a_byte_that_is_not_utf8_is_named_by_its_line(read):
    with pytest.raises(DataError, match=r"movies\.csv:2: not UTF-8 \(byte 0xe9 at column 4\)"):
        read("ml-25m", ML_CSV | {"movies.csv": b"movieId,title,genres\n1,L\xe9on (1994),Drama\n"})


def test_movietweetings_keeps_the_zeros_of_imdb_and_takes_the_latest_rating(read):
    data = read(
        "movietweetings",
        {
            "ratings.dat": "1::0002844::0::1365029107\n2::1853728::8::1366576639\n1::0002844::10::1366576640\n",
            "movies.dat": "0002844::Fantômas - À l'ombre de la guillotine (1913)::Crime|Drama\n"
            "1853728::Django (2012)::\n",
        },
    )
    assert rows(data) == [(2, "1853728", 8, 1366576639), (1, "0002844", 10, 1366576640)]
    assert data.catalog.text.values.tolist() == [
        ["Fantômas - À l'ombre de la guillotine", "1913", "Crime, Drama", ""],
        ["Django", "2012", "", ""],
    ]
    assert "1 repeated ratings of the same user and item: last kept" in data.notes


BX_HEADER = (
    '"ISBN";"Book-Title";"Book-Author";"Year-Of-Publication";"Publisher";"Image-URL-S";"Image-URL-M";"Image-URL-L"'
)
BX = {
    "BX-Book-Ratings.csv": '"User-ID";"ISBN";"Book-Rating"\n"276725";"034545104X";"0"\n"276726";"0155061224";"5"\n'
    '"276729";"052165615X";"3"\n"276729";"078946697X";"10"\n"276729";"nowhere";"1"\n"276726";"052165615X";"7"\n',
    "BX-Books.csv": BX_HEADER + "\n"
    '"0155061224";"Rites of Passage &amp; Rings";"Judith  Rae";"2001";"Heinle";"http://a";"http://b";"http://c"\n'
    '"052165615X";"Help!: Level 1 \\"easy\\"; fran\xe7ais";"Philip Prowse";"0";"Cambridge";"http://a";"http://b";"http://c"\n'
    '"078946697X";"DK Readers (Level 4)\\";Michael Teitelbaum"";"2000";"DK";"http://a";"http://b";"http://c"\n',
}


def test_book_crossing_leaves_out_implicit_ratings_and_says_so(read):
    data = read("book-crossing", BX, "latin-1")
    assert rows(data) == [
        (276726, "0155061224", 5),
        (276729, "052165615X", 3),
        (276729, "078946697X", 10),
        (276729, "nowhere", 1),
        (276726, "052165615X", 7),
    ]
    assert data.notes == ("1 of 6 rows are implicit ratings (0) and are left out",)


def test_book_crossing_has_entities_escaped_quotes_joined_columns_and_books_without_text(read):
    text = dict(zip(*(lambda c: (c.item_ids, c.texts()))(read("book-crossing", BX, "latin-1").catalog), strict=True))
    assert text == {
        "0155061224": "Rites of Passage & Rings (2001) by Judith Rae.",
        "052165615X": 'Help!: Level 1 "easy"; français by Philip Prowse.',
        "078946697X": "DK Readers (Level 4) (2000) by Michael Teitelbaum.",
        "nowhere": "",
    }


def test_a_bad_rating_behind_rows_that_are_left_out_is_named_by_its_own_line(read):
    ratings = '"User-ID";"ISBN";"Book-Rating"\n"1";"a";"0"\n"1";"b";"0"\n"1";"c";"11"\n'
    with pytest.raises(DataError, match=r"^BX-Book-Ratings\.csv:4: rating 11 is outside the scale 1\.\.10"):
        read("book-crossing", BX | {"BX-Book-Ratings.csv": ratings}, "latin-1")


def test_goodbooks_has_authors_and_years(read):
    books = (
        "book_id,goodreads_book_id,isbn,authors,original_publication_year,title\n"
        '1,2767052,439023483,Suzanne Collins,2008.0,"The Hunger Games (The Hunger Games, #1)"\n'
        '2,3,439554934,"J.K. Rowling, Mary GrandPré",,Harry Potter\n3,4,,Homer,-750.0,The Odyssey\n'
    )
    data = read("goodbooks-10k", {"ratings.csv": "user_id,book_id,rating\n1,2,5\n2,1,4\n2,3,3\n", "books.csv": books})
    assert rows(data) == [(1, 2, 5), (2, 1, 4), (2, 3, 3)]
    assert data.catalog.texts() == [
        "The Hunger Games (The Hunger Games, #1) (2008) by Suzanne Collins.",
        "Harry Potter by J.K. Rowling, Mary GrandPré.",
        "The Odyssey by Homer.",
    ]


def test_anime_leaves_out_what_was_only_watched(read):
    data = read(
        "anime",
        {
            "rating.csv": "user_id,anime_id,rating\n1,20,-1\n1,24,10\n2,20,7\n2,20,8\n",
            "anime.csv": "anime_id,name,genre,type,episodes,rating,members\n"
            '24,School &quot;Rumble&quot;,"Comedy, Romance, Shounen",TV,26,8.06,178553\n'
            "20,Naruto,,TV,220,7.81,683297\n",
        },
    )
    assert rows(data) == [(1, 24, 10), (2, 20, 8)]
    assert data.catalog.texts() == ["Naruto.", 'School "Rumble". Comedy, Romance, Shounen.']
    assert data.notes[0] == "1 of 4 rows are watched but not rated (-1) and are left out"


def lines(*entries: dict) -> str:
    return "".join(json.dumps(entry) + "\n" for entry in entries)


REVIEWS_2018 = [
    {"overall": 5.0, "verified": True, "reviewerID": "A1", "asin": "B1", "style": {"x": " 50"}, "unixReviewTime": 20},
    {"overall": 4, "reviewerID": "A2", "asin": "B2", "reviewText": "línea\nzwei", "unixReviewTime": 10},
    {"overall": 3.0, "reviewerID": "A1", "asin": "B1", "unixReviewTime": 30},
    {"overall": 1.0, "reviewerID": "A1", "asin": "B3", "unixReviewTime": 15},
]
META_2018 = [
    {
        "asin": "B1",
        "title": "Card &amp; more",
        "description": ["One <b>big</b> card.", ""],
        "category": ["Gift", "Gift"],
    },
    {
        "asin": "B2",
        "title": '<span class="a-size-medium"',
        "description": "A string.",
        "category": ["Arts &amp; Crafts"],
    },
    {"asin": "B3", "title": "var a = new Date().getTime();", "category": "</span>", "price": 3},
    {"asin": "unrated", "title": 7, "price": "$1"},
]


@pytest.fixture
def amazon_2018():
    return {
        "categoryFilesSmall/Gift_Cards_5.json.gz": lines(*REVIEWS_2018),
        "metaFiles2/meta_Gift_Cards.json.gz": lines(*META_2018),
    }


def test_amazon_2018_keeps_the_latest_review_and_cleans_scraped_texts(read, amazon_2018):
    data = read("amazon-2018-gift-cards", amazon_2018)
    assert rows(data) == [("A2", "B2", 4, 10), ("A1", "B1", 3, 30), ("A1", "B3", 1, 15)]
    assert data.catalog.texts() == ["Card & more. Gift. One big card.", "Arts & Crafts. A string.", ""]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ('{"overall": "five", "reviewerID": "A1", "asin": "B1"}', r'json\.gz:5: overall "five" is not a double'),
        ('{"overall": 5.0, "reviewerID": 7, "asin": "B1"}', r"json\.gz:5: reviewerID 7 is not a string"),
        ('{"overall": 5.0, "reviewerID', r"json\.gz:5: not JSON"),
        ('{"overall": 5.0, "reviewerID": "A1", "unixReviewTime": 1}', r"json\.gz:5: item is missing"),
        ('{"reviewerID": "A1", "asin": "B1", "unixReviewTime": 1}', r"json\.gz:5: rating is missing"),
        ('{"overall": 6, "reviewerID": "A1", "asin": "B1", "unixReviewTime": 1}', r"json\.gz:5: rating 6 is outside"),
    ],
)
def test_a_bad_line_of_json_is_named(read, amazon_2018, bad, message):
    reviews = "categoryFilesSmall/Gift_Cards_5.json.gz"
    with pytest.raises(DataError, match=message) as caught:
        read("amazon-2018-gift-cards", amazon_2018 | {reviews: amazon_2018[reviews] + bad + "\n"})
    assert "\n" not in str(caught.value)


def test_a_product_without_its_id_is_named(read, amazon_2018):
    meta = "metaFiles2/meta_Gift_Cards.json.gz"
    with pytest.raises(DataError, match=r"^meta_Gift_Cards\.json\.gz:5: not a JSON object with a field asin$"):
        read("amazon-2018-gift-cards", amazon_2018 | {meta: amazon_2018[meta] + '{"title": "x"}\n'})


def test_amazon_2023_has_milliseconds_and_parent_asins(read):
    reviews = [
        {"rating": 5.0, "title": "x", "asin": "C1", "parent_asin": "P1", "user_id": "U2", "timestamp": 1599450218750},
        {"rating": 2.0, "images": [{"a": 1}], "asin": "C2", "parent_asin": "P1", "user_id": "U1",
         "timestamp": 1527475218999},
        {"rating": 1.0, "asin": "C3", "parent_asin": "P1", "user_id": "U1", "timestamp": 1527475217000},
    ]  # fmt: skip
    meta = [{"parent_asin": "P1", "title": "A card", "categories": ["Gift Cards", "Gift Cards"], "price": None,
             "description": ["First.", "Second."], "main_category": "Gift Cards"}]  # fmt: skip
    data = read(
        "amazon-2023-gift-cards",
        {
            "review_categories/Gift_Cards.jsonl.gz": lines(*reviews),
            "meta_categories/meta_Gift_Cards.jsonl.gz": lines(*meta),
        },
    )
    assert rows(data) == [("U2", "P1", 5, 1599450218), ("U1", "P1", 2, 1527475218)]
    assert data.catalog.texts() == ["A card. Gift Cards. First. Second."]


def test_a_folder_with_two_files_of_reviews_is_refused(read, amazon_2018):
    with pytest.raises(DataError, match=r"one file of reviews and one meta_ file are expected, .*Books_5\.json\.gz"):
        read("amazon-2018-gift-cards", amazon_2018 | {"Books_5.json.gz": lines(*REVIEWS_2018)})


MIND = {
    "MINDsmall_train/behaviors.tsv": "1\tU1\t11/11/2019 9:05:58 AM\tN9 N8\tN1-1 N2-0\n"
    "2\tU2\t11/12/2019 6:11:30 PM\t\tN1-0\n",
    "MINDsmall_train/news.tsv": "N1\tnews\tworld\tA \"quoted\" title\tIts abstract.\thttps://a\t[]\t[]\n"
    "N2\tsports\tsports\tAnother\t\thttps://b\t[]\t[]\n",
    "MINDsmall_dev/behaviors.tsv": "1\tU1\t11/15/2019 12:00:00 AM\tN1\tN3-0 N2-1\n",
    "MINDsmall_dev/news.tsv": "N2\tsports\tsports\tAnother\t\thttps://b\t[]\t[]\nN3\ttv\tshows\tThird\tText\thttps://c\t[]\t[]\n",
}  # fmt: skip


def test_mind_gives_impressions_as_labels_and_keeps_the_latest(read):
    data = read("mind-small", MIND)
    noon = 1573463158  # 2019-11-11 09:05:58 UTC
    assert sorted(rows(data)) == [
        ("U1", "N1", 1, noon), ("U1", "N2", 1, 1573776000), ("U1", "N3", 0, 1573776000), ("U2", "N1", 0, 1573582290),
    ]  # fmt: skip
    assert data.kind == "clicks" and (data.scale.low, data.scale.high, data.scale.step) == (0, 1, 1)
    assert data.catalog.texts() == [
        'A "quoted" title. news, world. Its abstract.',
        "Another. sports.",
        "Third. tv, shows. Text",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("3\tU1\t11/15/2019 12:00:00 AM\tN1\tN3\n", r"behaviors\.tsv:3: impression 'N3' does not end with -0 or -1"),
        ("3\tU1\t11/15/2019 12:00:00 AM\tN1\tN3-0  N4-1\n", r"behaviors\.tsv:3: impression '' does not end"),
        ("3\tU1\t2019-11-15\tN1\tN3-1\n", r"behaviors\.tsv:3: time '2019-11-15' is not like 11/11/2019 9:05:58 AM"),
        ("3\t\t11/15/2019 12:00:00 AM\tN1\tN3-1\n", r"behaviors\.tsv:3: user is missing"),
        ("3\tU1\t11/15/2019 12:00:00 AM\tN1\n", r"behaviors\.tsv:3: fewer than 5 columns"),
    ],
)
def test_a_bad_impression_is_named(read, line, message):
    train = "MINDsmall_train/behaviors.tsv"
    with pytest.raises(DataError, match=message):
        read("mind-small", MIND | {train: MIND[train] + line})


def test_jester_has_double_tabs_and_jokes_in_html(read):
    jokes = (
        "1:\n<p>\nA man visits the doctor. &quot;Bad news!&quot;<br />\nThe man replies.\n</p>\n\n\n"
        "5:\n<p>\nQ. What's <b>up</b>?\n</p>\n"
    )
    data = read(
        "jester",
        {"jester_ratings.dat": "1\t\t5\t\t0.219\n1\t\t1\t\t-9.281\n2\t\t5\t\t10.0\n", "jester_items.dat": jokes},
    )
    assert rows(data) == [(1, 5, 0.219), (1, 1, -9.281), (2, 5, 10)]
    assert data.catalog.texts() == ['A man visits the doctor. "Bad news!" The man replies.', "Q. What's up ?"]
    assert data.scale.step is None


def test_the_matrices_of_jester_leave_out_99_and_number_users_through(read):
    for nothing in ("0,99,99,99\n", "0\n"):
        with pytest.raises(DataError, match=r"jester-data-1\.csv: no rating in it \(99 stands for none\)$"):
            read("jester-1", {"jester-data-1.csv": nothing})
    files = {"jester-data-1.csv": "2,-7.82,99,8.79\n1,99,99,0\n", "jester-data-2.csv": "3,1,2,99.0\n"}
    with pytest.raises(DataError, match=r"^jester-data-2\.csv:1: 2 ratings, but the first column says 3$"):
        read("jester-1", files)
    data = read("jester-1", files | {"jester-data-2.csv": "2,1,2,99.0\n", "jester-data-3.csv": "1,-10,99,99\n"})
    assert rows(data) == [(1, 1, -7.82), (1, 3, 8.79), (2, 3, 0), (3, 1, 1), (3, 2, 2), (4, 1, -10)]
    with pytest.raises(DataError, match=r"^jester-data-3\.csv:2: rating 11 is outside the scale -10\.\.10"):
        read("jester-1", {"jester-data-3.csv": "1,-10,99,99\n1,11,99,99\n", "jester-data-2.csv": "2,1,2,99.0\n"})


def test_a_missing_file_is_named(read, tmp_path):
    with pytest.raises(DataError, match=r"movies\.csv: no such file"):
        read("ml-25m", {"ratings.csv": ML_CSV["ratings.csv"]})


def test_every_format_of_a_card_has_a_reader_and_every_reader_a_card():
    from fewrec.data.cards import list_cards

    used = {source.format for card in list_cards() for source in card.sources}
    assert used == set(READERS)


def test_numbers_are_parsed_as_numbers_and_not_as_text(read, tmp_path):
    read("ml-25m", ML_CSV)
    raw = READERS["movielens-csv"](tmp_path, "").ratings
    assert [raw.user.dtype, raw.item.dtype, raw.rating.dtype, raw.timestamp.dtype] == [
        np.int64, np.int64, np.float64, np.int64,
    ]  # fmt: skip
