"""Padded tasks against the episodes that they were made from."""


import pytest
import torch

from fewrec.data.synthetic import make_synthetic
from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.protocol import Protocol
from fewrec.episodes.split import split_dataset
from fewrec.episodes.support import Support, SupportBatch
from fewrec.learners.engine.tasks import Tasks, table_rows


@pytest.fixture(scope="module")
def source() -> MetaTrainSet:
    dataset = make_synthetic(n_users=80, n_items=40, density=0.7, seed=1)
    return MetaTrainSet(split_dataset(dataset, Protocol(state="user-cold", k_max=8), 0), dataset.scale)


def test_tasks_hold_the_episodes_ratings_user_by_user(source):
    episodes = source.train_episodes(0, 2, n_users=3, k_shot=4, n_query=5)
    tasks = Tasks.of_episodes(episodes, torch.device("cpu"), torch.float64)
    assert tasks.items.shape == (6, 4) and tasks.query.item.shape == (6, 5)
    flat, asked = episodes.support.flat_user(), episodes.support.flat_user(episodes.query.episode, episodes.query.user)
    for task in range(6):
        assert tasks.support.item[task].tolist() == episodes.support.item[flat == task].tolist()
        assert tasks.support.rating[task].tolist() == episodes.support.rating[flat == task].tolist()
        assert tasks.query.item[task].tolist() == episodes.query.item[asked == task].tolist()
        assert tasks.query.rating[task].tolist() == episodes.answers.rating[asked == task].tolist()
    assert tasks.user.shape == (6, source.n_user_attributes)
    assert torch.equal(tasks.user.float(), episodes.support.user_features)


def test_the_local_table_holds_the_items_of_the_support_once(source):
    drawn = [source.train_episodes(0, 1, n_users=2, k_shot=k, n_query=1).support[0] for k in (1, 6)]
    drawn.append(drawn[1].joined(drawn[0]))  # the first rating of each user twice
    tasks = Tasks.of_supports(SupportBatch.of(drawn), torch.device("cpu"), torch.float64)
    assert tasks.n_items.tolist() == [1, 1, 6, 6, 6, 6]
    for task in range(6):
        real = tasks.support.mask[task] > 0
        assert torch.equal(tasks.items[task][tasks.row[task]][real], tasks.support.item[task][real])
        everything = torch.arange(40).expand(6, 40)
        row, known = tasks.local_rows(everything)
        assert torch.arange(40)[known[task]].tolist() == sorted(tasks.items[task][: tasks.n_items[task]].tolist())
        assert torch.equal(tasks.items[task][row[task][known[task]]], torch.arange(40)[known[task]])


def test_a_task_without_support_has_nothing_but_padding_in_its_local_table():
    nothing = torch.zeros(0, dtype=torch.int64)
    support = Support(2, nothing, nothing, nothing.double(), None, torch.tensor([-1, -1]), seed=0)
    tasks = Tasks.of_supports(SupportBatch.of([support]), torch.device("cpu"), torch.float32)
    assert len(tasks) == 2 and tasks.items.shape == (2, 1) and tasks.user.shape == (2, 0)
    assert tasks.n_items.tolist() == [0, 0]
    assert not tasks.local_rows(torch.zeros(2, 3, dtype=torch.int64))[1].any()


def test_tasks_are_aligned_unless_an_item_is_rated_twice(source):
    episodes = source.train_episodes(0, 2, n_users=3, k_shot=4, n_query=5)
    tasks = Tasks.of_episodes(episodes, torch.device("cpu"), torch.float64)
    assert tasks.aligned and torch.equal(tasks.row, torch.arange(4).expand(6, 4))
    assert torch.equal(tasks.items, tasks.support.item) and tasks[1:3].aligned
    twice = SupportBatch.of([episodes.support[0].joined(episodes.support[0])])
    assert not Tasks.of_supports(twice, torch.device("cpu"), torch.float64).aligned


@pytest.mark.parametrize("size", [0, 1, 4, 6, 99])
def test_parts_are_the_whole(source, size):
    episodes = source.train_episodes(0, 2, n_users=3, k_shot=4, n_query=5)
    tasks = Tasks.of_episodes(episodes, torch.device("cpu"), torch.float64)
    parts = list(tasks.split(size))
    assert all(len(part) <= (size or 6) for part in parts)
    assert torch.equal(torch.cat([part.items for part in parts]), tasks.items)
    assert torch.equal(torch.cat([part.query.rating for part in parts]), tasks.query.rating)


@pytest.mark.parametrize("shape", [(40,), (40, 3), (40, 2, 2)])
def test_rows_of_a_table_give_their_gradient_back_to_it(source, shape):
    table = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    items = torch.tensor([[1, 1, 5], [7, 1, 0]])
    weight = torch.randn(2, 3, *shape[1:], dtype=torch.float64)
    assert torch.equal(table_rows(table, items), table[items])
    (table_rows(table, items) * weight).sum().backward()
    expected = torch.zeros(shape, dtype=torch.float64).index_add(0, items.flatten(), weight.flatten(0, 1))
    torch.testing.assert_close(table.grad, expected)


def test_a_support_mask_drops_ratings_behind_it(source):
    episodes = source.train_episodes(0, 1, n_users=3, k_shot=4, n_query=2)
    tasks = Tasks.of_episodes(episodes, torch.device("cpu"), torch.float64)
    smaller = tasks.with_support_mask((torch.arange(4) < torch.tensor([[1], [4], [2]])).double())
    assert smaller.support.mask.sum(1).tolist() == [1, 4, 2]
    assert (smaller.support.rating[0, 1:] == 0).all()
    assert torch.equal(smaller.support.rating[1], tasks.support.rating[1])


