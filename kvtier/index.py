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

Blocks that a restart found and nobody has used since have no node yet (``kvtier.resting``). They
are readable; whoever asks for the node of one, by ``get`` or by ``[]``, makes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from kvtier.hashing import BlockHash, Label
from kvtier.resting import Resting


class Node:
    """One block's place in the forest."""

    __slots__ = (
        "above",
        "asleep",
        "below",
        "changing",
        "dead",
        "depth",
        "doomed",
        "key",
        "leases",
        "moves",
        "parent",
        "tiers",
        "tokens",
    )

    def __init__(self, key: BlockHash, label: Label, parent: Node | None) -> None:
        self.key = key
        self.above = label.parent if parent is None else parent.key  # one object for both
        """Name of the block before it, or the namespace's root."""
        self.depth = label.depth
        self.tokens = label.tokens
        self.parent = parent
        self.below: Node | dict[Node, None] | None = None
        """Its children. A dict, for its order, only of several: it takes more memory than all the rest, and
        most have one."""
        self.asleep = 0
        """Children that are not nodes yet; see ``kvtier.resting``."""
        self.tiers = 0
        """Bit t is set while tier t can serve the block."""
        self.doomed = 0
        """Bit t is set while tier t holds bytes to be deleted once ``moves`` is 0."""
        self.moves = 0
        """Moves in flight that concern this block."""
        self.changing = 0
        """Bit t is set while a move brings the block to tier t or takes it away."""
        self.leases = 0
        self.dead = False

    @property
    def label(self) -> Label:
        """What the block's name was made from."""
        return Label(self.above, self.depth, self.tokens)

    @property
    def fastest(self) -> int:
        """The first tier that can serve the block; -1 if none can."""
        return (self.tiers & -self.tiers).bit_length() - 1

    @property
    def children(self) -> list[Node]:
        """The blocks that come after this one and are nodes, in the order in which they came."""
        if isinstance(self.below, Node):
            return [self.below]
        return list(self.below or ())

    @property
    def num_children(self) -> int:
        """Blocks that come after this one."""
        several = self.below
        return self.asleep + (len(several) if isinstance(several, dict) else several is not None)

    @property
    def is_leaf(self) -> bool:
        """No block comes after this one."""
        return not (self.below or self.asleep)

    def adopt(self, child: Node) -> None:
        """Another block comes after this one."""
        if self.below is None:
            self.below = child
        elif isinstance(self.below, Node):
            self.below = {self.below: None, child: None}
        else:
            self.below[child] = None

    def disown(self, child: Node) -> None:
        """A block that came after this one is given up."""
        if isinstance(self.below, dict):
            del self.below[child]
        else:
            self.below = None


