"""A call as a provider's cache sees it: which segments in which order, how many tokens, when, what is marked.

    ids     17     18      25                 equal ids mean an equal prefix up to there
    ends    2,000  2,400   9,000              tokens of the prompt up to and with each segment
    marks                  ^ "5m"             a manual cache stores the prefix that ends here

A segment is a message of a conversation or a block of a trace. Both come down to the same arrays, so one
engine bills both. What is not whole in a trace, its last block, belongs to no segment: it is never cached.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from kvtier.errors import ConfigError

_Kind = TypeVar("_Kind", bound=np.generic)

CALL, PING, WARM_UP = "call", "ping", "warm-up"


class Mark(NamedTuple):
    """A breakpoint: the prefix that ends with one segment is to be stored."""

    position: int
    """Index of that segment in the call."""

    lifetime: str | None = None
    """Name of the lifetime asked for, ``"5m"`` for one; None is the tariff's own."""


class Call(NamedTuple):
    """One request to a provider."""

    time_s: float
    ids: NDArray[np.int64]
    """Segments in prefix order. Ids are small whole numbers; one always follows the same other."""

    ends: NDArray[np.int64]
    """Tokens up to and with each segment, growing."""

    input_tokens: int
    """All tokens of the prompt, those after the last segment included."""

    output_tokens: int
    conversation: int | None = None
    """Number of the chat or session it is a turn of, where known."""

    marks: tuple[Mark, ...] | None = None
    """Breakpoints in order; None leaves it to the provider's automatic mode: one, on the last segment."""

    first_token_s: float | None = None
    """From the call to the start of its answer, when what it stored can be read; None where not known."""

    reply: int | None = None
    """Id that the answer will have as the next segment, where known."""

    in_content_blocks: bool = True
    """Whether segments are what a provider's look-back counts; the blocks of a trace are not."""

    purpose: str = CALL
    """``CALL``; or what a strategy added: ``PING`` or ``WARM_UP``, which no bill without a cache has."""


def highest_id(call: Call) -> int:
    """The highest id of a call, -1 where it has none."""
    return max(int(call.ids.max(initial=-1)), -1 if call.reply is None else call.reply)


def grown(column: NDArray[_Kind], highest: int, fill: float | bool) -> NDArray[_Kind]:
    """A column by segment that has a place for an id; new places hold ``fill``."""
    more = highest + 1 - len(column)
    if more <= 0:
        return column
    return np.concatenate([column, np.full(max(more, len(column)), fill, dtype=column.dtype)])


class Arrival(Protocol):
    """What a request of a block trace must have, such as ``kvtier.sim.trace.Request``."""

    @property
    def time_s(self) -> float:
        """Seconds since the trace began."""
        ...

    @property
    def blocks(self) -> Sequence[int]:
        """Blocks in prefix order, equal ids for equal prefixes."""
        ...

    @property
    def input_tokens(self) -> int:
        """Length of the prompt."""
        ...

    @property
    def output_tokens(self) -> int:
        """Length of the answer."""
        ...

    @property
    def conversation(self) -> int | None:
        """Number of the session, where known."""
        ...


def calls_of_trace(requests: Iterable[Arrival], block_tokens: int) -> Iterator[Call]:
    """The calls of a block trace: a segment a whole block, no marks.

    Args:
        requests: In order of arrival.
        block_tokens: Tokens of a whole block.

    Raises:
        ConfigError: Time runs backwards, a count is negative, or ``block_tokens`` is less than 1.
    """
    if block_tokens < 1:
        raise ConfigError(f"a trace's blocks must have at least 1 token, got {block_tokens}")
    last_s = -math.inf
    for number, request in enumerate(requests):
        if not last_s <= request.time_s < math.inf:
            raise ConfigError(f"request {number} of the trace is at {request.time_s} s, after one at {last_s} s")
        if request.input_tokens < 0 or request.output_tokens < 0:
            raise ConfigError(f"request {number} of the trace has a negative number of tokens")
        last_s = request.time_s
        whole = min(len(request.blocks), request.input_tokens // block_tokens)
        yield Call(
            time_s=request.time_s,
            ids=np.asarray(request.blocks, dtype=np.int64)[:whole],
            ends=np.arange(1, whole + 1, dtype=np.int64) * block_tokens,
            input_tokens=request.input_tokens,
            output_tokens=request.output_tokens,
            conversation=request.conversation,
            in_content_blocks=False,
        )
