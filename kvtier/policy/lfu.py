"""LFU: the block used least often leaves first; of several, the one whose last use lies longest ago.

    uses     1         2       7
    names    d c b     a       r        a bucket for each number of uses, oldest first

A use moves a name from the end of one bucket to the end of the next, so nothing is ever sorted.
A block that left starts again at one use.

Source: the textbook policy, with the buckets of Ketan Shah, Anirban Mitra and Dhruv Matani, "An
O(1) algorithm for implementing the LFU cache eviction scheme", 2010. Differs from it in that a
batch is applied tail first and that ``evictable`` can veto a victim, which keeps its place.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Generator, Sequence

from kvtier.hashing import BlockHash
from kvtier.policy.base import Evictable
from kvtier.policy.sweeping import Queue, sweep


class LFU:
    """Least frequently used, ties broken by recency."""

    def __init__(self) -> None:
        self._uses: dict[BlockHash, int] = {}
        """Of each name held; its insertion is the first."""
        self._buckets: defaultdict[int, Queue] = defaultdict(OrderedDict)
        """Names by number of uses; of the first two one may be empty, of the others none."""

    def insert(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.insert``."""
        uses, first = self._uses, self._buckets[1]
        for key in reversed(keys):
            uses[key] = 1
            first[key] = None

    def touch(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.touch``."""
        uses, buckets = self._uses, self._buckets
        get, last = uses.get, 1
        old, new = buckets[1], buckets[2]
        for key in reversed(keys):
            num = get(key)
            if num is None:
                continue
            if num != last:  # neighbours in a prompt were mostly used together
                self._discard_empty(last)
                old, new, last = buckets[num], buckets[num + 1], num
            del old[key]
            new[key] = None
            uses[key] = num + 1
        self._discard_empty(last)

    def remove(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.remove``."""
        for key in keys:
            num = self._uses.pop(key, None)
            if num is not None:
                del self._buckets[num][key]
                self._discard_empty(num)

    def evict(self, evictable: Evictable) -> Generator[BlockHash]:
        """See ``EvictionPolicy.evict``. A sweep that goes beyond the names used once also sorts the buckets."""
        yield from self._sweep(1, evictable)
        for num in sorted(self._buckets):
            if num > 1:
                yield from self._sweep(num, evictable)

    def __len__(self) -> int:
        return len(self._uses)

    def _sweep(self, num: int, evictable: Evictable) -> Generator[BlockHash]:
        uses, bucket = self._uses, self._buckets[num]
        for key in sweep(bucket, evictable):
            del uses[key]
            if not bucket:
                del self._buckets[num]
            yield key

    def _discard_empty(self, num: int) -> None:
        if not self._buckets[num]:
            del self._buckets[num]
