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
from itertools import islice

from kvtier.hashing import BlockHash
from kvtier.policy.sweeping import Queue, walk

_MOST_USES = 3
_USES_TO_STAY = 2
"""A block on trial must be used this often to get into the main queue."""


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
        failed, unused = self._sweep_small(evictable), self._sweep_main(evictable)
        while True:
            main_is_full = len(self._main) > self._main_blocks
            for victims in (unused, failed, unused) if main_is_full else (failed, unused):
                victim = next(victims)
                if victim is not None:
                    break
            else:
                return
            self._has_evicted = True
            del self._uses[victim]
            yield victim

    def __len__(self) -> int:
        return len(self._uses)

    def _sweep_small(self, evictable: Callable[[BlockHash], bool]) -> Generator[BlockHash | None]:
        """Move what has passed its trial and take out what has failed; None whenever there is nothing."""
        uses, small, main, ghost = self._uses, self._small, self._main, self._ghost
        for key in walk(small):
            if key is None:
                yield None
            elif uses[key] >= _USES_TO_STAY:
                uses[key] = 0
                del small[key]
                main[key] = None
            elif evictable(key):
                del small[key]
                ghost[key] = None
                if len(ghost) > self._ghost_blocks:
                    ghost.popitem(last=False)
                yield key

    def _sweep_main(self, evictable: Callable[[BlockHash], bool]) -> Generator[BlockHash | None]:
        """Take out what was not used since its last turn; None whenever there is nothing."""
        uses, main = self._uses, self._main
        num_refused = 0
        while True:
            batch = list(islice(main, num_refused, 2 * num_refused + 2))  # as in ``walk``, but names come back
            for key in batch:
                if uses[key]:
                    uses[key] -= 1
                    main.move_to_end(key)
                elif evictable(key):
                    del main[key]
                    yield key
                else:
                    num_refused += 1
            if not batch:
                yield None
