"""Where each record lies in the data file, and reading it there without the map.

A record of this size is one run of pages that does not move until it is deleted. Its place is
the address LMDB gave for it less the address of the map, known as soon as the record has been
looked at once, and kept in the environment for the next process.

Why go around the map: a page fault asks the disk for one read-ahead window and waits. A direct
read asks for the whole record, goes into a buffer that is reused, and leaves the page cache
alone. Pages that are in memory already are better read through the map. So the map's read-ahead
is off, or each look into the index would fetch megabytes of records around it, and on only while
records without a known place are faulted in.

Nothing here is trusted: the caller reads under a transaction that protects the pages and
verifies the record; a place that turns out wrong costs one read.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from kvtier.format import PAGE_BYTES, Bytes
from kvtier.hashing import BlockHash
from kvtier.tiers.requests import ALIGN_BYTES, Buffers, Reading

_LIBC = ctypes.CDLL(None)
_LIBC.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
_LIBC.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class Extents:
    """Places of records in one data file.

    Args:
        data: The file that LMDB has mapped in this process.
        record_bytes: Length of every record.
        readers: Threads that will read; a buffer for each is made and touched now.
    """

    def __init__(self, data: Path, record_bytes: int, readers: int) -> None:
        self.learned: dict[BlockHash, int] = {}
        """Places not yet kept in the environment."""
        self._record_bytes = record_bytes
        self._lock = threading.Lock()
        self._direct: int | None = None
        self._map, self._map_bytes = _find_map(data)
        self._faulting = 0
        self._advising = threading.Lock()
        self._file_bytes = data.stat().st_size
        flag = getattr(os, "O_DIRECT", 0)
        if flag and self._map is not None:
            try:
                self._direct = os.open(data, os.O_RDONLY | os.O_CLOEXEC | flag)
            except OSError:  # the file system does not do it; the map does everything
                self._direct = None
        if self.usable:
            self._advise(mmap.MADV_RANDOM)
        span = -(-(record_bytes + 2 * ALIGN_BYTES) // ALIGN_BYTES) * ALIGN_BYTES
        self._buffers = Buffers(span, readers + 1 if self.usable else 0)

    @property
    def usable(self) -> bool:
        """Whether records can be read around the map."""
        return self._direct is not None

    @contextmanager
    def read_ahead(self, *, on: bool) -> Iterator[None]:
        """While this lasts, faults on the map fetch what follows as well, if ``on``."""
        if not (on and self.usable):
            yield
            return
        with self._advising:
            self._faulting += 1
            self._advise(mmap.MADV_NORMAL)
        try:
            yield
        finally:
            with self._advising:
                self._faulting -= 1
                if not self._faulting:
                    self._advise(mmap.MADV_RANDOM)

    def place(self, record: Bytes) -> int | None:
        """Offset in the file of a record seen through the map."""
        if self._map is None or not self.usable:
            return None
        return int(record.ctypes.data) - self._map

    def resident(self, offset: int) -> bool:
        """Whether a record's first and last page are in the page cache. Starts no I/O.

        By mincore on LMDB's map: a read that may not wait (``RWF_NOWAIT``) answers too, but starts
        the read-ahead that is to be avoided. Asking for every page would cost a tenth of a copy.
        """
        last = offset + self._record_bytes - 1
        if self._map is None or last >= self._file_bytes:
            return False
        answer = ctypes.c_ubyte()
        for at in (offset, last):
            page = self._map + at // PAGE_BYTES * PAGE_BYTES
            if _LIBC.mincore(page, PAGE_BYTES, ctypes.byref(answer)) != 0 or not answer.value & 1:
                return False  # absent, or no telling: a direct read is never wrong
        return True

    def view(self, offset: int) -> Bytes | None:
        """A record in memory, seen through the map; None if some of it is on disk, or the place is no place."""
        if not self.usable or not self.resident(offset):
            return None
        view: Any = (ctypes.c_uint8 * self._record_bytes).from_address((self._map or 0) + offset)
        seen: Bytes = np.frombuffer(view, np.uint8)
        return seen

    def reading(self, offset: int) -> Reading:
        """A record to be read around the map, in as many requests as it takes."""
        return Reading(offset, self._record_bytes)

    def carry_out(self, reading: Reading, at: int) -> bool:
        """One request of a record; True if the record is now whole, or as whole as it will be."""
        return reading.carry_out(at, -1 if self._direct is None else self._direct, self._buffers, self._lock)

    def done_with(self, reading: Reading) -> None:
        """Nobody looks at the record's bytes any more."""
        if reading.buffer is not None:
            self._buffers.give_back(reading.buffer)
            reading.buffer = None

    def close(self) -> None:
        """Close the file; the map is LMDB's."""
        if self._direct is not None:
            os.close(self._direct)
            self._direct = None

    def _advise(self, advice: int) -> None:
        _LIBC.madvise(self._map, self._map_bytes, advice)


def _find_map(data: Path) -> tuple[int | None, int]:
    """Where this process has a file mapped from its beginning, and how long; None where the system does not say."""
    inode = str(data.stat().st_ino)
    found: dict[int, int] = {}
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return None, 0
    for line in lines:
        span, _, offset, _, number, *name = line.split(maxsplit=5)
        if number == inode and int(offset, 16) == 0 and name and name[0].endswith(data.name):
            start, end = (int(edge, 16) for edge in span.split("-"))
            found[start] = end - start
    if not found:
        return None, 0
    longest = max(found, key=lambda start: found[start])
    return longest, found[longest]
