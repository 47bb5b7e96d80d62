"""ARC: two LRU lists, used once and used again, and the names of what left each to balance them.

    once    T1 | B1        T1 + T2 hold blocks, the capacity at most
    again   T2 | B2        B1, B2 hold names; T1 + B1 at most the capacity, all four twice that

The target size of T1 grows by each request for a name in B1, which a larger T1 would have kept,
and shrinks by each for a name in B2.

Source: Megiddo and Modha, "ARC: A Self-Tuning, Low Overhead Replacement Cache", FAST 2003,
Figure 4, with a target that is no whole number as in libCacheSim. Differs from it in that a
batch is applied tail first; that the request for a whole prompt moves the target before any
victim is chosen; that ``evictable`` can veto a victim, which keeps its place, and the other list
gives one if nothing else of a list may leave; and that B1 and B2 are cut back after the
new blocks have come, not before, which for one block at a time is the same.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Sequence

from kvtier.hashing import BlockHash
from kvtier.policy.base import Evictable
from kvtier.policy.sweeping import Queue, sweep


class ARC:
    """Adaptive replacement between recency and frequency.

    Args:
        capacity_blocks: Blocks its tier may hold.
    """

    def __init__(self, capacity_blocks: int) -> None:
        self._capacity_blocks = capacity_blocks
        self._target = 0.0
        """Blocks that T1 should hold."""
        self._once: Queue = OrderedDict()  # T1
        self._again: Queue = OrderedDict()  # T2
        self._left_once: Queue = OrderedDict()  # B1
        self._left_again: Queue = OrderedDict()  # B2
        self._returning: Queue = OrderedDict()
        """Names of B1 and B2 that were asked for again and are not held yet."""
        self._asked_for_left_again = False
        """The last prompt had a name of B2."""

    def insert(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.insert``."""
        once, again, returning = self._once, self._again, self._returning
        for key in reversed(keys):
            if key in returning:
                del returning[key]
                again[key] = None
            else:
                once[key] = None
                self._left_once.pop(key, None)
                self._left_again.pop(key, None)
        self._cut_back()

    def touch(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.touch``. Names of B1 and B2 move the target, and are remembered until inserted."""
        once, again, left_once, left_again = self._once, self._again, self._left_once, self._left_again
        renew = again.move_to_end
        self._asked_for_left_again = False
        for key in reversed(keys):
            if key in again:
                renew(key)
            elif key in once:
                del once[key]
                again[key] = None
            elif key in left_once:
                self._aim(max(len(left_again) / len(left_once), 1))
                del left_once[key]
                self._returning[key] = None
            elif key in left_again:
                self._aim(-max(len(left_once) / len(left_again), 1))
                del left_again[key]
                self._returning[key] = None
                self._asked_for_left_again = True
        while len(self._returning) > self._capacity_blocks:
            self._returning.popitem(last=False)

    def remove(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.remove``."""
        for key in keys:
            if key in self._once:
                del self._once[key]
            else:
                self._again.pop(key, None)

    def evict(self, evictable: Evictable) -> Generator[BlockHash]:
        """See ``EvictionPolicy.evict``."""
        once = (sweep(self._once, evictable), self._left_once)
        again = (sweep(self._again, evictable), self._left_again)
        while True:
            for victims, left in (once, again) if self._gives_up_once() else (again, once):
                victim = next(victims, None)
                if victim is not None:
                    left[victim] = None
                    yield victim
                    break
            else:
                return

    def __len__(self) -> int:
        return len(self._once) + len(self._again)

    def _gives_up_once(self) -> bool:
        """Whether the next victim should come from T1."""
        num = len(self._once)
        return num > self._target or (num == self._target and self._asked_for_left_again)

    def _aim(self, by: float) -> None:
        self._target = min(max(self._target + by, 0), self._capacity_blocks)

    def _cut_back(self) -> None:
        """Forget the oldest names of B1 and B2 that are too many."""
        capacity, left_once, left_again = self._capacity_blocks, self._left_once, self._left_again
        while left_once and len(self._once) + len(left_once) > capacity:
            left_once.popitem(last=False)
        while left_again and len(self) + len(left_once) + len(left_again) > 2 * capacity:
            left_again.popitem(last=False)
