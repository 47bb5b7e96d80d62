"""Leases as people meet them: late ones released and named, live ones listed.

The index keeps leases and reads no clock; the store asks here, under its lock.
"""

from __future__ import annotations

import logging
import math
import time

from kvtier.answers import Leased
from kvtier.index import PrefixIndex

log = logging.getLogger("kvtier")


def release_lapsed(index: PrefixIndex) -> None:
    """Release every lease whose deadline has passed, and name it in the log."""
    for lease in index.expire(time.monotonic()):
        log.warning("lease of %s lapsed after its deadline; it held %d blocks", lease.owner, len(lease.nodes))


def live(index: PrefixIndex) -> tuple[Leased, ...]:
    """The leases that have not been released, by owner."""
    now = time.monotonic()
    found = [
        Leased(each.owner, len(each.nodes), None if math.isinf(each.deadline) else each.deadline - now)
        for each in index.leases
    ]
    return tuple(sorted(found, key=lambda lease: (lease.owner, -lease.num_blocks)))


def name_leaked(index: PrefixIndex) -> tuple[Leased, ...]:
    """The leases left when a store is closed; also logged, with who holds how much for how long."""
    leaked = live(index)
    if leaked:
        log.warning("close: leases never released, held by: %s", ", ".join(map(_described, leaked)))
    return leaked


def _described(lease: Leased) -> str:
    left = "no deadline" if lease.seconds_left is None else f"{lease.seconds_left:.1f} s before its deadline"
    return f"{lease.owner} ({lease.num_blocks} blocks, {left})"
