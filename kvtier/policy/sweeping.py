"""One sweep over names kept in order, worst first, in which anyone may be refused.

    refused     asked now   not asked yet
    | a b c |   d   |   e f g ...

What is refused stays where it is, so a sweep that gets nothing changes nothing. The next few
names are copied out before they are asked about: an order cannot be walked and cut at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator
from itertools import islice

from kvtier.hashing import BlockHash

_FIRST_COPIED = 16


def sweep(order: OrderedDict[BlockHash, None], evictable: Callable[[BlockHash], bool]) -> Generator[BlockHash]:
    """Yield what may leave, the front first, and take it out. Amortised O(1) per name asked about."""
    num_refused = 0
    while batch := list(islice(order, num_refused, num_refused + max(_FIRST_COPIED, num_refused))):
        for key in batch:
            if evictable(key):
                del order[key]
                yield key
            else:
                num_refused += 1
