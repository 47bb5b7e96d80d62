"""The stored record: one block with everything needed to trust it.

    offset  bytes  field
         0      4  magic            b"KVTB"
         4      2  version          1
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

All integers are little-endian. The header's length is the smallest ``4096 * k - 16`` that
holds the token ids: LMDB puts 16 bytes of page header before a large value, so the payload
begins on a 4 KiB boundary of the file, where direct I/O can reach it.

The checksum covers the header as well, so one pass over contiguous bytes proves the record
whole; the name, recomputed from parent and token ids, proves that it is the block asked for.
XXH3 detects accidents, not forgery: who can write the file can write a valid record.

Source: XXH3 by Yann Collet; alignment as GPUDirect Storage and O_DIRECT ask for it.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from kvtier.errors import CorruptBlockError, SpecMismatchError
from kvtier.hashing import HASH_BYTES, BlockHash, Label, name_block

FORMAT_VERSION = 1
"""Version of records and of the environment that holds them."""

MAGIC = b"KVTB"
PAGE_BYTES = 4096
_VALUE_OFFSET_IN_PAGE = 16
_FIXED = struct.Struct("<4sHHQ32s32sIIQ")
_CHECKED_FROM = 16

Bytes = NDArray[np.uint8]


def header_bytes(block_tokens: int) -> int:
    """Length of a record's header in bytes, so that the payload is page-aligned in the file."""
    needed = _FIXED.size + 4 * block_tokens + _VALUE_OFFSET_IN_PAGE
    return -(-needed // PAGE_BYTES) * PAGE_BYTES - _VALUE_OFFSET_IN_PAGE


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


def seal(record: Bytes, key: BlockHash, label: Label, *, header: int) -> None:
    """Write the header of a record whose payload is already in place.

    Args:
        record: ``uint8`` of shape ``[header + block_bytes]``, changed in place.
        key: The block's name.
        label: What the name was made from; see ``check_label``.
        header: The header's length, from ``header_bytes``.
    """
    num_tokens = len(label.tokens) // 4
    end = _FIXED.size + len(label.tokens)
    record[_FIXED.size : end] = np.frombuffer(label.tokens, np.uint8)
    record[end:header] = 0
    fields = (key, label.parent, label.depth, num_tokens, len(record) - header)
    _FIXED.pack_into(record.data, 0, MAGIC, FORMAT_VERSION, 0, 0, *fields)
    checksum = xxhash.xxh3_64_intdigest(record[_CHECKED_FROM:].data)
    _FIXED.pack_into(record.data, 0, MAGIC, FORMAT_VERSION, 0, checksum, *fields)


class Header(NamedTuple):
    """The fields of a record that name it."""

    key: BlockHash
    label: Label


def verify(record: Bytes, key: BlockHash, *, header: int, block_bytes: int) -> Header:
    """Prove that a stored record is the block asked for, whole and unchanged.

    Args:
        record: The stored bytes, ``uint8`` of shape ``[header + block_bytes]`` if nothing is wrong.
        key: The name it was stored under.
        header: The header's length, from ``header_bytes``.
        block_bytes: Payload length that the caller expects.

    Raises:
        CorruptBlockError: The first check that failed, with got and expected.
    """
    if len(record) != header + block_bytes:
        raise CorruptBlockError(key, f"record has {len(record)} bytes, expected {header + block_bytes}")
    magic, version, flags, checksum, own_key, parent, depth, num_tokens, payload = _FIXED.unpack_from(record.data)
    if (magic, version, flags) != (MAGIC, FORMAT_VERSION, 0):  # before the checksum, which they do not count in
        raise CorruptBlockError(
            key, f"not a version {FORMAT_VERSION} record: begins {magic!r}, version {version}, flags {flags}"
        )
    if xxhash.xxh3_64_intdigest(record[_CHECKED_FROM:].data) != checksum:
        raise CorruptBlockError(key, "checksum mismatch: the stored bytes have changed")
    end = _FIXED.size + 4 * num_tokens
    if payload != block_bytes or end > header:
        raise CorruptBlockError(
            key, f"record says {payload} payload bytes, {num_tokens} tokens; expected {block_bytes} bytes"
        )
    label = Label(BlockHash(parent), depth, record[_FIXED.size : end].tobytes())
    if own_key != key or name_block(label) != key:
        raise CorruptBlockError(key, f"the record is that of block {bytes(own_key).hex()[:12]}")
    return Header(key, label)


#: Bytes of an index entry: when it was written (its batch's first commit) and its label.
_ENTRY = struct.Struct(f"<Q{HASH_BYTES}sI")


def pack_entry(commit: int, label: Label) -> bytes:
    """An index entry: everything a restart needs without touching the payload."""
    return _ENTRY.pack(commit, label.parent, label.depth) + label.tokens


def unpack_entry(entry: bytes) -> tuple[int, Label]:
    """Commit number and label of an index entry.

    Raises:
        struct.error: The entry is too short.
    """
    commit, parent, depth = _ENTRY.unpack_from(entry)
    return commit, Label(BlockHash(parent), depth, bytes(entry[_ENTRY.size :]))
