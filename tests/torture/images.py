"""Data files as pages: copies of a file that is being written, and files made of parts of such copies.

Which pages LMDB's trees consist of is found by a walk that knows LMDB's page layout and shares no code with it:

    page   | number u64 | pad u16 | flags u16 | lower u16 | upper u16 | u16 offset of each node ... | nodes
    node   | low u16 | high u16 | flags u16 | key bytes u16 | key | data
    branch: child = low | high << 16 | flags << 32        leaf: data bytes = low | high << 16

Source: ``mdb.c`` of LMDB 0.9, whose data format has been the same since 2012.
"""

from __future__ import annotations

import os
import random
import struct
from dataclasses import dataclass
from pathlib import Path

from kvtier.format import PAGE_BYTES

_SECTOR_BYTES = 512
_ZEROS = bytes(PAGE_BYTES)

#: Where a meta page has the roots of the free list and of the main tree, and the number of its transaction.
_META = struct.Struct("<80xQ40xQ8xQ")
_HEAD = struct.Struct("<8x2xHHH")
_NODE = struct.Struct("<HHHH")
_BRANCH, _LEAF, _BIG, _SUBTREE = 1, 2, 1, 2
_SUBTREE_ROOT = 40  # in what a leaf says of a database


@dataclass(slots=True)
class Image:
    """A sparse file in memory."""

    size: int
    pages: dict[int, bytes]
    """What is not zeros, by number of the page."""

    @classmethod
    def of(cls, path: Path) -> Image:
        """A file as it is now; of no bytes if there is none."""
        pages: dict[int, bytes] = {}
        if not path.exists():
            return cls(0, pages)
        file = os.open(path, os.O_RDONLY)
        try:
            size = os.fstat(file).st_size
            for begin, end in extents(file):
                data = os.pread(file, end - begin, begin)
                for at in range(0, len(data), PAGE_BYTES):
                    page = data[at : at + PAGE_BYTES].ljust(PAGE_BYTES, b"\0")
                    if page != _ZEROS:
                        pages[(begin + at) // PAGE_BYTES] = page
        finally:
            os.close(file)
        return cls(size, pages)

    def write(self, path: Path) -> None:
        """Make a file of it."""
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            for number, page in self.pages.items():
                os.pwrite(file, page, number * PAGE_BYTES)
            os.truncate(file, self.size)
        finally:
            os.close(file)

    def page(self, number: int) -> bytes:
        """A page, zeros where there is none."""
        return self.pages.get(number, _ZEROS)

    def changed(self, other: Image) -> list[int]:
        """Numbers of the pages that differ."""
        return [n for n in sorted(self.pages.keys() | other.pages.keys()) if self.page(n) != other.page(n)]


def live_pages(image: Image) -> list[int]:
    """Pages of all trees of the last commit, the free list's too; not those of large values."""
    free, main, _ = max((_META.unpack_from(image.page(number)) for number in (0, 1)), key=lambda meta: meta[2])
    waiting, seen = [free, main], set[int]()
    while waiting:
        number = waiting.pop()
        if number in image.pages and number not in seen:
            seen.add(number)
            waiting += _children(image.page(number))
    return sorted(seen)


def _children(page: bytes) -> list[int]:
    """Pages that the nodes of a page lead to."""
    flags, lower, _ = _HEAD.unpack_from(page)
    children = []
    for at in range(16, lower, 2):
        place = int.from_bytes(page[at : at + 2], "little")
        low, high, node_flags, key_bytes = _NODE.unpack_from(page, place)
        if flags & _BRANCH:
            children.append(low | high << 16 | node_flags << 32)
        elif flags & _LEAF and node_flags & _SUBTREE and not node_flags & _BIG:
            root = place + _NODE.size + key_bytes + _SUBTREE_ROOT
            children.append(int.from_bytes(page[root : root + 8], "little"))
    return children


def extents(file: int) -> list[tuple[int, int]]:
    """Where an open file has data, in whole pages but for its end; the rest are holes."""
    found, at, size = [], 0, os.fstat(file).st_size
    while at < size:
        try:
            begin = os.lseek(file, at, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            break
        at = os.lseek(file, begin, os.SEEK_HOLE)
        found.append((begin // PAGE_BYTES * PAGE_BYTES, at))
    return found


def cut_in_between(old: Image, new: Image, rng: random.Random) -> Image:
    """What may be on the medium if power fails while the writes that lead from one image to the other are not synced.

    Args:
        old: All of it is on the medium.
        new: Of what differs, each page has reached it, has not, or has in part: some of its sectors.
        rng: Decides for each page.
    """
    size = rng.choice([old.size, new.size])  # a longer file is not synced either
    image = Image(size, dict(old.pages))
    share = rng.random()
    for number in old.changed(new):
        if rng.random() < share:
            image.pages[number] = (
                new.page(number) if rng.random() < 0.7 else _torn(old.page(number), new.page(number), rng)
            )
    image.pages = {n: page for n, page in image.pages.items() if n * PAGE_BYTES < size}
    return image


def _torn(old: bytes, new: bytes, rng: random.Random) -> bytes:
    """A page of which a drive wrote some sectors: the first few, or any."""
    count = PAGE_BYTES // _SECTOR_BYTES
    first = rng.randint(1, count - 1)
    fresh = set(range(first)) if rng.random() < 0.5 else set(rng.sample(range(count), first))
    parts = [(new if i in fresh else old)[i * _SECTOR_BYTES : (i + 1) * _SECTOR_BYTES] for i in range(count)]
    return b"".join(parts)
