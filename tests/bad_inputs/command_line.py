"""Commands and options that are misspelt, lack a value, or have an impossible one."""

from tests.bad_inputs.case import Case

CASES = (
    Case("a command that isn't there", "rum quick", "no such command 'rum'; did you mean 'run'?"),
    Case(
        "a command of `data` that isn't there", "data fecth ml-100k", "no such command 'fecth'; did you mean 'fetch'?"
    ),
    Case("a command of `list` that isn't there", "list learner", "no such command 'learner'; did you mean 'learners'?"),
    Case(
        "a command of `episodes` that isn't there",
        "episodes exprot own.toml",
        "no such command 'exprot'; did you mean 'export'?",
    ),
    Case("an option before the command", "--verbose run", "no such option --verbose; see fewrec --help"),
    Case("a misspelt option", "run own.toml --learners bias", "no such option --learners; did you mean --learner?"),
    Case("an option that isn't there at all", "run own.toml --gpu 1", "no such option --gpu; see fewrec run --help"),
    Case("an option without its value", "run own.toml --shots", "--shots needs a value behind it"),
    Case("two suites", "run own.toml quick", "'quick' is one argument too many; see fewrec run --help"),
    Case("K is a word", "run own.toml --shots few", "--shots: 'few' is neither a whole number nor 'rest'"),
    Case("K below 0", "run own.toml --shots -1", "--shots: K = -1: the number of support ratings can't be negative"),
    Case("K with a decimal", "run own.toml --shots 2.5", "--shots: '2.5' is neither a whole number nor 'rest'"),
    Case("a seed below 0", "run own.toml --seed -2", "--seed: '-2' is not a whole number from 0"),
    Case("a seed that is a word", "run own.toml --seed lucky", "--seed: 'lucky' is not a whole number from 0"),
    Case("no episode", "run own.toml --episodes 0", "--episodes: 0 is too small; give 1 or more"),
    Case("episodes that are no number", "run own.toml --episodes many", "--episodes: 'many' is not a whole number"),
    Case(
        "an order that isn't there", "run own.toml --order latest", "--order: 'latest' is not one of 'random', 'time'"
    ),
    Case(
        "a condition without a value",
        "run own.toml --condition support_noise",
        "--condition: 'support_noise' is not of the form name=value, say support_noise=0.2",
    ),
    Case(
        "a setting without a learner",
        "run own.toml --set rank=3",
        "--set: 'rank=3' is not of the form learner.option=value",
    ),
    Case(
        "a setting without a value",
        "run own.toml --set bias.user_ridge",
        "--set: 'bias.user_ridge' is not of the form learner.option=value",
    ),
    Case("a scale of one number", "run own.toml --data mine.csv --scale 1", "--scale needs 2 values behind it"),
    Case("a scale of words", "run own.toml --data mine.csv --scale one five", "--scale: 'one' is not a number"),
    Case(
        "threads that are no number",
        "run own.toml --data mine.csv --threads all",
        "--threads: 'all' is not a whole number",
    ),
    Case(
        "a time limit that is no number",
        "run own.toml --data mine.csv --time-limit 1h",
        "--time-limit: '1h' is not a number",
    ),
    Case(
        "a policy for duplicates that isn't there",
        "run own.toml --data mine.csv --duplicates first",
        "--duplicates: 'first' is not one of 'error', 'last', 'mean'",
    ),
    Case("no negatives", "run own.toml --data mine.csv --negatives 0", "--negatives: 0 is too small; give 1 or more"),
    Case(
        "own data and a named data set",
        "run own.toml --data mine.csv --dataset ml-100k",
        "--data and --dataset exclude one another; give one of them",
    ),
    Case(
        "options of own data without own data",
        "run own.toml --scale 1 5 --items items.csv",
        "--items, --scale only go with --data; give the file too",
    ),
    Case("tuning without a learner", "tune own.toml", "--learner is missing; see fewrec tune --help"),
    Case(
        "tuning without a trial", "tune own.toml --learner bias --budget 0", "--budget: 0 is too small; give 1 or more"
    ),
    Case(
        "tuning on own data and a named data set",
        "tune own.toml --learner bias --data mine.csv --dataset x",
        "--data and --dataset exclude one another; give one of them",
    ),
    Case("scoring without episodes", "score predictions.csv", "--episodes is missing; see fewrec score --help"),
    Case(
        "exporting without a folder", "episodes export own.toml", "--out is missing; see fewrec episodes export --help"
    ),
    Case(
        "exporting own data and a named data set",
        "episodes export own.toml --out x --data a.csv --dataset b",
        "--data and --dataset exclude one another; give one of them",
    ),
    Case("comparing with nothing", "compare out", "B is missing; see fewrec compare --help"),
    Case(
        "a format that `compare` hasn't",
        "compare out out --format html",
        "--format: 'html' is not one of 'table', 'markdown', 'csv', 'json'",
    ),
    Case(
        "a format that `show` hasn't",
        "show out --format excel",
        "--format: 'excel' is not one of 'table', 'markdown', 'csv', 'latex'",
    ),
    Case(
        "an order of rows that isn't there",
        "show out --sort accuracy",
        "--sort: 'accuracy' is not one of 'rmse', 'diff_bias', 'ndcg5', 'auc', 'time'",
    ),
    Case(
        "a kind of interval that isn't there",
        "report out --interval bayes",
        "--interval: 'bayes' is not one of 'percentile', 'bca'",
    ),
    Case("verifying no cell", "verify out --cells 0", "--cells: 0 is too small; give 1 or more"),
    Case("verifying by a seed below 0", "verify out --seed -1", "--seed: -1 is too small; give 0 or more"),
    Case(
        "verifying with options of a file, without the file",
        "verify out --scale 1 5",
        "--scale only goes with --data; give the file too",
    ),
    Case("checking nothing", "check", "TARGET is missing; see fewrec check --help"),
    Case(
        "a kind of template that isn't there",
        "new-learner mine.py --kind deep",
        "--kind: 'deep' is not one of 'simple', 'meta-fit', 'batched'",
    ),
    Case(
        "a learner that is no Python file",
        "new-learner mine.txt",
        "mine.txt: a learner is a Python file; call it mine.py",
    ),
    Case(
        "a learner's file with a space",
        "new-learner 'my method.py'",
        "my method.py: use letters, digits, '_' and '-' in the file's name",
    ),
    Case(
        "a learner's file that is there already",
        "new-learner mine.py",
        "mine.py exists already; give another file name",
        files={"mine.py": "# mine\n"},
    ),
    Case(
        "a learner's file in a folder that isn't there",
        "new-learner plugins/mine.py",
        "plugins/mine.py: there is no folder plugins",
    ),
    Case(
        "a learner's name in capitals",
        "new-learner mine.py --name MyMethod",
        "--name 'MyMethod': use lower-case letters, digits and '-' between them, like genre-mean",
    ),
    Case(
        "a learner's name that is taken",
        "new-learner mine.py --name bias",
        "--name bias: that is the name of a learner already (built-in); choose another one",
    ),
    Case("no recommendation", "recommend --dataset synthetic --top 0", "--top: 0 is too small; give 1 or more"),
    Case(
        "less than no explanation",
        "recommend --dataset synthetic --explain -1",
        "--explain: -1 is too small; give 0 or more",
    ),
    Case("fine-tuning with one file", "finetune train.csv", "TEST is missing; see fewrec finetune --help"),
    Case("no epoch", "finetune train.csv test.csv --epochs 0", "--epochs: 0 is too small; give 1 or more"),
    Case(
        "an empty batch", "finetune train.csv test.csv --batch-size 0", "--batch-size: 0 is too small; give 1 or more"
    ),
    Case(
        "a learning rate that is no number",
        "finetune train.csv test.csv --learning-rate fast",
        "--learning-rate: 'fast' is not a number",
    ),
)
