"""A user's own files: what is guessed is right and said, and each bad input is one line that names row or option."""

from __future__ import annotations

import gzip
import time

import numpy as np
import pandas as pd
import pytest

from fewrec.data.load import open_dataset
from fewrec.data.own import load_own
from fewrec.data.table import Scale
from fewrec.errors import DataError

HEAD = "user,item,rating\n"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a file into the current folder, so that messages show its bare name."""
    monkeypatch.chdir(tmp_path)

    def make(content: str | bytes, name: str = "my.csv") -> str:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return name

    return make


BAD = {
    "off the scale": (HEAD + "1,1,5\n1,2,7\n", {"scale": (1, 5)},
        "my.csv:3: rating 7 is outside the scale 1..5 (give --scale 1 10 if it is right)"),
    "below the scale": (HEAD + "1,1,0\n1,2,4\n", {"scale": (1, 5)},
        "my.csv:2: rating 0 is outside the scale 1..5 (give --scale 0 5 if it is right)"),
    "NaN": (HEAD + "1,1,5\n1,2,NaN\n", {}, "my.csv:3: rating is missing (empty or NaN)"),
    "empty rating": (HEAD + "1,1,5\n\n1,2,\n", {}, "my.csv:4: rating is missing (empty or NaN)"),
    "infinite": (HEAD + "1,1,inf\n1,2,3\n", {}, "my.csv:2: rating 'inf' is not a finite number"),
    "a word": (HEAD + "1,1,4\n1,2,good\n", {}, "my.csv:3: rating 'good' is not a number"),
    "empty user": (HEAD + "1,1,4\n,2,4\n", {}, "my.csv:3: user is missing"),
    "blank item": (HEAD + "1,1,4\n1,  ,4\n", {}, "my.csv:3: item is missing"),
    "duplicate": (HEAD + "1,1,5\n2,1,4\n1,1,3\n", {},
        "my.csv:4: user 1 and item 1 come twice, first at my.csv:2 (give --duplicates last or mean)"),
    "clicks come twice": (HEAD + "1,1,1\n2,1,0\n1,1,0\n", {},
        "my.csv:4: user 1 and item 1 come twice, first at my.csv:2 (give --duplicates last)"),
    "mean of clicks": (HEAD + "1,1,1\n2,1,0\n1,1,0\n", {"duplicates": "mean"},
        "my.csv: ratings of 0 and 1 are clicks, of which there is no mean (give --duplicates last)"),
    "missing column": ("user,film,rating\n1,1,5\n", {},
        "my.csv:1: no column for the item among 'user', 'film', 'rating' (give --item-col)"),
    "wrong named column": ("user,item,rating\n1,1,5\n", {"rating_col": "ratng"},
        "my.csv:1: no column 'ratng' (--rating-col); did you mean 'rating'?"),
    "empty file": ("", {}, "my.csv: the file is empty"),
    "blank lines only": ("\n\n", {}, "my.csv: the file is empty"),
    "header only": (HEAD, {}, "my.csv:2: the file ends before its first rating"),
    "no delimiter": ("user item rating".replace(" ", "~") + "\n1~2~3\n", {},
        "my.csv:1: one column only ('user~item~rating'); columns are separated by one of tab, comma, semicolon, bar, "
        "double colon, space (give --delimiter)"),
    "wrong delimiter": (HEAD + "1,1,4\n", {"delimiter": ";"},
        "my.csv:1: one column only ('user,item,rating') with the delimiter ';' (give another --delimiter)"),
    "unknown delimiter": (HEAD + "1,1,4\n", {"delimiter": "~"},
        "--delimiter '~' is none of tab, comma, semicolon, bar, double colon, space"),
    "not UTF-8": (HEAD.encode() + b"1,1,4\nJos\xe9,2,4\n", {},
        "my.csv:3: not UTF-8 (byte 0xe9 at column 4); save it as UTF-8"),
    "UTF-16": ((HEAD + "1,1,4\n").encode("utf-16"), {}, "my.csv:1: not UTF-8 but UTF-16; save it as UTF-8"),
    "ragged": (HEAD + "1,1,4\n1,2,4,9\n", {},
        "my.csv:3: 4 columns, but 3 in the first line (a value with a comma in it needs quotes)"),
    "every row longer": (HEAD + "1,1,4,9\n1,2,4,9\n", {},
        "my.csv:2: 4 columns, but 3 in the first line (a value with a comma in it needs quotes)"),
    "column twice": ("user,item,rating,rating\n1,1,4,5\n", {}, "my.csv:1: the column 'rating' comes twice"),
    "time no date": ("user,item,rating,time\n1,1,4,1000\n1,2,4,soon\n", {},
        "my.csv:3: timestamp 'soon' is neither seconds since 1970 nor a date like 2005-03-31"),
    "constant off known scales": (HEAD + "1,1,42\n1,2,42\n", {},
        "my.csv: every rating is 42, so the scale can't be guessed (give --scale LOW HIGH)"),
    "scale upside down": (HEAD + "1,1,4\n", {"scale": (5, 1)},
        "--scale 5 1: the lowest rating must be below the highest"),
    "scale of NaN": (HEAD + "1,1,4\n", {"scale": (float("nan"), 1)},
        "--scale nan 1: give two finite numbers, the lowest and the highest rating"),
    "unknown policy": (HEAD + "1,1,4\n", {"duplicates": "first"}, "--duplicates 'first' is none of error, last, mean"),
    "no header, five columns": ("1,2,3,4,5\n", {},
        "my.csv:1: no header and 5 columns (give --columns, say user,item,rating)"),
    "no header, bad rating": ("1,2,3\n1,3,x\n", {}, "my.csv:2: rating 'x' is not a number"),
    "no header, named column": ("1,2,3\n", {"user_col": "user"},
        "my.csv: --user-col needs a header (give --columns, say item,user,rating)"),
    "unknown role": ("1,2,3\n", {"columns": "user,film,rating"},
        "--columns: 'film' is none of user, item, rating, timestamp or _"),
    "role twice": ("1,2,3\n", {"columns": "user,user,rating"},
        "--columns user,user,rating: needs user, item and rating once each"),
    "too few roles": ("1,2,3,4\n", {"columns": "user,item,rating"}, "my.csv:1: 4 columns, but --columns names 3"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_that_names_the_row_or_the_option(write, case):
    content, options, message = BAD[case]
    path = write(content)
    with pytest.raises(DataError) as caught:
        load_own(path, **options)
    assert str(caught.value) == message


def test_a_missing_file_and_a_folder_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match=r"^nowhere\.csv: no such file$"):
        load_own("nowhere.csv")
    with pytest.raises(DataError, match=r"^folder\.csv: this is a folder, not a file$"):
        load_own("folder.csv")


def test_a_broken_gzip_and_a_broken_parquet_file_are_named(write):
    with pytest.raises(DataError, match=r"^my\.csv\.gz: can't be read"):
        load_own(write("user,item,rating\n", "my.csv.gz"))
    with pytest.raises(DataError, match=r"^my\.parquet: not a readable Parquet file"):
        load_own(write("user,item,rating\n", "my.parquet"))


def test_a_bad_row_of_a_parquet_file_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pd.DataFrame({"user": [1, 2], "item": [1, 1], "rating": [3.0, np.nan]}).to_parquet("my.parquet")
    with pytest.raises(DataError, match=r"^my\.parquet: row 2: rating is missing"):
        load_own("my.parquet")


def test_line_numbers_count_blank_lines_and_breaks_in_quotes(write):
    path = write('\nuser,item,rating,note\n1,1,4,"two\nlines"\n\n1,2,nine,x\n')
    with pytest.raises(DataError, match=r"^my\.csv:6: rating 'nine'"):
        load_own(path)


@pytest.mark.parametrize(
    "header",
    ["userId,movieId,rating,timestamp", "user_id,item_id,score,ts", "UID,ISBN,Book-Rating,time",
     "user_id:token,item_id:token,rating:float,timestamp:float", "reviewerID,asin,overall,unixReviewTime"],
)  # fmt: skip
def test_columns_are_guessed_by_name(write, header):
    dataset = load_own(write(f"{header}\n7,5,4,1000\n7,6,2,2000\n"))
    assert dataset.user_ids.tolist() == [7] and dataset.catalog.item_ids.tolist() == [5, 6]
    assert dataset.table.rating.tolist() == [4, 2] and dataset.table.timestamp.tolist() == [1000, 2000]
    assert dataset.notes[0].startswith("columns user = '")


def test_columns_can_be_named_in_any_order_beside_others(write):
    path = write("when;rating;who;what;r2\n5;1;a;x;4\n6;1;b;y;3\n")
    dataset = load_own(path, user_col="who", item_col="what", rating_col="r2", time_col="when")
    assert dataset.user_ids.tolist() == ["a", "b"] and dataset.catalog.item_ids.tolist() == ["x", "y"]
    assert dataset.table.rating.tolist() == [4, 3] and dataset.table.timestamp.tolist() == [5, 6]


def test_headerless_lines_of_three_are_item_user_score_and_this_is_said(write):
    dataset = load_own(write("10,1,4\n11,1,5\n10,2,3\n"))
    assert dataset.user_ids.tolist() == [1, 2] and dataset.catalog.item_ids.tolist() == [10, 11]
    assert dataset.notes[0] == "no header, columns item, user, rating: guessed, --columns says otherwise"


def test_the_order_of_headerless_columns_can_be_given(write):
    path = write("10\tx\t1\t4\n11\tx\t1\t5\n10\tx\t2\t3\n", "my.tsv")
    dataset = load_own(path, columns="user,_,item,rating")
    assert dataset.user_ids.tolist() == [10, 11] and dataset.catalog.item_ids.tolist() == [1, 2]
    assert dataset.notes[0] == "no header, columns user, _, item, rating"


def test_given_columns_replace_a_header(write):
    dataset = load_own(write("item,user,rating\n10,1,4\n11,1,5\n"), columns=["user", "item", "rating"])
    assert dataset.user_ids.tolist() == [10, 11]


def test_headerless_lines_of_four_are_user_item_rating_time_as_in_movielens(write, official_files):
    assert load_own(official_files / "u.data").user_ids.tolist() == [1, 2, 10]
    dataset = load_own(write("1::10::4::978300760\n2::10::5::978300761\n", "ratings.dat"))
    assert dataset.catalog.item_ids.tolist() == [10] and dataset.table.timestamp.tolist() == [978300760, 978300761]


@pytest.mark.parametrize(
    ("ratings", "expected", "kind"),
    [
        ([1, 3], Scale(1, 5, 1), "ratings"),
        ([0, 5], Scale(0, 5, 1), "ratings"),
        ([0.5, 4], Scale(0.5, 5, 0.5), "ratings"),
        ([0, 3.5], Scale(0, 5, 0.5), "ratings"),
        ([1, 9], Scale(1, 10, 1), "ratings"),
        ([0, 10], Scale(0, 10, 1), "ratings"),
        ([-9.95, 3.1], Scale(-9.95, 3.1, None), "ratings"),
        ([20, 90], Scale(20, 90, 1), "ratings"),
        ([0, 1], Scale(0, 1, 1), "clicks"),
    ],
)
def test_the_scale_is_guessed_from_the_ratings_and_this_is_said(write, ratings, expected, kind):
    rows = "".join(f"{u},{i},{r}\n" for u in (1, 2) for i, r in enumerate(ratings))
    dataset = load_own(write(HEAD + rows))
    assert (dataset.scale, dataset.kind) == (expected, kind)
    assert f"scale {expected.low:g} to {expected.high:g}: guessed, --scale says otherwise" in dataset.notes


def test_a_given_scale_takes_its_steps_from_the_ratings(write):
    assert load_own(write(HEAD + "1,1,3\n1,2,4\n"), scale=(1, 7)).scale == Scale(1, 7, 1)
    assert load_own(write(HEAD + "1,1,3.3\n1,2,4\n"), scale=(1, 7)).scale == Scale(1, 7, None)


def test_true_and_false_are_clicks(write):
    dataset = load_own(write("user,item,label\n1,1,True\n1,2,False\n"))
    assert dataset.kind == "clicks" and dataset.table.rating.tolist() == [1, 0]


def test_duplicates_keep_the_last_in_the_file_or_the_mean(write):
    path = write(HEAD + "1,1,5\n2,1,4\n1,1,2\n1,2,3\n")
    last, mean = (load_own(path, duplicates=policy) for policy in ("last", "mean"))
    for dataset, rating in ((last, 2), (mean, 3.5)):
        rows = list(zip(dataset.table.user, dataset.table.item, dataset.table.rating, strict=True))
        assert rows == [(1, 0, 4), (0, 0, rating), (0, 1, 3)]
        assert "1 repeated ratings of the same user and item" in dataset.notes[-1]


def test_duplicates_keep_the_latest_where_there_is_time(write):
    path = write("user,item,rating,time\n1,1,5,30\n1,1,2,20\n1,1,3,10\n2,2,1,1\n")
    table = load_own(path, duplicates="last").table
    assert (table.rating.tolist(), table.timestamp.tolist()) == ([5, 1], [30, 1])


def test_ids_are_numbers_only_if_all_of_them_are(write):
    assert load_own(write(HEAD + "10,1.0,3\n9, 2,4\n")).catalog.item_ids.tolist() == [1, 2]
    assert load_own(write(HEAD + "10,1,3\n9,1,4\n")).user_ids.tolist() == [9, 10]
    assert load_own(write(HEAD + "10,1,3\n9x,1,4\n")).user_ids.tolist() == ["10", "9x"]
    assert load_own(write(HEAD + "007,1,3\n7,1,4\nNA,1,4\n")).user_ids.tolist() == ["007", "7", "NA"]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (["881250949", "881250950"], [881250949, 881250950]),
        (["881250949000", "881250950999"], [881250949, 881250950]),
        (["1997-12-04 15:55:49", "1997-12-04T15:55:50Z"], [881250949, 881250950]),
        (["881250949", ""], None),
    ],
)
def test_time_stamps_are_seconds_milliseconds_or_dates(write, times, expected):
    path = write("user,item,rating,time\n" + "".join(f"1,{i},{i + 1},{t}\n" for i, t in enumerate(times)))
    dataset = load_own(path)
    found = dataset.table.timestamp
    assert (None if found is None else found.tolist()) == expected
    if expected is None:
        assert "time stamps: 1 of 2 rows have none, so none is used" in dataset.notes


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_the_data(write):
    dataset = load_own(write("\ufeffuser,item,rating\r\n1,a,4\r\n1,b,5\r\n"))
    assert dataset.catalog.item_ids.tolist() == ["a", "b"]


def test_item_text_is_matched_by_id_and_made_canonical(write):
    items = write(
        'movieId,title,genres,extra\n3,"Never rated (2000)",Drama,x\n2,"Up, (2009) ",Animation|Comedy,x\n', "items.csv"
    )
    dataset = load_own(write(HEAD + "1,2,4\n1,9,5\n"), items=items)
    assert dataset.catalog.text.values.tolist() == [["Up,", "2009", "Animation, Comedy", ""], ["", "", "", ""]]
    assert "items.csv: not used: extra" in dataset.notes
    assert "items.csv: 1 items have no rating and are left out" in dataset.notes
    assert "items.csv: 1 rated items are not in it and have no text" in dataset.notes
    assert set(dataset.sources) == {"my.csv", "items.csv"}


BAD_ITEMS = {
    "no title": (
        "item,colour\n1,red\n",
        "items.csv:1: no column for the title among 'item', 'colour' (name it 'title')",
    ),
    "no item": ("film,title\n1,Up\n", "items.csv:1: no column for the item among 'film', 'title' (name it 'item')"),
    "twice": ("item,title\n1,Up\n2,Up\n1,Up\n", "items.csv:4: item 1 comes twice; keep one line of it"),
    "others": ("item,title\nx,Up\n", "items.csv: not one of the rated items is in it (ids such as 1, there x)"),
}


@pytest.mark.parametrize("case", BAD_ITEMS)
def test_bad_item_text_is_one_line_that_names_the_row(write, case):
    content, message = BAD_ITEMS[case]
    ratings, items = write(HEAD + "1,1,4\n1,2,5\n"), write(content, "items.csv")
    with pytest.raises(DataError) as caught:
        load_own(ratings, items=items)
    assert str(caught.value) == message


def test_a_name_resolves_to_a_card_a_file_or_the_nearest_name(write):
    write(HEAD + "1,1,4\n1,2,5\n", "mine.csv")
    assert open_dataset("mine.csv").name == "mine"
    assert open_dataset("synthetic").table.n_users == 200
    with pytest.raises(DataError, match="^unknown dataset 'ml100k'; did you mean 'ml-100k'?"):
        open_dataset("ml100k")
    with pytest.raises(DataError, match=r"^other\.csv: no such file$"):
        open_dataset("other.csv")
    with pytest.raises(DataError, match="^ml-100k: --scale can only be given with a file of your own"):
        open_dataset("ml-100k", scale=(1, 5))


def test_compressed_files_read_the_same(write):
    content = HEAD + "1,1,4\n1,2,5\n"
    plain, packed = load_own(write(content)), load_own(write(gzip.compress(content.encode()), "my.csv.gz"))
    assert plain.table.sha256 == packed.table.sha256 and packed.name == "my"


def test_a_million_ratings_load_within_seconds(test_data):
    if not (test_data / "ml-1m").is_dir():
        pytest.skip(f"no ml-1m in {test_data}")
    start = time.perf_counter()
    dataset = load_own(test_data / "ml-1m" / "ratings.csv.gz", items=test_data / "ml-1m" / "items.csv.gz")
    assert time.perf_counter() - start < 20  # 0.7 s alone on one core; a loop over rows takes longer than this
    assert (len(dataset.table), dataset.table.n_users, dataset.table.n_items) == (1_000_209, 6_040, 3_706)
    assert np.bincount(dataset.table.rating.astype(int)).tolist() == [0, 56_174, 107_557, 261_197, 348_971, 226_310]
    assert (dataset.catalog.text.title != "").sum() == 3_706


def test_the_plain_file_of_ml_100k_is_the_table_of_its_card(test_data):
    from fewrec.data.cards import load_card
    from fewrec.data.load import read_files

    own = load_own(test_data / "ml-100k" / "u.data")
    card = read_files(load_card("ml-100k"), test_data / "ml-100k", "movielens-100k", "u")
    assert own.table.sha256 == card.table.sha256 and own.scale == card.scale


def test_a_template_of_ones_own_makes_the_texts(write):
    write("item,title,year,genres\n7,Up,2009,Comedy|Drama\n8,Alien,,\n", "items.csv")
    ratings = write(HEAD + "1,7,5\n2,8,3\n")
    data = load_own(ratings, items="items.csv", template="{genres} / {title}, {year}")
    assert data.catalog.texts() == ["Comedy, Drama / Up, 2009", "/ Alien,"]
    with pytest.raises(DataError, match="--template: '{name}' is no placeholder"):
        load_own(ratings, items="items.csv", template="{name}")
    with pytest.raises(DataError, match=r"--template: there are no item texts to make of it \(give --items\)"):
        load_own(ratings, template="{title}")
