"""S3-FIFO: a small queue on trial, a main queue, and the names of those that failed.

    new ->  small (10 %)  -- used twice -->  main (90 %)  <-+
                |                              |            | used: again, with one use less
                | not                          +------------+
                v                              v  not used
          leaves; its name -> ghost          leaves
                                |
    new and in the ghost -------+--> main

Most blocks of a workload are used once; a small queue gets rid of them soon. Uses are counted up
to three.

Source: Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023, in the form
that libCacheSim has given it since: the ghost holds 0.9 of the capacity, moving to the main
queue takes two uses, and until the first eviction what the small queue has no room for goes
to the main one. Differs from it in that a batch is applied tail first, that ``evictable`` can
veto a victim, which keeps its place, and that the small queue holds one block at least.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator, Sequence

from kvtier.hashing import BlockHash
from kvtier.policy.sweeping import Queue, put_back

_MOST_USES = 3
_USES_TO_STAY = 2
"""A block on trial must be used this often to get into the main queue."""

_Refused = list[tuple[BlockHash, Queue]]


class S3FIFO:
    """Three static FIFO queues.

    Args:
        capacity_blocks: Blocks its tier may hold.
    """

    def __init__(self, capacity_blocks: int) -> None:
        self._small_blocks = max(1, capacity_blocks // 10)
        self._main_blocks = capacity_blocks - self._small_blocks
        self._ghost_blocks = capacity_blocks * 9 // 10
        self._uses: dict[BlockHash, int] = {}
        """Of each name held, since it came into its queue; three at most."""
        self._small: Queue = OrderedDict()
        self._main: Queue = OrderedDict()
        self._ghost: Queue = OrderedDict()
        """Names that left the small queue, oldest first."""
        self._returning: Queue = OrderedDict()
        """Names of the ghost that were asked for again and are not held yet."""
        self._has_evicted = False

    def insert(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.insert``."""
        uses, small, main, returning = self._uses, self._small, self._main, self._returning
        ghost, overflows = self._ghost, not self._has_evicted
        for key in reversed(keys):
            uses[key] = 0
            if key in returning:
                del returning[key]
                main[key] = None
            elif overflows and len(small) >= self._small_blocks:
                main[key] = None
            else:
                small[key] = None
                ghost.pop(key, None)

    def touch(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.touch``. Names of the ghost are remembered until they are inserted."""
        uses, ghost, returning = self._uses, self._ghost, self._returning
        get = uses.get
        for key in keys:
            num = get(key)
            if num is not None:
                if num < _MOST_USES:
                    uses[key] = num + 1
            elif key in ghost:
                del ghost[key]
                returning[key] = None
        while len(returning) > self._ghost_blocks:
            returning.popitem(last=False)

    def remove(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.remove``."""
        for key in keys:
            if self._uses.pop(key, None) is not None:
                del (self._small if key in self._small else self._main)[key]

    def evict(self, evictable: Callable[[BlockHash], bool]) -> Generator[BlockHash]:
        """See ``EvictionPolicy.evict``."""
        refused_small, refused_main = _Refused(), _Refused()
        try:
            while self._small or self._main:
                main_is_full = len(self._main) + len(refused_main) > self._main_blocks
                if self._main and (main_is_full or not self._small):
                    victim = self._leave_main(evictable, refused_main)
                else:
                    victim = self._leave_small(evictable, refused_small)
                if victim is not None:
                    self._has_evicted = True
                    del self._uses[victim]
                    yield victim
        finally:
            put_back(refused_small + refused_main)

    def __len__(self) -> int:
        return len(self._uses)

    def _leave_small(
        self, evictable: Callable[[BlockHash], bool], refused: list[tuple[BlockHash, Queue]]
    ) -> BlockHash | None:
        """Take out the oldest on trial that has failed; None if there is none that may leave."""
        uses, small, main, ghost = self._uses, self._small, self._main, self._ghost
        while small:
            key, _ = small.popitem(last=False)
            if uses[key] >= _USES_TO_STAY:
                uses[key] = 0
                main[key] = None
            elif evictable(key):
                ghost[key] = None
                if len(ghost) > self._ghost_blocks:
                    ghost.popitem(last=False)
                return key
            else:
                refused.append((key, small))
        return None

    def _leave_main(
        self, evictable: Callable[[BlockHash], bool], refused: list[tuple[BlockHash, Queue]]
    ) -> BlockHash | None:
        """Take out the oldest that was not used since its last turn; None if there is none that may leave."""
        uses, main = self._uses, self._main
        while main:
            key, _ = main.popitem(last=False)
            if uses[key]:
                uses[key] -= 1
                main[key] = None
            elif evictable(key):
                return key
            else:
                refused.append((key, main))
        return None
