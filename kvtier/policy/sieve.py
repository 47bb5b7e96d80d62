"""SIEVE: a FIFO queue, one bit per block, and a hand that walks from old to new.

    oldest  | passed by the hand |  ahead of it  | newest
              a  b  c               ^d  e  f

A use sets the bit and moves nothing. The hand clears bits until it meets a block whose bit is
clear already; that block leaves, and the hand stays there for the next time. Survivors keep
their place, unlike in CLOCK, and new blocks enter far from the hand. The queue is kept in two
halves, so that the hand is the front of the second and needs no links.

Source: Zhang et al., "SIEVE is Simpler than LRU", NSDI 2024, Algorithm 1. Differs from it in that
a batch is applied tail first and that ``evictable`` can veto a victim: the hand passes it,
and its bit stays clear.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Sequence

from kvtier.hashing import BlockHash
from kvtier.policy.base import Evictable
from kvtier.policy.sweeping import Aside, Queue


class Sieve:
    """Oldest first among those not used since the hand passed them."""

    def __init__(self) -> None:
        self._used: dict[BlockHash, bool] = {}
        """The bit of each name held."""
        self._passed: Queue = OrderedDict()
        self._ahead: Queue = OrderedDict()
        """Its front is where the hand is; empty only if the other half is."""
        self._aside = Aside()

    def insert(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.insert``."""
        for key in reversed(keys):
            self._used[key] = False
            self._ahead[key] = None

    def touch(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.touch``."""
        used = self._used
        for key in keys:
            if key in used:
                used[key] = True

    def remove(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.remove``."""
        for key in keys:
            if self._used.pop(key, None) is None:
                continue
            if key in self._passed:
                del self._passed[key]
            elif not self._aside.discard(key):
                del self._ahead[key]
                if not self._ahead:
                    self._turn()

    def reconsider(self, key: BlockHash) -> None:
        """See ``Reconsidering.reconsider``."""
        self._aside.free(key)

    def evict(self, evictable: Evictable) -> Generator[BlockHash]:
        """See ``EvictionPolicy.evict``. The next sweep starts where this one ends."""
        used, aside, refused = self._used, self._aside, set[BlockHash]()
        try:
            while True:
                key = aside.pop()
                was_aside = key is not None
                if key is None:
                    if len(refused) >= len(self._passed) + len(self._ahead):
                        return
                    key, _ = self._ahead.popitem(last=False)
                leaves: bool | None = False
                if used[key] or key in refused:
                    used[key] = False
                    self._passed[key] = None
                elif leaves := evictable(key):
                    del used[key]
                elif leaves is None:
                    aside.put(key)
                elif was_aside:
                    aside.refuse(key)
                else:
                    refused.add(key)
                    self._passed[key] = None
                if not self._ahead:
                    self._turn()
                if leaves:
                    yield key
        finally:
            aside.end()

    def __len__(self) -> int:
        return len(self._used)

    def _turn(self) -> None:
        """Behind the newest name the hand goes back to the oldest."""
        self._passed, self._ahead = self._ahead, self._passed
