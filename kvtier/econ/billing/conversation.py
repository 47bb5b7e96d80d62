"""Requests of conversations from a file: one JSON object a line, in order of time.

    {"time_s": 0, "conversation": "a", "output_tokens": 300, "reply": "a1", "segments": [
        {"role": "system", "id": "rules", "tokens": 2000, "breakpoint": "1h"},
        {"role": "user", "id": "u1", "tokens": 120, "breakpoint": true}]}

A segment is a content block as the API takes it, named by ``id`` or given as ``text``. Two requests share a prefix
as far as they have the same segments, by name and token count, in the same order. Nothing of a text is kept but its
digest. The whole format is in docs/billing.md.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from kvtier.econ.billing.calls import Call, Mark
from kvtier.errors import ConfigError

_REQUEST = ("time_s", "conversation", "segments", "output_tokens", "reply", "first_token_s")
_SEGMENT = ("role", "id", "text", "tokens", "breakpoint")
_ROLES = ("tools", "system", "user", "assistant", "tool")
_ORDER = {"tools": 0, "system": 1}
"""A prompt is made up in this order, then messages; a cache takes it so whatever the file says."""


def is_conversation(path: Path) -> bool:
    """Whether a file's first line is a request as described above, and not one of a trace.

    Raises:
        ConfigError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            first = json.loads(file.readline(1 << 24))
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read: {exc.strerror}") from exc
    except (ValueError, RecursionError):
        return False
    return isinstance(first, dict) and bool(first.keys() & {"segments", "time_s"})


def calls_of_file(path: Path, lifetimes: Collection[str] = ()) -> Iterator[Call]:
    """The calls of a conversation file.

    Args:
        path: The file.
        lifetimes: Names that a breakpoint may ask for; with none, only ``true``.

    Raises:
        ConfigError: The file cannot be read, or a line is malformed; the message has its number.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            yield from calls_of_lines(lines, str(path), lifetimes)
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path} cannot be read: {exc}") from exc


def calls_of_lines(lines: Iterable[str], where: str, lifetimes: Collection[str] = ()) -> Iterator[Call]:
    """The calls of the lines of a file; ``where`` names it in errors, which are those of ``calls_of_file``."""
    names = _Names()
    last_s = -math.inf
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            call = _call(json.loads(line), names, lifetimes)
            if call.time_s < last_s:
                raise ConfigError(f"time_s is {call.time_s}, before the {last_s} of the line before it")
        except (ValueError, OverflowError, RecursionError) as exc:
            raise ConfigError(f"line {number} of {where}: {exc}") from exc
        last_s = call.time_s
        yield call


class _Names:
    """Small numbers for prefixes and conversations, given out as they appear."""

    def __init__(self) -> None:
        self._prefixes: dict[tuple[int, str, int], int] = {}
        self._conversations: dict[str, int] = {}

    def prefix(self, parent: int, name: str, tokens: int) -> int:
        """The prefix that goes on from another with one more segment."""
        return self._prefixes.setdefault((parent, name, tokens), len(self._prefixes))

    def conversation(self, name: str) -> int:
        """A conversation's number."""
        return self._conversations.setdefault(name, len(self._conversations))


def _call(raw: object, names: _Names, lifetimes: Collection[str]) -> Call:
    request = _object(raw, "a request", _REQUEST)
    segments = request.get("segments")
    if not isinstance(segments, list) or not segments:
        raise ConfigError("segments must be a list of at least one")
    ids: list[int] = []
    ends: list[int] = []
    marks: list[Mark] = []
    parent, rank = -1, 0
    for position, item in enumerate(segments):
        segment = _object(item, f"segment {position}", _SEGMENT)
        tokens = _count(segment, "tokens", f"segment {position}")
        order = _rank(segment, position)
        if order < rank:
            raise ConfigError(
                f"segment {position}: {segment['role']} after what follows it; order: tools, system, rest"
            )
        parent, rank = names.prefix(parent, _name(segment, f"segment {position}"), tokens), order
        ids.append(parent)
        ends.append((ends[-1] if ends else 0) + tokens)
        marks += _mark(segment.get("breakpoint", False), position, lifetimes)
    output_tokens = _count(request, "output_tokens", "a request", default=0)
    reply = request.get("reply")
    conversation = request.get("conversation")
    first_token_s = request.get("first_token_s")
    return Call(
        time_s=_seconds(request.get("time_s"), "time_s"),
        ids=np.asarray(ids, dtype=np.int64),
        ends=np.asarray(ends, dtype=np.int64),
        input_tokens=ends[-1],
        output_tokens=output_tokens,
        conversation=None if conversation is None else names.conversation(str(conversation)),
        marks=tuple(marks) or None,
        first_token_s=None if first_token_s is None else _seconds(first_token_s, "first_token_s"),
        reply=None if reply is None else names.prefix(parent, f"id {reply}", output_tokens),
    )


def _object(raw: object, what: str, keys: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(raw, dict):
        raise ConfigError(f"{what} must be a JSON object, got {type(raw).__name__}")
    for key in raw:
        if key not in keys:
            near = difflib.get_close_matches(key, keys, n=1)
            raise ConfigError(
                f"{what} has {key!r}; " + (f"did you mean {near[0]}?" if near else f"known: {', '.join(keys)}")
            )
    return raw


def _count(table: Mapping[str, Any], key: str, what: str, default: int | None = None) -> int:
    value = table.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigError(f"{what}: {key} must be a whole number of at least 0, got {value!r}")
    return value


def _seconds(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ConfigError(f"{what} must be seconds of at least 0, got {value!r}")
    return float(value)


def _rank(segment: Mapping[str, Any], position: int) -> int:
    role = segment.get("role", "user")
    if role not in _ROLES:
        raise ConfigError(f"segment {position}: role must be one of {', '.join(_ROLES)}, got {role!r}")
    return _ORDER.get(role, len(_ORDER))


def _name(segment: Mapping[str, Any], what: str) -> str:
    name, text = segment.get("id"), segment.get("text")
    if isinstance(name, (str, int)) and not isinstance(name, bool) and text is None:
        return f"id {name}"
    if isinstance(text, str) and name is None:
        return f"text {blake2b(text.encode(), digest_size=16).hexdigest()}"
    raise ConfigError(f"{what} needs either an id or a text")


def _mark(said: object, position: int, lifetimes: Collection[str]) -> list[Mark]:
    if said is False:
        return []
    if said is True:
        return [Mark(position)]
    if isinstance(said, str) and said in lifetimes:
        return [Mark(position, said)]
    known = ", ".join(["true", *sorted(lifetimes)])
    raise ConfigError(f"segment {position}: breakpoint must be one of {known}, got {said!r}")
