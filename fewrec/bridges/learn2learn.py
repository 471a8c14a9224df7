"""The bridge to learn2learn: episodes as its tasks, (data, labels) pairs of tensors, and its tasks as episodes.

    tasks = tasks_of(source.train_episodes(0, 100, n_users=5, k_shot=5, n_query=10))  # one a user: len, [i], sample()
    data, labels = tasks.sample()           # data (15, 2): user and item code; labels (15,): ratings, the support first
    (x, y), (query_x, query_y) = split_task(data, labels, shots=5)         # then learn2learn: clone, adapt, evaluate
    episodes = episodes_of(taskset, shots=5)      # a TaskDataset, or any tasks with data (n, 2) or item codes (n,)
    predictor = learner.adapt_batch(episodes.support, ctx)                 # any learner of fewrec adapts to them
"""

from __future__ import annotations

import contextlib
import io
import random
import warnings
from collections.abc import Iterable, Iterator, Sequence
from types import ModuleType

import torch
from torch import Tensor

from fewrec.episodes.support import Answers, Episodes, QueryBatch, Support, SupportBatch
from fewrec.errors import DataError, NotApplicable

Task = tuple[Tensor, Tensor]


def import_learn2learn() -> ModuleType:
    """Return the package; raises ``NotApplicable`` with one line on how to install it where it can't be imported."""
    try:
        # Importing it brings in gym and torchvision, which print advice that is none of the user's concern.
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            import learn2learn
    except Exception as error:  # torchvision fails in ways of its own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise NotApplicable(
            f"learn2learn can't be imported ({reason}); `sh scripts/learn2learn.sh` in fewrec's repository installs it "
            "(pip alone can't build it on Python >= 3.11)"
        ) from None
    return learn2learn


class EpisodeTasks(Sequence[Task]):
    """Tasks with the interface of learn2learn's ``TaskDataset``: one (data, labels) a user, episode after episode.

    ``data`` (n, 2) int64: the user's code in the rating table and the item's in the catalog; ``labels`` (n,): ratings.
    The first ``shots[i]`` rows of task i are for adaptation, the others for evaluation. ``sample`` draws a task by
    Python's ``random``, as learn2learn does.
    """

    def __init__(self, tasks: Sequence[Task], shots: Tensor) -> None:
        self._tasks, self.shots = tasks, shots

    def __len__(self) -> int:
        return len(self._tasks)

    def __getitem__(self, i):
        return EpisodeTasks(self._tasks[i], self.shots[i]) if isinstance(i, slice) else self._tasks[i]

    def __iter__(self) -> Iterator[Task]:
        return iter(self._tasks)

    def sample(self) -> Task:
        return self._tasks[random.randrange(len(self))]


def tasks_of(episodes: Episodes, dtype: torch.dtype = torch.float32) -> EpisodeTasks:
    """Return the episodes' users as learn2learn tasks, with labels of type ``dtype``.

    Times, users' attributes and what is known of meta-train users have no place in such a task and are left out.
    """
    support, query, answers = episodes.support, episodes.query, episodes.answers
    user = torch.cat([support.flat_user(), support.flat_user(query.episode, query.user)])
    order = user.argsort(stable=True)  # within a user the support stays before the query
    data = torch.stack([answers.table_user[user], torch.cat([support.item, query.item])], 1)[order]
    labels = torch.cat([support.rating, answers.rating]).to(dtype)[order]
    sizes = torch.bincount(user, minlength=support.total_users).tolist()
    tasks = list(zip(data.split(sizes), labels.split(sizes), strict=True))
    return EpisodeTasks(tasks, torch.bincount(support.flat_user(), minlength=support.total_users))


def split_task(data: Tensor, labels: Tensor, shots: int) -> tuple[Task, Task]:
    """Return the (data, labels) to adapt to, the first ``shots`` rows, and those to evaluate on, the others."""
    return (data[:shots], labels[:shots]), (data[shots:], labels[shots:])


def episodes_of(
    tasks: Iterable[Task], shots: int | Sequence[int] | Tensor, *, per_episode: int = 1, seed: int = 0
) -> Episodes:
    """Return learn2learn's tasks as episodes, whose users are new to a learner and have no attributes.

    Of a task's ``data`` (n, 2) the columns are user and item code, and every user's first ``shots`` rows become the
    support, the others the query; ``data`` (n,) is item codes of one user, who is given the task's number for a code.
    ``labels`` (n,) are ratings on the scale of the learner's data set. ``shots`` may differ by task. ``per_episode``
    tasks make up one episode (the last may have fewer); episode e gets the seed ``seed`` + e. Raises ``DataError`` for
    tasks of another form.
    """
    listed = list(tasks)
    if not listed:
        raise DataError("episodes_of: there are no tasks")
    given = [shots] * len(listed) if isinstance(shots, int) else [int(k) for k in shots]
    if len(given) != len(listed):
        raise DataError(f"episodes_of: {len(given)} numbers of shots for {len(listed)} tasks")
    rows = [_rows(number, *task) for number, task in enumerate(listed)]
    supports: list[Support] = []
    queries, asked, codes = [], [], []
    for first in range(0, len(listed), per_episode):
        parts = range(first, min(first + per_episode, len(listed)))
        local, item, rating, is_support, users = _joined([(rows[i], given[i]) for i in parts])
        e, new, asks = len(supports), torch.full((len(users),), -1), ~is_support
        own = local[is_support], item[is_support], rating[is_support]
        supports.append(Support(len(users), *own, timestamp=None, meta_user=new, seed=seed + e))
        queries.append((torch.full_like(local[asks], e), local[asks], item[asks]))
        asked.append(rating[asks])
        codes.append(users)
    query = QueryBatch(*(torch.cat(column) for column in zip(*queries, strict=True)))
    return Episodes(SupportBatch.of(supports), query, Answers(torch.cat(asked), torch.cat(codes)))


def _rows(number: int, data: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return one task's (user code, item code, rating), each (n,)."""
    data, labels = torch.as_tensor(data), torch.as_tensor(labels)
    fits = data.dim() == 1 or (data.dim() == 2 and data.shape[1] == 2)
    if not fits or labels.shape != data.shape[:1]:
        raise DataError(
            f"episodes_of: task {number} has data {tuple(data.shape)} and labels {tuple(labels.shape)}; "
            "wanted are data (n, 2), of user and item code, or item codes (n,), and labels (n,)"
        )
    if not torch.equal(data.long().to(data.dtype), data) or (data < 0).any():
        raise DataError(f"episodes_of: task {number} has codes that are not whole numbers from 0 on")
    columns = data.long().cpu()
    user, item = columns.T if data.dim() == 2 else (torch.full_like(columns, number), columns)
    return user, item, labels.detach().to("cpu", torch.float64)


def _joined(parts: list[tuple[tuple[Tensor, Tensor, Tensor], int]]) -> tuple[Tensor, ...]:
    """Return one episode's (local user, item, rating, in the support?), user after user, and its users' codes."""
    users: list[int] = []
    local, item, rating, is_support = [], [], [], []
    for (codes, items, ratings), shots in parts:
        for code in dict.fromkeys(codes.tolist()):  # in the order of their first rows
            mine = codes == code
            local.append(torch.full((int(mine.sum()),), len(users)))
            item.append(items[mine])
            rating.append(ratings[mine])
            is_support.append(torch.arange(len(local[-1])) < shots)
            users.append(code)
    empty = torch.zeros(0, dtype=torch.int64)
    joined = (torch.cat(column) if column else empty for column in (local, item, rating, is_support))
    return (*joined, torch.tensor(users, dtype=torch.int64))
