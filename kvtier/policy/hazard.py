"""Hazard: what is least likely to be asked for by the next request leaves first, as learnt from requests so far.

    uses   runs of blocks, the one used last on the right      chance that the leftmost is used next
    1      [e0 .. e7]  [d4 d5]  [c1 .. c9]                     0.0004      its tail leaves first
    2      [b3 .. b6]                                          0.0021
    3+     [a0 a1]                                             0.0500

A prefix cache sees whole prompts, so blocks do not come and go one by one. The new blocks of a prompt are a run;
a later prompt uses a run or leaves it, and splits it where it turns off. A run has one number of uses and one time of
last use, counted in requests, and both tell whether it will be used again: of those used twice more come back than of
those used once, and of those that have waited longer fewer.

For each number of uses and each power of two of waiting time the policy counts how often a run was used
and for how many requests one waited. Their ratio is the hazard rate. It compares the run that has waited longest
of each number of uses, and takes the blocks of the least likely one from its tail. Within one number of uses this
is LRU, and so it is at the start, when the rates are guessed to fall with the waiting time.

Names of blocks that have left are remembered, and with them their uses, up to a bound that does not
depend on the capacity: a name is short, and a block is not.

A prompt is gone through from run to run, not from name to name, so a use costs less than a list's move.

Source: the ranking by learnt reuse over age classes is that of LHD (Beckmann, Chen and Cidon, NSDI 2018). Differs
from it: the rate of the moment and not over the rest of a block's life, runs of a prompt in place of objects, no
sampling, uses in place of its classes, and blocks that have left count too.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Generator, Sequence

from kvtier.hashing import BlockHash
from kvtier.policy.base import Evictable, Setting

MAX_NAMES_GONE = 1_000_000
"""Names of blocks that have left which are remembered, unless told otherwise."""

_NUM_KINDS = 3
"""Runs used once, twice, and more often."""


class Hazard:
    """The least rate of use first, learnt by number of uses and waiting time.

    Args:
        max_names_gone: Names of blocks that have left which are remembered at most.
    """

    def __init__(self, max_names_gone: int = MAX_NAMES_GONE) -> None:
        self._max_names_gone = max_names_gone
        self._now = 0
        """Requests so far."""
        self._held: set[BlockHash] = set()
        self._runs: dict[BlockHash, _Run] = {}
        """By their first name, those of which nothing is held included."""
        self._waiting: list[OrderedDict[_Run, None]] = [OrderedDict() for _ in range(_NUM_KINDS)]
        """Runs of which something is held, by kind, the one that has waited longest in front."""
        self._num_waiting = 0
        """Blocks of those, names removed meanwhile included."""
        self._gone: OrderedDict[_Run, None] = OrderedDict()
        """Runs of which nothing is held, the one that left first in front."""
        self._num_gone = 0
        """Names of those."""
        self._broken: dict[BlockHash, _Run] = {}
        """Runs of the last prompt of which a part is held, by the first name that is not."""
        self._due: dict[int, list[tuple[_Run, int, int]]] = {}
        """By request: runs that will have waited long enough for the next class of ages, since when, and the class."""
        self._rates = _Rates()

    def insert(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.insert``."""
        fresh: list[BlockHash] = []
        at = 0
        while at < len(keys):
            run = self._broken.get(keys[at]) or self._runs.get(keys[at])
            num_resumed = 0 if run is None or run.is_forgotten else self._resume(run, keys, at)
            if num_resumed:
                self._begin(fresh)
                fresh = []
                at += num_resumed
            else:
                fresh.append(keys[at])
                at += 1
        self._begin(fresh)
        self._held.update(keys)
        self._tidy()

    def touch(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.touch``."""
        self._now += 1
        for run, since, age in self._due.pop(self._now, ()):
            if run.since == since:
                self._wait(run, age + 1)
        self._broken.clear()
        for run in reversed(self._walk(keys)):
            self._rates.note_use(run.kind, self._now - run.since)
            self._unfile(run)
            run.uses += 1
            run.since = self._now
            self._file(run)
            self._wait(run, 0)
            if run.num_held < len(run.names):
                self._broken[run.names[run.num_held]] = run
        self._tidy()

    def arrange(self, keys: Sequence[BlockHash]) -> None:
        """See ``Arranging.arrange``. Orders the runs of the last prompt; others stay where they are."""
        used: list[_Run] = []
        at = 0
        while at < len(keys):
            run = self._runs.get(keys[at])
            if run is not None and run.num_held and run.since == self._now:
                used.append(run)
            at += 1 if run is None else len(run.names)
        for run in reversed(used):
            self._waiting[run.kind].move_to_end(run)

    def remove(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.remove``."""
        self._held.difference_update(keys)

    def evict(self, evictable: Evictable) -> Generator[BlockHash]:
        """See ``EvictionPolicy.evict``. A run whose tail is refused is passed over, and asked about in the end."""
        passed: list[_Run] = []
        refused: set[BlockHash] = set()
        oldest = [self._oldest(kind) for kind, waiting in enumerate(self._waiting) if waiting]
        heapq.heapify(oldest)
        try:
            while oldest:
                _, kind = oldest[0]
                run = next(iter(self._waiting[kind]))
                self._unfile(run)
                passed.append(run)
                yield from self._take_tail(run, evictable, refused)
                if self._waiting[kind]:
                    heapq.heapreplace(oldest, self._oldest(kind))
                else:
                    heapq.heappop(oldest)
            for run in passed:
                for key in reversed(run.names[: run.num_held]):
                    if key in self._held and key not in refused and self._may_go(key, evictable, refused):
                        yield key
        finally:
            for run in reversed(passed):
                self._file(run, front=True)

    def __len__(self) -> int:
        return len(self._held)

    # Runs

    def _walk(self, keys: Sequence[BlockHash]) -> list[_Run]:
        """The runs of a prompt, the last one split where the prompt turns off."""
        used: list[_Run] = []
        at = 0
        while at < len(keys):
            run = self._runs.get(keys[at])
            if run is None:
                at += 1
                continue
            num_common = run.num_common(keys, at)
            used.append(run if num_common == len(run.names) else self._split(run, num_common))
            at += num_common
        return used

    def _begin(self, names: list[BlockHash]) -> None:
        """Take up new names as a run."""
        if names:
            run = _Run(names, len(names), 1, self._now)
            self._runs[names[0]] = run
            self._file(run)
            self._wait(run, 0)

    def _resume(self, run: _Run, keys: Sequence[BlockHash], at: int) -> int:
        """Take up again what a run lacks, as far as the keys from ``at`` on are that; returns how many."""
        begin = end = run.num_held
        while end < len(run.names) and at < len(keys) and run.names[end] == keys[at]:
            end += 1
            at += 1
        if end > begin:
            self._unfile(run)
            run.num_held = end
            self._file(run)
        return end - begin

    def _split(self, run: _Run, at: int) -> _Run:
        """Cut a run in two, and return the new one, its head; the tail keeps its place in line."""
        head = _Run(run.names[:at], min(run.num_held, at), run.uses, run.since)
        if run.num_held > at:
            self._num_waiting -= at
            run.names, run.num_held = run.names[at:], run.num_held - at
        else:
            self._unfile(run)
            run.names, run.num_held = run.names[at:], 0
            self._file(run)
        self._runs[head.names[0]] = head
        self._runs[run.names[0]] = run
        self._file(head)
        for age in range(_age_class(self._now - run.since) + 1):
            self._rates.note_wait(head.kind, age)
        return head

    def _take_tail(self, run: _Run, evictable: Evictable, refused: set[BlockHash]) -> Generator[BlockHash]:
        """Victims of a run, to the first that is refused."""
        while run.num_held:
            key = run.names[run.num_held - 1]
            if key in refused:
                return
            if key in self._held:
                if not self._may_go(key, evictable, refused):
                    return
                run.num_held -= 1
                yield key
            else:
                run.num_held -= 1

    def _may_go(self, key: BlockHash, evictable: Evictable, refused: set[BlockHash]) -> bool:
        if not evictable(key):
            refused.add(key)
            return False
        self._held.discard(key)
        return True

    # Lines

    def _oldest(self, kind: int) -> tuple[float, int]:
        """How likely the run of a kind that has waited longest is used next, and the kind."""
        run = next(iter(self._waiting[kind]))
        return self._rates.rate(kind, self._now - run.since), kind

    def _file(self, run: _Run, *, front: bool = False) -> None:
        """Put a run at the end of its line, or in front."""
        if run.num_held:
            line = self._waiting[run.kind]
            self._num_waiting += run.num_held
        else:
            line = self._gone
            self._num_gone += len(run.names)
            front = False
        line[run] = None
        if front:
            line.move_to_end(run, last=False)

    def _unfile(self, run: _Run) -> None:
        if run.num_held:
            del self._waiting[run.kind][run]
            self._num_waiting -= run.num_held
        else:
            del self._gone[run]
            self._num_gone -= len(run.names)

    def _wait(self, run: _Run, age: int) -> None:
        """A run begins to wait, or has waited long enough for the next class of ages."""
        self._rates.note_wait(run.kind, age)
        self._due.setdefault(run.since + _WIDTHS[age] * (2 if age else 1), []).append((run, run.since, age))

    def _tidy(self) -> None:
        """Forget the runs that left first, and names that were removed, when there are too many."""
        while self._num_gone > self._max_names_gone:
            run = next(iter(self._gone))
            self._unfile(run)
            run.since = -1
            if self._runs.get(run.names[0]) is run:
                del self._runs[run.names[0]]
        if self._num_waiting > 2 * len(self._held) + 1000:
            self._drop_removed()

    def _drop_removed(self) -> None:
        seen: set[BlockHash] = set()
        for run in [run for line in self._waiting for run in line]:
            self._unfile(run)
            kept = [key for key in run.names[: run.num_held] if key in self._held and key not in seen]
            seen.update(kept)
            if self._runs.get(run.names[0]) is run:
                del self._runs[run.names[0]]
            if kept:
                run.names, run.num_held = kept, len(kept)
                self._runs[kept[0]] = run
                self._file(run)
            else:
                run.since = -1


class _Run:
    """Blocks that follow each other in every prompt so far that used any of them."""

    __slots__ = ("names", "num_held", "since", "uses")

    def __init__(self, names: list[BlockHash], num_held: int, uses: int, since: int) -> None:
        self.names = names
        self.num_held = num_held
        """Of the names, the first so many are held, but for those removed meanwhile."""
        self.uses = uses
        self.since = since
        """Number of the request that used it last; -1 once it is forgotten."""

    @property
    def is_forgotten(self) -> bool:
        """Whether no line has it any more."""
        return self.since < 0

    @property
    def kind(self) -> int:
        """Which of the lines it stands in."""
        return min(self.uses, _NUM_KINDS) - 1

    def num_common(self, keys: Sequence[BlockHash], at: int) -> int:
        """How many of its names a prompt has from ``at`` on, where it has the first. By bisection."""
        end = at + len(self.names)
        if end <= len(keys) and keys[end - 1] == self.names[-1]:
            return len(self.names)
        others = range(1, min(len(self.names), len(keys) - at))
        return 1 + bisect_left(others, True, key=lambda number: keys[at + number] != self.names[number])


_NUM_AGES = 48

_WIDTHS = [2, *(2**age for age in range(1, _NUM_AGES))]
"""Requests in each class of ages: 0 and 1, 2 and 3, 4 to 7, 8 to 15 ..."""


def _age_class(age: int) -> int:
    return max(1, age).bit_length() - 1


class _Rates:
    """Uses for each request waited, by kind and class of ages."""

    def __init__(self) -> None:
        self._num_uses = [[0] * _NUM_AGES for _ in range(_NUM_KINDS)]
        self._waited = [[0] * _NUM_AGES for _ in range(_NUM_KINDS)]
        self._all_uses = [1] * _NUM_AGES
        self._all_waited = [2 ** (age + 1) for age in range(_NUM_AGES)]
        """As if one run of each age had been used: a rate that falls as the age grows."""

    def note_wait(self, kind: int, age: int) -> None:
        """A run has come to a class of ages. It counts as if it stayed to the end."""
        self._waited[kind][age] += _WIDTHS[age]
        self._all_waited[age] += _WIDTHS[age]

    def note_use(self, kind: int, waited: int) -> None:
        """A run was used after so many requests, and did not stay."""
        age = _age_class(waited)
        rest = 2 ** (age + 1) - waited
        self._waited[kind][age] -= rest
        self._all_waited[age] -= rest
        self._num_uses[kind][age] += 1
        self._all_uses[age] += 1

    def rate(self, kind: int, waited: int) -> float:
        """Chance that a run is used by the next request; where little is known, that of all kinds.

        No less than that of a run used less often: a head may not leave before its tail.
        """
        age = _age_class(waited)
        typical = self._all_waited[age] / self._all_uses[age]
        return max(
            float((num_uses[age] + 1) / (waited_for[age] + typical))
            for num_uses, waited_for in zip(self._num_uses[: kind + 1], self._waited, strict=False)
        )


def hazard(_: Setting) -> Hazard:
    """The policy of ``hazard`` for a tier."""
    return Hazard()
