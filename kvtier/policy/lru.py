"""LRU: the block whose last use lies longest ago leaves first.

Source: the textbook policy. Differs from it in two ways that a prefix cache needs: a batch is
applied tail first, so a prompt's tail is older than its head, and ``evictable`` can veto a
victim, which then keeps its place.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator, Sequence

from kvtier.hashing import BlockHash


class LRU:
    """Least recently used, oldest at the front."""

    def __init__(self) -> None:
        self._order: OrderedDict[BlockHash, None] = OrderedDict()

    def insert(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.insert``."""
        for key in reversed(keys):
            self._order[key] = None

    def touch(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.touch``."""
        for key in reversed(keys):
            if key in self._order:
                self._order.move_to_end(key)

    def remove(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.remove``."""
        for key in keys:
            self._order.pop(key, None)

    def evict(self, evictable: Callable[[BlockHash], bool]) -> Generator[BlockHash]:
        """See ``EvictionPolicy.evict``."""
        refused: list[BlockHash] = []
        try:
            while self._order:
                key, _ = self._order.popitem(last=False)
                if evictable(key):
                    yield key
                else:
                    refused.append(key)
        finally:
            for key in reversed(refused):
                self._order[key] = None
                self._order.move_to_end(key, last=False)

    def __len__(self) -> int:
        return len(self._order)
