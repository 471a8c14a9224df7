"""Titles as people write them lead to the one item that is meant, and to a helpful refusal otherwise."""

import pytest

from fewrec.recommender.titles import UnknownTitle, plain
from tests.recommender.conftest import FILMS


@pytest.mark.parametrize(
    ("text", "item"),
    [
        ("Star Wars", 0),
        ("STAR WARS (1977)", 0),
        ("the empire strikes back", 1),
        ("Empire Strikes Back, The (1980)", 1),
        ("The Matrix (1999)", 2),
        ("Matrix, The", 2),
        ("sabrina (1995)", 4),
        ("La Femme Nikita", 5),
        ("Nikita", 5),
        ("Nikita (La Femme Nikita) (1990)", 5),
        ("Amelie", 6),
        ("Le Fabuleux Destin d'Amelie Poulain", 6),
        ("The Killer", 7),
        ("When Harry met Sally", 10),
        ("The Truth about Cats and Dogs", 11),
        ("Toy Story", 12),
        ("Toy Story (1995)", 12),
        ("3", 2),
        ("187", 9),
    ],
)
def test_a_title_or_an_id_finds_its_item(titles, text, item):
    assert titles.match(text) == item


def test_a_title_of_several_items_is_refused_with_their_ids(titles):
    with pytest.raises(UnknownTitle, match=r"'Sabrina' may be 2 items; .*Sabrina \(1954\) = 4; Sabrina \(1995\) = 5"):
        titles.match("Sabrina")


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("Star Warz", "Star Wars (1977) = 1"),
        ("Star Wars (1999)", "Star Wars (1977) = 1"),
        ("The Matrx", "Matrix, The (1999) = 3"),
        ("wallase", "Wallace & Gromit: The Best of Aardman Animation (1996) = 16"),
        ("strikes back", "Empire Strikes Back, The (1980) = 2"),
    ],
)
def test_an_unknown_title_is_refused_with_the_nearest(titles, text, near):
    with pytest.raises(UnknownTitle, match="unknown item or title") as error:
        titles.match(text)
    assert near in str(error.value)


@pytest.mark.parametrize("text", ["", "()", "!!!", "qqqqqq", "999"])
def test_what_is_like_no_title_is_refused_too(titles, text):
    with pytest.raises(UnknownTitle, match="unknown item or title"):
        titles.match(text)


def test_an_id_that_is_another_items_title_is_ambiguous_unless_it_is_said_what_it_is(titles, dataset):
    from dataclasses import replace

    from fewrec.recommender.titles import TitleIndex

    text = dataset.catalog.text.copy()
    text.loc[9, "title"] = "17"
    index = TitleIndex(replace(dataset, catalog=replace(dataset.catalog, text=text)))
    with pytest.raises(UnknownTitle, match="'17' is the id of .* and the title of '17 "):
        index.match("17")
    assert index.match("17", titles=False) == 16 and index.match("17", ids=False) == 9


def test_finding_lists_titles_with_all_words_the_most_rated_first(titles):
    assert sorted(titles.find("SABRINA")) == [3, 4]
    counts = titles.count[titles.find("sabrina")]
    assert counts[0] >= counts[1]
    assert titles.find("sabrina (1995)") == [4]
    assert titles.find("back emp") == [1]
    assert titles.find("") == titles.find("no such film") == []


def test_titles_are_shown_in_one_line_without_control_characters(titles):
    shown = titles.shown([name for name, *_ in FILMS].index("Bell\x07\x1b[31mRed\nLine"))
    assert shown.isprintable() and "Red Line" in shown


def test_article_accents_case_and_punctuation_make_no_difference():
    assert plain("Matrix, The") == plain("the  MATRIX!") == "the matrix"
    assert plain("Amélie") == "amelie" and plain("Cats & Dogs") == "cats and dogs"


def test_a_data_set_without_text_is_known_by_ids(dataset):
    from dataclasses import replace

    from fewrec.recommender.titles import TitleIndex

    index = TitleIndex(replace(dataset, catalog=replace(dataset.catalog, text=None)))
    assert index.match("7") == 6 and index.shown(6) == "7"
    with pytest.raises(UnknownTitle):
        index.match("Star Wars")
