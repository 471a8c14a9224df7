"""Ridge on frozen embeddings, against scikit-learn's on the same features."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, WhiteKernel

from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.sampler import EpisodeSampler
from fewrec.learners.embed_ridge import EmbedRidge
from fewrec.testing import LearnerConformance


class TestEmbedRidgeKeepsTheContract(LearnerConformance):
    learner = EmbedRidge

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def tiny(cls, tiny_bert):
        cls.config = {"backbone": tiny_bert, "precision": "float32", "n_query": 5}


@pytest.fixture(scope="module")
def fitted(tiny_bert, text_split, text_ctx):
    learner = EmbedRidge(EmbedRidge.Config(backbone=tiny_bert, n_query=5, user_variance=0.3, user_head_variance=0.7))
    learner.prepare(text_ctx)
    learner.meta_fit(MetaTrainSet(text_split, text_ctx.scale), text_ctx)
    return learner


def test_a_user_is_the_posterior_mean_of_a_gaussian_process_on_the_embeddings(fitted, text_split, text_ctx):
    sampler = EpisodeSampler(text_split.pools["test"], 0, "test", k_max=6)
    support = sampler.sample(0, 1, n_users=2, k_shot=6, n_query=5).support[0]
    x, prior = fitted.prior.table.double().numpy(), fitted.prior
    base = (prior.text_effect() + prior.correction).numpy()
    # offset ~ N(0, 0.3), head ~ N(0, 0.7 I): a kernel 0.3 + 0.7 x.x', with noise of variance 1.
    kernel = (
        ConstantKernel(0.3, "fixed") + ConstantKernel(0.7, "fixed") * DotProduct(0.0, "fixed") + WhiteKernel(1, "fixed")
    )
    items = torch.arange(len(text_split.catalog))
    for user in range(2):
        own = (support.user == user).numpy()
        rated = support.item.numpy()[own]
        target = (support.rating.numpy()[own] - base[rated]) / prior.spread
        model = GaussianProcessRegressor(kernel, optimizer=None, alpha=0.0).fit(x[rated], target)
        expected = base + prior.spread * model.predict(x)
        found = fitted.adapt(support, text_ctx).predict(torch.full_like(items, user), items).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_unseen_items_are_told_apart_by_their_texts_and_seen_ones_by_their_ratings_too(fitted, text_split, text_ctx):
    sampler = EpisodeSampler(text_split.pools["test"], 0, "test", k_max=6)
    support = sampler.sample(0, 1, n_users=1, k_shot=6, n_query=5).support[0]
    nothing = support.user[:0]
    empty = replace(support, user=nothing, item=nothing, rating=support.rating[:0], timestamp=None)
    items = torch.arange(len(text_split.catalog))
    found = fitted.adapt(empty, text_ctx).predict(torch.zeros_like(items), items)
    unseen = torch.from_numpy(~text_split.catalog.seen)
    torch.testing.assert_close(found[unseen], fitted.prior.text_effect()[unseen], rtol=0, atol=1e-5)
    assert float(found[unseen].std()) > 1e-3
    assert float((found - fitted.prior.text_effect())[~unseen].abs().max()) > 1e-2
