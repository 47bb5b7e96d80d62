"""A request trace: who asked for which prefix blocks, and when.

    time_s  blocks                 input_tokens  output_tokens  conversation
    0.0     [0, 1, 2]              1,300         52             0
    4.2     [0, 1, 2, 3, 4]        2,490         310            0

A block id stands for one block of tokens together with everything before it, so equal ids mean
equal prefixes, an id always follows the same id, and the ids of a trace form a forest.

Source: the format of the traces published with Mooncake (FAST 2025), whose ``hash_ids`` these are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol


class Request(NamedTuple):
    """One prompt as a cache sees it."""

    time_s: float
    """When it arrived, in seconds since the trace began; never earlier than the one before."""

    blocks: list[int]
    """Its blocks in prefix order. The last one may stand for fewer than ``block_tokens`` tokens."""

    input_tokens: int
    """Length of the prompt. More than the blocks' tokens where a trace leaves partial blocks out."""

    output_tokens: int

    conversation: int | None = None
    """Number of the chat or agent session it is a turn of, where known."""


class Trace(Protocol):
    """Requests in order of arrival; can be gone through more than once."""

    @property
    def name(self) -> str:
        """For tables and plots."""
        ...

    @property
    def block_tokens(self) -> int:
        """Tokens in a whole block."""
        ...

    def __iter__(self) -> Iterator[Request]:
        """Read it from its start. Ids are whole numbers from 0 on, given out in about the order of first appearance."""
        ...
