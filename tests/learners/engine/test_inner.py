"""The inner loop on an arbitrary module, against one autograd graph a task over whole tables."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.func import functional_call

from fewrec.data.synthetic import make_synthetic
from fewrec.episodes.meta import MetaTrainSet
from fewrec.episodes.protocol import Protocol
from fewrec.episodes.split import split_dataset
from fewrec.learners.engine.inner import InnerLoop, TaskView, mean_squared_error
from fewrec.learners.engine.tasks import Tasks

N_ITEMS = 30


class Net(nn.Module):
    """An item table and a user vector through a hidden layer: three kinds of parameters, as an author writes them."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.item = nn.Embedding(N_ITEMS, 3, dtype=torch.float64)
        self.user = nn.Parameter(torch.randn(3, dtype=torch.float64, generator=generator))
        self.hidden = nn.Linear(6, 4, dtype=torch.float64)
        self.out = nn.Linear(4, 1, dtype=torch.float64)
        with torch.no_grad():
            for value in self.parameters():
                value.copy_(torch.randn(value.shape, dtype=torch.float64, generator=generator) * 0.5)

    def forward(self, view: TaskView) -> torch.Tensor:
        item = view.pick(self.item.weight)
        joined = torch.cat([item, self.user.expand(len(item), 3)], 1)
        return self.out(torch.tanh(self.hidden(joined)))[:, 0]


CHOICES = {
    "all": ("item.weight", "user", "hidden.weight", "hidden.bias", "out.weight", "out.bias"),
    "head": ("out.weight", "out.bias"),
    "user": ("user",),
    "item": ("item.weight",),
}


@pytest.fixture(scope="module")
def tasks() -> Tasks:
    dataset = make_synthetic(n_users=60, n_items=N_ITEMS, density=0.7, seed=1)
    source = MetaTrainSet(split_dataset(dataset, Protocol(state="user-cold", k_max=8), 0), dataset.scale)
    episodes = source.train_episodes(0, 3, n_users=2, k_shot=4, n_query=5)
    drawn = Tasks.of_episodes(episodes, torch.device("cpu"), torch.float64)
    return drawn.with_support_mask((torch.arange(4) < torch.tensor([[4], [1], [2], [3], [4], [2]])).double())


