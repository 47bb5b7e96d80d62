"""Which slots of the data file may be written.

    free ----take----> being written ----commit----> holds a block
      ^                                                    |
      '------- last reader is done <------leave------ its drop is committed

A slot is written in place, so it must not be written while anybody may still look at what it held
before. A reader that began before the drop was committed has seen the block in its snapshot;
one that began later cannot find it. So each drop waits for the readers of its time, and no
reader waits for anybody.

Source: epoch-based reclamation (K. Fraser, Practical lock-freedom, 2004).
"""

from __future__ import annotations

import heapq
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class Slots:
    """The slots that hold no block."""

    def __init__(self) -> None:
        self._free: list[int] = []
        """A heap: the lowest is taken first, so a store that is not full stays dense."""
        self._left: deque[tuple[int, list[int]]] = deque()
        """Slots whose block was dropped, with the epoch of the drop."""
        self._epoch = 0
        self._readers: Counter[int] = Counter()
        """Readers under way, by the epoch in which they began."""
        self._state = threading.Condition()

    @property
    def spare(self) -> int:
        """Slots that hold no block, those that wait for readers included."""
        with self._state:
            return len(self._free) + sum(len(slots) for _, slots in self._left)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """While this lasts, nothing dropped after its beginning is written over. Enter before taking a snapshot."""
        with self._state:
            began = self._epoch
            self._readers[began] += 1
        try:
            yield
        finally:
            with self._state:
                self._readers[began] -= 1
                if not self._readers[began]:
                    del self._readers[began]
                self._reclaim()

    def add(self, slots: Iterable[int]) -> None:
        """Slots that nobody can be reading: new ones, or ones whose write was not committed."""
        with self._state:
            if self._free:
                for slot in slots:
                    heapq.heappush(self._free, slot)
            else:
                self._free = sorted(slots)  # a heap as well, and the quick way for a whole empty disk
            self._state.notify_all()

    def leave(self, slots: Iterable[int]) -> None:
        """The drop of these slots' blocks is committed."""
        with self._state:
            self._left.append((self._epoch, list(slots)))
            self._epoch += 1
            self._reclaim()

    def take(self, count: int) -> list[int]:
        """Slots to write, lowest first; waits for readers of dropped blocks if that is what it takes.

        Raises:
            ValueError: There are not as many; see ``spare``.
        """
        with self._state:
            if count > len(self._free) + sum(len(slots) for _, slots in self._left):
                raise ValueError(f"{count} slots asked for, fewer are spare")
            self._state.wait_for(lambda: len(self._free) >= count)
            return [heapq.heappop(self._free) for _ in range(count)]

    def _reclaim(self) -> None:
        oldest = min(self._readers, default=self._epoch)
        while self._left and self._left[0][0] < oldest:
            for slot in self._left.popleft()[1]:
                heapq.heappush(self._free, slot)
        self._state.notify_all()
