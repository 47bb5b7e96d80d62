"""When each block of a trace is used next: what the offline optimum knows and no store can.

One pass over the trace keeps every prompt as runs of consecutive ids; a second one over those runs,
from the last request back to the first, notes the next use of each block:

    request   ids            runs             next use of its blocks   kept as
    0         0 1 2          [0, 3)           1 1 3                    1 x2, 3 x1
    1         0 1 3 4        [0, 2) [3, 5)    3 3 never never          3 x2, never x2

Ids are given out in order of appearance, so what a prompt adds is one run; whatever uses a block uses
its ancestors too, so next uses never fall along a prompt and take few values. Both make the whole of a
long trace fit in a small part of the memory that its ids would take.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from kvtier.hashing import BlockHash
from kvtier.sim.trace import Request

_Numbers = NDArray[np.int32]


class Future:
    """Next uses at request granularity, in step with a replay.

    Args:
        requests: The trace, gone through once. Its ids are whole numbers, about as many as blocks.
    """

    def __init__(self, requests: Iterable[Request]) -> None:
        prompts = _Lists()
        num_blocks = 0
        for request in requests:
            starts, lengths = _runs(request.blocks)
            prompts.append(starts, lengths)
            num_blocks = max(num_blocks, int((starts + lengths).max(initial=0)))
        self._prompts = prompts
        self.never = len(prompts)
        """The next use of a block that is not used again: the number of requests."""
        self._next = np.full(num_blocks, self.never, np.int32)
        self._steps = self._look_back()
        self._now = 0

    def advance(self) -> None:
        """The next request of the trace has come, the first one at the first call."""
        values, lengths = self._steps.get(self.never - 1 - self._now)
        self._next[_expand(*self._prompts.get(self._now))] = np.repeat(values, lengths)
        self._now += 1

    def next_use(self, key: BlockHash) -> int:
        """Number of the request that uses a block next, after the current one; ``never`` if none does.

        Args:
            key: Its name: in a replay, its id in the trace. It has been used.
        """
        return int(self._next[cast("int", key)])

    def _look_back(self) -> _Lists:
        """Next use of each block at each request, the last request first; leaves every first use in ``_next``."""
        steps = _Lists()
        for number in reversed(range(self.never)):
            blocks = _expand(*self._prompts.get(number))
            uses = self._next[blocks]
            begins = _begins(uses, 0)
            steps.append(uses[begins], np.diff(begins, append=len(uses)))
            self._next[blocks] = number
        return steps


class _Lists:
    """Pairs of equally long lists of numbers below 2**31, end to end."""

    def __init__(self) -> None:
        self._first, self._second = array("i"), array("i")
        self._ends = array("q", [0])

    def append(self, first: NDArray[np.integer], second: NDArray[np.integer]) -> None:
        """Add a pair."""
        self._first.frombytes(first.astype(np.int32, copy=False).tobytes())
        self._second.frombytes(second.astype(np.int32, copy=False).tobytes())
        self._ends.append(len(self._first))

    def get(self, number: int) -> tuple[_Numbers, _Numbers]:
        """A pair, to be read only while none is added."""
        begin, end = self._ends[number : number + 2]
        part = slice(begin, end)
        return np.frombuffer(self._first, np.int32)[part], np.frombuffer(self._second, np.int32)[part]

    def __len__(self) -> int:
        return len(self._ends) - 1


def _runs(blocks: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First ids and lengths of the runs of consecutive ids that make up a prompt."""
    ids = np.frombuffer(array("q", blocks), np.int64)
    begins = _begins(ids, 1)
    return ids[begins], np.diff(begins, append=len(ids))


def _begins(numbers: NDArray[np.integer], step: int) -> NDArray[np.int64]:
    """Where a number is not its predecessor plus ``step``; the first one has none."""
    breaks = np.flatnonzero(np.diff(numbers) != step) + 1
    return np.concatenate([np.zeros(min(1, len(numbers)), np.int64), breaks])


def _expand(starts: _Numbers, lengths: _Numbers) -> NDArray[np.int64]:
    """The ids of a prompt."""
    ends = np.cumsum(lengths, dtype=np.int64)
    ids = np.repeat(starts - (ends - lengths), lengths)
    ids += np.arange(len(ids))
    return ids
