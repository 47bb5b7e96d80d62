"""Belady's optimum with bypass: the block whose next use lies farthest ahead leaves first, or never enters.

    next use        runs, each of increasing depth; the right end leaves first
    never           [d5 d6] [c2 c3 c4]
    request 812     [a0 a1] [a2 a3 a4 a5]
    request 640     [b0 b1 b2]

A request is looked up as a whole and inserted afterwards, so all its blocks are used at one time.
Keeping a block from one use to the next is an interval that takes one place and gives one hit, and
dropping the interval that ends last whenever too many overlap keeps the most. Whatever uses a block
uses its ancestors too, so along a prompt the next use never comes sooner: to drop the latest, the
deepest among equals, is to drop a leaf, and the optimum with room for any block is also the optimum
of a prefix cache. A new block counts as an interval like the others, and is not let in if it would
be the first to leave: ``Foresight`` says so beforehand.

Blocks of one prompt with the same next use are found by bisection, not one by one.

Source: Belady, "A study of replacement algorithms for a virtual-storage computer", IBM Systems
Journal 5(2), 1966; for intervals, Carlisle and Lloyd, "On the k-coloring of intervals", 1995.
Exact for block hits in one tier. Over several tiers it is a heuristic in each.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence

from kvtier.errors import ConfigError
from kvtier.hashing import BlockHash
from kvtier.policy.base import Evictable, Setting


class Belady:
    """The latest next use first; among equals the deepest.

    Args:
        next_use: See ``Setting``. Must not fall along a prompt.
        depth: See ``Setting``.
    """

    def __init__(self, next_use: Callable[[BlockHash], int], depth: Callable[[BlockHash], int]) -> None:
        self.next_use = next_use
        self._depth = depth
        self._due: dict[BlockHash, int] = {}
        """When each held name is used next."""
        self._groups: dict[int, _Group] = {}
        """Names by next use. A name that is not held, or is due at another time, is no member any more."""
        self._latest: list[int] = []
        """Heap of the groups' next uses, negated."""
        self._entries = 0
        """Names in all groups, former members included."""

    def insert(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.insert``."""
        for due, run in self.runs(keys):
            self._file(due, list(run))

    def touch(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.touch``."""
        held = self._due
        for due, run in self.runs(keys):
            if mine := [key for key in run if key in held]:
                self._file(due, mine)
        if self._entries > 2 * len(held) + 1000:
            self._compact()

    def remove(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.remove``."""
        for key in keys:
            self._due.pop(key, None)

    def evict(self, evictable: Evictable) -> Generator[BlockHash]:
        """See ``EvictionPolicy.evict``."""
        refused: dict[BlockHash, int] = {}
        try:
            while self._latest:
                due = -self._latest[0]
                for key in self._groups[due].leave():
                    self._entries -= 1
                    if self._due.get(key) != due or key in refused:
                        continue
                    if evictable(key):
                        del self._due[key]
                        yield key
                    else:
                        refused[key] = due
                del self._groups[due]
                heapq.heappop(self._latest)
        finally:
            for key, due in reversed(refused.items()):
                self._group(due).put_back(key)
            self._entries += len(refused)

    def __len__(self) -> int:
        return len(self._due)

    def num_later(self, due: int, limit: int) -> int:
        """Names held whose next use comes after ``due``, counted up to ``limit``."""
        passed: list[int] = []
        found: set[BlockHash] = set()
        while self._latest and -self._latest[0] > due and len(found) < limit:
            later = -heapq.heappop(self._latest)
            passed.append(later)
            for key in self._groups[later].members():
                if self._due.get(key) == later:
                    found.add(key)
                if len(found) == limit:
                    break
        for later in passed:
            heapq.heappush(self._latest, -later)
        return len(found)

    def runs(self, keys: Sequence[BlockHash]) -> Iterator[tuple[int, Sequence[BlockHash]]]:
        """Parts of a prompt with the same next use, and that use; by bisection."""
        start = 0
        while start < len(keys):
            due = self.next_use(keys[start])
            end = len(keys)
            if self.next_use(keys[-1]) != due:
                end = bisect_right(keys, due, lo=start + 1, key=self.next_use)
            yield due, keys[start:end]
            start = end

    def _file(self, due: int, run: list[BlockHash]) -> None:
        """Note when the blocks of a run are used next."""
        self._due.update(dict.fromkeys(run, due))
        self._group(due).add(run, self._depth(run[0]), self._depth(run[-1]))
        self._entries += len(run)

    def _group(self, due: int) -> _Group:
        group = self._groups.get(due)
        if group is None:
            group = self._groups[due] = _Group()
            heapq.heappush(self._latest, -due)
        return group

    def _compact(self) -> None:
        """Forget former members."""
        for due, group in list(self._groups.items()):
            group.keep({key for run in group.runs for key in run if self._due.get(key) == due})
            if not group.runs:
                del self._groups[due]
        self._latest = [-due for due in self._groups]
        heapq.heapify(self._latest)
        self._entries = sum(len(run) for group in self._groups.values() for run in group.runs)


class _Group:
    """Blocks with the same next use, so that a block comes to leave before its ancestors."""

    __slots__ = ("_end_depth", "runs")

    def __init__(self) -> None:
        self.runs: deque[list[BlockHash]] = deque()
        """The newest left. Ancestors were used whenever a block was, so none stands further right."""
        self._end_depth = 0
        """Of the newest run's last block."""

    def add(self, run: list[BlockHash], depth: int, end_depth: int) -> None:
        """Add a part of a prompt: to the newest run if it is deeper, as what comes after a prompt's held part is."""
        if self.runs and self._end_depth < depth:
            self.runs[0] += run
        else:
            self.runs.appendleft(run)
        self._end_depth = end_depth

    def leave(self) -> Iterator[BlockHash]:
        """Take out one after the other."""
        while self.runs:
            last = self.runs[-1]
            while last:
                yield last.pop()
            self.runs.pop()

    def put_back(self, key: BlockHash) -> None:
        """Make a block the first to leave again."""
        if not self.runs:
            self.runs.append([])
        self.runs[-1].append(key)

    def members(self) -> Iterator[BlockHash]:
        """All in the order in which they leave."""
        for run in reversed(self.runs):
            yield from reversed(run)

    def keep(self, members: set[BlockHash]) -> None:
        """Forget the others, and older places of these; empties the set."""
        runs: deque[list[BlockHash]] = deque()
        for run in self.runs:
            kept = [key for key in run if key in members]
            members.difference_update(kept)
            if kept:
                runs.append(kept)
        self.runs = runs


class Foresight:
    """Admission that completes the optimum: a new block enters if one that is used later can make room.

    Blocks that are never used again stay out even if there is room: the hits are the same, and nothing
    is written for nothing.

    Args:
        policy: Of the same tier.
        capacity_blocks: Of that tier.
        never: What ``next_use`` says of a block that is not used again, or less.
    """

    def __init__(self, policy: Belady, capacity_blocks: int, never: int) -> None:
        self._policy = policy
        self._capacity_blocks = capacity_blocks
        self._never = never

    def touch(self, keys: Sequence[BlockHash]) -> None:
        """See ``Admission.touch``."""

    def admit(self, keys: Sequence[BlockHash]) -> int:
        """See ``Admission.admit``. Each block that may leave makes room for one."""
        room = self._capacity_blocks - len(self._policy)
        admitted = 0
        for due, run in self._policy.runs(keys):
            if due >= self._never:
                break
            wanted = admitted + len(run)
            later = self._policy.num_later(due, wanted - room) if wanted > room else 0
            admitted = min(wanted, max(admitted, room + later))
            if admitted < wanted:
                break
        return admitted


def belady(setting: Setting) -> Belady:
    """The policy of ``belady`` for a tier, whose ``Setting.next_use`` must be there.

    Raises:
        ConfigError: There is no future to look into.
    """
    if setting.next_use is None:
        raise ConfigError("belady needs to know what comes: it can be replayed over a trace, not run in a store")
    return Belady(setting.next_use, setting.depth)
