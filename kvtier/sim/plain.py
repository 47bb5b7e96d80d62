"""Prompts as they are: lists of token ids or texts, in JSON or in a table.

    {"tokens": [1, 450, 7483], "time": 0.0, "output": 12}        tokens,time,output
    {"text": "The capital of France", "time": 2.5}               1 450 7483,0.0,12

Blocks are named by the chain the store itself uses, and only whole ones are, as there. ``time`` is in seconds
from any moment on; without it, requests come a second apart. ``output`` and ``conversation`` are whole numbers.

A text is cut by its bytes in UTF-8, ``bytes_per_token`` to a token. That is an assumption, made so that no
tokenizer is needed: 4 is about right for English and byte-pair encodings, too much for most other scripts and for
code. Where texts begin to differ is exact either way.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from kvtier.errors import TokenError, TraceError
from kvtier.hashing import HASH_BYTES, BlockHash, Label, name_block, token_array
from kvtier.sim.lines import (
    MAX_LINE_BYTES,
    MAX_PROMPT_BLOCKS,
    Line,
    MalformedError,
    Skipped,
    number_of_session,
    records,
    seconds,
    whole,
)
from kvtier.sim.trace import Request
from kvtier.spec import DEFAULT_BLOCK_TOKENS

BYTES_PER_TOKEN = 4.0

_CONTENT = ("tokens", "text")


class _Prompt(NamedTuple):
    """One record."""

    root: BlockHash
    """What a first block follows: ids and texts never share a block."""

    content: bytes
    block_bytes: int
    input_tokens: int
    output_tokens: int
    conversation: int | None
    time_s: float | None


def matches(record: Mapping[str, Any]) -> bool:
    """Whether a record is one of this format."""
    return any(record.get(name) is not None for name in _CONTENT)


def is_head(record: Mapping[str, Any]) -> bool:
    """Whether what ``head`` made of a line is the first line of such a table."""
    return any(name in record and record[name] is None for name in _CONTENT)


def head(data: bytes) -> Mapping[str, None]:
    """The names in the first line of a table, each for nothing yet."""
    names = data.decode(errors="replace").strip().split(",")
    return dict.fromkeys(name.strip().strip('"') for name in names)


def block_tokens_of(_: Mapping[str, Any]) -> int:
    """Tokens in a block: a prompt as it is has none."""
    return DEFAULT_BLOCK_TOKENS


def read_jsonl(
    source: Iterable[Line], block_tokens: int, skipped: Skipped, *, bytes_per_token: float
) -> Iterator[Request]:
    """The requests of a file with one JSON object a line.

    Raises:
        TraceError: Time runs backwards; in strict reading also a malformed line.
    """
    parse = partial(_prompt, block_tokens=block_tokens, bytes_per_token=bytes_per_token)
    return _requests(records(source, skipped, parse), skipped)


def read_csv(
    source: Iterable[Line], block_tokens: int, skipped: Skipped, *, bytes_per_token: float
) -> Iterator[Request]:
    """The requests of a table whose first line names its columns.

    Raises:
        TraceError: Time runs backwards, or a column is not known; in strict reading also a malformed line.
    """
    parse = partial(_prompt, block_tokens=block_tokens, bytes_per_token=bytes_per_token)
    return _requests(_rows(source, skipped, parse), skipped)


def _rows(source: Iterable[Line], skipped: Skipped, parse: partial[_Prompt]) -> Iterator[tuple[int, _Prompt]]:
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))  # one for the process: never less than it was
    rows = csv.reader((line.data.decode(errors="surrogateescape") for line in source), strict=True)
    names: list[str] | None = None
    while True:
        try:
            row = next(rows, None)
            if row is None:
                return
            if not row:
                continue
            if names is None:
                names = _known([cell.strip() for cell in row], skipped)
                continue
            prompt = parse(_typed(names, row))
        except (MalformedError, csv.Error) as exc:
            skipped.add(rows.line_num, exc)
            continue
        yield rows.line_num, prompt


def _known(names: list[str], skipped: Skipped) -> list[str]:
    for name in names:
        if name not in _CELLS or names.count(name) > 1:
            raise TraceError(
                f"{skipped.path}: column {name[:40]!r} is not known or there twice; there may be {', '.join(_CELLS)}"
            )
    return names


def _typed(names: list[str], row: list[str]) -> dict[str, Any]:
    """A row as JSON would have it. Where both could stand, an empty cell is none; elsewhere it is an empty prompt."""
    if len(row) != len(names):
        raise MalformedError(f"{len(row)} cells where the head has {len(names)}")
    record: dict[str, Any] = {}
    for name, cell in zip(names, row, strict=True):
        empty = not cell.strip()
        if empty and (name not in _CONTENT or set(_CONTENT) <= set(names)):
            continue
        try:
            record[name] = _CELLS[name](cell)
        except ValueError as exc:
            raise MalformedError(f"{name!r} cannot be {cell[:40]!r}") from exc
    return record


def _ids(cell: str) -> list[int]:
    """Token ids between spaces or commas, in brackets or not."""
    return [int(each) for each in cell.strip().strip("[]").replace(",", " ").split()]


_CELLS: dict[str, Callable[[str], Any]] = {
    "tokens": _ids,
    "text": str,
    "time": float,
    "output": int,
    "conversation": int,
}


def _prompt(record: Mapping[str, Any], *, block_tokens: int, bytes_per_token: float) -> _Prompt:
    tokens, text = record.get("tokens"), record.get("text")
    if (tokens is None) == (text is None):
        raise MalformedError("a request must have either 'tokens' or 'text'")
    if text is None:
        content = _token_bytes(tokens)
        root, block_bytes, input_tokens = BlockHash(bytes(HASH_BYTES)), 4 * block_tokens, len(content) // 4
    else:
        content = _text_bytes(text)
        root, block_bytes = BlockHash(b"\xff" * HASH_BYTES), max(1, round(block_tokens * bytes_per_token))
        input_tokens = math.ceil(len(content) / bytes_per_token)
    if len(content) // block_bytes > MAX_PROMPT_BLOCKS:
        raise MalformedError(f"more than {MAX_PROMPT_BLOCKS} blocks")
    return _Prompt(
        root=root,
        content=content,
        block_bytes=block_bytes,
        input_tokens=input_tokens,
        output_tokens=0 if record.get("output") is None else whole(record, "output"),
        conversation=number_of_session(record),
        time_s=None if record.get("time") is None else seconds(record, "time"),
    )


def _token_bytes(tokens: object) -> bytes:
    if not isinstance(tokens, list):
        raise MalformedError("'tokens' must be a list of token ids")
    try:
        ids = token_array(tokens)
    except TokenError as exc:
        raise MalformedError(f"'tokens': {exc}") from exc
    return ids.astype(np.dtype("<u4")).tobytes()


def _text_bytes(text: object) -> bytes:
    if not isinstance(text, str):
        raise MalformedError("'text' must be a string")
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise MalformedError("'text' is not UTF-8") from exc


def _requests(prompts: Iterator[tuple[int, _Prompt]], skipped: Skipped) -> Iterator[Request]:
    numbers: dict[BlockHash, int] = {}
    first_s: float | None = None
    now_s = -1.0
    for line, prompt in prompts:
        if now_s < 0:
            first_s = prompt.time_s
        if (prompt.time_s is None) != (first_s is None):
            skipped.add(line, "all requests must have a time, or none")
            continue
        time_s = now_s + 1 if prompt.time_s is None or first_s is None else prompt.time_s - first_s
        if time_s < now_s or time_s < 0:
            back_s = max(now_s, 0) - time_s
            raise TraceError(f"{skipped.path}: line {line}: time runs backwards by {back_s:g} s; sort the file")
        now_s = time_s
        blocks = [numbers.setdefault(name, len(numbers)) for name in _names(prompt)]
        yield Request(time_s, blocks, prompt.input_tokens, prompt.output_tokens, prompt.conversation)


def _names(prompt: _Prompt) -> Iterator[BlockHash]:
    """Names of a prompt's whole blocks."""
    name = prompt.root
    for depth in range(len(prompt.content) // prompt.block_bytes):
        start = depth * prompt.block_bytes
        name = name_block(Label(name, depth, prompt.content[start : start + prompt.block_bytes]))
        yield name
