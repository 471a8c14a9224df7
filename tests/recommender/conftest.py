"""A small data set with titles, and a cache of its own, so that no test reads or fills the user's."""

from dataclasses import replace

import pandas as pd
import pytest

from fewrec.data.synthetic import make_synthetic
from fewrec.recommender.titles import TitleIndex

FILMS = [
    ("Star Wars", "1977", "Action, Sci-Fi"),
    ("Empire Strikes Back, The", "1980", "Action, Sci-Fi"),
    ("Matrix, The", "1999", "Action, Sci-Fi"),
    ("Sabrina", "1954", "Comedy, Romance"),
    ("Sabrina", "1995", "Comedy, Romance"),
    ("Nikita (La Femme Nikita)", "1990", "Thriller"),
    ("Amélie (Fabuleux destin d'Amélie Poulain, Le)", "2001", "Comedy"),
    ("Die xue shuang xiong (Killer, The)", "1989", "Action"),
    ("101 Dalmatians", "1996", "Children's"),
    ("187", "1997", "Drama"),
    ("When Harry Met Sally...", "1989", "Comedy, Romance"),
    ("Truth About Cats & Dogs, The", "1996", "Comedy, Romance"),
    ("Toy Story (1995)", "", "Animation"),
    ("=HYPERLINK(evil)", "2000", "Thriller"),
    ("Bell\x07\x1b[31mRed\nLine", "2001", "Thriller"),
    ("Wallace & Gromit: The Best of Aardman Animation", "1996", "Animation"),
]


@pytest.fixture(scope="session")
def dataset():
    """Return 80 users, 60 items (ids 1..60); the first items are the films above, the others are made up."""
    made = make_synthetic(n_users=80, n_items=60, density=0.4, seed=3)
    text = made.catalog.text.copy()
    text.loc[: len(FILMS) - 1, ["title", "year", "genres"]] = pd.DataFrame(FILMS).to_numpy()
    return replace(made, catalog=replace(made.catalog, text=text))


@pytest.fixture(scope="session")
def titles(dataset):
    return TitleIndex(dataset)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEWREC_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
