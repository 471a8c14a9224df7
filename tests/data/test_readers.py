"""Both formats of MovieLens-100K give the same data set: hand-written files always, real ones where present."""

from __future__ import annotations

import unicodedata

import numpy as np
import pandas as pd
import pytest

from fewrec.data.cards import load_card
from fewrec.data.load import load_dataset, read_files
from fewrec.data.readers.text import join_genres, split_title
from fewrec.errors import DataError


@pytest.fixture
def both(official_files, recbole_files):
    card = load_card("ml-100k")
    return (
        read_files(card, official_files, "movielens-100k", "u"),
        read_files(card, recbole_files, "recbole-atomic", "u"),
    )


def test_both_formats_give_the_identical_rating_table(both):
    official, recbole = both
    assert official.table.sha256 == recbole.table.sha256
    for column in ("user", "item", "rating", "timestamp"):
        assert np.array_equal(getattr(official.table, column), getattr(recbole.table, column))


def test_both_formats_give_the_identical_catalog_and_users(both):
    official, recbole = both
    assert official.catalog.text_sha256 == recbole.catalog.text_sha256
    pd.testing.assert_frame_equal(official.catalog.text, recbole.catalog.text)
    pd.testing.assert_frame_equal(official.user_features, recbole.user_features)
    assert np.array_equal(official.catalog.item_ids, recbole.catalog.item_ids)


def test_codes_follow_numeric_ids_and_rows_follow_the_file(both):
    for dataset in both:
        assert dataset.user_ids.tolist() == [1, 2, 10]
        assert dataset.catalog.item_ids.tolist() == [2, 10, 1412]
        assert dataset.table.user.tolist() == [1, 0, 2, 0, 1]
        assert dataset.table.item.tolist() == [1, 0, 0, 1, 2]
        assert dataset.table.rating.tolist() == [5, 3, 1, 4, 2]


def test_catalog_text_is_canonical(both):
    for dataset in both:
        assert dataset.catalog.text.values.tolist() == [
            ["GoldenEye", "1995", "Action, Thriller", ""],
            ["Misérables, Les", "1995", "Drama, Musical", ""],
            ["Land Before Time III: The Time of the Great Giving", "1995", "Animation, Children's", ""],
        ]
        assert dataset.user_features.values.tolist() == [
            [24, "M", "technician"],
            [23, "M", "writer"],
            [53, "F", "other"],
        ]


@pytest.mark.parametrize(
    ("title", "year", "expected"),
    [
        ("Toy Story (1995)", "", ("Toy Story", "1995")),
        ("Heidi Fleiss: Hollywood Madam (1995) ", "", ("Heidi Fleiss: Hollywood Madam", "1995")),
        ("Land Before Time III (1995) (V)", "", ("Land Before Time III", "1995")),
        ("Land Before Time III (1995)", "V", ("Land Before Time III", "1995")),
        ("Toy Story", "1995", ("Toy Story", "1995")),
        ("1984 (1984)", "1984", ("1984", "1984")),
        ("Blade Runner (1982)", "1997", ("Blade Runner (1982)", "1997")),
        ("unkonwn", "unkonwn", ("unkonwn", "")),
        ("(1995)", "", ("(1995)", "")),
        ("Contempt (Mépris, Le) (1963)", "", ("Contempt (Mépris, Le)", "1963")),
    ],
)
def test_a_title_is_split_from_its_year(title, year, expected):
    assert split_title(title, year) == expected


def test_unknown_genres_are_left_out():
    assert join_genres(["unknown"]) == ""
    assert join_genres(["Sci-Fi", " Drama ", "(no genres listed)"]) == "Sci-Fi, Drama"


def test_an_off_scale_rating_in_a_cards_file_is_named(official_files):
    (official_files / "u.data").write_text("1\t2\t3\t7\n1\t10\t6\t7\n")
    with pytest.raises(DataError, match=r"^u\.data:2: rating 6 is outside the scale 1\.\.5"):
        read_files(load_card("ml-100k"), official_files, "movielens-100k", "u")


def test_a_user_without_a_row_in_the_file_of_users_is_an_error(official_files):
    (official_files / "u.user").write_text("1|24|M|technician|85711\n2|23|M|writer|32067\n")
    with pytest.raises(DataError, match="1 users with ratings are not in the file of users"):
        read_files(load_card("ml-100k"), official_files, "movielens-100k", "u")


def test_a_missing_column_of_an_atomic_file_is_named(recbole_files):
    (recbole_files / "u.inter").write_text("user_id:token\titem_id:token\tstars:float\n1\t2\t3\n")
    with pytest.raises(DataError, match="no column 'rating' among user_id:token, item_id:token, stars:float"):
        read_files(load_card("ml-100k"), recbole_files, "recbole-atomic", "u")


@pytest.fixture(scope="module")
def ml_100k():
    try:
        return load_dataset("ml-100k", notify=lambda line: None)
    except DataError as error:
        pytest.skip(f"ml-100k is neither cached nor reachable: {error}")


def test_the_fetched_ml_100k_has_the_ratings_of_the_official_files(ml_100k, test_data):
    official = read_files(load_card("ml-100k"), test_data / "ml-100k", "movielens-100k", "u")
    assert (len(official.table), official.table.n_users, official.table.n_items) == (100_000, 943, 1_682)
    assert ml_100k.table.sha256 == official.table.sha256
    pd.testing.assert_frame_equal(ml_100k.user_features, official.user_features)


def test_the_fetched_ml_100k_has_the_official_text_but_for_accents_and_item_267(ml_100k, test_data):
    official = read_files(load_card("ml-100k"), test_data / "ml-100k", "movielens-100k", "u").catalog
    ours, theirs = ml_100k.catalog.text, official.text
    assert np.array_equal(ml_100k.catalog.item_ids, official.item_ids)
    differ = np.flatnonzero((ours != theirs).any(axis=1))
    without_accents = ours.title.map(lambda t: unicodedata.normalize("NFKD", t).encode("ascii", "ignore").decode())
    assert len(differ) <= 11
    for row in differ:
        if official.item_ids[row] == 267:
            assert {ours.title[row], theirs.title[row]} <= {"unknown", "unkonwn"}
        else:
            assert without_accents[row] == theirs.title[row]
    pd.testing.assert_frame_equal(ours[["year", "genres", "description"]], theirs[["year", "genres", "description"]])


def test_the_fetched_ml_100k_tells_its_sources(ml_100k):
    card = load_card("ml-100k")
    assert any(set(ml_100k.sources.values()) == set(source.files.values()) for source in card.sources)
