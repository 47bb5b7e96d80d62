"""The contract of an eviction policy.

A policy orders the names of one tier's blocks, best to worst to keep. It knows nothing of
bytes, prefixes or other tiers: whether a victim may leave now is asked back through
``evictable``. Batches arrive in prefix order and are applied in reverse, so that within one
prompt the tail counts as older than the head and leaves first.

Source: the reversed free order is that of vLLM's free block queue; the verbs are those that
foyer and libCacheSim agree on.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Protocol

from kvtier.hashing import BlockHash


class EvictionPolicy(Protocol):
    """Order in which the blocks of one tier leave it.

    Not thread safe: the caller holds the placement's lock. Every call is amortised O(1) per
    name unless the implementation says otherwise.
    """

    def insert(self, keys: Sequence[BlockHash]) -> None:
        """Take up names that are not held. The caller guarantees that none is."""
        ...

    def touch(self, keys: Sequence[BlockHash]) -> None:
        """Count one use of each name; names that are not held are passed over."""
        ...

    def remove(self, keys: Sequence[BlockHash]) -> None:
        """Forget names without counting them as victims; absent names are passed over."""
        ...

    def evict(self, evictable: Callable[[BlockHash], bool]) -> Generator[BlockHash]:
        """One sweep over the held names, worst first.

        A name is yielded only if ``evictable`` said yes just before, and is no longer held
        from then on. A name that was refused keeps its place. The sweep asks about each name
        at most once and ends when it has asked about all; closing it early is normal. No other
        method may be called while a sweep is open.
        """
        ...

    def __len__(self) -> int:
        """Names held."""
        ...
