"""Sessions of coding agents: one session a line, ids as differences to the request before.

    {"id", "block_size", "tool_tokens", "system_tokens", "requests": [
        {"t": 0.0, "in": 200, "out": 9, "keep": 0, "add": [[1, 3]]},                  blocks 1 2 3
        {"t": 4.0, "subagent": "a", "tool_tokens", "system_tokens", "requests": [...]},
        {"t": 9.0, "in": 340, "out": 7, "keep": 2, "add": [[8, 2], [20, 1]]}]}        blocks 1 2 8 9 20

A request keeps the first ``keep`` ids of the one before it in its list and adds runs ``[start, count]``. A
sub-agent's list starts from nothing, counts its times from its own start, and shares its session's ids.
Whole blocks only: a request has ``in // block_size`` ids.

A session knows times since its own start alone. How many run at once decides what a cache can hold, so it is
an assumption to be named: sessions start in the file's order, ``session_interval_s`` apart, and are merged by time.
A line is read when its session starts and forgotten when it ends. Ids mean something within a session only, and are
numbered anew in order of first appearance.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import Any, NamedTuple

from kvtier.errors import TraceError
from kvtier.sim.lines import (
    MAX_PROMPT_BLOCKS,
    Line,
    MalformedError,
    Skipped,
    entries,
    records,
    seconds,
    whole,
)
from kvtier.sim.trace import Request

SESSION_INTERVAL_S = 60.0

_MAX_ID = 2**63 - 1


def matches(record: Mapping[str, Any]) -> bool:
    """Whether a record is one of this format."""
    return "requests" in record and "block_size" in record


def block_tokens_of(record: Mapping[str, Any]) -> int:
    """Tokens in a block, as a session says.

    Raises:
        MalformedError: It does not.
    """
    return max(whole(record, "block_size"), 1)


class _Turn(NamedTuple):
    """One request as the file has it."""

    time_s: float
    input_tokens: int
    output_tokens: int
    keep: int
    add: list[tuple[int, int]]


class _Agent(NamedTuple):
    """A list of requests, a session's or a sub-agent's."""

    time_s: float
    """Its start, since that of the list it stands in."""

    shared_blocks: int
    """Whole blocks of tools and system prompt."""

    entries: list[_Turn | _Agent]


# One line


def _session(record: Mapping[str, Any], block_tokens: int) -> _Agent:
    """A session and its sub-agents, checked as far as one can without expanding ids.

    Raises:
        MalformedError: Something in it is not as the format says.
    """
    if whole(record, "block_size") != block_tokens:
        raise MalformedError(f"'block_size' is {record['block_size']}, and the trace is read with {block_tokens}")
    top = _agent(record, 0.0, block_tokens)
    todo = [(record, top)]
    while todo:  # not by recursion: depth is the file's
        source, agent = todo.pop()
        held = 0
        for each in entries(source, "requests"):
            if not isinstance(each, dict):
                raise MalformedError("'requests' must hold objects")
            if "requests" in each:
                inner = _agent(each, seconds(each, "t"), block_tokens)
                todo.append((each, inner))
                agent.entries.append(inner)
            else:
                turn = _turn(each, held, block_tokens)
                held = turn.input_tokens // block_tokens
                agent.entries.append(turn)
    return top


def _agent(record: Mapping[str, Any], time_s: float, block_tokens: int) -> _Agent:
    shared_tokens = whole(record, "tool_tokens") + whole(record, "system_tokens")
    return _Agent(time_s, shared_tokens // block_tokens, [])


def _turn(record: Mapping[str, Any], held: int, block_tokens: int) -> _Turn:
    """One request, after one with ``held`` blocks."""
    tokens = whole(record, "in")
    keep = whole(record, "keep", MAX_PROMPT_BLOCKS)
    if keep > held:
        raise MalformedError(f"'keep' is {keep}, and the request before has {held} blocks")
    runs: list[tuple[int, int]] = []
    total = keep
    for run in entries(record, "add"):
        if not (isinstance(run, list) and len(run) == 2 and all(type(each) is int and each >= 0 for each in run)):
            raise MalformedError("'add' must hold runs [start, count] of whole numbers")
        total += run[1]
        if total > MAX_PROMPT_BLOCKS or run[0] + run[1] > _MAX_ID:
            raise MalformedError(f"a prompt may have {MAX_PROMPT_BLOCKS} blocks and ids up to {_MAX_ID}")
        runs.append((run[0], run[1]))
    if total != tokens // block_tokens:
        raise MalformedError(f"{total} ids do not fit {tokens} tokens in whole blocks of {block_tokens}")
    return _Turn(seconds(record, "t"), tokens, whole(record, "out"), keep, runs)


# Ids


class _Numbers:
    """The trace's ids, given out from 0 on."""

    def __init__(self) -> None:
        self._next = 0

    def take(self, size: int) -> int:
        """The first of ``size`` new ids."""
        first = self._next
        self._next += size
        return first


class _Prefixes:
    """Ids of the tools and system prompts that all sessions have in common, by depth."""

    def __init__(self, numbers: _Numbers) -> None:
        self._numbers = numbers
        self._ids: list[int] = []

    def run(self, start: int, stop: int) -> list[int]:
        """Those of depth ``start`` to ``stop``, made when they are first asked for."""
        while len(self._ids) < stop:
            self._ids.append(self._numbers.take(1))
        return self._ids[start:stop]


