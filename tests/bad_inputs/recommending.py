"""One user's ratings, and learners that were saved, that can't be used."""

from tests.bad_inputs.case import Case, cut, replaced

OWN = "--data mine.csv --items items.csv --threads 1 "
BIAS = "recommend " + OWN + "--learner bias "


def mine(*rows: str, head: str = "title,rating") -> dict[str, str]:
    """Return the file bad.csv: ratings of one user."""
    return {"bad.csv": "\n".join([head, *rows, ""])}


CASES = (
    Case(
        "no data set",
        "recommend --ratings taste.csv",
        "no data set to recommend from: give --dataset NAME, --data FILE or --model FOLDER",
    ),
    Case(
        "two data sets",
        "recommend " + OWN + "--dataset ml-100k",
        "--data and --dataset exclude one another; give one of them",
    ),
    Case(
        "a data set to recommend from that isn't there",
        "recommend --dataset ml-100",
        "unknown dataset 'ml-100'; did you mean 'ml-100k'? (a file of your own needs its ending, say my.csv)",
    ),
    Case("no such ratings", BIAS + "--ratings nowhere.csv", "nowhere.csv: no such file"),
    Case("no such update", BIAS + "--ratings taste.csv --update nowhere.csv", "nowhere.csv: no such file"),
    Case(
        "a title that isn't there",
        BIAS + "--ratings bad.csv",
        "bad.csv:2: unknown title 'Film nmber 5'; nearest: Film number 5 (1985) = 5; Film number 15 (1995) = 15; Film number 9 (1989) = 9",
        files=mine("Film nmber 5,4"),
    ),
    Case(
        "an id that isn't there",
        BIAS + "--ratings bad.csv",
        "bad.csv:2: unknown item '99'; fewrec recommend --find TEXT lists titles with their ids",
        files=mine("99,4", head="item_id,rating"),
    ),
    Case(
        "a rating outside the data set's scale",
        BIAS + "--ratings bad.csv",
        "bad.csv:2: rating 9 is outside the scale 1..5 of the data set",
        files=mine("Film number 5,9"),
    ),
    Case(
        "a rating between steps",
        BIAS + "--ratings bad.csv",
        "bad.csv:2: rating 3.5 is between the scale's steps; write 3 or 4",
        files=mine("Film number 5,3.5"),
    ),
    Case(
        "one user's rating that is a word",
        BIAS + "--ratings bad.csv",
        "bad.csv:2: rating 'great' is not a number",
        files=mine("Film number 5,great"),
    ),
    Case(
        "one user's rating that is missing",
        BIAS + "--ratings bad.csv",
        "bad.csv:2: the rating is missing",
        files=mine("Film number 5,"),
    ),
    Case("a title that is missing", BIAS + "--ratings bad.csv", "bad.csv:2: the item is missing", files=mine(",4")),
    Case(
        "a film twice",
        BIAS + "--ratings bad.csv",
        "bad.csv:3: 'Film number 5 (1985)' comes twice, first at bad.csv:2; keep one",
        files=mine("Film number 5,4", "FILM NUMBER 5,2"),
    ),
    Case(
        "several bad ratings",
        BIAS + "--ratings bad.csv",
        "bad.csv: 2 of 2 ratings can't be used:\n  bad.csv:2: rating 9 is outside the scale 1..5 of the data set\n  bad.csv:3: unknown title 'Flim 3'; nearest: Film number 3 (1983) = 3; Film number 13 (1993) = 13",
        files=mine("Film number 5,9", "Flim 3,4"),
    ),
    Case(
        "one user's ratings without a header",
        BIAS + "--ratings bad.csv",
        "bad.csv:1: 'a,b,c' is neither a header nor an item and a rating; begin the file with a line item,rating",
        files={"bad.csv": "a,b,c\n"},
    ),
    Case(
        "one user's ratings without a column of ratings",
        BIAS + "--ratings bad.csv",
        "bad.csv:1: no column for the ratings (name it rating) among 'title', 'year'",
        files=mine("Film number 5", head="title,year"),
    ),
    Case(
        "ratings of two users",
        BIAS + "--ratings bad.csv",
        "bad.csv: ratings by 2 users; keep those of the one to advise",
        files=mine("1,Film number 5,4", "2,Film number 6,4", head="user,title,rating"),
    ),
    Case(
        "one user's ratings: a header alone",
        BIAS + "--ratings bad.csv",
        "bad.csv: the file ends before its first rating",
        files=mine(),
    ),
    Case(
        "a title with a comma and no quotes",
        BIAS + "--ratings bad.csv",
        'bad.csv:2: 3 columns, but 2 in the first line; put titles with a comma in quotes: "Matrix, The",5',
        files=mine("Matrix, The,5"),
    ),
    Case("a genre that isn't there", BIAS + "--genre dram", "no item has the genre 'dram'; did you mean 'Drama'?"),
    Case(
        "a learner to recommend with that isn't there",
        "recommend " + OWN + "--learner gpp",
        "unknown learner 'gpp'; did you mean 'gp'?",
    ),
    Case(
        "an option that the learner hasn't",
        BIAS + "--set rnk=3",
        "'bias' has no option 'rnk'; known: item_ridge, meta_user_ridge, user_ridge",
    ),
    Case(
        "an option of the learner that is a word",
        BIAS + "--set user_ridge=strong",
        "option 'user_ridge' of 'bias': 'strong' is not a number",
    ),
    Case(
        "an option of the learner without a value",
        BIAS + "--set user_ridge",
        "--set: 'user_ridge' is not of the form option=value",
    ),
    Case(
        "a format of lists that isn't there",
        BIAS + "--format xml",
        "--format: 'xml' is not one of 'table', 'json', 'csv'",
    ),
    Case("a seed of the learner below 0", BIAS + "--seed -1", "--seed: -1 is too small; give 0 or more"),
    Case(
        "titles to find without a data set",
        "recommend --find star",
        "--find needs the data set to look in: give --dataset NAME or --data FILE",
    ),
    Case(
        "recommending without ratings by a learner that can't",
        "recommend " + OWN + "--learner user-median",
        "'user-median' can't recommend without a rating; give --ratings FILE, or take a learner that can (gp)",
    ),
    Case(
        "recommending by a learner for new items",
        "recommend " + OWN + "--learner metaemb --ratings taste.csv",
        "'metaemb' can't recommend here: it needs item_ratings, and it is for new items, of which others' first ratings must be given; no such item here",
    ),
    Case(
        "asking a learner that can't say",
        "ask " + OWN + "--learner bias",
        "'bias' can't say what a rating would tell; learners that can: gp, hybrid-gp",
    ),
    Case("asking for no question", "ask " + OWN + "--top 0 --any --json", "--top: 0 is too small; give 1 or more"),
    Case(
        "no such saved learner",
        "recommend " + OWN + "--model nowhere",
        "nowhere: no saved learner there (no learner.json)",
    ),
    Case(
        "a saved learner without its record",
        "recommend " + OWN + "--model model",
        "model: no saved learner there (no learner.json)",
        needs="model",
        files={"model/learner.json": None},
    ),
    Case(
        "a saved learner whose record isn't JSON",
        "recommend " + OWN + "--model model",
        "model/learner.json: not readable as JSON (the mistake is in line …); save the learner again",
        needs="model",
        files={"model/learner.json": cut},
    ),
    Case(
        "a saved learner in a newer format",
        "recommend " + OWN + "--model model",
        "model/learner.json: written by fewrec '…' in format 9, this version reads format 1; save the learner again",
        needs="model",
        files={"model/learner.json": replaced('"schema_version": 1', '"schema_version": 9')},
    ),
    Case(
        "a saved learner whose record lacks a part",
        "recommend " + OWN + "--model model",
        "model/learner.json: broken at 'fewrec'; save the learner again",
        needs="model",
        files={"model/learner.json": '{"schema_version": 1, "learner": "bias"}'},
    ),
    Case(
        "a saved learner whose state was cut off",
        "recommend " + OWN + "--model model",
        "model/state.safetensors: not the file that learner.json was written for (truncated or changed); save it again",
        needs="model",
        files={"model/state.safetensors": cut},
    ),
    Case(
        "a saved learner without its data",
        "recommend --model model",
        "model: trained on data of your own, 'mine'; give that data set (--data FILE)",
        needs="model",
    ),
    Case(
        "a saved learner of other items",
        "recommend --dataset synthetic --model model",
        "model: trained on the 20 items of 'mine', and these are 100 others; give the data set that it was trained on, or train anew",
        needs="model",
    ),
    Case(
        "a saved learner as another one",
        "recommend " + OWN + "--model model --learner gp",
        "model: it holds learner 'bias', not 'gp'; leave out --learner",
        needs="model",
    ),
    Case(
        "a saved learner that isn't known here",
        "recommend " + OWN + "--model model",
        "model: it holds learner 'my-bias' ('fewrec.learners.bias:Bias'), which isn't known here; give --plugin FILE, or --learner module:Class if you trust it",
        needs="model",
        files={"model/learner.json": replaced('"learner": "bias"', '"learner": "my-bias"')},
    ),
    Case(
        "an option that a saved learner was trained with",
        "recommend " + OWN + "--model model --set item_ridge=9",
        "model: it was trained with item_ridge=5.0; options that can be changed without training anew: user_ridge",
        needs="model",
    ),
    Case(
        "saving a learner below a file",
        BIAS + "--ratings taste.csv --save mine.csv/x",
        "--save mine.csv/x: mine.csv is a file, not a folder; choose another folder",
    ),
    Case(
        "recommending on no thread",
        "recommend --data mine.csv --threads 0",
        "--threads 0: at least one thread is needed",
    ),
    Case(
        "recommending on a device that isn't there",
        "recommend --data mine.csv --learner bias --device tpu",
        "--device tpu: choose auto, cpu, cuda or mps",
    ),
    Case(
        "weights to recommend with that aren't there",
        "recommend --data mine.csv --backbone minilm",
        "--backbone: unknown weights 'minilm'; known: … (or give owner/name on the hub, or a folder)",
    ),
)
