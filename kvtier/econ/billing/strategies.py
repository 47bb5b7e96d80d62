"""Traffic as a client would send it that wants more from a cache: pings against expiry, a call ahead of a fan-out.

    keep alive   call . . . ping . . . ping . . . call         every T - margin, n at most, then let it go
    warm up      ahead | call call call                        the calls wait until what they share can be read

Both know only what a client knows at the time: a ping is sent not knowing whether another call will come, so
what pings cost that saved nothing is on the bill. Both take calls in order of time and give them so.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import count

import numpy as np

from kvtier.econ.billing.calls import PING, WARM_UP, Call, Mark, grown, highest_id
from kvtier.errors import ConfigError


def keep_alive(
    calls: Iterable[Call], *, every_s: float, limit: int, minimum_tokens: int = 1, marked: bool = False
) -> Iterator[Call]:
    """After each call of a conversation, read its prefix again and again until the next call or the limit.

    Args:
        calls: In order of time. Those without a conversation are followed by ``sessions``.
        every_s: From one use of the prefix to the next ping; a little less than the lifetime.
        limit: Pings in a row; ``most_pings`` says how many can pay.
        minimum_tokens: Shorter prefixes are not pinged: no provider stores them.
        marked: The cache stores at marks alone, so a ping ends at the last of them.

    Raises:
        ConfigError: No time between pings, or a negative limit.
    """
    if not every_s > 0 or limit < 0:
        raise ConfigError(f"pings need a time above 0 between them and a limit of at least 0: {every_s} s, {limit}")
    due: list[tuple[float, int, int, Call]] = []
    """(When, number of the call it follows, pings sent after that call before, the ping)."""
    newest: dict[int, int] = {}
    """By conversation: number of its last call. Pings that follow another are stale."""

    def until(time_s: float) -> Iterator[Call]:
        while due and due[0][0] < time_s:
            when_s, number, sent, ping = heapq.heappop(due)
            if newest[ping.conversation or 0] != number:
                continue
            yield ping
            if sent + 1 < limit:
                heapq.heappush(due, (when_s + every_s, number, sent + 1, ping._replace(time_s=when_s + every_s)))

    for number, call in enumerate(sessions(calls)):
        yield from until(call.time_s)
        yield call
        if call.conversation is None:
            continue
        newest[call.conversation] = number
        position = call.marks[-1].position if marked and call.marks else len(call.ids) - 1
        if limit and position >= 0 and call.ends[position] >= minimum_tokens:
            ping = _head(call, position, PING)._replace(time_s=call.time_s + every_s, marks=call.marks)
            heapq.heappush(due, (ping.time_s, number, 0, ping))
    yield from until(float("inf"))


def sessions(calls: Iterable[Call]) -> Iterator[Call]:
    """Calls with the number of their conversation filled in where a trace has none.

    A call goes on where the longest prefix ends that an earlier call ended with; else it begins a new one.
    """
    ended: dict[int, int] = {}
    begun = 0
    for call in calls:
        found = call.conversation
        if found is None and len(call.ids):
            found = next((ended[id_] for id_ in reversed(call.ids.tolist()) if id_ in ended), None)
            if found is None:
                found, begun = -1 - begun, begun + 1  # below zero: never the number of one that the trace knows
        if found is not None and len(call.ids):
            ended[int(call.ids[-1])] = found
        yield call._replace(conversation=found)


def warm_up(
    calls: Iterable[Call], *, within_s: float, lifetime_s: float, minimum_tokens: int = 1, marked: bool = False
) -> Iterator[Call]:
    """Ahead of calls that come together and share a prefix, send one call for what they share, and let them wait.

    Args:
        calls: In order of time.
        within_s: Calls that begin alike and arrive within this time of the first are a fan-out. It must be the
            time from a call to the start of its answer: so long what was stored cannot be read, and they wait.
        lifetime_s: A prefix that was sent, to the client's knowledge, no longer ago than this needs no call ahead.
        minimum_tokens: What is shared must be as long.
        marked: The cache stores at marks alone, so the end of what is shared gets one.

    Raises:
        ConfigError: A time that is not above 0.
    """
    if not (within_s > 0 and lifetime_s > 0):
        raise ConfigError(f"a warm-up needs times above 0, got {within_s} s within and a lifetime of {lifetime_s} s")
    sent = _Sent(lifetime_s)
    waiting: dict[int, list[Call]] = {}
    ready: list[tuple[float, int, Call]] = []
    ahead = partial(_ahead, sent=sent, within_s=within_s, minimum_tokens=minimum_tokens, marked=marked)
    number = count()
    for call in calls:
        for key in [key for key, group in waiting.items() if group[0].time_s + within_s <= call.time_s]:
            _add(ready, number, ahead(waiting.pop(key)))
        waiting.setdefault(int(call.ids[0]) if len(call.ids) else -1, []).append(call)
        oldest_s = min(group[0].time_s for group in waiting.values())
        while ready and ready[0][0] < oldest_s:
            yield heapq.heappop(ready)[2]
    for group in waiting.values():
        _add(ready, number, ahead(group))
    while ready:
        yield heapq.heappop(ready)[2]


def _add(ready: list[tuple[float, int, Call]], number: Iterator[int], calls: Iterable[Call]) -> None:
    for call in calls:
        heapq.heappush(ready, (call.time_s, next(number), call))


class _Sent:
    """When a client last sent each prefix."""

    def __init__(self, lifetime_s: float) -> None:
        self._lifetime_s = lifetime_s
        self._times_s = np.full(0, -np.inf)

    def is_live(self, call: Call, position: int) -> bool:
        """Whether the prefix that ends there was sent no longer ago than a lifetime."""
        self._times_s = grown(self._times_s, highest_id(call), fill=-np.inf)
        return bool(self._times_s[call.ids[position]] + self._lifetime_s >= call.time_s)

    def add(self, call: Call) -> None:
        """A call goes out."""
        self._times_s = grown(self._times_s, highest_id(call), fill=-np.inf)
        self._times_s[call.ids] = call.time_s


def _ahead(group: list[Call], *, sent: _Sent, within_s: float, minimum_tokens: int, marked: bool) -> list[Call]:
    """A group of calls that came together, with a call ahead of them if one is needed."""
    first = group[0]
    last = min((_shared(first, other) for other in group[1:]), default=0) - 1
    if last >= 0 and first.ends[last] >= minimum_tokens and not sent.is_live(first, last):
        later_s = first.time_s + within_s
        waiting = [call._replace(time_s=later_s, marks=_with(call, last) if marked else call.marks) for call in group]
        marks = tuple(mark for mark in waiting[0].marks or () if mark.position <= last)
        group = [_head(first, last, WARM_UP)._replace(marks=marks if marked else None), *waiting]
    for call in group:
        sent.add(call)
    return group


def _head(call: Call, position: int, purpose: str) -> Call:
    """A call for the prefix that ends with one segment, which wants no answer."""
    return call._replace(
        ids=call.ids[: position + 1],
        ends=call.ends[: position + 1],
        input_tokens=int(call.ends[position]),
        output_tokens=0,
        reply=None,
        purpose=purpose,
    )


def _with(call: Call, position: int) -> tuple[Mark, ...]:
    """A call's marks, and one more on a segment that has none, with the lifetime of the next."""
    marks = (Mark(len(call.ids) - 1),) if not call.marks else call.marks
    lifetime = next((mark.lifetime for mark in marks if mark.position >= position), marks[-1].lifetime)
    return tuple(sorted({mark.position: mark for mark in (Mark(position, lifetime), *marks)}.values()))


def _shared(one: Call, other: Call) -> int:
    """Segments at the start of both."""
    length = min(len(one.ids), len(other.ids))
    differ = (one.ids[:length] != other.ids[:length]).nonzero()[0]
    return int(differ[0]) if len(differ) else length
