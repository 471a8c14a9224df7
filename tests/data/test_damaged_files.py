"""The smallest inputs that once ended in a traceback, a crash or a warning: each is one line that names its place."""

from __future__ import annotations

import gzip
import json
import warnings

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fewrec.data import parsed as parsed_module
from fewrec.data.cards import load_card
from fewrec.data.load import read_files
from fewrec.data.own import load_own
from fewrec.data.parsed import parsed
from fewrec.errors import DataError
from tests.data.test_clover import FILES as CLOVER
from tests.data.test_formats import META_2018, ML_1M, ML_CSV, REVIEWS_2018, lines
from tests.data.test_parsed import made

AMAZON = {"Gift_Cards_5.json": lines(*REVIEWS_2018), "meta_Gift_Cards.json": lines(*META_2018)}
RECBOLE = {
    "u.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n2\t10\t5\t8\n1\t2\t3\t9\n",
    "u.item": "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    "2\tA\t1995\tWar\n10\tX\t1990\tDrama\n",
    "u.user": "user_id:token\tage:token\tgender:token\toccupation:token\n1\t24\tM\ta\n2\t23\tM\tb\n",
}
ML_100K = {
    "u.data": "2\t10\t5\t881250949\n1\t2\t3\t881250950\n",
    "u.item": f"2|A (1995)|1995||x|{'|'.join('0' * 19)}\n10|B (1990)|1990||x|{'|'.join('0' * 19)}\n",
    "u.user": "1|24|M|technician|85711\n2|23|M|writer|32067\n",
}
CLOVER_FILES = {f"{name}.json": json.dumps(content) for name, content in CLOVER.items()}


def said(folder, card: str, format: str, files: dict, stem: str = "") -> str:
    """Return what reading these files says, which must be no more than an error."""
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode("latin-1"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError) as caught:
            read_files(load_card(card), folder, format, stem)
    return str(caught.value).replace(f"{folder}/", "")


