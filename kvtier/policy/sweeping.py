"""Queues of names, worst in front, in which anyone may be refused and keeps its place.

    left in place   just given   copied out   not reached yet
    |  a   b   c  |      d     |   e   f    |   g   h  ...

A walk leaves what is refused where it is, so one that gets nothing changes nothing. The next few
names are copied out before they are asked about, for a queue cannot be walked and cut at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator
from itertools import islice

from kvtier.hashing import BlockHash
from kvtier.policy.base import Evictable

Queue = OrderedDict[BlockHash, None]
"""Names, the worst in front."""

_FIRST_COPIED = 2


def walk(queue: Queue) -> Generator[BlockHash | None]:
    """Names from the front on, and None whenever there is none, for more may come. Amortised O(1) per name.

    The name just given may be taken out, and others may be added at the end.
    """
    num_left = num_given = 0
    while True:
        batch = list(islice(queue, num_left, num_left + max(_FIRST_COPIED, num_given)))
        for key in batch:
            yield key
            if key in queue:
                num_left += 1
        num_given += len(batch)
        if not batch:
            yield None


def sweep(queue: Queue, evictable: Evictable) -> Generator[BlockHash]:
    """Yield what may leave, the front first, and take it out. Amortised O(1) per name asked about.

    A walk to its end, written out: most policies spend most of their time here.
    """
    num_refused = num_asked = 0
    while batch := list(islice(queue, num_refused, num_refused + max(_FIRST_COPIED, num_asked))):
        for key in batch:
            if evictable(key):
                del queue[key]
                yield key
            else:
                num_refused += 1
        num_asked += len(batch)


class Aside:
    """Names that others must leave before, taken out of their queue, and those of them that need not wait any more.

    These are worse than anything that is still in the queue, since they came to leave before it.
    """

    def __init__(self) -> None:
        self._waiting: set[BlockHash] = set()
        self._free: Queue = OrderedDict()
        self._refused: list[BlockHash] = []
        """Those that were free and could not leave all the same, in this sweep."""

    def put(self, key: BlockHash) -> None:
        """One has to wait."""
        self._waiting.add(key)

    def free(self, key: BlockHash) -> None:
        """One need not wait any more, if it did."""
        if key in self._waiting:
            self._waiting.remove(key)
            self._free[key] = None

    def pop(self) -> BlockHash | None:
        """Take out one that need not wait; None if there is none."""
        return self._free.popitem(last=False)[0] if self._free else None

    def refuse(self, key: BlockHash) -> None:
        """One that was taken out cannot leave in this sweep."""
        self._refused.append(key)

    def end(self) -> None:
        """The sweep is over."""
        self._free.update(dict.fromkeys(self._refused))
        self._refused.clear()

    def discard(self, key: BlockHash) -> bool:
        """Forget one; False if it is not here."""
        if key in self._waiting:
            self._waiting.remove(key)
        elif key in self._free:
            del self._free[key]
        else:
            return False
        return True

    def __len__(self) -> int:
        return len(self._waiting) + len(self._free)
