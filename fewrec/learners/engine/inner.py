"""The inner loop: gradient descent on each task's own copy of what adapts, for all tasks of a batch at once.

A learner's author writes an ordinary ``nn.Module`` that predicts the ratings of *one* task, and where the squared error
won't do a loss of one task; ``InnerLoop`` adapts the module to every task of a batch, and predicts with the copies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from fewrec.learners.engine.tasks import Tasks, table_rows

Params = dict[str, Tensor]


@dataclass(frozen=True)
class TaskView:
    """What a module sees of one task's n ratings.

    ``row`` (n,): the row of each rating's item in the tables, which here hold the task's items alone; ``pick`` takes
    them. ``rating`` and ``mask`` (n,): the mask is 0.0 for padding; both are zeros where ratings are to be predicted.
    ``user`` (f,): the user's attributes. ``inputs`` (n, g): what the learner computed for each rating before the inner
    loop (g may be 0). ``aligned``: rating j's item has row j.
    """

    row: Tensor
    rating: Tensor
    mask: Tensor
    user: Tensor
    inputs: Tensor
    aligned: bool = False

    def pick(self, table: Tensor) -> Tensor:
        """Return ``table[row]`` of the task's local table (L, ...): a row a rating, (n, ...).

        It avoids indexing where it can: under ``vmap``, backwards and twice backwards, nothing at all is fastest, then,
        for a table of few rows, a product with ones and zeros. Indexing is exact in any order here, because each row is
        picked by one rating (or by two).
        """
        if self.aligned:
            return table
        if len(table) > 16:
            return table[self.row]
        chosen = nn.functional.one_hot(self.row, len(table)).to(table.dtype)
        return (chosen @ table.reshape(len(table), -1)).reshape(*self.row.shape, *table.shape[1:])


TaskFunction = Callable[[nn.Module, TaskView], Tensor]


def predict(module: nn.Module, view: TaskView) -> Tensor:
    return module(view)


def mean_squared_error(prior: float = 0.0) -> TaskFunction:
    """Return the loss "sum of squared errors of the support over its size + ``prior``" of one task."""

    def loss(module: nn.Module, view: TaskView) -> Tensor:
        error = (module(view) - view.rating) * view.mask
        return error.square().sum() / (view.mask.sum() + prior).clamp(min=1e-6)

    return loss


class InnerLoop:
    """Adapts a module to tasks by ``steps`` of gradient descent (Finn et al., ICML 2017, algorithm 1, line 6).

    Args:
        module: its parameters (and the buffers in ``tables``) are the initialisation, shared by all tasks.
        adapts: names of the parameters that each task gets a copy of and changes; all others stay as they are.
        tables: names of parameters or buffers with a row for each item. In a task they hold the task's items alone, in
            the order of its local table (or of the items to predict), and gradients flow back into those rows.
        loss: the loss of one task on its support.
        first_order: take the inner gradients for constants, so that no second derivative is needed.

    Everything returned can be differentiated with respect to the module's parameters and the rates. Raises
    ``ValueError`` for names that the module does not have.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        adapts: Iterable[str],
        tables: Iterable[str] = (),
        steps: int,
        loss: TaskFunction | None = None,
        first_order: bool = False,
    ) -> None:
        self.module, self.adapts, self.tables = module, tuple(adapts), tuple(tables)
        self.steps, self.first_order = steps, first_order
        parameters = dict(module.named_parameters())
        known = parameters | dict(module.named_buffers())
        unknown = sorted({*self.adapts} - parameters.keys()) + sorted({*self.tables} - known.keys())
        if unknown:
            raise ValueError(f"the module has no parameter or table '{unknown[0]}'; it has {', '.join(sorted(known))}")
        self._bound = _Bound(module)
        self.loss = loss or mean_squared_error()

    def start(self, tasks: Tasks) -> tuple[Params, Params]:
        """Return (what adapts, the other tables), each (T, ...): copies of the initialisation for every task."""
        adapted: Params = {}
        given: Params = {}
        for name in dict.fromkeys(self.adapts + self.tables):
            value = self._value(name)
            local = table_rows(value, tasks.items) if name in self.tables else value.expand(len(tasks), *value.shape)
            (adapted if name in self.adapts else given)[name] = local
        return adapted, given

    def adapt(
        self,
        tasks: Tasks,
        rate: float | Mapping[str, Tensor | float],
        inputs: Tensor | None = None,
        go_on: Params | None = None,
    ) -> Params:
        """Return each task's own parameters after the inner loop, (T, ...) by name.

        ``rate`` is one learning rate, or one for each name: a number, or a tensor of the parameter's shape (which may
        be learnt: Li et al., Meta-SGD, 2017). ``inputs`` (T, K, g) become the views' inputs. ``go_on``: where the tasks
        start instead of the initialisation, say an earlier result.
        """
        start, given = self.start(tasks)
        adapted = start if go_on is None else go_on
        rates = self._rates(rate, tasks)
        view = _Views.of(tasks, tasks.row, tasks.support.rating, tasks.support.mask, inputs, tasks.aligned)
        second_order = torch.is_grad_enabled() and not self.first_order
        if not second_order:
            given = {name: value.detach() for name, value in given.items()}
        for _ in range(self.steps):
            with torch.enable_grad():
                at = {
                    name: value if second_order and value.requires_grad else value.detach().requires_grad_()
                    for name, value in adapted.items()
                }
                # Tasks don't mix: of this sum each task's own parameters enter one term.
                total = self._call(self.loss, at, given, view).sum()
                found = torch.autograd.grad(
                    total, list(at.values()), create_graph=second_order, materialize_grads=True
                )
            gradients = dict(zip(at, found, strict=True))
            adapted = {name: value - rates[name] * gradients[name] for name, value in adapted.items()}
        return adapted

    def predict(self, tasks: Tasks, adapted: Params, items: Tensor, inputs: Tensor | None = None) -> Tensor:
        """Return the module's predictions (T, n) for catalog items (T, n), by each task's adapted parameters.

        An item of the support has its adapted rows, any other the shared ones.
        """
        own, given = {n: v for n, v in adapted.items() if n not in self.tables}, {}
        row, known = tasks.local_rows(items) if set(self.tables) & set(adapted) else (items, items)
        for name in self.tables:
            shared = table_rows(self._value(name), items)
            if name in adapted and adapted[name].shape[1]:
                extra = (1,) * (shared.dim() - 2)
                at = row.reshape(*row.shape, *extra).expand_as(shared)
                shared = torch.where(known.reshape(*known.shape, *extra), adapted[name].gather(1, at), shared)
            given[name] = shared
        nothing = torch.zeros(items.shape, dtype=tasks.support.rating.dtype, device=items.device)
        each = torch.arange(items.shape[1], device=items.device).expand(items.shape)
        return self._call(predict, own, given, _Views.of(tasks, each, nothing, nothing, inputs, aligned=True))

    def _call(self, function: TaskFunction, own: Params, given: Params, views: _Views) -> Tensor:
        names = [f"module.{name}" for name in (*own, *given)]

        def one(values: tuple[Tensor, ...], view: tuple[Tensor, ...]) -> Tensor:
            row, rating, mask, user, inputs = view
            seen = TaskView(row, rating, mask, user, inputs, views.aligned)
            return functional_call(self._bound, dict(zip(names, values, strict=True)), (function, seen))

        return vmap(one, randomness="error")((*own.values(), *given.values()), views.columns)

    def _value(self, name: str) -> Tensor:
        owner, _, leaf = name.rpartition(".")
        return getattr(self.module.get_submodule(owner), leaf)

    def _rates(self, rate: float | Mapping[str, Tensor | float], tasks: Tasks) -> dict[str, Tensor | float]:
        if not isinstance(rate, Mapping):
            return dict.fromkeys(self.adapts, rate)
        rates = {name: rate[name] for name in self.adapts}
        for name, value in rates.items():
            if name in self.tables and isinstance(value, Tensor) and value.shape == self._value(name).shape:
                rates[name] = table_rows(value, tasks.items)
        return rates


class _Bound(nn.Module):
    """Calls a function of a module, so that ``functional_call`` can give the module other parameters meanwhile."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, function: TaskFunction, view: TaskView) -> Tensor:
        return function(self.module, view)


@dataclass(frozen=True)
class _Views:
    """The views of T tasks: what ``TaskView`` has, in its order, with a task axis in front."""

    columns: tuple[Tensor, ...]
    aligned: bool

    @classmethod
    def of(
        cls, tasks: Tasks, row: Tensor, rating: Tensor, mask: Tensor, inputs: Tensor | None, aligned: bool
    ) -> _Views:
        inputs = rating.new_zeros(*rating.shape, 0) if inputs is None else inputs
        return cls((row, rating, mask, tasks.user, inputs), aligned)
