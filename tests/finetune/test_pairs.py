"""Files of ratings as people have them: with or without a header, compressed, and each mistake named by its line."""

import gzip

import numpy as np
import pytest

from fewrec.errors import DataError
from fewrec.finetune.pairs import read_pairs


def triples(pairs, table):
    ids = zip(table.item.tolist(), table.user.tolist(), table.rating.tolist(), strict=True)
    return [(pairs.item_ids[i], pairs.user_ids[u], rating) for i, u, rating in ids]


def test_header_or_none_comma_or_tab_compressed_or_not_is_the_same(here, ratings):
    train, test = ratings
    with gzip.open("train.tsv.gz", "wt") as stream:
        stream.write(train[["user", "score", "item"]].to_csv(index=False, sep="\t"))
    plain, other = read_pairs("train.csv", "test.csv"), read_pairs("train.tsv.gz", "test.csv")
    expected = [(str(i), str(u), float(s)) for i, u, s in train.itertuples(index=False)]
    assert triples(plain, plain.train) == triples(other, other.train) == expected
    assert triples(plain, plain.test) == [(str(i), str(u), float(s)) for i, u, s in test.itertuples(index=False)]
    assert (plain.scale.low, plain.scale.high) == (1, 5)
    assert any("scale 1 to 5: guessed" in note for note in plain.notes)


def test_an_id_is_the_same_in_both_files_though_one_has_words_too(here):
    (here / "a.csv").write_text("item,user,score\n7,1,2\n8,1,5\n")
    (here / "b.csv").write_text("item,user,score\n7,1,3\nseven,1,4\n")
    pairs = read_pairs("a.csv", "b.csv")
    assert pairs.item_ids == ["7", "8", "seven"]
    assert triples(pairs, pairs.test) == [("7", "1", 3.0), ("seven", "1", 4.0)]


def test_pairs_that_are_in_both_files_and_ids_that_are_new_are_counted(here):
    (here / "a.csv").write_text("item,user,score\n1,1,2\n2,1,5\n3,2,4\n")
    (here / "b.csv").write_text("item,user,score\n1,1,3\n9,1,4\n9,8,1\n")
    said = " ".join(read_pairs("a.csv", "b.csv").warnings)
    assert "b.csv: 1 of 3 pairs are also in a.csv" in said
    assert "1 of 2 users (33.3% of the ratings) are not in a.csv" in said
    assert "1 of 2 items (66.7% of the ratings) are not in a.csv" in said
    assert not read_pairs("a.csv", "a.csv").warnings[1:]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "bad.csv: the file is empty"),
        ("item,user,score\n", "bad.csv:2: the file ends before its first rating"),
        ("item,user,score\n1,1,3\n2,1,good\n", "bad.csv:3: rating 'good' is not a number"),
        ("1,1,3\n2,1,\n", "bad.csv:2: rating is missing"),
        ("1,1,3\n2,1,inf\n", "bad.csv:2: rating 'inf' is not a finite number"),
        ("1,1,3\n2,1\n", "bad.csv:2: rating is missing"),
        ("item,user,score\n1,1,3\n2,1,3,4\n", "bad.csv:3: 4 columns, but 3 in the first line"),
        ("item,user,score\n1,1,3\n,1,4\n", "bad.csv:3: item is missing"),
        ("item,user,score\n1,1,3\n1,1,4\n", "bad.csv:3: user 1 and item 1 come twice, first at bad.csv:2"),
        ("item,score\n1,3\n", "bad.csv:1: no column for the user"),
        ("1,1,9\n", "bad.csv:1: rating 9 is outside the scale 1..5 (give --scale 1 10 if it is right)"),
    ],
)  # fmt: skip
def test_a_bad_file_is_one_line_with_file_and_line(here, text, message):
    (here / "bad.csv").write_text(text)
    with pytest.raises(DataError) as error:
        read_pairs("train.csv", "bad.csv")
    assert message in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(DataError, match="nowhere.csv: no such file"):
        read_pairs("nowhere.csv", "test.csv")


def test_the_scale_comes_from_train_alone_or_is_given(here):
    (here / "a.csv").write_text("1,1,2.25\n2,1,-3.5\n")
    (here / "b.csv").write_text("1,2,4.5\n")
    with pytest.raises(DataError, match=r"b.csv:1: rating 4.5 is outside the scale -3.5..2.25"):
        read_pairs("a.csv", "b.csv")
    pairs = read_pairs("a.csv", "b.csv", scale=(-10, 10))
    assert (pairs.scale.low, pairs.scale.high) == (-10, 10)
    assert np.allclose(pairs.test.rating, [4.5])
