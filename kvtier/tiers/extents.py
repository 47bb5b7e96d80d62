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

import numpy as np

from kvtier.format import PAGE_BYTES, Bytes
from kvtier.hashing import BlockHash

#: What a direct read's file offset, length and address must be multiples of.
_ALIGN_BYTES = PAGE_BYTES
_HUGE_PAGE_BYTES = 2 << 20
_LIBC = ctypes.CDLL(None, use_errno=True)


class Extents:
    """Places of records in one data file.

    Args:
        data: The file that LMDB has mapped in this process.
        record_bytes: Length of every record.
    """

    def __init__(self, data: Path, record_bytes: int) -> None:
        self.learned: dict[BlockHash, int] = {}
        """Places not yet kept in the environment."""
        self._span = -(-(record_bytes + 2 * _ALIGN_BYTES) // _ALIGN_BYTES) * _ALIGN_BYTES
        self._record_bytes = record_bytes
        self._buffers = threading.local()
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
        """Whether every page of a record is in the page cache. Starts no I/O.

        By mincore on LMDB's map: a read that may not wait (``RWF_NOWAIT``) answers too, but starts
        the read-ahead that is to be avoided.
        """
        if self._map is None or offset + self._record_bytes > self._file_bytes:
            return False
        start = offset // PAGE_BYTES * PAGE_BYTES
        pages = np.zeros(-(-(offset + self._record_bytes - start) // PAGE_BYTES), np.uint8)
        length = len(pages) * PAGE_BYTES
        if _LIBC.mincore(ctypes.c_void_p(self._map + start), ctypes.c_size_t(length), _address(pages)) != 0:
            return False  # cannot tell; a direct read is never wrong
        return bool((pages & 1).all())

    def read(self, offset: int) -> Bytes | None:
        """A record as the disk has it, in this thread's buffer until its next read; None if that failed."""
        if self._direct is None:
            return None
        start = offset // _ALIGN_BYTES * _ALIGN_BYTES
        end = -(-(offset + self._record_bytes) // _ALIGN_BYTES) * _ALIGN_BYTES
        buffer = self._buffer()
        try:
            count = os.preadv(self._direct, [buffer[: end - start].data], start)
        except OSError:
            return None
        if count < offset - start + self._record_bytes:
            return None
        return buffer[offset - start : offset - start + self._record_bytes]

    def close(self) -> None:
        """Close the file; the map is LMDB's."""
        if self._direct is not None:
            os.close(self._direct)
            self._direct = None

    def _advise(self, advice: int) -> None:
        _LIBC.madvise(ctypes.c_void_p(self._map), ctypes.c_size_t(self._map_bytes), advice)

    def _buffer(self) -> Bytes:
        """This thread's aligned, touched buffer, on huge pages where the kernel gives them."""
        found: Bytes | None = getattr(self._buffers, "bytes", None)
        if found is None:
            memory = mmap.mmap(-1, self._span + _HUGE_PAGE_BYTES)
            if hasattr(mmap, "MADV_HUGEPAGE"):
                memory.madvise(mmap.MADV_HUGEPAGE)
            whole = np.frombuffer(memory, np.uint8)
            start = -whole.ctypes.data % _HUGE_PAGE_BYTES
            found = whole[start : start + self._span]
            found.fill(0)
            self._buffers.bytes = found
        return found


def _address(array: Bytes) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


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
