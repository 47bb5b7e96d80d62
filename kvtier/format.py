"""The stored record: one block with everything needed to trust it.

    offset  bytes  field
         0      4  magic            b"KVTB"
         4      2  version          3
         6      2  flags            0
         8      8  checksum         XXH3-64 of everything from offset 16 to the end
        16     32  key              the block's name
        48     32  parent           the name before it, or the namespace's root
        80      4  depth            blocks before it in its prompt
        84      4  tokens           number of token ids
        88      8  payload bytes
        96    4*n  token ids        unsigned 32-bit
       ...         zeros up to the header's length
    header      -  payload          the block, see ``KVSpec.block_shape``

All integers are little-endian. The header is whole 4 KiB pages, as few as hold the token ids, and
a record begins on a page of the file, so header and payload can be written and read directly.

The checksum covers the header as well, so one pass over contiguous bytes proves the record
whole; the name, recomputed from parent and token ids, proves that it is the block asked for.
XXH3 detects accidents, not forgery: who can write the file can write a valid record.

Source: XXH3 by Yann Collet; alignment as GPUDirect Storage and O_DIRECT ask for it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from kvtier.errors import CorruptBlockError, SpecMismatchError
from kvtier.hashing import HASH_BYTES, BlockHash, Label, name_block

FORMAT_VERSION = 3
"""Version of records and of the environment that holds them."""

MAGIC = b"KVTB"
PAGE_BYTES = 4096
_FIXED = struct.Struct("<4sHHQ32s32sIIQ")
_CHECKED_FROM = 16

Bytes = NDArray[np.uint8]


def whole_pages(num_bytes: int) -> int:
    """The next multiple of a page."""
    return -(-num_bytes // PAGE_BYTES) * PAGE_BYTES


def header_bytes(block_tokens: int) -> int:
    """Length of a record's header in bytes: whole pages, so that the payload is page-aligned in the file."""
    return whole_pages(_FIXED.size + 4 * block_tokens)


def record_bytes(block_bytes: int, block_tokens: int) -> int:
    """Length of a whole record in bytes."""
    return header_bytes(block_tokens) + block_bytes


def check_label(key: BlockHash, label: Label, *, header: int) -> None:
    """Refuse a label whose token ids would run from the header into the payload.

    Raises:
        SpecMismatchError: The label has more token ids than the header holds.
    """
    room = (header - _FIXED.size) // 4
    if len(label.tokens) > 4 * room:
        raise SpecMismatchError(
            f"block {key.hex()[:12]} has {len(label.tokens) // 4} token ids, the record's header holds {room}; "
            "was it cut by another block_tokens?"
        )


def seal(header: Bytes, payload: Bytes, key: BlockHash, label: Label) -> None:
    """Write the header of a record.

    Args:
        header: ``uint8`` of shape ``[header_bytes]``, changed in place.
        payload: ``uint8`` of shape ``[block_bytes]``, contiguous, wherever it lies.
        key: The block's name.
        label: What the name was made from; see ``check_label``.
    """
    num_tokens = len(label.tokens) // 4
    end = _FIXED.size + len(label.tokens)
    header[_FIXED.size : end] = np.frombuffer(label.tokens, np.uint8)
    header[end:] = 0
    fields = (key, label.parent, label.depth, num_tokens, len(payload))
    _FIXED.pack_into(header.data, 0, MAGIC, FORMAT_VERSION, 0, 0, *fields)
    checksum = xxhash.xxh3_64(header[_CHECKED_FROM:].data)
    checksum.update(payload.data)
    _FIXED.pack_into(header.data, 0, MAGIC, FORMAT_VERSION, 0, checksum.intdigest(), *fields)


class Header(NamedTuple):
    """The fields of a record that name it."""

    key: BlockHash
    label: Label


def verify(record: Bytes, key: BlockHash, *, header: int, block_bytes: int, payload: Bytes | None = None) -> Header:
    """Prove that a stored record is the block asked for, whole and unchanged.

    Args:
        record: The stored bytes, ``uint8`` of shape ``[header + block_bytes]`` if nothing is wrong.
        key: The name it was stored under.
        header: The header's length, from ``header_bytes``.
        block_bytes: Payload length that the caller expects.
        payload: The payload, if it lies elsewhere and ``record`` is the header alone.

    Raises:
        CorruptBlockError: The first check that failed, with got and expected.
    """
    length = len(record) + (0 if payload is None else len(payload))
    if length != header + block_bytes:
        raise CorruptBlockError(key, f"record has {length} bytes, expected {header + block_bytes}", "length")
    check = Verifier(record, key, header=header, block_bytes=block_bytes)
    if payload is not None:
        check.add(payload)
    check.finish()
    return check.named


