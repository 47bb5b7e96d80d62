"""Trace files: which format one has, and going through it again and again.

The first record that any format knows decides; a name or a suffix says nothing. A malformed line is counted, or
refused in strict reading. What would make every figure wrong is refused always: an id that follows two others,
time that runs backwards, a truncated file, a file without a request.
"""

from __future__ import annotations

import math
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from kvtier.errors import ConfigError, TraceError
from kvtier.sim import agentic, mooncake, plain
from kvtier.sim.lines import Line, MalformedError, Skipped, json_object, lines
from kvtier.sim.trace import Request, Trace

_LOOKED_AT = 100
"""Lines in which a record must be found."""

Read = Callable[[Iterable[Line], int, Skipped], Iterator[Request]]


class Format(NamedTuple):
    """One way to write requests down."""

    about: str
    """For messages."""

    matches: Callable[[Mapping[str, Any]], bool]
    block_tokens: Callable[[Mapping[str, Any]], int]
    """Tokens in a block, by a record of it, where nobody says."""


FORMATS: dict[str, Format] = {
    "mooncake": Format("timestamp, input_length, output_length, hash_ids", mooncake.matches, mooncake.block_tokens_of),
    "agentic": Format("block_size and requests with keep and add", agentic.matches, agentic.block_tokens_of),
    "jsonl": Format("tokens or text; time, output, conversation", plain.matches, plain.block_tokens_of),
    "csv": Format("a head with tokens or text; time, output, conversation", plain.is_head, plain.block_tokens_of),
}


@dataclass(slots=True, kw_only=True)
class FileTrace:
    """A trace in a file. See ``Trace``."""

    path: Path
    name: str
    format: str
    block_tokens: int
    read: Read
    skipped: Skipped
    """What the latest reading passed over; complete at its end."""

    def __iter__(self) -> Iterator[Request]:
        """See ``Trace.__iter__``.

        Raises:
            TraceError: See the module.
        """
        skipped = self.skipped = Skipped(path=self.path, strict=self.skipped.strict)
        request = None
        for request in self.read(lines(self.path), self.block_tokens, skipped):
            yield request
        if request is None:
            why = f"; {skipped.messages[0]}" if skipped.messages else ""
            raise TraceError(f"{self.path}: no request in it, {skipped.count} lines are malformed{why}")


def open_trace(
    path: Path | str,
    *,
    format: str | None = None,  # noqa: A002  (what users call it)
    strict: bool = False,
    block_tokens: int | None = None,
    session_interval_s: float = agentic.SESSION_INTERVAL_S,
    shared_prefix: bool = False,
    bytes_per_token: float = plain.BYTES_PER_TOKEN,
) -> FileTrace:
    """A trace file, plain or gzip, to be gone through.

    Args:
        path: A regular file, for it is read anew by every going through.
        format: A key of ``FORMATS``; None looks at the first record.
        strict: Refuse a malformed line instead of counting it.
        block_tokens: Tokens in a block; None takes what the format says.
        session_interval_s: See ``agentic.read``.
        shared_prefix: See ``agentic.read``.
        bytes_per_token: See ``plain``; for texts.

    Returns:
        The trace. Its ``skipped`` tells after a reading which lines were malformed.

    Raises:
        TraceError: No such file, or it is of no format known. Errors further on are raised where they are read.
        ConfigError: A setting that cannot be.
    """
    path = Path(path)
    if format is not None and format not in FORMATS:
        raise ConfigError(f"no trace format is called {format!r}; there are {', '.join(FORMATS)}")
    if block_tokens is not None and block_tokens < 1:
        raise ConfigError(f"block_tokens must be at least 1, got {block_tokens}")
    if not (math.isfinite(session_interval_s) and session_interval_s >= 0):
        raise ConfigError(f"session_interval_s must be at least 0, got {session_interval_s}")
    if not 1 / 16 <= bytes_per_token <= 2**16:  # which no NaN is
        raise ConfigError(f"bytes_per_token must be from 1/16 to 65536, got {bytes_per_token}")
    _refuse_special(path)
    name, record = _recognised(path, format)
    reads: dict[str, Read] = {
        "mooncake": mooncake.read,
        "agentic": partial(agentic.read, session_interval_s=session_interval_s, shared_prefix=shared_prefix),
        "jsonl": partial(plain.read_jsonl, bytes_per_token=bytes_per_token),
        "csv": partial(plain.read_csv, bytes_per_token=bytes_per_token),
    }
    return FileTrace(
        path=path,
        name=path.name.removesuffix(".gz").rsplit(".", 1)[0],
        format=name,
        block_tokens=block_tokens or _block_tokens(path, FORMATS[name], record),
        read=reads[name],
        skipped=Skipped(path=path, strict=strict),
    )


def _refuse_special(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as exc:
        raise TraceError(f"{path}: cannot be read: {exc.strerror}") from exc
    except ValueError as exc:  # a null byte in the name
        raise TraceError(f"{str(path)!r} cannot be the name of a file: {exc}") from exc
    if not stat.S_ISREG(mode):
        raise TraceError(f"{path}: is not a regular file, and a trace is read more than once; save it to one")


def _block_tokens(path: Path, its: Format, record: Mapping[str, Any]) -> int:
    try:
        return its.block_tokens(record)
    except MalformedError as exc:
        raise TraceError(f"{path}: the first record does not say how many tokens a block has: {exc}") from exc


def _recognised(path: Path, wanted: str | None) -> tuple[str, Mapping[str, Any]]:
    """The format of a file, and the first record that shows it."""
    looked_at = 0
    for line in islice((line for line in lines(path) if not line.data.isspace()), _LOOKED_AT):
        looked_at += 1
        record = _record(line.data, header=looked_at == 1)
        for name, each in FORMATS.items():
            if wanted in {None, name} and each.matches(record):
                return name, record
    if not looked_at:
        raise TraceError(f"{path}: the trace is empty")
    shapes = "; ".join(f"{name}: {each.about}" for name, each in FORMATS.items() if wanted in {None, name})
    raise TraceError(f"{path}: no record of a known format in its first {looked_at} lines ({shapes})")


def _record(data: bytes, *, header: bool) -> Mapping[str, Any]:
    """A line as an object; a table's head has its names alone, and what is neither has nothing."""
    with suppress(MalformedError):
        return json_object(data)
    return plain.head(data) if header else {}


class Limited:
    """The first requests of a trace. See ``Trace``."""

    def __init__(self, trace: Trace, requests: int) -> None:
        self.name = trace.name
        self.block_tokens = trace.block_tokens
        self.trace = trace
        self._requests = requests

    def __iter__(self) -> Iterator[Request]:
        """See ``Trace.__iter__``."""
        return islice(iter(self.trace), self._requests)
