"""What is done to a disk tier's file behind kvtier's back: its pages brought in or dropped, its records damaged.

Records are found as docs/format.md describes them, not through the code under test: they begin on a page of
the file, with a magic, and carry their name.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from kvtier.format import record_bytes
from kvtier.spec import KVSpec

_MAGIC = b"KVTB"
_NAME = slice(16, 48)
_PAGE_BYTES = 4096
_PIECE_BYTES = 1 << 20


def data_file(directory: Path) -> Path:
    """The file with the blocks."""
    return directory / "data.mdb"


def read_through(path: Path) -> None:
    """Bring what a file holds into the page cache; its holes are passed over."""
    with path.open("rb", buffering=0) as file:
        for _ in _pieces(file.fileno()):
            pass


def drop_pages(path: Path) -> None:
    """Ask the kernel to keep nothing of a file in memory; one that lies in memory anyway stays there."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def flip_bits(path: Path, names: Sequence[bytes], spec: KVSpec, *, seed: int) -> int:
    """Flip one bit, anywhere in the record, of each block named; returns how many records were found.

    A slot that is free now may still hold an old record of the same name: that one is damaged as well.
    """
    draw = random.Random(seed)  # noqa: S311  (a choice of bits, not a secret)
    wanted, length, found = set(names), record_bytes(spec.block_bytes, spec.block_tokens), 0
    with path.open("r+b", buffering=0) as file:
        for start, piece in _pieces(file.fileno()):
            for at in range(0, len(piece), _PAGE_BYTES):
                page = piece[at : at + _PAGE_BYTES]
                if page[:4] == _MAGIC and page[_NAME] in wanted:
                    place = start + at + draw.randrange(length)
                    (byte,) = os.pread(file.fileno(), 1, place)
                    os.pwrite(file.fileno(), bytes([byte ^ 1 << draw.randrange(8)]), place)
                    found += 1
        os.fsync(file.fileno())
    return found


def _pieces(fd: int) -> Iterator[tuple[int, bytes]]:
    """What a sparse file holds, with where it begins: on a page."""
    size, at = os.fstat(fd).st_size, 0
    while at < size:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            return
        end = os.lseek(fd, at, os.SEEK_HOLE)
        while at < end:
            piece = os.pread(fd, min(_PIECE_BYTES, end - at), at)
            yield at, piece
            at += len(piece)
