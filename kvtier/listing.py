"""What a tier holds, in columns: a million names and labels without an object for each.

    row      0      1      2      3   ...        rows in the order of their names
    name     32 bytes each                       found by their first bits, then by bisection
    parent   32 bytes each
    depth    u32
    tokens   one run of bytes, cut at ``ends``
    order    rows, oldest first                  as ``Tier.scan`` lists them

A store that opens a full disk needs most of these blocks much later, or never. So a tier hands
its index over like this, and a block becomes an object when it is first used.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from kvtier.hashing import HASH_BYTES, BlockHash, Label

Rows = NDArray[np.integer[Any]]


class Listing(Iterable[tuple[BlockHash, Label]]):
    """Names and labels of blocks; iterating gives them oldest first. Never changes.

    Args:
        names: Ascending, no two alike; ``uint8`` of shape ``[blocks, 32]``, contiguous.
        parents: In the order of the names; likewise.
        depths: In that order; shape ``[blocks]``.
        tokens: Token ids of all blocks, in that order.
        ends: Where each block's token ids end in ``tokens``, in bytes; shape ``[blocks]``.
        order: Rows, oldest first; shape ``[blocks]``.
        damaged: Entries found that name no block; they are not in the listing.
    """

    __slots__ = ("_buckets", "_bytes", "_ends", "_names", "_parents", "_shift", "_tokens", "damaged", "depths", "order")

    def __init__(
        self,
        *,
        names: NDArray[np.uint8],
        parents: NDArray[np.uint8],
        depths: NDArray[np.uint32],
        tokens: bytes | bytearray,
        ends: NDArray[np.int64],
        order: Rows,
        damaged: int = 0,
    ) -> None:
        assert names.shape == parents.shape == (len(depths), HASH_BYTES)
        self._names = names
        self._bytes = names.reshape(-1).data
        self._parents = parents
        self._tokens = memoryview(tokens)
        self._ends = ends
        self.depths = depths
        self.order = order.astype(_row_type(len(depths)), copy=False)
        self.damaged = damaged
        bits = min(len(depths).bit_length(), 31)  # about one name a bucket, for names are hashes
        self._shift = 32 - bits
        first = names.view(">u4")[:, 0] >> self._shift
        counts = np.bincount(first, minlength=1 << bits)
        below = np.concatenate(([0], np.cumsum(counts))).astype(_row_type(len(depths)))
        self._buckets: memoryview = below.data

    @classmethod
    def of(cls, entries: Iterable[tuple[BlockHash, Label]]) -> Listing:
        """A listing of names and labels given oldest first, no name twice."""
        listed = list(entries)
        by_name = sorted(range(len(listed)), key=lambda i: listed[i][0])
        labels = [listed[i][1] for i in by_name]
        return cls(
            names=_names(listed[i][0] for i in by_name),
            parents=_names(label.parent for label in labels),
            depths=np.array([label.depth for label in labels], np.uint32),
            tokens=b"".join(label.tokens for label in labels),
            ends=np.cumsum([len(label.tokens) for label in labels], dtype=np.int64),
            order=np.argsort(by_name),
        )

    def __len__(self) -> int:
        return len(self.depths)

    def __iter__(self) -> Iterator[tuple[BlockHash, Label]]:
        for row in self.order:
            yield self.name(row), self.label(row)

    def name(self, row: int) -> BlockHash:
        """The name in a row."""
        at = int(row) * HASH_BYTES
        return BlockHash(bytes(self._bytes[at : at + HASH_BYTES]))

    def label(self, row: int) -> Label:
        """The label in a row."""
        row = int(row)
        parent = BlockHash(self._parents[row].tobytes())
        begin = int(self._ends[row - 1]) if row else 0
        return Label(parent, int(self.depths[row]), bytes(self._tokens[begin : self._ends[row]]))

    def prompts_of(self, root: BlockHash) -> tuple[int, int]:
        """How many first blocks are listed, and how many of them hang on this root."""
        parents = self._parents[self.depths == 0]
        return len(parents), int((parents == np.frombuffer(root, np.uint8)).all(axis=1).sum())

    def find(self, name: BlockHash) -> int:
        """The row of a name; -1 if it is not listed."""
        bucket = int.from_bytes(name[:4], "big") >> self._shift
        low, high = self._buckets[bucket], self._buckets[bucket + 1]
        if high - low > 1:
            low = bisect_left(range(high), name, low, key=self.name)
        return low if low < high and self.name(low) == name else -1

    def parent_rows(self) -> Rows:
        """For each row the row of its parent, -1 if that is not listed. Shape ``[blocks]``."""
        names, parents = self._names.view(">u8"), self._parents.view(">u8")
        own, wanted = names[:, 0].astype(np.uint64), parents[:, 0].astype(np.uint64)
        if (own[1:] == own[:-1]).any():  # names that are no hashes; compare them whole
            own, wanted = self._names.view("S32")[:, 0], self._parents.view("S32")[:, 0]
        turns = np.argsort(wanted)  # found in order of their names, many times faster than at random
        rows: Rows = np.empty(len(self), _row_type(len(self)))
        rows[turns] = np.searchsorted(own, wanted[turns])
        np.minimum(rows, len(self) - 1, out=rows)
        rows[(names[rows] != parents).any(axis=1)] = -1
        return rows


class Remaining:
    """Some rows of a listing, which leave one by one and do not come back."""

    __slots__ = ("_left", "listing", "num")

    def __init__(self, listing: Listing, rows: Rows) -> None:
        self.listing = listing
        self.num = len(rows)
        """Rows left."""
        flags = np.zeros(len(listing), np.uint8)
        flags[rows] = 1
        self._left = bytearray(flags.tobytes())

    def __contains__(self, row: int) -> bool:
        return self._left[row] != 0

    def find(self, name: BlockHash) -> int:
        """The row of a name; -1 if it is not listed, or has left."""
        row = self.listing.find(name)
        return row if row >= 0 and self._left[row] else -1

    def remove(self, row: int) -> None:
        """A row leaves; the caller knows that it is there."""
        self._left[row] = 0
        self.num -= 1

    def rows(self) -> Rows:
        """All rows left."""
        return np.flatnonzero(np.frombuffer(self._left, np.uint8))


class Roll(Sequence[BlockHash]):
    """Names of a listing as one batch, in prefix order: the newest first. Made into objects as they are asked for."""

    __slots__ = ("listing", "rows")

    def __init__(self, listing: Listing, rows: Rows) -> None:
        self.listing = listing
        self.rows = rows
        """The rows named, oldest first."""

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, at: int) -> BlockHash: ...

    @overload
    def __getitem__(self, at: slice) -> list[BlockHash]: ...

    def __getitem__(self, at: int | slice) -> BlockHash | list[BlockHash]:
        if isinstance(at, slice):
            return [self.listing.name(row) for row in self.rows[::-1][at]]
        return self.listing.name(self.rows[::-1][at])


def _names(names: Iterable[BlockHash]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(names), np.uint8).reshape(-1, HASH_BYTES)


def _row_type(num_rows: int) -> type[np.int32 | np.int64]:
    return np.int32 if num_rows < 1 << 31 else np.int64
