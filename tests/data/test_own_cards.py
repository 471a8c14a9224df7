"""``fewrec data add``: a user's own file gets a name, which stands for that file alone, read as it was understood."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from fewrec.cli import main
from fewrec.data.cards import broken_cards, list_cards, load_card
from fewrec.data.load import load_dataset, open_dataset
from fewrec.data.own import load_own, understand_own
from fewrec.data.own_cards import add_card, can_give, sparsity
from fewrec.errors import DataError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of own cards, empty; the current folder is another one."""
    monkeypatch.setenv("FEWREC_CARDS", str(tmp_path / "cards"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cards"


@pytest.fixture
def mine(folder, tmp_path):
    """30 users: user u has 10 + u % 3 ratings from 1 to 10, with time stamps; and titles with a year."""
    rows = [(f"u{u}", f"i{k}", 1 + (u + k) % 10, 100 * u + k) for u in range(30) for k in range(10 + u % 3)]
    pd.DataFrame(rows, columns=["who", "item", "rating", "date"]).to_csv(tmp_path / "mine.csv", index=False)
    titles = [(f"i{k}", f"The Film {k}", 1990 + k) for k in range(12)]
    pd.DataFrame(titles, columns=["item", "title", "year"]).to_csv(tmp_path / "titles.csv", index=False)
    return "mine.csv"


def invoke(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_add_shows_what_was_understood_and_writes_a_card(mine, folder):
    result = invoke("data", "add", mine, "--user-col", "who", "--items", "titles.csv")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert "mine.csv: columns user = 'who', item = 'item', rating = 'rating', timestamp = 'date'" in lines
    assert "size         330 ratings by 30 users of 12 items" in lines
    assert "scale        1 to 10, in steps of 1" in lines
    assert "sparsity     8.33 % of the pairs of user and item have no rating" in lines
    assert "K + 10       users with that many ratings: K = 1: 20, K = 3: 0, K = 5: 0, K = 10: 0, K = 20: 0" in lines
    assert lines[-1] == f"card         {folder / 'mine.toml'}"
    card = load_card("mine")
    assert card.own.path == os.path.abspath("mine.csv") and card.own.items == os.path.abspath("titles.csv")
    assert card.columns.items == ("title", "year") and card.columns.ratings[-1] == "timestamp"


def test_the_name_stands_for_the_same_data_set_from_any_folder(mine, tmp_path, monkeypatch):
    options = {"user_col": "who", "items": "titles.csv", "template": "{title} of {year}"}
    direct = load_own(mine, **options)
    add_card(mine, name="films", **options)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for named in (load_dataset("films"), open_dataset("films")):
        assert named.name == "films" and named.table.sha256 == direct.table.sha256 and named.scale == direct.scale
        assert named.catalog.texts() == direct.catalog.texts() and named.sources == direct.sources


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("a.csv", "x,7,2\ny,8,5\n", {}),
        ("b.dat", "1::7::2::100\n2::8::5::200\n", {}),
        ("c.tsv", "5\t_\tx\t7\n3\t_\ty\t8\n", {"columns": "rating,_,user,item", "scale": (1, 5)}),
        ("d.csv", "user;item;rating\nx;7;0.5\ny;8;4\nx;7;5\n", {"duplicates": "mean"}),
        ("e.inter", "user_id:token\titem_id:token\tlabel:float\n1\t2\t0\n1\t3\t1\n", {}),
        ("f.csv", "user,item,rating\n1,2,-1.25\n1,3,9.75\n", {}),
    ],
)
def test_every_guess_is_in_the_card_so_that_none_is_left(folder, tmp_path, name, content, options):
    (tmp_path / name).write_text(content)
    data, understood = understand_own(name, **options)
    again, same = understand_own(name, **understood)
    assert same == understood and again.table.sha256 == data.table.sha256
    assert (again.scale.low, again.scale.high) == (data.scale.low, data.scale.high)
    assert not any("guessed" in note for note in again.notes)
    add_card(name, **options)
    card = load_card(name[0])
    named = open_dataset(name[0])
    assert (named.table.sha256, named.scale, named.kind) == (data.table.sha256, data.scale, data.kind)
    assert (card.kind, card.scale.scale()) == (data.kind, data.scale)


def test_a_parquet_file_is_added_too(folder, tmp_path):
    pd.DataFrame({"user": [1, 2], "item": [3, 4], "rating": [1.0, 5.0]}).to_parquet(tmp_path / "p.parquet")
    add_card("p.parquet")
    assert np.array_equal(open_dataset("p").table.rating, [1, 5])


def test_a_changed_or_missing_file_is_an_error_that_says_so(mine, tmp_path):
    add_card(mine, user_col="who", items="titles.csv")
    path = tmp_path / "titles.csv"
    before = path.read_bytes()
    path.write_bytes(before.replace(b"Film", b"Movie"))
    with pytest.raises(
        DataError, match=r"^mine: .*titles\.csv has changed since the data set was added \(sha256 .*--rep"
    ):
        open_dataset("mine")
    path.write_bytes(before)
    open_dataset("mine")
    (tmp_path / mine).unlink()
    with pytest.raises(DataError, match=r"^mine: .*mine\.csv is no longer there"):
        open_dataset("mine")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ml-100k", "'ml-100k' is a data set of fewrec's; give another --name"),
        ("synthetic", "'synthetic' is a data set of fewrec's"),
        ("../evil", "--name '../evil': a name has letters, digits"),
        ("a b", "--name 'a b': a name has letters"),
        ("x.csv", "--name 'x.csv': .*does not end like a file"),
    ],
)
def test_a_name_that_is_taken_or_no_name_is_refused(mine, folder, name, message):
    result = invoke("data", "add", mine, "--user-col", "who", "--name", name)
    assert result.exit_code == 2 and result.output.count("\n") == 1
    with pytest.raises(DataError, match=message):
        add_card(mine, user_col="who", name=name)
    assert not folder.exists()


