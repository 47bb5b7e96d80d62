"""Making room for a plan: who leaves which tier, one pass over each policy.

Part of ``kvtier.placement``, which says the rules; like it without I/O, clock or torch.
"""

from __future__ import annotations

from collections.abc import Collection, Generator
from contextlib import closing
from itertools import islice
from typing import Self

from kvtier.books import Books, Move, make_move
from kvtier.hashing import BlockHash
from kvtier.index import Node
from kvtier.policy.base import Evictable, EvictionPolicy


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
        self._nodes = books.index.nodes
        self._last = len(books.rules) - 1
        self._protected = protected
        self._may_sink = may_sink
        self._demote = demote
        num_tiers = len(books.rules)
        self._drops: list[list[Move]] = [[] for _ in range(num_tiers)]
        self._copies: list[list[Move]] = [[] for _ in range(num_tiers)]
        self._spare = [0] * num_tiers
        """Places set aside for victims of the tier above and not used yet."""
        self._sinks = [False] * num_tiers
        """Whether the block that may leave a tier is worth a place below, as decided last."""
        self._victims: list[Generator[BlockHash] | None] = [None] * num_tiers
        self._fallen: list[Node] = []
        """Blocks that fall back on a copy further down."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for victims in self._victims:
            if victims is not None:
                victims.close()
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
        used, rules = self._books.used, self._books.rules[tier]
        if not rules.takes:
            return False
        if used[tier] < rules.capacity_blocks:
            used[tier] += 1
            return True
        return self._evict(tier, 1) == 1

    def reserve_many(self, tier: int, count: int) -> int:
        """Take so many places in a tier, evicting blocks once it is full; how many were to be had."""
        books, rules = self._books, self._books.rules[tier]
        if not rules.takes:
            return 0
        free = min(count, max(0, rules.capacity_blocks - books.used[tier]))
        books.used[tier] += free
        return free + self._evict(tier, count - free) if free < count else count

    def _evict(self, tier: int, count: int) -> int:
        """Send blocks out of a full tier and take their places: each is freed by its commit, ours starts now."""
        books, nodes, evicted = self._books, self._nodes, 0
        drops, sinks = self._drops[tier], self._sinks
        victims = self._victims[tier]
        if victims is None:
            victims = self._victims[tier] = self._leavers(tier)
        for victim in islice(victims, count):
            node = nodes[victim]  # awake, since it was asked about
            if sinks[tier]:
                self._send_off(node, tier)
            else:
                drops.append(books.drop(node, tier))
                if node.tiers:
                    self._fall_back(node, tier)
            evicted += 1
        while evicted < count and (order := books.drop_stranger(tier)) is not None:
            drops.append(order)
            evicted += 1
        books.used[tier] += evicted
        return evicted

    def send_away(self, node: Node, tier: int) -> bool:
        """Order a block out of a tier; False if no other tier has it or takes it, and others hang on it.

        It sinks, where there is another tier below that it is worth a place in.
        """
        others = node.tiers & ~(1 << tier)
        if self._lies_near(node, tier) or self._would_sink(node.key, tier) or others or node.is_leaf:
            self._books.rules[tier].policy.remove([node.key])
            self._send_off(node, tier)
            return True
        return False

    def _leavers(self, tier: int) -> Generator[BlockHash]:
        """Who leaves a tier, in this order."""
        self._protected = set(self._protected)
        policy, may_leave = self._books.rules[tier].policy, self._asked(tier, self._protected)
        return policy.evict(may_leave) if self._demote else self._copies_first(tier, policy, may_leave)

    def _copies_first(self, tier: int, policy: EvictionPolicy, may_leave: Evictable) -> Generator[BlockHash]:
        """Who leaves a tier if nobody sinks: what lies elsewhere too, then what nothing hangs on."""
        index = self._books.index

        def lies_elsewhere(key: BlockHash) -> bool:
            return bool(index[key].tiers & ~(1 << tier) and may_leave(key))

        for evictable in (lies_elsewhere, may_leave):
            with closing(policy.evict(evictable)) as victims:
                yield from victims

    def _asked(self, tier: int, protected: set[BlockHash]) -> Evictable:
        """What a policy asks of each block. A function of its own: most of a replay's time goes by in here."""
        index, awake, may_sink, asks_again = self._books.index, self._nodes.get, self._may_sink, self._books.asks_again
        bit, near, is_last = 1 << tier, (4 << tier) - 1, tier == self._last

        def may_leave(key: BlockHash) -> bool | None:
            node = awake(key) or index[key]
            if node.leases or node.moves or (not may_sink and key in protected):
                return False
            others = node.tiers & ~bit
            if others & near or (not is_last and self._would_sink(key, tier)) or others:
                return True
            if node.below or node.asleep:
                return None if asks_again else False
            return key not in protected

        return may_leave

    def _lies_near(self, node: Node, tier: int) -> bool:
        """Whether a block of a tier lies in a faster one too, or in the next: its copy here is worth little."""
        return bool(node.tiers & ~(1 << tier) & (4 << tier) - 1)

    def _would_sink(self, key: BlockHash, tier: int) -> bool:
        """Whether a block is worth a place below, and there is one; it is then set aside.

        In this order, or somebody would have to leave for a block that does not come.
        """
        if tier == self._last:
            return False
        admission = self._books.rules[tier + 1].admission
        worth = self._demote and (admission is None or admission.admit([key]) > 0)
        self._sinks[tier] = worth and self._room_below(tier)
        return self._sinks[tier]

    def _room_below(self, tier: int) -> bool:
        """One place in the next tier is set aside for a victim of this one, if there can be one."""
        below = tier + 1
        if not self._spare[below] and self.reserve(below):
            self._spare[below] += 1
        return self._spare[below] > 0

    def _send_off(self, node: Node, tier: int) -> None:
        """Order a block out of a tier: dropped if its copy here is worth little, or if it was found not to sink."""
        if not self._sinks[tier] or self._lies_near(node, tier):
            self._drops[tier].append(self._books.drop(node, tier))
            self._fall_back(node, tier)
            return
        self._spare[tier + 1] -= 1
        node.tiers &= ~(1 << tier)
        self._books.begin(node, 3 << tier)
        self._copies[tier].append(make_move((node.key, tier, tier + 1, False)))

    def _fall_back(self, node: Node, tier: int) -> None:
        """A block was dropped from a tier: what is left of it may be a copy further down."""
        if node.fastest > tier:  # never where nothing is left
            self._fallen.append(node)
