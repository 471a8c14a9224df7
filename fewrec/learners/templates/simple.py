"""my-method: say in one sentence what it is.

fewrec check my_method.py  # does it keep the contract?
fewrec run smoke --plugin my_method.py --learner my-method,bias  # its row beside a baseline's
"""

import torch

from fewrec.learners.base import Learner, Predictor


class MyMethod(Learner):
    """Predict the mean of a user's support, shrunk towards the middle of the rating scale.

    The first line is what `fewrec list learners` shows. Below it: the formula, the paper, and what you do otherwise.
    """

    name = "my-method"
    paper = ""  # authors, venue, year
    task = "user"  # a user's predictions depend on that user's ratings alone; "episode": on those of all its users
    needs = frozenset()  # of "k>0", "item_text", "item_features", "user_features", "timestamps", "item_ratings"

    def adapt(self, support, ctx):
        # One row a rating: support.user (0 .. n_users - 1), support.item (code in the catalog), support.rating.
        # Randomness only from ctx.generator(support.seed); item texts are ctx.catalog.texts(). Don't change self.
        count = torch.bincount(support.user, minlength=support.n_users)
        total = torch.zeros(support.n_users, dtype=torch.float64).index_add(0, support.user, support.rating)
        return MyMethodPredictor((total + 2 * ctx.scale.middle) / (count + 2))


class MyMethodPredictor(Predictor):
    """What is known of the episode's users: one number for each."""

    def __init__(self, mean):
        self.mean = mean

    def predict(self, users, items):
        # Both (n,): return (n,) ratings on the data set's scale, for any item, seen in meta-train or not.
        return self.mean[users]
