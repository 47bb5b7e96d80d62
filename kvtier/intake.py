"""Blocks that a tier holds and nobody here ordered there: after a restart, or from another process.

    restore     everything a tier holds, when a store opens
    discover    blocks that another process has brought since          vanish    blocks it has taken away
    reconcile   everything a tier holds, when it is not known what has changed

Another process may hold a block's parent where it cannot be seen from here, in its own memory. Such a
block is a stranger: it takes a place, it is not served, and it is taken up once its parent is held
here. Strangers are the last to be evicted.

What is heard of a block while it is on the move here is kept until the move has ended. Two things can
then not be told: whether a block that came here was taken away before or after, and whether one that left was
brought again before or after. Such a block is dropped: one lost is computed again, one counted
wrongly would stand for a place for ever.

Part of ``kvtier.placement``, which says the rules; like it without I/O, clock or torch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import closing

from kvtier.books import Books, Move
from kvtier.hashing import BlockHash, Label
from kvtier.index import Node
from kvtier.listing import Listing
from kvtier.resting import Resting

Entries = Iterable[tuple[BlockHash, Label]]


class Intake:
    """Takes up what is there.

    Args:
        books: Of the placement.
    """

    def __init__(self, books: Books) -> None:
        self._books = books
        self._index = books.index
        self._heard: dict[tuple[int, BlockHash], bool] = {}
        """Whether a tier has a block that is on the move here, by what was heard of it last."""

    @property
    def is_quiet(self) -> bool:
        """Whether there is nothing of others to think of when a move ends."""
        return not self._heard and not self._books.strangers

    def restore(self, tier: int, entries: Entries, *, shared: bool) -> list[Move]:
        """See ``Placement.restore``."""
        if isinstance(entries, Listing) and not self._index.nodes and self._index.resting is None:
            return self._rest(tier, entries, shared=shared)
        listed = list(entries)
        follow: list[Move] = []
        taken: set[BlockHash] = set()
        for key, label in sorted(listed, key=lambda entry: entry[1].depth):
            self._books.used[tier] += 1
            node = self._index.get(key)
            if node is None and self._books.parent_alive(label):
                node = self._index.add(key, label)
                self.adopt(key)
            if node is None or node.dead:  # an orphan, or one that another tier's restore gave up
                follow += self._refuse(tier, key, label, shared=shared)
            else:
                node.tiers |= 1 << tier
                taken.add(key)
        self._books.rules[tier].policy.insert([key for key, _ in reversed(listed) if key in taken])
        return follow + self._shrink(tier, 0 if shared else len(listed) - len(taken))

    def discover(self, tier: int, entries: Entries) -> None:
        """See ``Placement.discover``."""
        for key, label in entries:
            self._take(tier, key, label)

    def vanish(self, tier: int, keys: Iterable[BlockHash]) -> list[Move]:
        """See ``Placement.vanish``."""
        books, follow = self._books, list[Move]()
        for key in keys:
            if books.strangers.pop(tier, key) is not None:
                books.used[tier] -= 1
                continue
            node = self._index.get(key)
            if node is None:
                continue
            if node.tiers >> tier & 1:
                node.tiers &= ~(1 << tier)
                books.rules[tier].policy.remove([key])
                books.used[tier] -= 1
                follow += books.resolve(node, spare=tier)
            elif node.moves:
                self._heard[tier, key] = False
        return follow

    def reconcile(self, tier: int, listing: Listing, moved: Collection[BlockHash], *, anew: bool = False) -> list[Move]:
        """See ``Placement.reconcile``. Of a block on its way into the tier or out of it the report is to come."""
        held = {node.key for node in self._index.awake() if node.tiers >> tier & 1}
        resting = self._index.resting
        if resting is not None and resting.tier == tier:
            held.update(resting.listing.name(row) for row in resting.rows())
        held.update(self._books.strangers.of(tier))
        gone = [key for key in held if listing.find(key) < 0]
        # First, or what hangs on a block that vanishes would be another process's from then on.
        follow = self._doubt(tier, listing, [key for key in gone if key in moved]) if anew else []
        follow += self.vanish(tier, [key for key in gone if key not in moved])
        known = held | set(moved)
        self.discover(
            tier, [(key, label) for key, label in listing if key not in known and not self._is_changing(key, tier)]
        )
        return follow

    def _doubt(self, tier: int, listing: Listing, moved: Iterable[BlockHash]) -> list[Move]:
        """Drop what was brought to a tier, or is on its way there, perhaps into a file that is the tier's no more."""
        follow: list[Move] = []
        for key in moved:
            node = self._index.get(key)
            if node is not None and node.tiers >> tier & 1:
                self._books.doom(node, tier)
                follow += self._books.resolve(node)
        for node in self._index.nodes.values():
            if node.changing >> tier & 1 and listing.find(node.key) < 0:
                self._heard[tier, node.key] = False
        return follow

    def _is_changing(self, key: BlockHash, tier: int) -> bool:
        node = self._index.nodes.get(key)
        return node is not None and self._books.is_changing(node, tier)

    def claim(self, key: BlockHash, label: Label) -> bool:
        """Take up a stranger whose parent is held; False if there is none of this name."""
        strangers = self._books.strangers
        if not strangers:
            return False
        found = [tier for tier in range(len(self._books.rules)) if key in strangers.of(tier)]
        if not found or not self._books.parent_alive(label):
            return False
        for tier in found:
            strangers.pop(tier, key)
            self._admit(tier, key, label)
        self.adopt(key)
        return True

    def adopt(self, key: BlockHash) -> None:
        """Take up the strangers that hang on a block that is held now, and on those, and so on."""
        waiting, strangers = [key], self._books.strangers
        while waiting and strangers:
            for tier, child in strangers.children(waiting.pop()):
                node = self._index.get(child)
                if node is None or not node.moves:
                    label = strangers.pop(tier, child)
                    assert label is not None
                    self._admit(tier, child, label)
                    waiting.append(child)

    def arrived(self, node: Node, tier: int) -> bool:
        """A move of a block has ended in a tier; False if others may have taken the block away again."""
        return self._heard.pop((tier, node.key), True)

    def left(self, node: Node, tier: int) -> None:
        """A move of a block out of a tier has ended; it begins once more if others may have brought the block again."""
        self._books.leave(node, tier)
        if self._heard.pop((tier, node.key), False):
            self._books.used[tier] += 1
            node.doomed |= 1 << tier

    def catch_up(self, node: Node) -> None:
        """Take up what others have brought of a block while it was on the move here."""
        if not self._heard:
            return
        books = self._books
        for tier, rules in enumerate(books.rules):
            if not node.doomed >> tier & 1 and self._heard.pop((tier, node.key), False):
                books.used[tier] += 1
                if node.dead:
                    books.strangers.add(tier, node.key, node.label)
                else:
                    node.tiers |= 1 << tier
                    rules.policy.insert([node.key])

    def _take(self, tier: int, key: BlockHash, label: Label) -> None:
        """Take up one block that another process has brought."""
        books, node = self._books, self._index.get(key)
        if key in books.strangers.of(tier) or (node is not None and node.tiers >> tier & 1):
            return
        if node is not None and node.moves:
            self._heard[tier, key] = True  # perhaps a move to this very tier, or from it
            return
        books.used[tier] += 1
        if node is not None or books.parent_alive(label):
            self._admit(tier, key, label)
            self.adopt(key)
        else:
            books.strangers.add(tier, key, label)

    def _admit(self, tier: int, key: BlockHash, label: Label) -> None:
        node = self._index.get(key) or self._index.add(key, label)
        node.tiers |= 1 << tier
        self._books.rules[tier].policy.insert([key])

    def _refuse(self, tier: int, key: BlockHash, label: Label, *, shared: bool) -> list[Move]:
        """What a restart finds without its parent: nobody's any more, or another process's."""
        if not shared:
            return self._books.turn_away(key, label, tier)
        self._books.strangers.add(tier, key, label)
        return []

    def _rest(self, tier: int, listing: Listing, *, shared: bool) -> list[Move]:
        """``restore`` of the first tier, without an object for each block."""
        resting = Resting(listing, tier)
        self._books.used[tier] += len(listing)
        if resting:
            self._index.rest(resting)
            self._books.rules[tier].policy.insert(resting.roll)
        follow: list[Move] = []
        for row in resting.orphans:
            follow += self._refuse(tier, listing.name(row), listing.label(row), shared=shared)
        return follow + self._shrink(tier, 0 if shared else len(resting.orphans))

    def _shrink(self, tier: int, leaving: int) -> list[Move]:
        """Drops for what a tier holds beyond its capacity: blocks held elsewhere, and leaves of the forest.

        ``leaving`` blocks are on their way out already.
        """
        books = self._books
        rules, drops = books.rules[tier], list[Move]()
        room = rules.capacity_blocks + leaving
        progress = True
        while progress and books.used[tier] - len(drops) > room:
            progress = False  # a parent refused in this pass may be a leaf in the next
            with closing(rules.policy.evict(lambda key: self._expendable(key, tier))) as victims:
                for victim in victims:
                    drops.append(books.drop(self._index[victim], tier))
                    progress = True
                    if books.used[tier] - len(drops) <= room:
                        break
        return drops

    def _expendable(self, key: BlockHash, tier: int) -> bool:
        node = self._index[key]
        return bool(node.tiers & ~(1 << tier)) or node.is_leaf
