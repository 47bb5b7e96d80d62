"""A new data file beside the old one, and the moment it takes its place.

    DIR/data.mdb                 the old one, untouched
    DIR/kvtier.rebuilt/data.mdb  1. slabs and records   2. index and books   3. synced, directory too
    rename                       4. the new one is DIR/data.mdb, in one step
    DIR/kvtier.rebuilt           5. what is left of it is removed

A kill before 4 leaves the old file and a directory that nobody looks at; the next repair or
compact removes it. A kill after 4 leaves the new file, whole. There is no third state.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kvtier.doctor.copying import Readers, Wanted, prove
from kvtier.doctor.prefixes import Forest
from kvtier.doctor.reading import REBUILT, Geometry, Held, sync_directory, turn
from kvtier.errors import KVTierError, TierFullError
from kvtier.format import Bytes
from kvtier.hashing import BlockHash, Label
from kvtier.listing import Listing
from kvtier.tiers.directory import DATA
from kvtier.tiers.environment import Environment, translated
from kvtier.tiers.journal import BOOKS
from kvtier.tiers.slabs import Slabs

_ENTRIES_A_COMMIT = 16384
_COMMIT_BYTES = 8  # an entry begins with the number of the commit that brought it


class Known(NamedTuple):
    """What a new file takes over besides blocks."""

    capacity_blocks: int
    namespaces: Mapping[bytes, dict[str, Any]]

    @classmethod
    def of(cls, held: Held | None) -> Known:
        """From what can be read of the old file."""
        if held is None:
            return cls(0, {})
        return cls(held.books.capacity_blocks if held.books is not None else 0, held.namespaces)


class Builder:
    """A new environment that nobody else sees yet; its first slots are those of the records added.

    Args:
        directory: Where it is made; absent so far.
        geometry: Sizes of the new data file.
        num_records: Records that will be added.
        known: What else is known.
    """

    def __init__(self, directory: Path, geometry: Geometry, num_records: int, known: Known) -> None:
        capacity_bytes = max(1, num_records, known.capacity_blocks) * geometry.block_bytes
        self._env = Environment(
            "rebuilt",
            directory,
            capacity_bytes=capacity_bytes,
            block_bytes=geometry.block_bytes,
            layout=geometry.layout,
        )
        try:
            self._slabs = Slabs(self._env, geometry.layout, geometry.record_bytes, readers=1, keep_cached=False)
            with translated("rebuilt"), self._env.writing():
                while self._slabs.num_slots < num_records:
                    self._slabs.grow()
        except BaseException:
            self._env.close()
            raise

    def write(self, slot: int, record: Bytes) -> None:
        """Put a record, a buffer of whole pages, into a slot; any number of threads may."""
        with translated("rebuilt"):
            self._slabs.write(slot, [record])

    def commit(self, entries: Iterable[tuple[bytes, bytes]]) -> None:
        """Write the index; keys and entries as they are stored."""
        rest = iter(entries)
        with self._env.writing():
            while batch := list(islice(rest, _ENTRIES_A_COMMIT)):
                newest = max(int.from_bytes(entry[:_COMMIT_BYTES], "little") for _, entry in batch)
                with self._env.change() as commit:
                    books = commit.before
                    number = max(books.commit, newest) + 1  # what is stored later must be younger than all of these
                    after = books._replace(blocks=books.blocks + len(batch), commit=number)
                    commit.put(b"books", BOOKS.pack(*after), self._env.meta)
                    for key, entry in batch:
                        commit.put(key, entry, self._env.index)

    def note(self, namespaces: Mapping[bytes, dict[str, Any]]) -> None:
        """Write what is known of namespaces, and where the slabs lie."""
        for root, about in namespaces.items():
            self._env.introduce(root, about)
        with self._env.writing(), self._env.change() as commit:
            self._slabs.keep_places(commit)

    def close(self) -> None:
        """Everything is on the medium when this returns."""
        try:
            self._env.sync()
        finally:
            self._env.close()
            self._slabs.close()


@contextmanager
def replacing(directory: Path, geometry: Geometry, num_records: int, known: Known) -> Iterator[Builder]:
    """A new data file for a directory; when the block ends without an exception it takes the place of the old one.

    Args:
        directory: The store's, held by the caller.
        geometry: Sizes of the new file.
        num_records: Records that will be written to it.
        known: What else is known.

    Raises:
        TierFullError: The file system has no room for old and new at once.
    """
    place = directory / REBUILT
    clear(directory)
    slabs = -(-num_records // geometry.layout.slab_slots)
    stat = os.statvfs(directory)
    free, needed = stat.f_bavail * stat.f_frsize, slabs * geometry.layout.slab_bytes + 2048 * num_records
    if needed > free:
        raise TierFullError("doctor", f"a new file of {needed} bytes is needed beside the old one, {free} are free")
    try:
        builder = Builder(place, geometry, num_records, known)
        try:
            yield builder
        finally:
            builder.close()
        sync_directory(place)
        with turn(directory):
            (place / DATA).rename(directory / DATA)
        sync_directory(directory)
    finally:
        clear(directory)


def clear(directory: Path) -> bool:
    """Remove what an interrupted rebuilding left; True if there was something.

    Raises:
        KVTierError: It is not a directory, so nobody knows whose it is.
    """
    place = directory / REBUILT
    if place.is_symlink() or (place.exists() and not place.is_dir()):
        raise KVTierError(f"{place} is not a directory of kvtier's; move it away")
    if not place.is_dir():
        return False
    shutil.rmtree(place)
    return True


class Part(NamedTuple):
    """Records to take over from one file."""

    data: Path
    records: Sequence[Wanted]
    """With their labels; no name twice, in any part."""

    entry: Callable[[Wanted, int], bytes]
    """A record's new index entry, given the slot it has now."""


