"""A user's own ratings that can't be what they should be."""

from tests.bad_inputs.case import Case, packed, parquet, ratings

RUN = "run own.toml --data "
HEAD = "user,item,rating\n"

CASES = (
    Case("no such file", RUN + "ratings.csv", "ratings.csv: no such file"),
    Case(
        "a name that is neither a data set nor a file",
        RUN + "mine",
        "unknown dataset 'mine'; did you mean 'mind-large'? (a file of your own needs its ending, say my.csv)",
    ),
    Case("a folder", RUN + "stuff", "stuff: this is a folder, not a file", files={"stuff/": ""}),
    Case("an empty file", RUN + "bad.csv", "bad.csv: the file is empty", files={"bad.csv": ""}),
    Case("blank lines alone", RUN + "bad.csv", "bad.csv: the file is empty", files={"bad.csv": "\n\n  \n"}),
    Case(
        "a header alone", RUN + "bad.csv", "bad.csv:2: the file ends before its first rating", files={"bad.csv": HEAD}
    ),
    Case(
        "an image that is called .csv",
        RUN + "bad.csv",
        "bad.csv:1: not a text file in UTF-8; save it as UTF-8 text (or give it the ending .parquet)",
        files={"bad.csv": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0"},
    ),
    Case(
        "a spreadsheet",
        RUN + "bad.csv",
        "bad.csv: this is a spreadsheet or a ZIP archive, not a text file; save the table as CSV",
        files={"bad.csv": b"PK\x03\x04\x14\0\x06\0\x08\0\0\0!\0[Content"},
    ),
    Case(
        "a file in Latin-1",
        RUN + "bad.csv",
        "bad.csv:2: not UTF-8 (byte 0xe9 at column 6); save it as UTF-8",
        files={"bad.csv": HEAD.encode() + "1,Café,3\n".encode("latin-1")},
    ),
    Case(
        "a file in UTF-16",
        RUN + "bad.csv",
        "bad.csv:1: not UTF-8 but UTF-16; save it as UTF-8",
        files={"bad.csv": (HEAD + "1,1,3\n").encode("utf-16")},
    ),
    Case(
        "text that is called .gz",
        RUN + "bad.csv.gz",
        "bad.csv.gz: can't be read (it is no gzip file, whatever its name ends in)",
        files={"bad.csv.gz": ratings()},
    ),
    Case(
        "a .gz that is cut off",
        RUN + "bad.csv.gz",
        "bad.csv.gz: can't be read (it is cut off; get it again)",
        files={"bad.csv.gz": packed(ratings() * 50)[:60]},
    ),
    Case(
        "text that is called .parquet",
        RUN + "bad.parquet",
        "bad.parquet: not a readable Parquet file (it is damaged, or of another kind); write it again, or mend its ending",
        files={"bad.parquet": ratings()},
    ),
    Case("an empty Parquet file", RUN + "bad.parquet", "bad.parquet: the file is empty", files={"bad.parquet": b""}),
    Case(
        "a Parquet file without rows",
        RUN + "bad.parquet",
        "bad.parquet: row 1: the file ends before its first rating",
        files={"bad.parquet": parquet(user=[], item=[], rating=[])},
    ),
    Case(
        "a Parquet file with other columns",
        RUN + "bad.parquet",
        "bad.parquet: no column for the user among 'a', 'b', 'c' (give --user-col)",
        files={"bad.parquet": parquet(a=[1, 2], b=[1, 2], c=[3, 4])},
    ),
    Case(
        "a Parquet file with a missing rating",
        RUN + "bad.parquet",
        "bad.parquet: row 2: rating is missing (empty or NaN)",
        files={"bad.parquet": parquet(user=[1, 1], item=[1, 2], rating=[3.0, None])},
    ),
    Case(
        "columns named for a Parquet file",
        RUN + "bad.parquet --columns user,item,rating",
        "bad.parquet: --columns is for text files, a Parquet file names its columns",
        files={"bad.parquet": parquet(user=[1, 1], item=[1, 2], rating=[3, 4])},
    ),
    Case(
        "one column",
        RUN + "bad.csv",
        "bad.csv:1: one column only ('rating'); columns are separated by one of tab, comma, semicolon, bar, double colon, space (give --delimiter)",
        files={"bad.csv": "rating\n3\n4\n"},
    ),
    Case(
        "two columns",
        RUN + "bad.csv",
        "bad.csv:1: no column for the rating among 'user', 'item' (give --rating-col)",
        files={"bad.csv": "user,item\n1,1\n1,2\n"},
    ),
    Case(
        "an unknown header",
        RUN + "bad.csv",
        "bad.csv:1: no column for the user among 'who', 'what', 'howmuch' (give --user-col)",
        files={"bad.csv": "who,what,howmuch\n1,1,3\n1,2,4\n"},
    ),
    Case(
        "a column twice",
        RUN + "bad.csv",
        "bad.csv:1: the column 'rating' comes twice",
        files={"bad.csv": "user,item,rating,rating\n1,1,3,3\n"},
    ),
    Case(
        "no header and five columns",
        RUN + "bad.csv",
        "bad.csv:1: no header and 5 columns (give --columns, say user,item,rating)",
        files={"bad.csv": "1,1,3,4,5\n1,2,4,4,5\n"},
    ),
    Case(
        "a line with a column too many",
        RUN + "bad.csv",
        "bad.csv:4: 4 columns, but 3 in the first line (a value with a comma in it needs quotes)",
        files={"bad.csv": ratings("1,3,4,late")},
    ),
    Case(
        "a line with a column too few",
        RUN + "bad.csv",
        "bad.csv:4: rating is missing (empty or NaN)",
        files={"bad.csv": ratings("1,3")},
    ),
    Case(
        "a quote that is never closed",
        RUN + "bad.csv",
        'bad.csv:4: a quote (") is opened there, and never closed',
        files={"bad.csv": ratings('1,"3,4', "2,2,3")},
    ),
    Case(
        "a rating that is a word",
        RUN + "bad.csv",
        "bad.csv:4: rating 'good' is not a number",
        files={"bad.csv": ratings("1,3,good")},
    ),
    Case(
        "a rating with a comma for a point",
        RUN + "bad.csv",
        "bad.csv:2: rating '3,5' is not a number (write 3.5, with a point)",
        files={"bad.csv": "user;item;rating\n1;1;3,5\n1;2;4,0\n"},
    ),
    Case(
        "a rating in stars",
        RUN + "bad.csv",
        "bad.csv:4: rating '****' is not a number",
        files={"bad.csv": ratings("1,3,****")},
    ),
    Case(
        "a rating that is missing",
        RUN + "bad.csv",
        "bad.csv:4: rating is missing (empty or NaN)",
        files={"bad.csv": ratings("1,3,")},
    ),
    Case(
        "a rating that is NaN",
        RUN + "bad.csv",
        "bad.csv:4: rating is missing (empty or NaN)",
        files={"bad.csv": ratings("1,3,nan")},
    ),
    Case(
        "a rating that is infinite",
        RUN + "bad.csv",
        "bad.csv:4: rating 'inf' is not a finite number",
        files={"bad.csv": ratings("1,3,inf")},
    ),
    Case("a user that is missing", RUN + "bad.csv", "bad.csv:4: user is missing", files={"bad.csv": ratings(",3,4")}),
    Case("an item that is blank", RUN + "bad.csv", "bad.csv:4: item is missing", files={"bad.csv": ratings("1, ,4")}),
    Case(
        "a rating outside the scale",
        RUN + "bad.csv --scale 1 5",
        "bad.csv:4: rating 7 is outside the scale 1..5 (give --scale 1 10 if it is right)",
        files={"bad.csv": ratings("1,3,7")},
    ),
    Case(
        "a scale that is narrower than the ratings",
        "data add mine.csv --scale 1 4",
        "mine.csv:6: rating 5 is outside the scale 1..4 (give --scale 1 5 if it is right)",
    ),
    Case(
        "a scale upside down", RUN + "mine.csv --scale 5 1", "--scale 5 1: the lowest rating must be below the highest"
    ),
    Case(
        "a scale of one value", RUN + "mine.csv --scale 3 3", "--scale 3 3: the lowest rating must be below the highest"
    ),
    Case(
        "a scale that is NaN",
        RUN + "mine.csv --scale nan 5",
        "--scale nan 5: give two finite numbers, the lowest and the highest rating",
    ),
    Case(
        "a scale without end",
        RUN + "mine.csv --scale 1 inf",
        "--scale 1 inf: give two finite numbers, the lowest and the highest rating",
    ),
    Case(
        "every rating the same",
        RUN + "bad.csv",
        "bad.csv: every rating is 33.3, so the scale can't be guessed (give --scale LOW HIGH)",
        files={"bad.csv": "user,item,rating\n1,1,33.3\n1,2,33.3\n2,1,33.3\n"},
    ),
    Case(
        "clicks without anything else",
        RUN + "bad.csv",
        "bad.csv: every rating is 1: clicks need what was not clicked too (give --negatives R to sample R items beside each, or --scale LOW HIGH for ratings)",
        files={"bad.csv": "user,item,click\n1,1,1\n1,2,1\n2,1,1\n"},
    ),
    Case(
        "negatives for ratings",
        RUN + "mine.csv --negatives 2",
        "mine: --negatives is for clicks; its ratings are not all 1",
    ),
    Case(
        "negatives for clicks that have some",
        RUN + "bad.csv --negatives 2",
        "bad: it has 1 negatives of its own, so none can be sampled (leave out --negatives)",
        files={"bad.csv": "user,item,click\n1,1,1\n1,2,0\n2,1,1\n"},
    ),
    Case(
        "negatives where everybody clicked everything",
        RUN + "bad.csv --negatives 1",
        "bad: every user has clicked every item, so there is no item for --negatives",
        files={"bad.csv": "user,item,click\n1,1,1\n1,2,1\n2,1,1\n2,2,1\n"},
    ),
    Case(
        "a pair twice",
        RUN + "bad.csv",
        "bad.csv:5: user 1 and item 1 come twice, first at bad.csv:2 (give --duplicates last or mean)",
        files={"bad.csv": ratings("2,2,4", "1,1,5")},
    ),
    Case(
        "the mean of clicks that come twice",
        RUN + "bad.csv --duplicates mean",
        "bad.csv: ratings of 0 and 1 are clicks, of which there is no mean (give --duplicates last)",
        files={"bad.csv": "user,item,click\n1,1,1\n1,1,0\n2,1,1\n"},
    ),
    Case(
        "a time that is neither seconds nor a date",
        RUN + "bad.csv",
        "bad.csv:3: timestamp 'last week' is neither seconds since 1970 nor a date like 2005-03-31",
        files={"bad.csv": "user,item,rating,time\n1,1,3,2001-02-03\n1,2,4,last week\n"},
    ),
    Case(
        "a date that is two days",
        RUN + "bad.csv",
        "bad.csv:2: timestamp '3/4/2005' is neither seconds since 1970 nor a date like 2005-03-31",
        files={"bad.csv": "user,item,rating,date\n1,1,3,3/4/2005\n1,2,4,5/6/2005\n"},
    ),
    Case(
        "a date that isn't there",
        RUN + "bad.csv",
        "bad.csv:2: timestamp '2005-02-30' is neither seconds since 1970 nor a date like 2005-03-31",
        files={"bad.csv": "user,item,rating,date\n1,1,3,2005-02-30\n1,2,4,2005-03-01\n"},
    ),
    Case(
        "times in infinite seconds",
        RUN + "bad.csv",
        "bad.csv:2: timestamp 'inf' is neither seconds since 1970 nor a date like 2005-03-31",
        files={"bad.csv": "user,item,rating,time\n1,1,3,inf\n1,2,4,5\n"},
    ),
    Case(
        "a user column that isn't there",
        RUN + "mine.csv --user-col usr",
        "mine.csv:1: no column 'usr' (--user-col); did you mean 'user'?",
    ),
    Case(
        "an item column that isn't there",
        RUN + "mine.csv --item-col film",
        "mine.csv:1: no column 'film' (--item-col); did you mean 'item'?",
    ),
    Case(
        "a rating column that isn't there",
        RUN + "mine.csv --rating-col ratings",
        "mine.csv:1: no column 'ratings' (--rating-col); did you mean 'rating'?",
    ),
    Case(
        "a time column that isn't there",
        RUN + "mine.csv --time-col when",
        "mine.csv:1: no column 'when' (--time-col); known: item, rating, user",
    ),
    Case(
        "one column for two roles",
        RUN + "mine.csv --user-col user --item-col user",
        "--user-col and --item-col both name the column 'user'",
    ),
    Case(
        "a named column of a file without a header",
        RUN + "bad.csv --user-col user",
        "bad.csv: --user-col needs a header (give --columns, say item,user,rating)",
        files={"bad.csv": "1,1,3\n1,2,4\n"},
    ),
    Case(
        "columns of an unknown kind",
        RUN + "mine.csv --columns user,film,rating",
        "--columns: 'film' is none of user, item, rating, timestamp or _",
    ),
    Case(
        "columns without a rating",
        RUN + "mine.csv --columns user,item,_",
        "--columns user,item,_: needs user, item and rating once each",
    ),
    Case(
        "columns with the user twice",
        RUN + "mine.csv --columns user,user,item,rating",
        "--columns user,user,item,rating: needs user, item and rating once each",
    ),
    Case(
        "a column too many named",
        RUN + "mine.csv --columns user,item,rating,time",
        "mine.csv:1: 3 columns, but --columns names 4",
    ),
    Case(
        "columns and a column's name",
        RUN + "mine.csv --columns user,item,rating --user-col user",
        "mine.csv: --columns and --user-col exclude one another; give one of them",
    ),
    Case(
        "a delimiter of three characters",
        RUN + "mine.csv --delimiter '<=>'",
        "--delimiter '<=>' is none of tab, comma, semicolon, bar, double colon, space",
    ),
    Case(
        "another delimiter than the file's",
        RUN + "mine.csv --delimiter ';'",
        "mine.csv:1: one column only ('user,item,rating') with the delimiter ';' (give another --delimiter)",
    ),
    Case(
        "a RecBole file without types or names",
        RUN + "bad.inter",
        "bad.inter:1: no column for the user among 'a:token', 'b:token', 'c:float' (give --user-col)",
        files={"bad.inter": "a:token\tb:token\tc:float\n1\t1\t3\n"},
    ),
    Case(
        "too few users",
        RUN + "bad.csv",
        "bad has 1 users: too few to be split 0.7/0.1/0.2; give a larger data set",
        files={"bad.csv": ratings()},
    ),
    Case(
        "an escape sequence in an id",
        RUN + "bad.csv",
        "bad.csv:4: item 'a [31mb' has a control character; remove it",
        files={"bad.csv": ratings("1,a\x1b[31mb,3")},
    ),
    Case(
        "an escape sequence in a rating",
        RUN + "bad.csv",
        "bad.csv:4: rating ' [2Jgood' is not a number",
        files={"bad.csv": ratings("1,3,\x1b[2Jgood")},
    ),
    Case(
        "an endless word for a rating",
        RUN + "bad.csv",
        "bad.csv:4: rating 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...' is not a number",
        files={"bad.csv": ratings("1,3," + "x" * 5000)},
    ),
    Case(
        "a file with a NUL far inside",
        RUN + "bad.csv",
        "bad.csv:8944: item 'a b' has a control character; remove it",
        files={"bad.csv": ratings(*(f"{u},{i},3" for u in range(2, 300) for i in range(30)), "1,a\0b,4")},
    ),
    Case(
        "the settings' file of another program",
        RUN + "bad.csv",
        "bad.csv:1: this is JSON, not a table; write it as CSV, one rating a line",
        files={"bad.csv": '{"users": [1, 2], "ratings": [3, 4]}\n'},
    ),
    Case(
        "an HTML page in place of the file",
        RUN + "bad.csv",
        "bad.csv:1: this is a web page, not a table; the download may have gone wrong",
        files={"bad.csv": "<!DOCTYPE html>\n<html><head><title>404</title></head>\n<body>Not found</body></html>\n"},
    ),
)