def plain_query_loss(net, tasks, adapts, rates, steps, prior, first_order):
    """Return the summed squared error of the queries, by autograd on whole tables, one task after the other."""

    def forward(params, item):
        view = TaskView(item, item.double(), item.double(), item.new_zeros(0).double(), item.new_zeros(0).double())
        return functional_call(net, params, (view,))

    shared, total = dict(net.named_parameters()), 0.0
    for task in range(len(tasks)):
        real = tasks.support.mask[task] > 0
        item, rating = tasks.support.item[task][real], tasks.support.rating[task][real]
        fast = dict(shared)
        for _ in range(steps):
            loss = (forward(fast, item) - rating).square().sum() / (len(item) + prior)
            gradients = torch.autograd.grad(loss, [fast[name] for name in adapts], create_graph=not first_order)
            fast |= {n: fast[n] - rates[n] * g for n, g in zip(adapts, gradients, strict=True)}
        total = total + (forward(fast, tasks.query.item[task]) - tasks.query.rating[task]).square().sum()
    return total


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("adapts", list(CHOICES))
def test_meta_gradients_are_those_of_a_plain_loop_for_every_choice_of_what_adapts(tasks, adapts, first_order):
    net, names, prior = Net(), CHOICES[adapts], 1.5
    generator = torch.Generator().manual_seed(1)
    parameters = dict(net.named_parameters())
    rates = {
        name: (0.02 + 0.1 * torch.rand(parameters[name].shape, generator=generator).double()).requires_grad_()
        for name in names
    }
    expected = plain_query_loss(net, tasks, names, rates, 3, prior, first_order)
    leaves = {**parameters, **{f"rate of {name}": rate for name, rate in rates.items()}}
    wanted = torch.autograd.grad(expected, list(leaves.values()), allow_unused=True)

    settings = {"steps": 3, "loss": mean_squared_error(prior), "first_order": first_order}
    loop = InnerLoop(net, adapts=names, tables=["item.weight"], **settings)
    predicted = loop.predict(tasks, loop.adapt(tasks, rates), tasks.query.item)
    found = (predicted - tasks.query.rating).square().sum()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    gradients = torch.autograd.grad(found, list(leaves.values()), allow_unused=True)
    for name, mine, other in zip(leaves, gradients, wanted, strict=True):
        mine, other = (torch.zeros(()) if g is None else g for g in (mine, other))
        torch.testing.assert_close(mine.expand_as(other), other, rtol=0, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


def test_going_on_from_an_earlier_result_is_the_same_as_not_having_stopped(tasks):
    net = Net()
    loops = [InnerLoop(net, adapts=CHOICES["all"], tables=["item.weight"], steps=steps) for steps in (2, 3, 5)]
    halfway = loops[0].adapt(tasks, 0.05)
    on, whole = loops[1].adapt(tasks, 0.05, go_on=halfway), loops[2].adapt(tasks, 0.05)
    for name, value in whole.items():
        torch.testing.assert_close(on[name], value, rtol=0, atol=1e-12)


def test_what_does_not_adapt_has_no_copy_a_task(tasks):
    loop = InnerLoop(Net(), adapts=["user"], tables=["item.weight"], steps=1)
    assert {name: tuple(value.shape) for name, value in loop.adapt(tasks, 0.1).items()} == {"user": (6, 3)}


def test_a_table_may_be_a_buffer_that_is_not_trained(tasks):
    class Content(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("attributes", torch.arange(N_ITEMS * 2, dtype=torch.float64).reshape(N_ITEMS, 2))
            self.weight = nn.Parameter(torch.tensor([0.5, -0.25], dtype=torch.float64))

        def forward(self, view: TaskView) -> torch.Tensor:
            return view.pick(self.attributes) @ self.weight

    net = Content()
    loop = InnerLoop(net, adapts=["weight"], tables=["attributes"], steps=0)
    found = loop.predict(tasks, loop.adapt(tasks, 0.1), tasks.query.item)
    torch.testing.assert_close(found, net.attributes[tasks.query.item] @ net.weight)


@pytest.mark.parametrize("wrong", [{"adapts": ["usr"]}, {"adapts": ["user"], "tables": ["items"]}])
def test_an_unknown_name_is_refused_with_the_known_ones(wrong):
    with pytest.raises(ValueError, match="no parameter or table '(usr|items)'; it has .*item.weight"):
        InnerLoop(Net(), steps=1, **wrong)


@pytest.mark.parametrize("length", [7, 40])
@pytest.mark.parametrize("shape", [(), (3,), (2, 2)])
def test_picking_rows_is_indexing(length, shape):
    table, row = torch.randn(length, *shape, dtype=torch.float64), torch.tensor([3, 0, 3, 6])
    nothing = torch.zeros(0)
    assert torch.equal(TaskView(row, nothing, nothing, nothing, nothing).pick(table), table[row])
    assert TaskView(row, nothing, nothing, nothing, nothing, aligned=True).pick(table) is table


def test_an_item_that_is_rated_twice_adapts_as_one(tasks):
    """Gradients where tasks are not aligned, against a plain loop."""
    net, names = Net(), CHOICES["all"]
    support, rows = tasks.support, torch.tensor([0, 0, 1, 2])
    item = support.item[:, [0, 0, 1, 2]]
    twice = replace(tasks, support=replace(support, item=item), row=rows.expand(6, 4), aligned=False)
    rates = dict.fromkeys(names, 0.05)
    expected = plain_query_loss(net, twice, names, rates, 3, 0.0, False)
    loop = InnerLoop(net, adapts=names, tables=["item.weight"], steps=3)
    found = (loop.predict(twice, loop.adapt(twice, 0.05), twice.query.item) - twice.query.rating).square().sum()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    for one, other in zip(
        *(torch.autograd.grad(loss, list(net.parameters())) for loss in (found, expected)), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
