"""The sampler beside learn2learn's TaskDataset: episodes of 5 users with 5 + 10 ratings, from one pool of users."""

import random

import torch
from torch.utils.data import Dataset

from fewrec.episodes.sampler import EpisodeSampler
from fewrec.episodes.split import UserRows

EPISODES, TASKS = 10_000, 1_000
N_USERS, K_SHOT, N_QUERY = 5, 5, 10


class Ratings(Dataset):
    """Ratings as learn2learn wants them: (features, class), the class being the user."""

    def __init__(self, rows: UserRows) -> None:
        self.item, self.rating = rows.item.tolist(), rows.rating.tolist()
        self.user = torch.repeat_interleave(torch.from_numpy(rows.counts)).tolist()

    def __len__(self) -> int:
        return len(self.user)

    def __getitem__(self, row: int) -> tuple[tuple[int, float], int]:
        return (self.item[row], self.rating[row]), self.user[row]


def test_sampler_beside_learn2learns_task_dataset(compare, learn2learn, user_cold):
    pool = user_cold.pools["train"]
    sampler = EpisodeSampler(pool, 0, "train", k_max=K_SHOT)
    l2l = learn2learn.data
    dataset = l2l.MetaDataset(Ratings(pool.support))
    transforms = [  # its fastest way: the fused transform draws ratings of the chosen users alone
        l2l.transforms.FusedNWaysKShots(dataset, n=N_USERS, k=K_SHOT + N_QUERY),
        l2l.transforms.LoadData(dataset),
    ]

    def ours(number: int) -> None:
        episodes = sampler.sample(number * EPISODES, EPISODES, n_users=N_USERS, k_shot=K_SHOT, n_query=N_QUERY)
        assert len(episodes.support.item) + len(episodes.query.item) == EPISODES * N_USERS * (K_SHOT + N_QUERY)

    def theirs(number: int) -> None:
        random.seed(number)
        drawn = 0
        for (item, _), _ in l2l.TaskDataset(dataset, transforms, num_tasks=TASKS):
            drawn += len(item)
        assert drawn == TASKS * N_USERS * (K_SHOT + N_QUERY)

    compare(
        "10,000 episodes of MovieLens-100K (5 users, 5 + 10)",
        ours,
        theirs,
        other_name="learn2learn 0.2.0 TaskDataset",
        other_share=TASKS / EPISODES,
        note=f"theirs draws {TASKS:,} tasks a round, time scaled to {EPISODES:,}",
    )
