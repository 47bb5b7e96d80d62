"""FIFO: the block that came first leaves first, however often it was used since.

Source: the textbook policy, the control group of every other one. Differs from it as ``LRU``
does: a batch is applied tail first, and ``evictable`` can veto a victim, which keeps its place.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Sequence

from kvtier.hashing import BlockHash
from kvtier.policy.base import Evictable
from kvtier.policy.sweeping import Aside, Queue, walk


class FIFO:
    """First in, first out."""

    def __init__(self) -> None:
        self._order: Queue = OrderedDict()
        """Oldest first."""
        self._aside = Aside()

    def insert(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.insert``."""
        for key in reversed(keys):
            self._order[key] = None

    def touch(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.touch``. A use counts for nothing here."""

    def remove(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.remove``."""
        for key in keys:
            if key in self._order:
                del self._order[key]
            else:
                self._aside.discard(key)

    def reconsider(self, key: BlockHash) -> None:
        """See ``Reconsidering.reconsider``."""
        self._aside.free(key)

    def evict(self, evictable: Evictable) -> Generator[BlockHash]:
        """See ``EvictionPolicy.evict``."""
        aside, order = self._aside, walk(self._order)
        try:
            while True:
                key = aside.pop()
                was_aside = key is not None
                if key is None and (key := next(order)) is None:
                    return
                leaves = evictable(key)
                if not was_aside and leaves is not False:
                    del self._order[key]
                if leaves:
                    yield key
                elif leaves is None:
                    aside.put(key)
                elif was_aside:
                    aside.refuse(key)
        finally:
            aside.end()

    def __len__(self) -> int:
        return len(self._order) + len(self._aside)
