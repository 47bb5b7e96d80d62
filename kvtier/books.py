"""What a placement's parts write to: places taken, tiers' rules, and blocks given up.

Part of ``kvtier.placement``, which says the rules; like it without I/O, clock or torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from kvtier.hashing import BlockHash, Label
from kvtier.index import Node, PrefixIndex
from kvtier.policy.base import Admission, Arranging, EvictionPolicy, Reconsidering


class Move(NamedTuple):
    """One copy to make. ``src`` is None for a new block, ``dst`` is None for a drop."""

    key: BlockHash
    src: int | None
    dst: int | None
    keep: bool = False
    """The source keeps its copy."""


make_move: Callable[[tuple[BlockHash, int | None, int | None, bool]], Move] = partial(tuple.__new__, Move)
"""A move from all of its fields, at half the cost of its constructor: a replay makes half a million."""


@dataclass(slots=True)
class TierRules:
    """What placement knows of a tier."""

    capacity_blocks: int
    """Blocks the tier may hold, arrivals and leavers included."""

    policy: EvictionPolicy
    """Orders this tier's blocks; used by nothing else."""

    durable: bool = False
    """A promotion leaves the copy here, since writing it again costs more than keeping it."""

    takes: bool = True
    """The tier can be written to at present. One that cannot is no place for a victim."""

    admission: Admission | None = None
    """What is worth writing to the tier; everything if None."""


class Strangers:
    """Blocks that another process brought to a tier and whose parent is not held here.

    Args:
        num_tiers: Tiers there are.
    """

    def __init__(self, num_tiers: int) -> None:
        self._labels: list[dict[BlockHash, Label]] = [{} for _ in range(num_tiers)]
        self._children: dict[BlockHash, dict[tuple[int, BlockHash], None]] = {}

    def __bool__(self) -> bool:
        return bool(self._children)

    def of(self, tier: int) -> Mapping[BlockHash, Label]:
        """The strangers of one tier, oldest first."""
        return self._labels[tier]

    def children(self, parent: BlockHash) -> list[tuple[int, BlockHash]]:
        """Those that wait for a parent: tier and name of each."""
        return list(self._children.get(parent, ()))

    def add(self, tier: int, key: BlockHash, label: Label) -> None:
        """Another one."""
        self._labels[tier][key] = label
        self._children.setdefault(label.parent, {})[tier, key] = None

    def pop(self, tier: int, key: BlockHash) -> Label | None:
        """One is a stranger no more, or gone; None if it was none."""
        label = self._labels[tier].pop(key, None)
        if label is not None:
            siblings = self._children[label.parent]
            del siblings[tier, key]
            if not siblings:
                del self._children[label.parent]
        return label


