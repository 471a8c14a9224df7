"""The bridge: episodes through learn2learn's own classes and loops, and back."""

import copy
import random
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from fewrec.bridges.learn2learn import episodes_of, import_learn2learn, split_task, tasks_of
from fewrec.data.synthetic import make_synthetic
from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.protocol import Protocol
from fewrec.episodes.split import split_dataset
from fewrec.errors import DataError, NotApplicable
from fewrec.learners.base import Context
from fewrec.learners.bias import Bias


@pytest.fixture(scope="module")
def l2l():
    try:
        return import_learn2learn()
    except NotApplicable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def dataset():
    return make_synthetic(n_users=60, n_items=40, density=0.7, seed=1)


@pytest.fixture(scope="module")
def source(dataset):
    return MetaTrainSet(split_dataset(dataset, Protocol(state="user-cold", k_max=6), 0), dataset.scale)


def flat(episodes):
    """Return everything that is compared: (episode, user, item, rating) of support and query, and table users."""
    support, query = episodes.support, episodes.query
    return {
        "support": torch.stack([support.episode, support.user, support.item, support.rating], 1),
        "query": torch.stack([query.episode, query.user, query.item, episodes.answers.rating], 1),
        "n_users": support.n_users,
        "offsets": support.offsets,
        "meta_user": support.meta_user,
        "table_user": episodes.answers.table_user,
    }


@pytest.mark.parametrize("k_shot", [0, 4])
def test_episodes_come_back_from_tasks_as_they_were(source, k_shot):
    episodes = source.train_episodes(0, 7, n_users=3, k_shot=k_shot, n_query=5)
    tasks = tasks_of(episodes)
    assert len(tasks) == 21 and tasks.shots.tolist() == [k_shot] * 21
    again = episodes_of(tasks, k_shot, per_episode=3)
    for name, value in flat(episodes).items():
        assert torch.equal(flat(again)[name], value), name


def test_supports_of_different_lengths_come_back_too(source):
    parts = [tasks_of(source.train_episodes(0, 2, n_users=3, k_shot=k, n_query=5)) for k in (1, 4)]
    tasks, shots = [*parts[0], *parts[1]], torch.cat([part.shots for part in parts])
    episodes = episodes_of(tasks, shots, per_episode=6)
    assert len(episodes) == 2
    again = tasks_of(episodes)
    assert torch.equal(again.shots, shots)
    for (data, labels), (data_again, labels_again) in zip(tasks, again, strict=True):
        assert torch.equal(data_again, data) and torch.equal(labels_again, labels)


def test_a_task_has_the_ratings_of_its_user_in_the_table(source, dataset):
    table, episodes = dataset.table, source.train_episodes(0, 3, n_users=3, k_shot=4, n_query=5)
    pairs = zip(table.user.tolist(), table.item.tolist(), strict=True)
    rating = dict(zip(pairs, table.rating.tolist(), strict=True))
    for task, (data, labels) in enumerate(tasks_of(episodes, torch.float64)):
        assert data.shape == (9, 2) and data.dtype == torch.int64
        assert set(data[:, 0].tolist()) == {int(episodes.answers.table_user[task])}
        assert labels.tolist() == [rating[user, item] for user, item in data.tolist()]
        (adaptation, _), (evaluation, _) = split_task(data, labels, 4)
        mine = episodes.support.flat_user() == task
        assert adaptation[:, 1].tolist() == episodes.support.item[mine].tolist() and len(evaluation) == 5


def test_learn2learns_own_loop_lowers_the_error_on_the_tasks(l2l, source):
    """The loop of learn2learn's examples, as it is written there: sample, clone, adapt, evaluate, backward."""

    class Bias(nn.Module):
        def __init__(self):
            super().__init__()
            self.user, self.item = nn.Parameter(torch.zeros(1)), nn.Embedding(40, 1)

        def forward(self, data):
            return self.user + self.item(data[:, 1]).squeeze(1)

    torch.manual_seed(0)
    random.seed(0)
    tasks = tasks_of(source.train_episodes(0, 40, n_users=3, k_shot=4, n_query=5))
    maml, errors = l2l.algorithms.MAML(Bias(), lr=0.1), []
    optimiser = torch.optim.Adam(maml.parameters(), lr=0.1)
    for _ in range(30):
        optimiser.zero_grad()
        error = 0.0
        for _ in range(8):
            data, labels = tasks.sample()
            (x, y), (query_x, query_y) = split_task(data, labels, shots=4)
            learner = maml.clone()
            learner.adapt(nn.functional.mse_loss(learner(x), y))
            loss = nn.functional.mse_loss(learner(query_x), query_y)
            loss.backward()
            error += float(loss.detach()) / 8
        optimiser.step()
        errors.append(error)
    assert sum(errors[-5:]) < 0.3 * sum(errors[:5])


