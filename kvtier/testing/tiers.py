"""Tiers for tests: one that holds nothing, one that is slow, one that fails on schedule.

    MemoryTier  <-  SlowTier(latency_s, bytes_per_s)      every call takes longer
    MemoryTier  <-  FaultyTier(on("write", error, 3))     the third write raises, doing nothing

The slow and the faulty one hand every call on to a tier that works, so a test can look there,
behind the store's back, at what really happened.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from kvtier.errors import CorruptBlockError, TierClosedError, TierFullError
from kvtier.hashing import BlockHash, Label
from kvtier.tiers.base import Tier, check_blocks


class NullTier:
    """A tier with no room: every write is refused, nothing is ever held.

    Args:
        name: Labels errors and metrics.
        block_bytes: Payload bytes of one block.
    """

    durable = False
    any_device = True
    capacity_bytes = 0
    used_bytes = 0

    def __init__(self, name: str, *, block_bytes: int) -> None:
        self.name = name
        self.block_bytes = block_bytes
        self._pid = os.getpid()
        self._closed = False

    def contains(self, keys: Sequence[BlockHash]) -> int:  # noqa: ARG002  (the answer is always the same)
        """See ``Tier.contains``."""
        self._check_open()
        return 0

    def read(
        self, keys: Sequence[BlockHash], out: Sequence[torch.Tensor], labels: Sequence[Label] | None = None
    ) -> int:
        """See ``Tier.read``."""
        self._check_open()
        check_blocks(self.name, self.block_bytes, keys, out, labels)
        return 0

    def write(self, keys: Sequence[BlockHash], blocks: Sequence[torch.Tensor], labels: Sequence[Label]) -> None:
        """See ``Tier.write``."""
        self._check_open()
        check_blocks(self.name, self.block_bytes, keys, blocks, labels)
        if keys:
            raise TierFullError(self.name, f"{len(keys)} blocks do not fit: a NullTier holds none")

    def delete(self, keys: Sequence[BlockHash]) -> int:  # noqa: ARG002
        """See ``Tier.delete``."""
        self._check_open()
        return 0

    def scan(self) -> Iterable[tuple[BlockHash, Label]]:
        """See ``Tier.scan``."""
        self._check_open()
        return iter(())

    def flush(self) -> None:
        """See ``Tier.flush``."""
        self._check_open()

    def close(self) -> None:
        """See ``Tier.close``."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise TierClosedError(self.name, "used after close()")
        if os.getpid() != self._pid:
            raise TierClosedError(self.name, "used in a forked process; open a store of its own there")


class _Wrapped:
    """Hands every call on to another tier; takes its name, its sizes and its manners."""

    def __init__(self, inner: Tier) -> None:
        self.inner = inner
        self.name = inner.name
        self.capacity_bytes = inner.capacity_bytes
        self.block_bytes = inner.block_bytes
        self.durable = inner.durable
        self.any_device = inner.any_device

    @property
    def used_bytes(self) -> int:
        """See ``Tier.used_bytes``."""
        return self.inner.used_bytes

    def contains(self, keys: Sequence[BlockHash]) -> int:
        """See ``Tier.contains``."""
        self._before("contains")
        return self.inner.contains(keys)

    def read(
        self, keys: Sequence[BlockHash], out: Sequence[torch.Tensor], labels: Sequence[Label] | None = None
    ) -> int:
        """See ``Tier.read``."""
        self._before("read", len(keys))
        return self.inner.read(keys, out, labels)

    def write(self, keys: Sequence[BlockHash], blocks: Sequence[torch.Tensor], labels: Sequence[Label]) -> None:
        """See ``Tier.write``."""
        self._before("write", len(keys))
        self.inner.write(keys, blocks, labels)

    def delete(self, keys: Sequence[BlockHash]) -> int:
        """See ``Tier.delete``."""
        self._before("delete")
        return self.inner.delete(keys)

    def scan(self) -> Iterable[tuple[BlockHash, Label]]:
        """See ``Tier.scan``."""
        self._before("scan")
        return self.inner.scan()

    def flush(self) -> None:
        """See ``Tier.flush``."""
        self._before("flush")
        self.inner.flush()

    def close(self) -> None:
        """See ``Tier.close``."""
        self._before("close")
        self.inner.close()

    def _before(self, operation: str, num_blocks: int = 0) -> None:
        """What comes before each call; ``num_blocks`` is how many it asks to have moved."""