@pytest.mark.parametrize(
    ("card", "format", "files", "message"),
    [  # the first made pyarrow's parser crash the process
        ("amazon-2018-gift-cards", "amazon-2018",
        AMAZON | {"Gift_Cards_5.json": "null\n" + AMAZON["Gift_Cards_5.json"]},
         "Gift_Cards_5.json:1: not a JSON object"),
        ("amazon-2018-gift-cards", "amazon-2018", AMAZON | {"Gift_Cards_5.json": "null"},
        "Gift_Cards_5.json:1: not a JSON object"),
        ("amazon-2018-gift-cards", "amazon-2018",
        AMAZON | {"Gift_Cards_5.json": AMAZON["Gift_Cards_5.json"] + " null\n"},
         "Gift_Cards_5.json:5: not a JSON object"),
        ("amazon-2018-gift-cards", "amazon-2018",
         {"Gift_Cards_5.json": AMAZON["Gift_Cards_5.json"],
         "meta_Gift_Cards.json.gz": gzip.compress(b"x")[:10] + b"\xff" * 20},
         "meta_Gift_Cards.json.gz: can't be read (Error -3 while decompressing data: invalid block type)"),
        ("amazon-2018-gift-cards", "amazon-2018",
         AMAZON | {"Gift_Cards_5.json": lines(REVIEWS_2018[0]) + lines(REVIEWS_2018[1]).replace("A2", "A\xe9")},
         "Gift_Cards_5.json:2: not UTF-8 (byte 0xe9 at column 32); save it as UTF-8"),
        ("amazon-2018-gift-cards", "amazon-2018", AMAZON | {"meta_Gift_Cards.json": "[" * 100_000},
         "meta_Gift_Cards.json:1: not a JSON object with a field asin"),
        ("ml-1m", "movielens-dat", ML_1M | {"ratings.dat": "1e150::661::3::978302109\n"},
         "ratings.dat:1: column 1 '1e150' is not a whole number"),
        ("ml-100k", "recbole-atomic", RECBOLE | {"u.user": RECBOLE["u.user"].replace("24", "x")},
        "u.user:2: age 'x' is not a whole number"),
        ("ml-100k", "recbole-atomic", RECBOLE | {"u.user": RECBOLE["u.user"].replace("24", "9" * 30)},
         f"u.user:2: age '{'9' * 30}' is not a whole number"),
        ("ml-100k", "movielens-100k", ML_100K | {"u.user": ML_100K["u.user"].replace("2|23", "9" * 30 + "|23")},
         "ml-100k: 1 users with ratings are not in the file of users"),
        ("clover-ml-100k", "clover", CLOVER_FILES | {"user_profile.json": json.dumps({**CLOVER["user_profile"],
        "2": [2]})},
         "user_profile.json: user 2 has another number of codes than the first"),
        ("clover-ml-100k", "clover", CLOVER_FILES | {"user_warm_state.json": json.dumps({"7": [3, [0]], "2": [1]})},
         "user_warm_state.json: user 7 has an item that is no code, or a rating that is no number"),
        ("clover-ml-100k", "clover",
         CLOVER_FILES | {"user_warm_state_y.json": json.dumps({"7": [5, 10**400], "2": [4]})},
         "user_warm_state.json: user 7 has an item that is no code, or a rating that is no number"),
        ("clover-ml-100k", "clover",
         CLOVER_FILES | {"user_warm_state.json": json.dumps({"7": [3, "\ud800"], "2": [1]})},
         "user_warm_state.json: not JSON ('utf-8' codec can't encode character '\\ud800' in position 11: "
         "surrogates not all)"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named_in_one_line(tmp_path, card, format, files, message):
    assert said(tmp_path, card, format, files, "u" if card == "ml-100k" else "") == message


def test_half_a_character_in_a_products_title_is_shown_as_one_that_is_unknown(tmp_path):
    meta = lines({"asin": "B1", "title": "A \ud83d card"})
    for name, content in (AMAZON | {"meta_Gift_Cards.json": meta}).items():
        (tmp_path / name).write_text(content)
    data = read_files(load_card("amazon-2018-gift-cards"), tmp_path, "amazon-2018", "")
    assert "A \ufffd card" in data.catalog.text["title"].tolist() and data.catalog.text_sha256


def test_the_word_null_behind_a_brace_in_a_review_is_a_text(tmp_path):
    odd = {"overall": 2.0, "reviewerID": "A7", "asin": "B1", "reviewText": "if (x) { } null", "unixReviewTime": 5}
    for name, content in (AMAZON | {"Gift_Cards_5.json": lines(odd) + AMAZON["Gift_Cards_5.json"]}).items():
        (tmp_path / name).write_text(content)
    assert len(read_files(load_card("amazon-2018-gift-cards"), tmp_path, "amazon-2018", "").table) == 4


def test_a_list_of_items_without_a_row_leaves_all_items_without_text(tmp_path):
    for name, content in (ML_CSV | {"movies.csv": "movieId,title,genres\n"}).items():
        (tmp_path / name).write_text(content)
    data = read_files(load_card("ml-latest-small"), tmp_path, "movielens-csv", "")
    assert data.catalog.text.values.tolist() == [["", "", "", ""]] * 2


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.csv").write_text("user,item,rating\n1,10,5\n2,10,4\n")
    return tmp_path


@pytest.mark.parametrize(("option", "head"), [("items", "item,title\n"), ("users", "user,age\n")])
def test_a_table_of_a_header_alone_says_that_it_has_no_rows(own, option, head):
    (own / "table.csv").write_text(head)
    with pytest.raises(DataError, match=rf"^table\.csv: the file ends before its first {option[:-1]}$"):
        load_own("my.csv", **{option: "table.csv"})


def test_ratings_near_the_end_of_what_a_number_holds_are_read_without_a_warning(own):
    (own / "my.csv").write_text("user,item,rating\n1,10,1.7e308\n2,10,-1.7e308\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_own("my.csv").scale.high == 1.7e308


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (f"1,10,{'1' * 400},5", r"my\.csv:2: rating '1+\.\.\.' is not a finite number"),
        ("1,10,3,1e300", r"my\.csv:2: timestamp '1e\+300' is too large for seconds since 1970"),
        (f"1,10,3,{'1' * 400}", r"my\.csv:2: timestamp '1+\.\.\.' is neither seconds .* nor a date like 2005-03-31"),
    ],
)
def test_a_number_beyond_every_type_is_named(own, row, message):
    (own / "my.csv").write_text(f"user,item,rating,timestamp\n{row}\n2,10,4,6\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=f"^{message}$"):
            load_own("my.csv")


def test_a_column_of_users_without_a_value_is_one_of_empty_categories(own):
    pq.write_table(
        pa.table({"user": [1, 2], "x": pa.array([None, None], pa.float64()), "age": [20, 30]}), own / "u.parquet"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features = load_own("my.csv", users="u.parquet").user_features
    assert features.to_dict("list") == {"x": ["", ""], "age": [20.0, 30.0]}


def test_a_note_shows_a_columns_name_without_what_a_terminal_would_obey(own):
    (own / "items.csv").write_text("item,title,\x1b[2J\n10,A,x\n")
    assert "items.csv: not used: \\x1b[2J" in load_own("my.csv", items="items.csv").notes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"user,item\rx,rating\n1,2,3\n", r"^my\.csv:1: "),  # a lone carriage return
        (b'user,item,rating\n1,2,3,4\n"' + b"x" * 200_000, r"^my\.csv:\d+: "),  # a field too long for the csv module
    ],
)
def test_what_the_csv_module_refuses_is_one_line(own, content, message):
    (own / "my.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_own("my.csv")


def test_a_column_that_comes_twice_in_ones_own_parquet_is_named(own):
    columns = [pa.array([1, 2]), pa.array([1, 1]), pa.array([3.0, 4.0]), pa.array([3.0, 4.0])]
    pq.write_table(pa.Table.from_arrays(columns, ["user", "item", "rating", "rating"]), own / "r.parquet")
    with pytest.raises(
        DataError, match=r"^r\.parquet: .* \(it has several columns 'rating'\)"
    ):
        load_own("r.parquet")


def test_columns_of_lists_in_ones_own_parquet_are_left_out(own):
    pq.write_table(
        pa.table({"user": [1, 2], "item": [1, 1], "rating": [3.0, 4.0], "tags": [["a"], []]}), own / "r.parquet"
    )
    assert len(load_own("r.parquet").table) == 2


@pytest.mark.parametrize("value", ["[" * 5_000, "1" * 5_000, "{a=" * 5_000])
def test_a_card_of_levels_or_digits_without_end_is_refused(tmp_path, value):
    (tmp_path / "x.toml").write_text(f"x = {value}\n")
    with pytest.raises(DataError, match=r"x\.toml: not a readable card \("):
        load_card(str(tmp_path / "x.toml"))


@pytest.mark.parametrize("change", ["text", "notes", "npy", "deep"])
def test_a_parsed_copy_that_was_changed_in_any_of_its_files_is_read_again(tmp_path, monkeypatch, change):
    monkeypatch.setattr(parsed_module, "LEAST_RATINGS", 1)
    card, files, first = load_card("ml-1m"), {"ratings": "a" * 64}, made(True)
    parsed(card, tmp_path, files, lambda: first)
    (folder,) = tmp_path.iterdir()
    if change == "text":  # another text of the same length, in a file that can be read
        text = pq.read_table(folder / "text.parquet").to_pandas()
        text.loc[0, "title"] = "another"
        text.to_parquet(folder / "text.parquet", index=False)
    elif change == "notes":
        facts = json.loads((folder / "facts.json").read_text())
        (folder / "facts.json").write_text(json.dumps({**facts, "notes": ["all is well"]}))
    elif change == "npy":
        (folder / "user.npy").write_bytes(b"\x93NUMPY\x01\x00\x02\x00{(")  # NumPy's own reader fails in its own way
    else:
        (folder / "facts.json").write_text("[" * 100_000)
    second = made(False)
    assert parsed(card, tmp_path, files, lambda: second) is second
