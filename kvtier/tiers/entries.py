"""The index database, read at once: columns for a million entries, and no object for any of them.

Entries of one environment are as long as one another, since its blocks have the same number of
tokens. So a run of them is a table, and its columns are cut out together. A run with entries of
other lengths is cut one by one. What is too short to be an entry is named and left out.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kvtier.format import ENTRY_HEAD, unpack_entry
from kvtier.hashing import HASH_BYTES
from kvtier.listing import Listing, Rows

_RUN = 512  # entries cut together: as many as stay in the processor's cache
_NAME = np.dtype(f"V{HASH_BYTES}")
_HEAD_BYTES = ENTRY_HEAD.itemsize


@dataclass(frozen=True, slots=True)
class Entries:
    """All that the index says."""

    listing: Listing
    slots: NDArray[np.uint32]
    """Where the record of each row lies."""

    times: NDArray[np.uint32]
    """When each row came, in seconds since 1970."""

    damaged: list[bytes]
    """Keys of entries that cannot be read."""


def read_entries(pairs: Iterable[tuple[bytes, bytes]], count: int) -> Entries:
    """The whole index as columns.

    Args:
        pairs: Keys and values, in the order of the keys.
        count: How many there are.
    """
    names, parents = np.empty((2, count), _NAME)
    batches, slots, depths = np.empty(count, np.uint64), np.empty(count, np.uint32), np.empty(count, np.uint32)
    ends, times = np.empty(count, np.int64), np.empty(count, np.uint32)
    tokens, damaged = bytearray(), list[bytes]()
    flat, end = chain.from_iterable(pairs), 0
    while run := list(islice(flat, 2 * _RUN)):
        cut = _alike(run) or _unlike(run, damaged)
        begin, end = end, end + len(cut.names)
        names[begin:end], parents[begin:end] = cut.names, cut.heads["parent"]
        batches[begin:end], slots[begin:end] = cut.heads["batch"], cut.heads["slot"]
        depths[begin:end], ends[begin:end] = cut.heads["depth"], cut.sizes
        times[begin:end] = cut.heads["time"]
        tokens += cut.tokens
    np.cumsum(ends[:end], out=ends[:end])
    listing = Listing(
        names=names[:end].view(np.uint8).reshape(end, HASH_BYTES),
        parents=parents[:end].view(np.uint8).reshape(end, HASH_BYTES),
        depths=depths[:end],
        tokens=tokens,
        ends=ends[:end],
        order=_oldest_first(batches[:end], depths[:end]),
        damaged=len(damaged),
    )
    return Entries(listing, slots[:end], times[:end], damaged)


class _Cut(NamedTuple):
    """Some entries as columns."""

    names: NDArray[Any]
    heads: NDArray[Any]
    tokens: bytes
    sizes: NDArray[np.int64] | int
    """Bytes of token ids that each has."""


def _alike(run: Sequence[bytes]) -> _Cut | None:
    """Keys and values in turn, cut as one table; None unless all are as long as one another."""
    keys, values = set(map(len, run[::2])), set(map(len, run[1::2]))
    size = min(values) - _HEAD_BYTES
    if keys != {HASH_BYTES} or len(values) > 1 or size < 0:
        return None
    table = np.frombuffer(b"".join(run), _row(size))
    return _Cut(table["name"], table["head"], table["tokens"].tobytes(), size)


@cache
def _row(size: int) -> np.dtype[Any]:
    return np.dtype([("name", _NAME), ("head", ENTRY_HEAD), ("tokens", np.uint8, (size,))])


def _unlike(run: Sequence[bytes], damaged: list[bytes]) -> _Cut:
    """Keys and values in turn, cut one by one; the keys of what is no entry go to ``damaged``."""
    good = []
    for key, value in zip(run[::2], run[1::2], strict=True):
        if len(key) == HASH_BYTES and len(value) >= _HEAD_BYTES:
            good.append((key, value))
        else:
            damaged.append(key)
    heads = np.frombuffer(b"".join(value[:_HEAD_BYTES] for _, value in good), ENTRY_HEAD)
    tokens = [value[_HEAD_BYTES:] for _, value in good]
    names = np.frombuffer(b"".join(key for key, _ in good), _NAME)
    return _Cut(names, heads, b"".join(tokens), np.array([len(each) for each in tokens], np.int64))


def _oldest_first(batch: NDArray[np.uint64], depth: NDArray[np.uint32]) -> Rows:
    """Rows by batch, within a batch the deepest first, and by name where both are the same."""
    count = len(batch)
    depth_bits, row_bits = int(depth.max(initial=0)).bit_length(), count.bit_length()
    if int(batch.max(initial=0)).bit_length() + depth_bits + row_bits > 64:
        return np.lexsort((~depth, batch))
    height = ((1 << depth_bits) - 1) - depth.astype(np.uint64)
    turns = (
        batch << np.uint64(depth_bits + row_bits) | height << np.uint64(row_bits) | np.arange(count, dtype=np.uint64)
    )
    turns.sort()  # plain numbers sort many times faster than rows by two columns
    return turns & np.uint64((1 << row_bits) - 1)


def slot_of(stored: memoryview) -> int | None:
    """Where the record of an index entry lies; None if the entry is damaged."""
    try:
        return unpack_entry(bytes(stored)).slot
    except struct.error:
        return None
