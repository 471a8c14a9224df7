"""``fewrec recommend`` and ``fewrec ask`` as a user meets them: real titles, formats, one clear line for mistakes."""

import csv
import io
import json

import pandas as pd
import pytest
from click.testing import CliRunner

from fewrec.cli import main

TASTE = "title,rating\nStar Wars (1977),5\nThe Empire Strikes Back,5\nAlien,5\nBlade Runner,4\n" + (
    '"Terminator, The (1984)",5\nTwelve Monkeys,4\nSleepless in Seattle,2\n"English Patient, The",2\n'
)


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory, request):
    """Keep trained learners in a folder of the tests; data sets stay where they are."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setattr("fewrec.recommender.trained.cache_folder", lambda override=None: folder)
        yield folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Stand in an empty folder with a file of one's own: 40 users, 30 items with titles."""
    monkeypatch.chdir(tmp_path)
    rows = [(f"u{u}", i, 1 + (u * i + u + i) % 5) for u in range(40) for i in range(30) if (u + 3 * i) % 4]
    pd.DataFrame(rows, columns=["user", "item", "rating"]).to_csv("all.csv", index=False)
    titles = [(i, f"Film number {i}" if i else "=cmd()", 1960 + i, "Drama|War") for i in range(30)]
    pd.DataFrame(titles, columns=["item", "title", "year", "genres"]).to_csv("items.csv", index=False)
    (tmp_path / "mine.csv").write_text("title,rating\nFilm number 3,5\nfilm NUMBER 4 (1964),1\n")
    (tmp_path / "more.csv").write_text("item,rating\n7,5\n")
    return tmp_path


OWN = ("--data", "all.csv", "--items", "items.csv", "--threads", "1")


def invoke(*arguments, command="recommend"):
    return CliRunner().invoke(main, [command, *map(str, arguments)])


def refused(*arguments, command="recommend"):
    result = invoke(*arguments, command=command)
    assert result.exit_code == 2, result.output
    return result.stderr


def test_a_science_fiction_fan_gets_a_list_that_makes_sense(ml_100k, tmp_path):
    (tmp_path / "mine.csv").write_text(TASTE)
    (tmp_path / "more.csv").write_text("item,rating\nRaiders of the Lost Ark,5\n")
    common = ("--dataset", "ml-100k", "--ratings", tmp_path / "mine.csv", "--threads", 1, "--set", "sweeps=6")
    first = invoke(*common, "--top", 40, "--json")
    assert first.exit_code == 0, first.stderr
    assert "training gp on ml-100k (943 users, 100,000 ratings)" in first.stderr
    items = json.loads(first.stdout)["items"]
    titles = {item["title"]: item for item in items}
    assert "Raiders of the Lost Ark" in titles and "Return of the Jedi" in titles
    assert not {"Star Wars", "Alien", "Sleepless in Seattle"} & set(titles)
    assert all(1 <= item["low"] < item["predicted"] <= item["high"] <= 5 for item in items)
    assert min(item["ratings"] for item in items[:10]) >= 50, "no item that hardly anybody rated"
    jedi = {moved["title"]: moved["change"] for moved in titles["Return of the Jedi"]["moved_by"]}
    assert jedi.get("Empire Strikes Back, The (1980)", 0) > 0 or jedi.get("Star Wars (1977)", 0) > 0
    second = invoke(*common, "--top", 40, "--json")
    assert "training" not in second.stderr and second.stdout == first.stdout
    updated = invoke(*common, "--update", tmp_path / "more.csv", "--top", 3)
    assert updated.exit_code == 0 and "training" not in updated.stderr
    assert "9 ratings of this user known; adapt" in updated.stderr and "update" in updated.stderr
    assert "Raiders" not in updated.stdout.split("moved most by")[0] and "was" in updated.stdout


def test_own_data_give_the_same_bytes_twice_in_every_format(here):
    for form in ("table", "json", "csv"):
        first, second = (invoke(*OWN, "--ratings", "mine.csv", "--format", form).stdout_bytes for _ in range(2))
        assert first == second and first
    assert invoke(*OWN, "--ratings", "mine.csv", "--json").stdout_bytes == (
        invoke(*OWN, "--ratings", "mine.csv", "--format", "json").stdout_bytes
    )


