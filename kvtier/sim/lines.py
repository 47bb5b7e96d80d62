"""The lines of a trace's file, plain or gzip, one at a time; and what becomes of those that cannot be read.

    file ─► gzip or not, by its first bytes ─► lines of at most 64 MiB ─► a format's reader
                                                                           └► Skipped, or TraceError

Nothing in a file is trusted: a line, a prompt and a number have a largest size, so that a damaged or
hostile file costs a message and not the machine's memory.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar, cast

from kvtier.errors import TraceError

MAX_LINE_BYTES = 64 << 20

MAX_PROMPT_TOKENS = 2**31

MAX_PROMPT_BLOCKS = 2**22
"""A prompt's list of ids then takes 160 MiB at most."""

MAX_SECONDS = 1e12

Parsed = TypeVar("Parsed")

_GZIP = b"\x1f\x8b"
_KEPT_MESSAGES = 5


class Line(NamedTuple):
    """One line of a file."""

    number: int
    """From 1 on."""

    data: bytes
    """With its end."""


class MalformedError(ValueError):
    """A line that is no record of its format. Counted or refused, never seen outside the readers."""


@dataclass(slots=True, kw_only=True)
class Skipped:
    """The lines that one reading of a trace has passed over.

    Args:
        path: The trace's file, for messages.
        strict: Refuse the first one instead.
    """

    path: Path
    strict: bool
    count: int = 0
    messages: list[str] = field(default_factory=list)
    """What was wrong with the first few."""

    def add(self, number: int, reason: object) -> None:
        """Count a line that cannot be read.

        Raises:
            TraceError: The reading is a strict one.
        """
        message = f"line {number}: {reason}"
        if self.strict:
            raise TraceError(f"{self.path}: {message}")
        self.count += 1
        if len(self.messages) < _KEPT_MESSAGES:
            self.messages.append(message)


def lines(path: Path) -> Iterator[Line]:
    """Go through a file's lines.

    Raises:
        TraceError: The file cannot be opened or read, its gzip is damaged or truncated, or a line is too long.
    """
    number = 0
    try:
        with path.open("rb") as raw, _unpacked(raw) as file:
            while data := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(data) > MAX_LINE_BYTES:
                    raise TraceError(f"{path}: line {number} is longer than {MAX_LINE_BYTES >> 20} MiB")
                if number == 1:
                    data = data.removeprefix(b"\xef\xbb\xbf")
                yield Line(number, data)
    except EOFError as exc:
        raise TraceError(f"{path}: the gzip file is truncated: it ends after line {number}; copy it again") from exc
    except (gzip.BadGzipFile, zlib.error) as exc:
        raise TraceError(f"{path}: the gzip file is damaged after line {number}: {exc}") from exc
    except OSError as exc:
        raise TraceError(f"{path}: cannot be read: {exc.strerror}") from exc


def _unpacked(raw: IO[bytes]) -> IO[bytes]:
    packed = raw.read(len(_GZIP)) == _GZIP
    raw.seek(0)
    if packed:  # by content: downloads lose or keep their suffix as they like
        return cast("IO[bytes]", gzip.open(raw))
    return raw


def records(
    source: Iterable[Line], skipped: Skipped, parse: Callable[[Mapping[str, Any]], Parsed]
) -> Iterator[tuple[int, Parsed]]:
    """The records of a file with one JSON object a line, and the numbers of their lines.

    Args:
        source: The file's lines; blank ones are passed over.
        skipped: Takes up the others that ``parse`` gives nothing for.
        parse: Makes something of an object, or raises ``MalformedError``.
    """
    for line in source:
        if line.data.isspace():
            continue
        try:
            parsed = parse(json_object(line.data))
        except MalformedError as exc:
            skipped.add(line.number, exc)
            continue
        yield line.number, parsed


# Values in a record


def json_object(data: bytes) -> Mapping[str, Any]:
    """The JSON object that is a line.

    Raises:
        MalformedError: It is none.
    """
    try:
        value = json.loads(data.decode())
    except UnicodeDecodeError as exc:
        raise MalformedError("not UTF-8") from exc
    except (ValueError, RecursionError) as exc:
        raise MalformedError(f"not JSON: {str(exc).partition(': line ')[0]}") from exc
    if not isinstance(value, dict):
        raise MalformedError(f"not a JSON object but {_shown(value)}")
    return value


def whole(record: Mapping[str, Any], name: str, most: int = MAX_PROMPT_TOKENS) -> int:
    """A whole number from 0 to ``most`` in a record.

    Raises:
        MalformedError: There is none under that name.
    """
    value = record.get(name)
    if type(value) is not int or not 0 <= value <= most:
        raise MalformedError(f"{name!r} must be a whole number from 0 to {most}, got {_shown(value)}")
    return value


def seconds(record: Mapping[str, Any], name: str, per_second: int = 1) -> float:
    """A time in a record, in seconds; the file counts ``per_second`` of its own units in one.

    Raises:
        MalformedError: There is none under that name, or it is negative or not finite.
    """
    value: Any = record.get(name)
    if type(value) not in {int, float} or not 0 <= value <= MAX_SECONDS * per_second:  # which no NaN is
        raise MalformedError(f"{name!r} must be a time of at least 0, got {_shown(value)}")
    return float(value / per_second)


def number_of_session(record: Mapping[str, Any]) -> int | None:
    """The chat or agent session that a record says it is of, if it does.

    Raises:
        MalformedError: It is no whole number.
    """
    return None if record.get("conversation") is None else whole(record, "conversation", 2**63 - 1)


def entries(record: Mapping[str, Any], name: str) -> list[Any]:
    """A list in a record.

    Raises:
        MalformedError: There is none under that name.
    """
    value = record.get(name)
    if not isinstance(value, list):
        raise MalformedError(f"{name!r} must be a list, got {_shown(value)}")
    return value


def _shown(value: object) -> str:
    """A value as a message can hold it, whatever it is."""
    if value is None:
        return "nothing"
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    if type(value) is int and value.bit_length() > 100:  # printing a longer one can be refused, and takes long
        return "a number of over 30 digits"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
