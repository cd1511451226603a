"""Nodes that would take a task now, best first, without ever looking at all of them."""

from bisect import insort
from typing import TYPE_CHECKING

from fallow.model.ids import NodeId

if TYPE_CHECKING:
    from fallow.scheduler.node_state import NodeState


class HungryNodes:
    """Nodes in buckets by rank, highest rank first, first come first served within one.

    The number of ranks is small (a handful of speeds, with or without a free slot), so every operation is cheap.
    """

    __slots__ = ("_buckets", "_order", "_ranks")

    def __init__(self) -> None:
        self._buckets: dict[int, dict[NodeId, NodeState]] = {}
        self._order: list[int] = []
        self._ranks: dict[NodeId, int] = {}

    def __len__(self) -> int:
        return len(self._ranks)

    def put(self, node: "NodeState", rank: int) -> None:
        """Add the node, or move it to another rank; within the same rank it keeps its place."""
        old = self._ranks.get(node.id)
        if old == rank:
            return
        if old is not None:
            del self._buckets[old][node.id]
        bucket = self._buckets.get(rank)
        if bucket is None:
            bucket = self._buckets[rank] = {}
            insort(self._order, -rank)
        bucket[node.id] = node
        self._ranks[node.id] = rank

    def remove(self, node: "NodeState") -> None:
        """Take the node out, if it is in."""
        rank = self._ranks.pop(node.id, None)
        if rank is not None:
            del self._buckets[rank][node.id]

    def rank(self, node: "NodeState") -> int | None:
        return self._ranks.get(node.id)

    def first(self) -> "NodeState | None":
        """Return the best node."""
        for negative in self._order:
            for node in self._buckets[-negative].values():
                return node
        return None

    def best(self, limit: int, least_rank: int) -> "list[NodeState]":
        """Return up to `limit` nodes of at least this rank, best first."""
        found: list[NodeState] = []
        for negative in self._order:
            if -negative < least_rank or len(found) >= limit:
                break
            for node in self._buckets[-negative].values():
                found.append(node)
                if len(found) >= limit:
                    break
        return found
