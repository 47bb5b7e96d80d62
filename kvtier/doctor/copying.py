"""Many records at once: proven in parallel, and copied.

Checksums are computed and the file is read without the interpreter's lock, so threads help with
both. Records are taken in the order they lie in the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from kvtier.doctor.reading import Geometry, Held, Source, places_in_order
from kvtier.errors import CorruptBlockError
from kvtier.format import Bytes
from kvtier.hashing import BlockHash, Label
from kvtier.listing import Rows

Progress = Callable[[int, int], None]
"""Told now and then how many bytes are done, of how many."""


class Wanted(NamedTuple):
    """A record to be read."""

    row: int
    """A number of the caller's."""

    place: int
    """Its offset in the file."""

    key: BlockHash
    label: Label | None
    """As for ``Source.record``."""


def quiet(_done: int, _total: int) -> None:
    """Tell nobody."""


def default_threads() -> int:
    """Enough to keep a disk's queue full, and every processor busy with checksums."""
    return max(4, min(16, 2 * (os.cpu_count() or 1)))


def wanted(held: Held, rows: Rows) -> list[Wanted]:
    """Some rows' records, in the order of the file; rows that have no place are left out."""
    listing = held.listing
    return [Wanted(row, place, listing.name(row), listing.label(row)) for row, place in places_in_order(held, rows)]


def prove(
    data: Path,
    geometry: Geometry,
    records: Iterable[Wanted],
    num_records: int,
    *,
    threads: int,
    progress: Progress = quiet,
    use: Callable[[Wanted, Bytes], None] | None = None,
) -> dict[int, str]:
    """Read records and prove each.

    Args:
        data: The file they lie in.
        geometry: Its sizes.
        records: Which; looked at by one thread at a time.
        num_records: How many, for the progress.
        threads: Records under way at a time.
        progress: See ``Progress``.
        use: Called with every record that proved itself, in a buffer of a whole slot, by any thread.

    Returns:
        What is wrong with a record, by its row. Rows that are not in it are as they should be.
    """
    wrong: dict[int, str] = {}
    with Source(data, geometry) as source, ThreadPoolExecutor(threads) as pool:
        buffers = [source.buffer() for _ in range(threads)]

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

        total = num_records * geometry.record_bytes
        for done, (row, reason) in enumerate(_in_turn(pool, work, records, 4 * threads), start=1):
            if reason is not None:
                wrong[row] = reason
            progress(done * geometry.record_bytes, total)
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
