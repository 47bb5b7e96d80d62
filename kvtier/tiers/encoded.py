"""Any tier, with its blocks in a storage format: raw blocks outside, encoded ones inside.

    read     inner.read -> scratch -> decode -> the caller's buffers      in parts, decoded on a few threads
    write    encode -> scratch -> inner.write                             the whole batch in one call

The inner tier sees blocks of another size under the same names, and verifies them as it does any
block. It also holds the books: names, labels, order and durability are its own.

Capacity is counted outside as well as inside in blocks, so a disk of 8 GiB with a format that
halves a block says that it holds 16 GiB.

A block that the format cannot keep is refused by name, and the others of its batch are stored. It
costs a recompute, as a block does that is lost on its way down.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch

from kvtier.errors import BlockRefusedError, CorruptBlockError, SpecMismatchError, TierClosedError
from kvtier.formats.base import Codec
from kvtier.hashing import BlockHash, Label, Namespace
from kvtier.tiers.base import Namespaced, News, SharedTier, Tier, check_blocks
from kvtier.tiers.copying import Striper
from kvtier.tiers.pages import page_aligned

log = logging.getLogger("kvtier")

#: Encoded bytes read before they are decoded: enough for a disk's queue, and bounded.
_PART_BYTES = 32 << 20

#: Scratch that is kept for the next call.
_KEPT_BYTES = 64 << 20


class EncodedTier:
    """A tier whose blocks are kept in a storage format; see ``kvtier.tiers.base.Tier`` for the contract.

    ``read`` and ``write`` take CPU buffers. Of a tier whose format is not exact, what is read is close
    to what was written, and not the same: its store needs a namespace of its own, see
    ``kvtier.formats.base.in_format``.

    Args:
        inner: The tier that keeps the encoded blocks; closed with this one.
        codec: The format.
        threads: Blocks encoded or decoded at a time.

    Raises:
        SpecMismatchError: The inner tier's blocks have another size than the format's.
    """

    any_device = False

    def __init__(self, inner: Tier, codec: Codec, *, threads: int | None = None) -> None:
        if inner.block_bytes != codec.encoded_bytes:
            raise SpecMismatchError(
                f"{inner.name}: tier holds blocks of {inner.block_bytes} bytes, {codec.name} blocks have "
                f"{codec.encoded_bytes}"
            )
        self.inner = inner
        self.codec = codec
        self.name = inner.name
        self.durable = inner.durable
        self.block_bytes = codec.spec.block_bytes
        self.capacity_bytes = inner.capacity_bytes // inner.block_bytes * self.block_bytes
        self._striper = Striper(f"{inner.name}-{codec.name}", threads or min(8, os.cpu_count() or 1))
        self._pid = os.getpid()
        self._state = threading.Condition()
        """Guards what follows."""
        self._busy = 0
        self._closed = False
        self._warned = False
        self._spare: list[torch.Tensor] = []

    @property
    def used_bytes(self) -> int:
        """See ``Tier.used_bytes``: of the blocks as they are outside."""
        return self.inner.used_bytes // self.inner.block_bytes * self.block_bytes

    def contains(self, keys: Sequence[BlockHash]) -> int:
        """See ``Tier.contains``."""
        return self.inner.contains(keys)

    def read(
        self, keys: Sequence[BlockHash], out: Sequence[torch.Tensor], labels: Sequence[Label] | None = None
    ) -> int:
        """See ``Tier.read``."""
        with self._held_open():
            check_blocks(self.name, self.block_bytes, keys, out, labels)
            step = max(1, _PART_BYTES // self.inner.block_bytes)
            for start in range(0, len(keys), step):
                part = slice(start, start + step)
                count = self._read_part(keys[part], out[part], None if labels is None else labels[part])
                if count < len(keys[part]):
                    return start + count
        return len(keys)

    def write(self, keys: Sequence[BlockHash], blocks: Sequence[torch.Tensor], labels: Sequence[Label]) -> None:
        """See ``Tier.write``. The encoded batch is in memory as a whole before any of it is stored."""
        with self._held_open():
            check_blocks(self.name, self.block_bytes, keys, blocks, labels)
            with self._scratch(len(keys)) as encoded:
                reasons = self._encode(keys, blocks, encoded)
                good = [i for i in range(len(keys)) if i not in reasons]
                self.inner.write([keys[i] for i in good], [encoded[i] for i in good], [labels[i] for i in good])
            if reasons:
                self._refuse(keys, reasons)

    def delete(self, keys: Sequence[BlockHash]) -> int:
        """See ``Tier.delete``."""
        return self.inner.delete(keys)

    def scan(self) -> Iterable[tuple[BlockHash, Label]]:
        """See ``Tier.scan``."""
        return self.inner.scan()

    @property
    def shared(self) -> bool:
        """See ``SharedTier.shared``."""
        return isinstance(self.inner, SharedTier) and self.inner.shared

    @property
    def hindrance(self) -> str | None:
        """See ``SharedTier.hindrance``."""
        return self.inner.hindrance if isinstance(self.inner, SharedTier) else None

    def news(self) -> News | None:
        """See ``SharedTier.news``."""
        return self.inner.news() if isinstance(self.inner, SharedTier) else None

    def introduce(self, namespace: Namespace) -> Sequence[Namespaced]:
        """See ``SharedTier.introduce``."""
        return self.inner.introduce(namespace) if isinstance(self.inner, SharedTier) else ()

    def flush(self) -> None:
        """See ``Tier.flush``."""
        self.inner.flush()

    def close(self) -> None:
        """See ``Tier.close``. Waits for calls that move blocks; in a forked child it does nothing."""
        if os.getpid() != self._pid:
            return
        with self._state:
            self._closed = True
            self._state.wait_for(lambda: not self._busy)
            self._spare.clear()
        self.inner.close()
        self._striper.close()

    def _read_part(self, keys: Sequence[BlockHash], out: Sequence[torch.Tensor], labels: Sequence[Label] | None) -> int:
        """Read and decode the leading run; what ends it is raised after the blocks before it are there."""
        with self._scratch(len(keys)) as encoded:
            damage: dict[int, CorruptBlockError] = {}
            try:
                count = self.inner.read(keys, encoded, labels)
            except CorruptBlockError as exc:
                count = keys.index(BlockHash(exc.key))
                damage[count] = exc

            def work(mine: Iterator[int]) -> None:
                for i in mine:
                    try:
                        self.codec.decode(keys[i], encoded[i], out[i])
                    except CorruptBlockError as exc:
                        damage[i] = exc

            self._striper.run(count, work, self._striper.threads)
        if damage:
            raise damage[min(damage)]
        return count

    def _encode(
        self, keys: Sequence[BlockHash], blocks: Sequence[torch.Tensor], encoded: Sequence[torch.Tensor]
    ) -> dict[int, str]:
        """Encode each block; returns why some were not, by position."""
        reasons: dict[int, str] = {}

        def work(mine: Iterator[int]) -> None:
            for i in mine:
                reason = self.codec.encode(keys[i], blocks[i], encoded[i])
                if reason is not None:
                    reasons[i] = reason

        self._striper.run(len(blocks), work, self._striper.threads)
        return reasons

    def _refuse(self, keys: Sequence[BlockHash], reasons: dict[int, str]) -> None:
        """Say which blocks are not stored; also in the log, the first time, because nobody else will."""
        first = min(reasons)
        error = BlockRefusedError(
            self.name,
            f"{self.codec.name} cannot keep {len(reasons)} of {len(keys)} blocks; "
            f"block {keys[first].hex()[:12]}: {reasons[first]}",
            frozenset(keys[i] for i in reasons),
        )
        with self._state:
            first_time, self._warned = not self._warned, True
        if first_time:
            log.warning("%s; such blocks are computed again, and this is said once", error)
        raise error

    @contextmanager
    def _held_open(self) -> Iterator[None]:
        """Keep ``close`` waiting; the threads that encode and decode do not outlive it, nor reach a forked child."""
        if os.getpid() != self._pid:
            raise TierClosedError(self.name, "used in a forked process; open a store of its own there")
        with self._state:
            if self._closed:
                raise TierClosedError(self.name, "used after close()")
            self._busy += 1
        try:
            yield
        finally:
            with self._state:
                self._busy -= 1
                self._state.notify_all()

    @contextmanager
    def _scratch(self, count: int) -> Iterator[Sequence[torch.Tensor]]:
        """Room for ``count`` encoded blocks, page-aligned, so that a disk can write from it directly."""
        size = self.inner.block_bytes
        with self._state:
            at = next((i for i, spare in enumerate(self._spare) if len(spare) >= count), None)
            memory = None if at is None else self._spare.pop(at)
        if memory is None:
            memory = torch.from_numpy(page_aligned(max(1, count) * size)).view(-1, size)
        try:
            yield list(memory[:count])
        finally:
            with self._state:
                kept = sum(spare.numel() for spare in self._spare) + memory.numel()
                if not self._closed and kept <= _KEPT_BYTES:
                    self._spare.append(memory)