def test_csv_is_a_table_in_which_no_title_is_a_formula(here):
    result = invoke(*OWN, "--ratings", "mine.csv", "--top", 28, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert len(rows) == 28 and {row["item"] for row in rows}.isdisjoint({"3", "4"})
    assert "'=cmd()" in {row["title"] for row in rows}
    assert all(float(row["low"]) <= float(row["predicted"]) <= float(row["high"]) for row in rows)


def test_ratings_that_are_unknown_are_listed_with_the_line_and_nothing_is_trained(here):
    (here / "bad.csv").write_text("title,rating\nFilm number 3,9\nFilm nmber 5,4\n")
    error = refused(*OWN, "--ratings", "bad.csv", "--seed", 5)
    assert error.startswith("all.csv: ") and "error: bad.csv: 2 of 2 ratings can't be used:" in error
    assert "bad.csv:2: rating 9 is outside the scale 1..5" in error
    assert "bad.csv:3: unknown title 'Film nmber 5'; nearest: Film number 5 (1965) = 5" in error
    assert "training" not in error


def test_a_learner_is_saved_loaded_and_updated(here):
    saved = invoke(*OWN, "--learner", "bias", "--ratings", "mine.csv", "--save", "model", "--json")
    assert saved.exit_code == 0, saved.stderr
    loaded = invoke(*OWN, "--model", "model", "--ratings", "mine.csv", "--json")
    assert loaded.stdout == saved.stdout and "training" not in loaded.stderr
    updated = invoke(*OWN, "--model", "model", "--ratings", "mine.csv", "--update", "more.csv", "--json")
    assert json.loads(updated.stdout)["ratings_known"] == 3
    (here / "mine.csv").write_text((here / "mine.csv").read_text() + "7,1\nFilm number 8,2\n")
    assert "unknown title '7'" in refused(*OWN, "--model", "model", "--ratings", "mine.csv")
    (here / "model" / "state.safetensors").write_bytes(b"")
    assert "error: model/state.safetensors: not the file" in refused(*OWN, "--model", "model")


def test_a_rating_that_is_given_again_is_noted(here):
    (here / "more.csv").write_text("item,rating\n3,2\n")
    result = invoke(*OWN, "--ratings", "mine.csv", "--update", "more.csv")
    assert "note: 'Film number 3 (1963)' was rated 5, and is 2 now" in result.stderr


def test_nobodys_ratings_are_enough_for_learners_that_can(here):
    assert invoke(*OWN, "--top", 3, "--json").exit_code == 0
    error = refused(*OWN, "--learner", "user-median")
    assert "error: 'user-median' can't recommend without a rating; give --ratings FILE" in error
    assert "'metaemb' can't recommend here" in refused(*OWN, "--learner", "metaemb", "--ratings", "mine.csv")


def test_finding_lists_titles_and_their_ids(here):
    result = invoke(*OWN[:4], "--find", "film 12")
    assert result.exit_code == 0 and result.stdout.split("\n")[1].split()[:4] == ["12", "Film", "number", "12"]
    rows = json.loads(invoke(*OWN[:4], "--find", "number", "--json").stdout)["items"]
    assert len(rows) == 29 and set(rows[0]) == {"item", "title", "year", "genres", "ratings"}
    assert "'=cmd()" in invoke(*OWN[:4], "--find", "cmd", "--format", "csv").stdout
    nothing = invoke(*OWN[:4], "--find", "flim")
    assert nothing.exit_code == 0 and "no title has all of 'flim'" in nothing.stderr


def test_ask_lists_what_to_rate_next_in_the_same_bytes_twice_and_goes_on_with_answers(here):
    for form in ("table", "json", "csv"):
        first, second = (invoke(*OWN, "--format", form, command="ask").stdout_bytes for _ in range(2))
        assert first == second and first
    asked = json.loads(invoke(*OWN, "--json", "--any", command="ask").stdout)
    assert asked["ratings_known"] == 0 and len(asked["items"]) == 10 and "interval_level" not in asked
    assert all(item["expected"] == item["information"] > 0 for item in asked["items"])
    result = invoke(*OWN, "--ratings", "mine.csv", "--update", "more.csv", "--top", 27, "--json", command="ask")
    assert {item["item"] for item in json.loads(result.stdout)["items"]}.isdisjoint({3, 4, 7, "3", "4", "7"})
    assert "training" not in result.stderr
    table = invoke(*OWN, "--ratings", "mine.csv", command="ask")
    assert "known by" in table.stdout and "2 ratings of this user known; adapt" in table.stderr
    found = invoke(*OWN[:4], "--find", "film 12", "--json", command="ask").stdout
    assert found == invoke(*OWN[:4], "--find", "film 12", "--json").stdout


def test_ask_refuses_a_learner_that_can_not_say_in_one_line(here):
    error = refused(*OWN, "--learner", "bias", command="ask")
    able = "learners that can: gp, hybrid-gp"
    assert error.splitlines()[-1] == f"error: 'bias' can't say what a rating would tell; {able}"
    assert "training" not in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--ratings", "mine.csv"), "no data set to recommend from: give --dataset NAME, --data FILE or --model"),
        ((*OWN, "--dataset", "ml-100k"), "--data and --dataset exclude one another"),
        (("--dataset", "ml-100"), "unknown dataset 'ml-100'"),
        ((*OWN, "--learner", "gpp"), "unknown learner 'gpp'; did you mean 'gp'?"),
        ((*OWN, "--set", "rank"), "'rank' is not of the form option=value"),
        ((*OWN, "--set", "rnk=3"), "'gp' has no option 'rnk'"),
        ((*OWN, "--model", "nowhere"), "nowhere: no saved learner there"),
        ((*OWN, "--ratings", "nowhere.csv"), "nowhere.csv: no such file"),
        ((*OWN, "--genre", "dram"), "no item has the genre 'dram'; did you mean 'Drama'?"),
        ((*OWN, "--device", "tpu"), "--device tpu: choose auto, cpu, cuda or mps"),
        ((*OWN, "--plugin", "nowhere.py"), "nowhere.py: no such file"),
        (("--find", "x"), "--find needs the data set to look in"),
        ((*OWN, "--top", "0"), "--top: 0 is too small; give 1 or more"),
    ],
)
def test_mistakes_are_one_clear_line_with_exit_code_two(here, arguments, message):
    error = refused(*arguments)
    assert message in error and "Traceback" not in error
