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
from collections.abc import Generator, Sequence
from itertools import islice

from kvtier.hashing import BlockHash
from kvtier.policy.base import Evictable
from kvtier.policy.sweeping import Aside, Queue, walk

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
        self._small_aside, self._main_aside = Aside(), Aside()
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
                    if num < _USES_TO_STAY:
                        self._take_back(key, num + 1)
            elif key in ghost:
                del ghost[key]
                returning[key] = None
        while len(returning) > self._ghost_blocks:
            returning.popitem(last=False)

    def remove(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.remove``."""
        for key in keys:
            if self._uses.pop(key, None) is None:
                continue
            if not (self._small_aside.discard(key) or self._main_aside.discard(key)):
                del (self._small if key in self._small else self._main)[key]

    def reconsider(self, key: BlockHash) -> None:
        """See ``Reconsidering.reconsider``."""
        self._small_aside.free(key)
        self._main_aside.free(key)

    def evict(self, evictable: Evictable) -> Generator[BlockHash]:
        """See ``EvictionPolicy.evict``."""
        failed, unused = self._sweep_small(evictable), self._sweep_main(evictable)
        try:
            while True:
                main_is_full = len(self._main) + len(self._main_aside) > self._main_blocks
                for victims in (unused, failed, unused) if main_is_full else (failed, unused):
                    victim = next(victims)
                    if victim is not None:
                        break
                else:
                    return
                self._has_evicted = True
                del self._uses[victim]
                yield victim
        finally:
            self._small_aside.end()
            self._main_aside.end()

    def __len__(self) -> int:
        return len(self._uses)

    def _sweep_small(self, evictable: Evictable) -> Generator[BlockHash | None]:
        """Move what has passed its trial and take out what has failed; None whenever there is nothing."""
        uses, small, main, aside = self._uses, self._small, self._main, self._small_aside
        queue = walk(small)
        while True:
            key = aside.pop()
            was_aside = key is not None
            if key is None and (key := next(queue)) is None:
                yield None
                continue
            passed = uses[key] >= _USES_TO_STAY
            leaves = False if passed else evictable(key)
            if not was_aside and (passed or leaves is not False):
                del small[key]
            if passed:
                uses[key] = 0
                main[key] = None
            elif leaves:
                self._note_failed(key)
                yield key
            elif leaves is None:
                aside.put(key)
            elif was_aside:
                aside.refuse(key)

    def _take_back(self, key: BlockHash, num_uses: int) -> None:
        """A use decides on a name that stands aside, as on one that is met in its queue."""
        if num_uses < _USES_TO_STAY:
            if self._main_aside.discard(key):
                self._main[key] = None
        elif self._small_aside.discard(key):
            self._uses[key] = 0
            self._main[key] = None

    def _note_failed(self, key: BlockHash) -> None:
        self._ghost[key] = None
        if len(self._ghost) > self._ghost_blocks:
            self._ghost.popitem(last=False)

    def _sweep_main(self, evictable: Evictable) -> Generator[BlockHash | None]:
        """Take out what was not used since its last turn; None whenever there is nothing."""
        uses, main, aside = self._uses, self._main, self._main_aside
        num_refused, batch = 0, list[BlockHash]()
        while True:
            key = aside.pop()
            was_aside = key is not None
            if key is None:
                if not batch:  # as in ``walk``, but names come back
                    batch = list(islice(main, num_refused, 2 * num_refused + 2))[::-1]
                if not batch:
                    yield None
                    continue
                key = batch.pop()
            if uses[key]:
                uses[key] -= 1
                main[key] = None
                main.move_to_end(key)
                continue
            leaves = evictable(key)
            if not was_aside and leaves is not False:
                del main[key]
            if leaves:
                yield key
            elif leaves is None:
                aside.put(key)
            elif was_aside:
                aside.refuse(key)
            else:
                num_refused += 1
