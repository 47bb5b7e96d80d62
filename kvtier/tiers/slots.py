"""Which slots of the data file may be written.

    free ----take----> being written ----commit----> holds a block
      ^                                                    |
      '-- no reader is older than the drop <----leave------ its drop is committed

A slot is written in place, so it must not be written while anybody may still look at what it held
before. A reader holds a snapshot for as long as it looks. One taken before the drop was committed
has the block in it; one taken later has not. LMDB's reader table, which all processes share, says how
old the oldest snapshot is, and a reader that died is removed from it. So a drop waits for the
readers of its time, wherever they are, and no reader waits for anybody.

Source: LMDB's own reuse of pages (H. Chu, MDB: a memory-mapped database, 2011); epoch-based
reclamation (K. Fraser, Practical lock-freedom, 2004).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

_TAKEN, _FREE, _LEFT = 0, 1, 2


class Slots:
    """The slots of one environment, as its writer sees them. The caller holds the writers' lock."""

    def __init__(self) -> None:
        self._states = bytearray()
        self._counts = [0, 0, 0]
        self._lowest = 0
        """No slot before this one is free."""
        self._left: deque[tuple[int, list[int]]] = deque()
        """Slots whose block was dropped, by the commit of the drop, oldest first."""
        self._left_at: dict[int, int] = {}

    @property
    def spare(self) -> int:
        """Slots that hold no block, those that wait for readers included."""
        return self._counts[_FREE] + self._counts[_LEFT]

    @property
    def num(self) -> int:
        """All slots."""
        return len(self._states)

    def extend(self, count: int) -> None:
        """There are ``count`` slots now; new ones are taken until somebody frees them."""
        more = max(0, count - len(self._states))
        self._states += bytes(more)
        self._counts[_TAKEN] += more

    def free(self, slots: Iterable[int]) -> None:
        """Slots that nobody can be reading: new ones, or ones whose write was not committed."""
        for slot in slots:
            self._set(slot, _FREE)
            self._lowest = min(self._lowest, slot)

    def leave(self, slots: Iterable[int], commit: int) -> None:
        """The drop of these slots' blocks is committed; commits come in order.

        Args:
            slots: Whose blocks are gone.
            commit: LMDB's number of the commit, or of a later one if it is not known.
        """
        gone = list(slots)
        for slot in gone:
            self._set(slot, _LEFT)
            self._left_at[slot] = commit
        self._left.append((commit, gone))

    def occupy(self, slots: Iterable[int]) -> None:
        """Another process has written these slots, or they are not to be used."""
        for slot in slots:
            self._set(slot, _TAKEN)

    def take(self, count: int, oldest_reader: int) -> list[int] | None:
        """Slots to write, lowest first; None if readers hold up so many that too few are free.

        Args:
            count: How many; no more than are spare.
            oldest_reader: LMDB's number of the oldest snapshot that somebody reads.
        """
        assert count <= self.spare
        self._reclaim(oldest_reader)
        if count > self._counts[_FREE]:
            return None
        taken = []
        for _ in range(count):
            slot = self._states.find(_FREE, self._lowest)
            self._set(slot, _TAKEN)
            self._lowest = slot + 1
            taken.append(slot)
        return taken

    def _reclaim(self, oldest_reader: int) -> None:
        while self._left and self._left[0][0] <= oldest_reader:
            commit, slots = self._left.popleft()
            self.free(slot for slot in slots if self._left_at.get(slot) == commit)

    def _set(self, slot: int, state: int) -> None:
        self._counts[self._states[slot]] -= 1
        self._states[slot] = state
        self._counts[state] += 1
        if state != _LEFT:
            self._left_at.pop(slot, None)
