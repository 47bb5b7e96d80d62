"""Queues of names, worst in front, in which anyone may be refused and keeps its place.

    refused     asked now   not asked yet
    | a b c |   d   |   e f g ...

A sweep leaves what is refused where it is, so one that gets nothing changes nothing. The next few
names are copied out before they are asked about, for a queue cannot be walked and cut at once.
A policy that moves names about during its sweep takes them off the front instead, and
puts back what was refused.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator
from itertools import islice

from kvtier.hashing import BlockHash

Queue = OrderedDict[BlockHash, None]
"""Names, the worst in front."""

_FIRST_COPIED = 2


def sweep(queue: Queue, evictable: Callable[[BlockHash], bool]) -> Generator[BlockHash]:
    """Yield what may leave, the front first, and take it out. Amortised O(1) per name asked about."""
    num_asked = num_refused = 0
    while batch := list(islice(queue, num_refused, num_refused + max(_FIRST_COPIED, num_asked))):
        for key in batch:
            if evictable(key):
                del queue[key]
                yield key
            else:
                num_refused += 1
        num_asked += len(batch)


def put_back(refused: list[tuple[BlockHash, Queue]]) -> None:
    """Return names to the fronts of the queues that they were taken from, in this order."""
    for key, queue in reversed(refused):
        queue[key] = None
        queue.move_to_end(key, last=False)
