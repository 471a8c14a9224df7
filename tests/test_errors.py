"""Errors: one printable line, whatever they quote from a file."""

import pickle

from fewrec.errors import DataError, FewrecError, printable


def test_an_error_quotes_nothing_that_a_terminal_would_obey():
    error = DataError("my.csv:3: rating 'a\x1b[2J\tb\nc\ud800\u202e' is not a number")
    assert str(error) == "my.csv:3: rating 'a\\x1b[2J b c\\ud800\\u202e' is not a number"
    assert str(DataError("ratings.dat:3: Misérables 🎬")) == "ratings.dat:3: Misérables 🎬"


def test_an_error_of_several_lines_says_so_itself():
    error = DataError("my.csv: 2 of 3 ratings can't be used:", "my.csv:1: x\ny", "my.csv:2: z")
    assert str(error) == "my.csv: 2 of 3 ratings can't be used:\n  my.csv:1: x y\n  my.csv:2: z"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_line_that_quotes_a_whole_file_is_cut_in_the_middle():
    text = str(FewrecError("begin" + "x" * 100_000 + "end"))
    assert text.startswith("begin") and text.endswith("end") and len(text) < 2_100
    assert printable("short") == "short"
