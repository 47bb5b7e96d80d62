"""Records found without an index: what is whole in a file that cannot be opened any more.

    data.mdb   |??????|KVTB....|KVTB....|??|KVTB..??|KVTB....|      every record begins on a page
                       `-- checksum over header and payload: these bytes are as they were written
                       `-- BLAKE2b of parent and token ids: and they are the block of that name

A record proves itself, so nothing else in the file has to be believed. Found are also blocks that
were dropped and not yet written over; they are as good as the others. A parent is looked for by
name; what has no whole prefix before it is left out.

When the index can be read and only a file set aside is to be brought back, the blocks held come
first and keep their age.
"""

from __future__ import annotations

import errno
import os
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kvtier.doctor.copying import Readers, Wanted, prove, wanted
from kvtier.doctor.reading import Geometry, Held, sync_directory
from kvtier.doctor.rebuilding import Known, Part, rebuild
from kvtier.format import FORMAT_VERSION, MAGIC, PAGE_BYTES, Entry, header_bytes, pack_entry, whole_pages
from kvtier.hashing import HASH_BYTES, BlockHash, Label
from kvtier.tiers.directory import DAMAGED, DATA
from kvtier.tiers.layout import layout_for

_HEAD = struct.Struct(f"<4sHHQ{HASH_BYTES}s{HASH_BYTES}sIIQ")
_MAGIC_NUMBER = np.frombuffer(MAGIC, "<u4")[0]
_WINDOW_BYTES = 4 << 20


class Candidate(NamedTuple):
    """A page that begins like a record."""

    place: int
    key: BlockHash
    parent: BlockHash
    depth: int
    num_tokens: int
    payload_bytes: int


@dataclass(frozen=True, slots=True)
class Salvaged:
    """What was brought back."""

    blocks: int
    """Blocks in the new file."""

    found: int
    """Records that proved themselves."""

    orphans: int
    """Of those, left out because the prefix before them is gone."""


def salvage(directory: Path, held: Held | None, readers: Readers) -> Salvaged | None:
    """Make a new data file of all records that prove themselves; the damaged ones go once it is in place.

    Args:
        directory: The store's, held by the caller.
        held: What its index says, if that can be read; else records are searched for in its data file too.
        readers: See ``kvtier.doctor.copying.Readers``.

    Returns:
        None if no record was found: nothing has changed then.

    Raises:
        TierFullError: The new file does not fit beside the old one; nothing has changed.
        TierUnavailableError: The disk refused; nothing has changed.
    """
    files = [directory / name for name in (DATA, DAMAGED) if (directory / name).exists()]
    searched = [file for file in files if held is None or file != held.data or None in held.starts]
    candidates = {file: list(candidates_in(file)) for file in searched}
    geometry = common_geometry(candidates) if held is None else held.geometry
    if geometry is None:
        return None
    parts, seen, found = [], set[bytes](), 0
    if held is not None:
        whole = wanted(held, range(len(held.listing)))
        parts.append(Part(held.data, whole, lambda record, slot: held.entry(held.listing.find(record.key), slot)))
        seen.update(record.key for record in whole)
    for file, its in candidates.items():
        proven = [each for each in proven_in(file, geometry, its, readers.threads) if each.key not in seen]
        seen.update(record.key for record in proven)
        found += len(proven)
        parts.append(Part(file, proven, _entry))
    if held is None and not seen:
        return None
    known = Known.of(held)
    done = rebuild(directory, geometry, parts, known, readers)
    (directory / DAMAGED).unlink(missing_ok=True)
    sync_directory(directory)
    return Salvaged(done.blocks, found, done.orphans)


def candidates_in(file: Path) -> Iterator[Candidate]:
    """Pages that begin like a record, in order; holes are passed over."""
    with file.open("rb", buffering=0) as data:
        size = os.fstat(data.fileno()).st_size
        for begin, end in _written(data.fileno(), size):
            for at in range(begin, end, _WINDOW_BYTES):
                window = os.pread(data.fileno(), min(_WINDOW_BYTES, end - at), at)
                pages = np.frombuffer(window, "<u4", len(window) // PAGE_BYTES * (PAGE_BYTES // 4))
                for page in np.flatnonzero(pages[:: PAGE_BYTES // 4] == _MAGIC_NUMBER).tolist():
                    fields = _HEAD.unpack_from(window, page * PAGE_BYTES)
                    _, version, flags, _, key, parent, depth, num_tokens, payload = fields
                    place = at + page * PAGE_BYTES
                    fits = place + header_bytes(num_tokens) + payload <= size
                    if version == FORMAT_VERSION and flags == 0 and payload > 0 and fits:
                        yield Candidate(place, BlockHash(key), BlockHash(parent), depth, num_tokens, payload)


def _written(file: int, size: int) -> Iterator[tuple[int, int]]:
    """Runs of whole pages that are no hole."""
    at = 0
    while at < size:
        try:
            begin = os.lseek(file, at, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno == errno.ENXIO:  # nothing but a hole up to the end
                return
            raise
        at = os.lseek(file, begin, os.SEEK_HOLE)
        yield begin // PAGE_BYTES * PAGE_BYTES, whole_pages(at)


def common_geometry(candidates: dict[Path, list[Candidate]]) -> Geometry | None:
    """The sizes that most candidates have; None without any. A store has records of one size only."""
    sizes = Counter((header_bytes(each.num_tokens), each.payload_bytes) for its in candidates.values() for each in its)
    if not sizes:
        return None
    (header, block_bytes), count = sizes.most_common(1)[0]
    return Geometry(block_bytes, layout_for(count, header + whole_pages(block_bytes)))


def proven_in(file: Path, geometry: Geometry, candidates: list[Candidate], threads: int) -> list[Wanted]:
    """Candidates that are whole records of these sizes, one for each name, with their labels."""
    alike = [
        Wanted(row, each.place, each.key, None)
        for row, each in enumerate(candidates)
        if each.payload_bytes == geometry.block_bytes and header_bytes(each.num_tokens) <= geometry.header
    ]
    labels: dict[int, Label] = {}
    wrong = prove(
        file,
        geometry,
        alike,
        Readers(threads),
        use=lambda record, buffer: labels.update({record.row: _label(candidates[record.row], buffer)}),
    )
    proven: dict[bytes, Wanted] = {}
    free_from = 0
    for record in alike:
        if record.row in wrong or record.place < free_from:  # what lies inside another record is part of its payload
            continue
        free_from = record.place + geometry.layout.slot_bytes
        proven.setdefault(record.key, record._replace(label=labels[record.row]))
    return list(proven.values())


def _label(candidate: Candidate, record: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> Label:
    tokens = record[_HEAD.size : _HEAD.size + 4 * candidate.num_tokens].tobytes()
    return Label(candidate.parent, candidate.depth, tokens)


def _entry(record: Wanted, slot: int) -> bytes:
    """The entry of a block whose age is not known: older than any other."""
    assert record.label is not None
    return pack_entry(Entry(0, slot, 0, record.label))
