"""W-TinyLFU: a small LRU window for what is new, and a contest of frequencies for the rest.

    new -> window (1 %) --+-- oldest of each meet; the one --+-- probation (20 %) -- used --> protected
                          |   asked for less often leaves    |      ^                        (80 %)
                          +----------------------------------+      +------- oldest ---------+

How often a name was asked for is counted for all names, held or not, and all counts are halved
once there were ten requests for each block of the capacity: frequencies of long ago fade, and no
more names are remembered than were asked for between two or three halvings.

Source: Einziger, Friedman and Manes, "TinyLFU: A Highly Efficient Cache Admission Policy", ACM
Transactions on Storage 2017, with the segmented LRU of its W-TinyLFU. Differs from it in that the
counts are exact, in a dictionary, for in Python four hashes of a sketch cost more than a look-up,
and no name is mistaken for another; that there is no doorkeeper; that a tie goes to the block in
the window, for the blocks of a prompt are asked for equally often and its tail should leave
first; that a batch is applied tail first; that room is made before the new blocks come, so
that of a prompt larger than the window the rest enters probation without a contest; and that
``evictable`` can veto a victim, which keeps its place, and the contest goes on with the next.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Generator, Sequence

from kvtier.hashing import BlockHash
from kvtier.policy.base import Evictable
from kvtier.policy.sweeping import Queue, walk

_MOST_USES = 15
_USES_PER_BLOCK = 10
"""Requests counted before all counts are halved, for each block of the capacity."""


class WTinyLFU:
    """A window of 1 %, and a segmented LRU that admits by frequency.

    Args:
        capacity_blocks: Blocks its tier may hold.
    """

    def __init__(self, capacity_blocks: int) -> None:
        self._window_blocks = max(1, capacity_blocks // 100)
        self._protected_blocks = (capacity_blocks - self._window_blocks) * 4 // 5
        self._uses_left = self._sample = _USES_PER_BLOCK * capacity_blocks
        self._uses = Counter[BlockHash]()
        """How often names were asked for, halved from time to time; what is above fifteen counts as fifteen."""
        self._window: Queue = OrderedDict()
        self._probation: Queue = OrderedDict()
        self._protected: Queue = OrderedDict()
        self._waiting: set[BlockHash] = set()
        """Names that others must leave before. They contend as before, and are refused without being asked about."""

    def insert(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.insert``."""
        window, probation = self._window, self._probation
        for key in reversed(keys):
            window[key] = None
            if len(window) > self._window_blocks:
                probation[window.popitem(last=False)[0]] = None

    def touch(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.touch``."""
        self._count(keys)
        window, probation, protected = self._window, self._probation, self._protected
        renew = protected.move_to_end
        for key in reversed(keys):
            if key in protected:
                renew(key)
            elif key in probation:
                del probation[key]
                protected[key] = None
                if len(protected) > self._protected_blocks:
                    probation[protected.popitem(last=False)[0]] = None
            elif key in window:
                window.move_to_end(key)

    def remove(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.remove``."""
        self._waiting.difference_update(keys)
        for key in keys:
            for queue in (self._protected, self._probation, self._window):
                if key in queue:
                    del queue[key]
                    break

    def reconsider(self, key: BlockHash) -> None:
        """See ``Reconsidering.reconsider``."""
        self._waiting.discard(key)

    def evict(self, evictable: Evictable) -> Generator[BlockHash]:
        """See ``EvictionPolicy.evict``."""
        window, probation, protected = self._window, self._probation, self._protected
        uses, waiting = self._uses.get, self._waiting
        newcomers, main = walk(window), self._walk_main()
        candidate, victim = next(newcomers), next(main)
        while True:
            num = _MOST_USES if candidate is None else uses(candidate, 0)
            if victim is not None and (num >= _MOST_USES or num >= uses(victim, 0)):
                leaves = victim not in waiting and evictable(victim)
                if leaves:
                    del (probation if victim in probation else protected)[victim]
                if leaves and candidate is not None:
                    del window[candidate]
                    probation[candidate] = None
                    candidate = next(newcomers)
                key, victim = victim, next(main)
            elif candidate is not None:
                leaves = candidate not in waiting and evictable(candidate)
                if leaves:
                    del window[candidate]
                key, candidate = candidate, next(newcomers)
            else:
                return
            if leaves:
                yield key
            elif leaves is None:
                waiting.add(key)

    def __len__(self) -> int:
        return len(self._window) + len(self._probation) + len(self._protected)

    def _count(self, keys: Sequence[BlockHash]) -> None:
        self._uses.update(keys)
        self._uses_left -= len(keys)
        if self._uses_left <= 0:
            self._uses = Counter({key: min(num, _MOST_USES) >> 1 for key, num in self._uses.items() if num > 1})
            self._uses_left = self._sample

    def _walk_main(self) -> Generator[BlockHash | None]:
        """Names on probation, those that come there during a sweep too, and then the protected ones."""
        on_probation, protected = walk(self._probation), walk(self._protected)
        while True:
            key = next(on_probation)
            yield next(protected) if key is None else key
