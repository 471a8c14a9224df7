"""A user's file of ratings: what is understood, and what is refused, with the line and what to write instead."""

import gzip

import numpy as np
import pandas as pd
import pytest

from fewrec.data.table import Scale
from fewrec.errors import DataError
from fewrec.recommender.ratings import UserRatings, read_ratings

SCALE = Scale(1, 5, 1)


@pytest.fixture
def read(titles, tmp_path):
    def read(content, name="mine.csv", scale=SCALE):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        found = read_ratings(path, titles, scale)
        return dict(zip(found.item.tolist(), found.rating.tolist(), strict=True))

    return read


WANTED = {0: 5.0, 2: 4.0}


@pytest.mark.parametrize(
    "content",
    [
        "item,rating\n1,5\n3,4\n",
        "1,5\n3,4\n",
        'Star Wars,5\n"Matrix, The",4',
        "title,rating\nStar Wars (1977),5\nThe Matrix,4\n",
        "rating,title\n5,Star Wars\n4,The Matrix\n",
        'Movie;Stars\r\nStar Wars;5\r\n"Matrix, The (1999)";4\r\n',
        b"\xef\xbb\xbftitle,rating\r\nStar Wars,5.0\r\n\r\nThe Matrix,4\r\n",
        "item\trating\nStar Wars\t5\nThe Matrix\t4\n",
        "user,item,rating,comment\nme,1,5,great\nme,3,4,\n",
        "item_id,rating\n1.0,5\n3.0,4\n",
    ],
)
def test_files_as_people_write_them_are_understood(read, content):
    assert read(content) == WANTED


def test_gzip_parquet_and_mappings_are_understood(read, titles, tmp_path):
    assert read(gzip.compress(b"item,rating\n1,5\n3,4\n"), "mine.csv.gz") == WANTED
    pd.DataFrame({"item": [1, 3], "rating": [5.0, 4.0]}).to_parquet(tmp_path / "mine.parquet")
    for source in (tmp_path / "mine.parquet", {"Star Wars": 5, 3: 4}):
        found = read_ratings(source, titles, SCALE)
        assert dict(zip(found.item.tolist(), found.rating.tolist(), strict=True)) == WANTED


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("item,rating\n1,5\nStar Warz,4\n", r"mine.csv:3: unknown item or title 'Star Warz'; nearest: Star Wars"),
        ("title,rating\n1,5\n", r"mine.csv:2: unknown title '1'"),
        ("itemid,rating\nStar Wars,5\n", r"mine.csv:2: unknown item 'Star Wars'"),
        ("item,rating\nSabrina,5\n", r"mine.csv:2: 'Sabrina' may be 2 items; write the id of one"),
        ("item,rating\n1,6\n", r"mine.csv:2: rating 6 is outside the scale 1..5"),
        ("item,rating\n1,nan\n", r"mine.csv:2: rating nan is outside the scale 1..5"),
        ("item,rating\n1,4.5\n", r"mine.csv:2: rating 4.5 is between the scale's steps; write 4 or 5"),
        ("item;rating\n1;4,5\n", r"mine.csv:2: rating '4,5' is not a number \(write 4.5\)"),
        ("item,rating\n1,good\n", r"mine.csv:2: rating 'good' is not a number"),
        ("item,rating\n1,\n", r"mine.csv:2: the rating is missing"),
        ("item,rating\n,5\n", r"mine.csv:2: the item is missing"),
        ("item,rating\n1,5\n\n3,4\nStar Wars,4\n", r"mine.csv:5: 'Star Wars \(1977\)' comes twice, first at .*:2"),
        ("item,rating\nThe Matrix, part 1,5\n", r"mine.csv:2: 3 columns, but 2 .*put titles with a comma in quotes"),
        ("item,rating\n", "ends before its first rating"),
        ("", "the file is empty"),
        ("\n \n", "the file is empty"),
        ("Star Wars\nThe Matrix\n", r"mine.csv:1: 'Star Wars' is neither a header nor an item and a rating; begin"),
        ("thing,stars\n1,5\n", r"mine.csv:1: no column for the items \(name it item or title\) among 'thing', 'stars'"),
        ("item,mark\n1,5\n", r"mine.csv:1: no column for the ratings \(name it rating\)"),
        ("1,5,x\n3,4,y\n", r"mine.csv:1: '1,5,x' is neither a header nor an item and a rating"),
        ("user,item,rating\nme,1,5\nyou,3,4\n", "ratings by 2 users"),
        (b"item,rating\n\xff,5\n", "not UTF-8"),
    ],
)
def test_what_cannot_be_used_is_one_error_with_its_place(read, content, message):
    with pytest.raises(DataError, match=message) as error:
        read(content)
    assert "\n" not in str(error.value)


def test_all_bad_lines_are_listed_at_once_the_first_ten(read):
    with pytest.raises(DataError) as error:
        read("item,rating\n1,9\n3,4\nStar Warz,4\n")
    lines = str(error.value).splitlines()
    assert "2 of 3 ratings can't be used" in lines[0] and len(lines) == 3
    assert ":2: rating 9" in lines[1] and ":4: unknown item" in lines[2]
    with pytest.raises(DataError, match="12 of 12 ratings can't be used, the first 10") as error:
        read("item,rating\n" + "".join(f"no such {i},5\n" for i in range(12)))
    assert len(str(error.value).splitlines()) == 11


def test_untrusted_text_in_an_error_has_no_control_characters(read):
    with pytest.raises(DataError) as error:
        read("item,rating\n\x1b[31mred\x07,5\n")
    assert str(error.value).isprintable()


def test_a_missing_file_is_named(titles, tmp_path):
    with pytest.raises(DataError, match="nope.csv: no such file"):
        read_ratings(tmp_path / "nope.csv", titles, SCALE)


def test_half_stars_are_taken_where_the_scale_has_them(read):
    assert read("item,rating\n1,4.5\n", scale=Scale(0.5, 5, 0.5)) == {0: 4.5}


def test_of_an_item_that_is_rated_again_the_later_rating_counts():
    first = UserRatings(np.array([1, 2]), np.array([3.0, 4.0]))
    joined = first.joined(UserRatings(np.array([5, 1]), np.array([2.0, 5.0])))
    assert joined.item.tolist() == [2, 5, 1] and joined.rating.tolist() == [4.0, 2.0, 5.0]
