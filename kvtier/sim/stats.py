"""What a trace asks of a cache, before any policy: how much, how often again, how far apart, and how much at best.

best hit rate = uses of blocks that were used before / all uses        a cache that keeps everything
"""

from __future__ import annotations

from array import array
from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kvtier.sim.distances import Distances
from kvtier.sim.trace import Request, Trace

RECENT_S = 300.0
"""A conversation counts as going on for so long after a request."""

_PERCENTS = (10, 25, 50, 75, 90, 99)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """One going through a trace."""

    trace: str
    block_tokens: int
    requests: int
    duration_s: float
    """From the first request to the last."""

    input_tokens: int
    output_tokens: int
    block_references: int
    unique_blocks: int
    used_once: int
    """Blocks that are never used again."""

    hit_references: int
    """Uses of a block that was used before."""

    hit_tokens: int
    """Tokens in them; a last block that is not whole counts with the tokens it has."""

    prompt_tokens: NDArray[np.int64]
    """Of each request."""

    distances: NDArray[np.int64]
    """Uses at each LRU stack distance, in blocks. See ``Distances``."""

    interval_s: NDArray[np.float64]
    interval_uses: NDArray[np.int64]
    """Uses that came ``interval_s`` after the block's use before."""

    conversations: int | None
    going_on: NDArray[np.int64]
    """At each request, conversations with a request in the last ``RECENT_S`` seconds."""

    @property
    def best_block_hit_rate(self) -> float:
        """Share of uses that a cache which keeps everything hits."""
        return self.hit_references / max(self.block_references, 1)

    @property
    def best_token_hit_rate(self) -> float:
        """Share of input tokens that such a cache need not compute."""
        return self.hit_tokens / max(self.input_tokens, 1)

    def lru_hit_rate(self, capacity_blocks: ArrayLike) -> NDArray[np.float64]:
        """Share of uses that an LRU cache hits, tail first aging, at each capacity."""
        total = np.concatenate([[0], np.cumsum(self.distances)])
        hits = total[np.minimum(capacity_blocks, len(total) - 1)]
        return np.asarray(hits / max(self.block_references, 1))

    def as_dict(self) -> dict[str, Any]:
        """For JSON: numbers, percentiles and histograms."""
        capacities = [1 << power for power in range(max(self.unique_blocks - 1, 1).bit_length() + 1)]
        names = ("requests", "duration_s", "input_tokens", "output_tokens", "block_references", "unique_blocks")
        return {
            "trace": self.trace,
            "block_tokens": self.block_tokens,
            **{name: getattr(self, name) for name in names},
            "used_once_share": self.used_once / max(self.unique_blocks, 1),
            "best_block_hit_rate": self.best_block_hit_rate,
            "best_token_hit_rate": self.best_token_hit_rate,
            "prompt_tokens": percentiles(self.prompt_tokens),
            "reuse_distance_blocks": {
                "percentiles": percentiles(np.arange(len(self.distances)), self.distances),
                "histogram": [{"from": low, "to": high, "uses": uses} for low, high, uses in self.octaves()],
            },
            "time_between_uses_s": percentiles(self.interval_s, self.interval_uses),
            "lru_hit_rate": [
                {"capacity_blocks": capacity, "block_hit_rate": float(rate)}
                for capacity, rate in zip(capacities, self.lru_hit_rate(capacities), strict=True)
            ],
            "conversations": self.conversations,
            "conversations_going_on": percentiles(self.going_on),
        }

    def octaves(self) -> list[tuple[int, int, int]]:
        """Distances from and to, and the uses there: 0, 1, 2 to 3, 4 to 7 ..."""
        total = np.concatenate([[0], np.cumsum(self.distances)])
        found = []
        low, high = 0, 0
        while low < len(self.distances):
            end = min(high + 1, len(self.distances))
            found.append((low, high, int(total[end] - total[low])))
            low, high = high + 1, 2 * high + 1
        while found and not found[-1][2]:
            found.pop()
        return found


def percentiles(values: NDArray[Any], counts: NDArray[np.int64] | None = None) -> dict[str, float] | None:
    """Values that so many percent do not pass, by rank; None if there is nothing.

    Example:
        >>> percentiles(np.array([5, 1, 2]), np.array([1, 97, 2]))["p99"]
        2
    """
    if counts is None:
        counts = np.ones(len(values), np.int64)
    if not counts.sum():
        return None
    order = np.argsort(values, kind="stable")
    total = np.cumsum(counts[order])
    ranks = [-(-int(total[-1]) * percent // 100) for percent in _PERCENTS]
    found = {f"p{p}": values[order][at].item() for p, at in zip(_PERCENTS, np.searchsorted(total, ranks), strict=True)}
    weighted = float((values[order] * (counts[order] / total[-1])).sum())
    return {"mean": weighted, **found, "max": values[order][np.searchsorted(total, total[-1])].item()}


class _GoingOn:
    """Conversations with a request not long ago."""

    def __init__(self) -> None:
        self._recent: deque[tuple[float, int]] = deque()
        self._requests: Counter[int] = Counter()
        self._seen: set[int] = set()
        self.at_requests = array("q")

    def add(self, request: Request) -> None:
        if request.conversation is None:
            return
        self._seen.add(request.conversation)
        self._recent.append((request.time_s, request.conversation))
        self._requests[request.conversation] += 1
        while self._recent[0][0] < request.time_s - RECENT_S:
            _, gone = self._recent.popleft()
            self._requests[gone] -= 1
            if not self._requests[gone]:
                del self._requests[gone]
        self.at_requests.append(len(self._requests))

    @property
    def conversations(self) -> int | None:
        return len(self._seen) or None


def stats_of(trace: Trace) -> Stats:
    """Go through a trace once.

    Memory: some 40 bytes a block and 50 a request.

    Raises:
        TraceError: The trace cannot be read, or its ids break the prefix property.
    """
    distances = Distances()
    going_on = _GoingOn()
    prompt_tokens = array("q")
    references = hit_references = hit_tokens = output_tokens = 0
    begin_s = end_s = 0.0
    for request in trace:
        begin_s = begin_s if prompt_tokens else request.time_s
        end_s = request.time_s
        hits = distances.add(request.blocks, request.time_s)
        going_on.add(request)
        references += len(request.blocks)
        hit_references += hits
        hit_tokens += min(hits * trace.block_tokens, request.input_tokens)
        output_tokens += request.output_tokens
        prompt_tokens.append(request.input_tokens)
    interval_s, interval_uses = distances.intervals()
    return Stats(
        trace=trace.name,
        block_tokens=trace.block_tokens,
        requests=len(prompt_tokens),
        duration_s=end_s - begin_s,
        input_tokens=sum(prompt_tokens),
        output_tokens=output_tokens,
        block_references=references,
        unique_blocks=distances.unique_blocks,
        used_once=int((distances.times_used() == 1).sum()),
        hit_references=hit_references,
        hit_tokens=hit_tokens,
        prompt_tokens=np.array(prompt_tokens, np.int64),
        distances=distances.histogram(),
        interval_s=interval_s,
        interval_uses=interval_uses,
        conversations=going_on.conversations,
        going_on=np.array(going_on.at_requests, np.int64),
    )
