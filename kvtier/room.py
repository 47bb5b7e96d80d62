"""Making room for a plan: who leaves which tier, one pass over each policy.

Part of ``kvtier.placement``, which says the rules; like it without I/O, clock or torch.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
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
        self, books: Books, protected: Sequence[BlockHash], *, may_sink: bool = False, demote: bool = True
    ) -> None:
        self._books = books
        self._protected = set(protected)
        self._may_sink = may_sink
        self._demote = demote
        self._moves: list[Move] = []
        self._spare = [0] * (len(books.rules) + 1)
        """Places set aside for victims of the tier above and not used yet; none below the last."""
        self._victims: list[Generator[BlockHash] | None] = [None] * len(books.rules)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        for tier, unused in enumerate(self._spare[:-1]):
            self._books.used[tier] -= unused

    def orders(self) -> list[Move]:
        """The moves that make the room, deepest tier first, drops before copies."""
        return sorted(self._moves, key=lambda move: (-(move.src or 0), move.dst is not None))

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
        order = books.drop_stranger(tier) if victim is None else self._send_off(books.index[victim], tier)
        if order is None:
            return False
        self._moves.append(order)
        books.used[tier] += 1  # the victim's place is freed by its commit, ours starts now
        return True

    def _leavers(self, tier: int) -> Generator[BlockHash]:
        """Who leaves a tier, in this order."""
        passes = [self._may_leave] if self._demote else [self._lies_elsewhere, self._may_leave]
        for may_leave in passes:
            with closing(self._books.rules[tier].policy.evict(partial(may_leave, tier))) as victims:
                yield from victims

    def _may_leave(self, tier: int, key: BlockHash) -> bool:
        node = self._books.index[key]
        protected = key in self._protected
        if node.leases or node.moves or (protected and not self._may_sink):
            return False
        if node.tiers & ~(1 << tier) or self._room_below(tier):
            return True
        return not protected and node.is_leaf

    def _lies_elsewhere(self, tier: int, key: BlockHash) -> bool:
        return bool(self._books.index[key].tiers & ~(1 << tier)) and self._may_leave(tier, key)

    def _room_below(self, tier: int) -> bool:
        """One place in the next tier is set aside for a victim of this one, if there can be one."""
        below = tier + 1
        if not self._spare[below] and below < len(self._victims) and self._demote and self.reserve(below):
            self._spare[below] += 1
        return self._spare[below] > 0

    def _send_off(self, node: Node, tier: int) -> Move:
        if node.tiers & ~(1 << tier) or not self._room_below(tier):
            return self._books.drop(node, tier)
        self._spare[tier + 1] -= 1
        node.tiers &= ~(1 << tier)
        self._books.begin(node, tier, tier + 1)
        return Move(node.key, tier, tier + 1)
