"""Direct reads of many records as one queue of small requests.

    records      0           1           2
    requests   |a|b|c|     |d|e|f|     |g|h|i|      any thread takes the next one
                     `- last one answered: the record is whole, and that thread verifies it

A thread that read, verified and copied one record after another would leave the disk idle while it
computes, and all of them do so at the same moment, because they began together. Taken from one
queue in order, the first record is whole after a few requests; from then on one or two threads
compute while the rest keep the disk's queue full.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence

from kvtier.format import PAGE_BYTES, Bytes
from kvtier.tiers.pages import page_aligned

#: What a direct read's file offset, length and address must be multiples of.
ALIGN_BYTES = PAGE_BYTES

#: Bytes of one request; many middling requests in flight beat a few large ones.
REQUEST_BYTES = 256 << 10


class Buffers:
    """Aligned, touched memory for records on their way, made once and lent out.

    Args:
        span: Bytes of one buffer.
        count: Buffers made now. One more is made when they are all out, and kept.
    """

    def __init__(self, span: int, count: int) -> None:
        self._span = span
        step = -(-span // ALIGN_BYTES) * ALIGN_BYTES
        memory = page_aligned(step * count)
        memory.fill(0)
        self._free = [memory[i * step : i * step + span] for i in range(count)]

    def take(self) -> Bytes:
        """A buffer that nobody else has."""
        try:
            return self._free.pop()
        except IndexError:
            return page_aligned(self._span)

    def give_back(self, buffer: Bytes) -> None:
        """The buffer's bytes are not needed any more."""
        self._free.append(buffer)

    def reclaim(self, reading: Reading) -> None:
        """Nobody looks at a record's bytes any more."""
        if reading.buffer is not None:
            self.give_back(reading.buffer)
            reading.buffer = None


class Reading:
    """One record being read from its place."""

    __slots__ = ("_at", "_end", "_failed", "_left", "_start", "buffer", "length")

    def __init__(self, offset: int, length: int) -> None:
        self._start = offset // ALIGN_BYTES * ALIGN_BYTES
        self._end = -(-(offset + length) // ALIGN_BYTES) * ALIGN_BYTES
        self._at = offset - self._start
        self._left = len(self.requests())
        self._failed = False
        self.length = length
        self.buffer: Bytes | None = None

    def requests(self) -> Sequence[int]:
        """Where in the buffer each request begins."""
        return range(0, self._end - self._start, REQUEST_BYTES)

    def carry_out(self, at: int, file: int, buffers: Buffers, lock: threading.Lock) -> bool:
        """One request; True if it was the last of this record that was missing."""
        with lock:
            if self.buffer is None:
                self.buffer = buffers.take()
            buffer = self.buffer
        piece = buffer[at : min(at + REQUEST_BYTES, self._end - self._start)]
        try:
            failed = os.preadv(file, [piece.data], self._start + at) < len(piece)
        except (OSError, OverflowError):
            failed = True
        with lock:
            self._failed |= failed
            self._left -= 1
            return self._left == 0

    def record(self) -> Bytes | None:
        """The bytes at the place, once every request is answered; None if one failed."""
        if self._failed or self.buffer is None:
            return None
        return self.buffer[self._at : self._at + self.length]


Job = Bytes | Reading
"""A record in memory, or one on disk."""


def turns_of(job: Job) -> Iterable[int]:
    """The turns a record takes: a request each if it is read from disk, one if it is in memory."""
    return job.requests() if isinstance(job, Reading) else [0]
