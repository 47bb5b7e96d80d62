"""The forest of blocks that a listing describes, in columns.

    root --- 0 --- 1 --- 2          depth of a block: blocks before it
              \
               `-- 1 --- 2 --- 3    below(0) = 5, trunk: 0 is where two prompts part

A block is of use only with all blocks before it, so everything here begins from the rows that
hang together: a row whose parent is missing, or whose depth is not its parent's and one, leads
nowhere. That also rules out circles.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kvtier.hashing import BlockHash
from kvtier.listing import Listing, Rows

Flags = NDArray[np.bool_]


class Forest:
    """Who hangs on whom.

    Args:
        listing: The blocks.
        good: Rows that may be used, shape ``[blocks]``; all of them if None.
    """

    def __init__(self, listing: Listing, good: Flags | None = None) -> None:
        self.listing = listing
        self.parents: Rows = listing.parent_rows()
        """By row, the row of its parent; -1 for none."""
        self.by_depth: Rows = np.argsort(listing.depths, kind="stable")
        """Rows, parents before what hangs on them."""
        self.whole = self._whole(np.ones(len(listing), np.bool_) if good is None else good)
        """By row, whether it and all blocks before it are there and good."""

    def _whole(self, good: Flags) -> Flags:
        depths = self.listing.depths.astype(np.int64)
        first = depths == 0
        fits = first | ((self.parents >= 0) & (depths[self.parents] == depths - 1))
        whole = bytearray((good & fits).tobytes())
        parents, is_first = self.parents.tolist(), first.tolist()
        for row in self.by_depth.tolist():
            if whole[row] and not is_first[row] and not whole[parents[row]]:
                whole[row] = 0
        return np.frombuffer(whole, np.bool_)

    def below(self) -> NDArray[np.int64]:
        """By row, the whole blocks that hang on it, however far down."""
        sizes = [0] * len(self.listing)
        parents, first = self.parents.tolist(), (self.listing.depths == 0).tolist()
        for row in reversed(self.by_depth[self.whole[self.by_depth]].tolist()):
            if not first[row]:
                sizes[parents[row]] += sizes[row] + 1
        return np.array(sizes, np.int64)

    def children(self) -> NDArray[np.int64]:
        """By row, the whole blocks that hang directly on it."""
        hanging = self.parents[self.whole & (self.listing.depths > 0)]
        counts: NDArray[np.int64] = np.bincount(hanging, minlength=len(self.listing))
        return counts

    def roots(self) -> dict[BlockHash, Rows]:
        """The namespaces' roots, each with its whole rows, parents first."""
        root: list[int] = list(range(len(self.listing)))
        parents, first = self.parents.tolist(), (self.listing.depths == 0).tolist()
        groups: dict[BlockHash, list[int]] = {}
        named: dict[int, BlockHash] = {}
        for row in self.by_depth[self.whole[self.by_depth]].tolist():
            if first[row]:
                named[row] = self.listing.label(row).parent
            else:
                root[row] = root[parents[row]]
            groups.setdefault(named[root[row]], []).append(row)
        return {name: np.array(rows, np.int64) for name, rows in sorted(groups.items())}

    def path(self, row: int) -> list[int]:
        """Rows of the prefix that ends with a whole row, in prefix order."""
        path = [int(row)]
        while self.listing.depths[path[-1]] > 0:
            path.append(int(self.parents[path[-1]]))
        return path[::-1]

    def under(self, rows: Rows) -> Rows:
        """Some whole rows and all whole ones that hang on them, parents first."""
        taken = np.zeros(len(self.listing), np.bool_)
        taken[rows] = True
        parents, first = self.parents.tolist(), (self.listing.depths == 0).tolist()
        for row in self.by_depth[self.whole[self.by_depth]].tolist():
            if not first[row] and taken[parents[row]]:
                taken[row] = True
        return self.by_depth[taken[self.by_depth]]

    def tokens(self, row: int) -> NDArray[np.uint32]:
        """Token ids of the prefix that ends with a whole row."""
        data = b"".join(self.listing.label(each).tokens for each in self.path(row))
        return np.frombuffer(data, "<u4")
