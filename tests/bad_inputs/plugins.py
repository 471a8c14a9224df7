"""Learners that aren't there, options that they refuse, and plugins that can't be loaded."""

from tests.bad_inputs.case import Case

RUN = "run own.toml --data mine.csv --plugin bad.py --learner mine"
CHECK = "check bad.py"
SET = "run own.toml --data mine.csv --learner maml-mf --set maml-mf."
GOOD = '''\
import torch

from fewrec.learners.base import Learner, LearnerConfig, Predictor


class Mean(Predictor):
    def __init__(self, mean):
        self.mean = mean

    def predict(self, users, items):
        return torch.full((len(users),), float(self.mean))


class Mine(Learner):
    """The mean of the support."""

    name = "mine"

    def adapt(self, support, ctx):
        return Mean(support.rating.mean() if len(support.rating) else 3.0)
'''


def plugin(old: str, new: str) -> dict[str, str]:
    """Return the file bad.py: a good plugin with a part replaced."""
    assert old in GOOD
    return {"bad.py": GOOD.replace(old, new, 1)}


CASES = (
    Case(
        "a learner that isn't there",
        "run own.toml --data mine.csv --learner bais",
        "unknown learner 'bais'; did you mean 'bias'?",
    ),
    Case(
        "an option that isn't there",
        "run own.toml --data mine.csv --set bias.ridge=1",
        "learner 'bias[ridge=1]': unknown key 'ridge'; did you mean 'user_ridge'?",
    ),
    Case(
        "an option of a learner that isn't in the suite",
        "run own.toml --data mine.csv --set gp.lr=1",
        "--set gp: no such learner in suite own; known: bias, global-mean, user-mean",
    ),
    Case(
        "an option that is a word",
        SET + "inner_steps=many",
        "learner 'maml-mf[inner_steps=many]': inner_steps: 'many' is not a whole number",
    ),
    Case(
        "an option with a decimal",
        SET + "inner_steps=2.5",
        "learner 'maml-mf[inner_steps=2.5]': inner_steps: 2.5 is not a whole number",
    ),
    Case(
        "an option below its least",
        SET + "inner_steps=-1",
        "learner 'maml-mf[inner_steps=-1]': inner_steps: -1 is below 1",
    ),
    Case(
        "an option that is a list",
        SET + "inner_steps=[1,2]",
        "learner 'maml-mf[inner_steps=[1, 2]]': inner_steps: [1, 2] is not a whole number",
    ),
    Case(
        "an option that is neither true nor false",
        "run own.toml --data mine.csv --learner maml-lm --set maml-lm.learn_rates=perhaps",
        "learner 'maml-lm[learn_rates=perhaps]': learn_rates: 'perhaps' is neither true nor false",
    ),
    Case(
        "an option with a choice that isn't there",
        "run own.toml --data mine.csv --learner bert-finetune --set bert-finetune.loss=hinge",
        "learner 'bert-finetune[loss=hinge]': loss: 'hinge' is none of 'mse', 'mae', 'huber'",
    ),
    Case(
        "an option that is NaN",
        "run own.toml --data mine.csv --set bias.user_ridge=nan",
        "learner 'bias[user_ridge=nan]': user_ridge: nan is not above 0",
    ),
    Case(
        "a class of a module that isn't there",
        "run own.toml --data mine.csv --learner nowhere:Mine",
        "learner 'nowhere:Mine': there is no module 'nowhere'; give module:Class",
    ),
    Case(
        "a class that isn't in its module",
        "run own.toml --data mine.csv --learner fewrec.learners.bias:Bios",
        "learner 'fewrec.learners.bias:Bios': the module fewrec.learners.bias has no class 'Bios'",
    ),
    Case(
        "a class that is no learner",
        "run own.toml --data mine.csv --learner pathlib:Path",
        "learner 'pathlib:Path': pathlib:Path is not a subclass of fewrec.learners.base.Learner",
    ),
    Case("no such plugin", "run own.toml --data mine.csv --plugin bad.py", "--plugin bad.py: no such file"),
    Case(
        "a plugin that is no Python file",
        "list learners --plugin bad.txt",
        "--plugin bad.txt: not a Python file (its name must end in .py)",
        files={"bad.txt": GOOD},
    ),
    Case("a folder for a plugin", RUN, "--plugin bad.py: this is a folder, not a file", files={"bad.py/": ""}),
    Case(
        "a plugin with a syntax error",
        RUN.replace("mine --l", "bad --l").replace("learner mine", "learner bad"),
        "learner 'bad' (plugin bad.py) can't be used: SyntaxError in line 19: expected ':'",
        files=plugin("def adapt(self, support, ctx):", "def adapt(self, support, ctx)"),
    ),
    Case(
        "a plugin that imports what isn't there",
        CHECK,
        "bad.py: ModuleNotFoundError in line 1: No module named 'torche'",
        files=plugin("import torch", "import torche"),
    ),
    Case(
        "a plugin that raises when it is imported",
        CHECK,
        "bad.py: ZeroDivisionError in line 2: division by zero",
        files=plugin("import torch", "import torch\n1 / 0"),
    ),
    Case(
        "a plugin that ends the program",
        CHECK,
        "bad.py: it ends the program in line 2, where it should only define a learner",
        files=plugin("import torch", "import torch\nexit(3)"),
    ),
    Case(
        "an empty plugin",
        CHECK,
        "bad.py: it defines no Learner: a class that inherits fewrec.learners.base.Learner and has a name",
        files={"bad.py": ""},
    ),
    Case(
        "a plugin with no learner",
        CHECK,
        "bad.py: it defines no Learner: a class that inherits fewrec.learners.base.Learner and has a name",
        files={"bad.py": "class Mine:\n    name = 'mine'\n"},
    ),
    Case(
        "a learner without a name",
        CHECK,
        'bad.py: its learner Mine has no name: add name = "..." to the class',
        files=plugin('    name = "mine"\n\n', ""),
    ),
    Case(
        "a learner that is called like a built-in one",
        CHECK,
        "--plugin bad.py: learner name 'bias' is claimed twice: by this file and by a built-in learner; rename yours",
        files=plugin('"mine"', '"bias"'),
    ),
    Case(
        "two learners of one name",
        CHECK,
        "--plugin bad.py: two of its learners are called 'mine'; rename one of them",
        files={"bad.py": GOOD + '\n\nclass Yours(Mine):\n    name = "mine"\n'},
    ),
    Case(
        "a learner without adapt",
        CHECK,
        "learner 'mine': its class Mine lacks the method adapt; write it",
        files={"bad.py": GOOD.replace("def adapt(", "def adopt(")},
    ),
    Case(
        "a learner without a docstring",
        CHECK + " --only name",
        "class Mine has no docstring. Write one below the class line: first what it predicts, in one line, then formula, paper and deviations.",
        files=plugin('    """The mean of the support."""\n\n', ""),
        code=1,
    ),
    Case(
        "a learner that needs what isn't known",
        CHECK + " --only declarations",
        "needs has 'images'. Known are 'item_features', 'item_ratings', 'item_text', 'k>0', 'timestamps', 'user_features'.",
        files=plugin('name = "mine"', 'name = "mine"\n    needs = frozenset({"images"})'),
        code=1,
    ),
    Case(
        "a learner whose needs are text",
        CHECK + " --only declarations",
        "needs is 'item_text'. Write a set: needs = frozenset({\"...\"}).",
        files=plugin('name = "mine"', 'name = "mine"\n    needs = "item_text"'),
        code=1,
    ),
    Case(
        "a learner whose options are no Config",
        CHECK + " --only config --set rank=3",
        "Config is <class 'dict'>. Let it inherit fewrec.learners.base.LearnerConfig.",
        files=plugin('name = "mine"', 'name = "mine"\n    Config = dict'),
        code=1,
    ),
    Case(
        "an option that the learner of a file hasn't",
        CHECK + " --set rank=3",
        "learner 'mine' has no option 'rank'; it has none",
        files={"bad.py": GOOD},
    ),
    Case(
        "an option of a file's learner that is a word",
        CHECK + " --set rank=deep",
        "learner 'mine': rank: 'deep' is not a whole number",
        files=plugin('name = "mine"', 'name = "mine"\n\n    class Config(LearnerConfig):\n        rank: int = 3\n'),
    ),
    Case(
        "an option of a file's learner without a value",
        CHECK + " --set rank",
        "--set: 'rank' is not of the form option=value",
        files={"bad.py": GOOD},
    ),
    Case(
        "a check that isn't there",
        CHECK + " --only detreminism",
        "--only detreminism: no such check; did you mean 'declarations'?",
        files={"bad.py": GOOD},
    ),
    Case(
        "a learner that the file hasn't",
        CHECK + " --learner yours",
        "bad.py has no learner 'yours'; known: mine",
        files={"bad.py": GOOD},
    ),
    Case(
        "a learner of a learner",
        "check bias --learner bias",
        "--learner bias goes with a file; 'bias' is one learner already",
    ),
    Case(
        "checking a file that isn't there",
        "check bad.py",
        "bad.py: no such file (fewrec new-learner bad.py writes one)",
    ),
    Case("checking a learner that isn't there", "check bais", "unknown learner 'bais'; did you mean 'bias'?"),
    Case("listing a learner that isn't there", "list learners bais -v", "unknown learner 'bais'; did you mean 'bias'?"),
)