def test_a_bad_file_writes_no_card(folder, tmp_path):
    (tmp_path / "bad.csv").write_text("user,item,rating\n1,2,5\n1,2,4\n")
    result = invoke("data", "add", "bad.csv")
    assert result.exit_code == 2 and "bad.csv:3: user 1 and item 2 come twice, first at" in result.output
    assert not folder.exists()


def test_a_card_is_replaced_only_when_asked(mine, folder):
    add_card(mine, user_col="who")
    with pytest.raises(DataError, match=r"mine\.toml is there already; give another --name, or --replace"):
        add_card(mine, user_col="who")
    add_card(mine, user_col="who", scale=(0, 10), replace_card=True)
    assert load_card("mine").scale.low == 0 and [path.name for path in folder.iterdir()] == ["mine.toml"]


def test_own_cards_are_listed_after_those_of_fewrec_and_a_broken_one_by_its_problem(mine, folder):
    add_card(mine, user_col="who")
    (folder / "broken.toml").write_text("name = ")
    (folder / "ml-100k.toml").write_text((folder / "mine.toml").read_text())
    assert [card.name for card in list_cards()][-1] == "mine" and "mine" not in [c.name for c in list_cards(own=False)]
    assert len(broken_cards()) == 1 and load_card("ml-100k").own is None
    for command in (("list", "data"), ("data", "list")):
        output = invoke(*command).output
        assert "mine" in output and "330 ratings  yours" in output
        assert "can't be used: " in output and "broken.toml: not a readable card" in output
    assert "scale        1 to 10, in steps of 1" in invoke("data", "info", "mine").output
    assert "330 ratings by 30 users of 12 items" in invoke("data", "fetch", "mine").output


def test_a_name_is_taken_by_data_option_and_by_a_suite(mine, tmp_path):
    add_card(mine, name="films", user_col="who")
    suite = (
        'title = "t"\ndatasets = ["films"]\nstates = ["user-cold"]\nn_users = 2\nshots = 1\nn_query = 6\nseeds = 0\n'
    )
    (tmp_path / "s.toml").write_text(suite + 'episodes = 2\nlearners = ["bias"]\n')
    for options in ((), ("--data", "films")):
        result = invoke("run", "s.toml", *options, "--out", "out", "--dry-run")
        assert result.exit_code == 0 and "films" in result.output, result.output
    result = invoke("run", "s.toml", "--data", "films", "--scale", 1, 5, "--dry-run")
    assert result.exit_code == 2 and "films: --scale can only be given with a file of your own" in result.output


