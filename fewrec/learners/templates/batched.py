"""my-method: say in one sentence what it is.

fewrec check my_method.py  # does it keep the contract?
fewrec run smoke --plugin my_method.py --learner my-method,bias  # its row beside a baseline's
"""

import torch
from pydantic import Field

from fewrec.learners.base import BatchedLearner, BatchPredictor, LearnerConfig


class MyMethodConfig(LearnerConfig):
    """Options of `my-method`; `fewrec run ... --set my-method.user_ridge=3` changes one."""

    item_ridge: float = Field(5.0, gt=0, description="so many ratings of zero are added to an item's residuals")
    user_ridge: float = Field(5.0, gt=0, description="so many ratings of zero are added to a user's residuals")


class MyMethod(BatchedLearner):
    """Predict the mean rating, plus what the item and then the user lie above it, both shrunk.

    The first line is what `fewrec list learners` shows. Below it: the formula, the paper, and what you do otherwise.
    """

    name = "my-method"
    Config = MyMethodConfig
    paper = ""  # authors, venue, year
    task = "user"  # a user's predictions depend on that user's ratings alone; "episode": on those of all its users
    needs = frozenset()  # of "k>0", "item_text", "item_features", "user_features", "timestamps", "item_ratings"
    adapt_options = frozenset({"user_ridge"})  # what meta_fit doesn't look at: rows that differ in it share a meta-fit
    batch_episodes = 1000  # how many episodes adapt_batch likes at once: what fits into memory

    def meta_fit(self, source, ctx):
        # Once, on meta-train: source.table has NumPy columns user, item, rating, a row a rating; n_users, n_items.
        # source.train_episodes(...) and source.validation_episodes(...) give batches of episodes with their answers.
        # Randomness only from ctx.generator(source.seed).
        item = torch.tensor(source.table.item, device=ctx.device)
        rating = torch.tensor(source.table.rating, device=ctx.device)
        mean = rating.mean()
        count = torch.bincount(item, minlength=source.table.n_items)
        above = torch.zeros_like(count, dtype=torch.float64).index_add(0, item, rating - mean)
        self.base = mean + above / (count + self.config.item_ridge)  # an item without ratings gets the mean

    def adapt_batch(self, supports, ctx):
        # All ratings of all episodes, a row each: supports.episode, .user (from 0 within its episode), .item, .rating.
        # flat_user() numbers the users through the whole batch; supports.seeds has a seed for each episode.
        user, item, rating = (x.to(ctx.device) for x in (supports.flat_user(), supports.item, supports.rating))
        count = torch.bincount(user, minlength=supports.total_users)
        above = torch.zeros_like(count, dtype=torch.float64).index_add(0, user, rating - self.base[item])
        return MyMethodPredictor(self.base, above / (count + self.config.user_ridge), supports)

    def state(self):
        # What meta_fit learnt, as tensors and JSON values: stored once, and loaded instead of another meta-fit.
        return {"base": self.base}, {}

    def load_state(self, tensors, values, ctx):
        self.base = tensors["base"].to(ctx.device)

    def trainable_parameters(self):
        return len(self.base) + 1  # a number for each item, and one for the user


class MyMethodPredictor(BatchPredictor):
    """What is known of the batch's users: one number for each."""

    def __init__(self, base, above, supports):
        self.base, self.above, self.supports = base, above, supports

    def predict(self, episode, user, item):
        # All (n,): return (n,) ratings on the data set's scale, for any item, seen in meta-train or not.
        flat = self.supports.flat_user(episode.cpu(), user.cpu()).to(self.above.device)
        return self.base[item.to(self.base.device)] + self.above[flat]
