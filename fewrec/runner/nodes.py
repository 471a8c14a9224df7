"""Which node a timing comes from: a name in order of appearance and what kind of machine it is, never a host's name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

KIND = ("processor", "device", "threads", "workers")
"""What makes two nodes alike: timings of unlike ones have no place in one column of a table."""


class Nodes:
    """The nodes of a results folder. A node that is new to this run takes the name of a like one of earlier runs."""

    def __init__(self, known: Iterable[Mapping[str, Any]] = ()) -> None:
        self.known: list[dict[str, Any]] = [dict(node) for node in known]
        self._named: dict[tuple, dict[str, Any]] = {}

    def named(self, identity: str, kind: Mapping[str, Any]) -> dict[str, Any]:
        """Return name and kind of the node ``identity``, whatever tells the nodes of this run apart.

        ``kind`` has ``KIND``: processor, device, threads a worker, and the workers that run on it at the same time.
        """
        key = (identity, *(kind[name] for name in KIND))  # a node runs some learners on its GPU and others beside it
        if key not in self._named:
            taken = [node["name"] for node in self._named.values()]
            like = (node for node in self.known if alike(node, kind) and node["name"] not in taken)
            node = next(like, None)
            if node is None:
                node = {"name": f"node-{len(self.known) + 1}", **{name: kind[name] for name in KIND}}
                self.known.append(node)
            self._named[key] = node
        return self._named[key]


def alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Say whether two nodes are of one kind."""
    return all(one.get(name) == other.get(name) for name in KIND)
