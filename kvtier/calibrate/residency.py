"""Is this file in memory? Measured, because "the cache was dropped" is a hope.

A read benchmark whose file sits in the page cache measures DRAM. ``drop`` asks the kernel to
forget a file, ``resident_fraction`` counts the pages it kept all the same:

    write -> fdatasync -> posix_fadvise(DONTNEED) -> mincore: 0.00 -> now time the read

DONTNEED is advice. The kernel keeps pages that are dirty (hence the fdatasync) and pages that
any process has mapped and touched, and LMDB maps its whole file: close the store first.

Source: posix_fadvise(2), mincore(2). Since Linux 5.2 mincore answers only for files the caller
owns or may write, and reports every page of another's file as resident.
"""

import ctypes
import mmap
import os
import sys
from pathlib import Path

import numpy as np

from kvtier.errors import MeasureError, NotColdError

_PIECE_BYTES = 16 << 20
_STAT_BLOCK_BYTES = 512  # the unit of st_blocks, whatever the file system's block is


def drop(path: Path) -> None:
    """Write the file's dirty pages to the device and ask the kernel to forget all of it.

    Raises:
        MeasureError: Not Linux.
        OSError: The file cannot be opened or synced.
    """
    _require_linux()
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fdatasync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def make_resident(path: Path) -> None:
    """Read a file's data, not its holes, into the page cache.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        size = path.stat().st_size
        at = 0
        while at < size:
            try:
                start = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:  # ENXIO: nothing but a hole up to the end
                return
            at = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            for piece in range(start, at, _PIECE_BYTES):
                os.pread(file.fileno(), min(_PIECE_BYTES, at - piece), piece)


def resident_fraction(path: Path) -> float:
    """The share of the file that is in the page cache, 0.0 to 1.0.

    Holes of a sparse file do not count: the share is of the pages that have a place on the
    device, because an LMDB file may be a terabyte long and a megabyte large.

    Raises:
        MeasureError: Not Linux.
        OSError: The file cannot be opened or mapped.
    """
    _require_linux()
    with path.open("rb") as file:
        stat = os.fstat(file.fileno())
        if stat.st_size == 0:
            return 0.0
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapping:
            resident = _resident_pages(mapping)
    allocated_bytes = min(stat.st_size, stat.st_blocks * _STAT_BLOCK_BYTES)
    allocated = max(1, -(-allocated_bytes // mmap.PAGESIZE))
    return min(1.0, resident / allocated)


def resident_bytes(path: Path) -> float:
    """The bytes of the file that are in the page cache; see ``resident_fraction``."""
    return resident_fraction(path) * path.stat().st_blocks * _STAT_BLOCK_BYTES


def assert_cold(path: Path, limit: float = 0.01) -> None:
    """Refuse to go on while more than ``limit`` of the file is in memory.

    Raises:
        NotColdError: Too much of it is resident; the message says how much.
        MeasureError: Not Linux.
    """
    fraction = resident_fraction(path)
    if fraction > limit:
        raise NotColdError(
            f"{path.name}: {fraction:.1%} is still in memory, at most {limit:.1%} is allowed; "
            "is a process still mapping it, or is it on tmpfs? Close the store, then drop()"
        )


def _resident_pages(mapping: mmap.mmap) -> int:
    """Count the pages of a mapping that mincore reports as resident."""
    size = len(mapping)
    address = np.frombuffer(mapping, dtype=np.uint8).ctypes.data
    pages = np.zeros(-(-size // mmap.PAGESIZE), dtype=np.uint8)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    if libc.mincore(address, size, pages.ctypes.data) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"mincore failed: {os.strerror(error)}")
    return int(np.count_nonzero(pages & 1))  # the other bits are reserved


def _require_linux() -> None:
    if sys.platform != "linux":
        raise MeasureError(f"page cache residency needs Linux, this is {sys.platform}")
