"""Calls in Python that ask for the impossible."""

from tests.bad_inputs.case import Case, ratings

OWN = '"own.toml", data="mine.csv", progress=False'

CASES = (
    Case("a suite", 'fewrec.run("quik")', "unknown suite 'quik'; did you mean 'quick'?"),
    Case("a learner", f'fewrec.run({OWN}, learners=["bais"])', "unknown learner 'bais'; did you mean 'bias'?"),
    Case("a number for a learner", f"fewrec.run({OWN}, learners=3)", "learners: 3 is not a learner's name"),
    Case(
        "a number for a data set to meta-train on",
        f"fewrec.run({OWN}, meta_datasets=3)",
        "unknown dataset '3'; known: … (a file of your own needs its ending, say my.csv)",
    ),
    Case(
        "less than no explanation from Python",
        'fewrec.recommend(dataset="mine.csv", explain=-1)',
        "explain = -1: give 0 or more, so many ratings to name for each item",
    ),
    Case(
        "shots that are words",
        f'fewrec.run({OWN}, shots=["few"])',
        "own: shots: 'few' is neither a whole number nor 'rest'",
    ),
    Case(
        "a number for a state",
        f"fewrec.run({OWN}, states=[3])",
        "own: states: 3 is none of 'user-cold', 'item-cold', 'both-cold', 'warm'",
    ),
    Case("no episode at all", f"fewrec.run({OWN}, episodes=0)", "own: episodes: 0 is not above 0"),
    Case("a seed that is text", f'fewrec.run({OWN}, seeds=["a"])', "own: seeds: 'a' is not a whole number"),
    Case("an order", f'fewrec.run({OWN}, order="latest")', "own: protocol.order: 'latest' is none of 'random', 'time'"),
    Case(
        "a condition",
        f'fewrec.run({OWN}, conditions={{"noise": 1}})',
        "--condition noise: there is no such condition; did you mean 'support_noise'?",
    ),
    Case(
        "settings of a learner that isn't there",
        f'fewrec.run({OWN}, settings={{"gp": {{"x": 1}}}})',
        "--set gp: no such learner in suite own; known: bias, global-mean, user-mean",
    ),
    Case(
        "settings that are no table",
        f'fewrec.run({OWN}, settings={{"bias": 3}})',
        "settings of 'bias': 3 is no mapping from options to values",
    ),
    Case("threads below 1", f"fewrec.run({OWN}, threads=-1)", "--threads -1: at least one thread is needed"),
    Case("a device as a number", f"fewrec.run({OWN}, device=0)", "--device 0: choose auto, cpu, cuda or mps"),
    Case(
        "a data set that is a number",
        'fewrec.run("own.toml", data=7)',
        "unknown dataset '7'; known: … (a file of your own needs its ending, say my.csv)",
    ),
    Case(
        "a tracker as text",
        f'fewrec.run({OWN}, track=["tensorbord"])',
        "--track tensorbord: unknown tracker; did you mean 'tensorboard'?",
    ),
    Case(
        "a tracker that can't follow",
        f"fewrec.run({OWN}, track=[object()])",
        "track: object is no tracker, it lacks begin, cell, scalars, result, end (see fewrec.tracking.Tracker)",
    ),
    Case(
        "a plan with weights that aren't there",
        'plan("own.toml", data="mine.csv", backbone="bert")',
        "--backbone: unknown weights 'bert'; known: … (or give owner/name on the hub, or a folder)",
    ),
    Case(
        "a budget of 0",
        'fewrec.tune("own.toml", "bias", budget=0, data="mine.csv")',
        "--budget 0: at least one trial is needed",
    ),
    Case(
        "ratings as a mapping with an unknown title",
        'fewrec.recommend({"Flim number 3": 5}, dataset=load_own("mine.csv", items="items.csv"), learner="bias")',
        "ratings['Flim number 3']: unknown item or title 'Flim number 3'; nearest: Film number 3 (1983) = 3; Film number 13 (1993) = 13; Film number 9 (1989) = 9",
    ),
    Case(
        "ratings as a mapping with a rating off the scale",
        'fewrec.recommend({"Film number 3": 50}, dataset=load_own("mine.csv", items="items.csv"), learner="bias")',
        "ratings['Film number 3']: rating 50 is outside the scale 1..5 of the data set",
    ),
    Case("no item", 'fewrec.recommend(dataset="mine.csv", top=0)', "top = 0: give 1 or more, so many items"),
    Case(
        "nothing to recommend from",
        "fewrec.recommend()",
        "no data set to recommend from: give --dataset NAME, --data FILE or --model FOLDER",
    ),
    Case("no question", 'fewrec.ask(dataset="mine.csv", top=0)', "top = 0: give 1 or more, so many items"),
    Case(
        "a question to a learner that can't say",
        'fewrec.ask(dataset="mine.csv", learner="user-mean")',
        "'user-mean' can't say what a rating would tell; learners that can: gp, hybrid-gp",
    ),
    Case(
        "a saved learner that isn't there",
        'fewrec.load_learner("nowhere")',
        "nowhere: no saved learner there (no learner.json)",
    ),
    Case(
        "results that aren't there",
        'fewrec.load_results("nowhere")',
        "nowhere: no such folder of results; run the suite first, or give results/reference/<suite>",
    ),
    Case(
        "results to compare that aren't there",
        'fewrec.compare("nowhere", "nowhere")',
        "nowhere: no such folder of results; run the suite first, or give results/reference/<suite>",
    ),
    Case(
        "a scale of one number from Python",
        'load_own("mine.csv", scale=(1,))',
        "--scale: [1] is not two numbers, the lowest and the highest rating",
    ),
    Case(
        "a scale of words from Python",
        'load_own("mine.csv", scale=("one", "five"))',
        '--scale: ["one", "five"] is not two numbers, the lowest and the highest rating',
    ),
    Case(
        "a policy for duplicates",
        'load_own("bad.csv", duplicates="first")',
        "--duplicates 'first' is none of error, last, mean",
        files={"bad.csv": ratings("1,1,5")},
    ),
    Case(
        "columns as a list",
        'load_own("mine.csv", columns=["user", "item"])',
        "--columns user,item: needs user, item and rating once each",
    ),
    Case(
        "negatives below 1",
        'load_own("mine.csv", negatives=0)',
        "--negatives 0: give a whole number from 1, so many for each click",
    ),
    Case(
        "a data set",
        'open_dataset("ml100k")',
        "unknown dataset 'ml100k'; did you mean 'ml-100k'? (a file of your own needs its ending, say my.csv)",
    ),
    Case(
        "a card",
        'load_dataset("nowhere.toml")',
        "nowhere.toml: no such card; give the path of one, or a name of fewrec list datasets",
    ),
    Case(
        "weights",
        'find_weights("minilm")',
        "unknown weights 'minilm'; known: … (or give owner/name on the hub, or a folder)",
    ),
    Case(
        "frozen episodes",
        'load("nowhere")',
        "nowhere: no frozen episodes there (neither export.json nor episode.json); give --out of the export",
    ),
    Case(
        "predictions that aren't there", 'score("nowhere.csv", "frozen")', "nowhere.csv: no such file", needs="frozen"
    ),
    Case(
        "an option of fine-tuning that isn't there",
        "FinetuneOptions.of(epoch=3)",
        "--epoch is not an option of fine-tuning; did you mean 'epochs'?",
    ),
    Case(
        "an option of fine-tuning that is a word",
        'FinetuneOptions.of(epochs="many")',
        "--epochs: 'many' is not a whole number",
    ),
)
