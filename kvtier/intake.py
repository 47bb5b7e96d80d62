"""Blocks that a tier holds and nobody here ordered there: after a restart, or from another process.

    restore     everything a tier holds, when a store opens
    discover    blocks that another process has brought since          vanish    blocks it has taken away
    reconcile   everything a tier holds, when it is not known what has changed

Another process may hold a block's parent where it cannot be seen from here, in its own memory. Such a
block is a stranger: it takes a place, it is not served, and it is taken up once its parent is held
here. Strangers are the last to be evicted.

Part of ``kvtier.placement``, which says the rules; like it without I/O, clock or torch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import closing

from kvtier.books import Books, Move
from kvtier.hashing import BlockHash, Label
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
        self._children: dict[BlockHash, dict[BlockHash, None]] = {}
        """Strangers by their parents; some may be none any more."""
        self._late: dict[tuple[int, BlockHash], Label] = {}
        """Discoveries of blocks that were on the move here."""

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
            if node is None or node.dead:  # an orphan, or one that another tier's restore gave up
                follow += self._refuse(tier, key, label, shared=shared)
            else:
                node.tiers |= 1 << tier
                taken.add(key)
        self._books.rules[tier].policy.insert([key for key, _ in reversed(listed) if key in taken])
        return follow + self._shrink(tier, len(listed) - len(taken))

    def discover(self, tier: int, entries: Entries) -> None:
        """See ``Placement.discover``."""
        late, self._late = self._late, {}
        found = [(at, key, label) for (at, key), label in late.items()]
        found += [(tier, key, label) for key, label in entries]
        for at, key, label in sorted(found, key=lambda each: each[2].depth):
            self._take(at, key, label)

    def vanish(self, tier: int, keys: Iterable[BlockHash]) -> list[Move]:
        """See ``Placement.vanish``."""
        books, follow = self._books, list[Move]()
        for key in keys:
            self._late.pop((tier, key), None)
            if books.strangers[tier].pop(key, None) is not None:
                books.used[tier] -= 1
                continue
            node = self._index.get(key)
            if node is not None and node.tiers >> tier & 1:
                node.tiers &= ~(1 << tier)
                books.rules[tier].policy.remove([key])
                books.used[tier] -= 1
                follow += books.resolve(node, spare=tier)
        self._remember_strangers(tier)
        return follow

    def reconcile(self, tier: int, listing: Listing, moved: Collection[BlockHash]) -> list[Move]:
        """See ``Placement.reconcile``. Of a block on its way into the tier or out of it the report is to come."""
        held = [node.key for node in self._index.awake() if node.tiers >> tier & 1]
        resting = self._index.resting
        if resting is not None and resting.tier == tier:
            held += [resting.listing.name(row) for row in resting.rows()]
        known = {*held, *self._books.strangers[tier]}
        follow = self.vanish(tier, [key for key in known if listing.find(key) < 0 and key not in moved])
        known.update(moved)
        self.discover(
            tier, [(key, label) for key, label in listing if key not in known and not self._is_changing(key, tier)]
        )
        return follow

    def _is_changing(self, key: BlockHash, tier: int) -> bool:
        node = self._index.nodes.get(key)
        return node is not None and self._books.is_changing(node, tier)

    def claim(self, key: BlockHash, label: Label) -> bool:
        """Take up a stranger whose parent is held; False if there is none of this name."""
        for tier, strangers in enumerate(self._books.strangers):
            if key in strangers and self._index.nodes.get(key) is None and self._books.parent_alive(label):
                self._admit(tier, key, strangers.pop(key))
                self.adopt(key)
                return True
        return False

    def adopt(self, key: BlockHash) -> None:
        """Take up the strangers that hang on a block that is held now, and on those, and so on."""
        waiting = [key] if self._children else []
        while waiting:
            for child in self._children.pop(waiting.pop(), ()):
                for tier, strangers in enumerate(self._books.strangers):
                    label = strangers.get(child)
                    if label is not None and self._index.nodes.get(child) is None:
                        del strangers[child]
                        self._admit(tier, child, label)
                        waiting.append(child)

    def _take(self, tier: int, key: BlockHash, label: Label) -> None:
        """Take up one block that another process has brought."""
        books = self._books
        if key in books.strangers[tier]:
            return
        node = self._index.get(key)
        if node is None and books.parent_alive(label):
            books.used[tier] += 1
            self._admit(tier, key, label)
            self.adopt(key)
        elif node is None or node.dead:
            books.used[tier] += 1
            self._estrange(tier, key, label)
        elif node.moves:
            self._late[tier, key] = label  # perhaps to this very tier; its report says where it is then
        elif not node.tiers >> tier & 1:
            books.used[tier] += 1
            node.tiers |= 1 << tier
            books.rules[tier].policy.insert([key])

    def _admit(self, tier: int, key: BlockHash, label: Label) -> None:
        node = self._index.add(key, label)
        node.tiers |= 1 << tier
        self._books.rules[tier].policy.insert([key])

    def _estrange(self, tier: int, key: BlockHash, label: Label) -> None:
        self._books.strangers[tier][key] = label
        self._children.setdefault(label.parent, {})[key] = None

    def _remember_strangers(self, tier: int) -> None:
        """Those that became strangers because their parent vanished wait for it as others do."""
        for key, label in self._books.strangers[tier].items():
            self._children.setdefault(label.parent, {})[key] = None

    def _refuse(self, tier: int, key: BlockHash, label: Label, *, shared: bool) -> list[Move]:
        """What a restart finds without its parent: nobody's any more, or another process's."""
        if not shared:
            return self._books.turn_away(key, label, tier)
        self._estrange(tier, key, label)
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
        return follow + self._shrink(tier, len(resting.orphans))

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
