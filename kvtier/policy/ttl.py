"""TTL: a block lapses some time after it was written, or last used; another policy says who leaves a full tier.

    time of last use     names that may still have it
    12.0                 a b c             due at 12.0 + ttl
    14.5                 d c               c was used at 14.5 since: not due before

A use notes its time and moves nothing. When a group comes due, names used since go to the group of
their last use, so a name moves at most once in the time it lives for after a use.

Source: the prompt caches of public APIs: five minutes or an hour, refreshed on use (Anthropic), or a time set
when the cache is made (Google).
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from contextlib import closing

from kvtier.errors import ConfigError
from kvtier.hashing import BlockHash
from kvtier.policy.base import Arranging, Evictable, EvictionPolicy, Reconsidering, Setting
from kvtier.policy.lru import LRU


class TTL:
    """Time to live around an inner policy. Keeps the contract of ``Expiring`` too.

    Args:
        inner: Orders the names; used by nothing else.
        ttl_s: Seconds for which a block lives, above 0.
        clock: See ``Setting``.
        refresh: Whether a use begins a block's time anew. An ancestor then never lapses before a descendant.
        depth: See ``Setting``; of blocks that lapse at one moment the deepest is named first.

    Raises:
        ConfigError: A time that is no time to live.
    """

    def __init__(
        self,
        inner: EvictionPolicy,
        ttl_s: float,
        clock: Callable[[], float],
        refresh: bool = True,
        depth: Callable[[BlockHash], int] = lambda _: 0,
    ) -> None:
        if not ttl_s > 0:
            raise ConfigError(f"ttl of {ttl_s} s: a block must live for some time")
        self.inner = inner
        """Who leaves when room is needed."""
        # Asked once: to look for a protocol's methods takes longer than they do.
        self._arranging = inner if isinstance(inner, Arranging) else None
        self._reconsidering = inner if isinstance(inner, Reconsidering) else None
        self._ttl_s = ttl_s
        self._clock = clock
        self._refresh = refresh
        self._depth = depth
        self._since: dict[BlockHash, float] = {}
        """When the time of each held name began."""
        self._groups: dict[float, list[BlockHash]] = {}
        """Every held name is in the group of its time or of an earlier one."""
        self._times: list[float] = []
        """Heap of the groups' times."""
        self._entries = 0
        """Names in all groups, those gone or noted twice included."""

    def insert(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.insert``."""
        self.inner.insert(keys)
        now = self._clock()
        self._since.update(dict.fromkeys(keys, now))
        self._file(now, list(reversed(keys)))
        if self._entries > 2 * len(self._since) + 1000:
            self._compact()

    def touch(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.touch``."""
        self.inner.touch(keys)
        if self._refresh:
            since = self._since
            since.update(dict.fromkeys(filter(since.__contains__, keys), self._clock()))

    def arrange(self, keys: Sequence[BlockHash]) -> None:
        """See ``Arranging.arrange``: where the inner policy does it."""
        if self._arranging is not None:
            self._arranging.arrange(keys)

    def reconsider(self, key: BlockHash) -> None:
        """See ``Reconsidering.reconsider``: where the inner policy does it."""
        if self._reconsidering is not None:
            self._reconsidering.reconsider(key)

    def remove(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.remove``."""
        self.inner.remove(keys)
        for key in keys:
            self._since.pop(key, None)

    def evict(self, evictable: Evictable) -> Generator[BlockHash]:
        """See ``EvictionPolicy.evict``: in the order of the inner policy."""
        with closing(self.inner.evict(evictable)) as victims:
            for victim in victims:
                del self._since[victim]
                yield victim

    def __len__(self) -> int:
        return len(self._since)

    def lapsed(self) -> list[BlockHash]:
        """See ``Expiring.lapsed``."""
        last = self._clock() - self._ttl_s
        over: list[tuple[float, list[BlockHash]]] = []
        while self._times and self._times[0] <= last:
            time_s = heapq.heappop(self._times)
            names = self._groups.pop(time_s)
            self._entries -= len(names)
            by_time = defaultdict[float | None, list[BlockHash]](list)
            for key, since in zip(names, map(self._since.get, names), strict=True):
                by_time[since].append(key)
            by_time.pop(None, None)  # those that are gone
            if due := by_time.pop(time_s, None):
                over.append((time_s, sorted(dict.fromkeys(due), key=self._depth, reverse=True)))
            for since, later in by_time.items():
                assert since is not None
                self._file(since, later)
        for time_s, due in over:  # named again unless it is dropped
            self._file(time_s, due)
        return [key for _, due in over for key in due]

    def _file(self, time_s: float, names: list[BlockHash]) -> None:
        group = self._groups.get(time_s)
        if group is None:
            self._groups[time_s] = names
            heapq.heappush(self._times, time_s)
        else:
            group += names
        self._entries += len(names)

    def _compact(self) -> None:
        """Forget the entries of names that are gone."""
        self._groups.clear()
        self._times.clear()
        self._entries = 0
        for key, time_s in self._since.items():
            self._file(time_s, [key])


def ttl(setting: Setting, ttl_s: float = 300.0, *, refresh: bool = True, inner: EvictionPolicy | None = None) -> TTL:
    """The policy of ``ttl`` for a tier: blocks lapse, after five minutes unless told otherwise.

    Args:
        setting: Where it will work.
        ttl_s: See ``TTL``.
        refresh: See ``TTL``.
        inner: Who leaves when room is needed; LRU if None.

    Raises:
        ConfigError: There is no clock, or a time that is no time to live.
    """
    if setting.clock is None:
        raise ConfigError("ttl needs a clock, and its tier has none")
    return TTL(LRU() if inner is None else inner, ttl_s, setting.clock, refresh, setting.depth)
