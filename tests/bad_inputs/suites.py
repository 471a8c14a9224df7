"""Suites that name an impossible grid, and conditions that can't be met."""

from tests.bad_inputs.case import Case
from tests.bad_inputs.world import SUITE

DRY = "run bad.toml --data mine.csv --dry-run"


def suite(old: str, new: str) -> dict[str, str]:
    """Return the file bad.toml: own.toml with a part replaced."""
    assert old in SUITE
    return {"bad.toml": SUITE.replace(old, new, 1)}


def protocol(*lines: str) -> dict[str, str]:
    """Return the file bad.toml: own.toml with a table [protocol]."""
    return {"bad.toml": "\n".join([SUITE, "[protocol]", *lines, ""])}


def dry(condition: str) -> str:
    return f"run own.toml --data mine.csv --dry-run --condition {condition}"


CASES = (
    Case("a suite that isn't there", "run quik", "unknown suite 'quik'; did you mean 'quick'?"),
    Case("a file of a suite that isn't there", "run my-suite.toml", "suite my-suite.toml: no such file"),
    Case(
        "a folder in place of a suite",
        "run stuff.toml",
        "suite stuff.toml: this is a folder, not a file",
        files={"stuff.toml/": ""},
    ),
    Case(
        "a suite that isn't TOML",
        DRY,
        "bad.toml: not valid TOML: Expected '=' after a key in a key/value pair (at line 1, column 6)",
        files={"bad.toml": "title: own\n"},
    ),
    Case(
        "a suite in UTF-16",
        DRY,
        "suite bad.toml: can't be read: it is not UTF-8; save it as UTF-8",
        files={"bad.toml": SUITE.encode("utf-16")},
    ),
    Case("an empty suite", DRY, "bad.toml: 'datasets' is missing", files={"bad.toml": ""}),
    Case(
        "a key twice",
        DRY,
        "bad.toml: not valid TOML: A key stands twice (at line 9, column 13)",
        files=suite("episodes = 4", "episodes = 4\nepisodes = 5"),
    ),
    Case(
        "a misspelt key",
        DRY,
        "bad.toml: unknown key 'nquery'; did you mean 'n_query'?",
        files=suite("n_query", "nquery"),
    ),
    Case(
        "a suite without learners",
        DRY,
        "bad.toml: 'learners' is missing",
        files=suite('learners = ["global-mean", "user-mean", "bias"]', ""),
    ),
    Case(
        "an empty list of learners",
        DRY,
        "bad.toml: learners: give at least one",
        files=suite('learners = ["global-mean", "user-mean", "bias"]', "learners = []"),
    ),
    Case(
        "learners that are no list",
        DRY,
        "bad.toml: learners: 3 is not a list",
        files=suite('learners = ["global-mean", "user-mean", "bias"]', "learners = 3"),
    ),
    Case(
        "a learner in a suite that isn't there",
        DRY,
        "bad.toml: learners, row 2: unknown learner 'usr-mean'; did you mean 'user-mean'?",
        files=suite('"user-mean"', '"usr-mean"'),
    ),
    Case(
        "a learner twice",
        DRY,
        "bad.toml: learners: the label 'bias' stands twice; give one of them a label of its own",
        files=suite('"user-mean"', '"bias"'),
    ),
    Case(
        "a learner with a misspelt key",
        DRY,
        "bad.toml: learners, row 2: unknown key 'options'; known: config, label, learner, tuned",
        files=suite('"user-mean"', '{ learner = "user-mean", options = { ridge = 1 } }'),
    ),
    Case(
        "an unknown option in a suite",
        DRY,
        "bad.toml: learners, row 2: learner 'user-mean': unknown key 'ridgge'; did you mean 'shrinkage'?",
        files=suite('"user-mean"', '{ learner = "user-mean", config = { ridgge = 1 } }'),
    ),
    Case(
        "a state that isn't there",
        DRY,
        "bad.toml: states: 'cold' is none of 'user-cold', 'item-cold', 'both-cold', 'warm'",
        files=suite('"user-cold"', '"cold"'),
    ),
    Case(
        "K as a word in a suite",
        DRY,
        "bad.toml: shots: 'many' is neither a whole number nor 'rest'",
        files=suite("[1, 3]", '[1, "many"]'),
    ),
    Case(
        "K with a decimal in a suite",
        DRY,
        "bad.toml: shots: 2.5 is neither a whole number nor 'rest'",
        files=suite("[1, 3]", "[1, 2.5]"),
    ),
    Case("K below 0 in a suite", DRY, "bad.toml: shots: -1 is below 0", files=suite("[1, 3]", "[-1, 3]")),
    Case("no user", DRY, "bad.toml: n_users: 0 is below 1", files=suite("n_users = 2", "n_users = 0")),
    Case(
        "users as text",
        DRY,
        "bad.toml: n_users: 'two' is not a whole number",
        files=suite("n_users = 2", 'n_users = "two"'),
    ),
    Case("no query", DRY, "bad.toml: n_query: 0 is below 1", files=suite("n_query = 6", "n_query = 0")),
    Case(
        "no episode in a suite",
        DRY,
        "bad.toml: episodes: 0 is not above 0",
        files=suite("episodes = 4", "episodes = 0"),
    ),
    Case(
        "episodes as a fraction",
        DRY,
        "bad.toml: episodes: 4.5 is not a whole number",
        files=suite("episodes = 4", "episodes = 4.5"),
    ),
    Case("a seed below 0 in a suite", DRY, "bad.toml: seeds: -1 is below 0", files=suite("seeds = 0", "seeds = -1")),
    Case(
        "true for a seed",
        DRY,
        "bad.toml: seeds: true and false are no numbers",
        files=suite("seeds = 0", "seeds = true"),
    ),
    Case(
        "blocks of no episode",
        DRY,
        "bad.toml: block: 0 is not above 0",
        files=suite("episodes = 4", "episodes = 4\nblock = 0"),
    ),
    Case(
        "nDCG at 0",
        DRY,
        "bad.toml: ndcg_at: give a k of 1 or more, or a list of them",
        files=suite("episodes = 4", "episodes = 4\nndcg_at = 0"),
    ),
    Case(
        "nDCG at a word",
        DRY,
        "bad.toml: ndcg_at: 'five' is neither a whole number nor a list",
        files=suite("episodes = 4", 'episodes = 4\nndcg_at = "five"'),
    ),
    Case(
        "k_max below K",
        DRY,
        "bad.toml: k_max: 2 is below the largest K, 3",
        files=suite("episodes = 4", "episodes = 4\nk_max = 2"),
    ),
    Case(
        "more support than anybody has",
        "run own.toml --data mine.csv --shots 40 --dry-run",
        "mine, user-cold: N = 2 users an episode, but only 0 of 6 test users have k_max + Q = 40 + 6 ratings; possible: N at most 0, or for N = 2 a smaller k_max",
    ),
    Case(
        "more query than anybody has",
        DRY,
        "mine, user-cold: N = 2 users an episode, but only 0 of 6 test users have k_max + Q = 3 + 60 ratings; possible: N at most 0, or for N = 2 Q at most 9",
        files=suite("n_query = 6", "n_query = 60"),
    ),
    Case(
        "more users than there are",
        DRY,
        "mine, user-cold: N = 2000 users an episode, but only 6 of 6 test users have k_max + Q = 3 + 6 ratings; possible: N at most 6",
        files=suite("n_users = 2", "n_users = 2000"),
    ),
    Case(
        "a protocol's key that isn't there",
        DRY,
        "bad.toml: unknown key 'protocol.suport_noise'; did you mean 'support_noise'?",
        files=protocol("suport_noise = 0.1"),
    ),
    Case(
        "a protocol that is a word",
        DRY,
        "bad.toml: protocol: 'hard' is not a table",
        files=suite("episodes = 4", 'episodes = 4\nprotocol = "hard"'),
    ),
    Case("noise above 1", DRY, "bad.toml: protocol.support_noise: 2 is above 1", files=protocol("support_noise = 2")),
    Case(
        "shares that don't sum to 1",
        DRY,
        "bad.toml: protocol.user_shares: give three shares (meta-train, meta-validation, meta-test) that sum to 1, the first above 0",
        files=protocol("user_shares = [0.5, 0.1, 0.2]"),
    ),
    Case(
        "two shares",
        DRY,
        "bad.toml: protocol.user_shares: value 3 is missing",
        files=protocol("user_shares = [0.5, 0.5]"),
    ),
    Case(
        "limits of ratings upside down",
        DRY,
        "bad.toml: protocol.user_ratings: give the lowest and the highest number of ratings, not 50 and 10",
        files=protocol("user_ratings = [50, 10]"),
    ),
    Case(
        "limits of ratings that nobody has",
        DRY,
        "mine: no user has 500 to 1000 ratings (user_ratings); users have 12 to 12; change user_ratings in the suite's table [protocol]",
        files=protocol("user_ratings = [500, 1000]"),
    ),
    Case(
        "years without item texts",
        DRY,
        "mine has no item texts, so no years: item_years is impossible; use item_shares",
        files=protocol("item_years = [1997, 1998]"),
    ),
    Case(
        "a split of users that the data set hasn't",
        DRY,
        'mine brings no split of its users: user_split = "given" is impossible; leave it out of the suite\'s table [protocol], and users are drawn by user_shares',
        files=protocol('user_split = "given"'),
    ),
    Case(
        "strata that don't divide the query",
        DRY,
        "mine, user-cold: Q = 6 can't be divided evenly over query_strata = 4; give a multiple of 4",
        files=protocol("query_strata = 4"),
    ),
    Case(
        "windows in time with two users an episode",
        DRY,
        "bad.toml: protocol.history: an episode is one rating of a user; it needs n_users = 1",
        files=protocol('order = "time"', "history = 3"),
    ),
    Case(
        "the number of windows without a history",
        DRY,
        "bad.toml: protocol: last_windows needs history, the number of ratings before the one that is asked for",
        files=protocol("last_windows = 10"),
    ),
    Case(
        "a condition that isn't there",
        dry("noise=0.2"),
        "--condition noise: there is no such condition; did you mean 'support_noise'?",
    ),
    Case(
        "a condition that is a word", dry("support_noise=much"), "own: protocol.support_noise: 'much' is not a number"
    ),
    Case(
        "activity that isn't there",
        dry("user_activity=lazy"),
        "own: protocol.user_activity: 'lazy' is none of 'all', 'light', 'heavy'",
    ),
    Case(
        "time order without times",
        "run own.toml --data mine.csv --dry-run --order time",
        'mine has no timestamps: order = "time" is impossible; use order = "random"',
    ),
    Case(
        "a state of the command line that isn't there",
        "run own.toml --data mine.csv --state cold",
        "own: states: 'cold' is none of 'user-cold', 'item-cold', 'both-cold', 'warm'",
    ),
    Case(
        "a data set of the command line that isn't there",
        "run own.toml --dataset ml-100",
        "unknown dataset 'ml-100'; did you mean 'ml-100k'? (a file of your own needs its ending, say my.csv)",
    ),
    Case(
        "a data set to meta-train on that isn't there",
        "run own.toml --data mine.csv --meta-dataset ml-100",
        "unknown dataset 'ml-100'; did you mean 'ml-100k'? (a file of your own needs its ending, say my.csv)",
    ),
    Case(
        "meta-training on another data set with known users",
        "run own.toml --data mine.csv --meta-dataset synthetic --state warm --dry-run",
        "mine from synthetic-200x100-0: state 'warm' has known users, but those of another data set are new; use user-cold or both-cold",
    ),
    Case(
        "published rows without figures",
        DRY,
        "bad.toml: published, row 1: figures: give at least one",
        files={"bad.toml": SUITE + '\n[[published]]\nlabel = "x"\nsource = "y"\nfigures = {}\n'},
    ),
    Case(
        "published figures that are words",
        DRY,
        "bad.toml: published, row 1: figures.rmse: 'low' is not a number",
        files={"bad.toml": SUITE + '\n[[published]]\nlabel = "x"\nsource = "y"\nfigures = { rmse = "low" }\n'},
    ),
)