class Books:
    """Places, rules and the index of one placement.

    Args:
        tiers: Fastest first.
        index: Of the placement, empty.
    """

    def __init__(self, tiers: Sequence[TierRules], index: PrefixIndex) -> None:
        self.rules = list(tiers)
        self.arranging = [rules.policy if isinstance(rules.policy, Arranging) else None for rules in tiers]
        self.used = [0] * len(self.rules)
        """Places taken, by tier: blocks held, arriving and leaving, and strangers."""
        self.index = index
        only = tiers[0].policy if len(tiers) == 1 else None
        if isinstance(only, Reconsidering):  # asked once: to look for a protocol's methods takes longer than they do
            index.on_leaf = partial(_reconsider, only.reconsider)
        self.strangers = Strangers(len(self.rules))

    def parent_alive(self, label: Label) -> bool:
        """Whether a block may hang where its label says."""
        parent = self.index.get(label.parent)
        return label.depth == 0 or (parent is not None and not parent.dead and parent.depth < label.depth)

    def drop(self, node: Node, tier: int) -> Move:
        """Order a victim out; without another copy it is given up now, since its parent may be next."""
        bit = 1 << tier
        node.tiers &= ~bit
        node.moves += 1
        node.changing |= bit
        if not node.tiers:
            self.index.detach(node)
        return make_move((node.key, tier, None, False))

    @property
    def asks_again(self) -> bool:
        """Whether a block refused for its children is asked about again as soon as they are gone, and not before."""
        return self.index.on_leaf is not None

    def come_down(self, node: Node) -> None:
        """A block falls back on a copy further down, which is then as young as one that sinks there now.

        Else it would come to leave long before those of its descendants that do sink, and be asked about in vain.
        """
        policy = self.arranging[node.fastest]
        if policy is not None:
            policy.arrange([node.key])

    def begin(self, node: Node, tiers: int) -> None:
        """A move is ordered that changes what tiers hold of a block; bit t stands for tier t."""
        node.moves += 1
        node.changing |= tiers

    def end(self, node: Node) -> None:
        """A move of a block has ended."""
        node.moves -= 1
        if not node.moves:
            node.changing = 0

    def is_changing(self, node: Node, tier: int) -> bool:
        """Whether a block is on its way into a tier or out of it, or waits for the latter."""
        return bool((node.changing | node.doomed) >> tier & 1)

    def drop_stranger(self, tier: int) -> Move | None:
        """Order the oldest stranger out of a tier, if there is one that nothing else concerns."""
        for key, label in self.strangers.of(tier).items():
            node = self.index.nodes.get(key)
            if node is None or not node.moves:
                self.strangers.pop(tier, key)
                return next(move for move in self.turn_away(key, label, tier) if move.src == tier)
        return None

    def turn_away(self, key: BlockHash, label: Label, tier: int) -> list[Move]:
        """Drops for a block that a tier holds and that has no place in the forest."""
        node = self.index.nodes.get(key)
        if node is None:
            node = self.index.nodes[key] = Node(key, label, None)
            node.dead = True
        node.doomed |= 1 << tier
        return self.settle(node)

    def leave(self, node: Node, tier: int) -> None:
        """A block's bytes are gone from a tier, which stopped serving it when the move was planned."""
        self.used[tier] -= 1
        node.doomed &= ~(1 << tier)

    def doom(self, node: Node, tier: int) -> None:
        """Stop serving a block from a tier; its bytes are dropped once nothing is in flight."""
        node.tiers &= ~(1 << tier)
        node.doomed |= 1 << tier
        self.rules[tier].policy.remove([node.key])

    def estrange(self, node: Node, tier: int) -> None:
        """Stop serving a block from a tier that others use too; its bytes stay there."""
        node.tiers &= ~(1 << tier)
        self.rules[tier].policy.remove([node.key])
        self.strangers.add(tier, node.key, node.label)

    def kill(self, node: Node, *, spare: int | None = None) -> list[Move]:
        """Give up a block that cannot be read any more, with all its descendants.

        Args:
            node: The block.
            spare: A tier whose copies of descendants stay, for others who may still use them.
        """
        follow: list[Move] = []
        family = list(self.index.subtree(node))
        for lost in family:
            for tier in range(len(self.rules)):
                if lost.tiers >> tier & 1:
                    if tier == spare:
                        self.estrange(lost, tier)
                    else:
                        self.doom(lost, tier)
            lost.dead = True
            follow += self.settle(lost)
        self.index.detach(node)
        for lost in family:  # or they keep each other until the garbage collector comes by
            lost.parent = lost.below = None
        return follow

    def resolve(self, node: Node, *, spare: int | None = None) -> list[Move]:
        """After a change: a block that nothing holds and nothing brings takes its descendants along."""
        if node.tiers or node.moves or node.dead:
            return self.settle(node)
        return self.kill(node, spare=spare)

    def settle(self, node: Node) -> list[Move]:
        """Once nothing is in flight: order the drop of doomed copies, or let a dead node go."""
        if node.moves:
            return []
        if not node.doomed:
            self.index.sweep_out(node)
            return []
        drops = [Move(node.key, tier, None) for tier in range(len(self.rules)) if node.doomed >> tier & 1]
        for drop in drops:
            assert drop.src is not None
            self.begin(node, 1 << drop.src)
        return drops


def _reconsider(reconsider: Callable[[BlockHash], None], node: Node) -> None:
    """Nothing hangs on a block any more."""
    reconsider(node.key)