class _Ids:
    """A session's ids, as intervals of what the trace numbers them.

    Inside an interval every id follows the one before it, so that only an interval's first needs to say whom it
    follows, and the check of a whole run is one look at its start.
    """

    def __init__(self, numbers: _Numbers) -> None:
        self._numbers = numbers
        self._starts: list[int] = []
        self._stops: list[int] = []
        self._firsts: list[int] = []
        """The trace's number of an interval's first id."""
        self._before: list[int] = []
        """The trace's number of the block before an interval, -1 for none."""

    def append(self, blocks: list[int], start: int, stop: int, where: str) -> None:
        """Add a run to a prompt; ``where`` is for messages.

        Raises:
            TraceError: An id follows another one than before.
        """
        while start < stop:
            last = blocks[-1] if blocks else -1
            at = bisect_right(self._starts, start) - 1
            if at >= 0 and start < self._stops[at]:
                skip = start - self._starts[at]
                first = self._firsts[at] + skip
                if last != (first - 1 if skip else self._before[at]):
                    raise TraceError(
                        f"{where}: id {start} at depth {len(blocks)} follows another block than before; "
                        "an id must stand for one block with everything before it"
                    )
                size = min(stop, self._stops[at]) - start
            else:
                end = self._starts[at + 1] if at + 1 < len(self._starts) else stop
                size = min(stop, end) - start
                first = self._numbers.take(size)
                for column, value in (
                    (self._starts, start),
                    (self._stops, start + size),
                    (self._firsts, first),
                    (self._before, last),
                ):
                    column.insert(at + 1, value)
            blocks.extend(range(first, first + size))
            start += size


# All sessions


class _Cursor:
    """How far a list of requests has come."""

    def __init__(
        self, agent: _Agent, start_s: float, *, common: _Prefixes | None, ids: _Ids, conversation: int, where: str
    ) -> None:
        self._where = where
        self._conversation = conversation
        self._ids = ids
        self._shared_blocks = agent.shared_blocks
        self._common = common
        """Where the blocks of tools and system prompt are found; None if they are the session's own."""
        self._rest = iter(agent.entries)
        self._blocks: list[int] = []
        """Of the request before."""
        self._now_s = 0.0
        """Since the list's start."""
        self.start_s = start_s

    def next(self) -> _Turn | _Agent | None:
        """The list's next entry; None at its end.

        Raises:
            TraceError: It comes before the one before it.
        """
        entry = next(self._rest, None)
        if entry is not None:
            if entry.time_s < self._now_s:
                raise TraceError(
                    f"{self._where}: time runs backwards in a list of requests, "
                    f"from {self._now_s:g} s to {entry.time_s:g} s; sort it"
                )
            self._now_s = entry.time_s
        return entry

    def subagent(self, agent: _Agent, common: _Prefixes | None) -> _Cursor:
        """The start of a list that stands in this one."""
        start_s = self.start_s + agent.time_s
        return _Cursor(agent, start_s, common=common, ids=self._ids, conversation=self._conversation, where=self._where)

    def request(self, turn: _Turn) -> Request:
        """A turn with its ids expanded.

        Raises:
            TraceError: An id follows another one than before.
        """
        blocks = self._blocks[: turn.keep]
        for start, size in turn.add:
            begin = start
            if self._common is not None and len(blocks) < self._shared_blocks:
                begin += min(size, self._shared_blocks - len(blocks))
                blocks += self._common.run(len(blocks), len(blocks) + begin - start)
            self._ids.append(blocks, begin, start + size, self._where)
        self._blocks = blocks
        time_s = self.start_s + turn.time_s
        return Request(time_s, blocks, turn.input_tokens, turn.output_tokens, self._conversation)


class _Merge:
    """The lists that are running, by the time of their next entry; of equal times the one that came first."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, _Turn | _Agent, _Cursor]] = []
        self._order = count()

    def next_s(self) -> float:
        """When the next entry is due."""
        return self._heap[0][0] if self._heap else math.inf

    def advance(self, cursor: _Cursor) -> None:
        """Take up a list's next entry, if it has one."""
        entry = cursor.next()
        if entry is not None:
            heappush(self._heap, (cursor.start_s + entry.time_s, next(self._order), entry, cursor))

    def pop(self) -> tuple[_Turn | _Agent, _Cursor]:
        """The entry that is due, and the list it is from."""
        _, _, entry, cursor = heappop(self._heap)
        return entry, cursor


def read(
    source: Iterable[Line],
    block_tokens: int,
    skipped: Skipped,
    *,
    session_interval_s: float = SESSION_INTERVAL_S,
    shared_prefix: bool = False,
) -> Iterator[Request]:
    """The requests of all sessions, merged by time.

    Args:
        source: The file's lines.
        block_tokens: Tokens in a block.
        skipped: What to do with a malformed line: a session in which anything is wrong is left out whole.
        session_interval_s: From the start of one session to that of the next.
        shared_prefix: The blocks of tools and system prompt are the same in all sessions, and likewise in all
            sub-agents, as far as they go. An upper bound of sharing: the trace does not say whose are equal.

    Raises:
        TraceError: An id follows two others, or time runs backwards; in strict reading also a malformed line.
    """
    numbers = _Numbers()
    of_sessions, of_agents = (_Prefixes(numbers) if shared_prefix else None for _ in range(2))
    merge = _Merge()
    sessions = records(source, skipped, partial(_session, block_tokens=block_tokens))
    for conversation in count():
        upcoming = next(sessions, None)
        start_s = math.inf if upcoming is None else conversation * session_interval_s
        while merge.next_s() < start_s:
            entry, cursor = merge.pop()
            if isinstance(entry, _Turn):
                yield cursor.request(entry)
            else:
                merge.advance(cursor.subagent(entry, of_agents))
            merge.advance(cursor)
        if upcoming is None:
            return
        line, agent = upcoming
        where = f"{skipped.path}: line {line}"
        ids = _Ids(numbers)
        merge.advance(_Cursor(agent, start_s, common=of_sessions, ids=ids, conversation=conversation, where=where))
