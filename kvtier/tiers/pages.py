"""Memory on page boundaries, in huge pages where the kernel gives them.

A copy between small pages spends part of its time looking them up. A direct read into scattered
small pages has a segment for each, and a disk takes few segments at a time.
"""

from __future__ import annotations

import mmap

import numpy as np

from kvtier.format import Bytes

HUGE_PAGE_BYTES = 2 << 20


def page_aligned(num_bytes: int) -> Bytes:
    """Private memory that begins on a huge page's boundary; not touched yet.

    Raises:
        OSError: The system has not that much address space left.
    """
    room = (
        -(-num_bytes // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES
    )  # the kernel gives a huge page only where a whole one fits
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # the default, shared memory, has none
    memory = mmap.mmap(-1, room + HUGE_PAGE_BYTES, flags=private)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    whole = np.frombuffer(memory, np.uint8)
    start = -whole.ctypes.data % HUGE_PAGE_BYTES
    return whole[start : start + num_bytes]
