"""Blocks in one pool of memory: CPU, pinned CPU or a CUDA device.

The pool is allocated and touched once and cut into equal slots; a write takes a free slot, a
delete gives one back. Fresh memory costs many times a copy into memory already touched, so
nothing is allocated per block.

Copies run outside the lock. A slot being read is pinned; deleting its block makes it a miss at
once, but the slot is reused only after the last reader is done, so no reader sees the next
block's bytes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from kvtier.errors import ConfigError, CorruptBlockError, TierClosedError, TierFullError, TierUnavailableError
from kvtier.hashing import BlockHash, Label
from kvtier.tiers.base import Arrived, check_blocks, check_layers
from kvtier.tiers.batches import copy_across, copy_parts, wait_for
from kvtier.tiers.copying import Striper, copy_rows, touch
from kvtier.tiers.pages import page_aligned


class MemoryTier:
    """A tier in memory; see ``kvtier.tiers.base.Tier`` for the contract.

    ``read`` and ``write`` take buffers on the tier's device or on the CPU.

    Args:
        name: Labels errors and metrics.
        capacity_bytes: Size of the pool; rounded down to whole blocks.
        block_bytes: Payload bytes of one block.
        device: ``"cpu"`` or a CUDA device.
        pinned: Page-lock a CPU pool, so that copies to and from CUDA run at full speed.

    Raises:
        ConfigError: The capacity is below one block, or the device has not that much memory.
    """

    durable = False
    any_device = True

    def __init__(
        self,
        name: str,
        *,
        capacity_bytes: int,
        block_bytes: int,
        device: str | torch.device = "cpu",
        pinned: bool = False,
    ) -> None:
        num_slots = capacity_bytes // block_bytes
        if num_slots < 1:
            raise ConfigError(f"{name}: {capacity_bytes} bytes hold no block of {block_bytes} bytes; give it more or 0")
        self.name = name
        self.block_bytes = block_bytes
        self.capacity_bytes = num_slots * block_bytes
        self.device = torch.device(device)
        self._pool = _allocate(name, num_slots, block_bytes, self.device, pinned=pinned)
        self._rows = self._pool.numpy() if self.device.type == "cpu" else None
        self._pinned = pinned
        self._streams: dict[torch.device, torch.cuda.Stream] = {}
        """For layers on their way; one a device, since torch keeps memory for each stream it has seen."""
        self._striper = Striper(name)
        self._pid = os.getpid()
        self._closed = False
        self._slots: dict[BlockHash, int] = {}
        self._labels: dict[BlockHash, Label] = {}
        self._free = list(range(num_slots - 1, -1, -1))
        self._readers = [0] * num_slots
        self._orphans: set[int] = set()
        """Slots whose block was deleted while being read."""
        self._state = threading.Condition()
        self._writing = threading.Lock()

    @property
    def used_bytes(self) -> int:
        """See ``Tier.used_bytes``."""
        return len(self._slots) * self.block_bytes

    def contains(self, keys: Sequence[BlockHash]) -> int:
        """See ``Tier.contains``."""
        self._check_open()
        with self._state:
            return next((i for i, key in enumerate(keys) if key not in self._slots), len(keys))

    def read(
        self, keys: Sequence[BlockHash], out: Sequence[torch.Tensor], labels: Sequence[Label] | None = None
    ) -> int:
        """See ``Tier.read``."""
        self._check_open()
        check_blocks(self.name, self.block_bytes, keys, out, labels)
        return self._deliver(keys, labels, lambda slots: self._copy(slots, out[: len(slots)], out=True))

    def read_parts(
        self,
        keys: Sequence[BlockHash],
        out: Sequence[torch.Tensor],
        labels: Sequence[Label] | None,
        parts: Sequence[slice],
        arrived: Arrived,
    ) -> int:
        """See ``LayeredTier.read_parts``. Between devices, on a CUDA stream of its own."""
        self._check_open()
        check_blocks(self.name, self.block_bytes, keys, out, labels)
        check_layers(self.name, keys, out, parts)

        def copy(slots: list[int]) -> None:
            if len(slots) < len(keys):
                self._copy(slots, out[: len(slots)], out=True)
            elif self._rows is not None and all(block.is_cpu for block in out):
                for number, layers in enumerate(parts):
                    copy_rows(self._striper, self._rows, slots, out, out=True, layers=layers)
                    arrived(number, None)
            else:
                self._queue_parts(slots, out, parts, arrived)

        return self._deliver(keys, labels, copy)

    def write(self, keys: Sequence[BlockHash], blocks: Sequence[torch.Tensor], labels: Sequence[Label]) -> None:
        """See ``Tier.write``."""
        self._check_open()
        check_blocks(self.name, self.block_bytes, keys, blocks, labels)
        with self._writing:
            self._check_open()  # again: close() may have held the lock before us
            news: dict[BlockHash, int] = {}
            for i, key in enumerate(keys):
                if key not in self._slots:
                    news.setdefault(key, i)
            slots = self._take(len(news))
            try:
                with self._translated():
                    self._copy(slots, [blocks[i] for i in news.values()], out=False)
            except BaseException:
                with self._state:
                    self._free += slots
                raise
            with self._state:
                self._slots.update(zip(news, slots, strict=True))
                # The tail first, as scan lists them.
                self._labels.update((key, labels[i]) for key, i in reversed(news.items()))

    def delete(self, keys: Sequence[BlockHash]) -> int:
        """See ``Tier.delete``."""
        self._check_open()
        with self._writing, self._state:
            slots = [self._slots.pop(key) for key in dict.fromkeys(keys) if key in self._slots]
            for key in keys:
                self._labels.pop(key, None)
            for slot in slots:
                if self._readers[slot]:
                    self._orphans.add(slot)
                else:
                    self._free.append(slot)
        return len(slots)

    def scan(self) -> Iterator[tuple[BlockHash, Label]]:
        """See ``Tier.scan``."""
        self._check_open()
        with self._state:
            return iter(list(self._labels.items()))

    def flush(self) -> None:
        """Memory is as durable as it gets."""
        self._check_open()

    def close(self) -> None:
        """See ``Tier.close``. In a forked child it does nothing: its locks may be held by threads left behind."""
        if os.getpid() != self._pid:
            return
        with self._writing, self._state:
            if self._closed:
                return
            self._state.wait_for(lambda: not any(self._readers))
            self._closed = True
            self._slots.clear()
            self._labels.clear()
        self._striper.close()
        if self._pinned:
            _cudart().cudaHostUnregister(self._pool.data_ptr())
        self._rows = None
        self._pool = self._pool.new_empty(0)

    def _deliver(
        self, keys: Sequence[BlockHash], labels: Sequence[Label] | None, copy: Callable[[list[int]], None]
    ) -> int:
        """Copy the leading run out of its slots, which keep their bytes meanwhile; its length."""
        slots, liar = self._pin(keys, labels)
        try:
            with self._translated():
                copy(slots)
        finally:
            self._unpin(slots)
        if liar is not None:
            raise CorruptBlockError(liar, "the stored token ids are not those of the prompt")
        return len(slots)

    def _queue_parts(
        self, slots: list[int], out: Sequence[torch.Tensor], parts: Sequence[slice], arrived: Arrived
    ) -> None:
        """All parts on a stream of their own, so that they neither wait for the model's kernels nor hold them up."""
        device = next(tensor.device for tensor in (self._pool, *out) if tensor.device.type != "cpu")
        stream = self._streams.get(device)
        if stream is None:
            made: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            stream = self._streams.setdefault(device, made)
        with torch.cuda.stream(stream):
            try:
                for number in copy_parts(self._pool, slots, out, parts):
                    arrived(number, stream.record_event())
            finally:
                stream.synchronize()

    def _copy(self, slots: Sequence[int], blocks: Sequence[torch.Tensor], *, out: bool) -> None:
        """Between slots and buffers: ``out`` of the pool, or into it."""
        if self._rows is not None and all(block.is_cpu for block in blocks):
            copy_rows(self._striper, self._rows, slots, blocks, out=out)
            return
        try:
            copy_across(self._pool, slots, blocks, out=out)
        finally:  # also after an error: the caller is about to reuse memory that is being copied to
            wait_for(self._pool, *blocks)

    def _pin(self, keys: Sequence[BlockHash], labels: Sequence[Label] | None) -> tuple[list[int], BlockHash | None]:
        """Slots of the leading run, each protected from reuse, and a block whose label differs, if one ends it."""
        slots: list[int] = []
        with self._state:
            for i, key in enumerate(keys):
                slot = self._slots.get(key)
                if slot is None:
                    break
                if labels is not None and self._labels[key] != labels[i]:
                    return slots, key
                self._readers[slot] += 1
                slots.append(slot)
        return slots, None

    def _unpin(self, slots: list[int]) -> None:
        with self._state:
            for slot in slots:
                self._readers[slot] -= 1
                if slot in self._orphans and not self._readers[slot]:
                    self._orphans.discard(slot)
                    self._free.append(slot)
            self._state.notify_all()

    def _take(self, count: int) -> list[int]:
        """Free slots, waiting for readers of deleted blocks if that is what it takes."""
        with self._state:
            if count > len(self._free) + len(self._orphans):
                total = len(self._readers)
                raise TierFullError(
                    self.name, f"{count} blocks do not fit: {len(self._free)} of {total} slots are free"
                )
            self._state.wait_for(lambda: len(self._free) >= count)
            # In order: what follows each other in a prompt is then copied by one call, see kvtier.tiers.batches.
            return sorted(self._free.pop() for _ in range(count))

    def _check_open(self) -> None:
        if self._closed:
            raise TierClosedError(self.name, "used after close()")
        if os.getpid() != self._pid:
            raise TierClosedError(self.name, "used in a forked process; open a store of its own there")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise kvtier's error in place of the device's."""
        try:
            yield
        except RuntimeError as exc:
            raise TierUnavailableError(self.name, f"copy failed: {exc}") from exc


def _allocate(name: str, num_slots: int, block_bytes: int, device: torch.device, *, pinned: bool) -> torch.Tensor:
    try:
        if device.type == "cpu":
            pool = torch.from_numpy(page_aligned(num_slots * block_bytes)).view(num_slots, block_bytes)
        else:
            pool = torch.empty((num_slots, block_bytes), dtype=torch.uint8, device=device)
    except (RuntimeError, OSError, OverflowError) as exc:
        size = num_slots * block_bytes
        raise ConfigError(f"{name}: {device} has no room for a pool of {size} bytes; give it less: {exc}") from exc
    touch(pool)
    if pinned:
        # Registered in place: torch's own pinned allocator rounds a pool up to a power of two.
        status = _cudart().cudaHostRegister(pool.data_ptr(), pool.numel(), 0)
        if int(status) != 0:
            raise ConfigError(
                f"{name}: CUDA cannot page-lock {pool.numel()} bytes (status {int(status)}); give it less"
            )
    return pool


def _cudart() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
