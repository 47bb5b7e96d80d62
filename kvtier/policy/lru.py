"""LRU: the block whose last use lies longest ago leaves first.

    oldest first:  passed over  |  shelf        |  order
                   refused once    a restart's     used since

The shelf keeps a restart's batch as it came, without an object for each name: most of a full
disk's blocks are never asked for again.

Source: the textbook policy. Differs from it in two ways that a prefix cache needs: a batch is
applied tail first, so a prompt's tail is older than its head, and ``evictable`` can veto a
victim, which then keeps its place.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Sequence

from kvtier.hashing import BlockHash
from kvtier.listing import Remaining, Roll
from kvtier.policy.base import Evictable
from kvtier.policy.sweeping import Queue, sweep


class LRU:
    """Least recently used, oldest at the front."""

    def __init__(self) -> None:
        self._passed: Queue = OrderedDict()
        """Names that stood on the shelf, were refused and are older than what is left of it."""
        self._shelf: _Shelf | None = None
        self._order: Queue = OrderedDict()

    def insert(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.insert``."""
        if isinstance(keys, Roll) and not len(self):
            self._shelf = _Shelf(keys)
            return
        order = self._order
        for key in reversed(keys):
            order[key] = None

    def touch(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.touch``."""
        order = self._order
        if not self._passed and self._shelf is None:
            for key in filter(order.__contains__, reversed(keys)):
                order.move_to_end(key)
            return
        for key in reversed(keys):
            if key in order:
                order.move_to_end(key)
            elif self._take_old(key):
                order[key] = None

    def arrange(self, keys: Sequence[BlockHash]) -> None:
        """See ``Arranging.arrange``. To order by last use is to count one."""
        self.touch(keys)

    def remove(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.remove``."""
        for key in keys:
            if key in self._order:
                del self._order[key]
            else:
                self._take_old(key)

    def evict(self, evictable: Evictable) -> Generator[BlockHash]:
        """See ``EvictionPolicy.evict``."""
        if self._passed or self._shelf is not None:
            return self._evict_old_first(evictable)
        return sweep(self._order, evictable)

    def _evict_old_first(self, evictable: Evictable) -> Generator[BlockHash]:
        yield from sweep(self._passed, evictable)
        while self._shelf is not None and (key := self._shelf.pop()) is not None:
            if evictable(key):
                yield key
            else:
                self._passed[key] = None
        self._shelf = None
        yield from sweep(self._order, evictable)

    def __len__(self) -> int:
        return len(self._passed) + (len(self._shelf) if self._shelf is not None else 0) + len(self._order)

    def _take_old(self, key: BlockHash) -> bool:
        """Take a name from among those not used since a restart, if it is there."""
        if key in self._passed:
            del self._passed[key]
            return True
        return self._shelf is not None and self._shelf.take(key)


class _Shelf:
    """Names that came as one batch, the oldest first in line; none has been used since."""

    def __init__(self, roll: Roll) -> None:
        self._rows = roll.rows
        self._next = 0
        """The first position in line not passed yet."""
        self._left = Remaining(roll.listing, roll.rows)

    def __len__(self) -> int:
        return self._left.num

    def pop(self) -> BlockHash | None:
        """Take the oldest name; None if none is left."""
        while self._next < len(self._rows):
            row = int(self._rows[self._next])
            self._next += 1
            if row in self._left:
                self._left.remove(row)
                return self._left.listing.name(row)
        return None

    def take(self, key: BlockHash) -> bool:
        """Take a name out of the line, if it is there."""
        row = self._left.find(key)
        if row < 0:
            return False
        self._left.remove(row)
        return True
