"""``hybrid-gp``: conditioning and predicting in batches beside scikit-learn's process, one user at a time."""

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import DotProduct

from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.sampler import EpisodeSampler
from fewrec.learners.registry import learner_class

USERS = 1000


@pytest.fixture(scope="module")
def hybrid(user_cold, ctx, ml_100k):
    learner = learner_class("hybrid-gp")()
    learner.prepare(ctx)
    learner.meta_fit(MetaTrainSet(user_cold, ml_100k.scale), ctx)
    return learner


def test_hybrid_gp_in_batches(compare, hybrid, user_cold, ctx):
    sampler = EpisodeSampler(user_cold.pools["test"], 0, "test", k_max=10)
    episodes = sampler.sample(0, USERS, n_users=1, k_shot=10, n_query=10)
    support, query, model = episodes.support, episodes.query, hybrid.model
    root = np.linalg.cholesky(np.linalg.inv(model["precision"].numpy()))
    features, mean, noise = model["loading"].numpy() @ root, model["mean"].numpy(), model["noise_of"].numpy()
    item, rating = support.item.numpy().reshape(USERS, 10), support.rating.numpy().reshape(USERS, 10)
    asked = query.item.numpy().reshape(USERS, 10)

    def batched(number: int) -> None:
        hybrid.adapt_batch(support, ctx).predict(query.episode, query.user, query.item)

    def one_by_one(number: int) -> None:
        for u in range(USERS):
            process = GaussianProcessRegressor(DotProduct(0.0, "fixed"), alpha=noise[item[u]], optimizer=None)
            process.fit(features[item[u]], rating[u] - mean[item[u]])
            process.predict(features[asked[u]])

    compare(
        f"hybrid-gp, {USERS} users in one batch",
        batched,
        one_by_one,
        other_name="scikit-learn's GaussianProcessRegressor, one user at a time",
        note="MovieLens-100K user-cold, 10 + 10 ratings; adapt and predict; a thousandth of it is a user's time",
    )
