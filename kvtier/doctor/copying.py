"""Many records at once: proven in parallel, and copied.

Checksums are computed and the file is read without the interpreter's lock, so threads help with
both. Records are taken in the order they lie in the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Self

from kvtier.doctor.reading import Geometry, Held
from kvtier.doctor.reports import Progress, quiet
from kvtier.errors import CorruptBlockError
from kvtier.format import PAGE_BYTES, Bytes, Header, verify
from kvtier.hashing import BlockHash, Label
from kvtier.tiers.pages import page_aligned


class Source:
    """Records of a data file, around the page cache where the file system allows it.

    What is proven is then what the medium has, not what memory still remembers.
    """

    def __init__(self, data: Path, geometry: Geometry) -> None:
        self._geometry = geometry
        try:
            self._file = os.open(data, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_DIRECT", 0))
            os.preadv(self._file, [page_aligned(PAGE_BYTES).data], 0)
        except OSError:
            self._file = os.open(data, os.O_RDONLY | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._file)

    def buffer(self) -> Bytes:
        """Memory for one record, as ``record`` wants it."""
        return page_aligned(self._geometry.layout.slot_bytes)

    def record(self, place: int, key: BlockHash, label: Label | None, buffer: Bytes) -> Header:
        """Read one record and prove it.

        Args:
            place: Its offset in the file.
            key: The name it was stored under.
            label: What its index entry says; None compares nothing with that.
            buffer: From ``buffer``; holds the record afterwards.

        Raises:
            CorruptBlockError: It is not what it should be, or cannot be read.
        """
        record_bytes = self._geometry.record_bytes
        try:
            length = os.preadv(self._file, [buffer.data], place)
        except OSError as exc:
            raise CorruptBlockError(key, f"the medium cannot read it: {exc.strerror}") from exc
        if length < record_bytes:
            raise CorruptBlockError(key, f"the file ends {record_bytes - length} bytes too early")
        buffer[record_bytes:] = 0
        record = buffer[:record_bytes]
        named = verify(record, key, header=self._geometry.header, block_bytes=self._geometry.block_bytes)
        if label is not None and named.label != label:
            raise CorruptBlockError(key, "its index entry has another parent, depth or tokens than its record")
        return named


class Wanted(NamedTuple):
    """A record to be read."""

    row: int
    """A number of the caller's."""

    place: int
    """Its offset in the file."""

    key: BlockHash
    label: Label | None
    """As for ``Source.record``."""


class Readers(NamedTuple):
    """How many records are under way at a time, and who is told of it."""

    threads: int
    progress: Progress = quiet

    @classmethod
    def of(cls, threads: int | None, progress: Progress) -> Readers:
        """As many as are asked for, or enough to keep a disk's queue full and every processor busy with checksums."""
        return cls(threads or max(4, min(16, 2 * (os.cpu_count() or 1))), progress)

    def after(self, before: int, total: int) -> Readers:
        """The same for a part of the bytes."""
        return Readers(self.threads, lambda done, _: self.progress(before + done, total))


def wanted(held: Held, rows: Iterable[int]) -> list[Wanted]:
    """Some rows' records, in the order of the file; rows that have no place are left out."""
    listing = held.listing
    placed = [(place, row) for row in map(int, rows) if (place := held.place(row)) is not None]
    return [Wanted(row, place, listing.name(row), listing.label(row)) for place, row in sorted(placed)]


def prove(
    data: Path,
    geometry: Geometry,
    records: Sequence[Wanted],
    readers: Readers,
    use: Callable[[Wanted, Bytes], None] | None = None,
) -> dict[int, str]:
    """Read records and prove each.

    Args:
        data: The file they lie in.
        geometry: Its sizes.
        records: Which.
        readers: See ``Readers``.
        use: Called with every record that proved itself, in a buffer of a whole slot, by any thread.

    Returns:
        What is wrong with a record, by its row. Rows that are not in it are as they should be.
    """
    wrong: dict[int, str] = {}
    with Source(data, geometry) as source, ThreadPoolExecutor(readers.threads) as pool:
        buffers = [source.buffer() for _ in range(readers.threads)]

        def work(record: Wanted) -> tuple[int, str | None]:
            buffer = buffers.pop()
            try:
                source.record(record.place, record.key, record.label, buffer)
                if use is not None:
                    use(record, buffer)
            except CorruptBlockError as exc:
                return record.row, exc.reason
            finally:
                buffers.append(buffer)
            return record.row, None

        total = len(records) * geometry.record_bytes
        for done, (row, reason) in enumerate(_in_turn(pool, work, records, 4 * readers.threads), start=1):
            if reason is not None:
                wrong[row] = reason
            readers.progress(done * geometry.record_bytes, total)
    return wrong


def _in_turn(
    pool: ThreadPoolExecutor, work: Callable[[Wanted], tuple[int, str | None]], records: Iterable[Wanted], ahead: int
) -> Iterator[tuple[int, str | None]]:
    """What the work returns, in order; only so many are handed out ahead, so a million need no million futures."""
    rest = iter(records)
    waiting = [pool.submit(work, record) for record in islice(rest, ahead)][::-1]
    while waiting:
        yield waiting.pop().result()
        waiting[:0] = [pool.submit(work, record) for record in islice(rest, 1)]
