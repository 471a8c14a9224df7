"""Tables of items and of users, and templates, that can't be used."""

from tests.bad_inputs.case import Case, parquet

ITEMS = "run own.toml --data mine.csv --items "
USERS = "run own.toml --data mine.csv --users "
TEMPLATE = "run own.toml --data mine.csv --items items.csv --template "

CASES = (
    Case("no such file of items", ITEMS + "titles.csv", "titles.csv: no such file"),
    Case("a folder of items", ITEMS + "stuff", "stuff: this is a folder, not a file", files={"stuff/": ""}),
    Case(
        "items without titles",
        ITEMS + "bad.csv",
        "bad.csv:1: no column for the title among 'item', 'colour' (name it 'title')",
        files={"bad.csv": "item,colour\n1,red\n"},
    ),
    Case(
        "items without ids",
        ITEMS + "bad.csv",
        "bad.csv:1: no column for the item among 'number', 'title' (name it 'item')",
        files={"bad.csv": "number,title\n1,Up\n"},
    ),
    Case(
        "an item twice",
        ITEMS + "bad.csv",
        "bad.csv:4: item 1 comes twice; keep one line of it",
        files={"bad.csv": "item,title\n1,Up\n2,Down\n1,Up\n"},
    ),
    Case(
        "items of another data set",
        ITEMS + "bad.csv",
        "bad.csv: not one of the rated items is in it (ids such as 0, there tt1)",
        files={"bad.csv": "item,title\ntt1,Up\ntt2,Down\n"},
    ),
    Case(
        "an item without an id",
        ITEMS + "bad.csv",
        "bad.csv:3: item is missing",
        files={"bad.csv": "item,title\n1,Up\n,Down\n"},
    ),
    Case(
        "titles with commas and no quotes",
        ITEMS + "bad.csv",
        "bad.csv:3: 3 columns, but 2 in the first line (a value with a comma in it needs quotes)",
        files={"bad.csv": "item,title\n1,Up\n2,Matrix, The\n"},
    ),
    Case(
        "items as an empty table",
        ITEMS + "bad.csv",
        "bad.csv: the file ends before its first item",
        files={"bad.csv": "item,title\n"},
    ),
    Case(
        "items in Latin-1",
        ITEMS + "bad.csv",
        "bad.csv:2: not UTF-8 (byte 0xe9 at column 6); save it as UTF-8",
        files={"bad.csv": "item,title\n1,Café\n".encode("latin-1")},
    ),
    Case(
        "items as a Parquet file without titles",
        ITEMS + "bad.parquet",
        "bad.parquet: no column for the title among 'item', 'year' (name it 'title')",
        files={"bad.parquet": parquet(item=[1], year=[1990])},
    ),
    Case("no such file of users", USERS + "people.csv", "people.csv: no such file"),
    Case(
        "users without ids",
        USERS + "bad.csv",
        "bad.csv:1: no column for the user among 'age', 'gender' (name it 'user')",
        files={"bad.csv": "age,gender\n20,F\n"},
    ),
    Case(
        "a user twice",
        USERS + "bad.csv",
        "bad.csv:4: user 1 comes twice; keep one line of it",
        files={"bad.csv": "user,age\n1,20\n2,30\n1,20\n"},
    ),
    Case(
        "users of another data set",
        USERS + "bad.csv",
        "bad.csv: not one of the users with ratings is in it (ids such as 0, there ann)",
        files={"bad.csv": "user,age\nann,20\nbob,30\n"},
    ),
    Case(
        "users with names alone",
        USERS + "bad.csv",
        "bad.csv: no column of numbers or of at most 100 categories beside 'user'",
        files={"bad.csv": "user,name\n" + "".join(f"{u},name {u}\n" for u in range(200))},
    ),
    Case(
        "users as an empty table",
        USERS + "bad.csv",
        "bad.csv: the file ends before its first user",
        files={"bad.csv": "user,age\n"},
    ),
    Case(
        "a template without items",
        "run own.toml --data mine.csv --template '{title}'",
        "--template: there are no item texts to make of it (give --items)",
    ),
    Case(
        "a template with an unknown column",
        TEMPLATE + "'{titel} ({year})'",
        "--template: '{titel}' is no placeholder; did you mean 'title'?",
    ),
    Case(
        "a template without a column",
        TEMPLATE + "'a film'",
        "--template: 'a film' has no placeholder; give one of {title}, {year}, {genres}, {description}",
    ),
    Case(
        "a template with an open brace",
        TEMPLATE + "'{title} ({year'",
        "--template: '{title} ({year' is not a template: a brace lacks its partner",
    ),
    Case(
        "a template with a format",
        TEMPLATE + "'{year:04d}'",
        "--template: '{year:04d}': braces hold the bare name of a column, and stand nowhere else",
    ),
    Case(
        "a template that looks inside",
        TEMPLATE + "'{title.__class__}'",
        "--template: '{title.__class__}' is no placeholder; did you mean 'title'?",
    ),
    Case(
        "a template with a place and no name",
        TEMPLATE + "'{} {title}'",
        "--template: '{}' is no placeholder; known: description, genres, title, year",
    ),
    Case("an empty template", TEMPLATE + "''", "--template: it is empty; give one such as '{title}. {genres}.'"),
)
