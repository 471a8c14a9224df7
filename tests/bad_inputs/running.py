"""Where a run goes, on what it runs, who follows it, and what was tuned before."""

from tests.bad_inputs.case import Case, replaced

RUN = "run own.toml --data mine.csv --threads 1 "
TUNED = """\
[[learners]]
learner = "bias"
label = "bias tuned"
config = { user_ridge = 2.0 }

[learners.tuned]
budget = 3
trials = 3
method = "tpe"
seeds = [0]
dataset = "mine"
suite = "own"
study = "0"
config_hash = "0"
validation_rmse = 0.9
"""


def tuned(old: str, new: str) -> dict[str, str]:
    """Return the file bad.toml: a result of tuning with a part replaced."""
    assert old in TUNED
    return {"bad.toml": TUNED.replace(old, new, 1)}


CASES = (
    Case(
        "a device that isn't there",
        "run own.toml --data mine.csv --device abacus",
        "--device abacus: choose auto, cpu, cuda or mps",
    ),
    Case(
        "a device that this machine hasn't",
        "run own.toml --data mine.csv --device mps",
        "--device mps: this machine's torch finds no mps device; use --device auto",
    ),
    Case(
        "a device with a number that is none",
        "run own.toml --data mine.csv --device cpu:first",
        "--device cpu:first: choose auto, cpu, cuda or mps",
    ),
    Case("no worker", RUN + "--jobs 0", "--jobs 0: at least one worker is needed"),
    Case(
        "an executor that isn't there",
        RUN + "--executor spark",
        "--executor: 'spark' is not one of 'local', 'ray'",
    ),
    Case(
        "a cluster's address without Ray",
        RUN + "--ray-address 10.0.0.1:6379",
        "--ray-address 10.0.0.1:6379: only goes with --executor ray",
    ),
    Case(
        "Ray where it isn't installed",
        RUN + "--executor ray",
        "--executor ray needs ray, which is not installed: pip install 'fewrec[ray]'",
        lacks="ray",
    ),
    Case(
        "a cluster elsewhere, offline",
        RUN + "--executor ray --ray-address 10.0.0.1:6379 --offline",
        "--ray-address 10.0.0.1:6379: offline mode allows only addresses of this machine (127.0.0.1); give one, or leave out --offline",
        has="ray",
    ),
    Case("no thread", "run own.toml --data mine.csv --threads 0", "--threads 0: at least one thread is needed"),
    Case("no time", RUN + "--time-limit 0", "--time-limit 0: give a number of seconds above 0"),
    Case("a time limit below 0", RUN + "--time-limit -5", "--time-limit -5: give a number of seconds above 0"),
    Case(
        "results into a file",
        RUN + "--out mine.csv",
        "--out mine.csv: can't write there (a file stands where a folder should be); choose another folder",
    ),
    Case(
        "results below a file",
        RUN + "--out mine.csv/out",
        "--out mine.csv/out: can't write there (a file stands where a folder should be); choose another folder",
    ),
    Case(
        "results of other data in the folder",
        RUN + "--out out",
        "--out out: its results were made with other ratings of 'mine' (its sha256 differs); choose another --out",
        needs="out",
        files={"mine.csv": replaced("\n0,0,1\n", "\n0,0,2\n")},
    ),
    Case(
        "results of another environment in the folder",
        "run own.toml --data mine.csv --threads 2 --out out",
        "--out out: it holds results of another environment (threads: 1 -> 2); choose another --out, or remove the folder",
        needs="out",
    ),
    Case(
        "a tracker that isn't there",
        RUN + "--track tensorbord",
        "--track tensorbord: unknown tracker; did you mean 'tensorboard'?",
    ),
    Case(
        "results of tuning that aren't there",
        RUN + "--tuned bias.toml",
        "--tuned bias.toml: no such file; write it with: fewrec tune SUITE --learner LEARNER",
    ),
    Case(
        "results of tuning that aren't TOML",
        RUN + "--tuned bad.toml",
        "--tuned bad.toml: can't be read: Expected '=' after a key in a key/value pair (at line 1, column 5)",
        files={"bad.toml": "bias\n"},
    ),
    Case(
        "a suite in place of results of tuning",
        RUN + "--tuned own.toml",
        "--tuned own.toml: not as fewrec tune writes it: unknown key 'title'; known: learners",
    ),
    Case(
        "results of tuning without how they were found",
        RUN + "--tuned bad.toml",
        "--tuned bad.toml: row 'bias tuned' has no table [learners.tuned]; put it into a suite",
        files={"bad.toml": TUNED.split("[learners.tuned]")[0]},
    ),
    Case(
        "results of tuning without a score",
        RUN + "--tuned bad.toml",
        "--tuned bad.toml: not as fewrec tune writes it: learners, row 1: tuned: a tuning result has validation_rmse (of ratings) or validation_auc (of clicks)",
        files=tuned("validation_rmse = 0.9\n", ""),
    ),
    Case(
        "results of tuning with a score that is a word",
        RUN + "--tuned bad.toml",
        "--tuned bad.toml: not as fewrec tune writes it: learners, row 1: tuned.validation_rmse: 'low' is not a number",
        files=tuned("validation_rmse = 0.9", 'validation_rmse = "low"'),
    ),
    Case(
        "results of tuning by another method",
        RUN + "--tuned bad.toml",
        "--tuned bad.toml: not as fewrec tune writes it: learners, row 1: tuned.method: 'grid' is not 'tpe'",
        files=tuned('"tpe"', '"grid"'),
    ),
    Case(
        "results of tuning with an option that isn't there",
        RUN + "--tuned bad.toml",
        "--tuned bad.toml: learner 'bias tuned': unknown key 'usr_ridge'; did you mean 'user_ridge'?",
        files=tuned("user_ridge", "usr_ridge"),
    ),
    Case(
        "one label in two results of tuning",
        RUN + "--tuned a.toml --tuned b.toml",
        "--tuned b.toml: the label 'bias tuned' stands in a.toml too; change one of them",
        files={"a.toml": TUNED, "b.toml": TUNED.replace("2.0", "3.0")},
    ),
    Case(
        "weights that aren't there",
        RUN + "--backbone all-MiniLM",
        "--backbone: unknown weights 'all-MiniLM'; did you mean 'all-MiniLM-L6-v2'? (or give owner/name on the hub, or a folder)",
    ),
    Case(
        "weights for learners that read no texts",
        RUN + "--backbone all-MiniLM-L6-v2",
        "--backbone all-MiniLM-L6-v2: no learner in suite own reads texts with one (add --learner)",
    ),
    Case(
        "tuning a learner that isn't there",
        "tune own.toml --data mine.csv --learner bais",
        "unknown learner 'bais'; did you mean 'bias'?",
    ),
    Case(
        "tuning a learner without options",
        "tune own.toml --data mine.csv --learner global-mean",
        "'global-mean' has no option that is searched; see fewrec tune --space",
    ),
    Case(
        "tuning an option that isn't there",
        "tune own.toml --data mine.csv --learner bias --set bias.x=1",
        "learner 'bias[x=1]': unknown key 'x'; known: item_ridge, meta_user_ridge, user_ridge",
    ),
    Case(
        "tuning with an option of another learner",
        "tune own.toml --data mine.csv --learner bias --set gp.x=1",
        "--set gp: the learner that is tuned is 'bias'",
    ),
    Case(
        "what is searched of a learner that isn't there",
        "tune own.toml --learner bais --space",
        "unknown learner 'bais'; did you mean 'bias'?",
    ),
    Case(
        "tuning into a file",
        "tune own.toml --data mine.csv --learner bias --out mine.csv",
        "mine.csv/bias: can't write there (a file stands where a folder should be); give another --out",
    ),
    Case(
        "tuning in no time",
        "tune own.toml --data mine.csv --learner bias --time-limit 0",
        "--time-limit 0: give a number of seconds above 0",
    ),
    Case(
        "tuning on no thread",
        "tune own.toml --data mine.csv --learner bias --threads 0",
        "--threads 0: at least one thread is needed",
    ),
    Case(
        "tuning with the trials of something else",
        "tune own.toml --data mine.csv --learner bias --out t",
        "t/bias/study.db: not a database of trials, or a damaged one; remove it or give another --out",
        files={"t/bias/study.db": "no database\n" * 100},
    ),
    Case(
        "tuning on a suite that isn't there", "tune quik --learner bias", "unknown suite 'quik'; did you mean 'quick'?"
    ),
)
