"""The contract of an eviction policy.

A policy orders the names of one tier's blocks, best to worst to keep. It knows nothing of
bytes or other tiers, and of prefixes no more than a ``Setting`` tells: whether a victim may leave
now is asked back through ``evictable``. Batches arrive in prefix order and are applied in reverse, so that within one
prompt the tail counts as older than the head and leaves first.

Source: the reversed free order is that of vLLM's free block queue; the verbs are those that
foyer and libCacheSim agree on.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from kvtier.hashing import BlockHash

Evictable = Callable[[BlockHash], bool | None]
"""Whether a block may leave now. None is a no that lasts until others have left, see ``Reconsidering``."""


class EvictionPolicy(Protocol):
    """Order in which the blocks of one tier leave it.

    Not thread safe: the caller holds the placement's lock. Every call is amortised O(1) per
    name unless the implementation says otherwise.
    """

    def insert(self, keys: Sequence[BlockHash]) -> None:
        """Take up names that are not held. The caller guarantees that none is."""
        ...

    def touch(self, keys: Sequence[BlockHash]) -> None:
        """Count one use of each name of a prompt, in prefix order.

        Names that are not held are no uses; a policy may remember that they were asked for.
        """
        ...

    def remove(self, keys: Sequence[BlockHash]) -> None:
        """Forget names without counting them as victims; absent names are passed over."""
        ...

    def evict(self, evictable: Evictable) -> Generator[BlockHash]:
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


@runtime_checkable
class Arranging(Protocol):
    """A policy whose order depends on the order in which the blocks of one prompt came."""

    def arrange(self, keys: Sequence[BlockHash]) -> None:
        """Make a prompt's tail older than its head, in prefix order.

        Some of the names were touched and then the others inserted, which left the tail younger. It is
        no use, and nothing else changes; names that are not held are passed over.
        """
        ...


@runtime_checkable
class Reconsidering(Protocol):
    """A policy in whose order a block often comes before those that must leave first.

    It does not ask again about what was refused with None until it is told to, so that the heads of
    long prompts are not asked about in each sweep.
    """

    def reconsider(self, key: BlockHash) -> None:
        """Nothing has to leave before this block any more. Also during a sweep; other names are passed over."""
        ...


@runtime_checkable
class Expiring(Protocol):
    """A policy whose names also go by time, not only when room is needed."""

    def lapsed(self) -> list[BlockHash]:
        """Held names whose time is over by the clock, oldest first.

        The call removes none of them, and names those that are still held the next time again. Amortised
        O(1) for each name held plus what it returns.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a policy may know of its surroundings when it is made. Most use the capacity at most."""

    capacity_blocks: int
    """Blocks its tier may hold."""

    depth: Callable[[BlockHash], int] = lambda _: 0
    """Blocks before a held or arriving block in its prompt."""

    num_children: Callable[[BlockHash], int] = lambda _: 0
    """Held or arriving blocks that come right after a held one."""

    clock: Callable[[], float] | None = None
    """Seconds since some moment: real ones in a store, the trace's in a replay."""

    recompute_s: Callable[[int], float] = lambda depth: 1.0 + depth / 1000
    """Seconds to prefill one block at a depth, everything before it being cached. Only ratios matter."""

    load_s: tuple[float, float] | None = None
    """Seconds before the first block is loaded from the tier, and for each block; None where it is not known."""

    next_use: Callable[[BlockHash], int] | None = None
    """Number of the request that will use a block next, a replay's alone; beyond the last request if none will."""


class Admission(Protocol):
    """What is worth writing to one tier. Not thread safe: the caller holds the placement's lock."""

    def touch(self, keys: Sequence[BlockHash]) -> None:
        """A prompt with these blocks has arrived; some may not be held. In prefix order."""
        ...

    def admit(self, keys: Sequence[BlockHash]) -> int:
        """Length of the leading run of ``keys``, none of which the tier holds, that is worth writing to it."""
        ...