@dataclass(frozen=True, slots=True)
class Match:
    """The leading run of a chain that can be read now. A snapshot: lease it to make it last."""

    keys: Sequence[BlockHash]
    """Names of the run, in prefix order."""

    tiers: Sequence[int]
    """The fastest tier of each block, as an index into the store's tiers."""

    stopped_by: str | None
    """Why the run ends: ``None`` if the whole chain is readable, ``"not_held"`` (never seen or
    evicted), ``"in_flight"`` (arriving or leaving), ``"unavailable"`` (held where nothing can be read)."""

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
    """All blocks by name, and the leases on them. Not thread safe."""

    def __init__(self) -> None:
        self.nodes: dict[BlockHash, Node] = {}
        """Blocks that are awake: all but those restored and not used since."""
        self.resting: Resting | None = None
        self.leases: set[Lease] = set()
        self.readable = -1
        """Bit t is set while tier t can be read."""
        self.on_leaf: Callable[[Node], None] | None = None
        """Told of each block that has become a leaf because another was given up."""

    def get(self, key: BlockHash) -> Node | None:
        """A block's node, None if there is none; wakes a block that is asleep."""
        node = self.nodes.get(key)
        if node is None and self.resting is not None and (row := self.resting.find(key)) >= 0:
            return self._wake(row)
        return node

    def __getitem__(self, key: BlockHash) -> Node:
        node = self.get(key)
        if node is None:
            raise KeyError(key)
        return node

    def match(self, keys: Sequence[BlockHash]) -> Match:
        """The leading run of ``keys`` that some tier can serve. Changes nothing."""
        tiers: list[int] = []
        stopped_by = None
        resting, readable = self.resting, self.readable
        for key, node in zip(keys, map(self.nodes.get, keys), strict=True):
            if node is not None and not node.dead:
                held = node.tiers
            elif node is None and resting is not None and resting.find(key) >= 0:
                held = 1 << resting.tier
            else:
                stopped_by = "not_held"
                break
            there = held & readable
            if not there:
                stopped_by = "unavailable" if held else "in_flight"
                break
            tiers.append(0 if there & 1 else (there & -there).bit_length() - 1)
        return Match(keys[: len(tiers)], tiers, stopped_by)

    def add(self, key: BlockHash, label: Label) -> Node:
        """A new node under its parent's, which must be alive unless the block is a first one."""
        return self.extend([key], [label])

    def extend(self, keys: Sequence[BlockHash], labels: Sequence[Label], arriving_in: int = 0) -> Node:
        """New nodes for a run of a chain, the first as by ``add``, each of the others under the one before it.

        Args:
            keys: Names, at least one.
            labels: What they were made from.
            arriving_in: Bit t is set if a move that brings all of them to tier t is ordered.

        Returns:
            The last one.
        """
        parent = self[labels[0].parent] if labels[0].depth else None
        assert parent is None or not parent.dead
        nodes = self.nodes
        for key, label in zip(keys, labels, strict=True):
            node = nodes[key] = Node(key, label, parent)
            if arriving_in:
                node.moves, node.changing = 1, arriving_in
            if parent is not None:
                if parent.below is None:  # adopt, written out: nearly all are the only child
                    parent.below = node
                else:
                    parent.adopt(node)
            parent = node
        return node

    def rest(self, resting: Resting) -> None:
        """Take up the blocks of one tier without making nodes; only while there is nothing else."""
        assert not self.nodes
        assert self.resting is None
        self.resting = resting

    def detach(self, node: Node) -> None:
        """Give a node up: a miss from now on, and no longer anybody's child."""
        node.dead = True
        parent = node.parent
        if parent is not None:
            if parent.below is node:  # disown, written out: nearly all are the only child
                parent.below = None
            else:
                parent.disown(node)
            node.parent = None
            if self.on_leaf is not None and parent.is_leaf:
                self.on_leaf(parent)
        if not node.moves:
            self.sweep_out(node)

    def sweep_out(self, node: Node) -> None:
        """Remove a node from the list if it is dead; nothing in flight refers to it."""
        if node.dead and self.nodes.get(node.key) is node:
            del self.nodes[node.key]

    def subtree(self, node: Node) -> Iterator[Node]:
        """A node and all its descendants, parents first; wakes them."""
        stack = [node]
        while stack:
            node = stack.pop()
            yield node
            if node.asleep and self.resting is not None:
                for row in self.resting.children(node.key):
                    self._wake(row)
            stack.extend(node.children)

    def lease(self, keys: Sequence[BlockHash], owner: str, deadline: float) -> Lease:
        """Hold the readable leading run of ``keys``."""
        held = self.match(keys)
        lease = Lease([self[key] for key in held.keys], owner, deadline)
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

    def alive(self, *, besides: int | None = None) -> Iterable[Node]:
        """Every node that has not been given up; wakes all blocks.

        Args:
            besides: Leave asleep, and out, the blocks that this tier holds and no other does.
        """
        resting = self.resting
        if resting is not None and resting.tier != besides:
            for row in resting.rows():
                if row in resting:  # not woken as the ancestor of one before
                    self._wake(row)
        return self.awake()

    def awake(self) -> Iterable[Node]:
        """Every node there is now that has not been given up."""
        return (node for node in self.nodes.values() if not node.dead)

    def num_resting(self, tier: int) -> int:
        """Blocks of a tier that are asleep."""
        return len(self.resting) if self.resting is not None and self.resting.tier == tier else 0

    def check(self) -> None:
        """Raise AssertionError if what is asleep does not fit to what is awake. O(blocks)."""
        resting, asleep = self.resting, Counter[BlockHash]()
        for row in [] if resting is None else resting.rows():
            assert resting is not None
            parent = resting.parent(row)
            if parent is not None:
                asleep[parent] += 1
                node = self.nodes.get(parent)
                assert resting.find(parent) >= 0 if node is None else not node.dead, "asleep under nobody"
        for node in self.nodes.values():
            assert node.asleep == asleep[node.key], "children asleep are miscounted"

    def _wake(self, row: int) -> Node:
        """Make the node of a block that is asleep, after those of its ancestors."""
        resting = self.resting
        assert resting is not None
        for each in resting.path(row):
            key, label, num_children = resting.wake(each)
            node = self.add(key, label)
            node.tiers = 1 << resting.tier
            node.asleep = num_children
            if node.parent is not None:
                node.parent.asleep -= 1
        if not resting:
            self.resting = None  # its memory goes with the last block
        return node