class Rebuilt(NamedTuple):
    """What a new file holds."""

    blocks: int
    wrong: dict[bytes, str]
    """What is wrong with a record that was left out, by its name."""

    orphans: int
    """Records left out because the prefix before them is not held."""


def rebuild(directory: Path, geometry: Geometry, parts: Sequence[Part], known: Known, readers: Readers) -> Rebuilt:
    """Make a new data file of some records, each proven while it is copied, and let it take the old one's place.

    Args:
        directory: The store's, held by the caller.
        geometry: Sizes of the parts' records and of the new file.
        parts: What is to be in it. Of that, what is whole and has its whole prefix before it will be.
        known: What else is known of the store.
        readers: See ``kvtier.doctor.copying.Readers``.

    Raises:
        TierFullError: The new file does not fit beside the old one; nothing has changed.
        TierUnavailableError: The disk refused; nothing has changed.
    """
    num_records = sum(len(part.records) for part in parts)
    total = num_records * geometry.record_bytes
    wrong: dict[bytes, str] = {}
    with replacing(directory, geometry, num_records, known) as builder:
        entries: dict[bytes, bytes] = {}
        labels: list[tuple[BlockHash, Label | None]] = []
        for part in parts:
            begin = len(labels)
            by_slot = [record._replace(row=begin + i) for i, record in enumerate(part.records)]
            labels += [(record.key, record.label) for record in by_slot]
            failed = prove(
                part.data,
                geometry,
                by_slot,
                readers.after(begin * geometry.record_bytes, total),
                use=lambda record, buffer: builder.write(record.row, buffer),
            )
            wrong |= {labels[slot][0]: reason for slot, reason in failed.items()}
            entries |= {record.key: part.entry(record, record.row) for record in by_slot}
        listing = Listing.of((key, label) for key, label in labels if label is not None)
        good = np.array([listing.name(row) not in wrong for row in range(len(listing))], np.bool_)
        whole = np.flatnonzero(Forest(listing, good).whole).tolist()
        builder.note(known.namespaces)
        builder.commit((name, entries[name]) for name in map(listing.name, whole))
    return Rebuilt(len(whole), wrong, len(listing) - len(wrong) - len(whole))
