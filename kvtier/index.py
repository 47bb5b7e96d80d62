"""Where every block is, who its parent is, and who holds a lease on it.

The index is a forest: a node for each block that is held somewhere or on its way, linked to
its parent's node. It answers one question, ``match``: how long a leading run of a chain is
readable now, and from which tier each block comes. Asking changes nothing.

A node is in one of four states:

    readable   some tier bit is set
    arriving   no bit yet, a move that will set one is in flight     -> a miss
    leaving    its last bit was taken by a move in flight            -> a miss
    dead       given up; stays listed until its last move is over    -> a miss, and its
               name may not be planned again before, or that late move would hit the new block
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from kvtier.hashing import BlockHash, Label


class Node:
    """One block's place in the forest."""

    __slots__ = ("children", "dead", "doomed", "key", "label", "leases", "moves", "parent", "tiers")

    def __init__(self, key: BlockHash, label: Label, parent: Node | None) -> None:
        self.key = key
        self.label = label
        self.parent = parent
        self.children: set[Node] = set()
        self.tiers = 0
        """Bit t is set while tier t can serve the block."""
        self.doomed = 0
        """Bit t is set while tier t holds bytes to be deleted once ``moves`` is 0."""
        self.moves = 0
        """Moves in flight that concern this block."""
        self.leases = 0
        self.dead = False

    @property
    def fastest(self) -> int:
        """The first tier that can serve the block; the caller knows there is one."""
        return (self.tiers & -self.tiers).bit_length() - 1

    def subtree(self) -> Iterator[Node]:
        """This node and all its descendants, parents first."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.children)


@dataclass(frozen=True, slots=True)
class Match:
    """The leading run of a chain that can be read now. A snapshot: lease it to make it last."""

    keys: Sequence[BlockHash]
    """Names of the run, in prefix order."""

    tiers: Sequence[int]
    """The fastest tier of each block, as an index into the store's tiers."""

    stopped_by: str | None
    """Why the run ends: ``None`` if the whole chain is readable, ``"not_held"`` (never seen or
    evicted), ``"in_flight"`` (arriving or leaving)."""

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(slots=True, eq=False)
class Lease:
    """A promise that blocks stay readable until released or expired.

    Only damage breaks it: a block that turns out unreadable is gone, lease or not.
    """

    nodes: list[Node] = field(repr=False)
    owner: str
    """Who to name when the lease is never released."""

    deadline: float
    """When it lapses, on the clock of whoever calls ``PrefixIndex.expire``."""

    released: bool = False

    @property
    def keys(self) -> list[BlockHash]:
        """Names of the blocks held, in prefix order."""
        return [node.key for node in self.nodes]


class PrefixIndex:
    """All nodes by name, and the leases on them. Not thread safe."""

    def __init__(self) -> None:
        self.nodes: dict[BlockHash, Node] = {}
        self.leases: set[Lease] = set()

    def match(self, keys: Sequence[BlockHash]) -> Match:
        """The leading run of ``keys`` that some tier can serve. Changes nothing."""
        tiers: list[int] = []
        stopped_by = None
        for key in keys:
            node = self.nodes.get(key)
            if node is None or node.dead:
                stopped_by = "not_held"
                break
            if not node.tiers:
                stopped_by = "in_flight"
                break
            tiers.append(node.fastest)
        return Match(keys[: len(tiers)], tiers, stopped_by)

    def add(self, key: BlockHash, label: Label) -> Node:
        """A new node under its parent's, which must be alive unless the block is a first one."""
        parent = None
        if label.depth:
            parent = self.nodes[label.parent]
            assert not parent.dead
        node = self.nodes[key] = Node(key, label, parent)
        if parent is not None:
            parent.children.add(node)
        return node

    def detach(self, node: Node) -> None:
        """Give a node up: a miss from now on, and no longer anybody's child."""
        node.dead = True
        if node.parent is not None:
            node.parent.children.discard(node)
            node.parent = None
        self.sweep_out(node)

    def sweep_out(self, node: Node) -> None:
        """Remove a dead node from the list once nothing in flight refers to it."""
        if node.dead and node.moves == 0 and self.nodes.get(node.key) is node:
            del self.nodes[node.key]

    def lease(self, keys: Sequence[BlockHash], owner: str, deadline: float) -> Lease:
        """Hold the readable leading run of ``keys``."""
        held = self.match(keys)
        lease = Lease([self.nodes[key] for key in held.keys], owner, deadline)
        for node in lease.nodes:
            node.leases += 1
        self.leases.add(lease)
        return lease

    def release(self, lease: Lease) -> None:
        """End a lease; a second release does nothing."""
        if lease.released:
            return
        lease.released = True
        self.leases.discard(lease)
        for node in lease.nodes:
            node.leases -= 1

    def expire(self, now: float) -> list[Lease]:
        """Release every lease whose deadline has passed, and name them."""
        late = [lease for lease in self.leases if lease.deadline <= now]
        for lease in late:
            self.release(lease)
        return late

    def alive(self) -> Iterable[Node]:
        """Every node that has not been given up."""
        return (node for node in self.nodes.values() if not node.dead)