class SlowTier(_Wrapped):
    """A tier behind a slow line.

    Args:
        inner: The tier that does the work.
        latency_s: Every call takes this much longer.
        bytes_per_s: Reads and writes also take the time their batch needs at this rate, found or
            not; None for no limit.
        sleep: Waits that many seconds; a test passes a list's ``append`` and asks it later.
    """

    def __init__(
        self,
        inner: Tier,
        *,
        latency_s: float = 0.0,
        bytes_per_s: float | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        super().__init__(inner)
        self._latency_s = latency_s
        self._s_per_block = inner.block_bytes / bytes_per_s if bytes_per_s else 0.0
        self._sleep = sleep

    def _before(self, operation: str, num_blocks: int = 0) -> None:  # noqa: ARG002
        self._sleep(self._latency_s + num_blocks * self._s_per_block)


@dataclass(frozen=True, slots=True)
class ShortRead:
    """A read that ends early, as if block ``after`` were not held."""

    after: int


@dataclass(frozen=True, slots=True)
class Damaged:
    """A read that finds block ``block`` of its batch damaged; those before it are good."""

    block: int


Fault = Exception | ShortRead | Damaged
"""An exception is raised in the place of the call, and nothing is done."""

Faults = Callable[[str, int], Fault | None]
"""What goes wrong with a call, given its operation and its number among those, from 1."""


def on(operation: str, fault: Fault, *calls: int) -> Faults:
    """The schedule that fails the given calls of one operation, or all of them if none is given.

    Example:
        >>> schedule = on("write", OSError("gone"), 2, 3)
        >>> schedule("write", 1), schedule("write", 3), schedule("read", 3)
        (None, OSError('gone'), None)
    """

    def faults(called: str, number: int) -> Fault | None:
        return fault if called == operation and (not calls or number in calls) else None

    return faults


class FaultyTier(_Wrapped):
    """A tier whose calls go wrong when its schedule says so.

    Args:
        inner: The tier that does the work.
        faults: Asked before every call; see ``on`` for a simple one. A test may replace it later.
    """

    def __init__(self, inner: Tier, faults: Faults) -> None:
        super().__init__(inner)
        self.faults = faults
        self.calls: Counter[str] = Counter()
        """Calls so far by operation, those that went wrong included."""
        self._lock = threading.Lock()

    def read(
        self, keys: Sequence[BlockHash], out: Sequence[torch.Tensor], labels: Sequence[Label] | None = None
    ) -> int:
        """See ``Tier.read``."""
        fault = self._next("read")
        if fault is None:
            return self.inner.read(keys, out, labels)
        end = min(fault.after if isinstance(fault, ShortRead) else fault.block, len(keys))
        count = self.inner.read(keys[:end], out[:end], labels[:end] if labels is not None else None)
        if isinstance(fault, Damaged) and count == end < len(keys) and self.inner.contains(keys[end : end + 1]):
            raise CorruptBlockError(keys[end], "damaged on purpose")
        return count

    def _before(self, operation: str, num_blocks: int = 0) -> None:  # noqa: ARG002
        fault = self._next(operation)
        assert fault is None, f"{fault} is about a read, not {operation}"

    def _next(self, operation: str) -> ShortRead | Damaged | None:
        """Count one call and raise its fault, if it has one that can be raised."""
        with self._lock:
            self.calls[operation] += 1
            fault = self.faults(operation, self.calls[operation])
        if isinstance(fault, Exception):
            raise fault
        return fault