def test_the_share_without_ratings_and_the_users_with_k_and_q(folder, tmp_path):
    (tmp_path / "a.csv").write_text("user,item,rating\n" + "".join(f"1,{i},5\n" for i in range(4)) + "2,0,1\n")
    data = load_own("a.csv")
    assert sparsity(data) == pytest.approx(3 / 8)
    assert can_give(data, 2, (0, 2, 3)) == {0: 1, 2: 1, 3: 0}


def test_the_atomic_files_of_recbole_are_own_data(folder, tmp_path):
    inter = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t2\t4\t10\n2\t7\t3\t20\n"
    (tmp_path / "x.inter").write_text(inter)
    items = 'item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n2\t"Up" and away, or so\t2009\t'
    (tmp_path / "x.item").write_text(items + 'Comedy Drama\n7\tAlien "3\t1992\tHorror\n')
    data = load_own("x.inter", items="x.item")
    assert data.table.timestamp.tolist() == [10, 20] and data.table.rating.tolist() == [4, 3]
    assert data.catalog.texts() == ['"Up" and away, or so (2009). Comedy, Drama.', 'Alien "3 (1992). Horror.']
    (tmp_path / "x.inter").write_text(inter + "2\t2\t3\t20\t9\n")
    with pytest.raises(DataError, match=r"^x\.inter:4: 5 columns, but 4 in the first line"):
        load_own("x.inter")


def test_user_features_are_numbers_and_categories_in_the_order_of_users(folder, tmp_path):
    (tmp_path / "x.inter").write_text("user_id:token\titem_id:token\trating:float\n10\t1\t4\n2\t1\t3\n7\t1\t5\n")
    head = "user_id:token\tage:token\tgender:token\theight:float\n"
    (tmp_path / "x.user").write_text(head + "2\t24\tF\t1.5\n10\t53\tM\t\n99\t1\tM\t2\n")
    data = load_own("x.inter", users="x.user")
    expected = pd.DataFrame(
        {"age": [24.0, np.nan, 53.0], "gender": ["F", "", "M"], "height": [1.5, np.nan, np.nan]}
    ).astype({"gender": object})
    pd.testing.assert_frame_equal(data.user_features, expected)
    assert data.notes[1:3] == ("user features age, gender, height", "x.user: 1 users with ratings are not in it")
    add_card("x.inter", users="x.user")
    assert load_card("x").columns.users == ("age", "gender", "height")
    pd.testing.assert_frame_equal(open_dataset("x").user_features, expected)
    (tmp_path / "x.user").write_text(head + "2\t25\tF\t1.5\n")
    with pytest.raises(DataError, match=r"x\.user has changed since"):
        open_dataset("x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("user,age\n1,3\n1,4\n", "u.csv:3: user 1 comes twice"),
        ("person,age\n1,3\n", "u.csv:1: no column for the user among 'person', 'age' (name it 'user')"),
        ("user,age\n9,3\n", "u.csv: not one of the users with ratings is in it (ids such as 1, there 9)"),
        (
            "user,name\n1,a0\n" + "".join(f"{u},a{u}\n" for u in range(2, 150)),
            "u.csv: no column of numbers or of at most",
        ),
        ("user,age\n,3\n", "u.csv:2: user is missing"),
    ],
)
def test_a_bad_table_of_users_is_one_line(folder, tmp_path, content, message):
    (tmp_path / "r.csv").write_text("user,item,rating\n1,1,5\n2,1,4\n")
    (tmp_path / "u.csv").write_text(content)
    with pytest.raises(DataError) as caught:
        load_own("r.csv", users="u.csv")
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_clicks_with_sampled_negatives_are_the_same_by_name(folder, tmp_path):
    rows = [(u, (3 * u + k) % 20, 1) for u in range(12) for k in range(4)]
    pd.DataFrame(rows, columns=["user", "item", "click"]).to_csv(tmp_path / "clicks.csv", index=False)
    added = add_card("clicks.csv", negatives=2).dataset
    again = load_dataset("clicks")
    assert again.kind == added.kind == "clicks" and again.table.sha256 == added.table.sha256
    assert np.bincount(again.table.rating.astype(int)).tolist() == [2 * len(rows), len(rows)]
