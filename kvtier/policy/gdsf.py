"""GDSF: a block is worth its uses times what it costs to compute, above a floor that rises.

    worth = floor + uses * recompute_s(depth)       the least leaves, and its worth is the new floor

Blocks of a tier have one size, so the size of the formula drops out. Cost grows with depth, since
attention looks back further; it alone would rate a prompt's head below its tail, which the head
carries. A block is therefore worth no less than what comes after it in the prompts that use it.

The heap holds one entry a name. A use changes the name's worth and leaves the heap alone: worth only
rises, so an entry that comes up too low is put back at its height. That costs O(log n) when room is
made, at most once for each use.

Source: Cherkasova, "Improving WWW Proxies Performance with Greedy-Dual-Size-Frequency Caching
Policy", HP Laboratories 1998. Differs from it: no size, the worth of a head is never below that of its tail,
ties leave deepest first, ``evictable`` can veto a victim.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator, Sequence

from kvtier.hashing import BlockHash
from kvtier.policy.base import Evictable, Setting


class GDSF:
    """GreedyDual-Size-Frequency with recompute time as cost.

    Args:
        recompute_s: See ``Setting``.
        depth: See ``Setting``.
    """

    def __init__(
        self, recompute_s: Callable[[int], float] = lambda _: 1.0, depth: Callable[[BlockHash], int] = lambda _: 0
    ) -> None:
        self._recompute_s = recompute_s
        self._depth = depth
        self._floor = 0.0
        self._level = 0.0
        """The floor when the current prompt came: what it makes leave does not lift its tail above its head."""
        self._held: dict[BlockHash, _Standing] = {}
        self._heap: list[tuple[float, int, BlockHash]] = []
        """Worth when it was entered, the standing's ``turn``, name."""
        self._num_inserted = 0

    def insert(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.insert``. O(log n) a name."""
        held, heap, level, best = self._held, self._heap, self._level, 0.0
        for num, key in enumerate(reversed(keys), self._num_inserted + 1):
            depth = self._depth(key)
            cost = self._recompute_s(depth)
            best = max(best, cost)
            worth, turn = level + best, num - (depth << _TURN_BITS)
            held[key] = _Standing(cost, worth, turn)
            heapq.heappush(heap, (worth, turn, key))
        self._num_inserted += len(keys)
        if len(self._heap) > 2 * len(self._held) + 1000:
            self._compact()

    def touch(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.touch``."""
        if not keys:
            return
        self._level = level = self._floor
        get = self._held.get
        arriving = keys[-1] not in self._held  # the head carries it already
        best = self._recompute_s(len(keys) - 1) if arriving else 0.0
        reach = level + best
        for key in reversed(keys):
            standing = get(key)
            if standing is not None:
                standing.uses = uses = standing.uses + 1
                value = uses * standing.cost
                if value > best:
                    best = value
                    reach = level + best
                if reach > standing.worth:  # noqa: PLR1730 (calling max here is a fifth of a replay's time in this policy)
                    standing.worth = reach

    def remove(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.remove``."""
        for key in keys:
            self._held.pop(key, None)

    def evict(self, evictable: Evictable) -> Generator[BlockHash]:
        """See ``EvictionPolicy.evict``. O(log n) a name."""
        heap, refused = self._heap, list[tuple[float, int, BlockHash]]()
        try:
            while heap:
                worth, turn, key = heap[0]
                standing = self._held.get(key)
                if standing is None or standing.turn != turn:
                    heapq.heappop(heap)
                elif standing.worth > worth:
                    heapq.heapreplace(heap, (standing.worth, turn, key))
                elif evictable(key):
                    heapq.heappop(heap)
                    del self._held[key]
                    self._floor = worth
                    yield key
                else:
                    refused.append(heapq.heappop(heap))
        finally:
            for entry in refused:
                heapq.heappush(heap, entry)

    def __len__(self) -> int:
        return len(self._held)

    def _compact(self) -> None:
        """Forget the entries of names that left without being victims."""
        self._heap = [(standing.worth, standing.turn, key) for key, standing in self._held.items()]
        heapq.heapify(self._heap)


_TURN_BITS = 40
"""So many more names can be inserted before the order of insertion weighs more than one step of depth."""


class _Standing:
    """What speaks for one name."""

    __slots__ = ("cost", "turn", "uses", "worth")

    def __init__(self, cost: float, worth: float, turn: int) -> None:
        self.cost = cost
        self.worth = worth
        self.turn = turn
        """Orders equal worth, the deepest first, then the first inserted; never that of another name."""
        self.uses = 1


def gdsf(setting: Setting) -> GDSF:
    """The policy of ``gdsf`` for a tier."""
    return GDSF(setting.recompute_s, setting.depth)
