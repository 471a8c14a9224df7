"""``mf-scratch`` on a batch of episodes beside the same episodes one at a time."""

from fewrec.episodes.sampler import EpisodeSampler
from fewrec.learners.registry import learner_class

EPISODES = 100


def test_mf_scratch_batched_beside_one_at_a_time(compare, user_cold, ctx):
    learner = learner_class("mf-scratch")()
    learner.prepare(ctx)
    sampler = EpisodeSampler(user_cold.pools["test"], 0, "test", k_max=5)
    episodes = sampler.sample(0, EPISODES, n_users=5, k_shot=5, n_query=10)
    query = episodes.query

    def batched(number: int) -> None:
        learner.adapt_batch(episodes.support, ctx).predict(query.episode, query.user, query.item)

    def one_at_a_time(number: int) -> None:
        for e, support in enumerate(episodes.support):
            rows = query.episode == e
            learner.adapt(support, ctx).predict(query.user[rows], query.item[rows])

    compare(
        f"mf-scratch, {EPISODES} episodes in one batch",
        batched,
        one_at_a_time,
        other_name="mf-scratch, one episode at a time",
        note="MovieLens-100K user-cold, 5 users, 5 + 10; adapt and predict",
    )
