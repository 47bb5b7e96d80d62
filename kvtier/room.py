"""Making room for a plan: who leaves which tier, one pass over each policy.

Part of ``kvtier.placement``, which says the rules; like it without I/O, clock or torch.
"""

from __future__ import annotations

from collections.abc import Collection, Generator
from contextlib import ExitStack, closing
from functools import partial
from typing import Self

from kvtier.books import Books, Move
from kvtier.hashing import BlockHash
from kvtier.index import Node


class Sweep:
    """Making room during one plan: one pass over each tier's policy, victims worst first.

    Args:
        books: Whose tiers.
        protected: Names that are not dropped for the plan.
        may_sink: Those may still leave a tier if another one holds or takes them.
        demote: Victims sink where there is room below. Else they are dropped: first whatever lies in
            another tier too, in a second pass the leaves of the forest.
    """

    def __init__(
        self, books: Books, protected: Collection[BlockHash], *, may_sink: bool = False, demote: bool = True
    ) -> None:
        self._books = books
        self._protected = protected
        self._may_sink = may_sink
        self._demote = demote
        self._drops: list[list[Move]] = [[] for _ in books.rules]
        self._copies: list[list[Move]] = [[] for _ in books.rules]
        self._spare = [0] * len(books.rules)
        """Places set aside for victims of the tier above and not used yet."""
        self._sinks = [False] * len(books.rules)
        """Whether the block that may leave a tier is worth a place below, as decided last."""
        self._victims: list[Generator[BlockHash] | None] = [None] * len(books.rules)
        self._fallen: list[Node] = []
        """Blocks that fall back on a copy further down."""
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        for node in self._fallen:  # now: the policy below may have been in the midst of a sweep
            self._books.come_down(node)
        for tier, unused in enumerate(self._spare):
            self._books.used[tier] -= unused

    def orders(self) -> list[Move]:
        """The moves that make the room, deepest tier first, drops before copies."""
        deepest_first = zip(reversed(self._drops), reversed(self._copies), strict=True)
        return [move for drops, copies in deepest_first for moves in (drops, copies) for move in moves]

    def reserve(self, tier: int) -> bool:
        """Take one place in a tier, evicting a block if it is full; False if none may leave."""
        books = self._books
        if not books.rules[tier].takes:
            return False
        if books.used[tier] < books.rules[tier].capacity_blocks:
            books.used[tier] += 1
            return True
        victims = self._victims[tier]
        if victims is None:
            victims = self._victims[tier] = self._stack.enter_context(closing(self._leavers(tier)))
        victim = next(victims, None)
        if victim is not None:
            self._send_off(books.index.nodes[victim], tier)  # awake, since it was asked about
        elif (order := books.drop_stranger(tier)) is not None:
            self._drops[tier].append(order)
        else:
            return False
        books.used[tier] += 1  # the victim's place is freed by its commit, ours starts now
        return True

    def send_away(self, node: Node, tier: int) -> bool:
        """Order a block out of a tier whether it is a leaf or not; False if no other tier has it or takes it.

        It sinks, where there is another tier below that it is worth a place in.
        """
        if self._lies_near(node, tier) or self._would_sink(node.key, tier) or node.tiers & ~(1 << tier):
            self._books.rules[tier].policy.remove([node.key])
            self._send_off(node, tier)
            return True
        return False

    def _leavers(self, tier: int) -> Generator[BlockHash]:
        """Who leaves a tier, in this order."""
        protected = self._protected = set(self._protected)
        passes = [self._may_leave] if self._demote else [self._lies_elsewhere, self._may_leave]
        for may_leave in passes:
            with closing(self._books.rules[tier].policy.evict(partial(may_leave, tier, protected))) as victims:
                yield from victims

    def _may_leave(self, tier: int, protected: set[BlockHash], key: BlockHash) -> bool | None:
        index = self._books.index
        node = index.nodes.get(key) or index[key]
        if node.leases or node.moves or (key in protected and not self._may_sink):
            return False
        if self._lies_near(node, tier) or self._would_sink(key, tier) or node.tiers & ~(1 << tier):
            return True
        if not node.is_leaf and self._books.asks_again:
            return None
        return node.is_leaf and key not in protected

    def _lies_elsewhere(self, tier: int, protected: set[BlockHash], key: BlockHash) -> bool | None:
        return bool(self._books.index[key].tiers & ~(1 << tier)) and self._may_leave(tier, protected, key)

    def _lies_near(self, node: Node, tier: int) -> bool:
        """Whether a block of a tier lies in a faster one too, or in the next: its copy here is worth little."""
        return bool(node.tiers & (4 << tier) - 1 & ~(1 << tier))

    def _would_sink(self, key: BlockHash, tier: int) -> bool:
        """Whether a block is worth a place below, and there is one; it is then set aside.

        In this order, or somebody would have to leave for a block that does not come.
        """
        if tier + 1 == len(self._sinks):
            return False
        self._sinks[tier] = self._demote and self._is_worth(key, tier + 1) and self._room_below(tier)
        return self._sinks[tier]

    def _is_worth(self, key: BlockHash, tier: int) -> bool:
        """Whether a tier's admission lets a block in."""
        admission = self._books.rules[tier].admission
        return admission is None or admission.admit([key]) > 0

    def _room_below(self, tier: int) -> bool:
        """One place in the next tier is set aside for a victim of this one, if there can be one."""
        below = tier + 1
        if not self._spare[below] and self.reserve(below):
            self._spare[below] += 1
        return self._spare[below] > 0

    def _send_off(self, node: Node, tier: int) -> None:
        """Order a block out of a tier: dropped if its copy here is worth little, or if it was found not to sink."""
        if self._lies_near(node, tier) or not self._sinks[tier]:
            self._drops[tier].append(self._books.drop(node, tier))
            if node.tiers and node.fastest > tier:
                self._fallen.append(node)
            return
        self._spare[tier + 1] -= 1
        node.tiers &= ~(1 << tier)
        self._books.begin(node, tier, tier + 1)
        self._copies[tier].append(Move(node.key, tier, tier + 1))
