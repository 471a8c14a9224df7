"""Cards, the names of data sets, the commands on them, and the folders that the environment names."""

from tests.bad_inputs.case import Case, replaced

SHA = "0" * 64
CARD = f"""\
name = "films"
title = "Films"
licence = "CC BY 4.0"
citation = "none"
homepage = "none"

[scale]
low = 1
high = 5
step = 1

[columns]
ratings = ["user", "item", "rating"]

[[sources]]
type = "archive"
url = "https://example.org/films.zip"
sha256 = "{SHA}"
format = "movielens-100k"

[sources.files]
"u.data" = "{SHA}"
"""


def card(old: str, new: str) -> dict[str, str]:
    """Return the file films.toml: a card with a part replaced."""
    return {"films.toml": replaced(old, new)(CARD.encode())}


INFO = "data info films.toml"
OWN_CARD = CARD.split("[[sources]]")[0] + (
    f'[own]\npath = "/nowhere/mine.csv"\nsha256 = "{SHA}"\n\n[own.options]\nscale = [1, 5]\n'
)

CASES = (
    Case("a data set that isn't there", "data info ml-1ook", "unknown dataset 'ml-1ook'; did you mean 'ml-100k'?"),
    Case(
        "fetching a data set that isn't there",
        "data fetch movielens",
        "unknown dataset 'movielens'; did you mean 'movietweetings'?",
    ),
    Case(
        "no such card; give the path of one, or a name of fewrec list datasets",
        "data info films.toml",
        "films.toml: no such card; give the path of one, or a name of fewrec list datasets",
    ),
    Case(
        "a card that isn't TOML",
        INFO,
        "films.toml: not a readable card (Expected '=' after a key in a key/value pair (at line 1, column 5))",
        files={"films.toml": "name: films\n"},
    ),
    Case(
        "a card in Latin-1",
        INFO,
        "films.toml: not a readable card (it is not UTF-8; save it as UTF-8)",
        files={"films.toml": 'title = "Café"'.encode("latin-1")},
    ),
    Case("an empty card", INFO, "films.toml: 'name' is missing", files={"films.toml": ""}),
    Case(
        "a card without a licence", INFO, "films.toml: 'licence' is missing", files=card('licence = "CC BY 4.0"\n', "")
    ),
    Case(
        "a card with a key that isn't there",
        INFO,
        "films.toml: unknown key 'licens'; did you mean 'licence'?",
        files=card("homepage", 'licens = "x"\nhomepage'),
    ),
    Case(
        "a card whose name is a path",
        INFO,
        "films.toml: name: '../films': a name has letters, digits, '.', '_', '-', and begins like a word",
        files=card('name = "films"', 'name = "../films"'),
    ),
    Case(
        "a card with a scale upside down",
        INFO,
        "films.toml: scale: low 9 is not below high 5",
        files=card("low = 1", "low = 9"),
    ),
    Case(
        "a card with a scale of words",
        INFO,
        "films.toml: scale.low: 'one' is not a number",
        files=card("low = 1", 'low = "one"'),
    ),
    Case(
        "a card with a step of 0", INFO, "films.toml: scale.step: 0 is not above 0", files=card("step = 1", "step = 0")
    ),
    Case(
        "a card with an unknown kind",
        INFO,
        "films.toml: kind: 'likes' is none of 'ratings', 'clicks'",
        files=card("homepage", 'kind = "likes"\nhomepage'),
    ),
    Case(
        "a card of clicks on five stars",
        INFO,
        "films.toml: kind is clicks where the scale is low 0, high 1, step 1, and nowhere else",
        files=card("homepage", 'kind = "clicks"\nhomepage'),
    ),
    Case(
        "a card with an unknown column",
        INFO,
        "films.toml: columns.ratings: 'stars' is none of 'user', 'item', 'rating', 'timestamp'",
        files=card('"rating"]', '"stars"]'),
    ),
    Case(
        "a card with a bad template",
        INFO,
        "films.toml: template: '{name}' is no placeholder; known: description, genres, title, year",
        files=card("homepage", 'template = "{name}"\nhomepage'),
    ),
    Case(
        "a card with an unknown source",
        INFO,
        "films.toml: sources, row 1: type 'torrent' is none of 'archive', 'package', 'files', 'manual'",
        files=card('"archive"', '"torrent"'),
    ),
    Case(
        "a card with a source that lacks its type",
        INFO,
        "films.toml: sources, row 1: its type is missing",
        files=card('type = "archive"\n', ""),
    ),
    Case(
        "a card whose file leaves the archive",
        INFO,
        "films.toml: sources, row 1: archive.files: '../../u.data' is not a plain path below the source's root",
        files=card('"u.data"', '"../../u.data"'),
    ),
    Case(
        "a card with half a checksum",
        INFO,
        "films.toml: sources, row 1: archive.sha256: 'abc' is no SHA-256, which has 64 digits 0-9, a-f",
        files=card(f'sha256 = "{SHA}"', 'sha256 = "abc"'),
    ),
    Case(
        "a card that trusts plain http",
        INFO,
        "films.toml: sources, row 1: archive: http://example.org/films.zip: without a published SHA-256 the address has to be https",
        files={"films.toml": CARD.replace(SHA, "").replace("https:", "http:")},
    ),
    Case(
        "a card without sources",
        INFO,
        "films.toml: give [[sources]], or [own] for a file of your own: one of the two",
        files={"films.toml": CARD.split("[[sources]]")[0]},
    ),
    Case(
        "a card with text for a number of ratings",
        INFO,
        "films.toml: expected.ratings: 'many' is not a whole number",
        files=card("[columns]", '[expected]\nratings = "many"\n\n[columns]'),
    ),
    Case(
        "a format that isn't read",
        "data fetch films.toml",
        "films: no reader for the format 'movielens-200k'; did you mean 'movielens-100k'?",
        files=card("movielens-100k", "movielens-200k"),
    ),
    Case(
        "a data set that isn't in the cache, offline",
        "data fetch ml-100k --offline",
        "ml-100k is not in the cache cache/datasets/ml-100k, and offline mode forbids to fetch it; where there is a network: fewrec data fetch ml-100k, without --offline and FEWREC_OFFLINE",
    ),
    Case(
        "FEWREC_OFFLINE=1, and a data set that isn't in the cache",
        "data fetch jester",
        "jester is not in the cache cache/datasets/jester, and offline mode forbids to fetch it; where there is a network: fewrec data fetch jester, without --offline and FEWREC_OFFLINE",
    ),
    Case(
        "FEWREC_OFFLINE=maybe",
        "data fetch ml-100k",
        "FEWREC_OFFLINE is 'maybe'; set it to 1 (open no connection) or 0",
        env={"FEWREC_OFFLINE": "maybe"},
    ),
    Case(
        "FEWREC_CACHE is a file",
        "data fetch films.toml",
        "mine.csv/cache/datasets/films: the cache can't be written (a file stands where a folder should be); let FEWREC_CACHE name another folder",
        files={"films.toml": CARD},
        env={"FEWREC_CACHE": "mine.csv/cache", "FEWREC_OFFLINE": "0"},
    ),
    Case(
        "FEWREC_CARDS is a file",
        "data add mine.csv",
        "mine.csv/cards/mine.toml: the card can't be written (a file stands where a folder should be); let FEWREC_CARDS name another folder",
        env={"FEWREC_CARDS": "mine.csv/cards"},
    ),
    Case("adding a file that isn't there", "data add ratings.csv", "ratings.csv: no such file"),
    Case(
        "adding a file under a name of fewrec's",
        "data add mine.csv --name ml-100k",
        "'ml-100k' is a data set of fewrec's; give another --name",
    ),
    Case(
        "adding a file under a name with a slash",
        "data add mine.csv --name a/b",
        "--name 'a/b': a name has letters, digits, '.', '_', '-', and does not end like a file",
    ),
    Case(
        "adding a file under the name of a file",
        "data add mine.csv --name mine.csv",
        "--name 'mine.csv': a name has letters, digits, '.', '_', '-', and does not end like a file",
    ),
    Case(
        "adding a file under a name that is there",
        "data add mine.csv --name films",
        "cards/films.toml is there already; give another --name, or --replace",
        files={"cards/films.toml": CARD},
    ),
    Case(
        "adding a file whose ratings can't be read",
        "data add bad.csv --replace",
        "bad.csv:2: rating 'x' is not a number",
        files={"bad.csv": "user,item,rating\n1,1,x\n1,2,3\n"},
    ),
    Case(
        "a card of one's own whose file is gone",
        "run own.toml --data films",
        "films: /nowhere/mine.csv is no longer there; where it has moved: fewrec data add /nowhere/mine.csv --name films --replace, and what other options it needs",
        files={"cards/films.toml": OWN_CARD},
    ),
    Case(
        "a card of one's own whose file has changed",
        "run own.toml --data films",
        "films: mine.csv has changed since the data set was added (sha256 000000000000... then, …... now); if that is right: fewrec data add mine.csv --name films --replace, and what other options it needs",
        files={"cards/films.toml": OWN_CARD.replace("/nowhere/mine.csv", "mine.csv")},
    ),
    Case(
        "a card of one's own that is broken",
        "run own.toml --data films",
        "cards/films.toml: own.options.scale: '1 to 5' is not a list",
        files={"cards/films.toml": OWN_CARD.replace("scale = [1, 5]", 'scale = "1 to 5"')},
    ),
    Case(
        "a scale for a data set with a card",
        "run own.toml --data ml-100k --scale 1 5",
        "ml-100k: --scale can only be given with a file of your own",
    ),
)
