"""FIFO: the block that came first leaves first, however often it was used since.

Source: the textbook policy, the control group of every other one. Differs from it as ``LRU``
does: a batch is applied tail first, and ``evictable`` can veto a victim, which keeps its place.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator, Sequence

from kvtier.hashing import BlockHash
from kvtier.policy.sweeping import Queue, sweep


class FIFO:
    """First in, first out."""

    def __init__(self) -> None:
        self._order: Queue = OrderedDict()
        """Oldest first."""

    def insert(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.insert``."""
        for key in reversed(keys):
            self._order[key] = None

    def touch(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.touch``. A use counts for nothing here."""

    def remove(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.remove``."""
        for key in keys:
            self._order.pop(key, None)

    def evict(self, evictable: Callable[[BlockHash], bool]) -> Generator[BlockHash]:
        """See ``EvictionPolicy.evict``."""
        return sweep(self._order, evictable)

    def __len__(self) -> int:
        return len(self._order)