class Verifier:
    """``verify`` for a record that arrives piece by piece.

    Args:
        first: The record's beginning, ``uint8``, its whole header at least.
        key: As for ``verify``.
        header: As for ``verify``.
        block_bytes: As for ``verify``.

    Raises:
        CorruptBlockError: It does not begin as a record does.
    """

    def __init__(self, first: Bytes, key: BlockHash, *, header: int, block_bytes: int) -> None:
        self._key = key
        self._fields = _FIXED.unpack_from(first.data)
        magic, version, flags = self._fields[:3]
        if (magic, version, flags) != (MAGIC, FORMAT_VERSION, 0):  # apart, because the checksum leaves them out
            raise CorruptBlockError(
                key,
                f"not a version {FORMAT_VERSION} record: begins {magic!r}, version {version}, flags {flags}",
                "header",
            )
        self._block_bytes = block_bytes
        self._header = header
        self._tokens = first[_FIXED.size : header].tobytes()
        self._state = xxhash.xxh3_64(first[_CHECKED_FROM:].data)

    def add(self, piece: Bytes) -> None:
        """The bytes that follow."""
        self._state.update(piece.data)

    def finish(self) -> None:
        """Every byte has been seen: is this the block, whole and unchanged?

        Raises:
            CorruptBlockError: The first check that failed, with got and expected.
        """
        _, _, _, checksum, own_key, _, _, num_tokens, payload = self._fields
        if self._state.intdigest() != checksum:
            raise CorruptBlockError(self._key, "checksum mismatch: the stored bytes have changed", "checksum")
        if payload != self._block_bytes or _FIXED.size + 4 * num_tokens > self._header:
            raise CorruptBlockError(
                self._key,
                f"record says {payload} payload bytes, {num_tokens} tokens; expected {self._block_bytes} bytes",
                "header",
            )
        if own_key != self._key or name_block(self.named.label) != self._key:
            raise CorruptBlockError(self._key, f"the record is that of block {bytes(own_key).hex()[:12]}", "name")

    @property
    def named(self) -> Header:
        """What the record says it is; true once ``finish`` has returned."""
        _, _, _, _, own_key, parent, depth, num_tokens, _ = self._fields
        label = Label(BlockHash(parent), depth, self._tokens[: 4 * num_tokens])
        return Header(BlockHash(own_key), label)


class Entry(NamedTuple):
    """What the index says of a block: everything a restart needs without touching the payload."""

    batch: int
    """The commit that brought it."""

    slot: int
    """Where its record lies."""

    time_s: int
    """When it came, in seconds since 1970, 32 bits."""

    label: Label


_ENTRY = struct.Struct(f"<QII{HASH_BYTES}sI")

ENTRY_HEAD = np.dtype(
    [("batch", "<u8"), ("slot", "<u4"), ("time", "<u4"), ("parent", f"V{HASH_BYTES}"), ("depth", "<u4")]
)
"""What an index entry begins with; its token ids follow."""


def pack_entry(entry: Entry) -> bytes:
    """An index entry as it is stored."""
    label = entry.label
    return _ENTRY.pack(entry.batch, entry.slot, entry.time_s, label.parent, label.depth) + label.tokens


def unpack_entry(stored: bytes) -> Entry:
    """The index entry that was stored.

    Raises:
        struct.error: It is too short.
    """
    batch, slot, time_s, parent, depth = _ENTRY.unpack_from(stored)
    return Entry(batch, slot, time_s, Label(BlockHash(parent), depth, bytes(stored[_ENTRY.size :])))


WRITER_BYTES = 16
"""Length of the random number by which a process that has a directory open signs its commits."""

_JOURNAL_ROW = np.dtype([("added", "u1"), ("slot", "<u4"), ("name", f"V{HASH_BYTES}")])


class Change(NamedTuple):
    """What a commit did to one block."""

    added: bool
    """Brought it; else took it away."""

    slot: int
    """Where its record lies, or lay."""

    key: BlockHash


def pack_changes(writer: bytes, changes: Sequence[Change]) -> bytes:
    """A commit's line in the journal: who made it and what it did."""
    rows = np.empty(len(changes), _JOURNAL_ROW)
    rows["added"] = [change.added for change in changes]
    rows["slot"] = [change.slot for change in changes]
    rows["name"] = np.frombuffer(b"".join(change.key for change in changes), f"V{HASH_BYTES}")
    return writer + rows.tobytes()


def unpack_changes(stored: bytes) -> list[Change]:
    """What a commit did, from its line in the journal.

    Raises:
        ValueError: It is not a line of a journal.
    """
    if len(stored) < WRITER_BYTES:
        raise ValueError(f"a journal line of {len(stored)} bytes")
    rows = np.frombuffer(stored, _JOURNAL_ROW, offset=WRITER_BYTES)
    names = rows["name"].tobytes()
    keys = [BlockHash(names[at : at + HASH_BYTES]) for at in range(0, len(names), HASH_BYTES)]
    columns = zip(rows["added"].tolist(), rows["slot"].tolist(), keys, strict=True)
    return [Change(bool(added), slot, key) for added, slot, key in columns]