class Ratings(Dataset):
    """A table's ratings: ([user, item], rating)."""

    def __init__(self, table):
        self.pairs = torch.stack([torch.tensor(table.user), torch.tensor(table.item)], 1)
        self.rating = torch.tensor(table.rating)

    def __len__(self):
        return len(self.rating)

    def __getitem__(self, row):
        return self.pairs[row], self.rating[row]


def test_a_task_dataset_of_learn2learn_becomes_episodes_that_a_learner_adapts_to(l2l, source, dataset):
    of_user = dict(enumerate(dataset.table.user.tolist()))
    meta = l2l.data.MetaDataset(Ratings(dataset.table), indices_to_labels=of_user)  # a task's classes are users
    transforms = l2l.data.transforms
    random.seed(0)
    deal = [transforms.FusedNWaysKShots(meta, n=3, k=9), transforms.LoadData(meta)]
    tasks = l2l.data.Taskset(meta, deal, num_tasks=6)
    episodes = episodes_of(tasks, shots=4)
    assert len(episodes) == 6 and episodes.support.n_users.tolist() == [3] * 6
    for e, (data, labels) in enumerate(tasks):  # the same again: it keeps what it has drawn
        users = list(dict.fromkeys(data[:, 0].tolist()))
        assert episodes.answers.table_user[3 * e : 3 * e + 3].tolist() == users
        for number, user in enumerate(users):
            mine, support, query = data[:, 0] == user, episodes.support, episodes.query
            of_support = (support.episode == e) & (support.user == number)
            of_query = (query.episode == e) & (query.user == number)
            items = torch.cat([support.item[of_support], query.item[of_query]])
            ratings = torch.cat([support.rating[of_support], episodes.answers.rating[of_query]])
            assert of_support.sum() == 4 and torch.equal(items, data[mine, 1]) and torch.equal(ratings, labels[mine])

    ctx = Context(torch.device("cpu"), source.catalog, source.scale, Path("."))
    learner = Bias()
    learner.meta_fit(source, ctx)
    query = episodes.query
    predicted = learner.adapt_batch(episodes.support, ctx).predict(query.episode, query.user, query.item)
    error = (predicted.double() - episodes.answers.rating).square().mean()
    assert error < (source.table.rating.mean() - episodes.answers.rating).square().mean()


def test_item_codes_alone_are_one_users_ratings():
    tasks = [(torch.tensor([3, 1, 2]), torch.tensor([5.0, 4.0, 1.0])), (torch.tensor([7, 8]), torch.tensor([2.0, 3.0]))]
    episodes = episodes_of(tasks, shots=1, seed=10)
    assert episodes.support.item.tolist() == [3, 7] and episodes.support.rating.tolist() == [5.0, 2.0]
    assert episodes.query.item.tolist() == [1, 2, 8] and episodes.query.episode.tolist() == [0, 0, 1]
    assert episodes.answers.rating.tolist() == [4.0, 1.0, 3.0] and episodes.answers.table_user.tolist() == [0, 1]
    assert episodes.support.seeds.tolist() == [10, 11] and episodes.support.meta_user.tolist() == [-1, -1]


def test_tasks_can_be_sliced_copied_and_sampled_like_a_task_dataset(source):
    tasks = tasks_of(source.train_episodes(0, 4, n_users=3, k_shot=4, n_query=5))
    part = copy.deepcopy(tasks[2:5])
    assert len(part) == 3 and torch.equal(part[0][0], tasks[2][0]) and torch.equal(part.shots, tasks.shots[2:5])
    random.seed(3)
    drawn = {id(tasks.sample()[1]) for _ in range(300)}
    assert drawn == {id(labels) for _, labels in tasks}


@pytest.mark.parametrize(
    ("task", "shots", "message"),
    [
        ((torch.zeros(3, 3), torch.zeros(3)), 1, r"task 0 has data \(3, 3\) and labels \(3,\)"),
        ((torch.zeros(3), torch.zeros(2)), 1, r"task 0 has data \(3,\) and labels \(2,\)"),
        ((torch.tensor([0.5]), torch.zeros(1)), 1, "not whole numbers"),
        ((torch.tensor([-1]), torch.zeros(1)), 1, "not whole numbers"),
        ((torch.tensor([1]), torch.zeros(1)), [1, 2], "2 numbers of shots for 1 tasks"),
    ],
)
def test_tasks_of_another_form_are_refused_with_the_reason(task, shots, message):
    with pytest.raises(DataError, match=message):
        episodes_of([task], shots)


def test_no_tasks_are_refused():
    with pytest.raises(DataError, match="no tasks"):
        episodes_of([], 1)
