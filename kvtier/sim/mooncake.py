"""Mooncake's format: one request a line, its blocks named by the trace.

    {"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47, 2353, 2354]}

``timestamp`` counts milliseconds since the trace began. ``hash_ids[i]`` names block i together with all
before it. There is one for every ``block_tokens`` tokens begun, so the last may stand for fewer; a file that
names whole blocks only is read as well. Ids are numbered anew in order of first appearance, which leaves the
published files as they are and lets others use any whole numbers, such as 64-bit hashes. Two fields are heeded that
the published files lack, ``conversation``, the number of a session, and ``block_tokens``; others are passed over.

Source: Qin et al., "Mooncake: Trading More Storage for Less Computation", FAST 2025, and its published traces.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import IO, Any

from kvtier.errors import TraceError
from kvtier.sim.lines import (
    MAX_PROMPT_BLOCKS,
    Line,
    MalformedError,
    Skipped,
    entries,
    number_of_session,
    records,
    seconds,
    whole,
)
from kvtier.sim.trace import Request, Trace

BLOCK_TOKENS = 512
"""Of the published traces."""

_MAX_ID = 2**64 - 1


def matches(record: Mapping[str, Any]) -> bool:
    """Whether a record is one of this format."""
    return "hash_ids" in record


def block_tokens_of(record: Mapping[str, Any]) -> int:
    """Tokens in a block: as published, where a record does not say.

    Raises:
        MalformedError: It says nonsense.
    """
    return BLOCK_TOKENS if record.get("block_tokens") is None else max(whole(record, "block_tokens"), 1)


def read(source: Iterable[Line], block_tokens: int, skipped: Skipped) -> Iterator[Request]:
    """The requests of a file, in its order.

    Raises:
        TraceError: An id follows two others, or time runs backwards; in strict reading also a malformed line.
    """
    forest = Forest()
    now_s = 0.0
    for number, request in records(source, skipped, partial(_request, block_tokens=block_tokens)):
        where = f"{skipped.path}: line {number}"
        if request.time_s < now_s:
            raise TraceError(f"{where}: time runs backwards, from {now_s:g} s to {request.time_s:g} s; sort the file")
        now_s = request.time_s
        time_s, ids, input_tokens, output_tokens, session = request
        yield Request(time_s, forest.numbered(ids, where), input_tokens, output_tokens, session)


def _request(record: Mapping[str, Any], block_tokens: int) -> Request:
    tokens = whole(record, "input_length")
    ids = entries(record, "hash_ids")
    if len(ids) > MAX_PROMPT_BLOCKS:
        raise MalformedError(f"{len(ids)} ids are more than a prompt may have ({MAX_PROMPT_BLOCKS})")
    if ids and (set(map(type, ids)) != {int} or min(ids) < 0 or max(ids) > _MAX_ID):
        raise MalformedError(f"'hash_ids' must be whole numbers from 0 to {_MAX_ID}")
    if len(ids) not in {tokens // block_tokens, -(-tokens // block_tokens)}:
        raise MalformedError(f"{len(ids)} ids do not fit {tokens} tokens in blocks of {block_tokens}")
    time_s = seconds(record, "timestamp", 1000)
    return Request(time_s, ids, tokens, whole(record, "output_length"), number_of_session(record))


class Forest:
    """Numbers for ids in order of first appearance, and what each must follow."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._before: list[int] = []
        """The number that each number follows; -1 for a first block."""

    def numbered(self, ids: Iterable[int], where: str) -> list[int]:
        """Numbers of a prompt's ids.

        An id that always follows the same id is always at the same depth too: by induction from the first.

        Raises:
            TraceError: An id follows another one than before.
        """
        numbers, before = self._numbers, self._before
        found: list[int] = []
        last, count = -1, len(before)
        for each in ids:
            number = numbers.setdefault(each, count)
            if number == count:
                before.append(last)
                count += 1
            elif before[number] != last:
                raise TraceError(
                    f"{where}: id {each} at depth {len(found)} follows another block than before; "
                    "an id must stand for one block with everything before it"
                )
            found.append(number)
            last = number
        return found


def write(trace: Trace, file: IO[str]) -> int:
    """Write a trace in this format; times are rounded to whole milliseconds.

    Returns:
        Requests written.
    """
    count = 0
    for request in trace:
        record: dict[str, Any] = {
            "timestamp": round(request.time_s * 1000),
            "input_length": request.input_tokens,
            "output_length": request.output_tokens,
            "hash_ids": request.blocks,
        }
        if trace.block_tokens != BLOCK_TOKENS:
            record["block_tokens"] = trace.block_tokens
        if request.conversation is not None:
            record["conversation"] = request.conversation
        file.write(json.dumps(record) + "\n")
        count += 1
    return count
