"""Queues of names, worst in front, in which anyone may be refused and keeps its place.

    left in place   just given   copied out   not reached yet
    |  a   b   c  |      d     |   e   f    |   g   h  ...

A walk leaves what is refused where it is, so one that gets nothing changes nothing. The next few
names are copied out before they are asked about, for a queue cannot be walked and cut at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator
from itertools import islice

from kvtier.hashing import BlockHash

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


def sweep(queue: Queue, evictable: Callable[[BlockHash], bool]) -> Generator[BlockHash]:
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
