"""LRU stack distances of a trace, exact, for every cache size in one going through.

A block's distance is the number of other blocks that were used more recently than it when it is used again. An LRU
cache of C blocks has it exactly if that is less than C, so the distances' histogram is the hit rate at every size.
A request is looked up as a whole and then used tail first, which leaves its head the most recent:

    most recent ─► oldest
    a0 a1 a2 a3 | b1 b2 b3 | ...         request b = (a0, b1, b2, b3) came before request a = (a0, a1, a2, a3)

A block is never used without those before it. So along a prompt the request that used a block last only ever goes
back in time, and the blocks that one request was the last to use lie side by side, in the prompt and in the order of
recency alike. A whole run of them is found at once: at its first block's distance, and that plus 1, 2, 3 ... A sum over
requests of the blocks each was the last to use (a Fenwick tree) gives the first. The work is a few array operations a
request and one look-up a run, where stepping through the blocks would take one for each.

Source: Mattson et al., "Evaluation Techniques for Storage Hierarchies", IBM Systems Journal 1970; the tree from
Bennett and Kruskal, "LRU Stack Processing", IBM J. Res. Dev. 1975. The runs are ours.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from kvtier.errors import TraceError


class Distances:
    """Distances and intervals of all uses so far."""

    def __init__(self) -> None:
        self._last = np.full(1024, -1, np.int32)
        """Number of the request that used a block last; -1 for none."""
        self._uses = np.zeros(1024, np.int32)
        self._times_s = array("d")
        self._recent = _Sums()
        """Blocks that each request was the last to use."""
        self._steps = np.zeros(1024, np.int64)
        """Differences of the histogram, so that a run is two of them."""
        self._interval_s = array("d")
        self._interval_uses = array("q")
        self.unique_blocks = 0

    def add(self, blocks: Sequence[int], time_s: float) -> int:
        """Use a prompt's blocks.

        Returns:
            How many of them were used before, the first ones.

        Raises:
            TraceError: A block was used since the one before it was, which breaks the prefix property.
        """
        request = len(self._times_s)
        self._times_s.append(time_s)
        ids = np.array(blocks, np.int64)
        self._make_room(ids)
        last = self._last[ids]
        turns = np.diff(last)
        if (turns > 0).any():
            raise TraceError(f"request {request + 1}: ids break the prefix property: a block came without its prefix")
        bounds = [0, *(np.flatnonzero(turns) + 1).tolist(), len(ids)]
        runs = [(begin, end, int(last[begin])) for begin, end in pairwise(bounds) if begin < end]
        used = [(begin, end, by) for begin, end, by in runs if by >= 0]
        firsts = [self.unique_blocks - self._recent.up_to(by) for _, _, by in used]
        for first, (begin, end, by) in zip(firsts, used, strict=True):
            self._steps[first] += 1
            self._steps[first + end - begin] -= 1
            self._recent.add(by, begin - end)
            self._interval_s.append(time_s - self._times_s[by])
            self._interval_uses.append(end - begin)
        hits = used[-1][1] if used else 0
        self._recent.append(len(ids))
        self.unique_blocks += len(ids) - hits
        self._last[ids] = request
        self._uses[ids] += 1
        return hits

    def _make_room(self, ids: NDArray[np.int64]) -> None:
        if len(ids) and ids.max() >= len(self._last):
            room = int(ids.max()) + 1 + len(self._last)
            self._last = np.concatenate([self._last, np.full(room - len(self._last), -1, np.int32)])
            self._uses = np.concatenate([self._uses, np.zeros(room - len(self._uses), np.int32)])
        if self.unique_blocks >= len(self._steps):
            self._steps = np.concatenate([self._steps, np.zeros(self.unique_blocks + 1, np.int64)])

    def histogram(self) -> NDArray[np.int64]:
        """Uses at each distance, shape ``[unique_blocks + 1]``; first uses are at none."""
        return np.cumsum(self._steps)[: self.unique_blocks + 1]

    def intervals(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Seconds since a block's use before, and how many uses came after so long."""
        return np.array(self._interval_s), np.array(self._interval_uses, np.int64)

    def times_used(self) -> NDArray[np.int32]:
        """How often each block was used, in no order."""
        return self._uses[self._uses > 0]


class _Sums:
    """Numbers in a row that grows, and the sums of its beginnings: a Fenwick tree."""

    def __init__(self) -> None:
        self._tree = [0]

    def append(self, value: int) -> None:
        at = len(self._tree)
        below = at - 1
        while below > at - (at & -at):
            value += self._tree[below]
            below -= below & -below
        self._tree.append(value)

    def add(self, index: int, value: int) -> None:
        at = index + 1
        while at < len(self._tree):
            self._tree[at] += value
            at += at & -at

    def up_to(self, index: int) -> int:
        """The sum of all up to and with ``index``."""
        at, total = index + 1, 0
        while at:
            total += self._tree[at]
            at -= at & -at
        return total
