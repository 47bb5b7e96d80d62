"""Blocks taken up at a restart and not used since: columns in the place of nodes.

    asleep --get, lease, put, eviction of it or of a descendant--> awake, a node

The parent of a block that is awake is awake too, so blocks wake from the top down, and each node
counts its children that are still asleep. Those cannot be told apart from nodes through
``kvtier.index``: a block asleep is readable from one tier, nothing leases it, nothing moves it.
Waking one takes microseconds for it and for each ancestor asleep, once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kvtier.hashing import BlockHash, Label
from kvtier.listing import Listing, Remaining, Roll, Rows


class Resting:
    """The blocks of one tier that are asleep.

    Args:
        listing: What the tier holds.
        tier: Its number.
    """

    def __init__(self, listing: Listing, tier: int) -> None:
        self.tier = tier
        self.listing = listing
        self._parents = listing.parent_rows()
        sound = _sound(self._parents, listing.depths)
        lost = listing.order[~sound[listing.order]]
        self.orphans: list[int] = lost[np.argsort(listing.depths[lost], kind="stable")].tolist()
        """Rows whose parent is not held, or is an orphan itself; parents first. They are not taken up."""
        self.roll = Roll(listing, listing.order[sound[listing.order]])
        """Names of what is taken up, as a batch for a policy."""
        kept = sound & (self._parents >= 0) & (listing.depths > 0)
        self._parents[~kept] = -1
        self._num_children = np.bincount(self._parents[kept], minlength=len(listing)).astype(np.uint32)
        self._asleep = Remaining(listing, np.flatnonzero(sound))
        self._by_parent: NDArray[np.intp] | None = None

    def __len__(self) -> int:
        return self._asleep.num

    def find(self, key: BlockHash) -> int:
        """The row of a block; -1 if it is not asleep."""
        return self._asleep.find(key)

    def wake(self, row: int) -> tuple[BlockHash, Label, int]:
        """A block leaves: its name and label, and how many children it has, all of which are asleep."""
        self._asleep.remove(row)
        return self.listing.name(row), self.listing.label(row), int(self._num_children[row])

    def path(self, row: int) -> list[int]:
        """A block that is asleep below those of its ancestors that are, first the topmost."""
        found = []
        while row >= 0 and row in self._asleep:
            found.append(row)
            row = int(self._parents[row])
        return found[::-1]

    def children(self, key: BlockHash) -> list[int]:
        """Rows of a block's children that are asleep. The first call sorts all rows by parent."""
        if self._by_parent is None:
            self._by_parent = np.argsort(self._parents, kind="stable")
        row = self.listing.find(key)
        bounds = np.array([row, row + 1], self._parents.dtype)
        first, last = np.searchsorted(self._parents, bounds, sorter=self._by_parent)
        return [child for child in self._by_parent[first:last].tolist() if child in self._asleep]

    def __contains__(self, row: int) -> bool:
        return row in self._asleep

    def rows(self) -> list[int]:
        """Rows of all blocks asleep."""
        rows: list[int] = self._asleep.rows().tolist()
        return rows

    def parent(self, row: int) -> BlockHash | None:
        """The name of a block's parent; None of a first block's."""
        above = int(self._parents[row])
        return None if above < 0 else self.listing.name(above)


def _sound(parents: Rows, depths: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """For each row whether its chain is whole: up to a first block, each parent held and higher up."""
    first = depths == 0
    sound: NDArray[np.bool_] = first | ((parents >= 0) & (depths[parents] < depths))
    if sound.all():
        return sound
    top: Rows = np.where(first | ~sound, np.arange(len(parents)), parents)
    while not np.array_equal(top, further := top[top]):  # twice as far each time
        top = further
    return np.asarray(sound[top], np.bool_)
