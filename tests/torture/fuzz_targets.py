"""What reads bytes that others wrote, and what must hold whatever those bytes are.

A target is a function of some bytes that returns if all is well and raises if not: an error that is
documented is well, any other is not, and neither is an answer that differs from an independent one.

To fuzz another reader, write such a function, decorate it with ``target``, and give it a few seeds.
"""

from __future__ import annotations

import atexit
import gzip
import json
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import lmdb
import numpy as np
import xxhash

from kvtier.config import parse_size
from kvtier.errors import ConfigError, CorruptBlockError, KVTierError, TokenError, TraceError
from kvtier.format import ENTRY_HEAD, Entry, Verifier, header_bytes, pack_entry, seal, unpack_entry, verify
from kvtier.hashing import HASH_BYTES, BlockHash, Label, Namespace, name_block, name_chain
from kvtier.sim.reading import open_trace
from kvtier.spec import KVSpec
from kvtier.tiers.entries import read_entries

Check = Callable[[bytes], None]


class Target(NamedTuple):
    """One reader under test."""

    check: Check
    seeds: Callable[[], list[bytes]]
    """Inputs to begin with, good ones and bad ones."""


TARGETS: dict[str, Target] = {}


def target(seeds: Callable[[], list[bytes]]) -> Callable[[Check], Check]:
    """Take a function up among the targets, under its own name."""

    def decorate(check: Check) -> Check:
        TARGETS[check.__name__] = Target(check, seeds)
        return check

    return decorate


# Records

HEADER = header_bytes(4)
PAYLOAD = np.arange(512, dtype=np.uint8)
LABEL = Label(BlockHash(bytes(range(32))), 7, np.array([1, 2, 49151, 2**32 - 1], "<u4").tobytes())
KEY = name_block(LABEL)


def sealed(key: BlockHash, label: Label, payload: np.ndarray[Any, Any]) -> bytes:
    """A record as it is stored."""
    header = np.zeros(HEADER, np.uint8)
    seal(header, payload, key, label)
    return header.tobytes() + payload.tobytes()


def _records() -> list[bytes]:
    good = sealed(KEY, LABEL, PAYLOAD)
    other = sealed(name_block(LABEL._replace(depth=8, tokens=bytes(16))), LABEL._replace(depth=8), PAYLOAD)
    damaged = [good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in (0, 4, 8, 16, 48, 80, 84, 88, 96, HEADER)]
    return [good, other, b"", good[:50], good[:HEADER], good[:-1], good + b"\0", *damaged]


def _accepted(record: bytes, cut: int) -> Label | None:
    """The label under which a record is accepted, whole and in two pieces alike; None if it is not."""
    data = np.frombuffer(record, np.uint8)
    verdicts: list[Label | None] = []
    with suppress(CorruptBlockError):
        verdicts.append(verify(data, KEY, header=HEADER, block_bytes=len(PAYLOAD)).label)
    if len(record) == HEADER + len(PAYLOAD):
        with suppress(CorruptBlockError):
            pieces = Verifier(data[: HEADER + cut], KEY, header=HEADER, block_bytes=len(PAYLOAD))
            pieces.add(data[HEADER + cut :])
            pieces.finish()
            verdicts.append(pieces.named.label)
    assert len(verdicts) in {0, 2}, "accepted in one way only"
    assert not verdicts or verdicts[0] == verdicts[1]
    return verdicts[0] if verdicts else None


@target(_records)
def record(data: bytes) -> None:
    """Stored bytes: accepted only if they are what sealing gives."""
    label = _accepted(data, len(data) % 512)
    if label is not None:
        assert name_block(label) == KEY
        assert sealed(KEY, label, np.frombuffer(data[HEADER:], np.uint8)) == data


@target(lambda: [b"", b"\x50\x00\x01", b"\x00\x10\xff", b"\x54\x00\x05", b"\x58\x00\xff", b"\x60\x00\x09\x61\x00\x09"])
def resealed_record(data: bytes) -> None:
    """Edits of a good record, each an offset in two bytes and a new byte, under a checksum that fits: a forgery
    goes unnoticed only where it leaves the name, its parent and its tokens as they were."""
    forged = bytearray(sealed(KEY, LABEL, PAYLOAD))
    for at in range(0, len(data) - 2, 3):
        offset, value = struct.unpack_from("<HB", data, at)
        forged[offset % len(forged)] = value
    struct.pack_into("<Q", forged, 8, xxhash.xxh3_64_intdigest(bytes(forged[16:])))
    label = _accepted(bytes(forged), len(data) % 512)
    if label is not None:
        assert (label.parent, label.tokens) == (LABEL.parent, LABEL.tokens)


# The index


def _entry(batch: int, slot: int, label: Label) -> bytes:
    return pack_entry(unpack_entry(bytes(ENTRY_HEAD.itemsize))._replace(batch=batch, slot=slot, label=label))


@target(lambda: [b"", _entry(5, 3, LABEL), _entry(5, 3, LABEL)[:47], _entry(2**64 - 1, 2**32 - 1, LABEL) + b"x"])
def entry(data: bytes) -> None:
    """A value of the index: too short, or the same when it is packed again."""
    try:
        found = unpack_entry(data)
    except struct.error:
        assert len(data) < ENTRY_HEAD.itemsize
        return
    assert pack_entry(found) == data


def _pairs(data: bytes) -> list[tuple[bytes, bytes]]:
    """Keys and values cut out of some bytes: two lengths, then as much of each."""
    pairs, at = {}, 0
    while at + 2 <= len(data):
        key_bytes, value_bytes = data[at] % 40, data[at + 1]
        key, value = data[at + 2 :][:key_bytes], data[at + 2 + key_bytes :][:value_bytes]
        pairs[key] = value
        at += 2 + key_bytes + value_bytes
    return sorted(pairs.items())


def _index() -> list[bytes]:
    def packed(*pairs: tuple[bytes, bytes]) -> bytes:
        return b"".join(bytes([len(key), len(value)]) + key + value for key, value in pairs)

    pairs = [(bytes([i]) * HASH_BYTES, _entry(9 - i, i, LABEL._replace(depth=i % 3))) for i in range(5)]
    longer = (b"l" * HASH_BYTES, _entry(1, 7, LABEL._replace(tokens=bytes(40))))
    return [b"", packed(*pairs), packed(*pairs, longer), packed(*pairs, (b"short", b"x")), packed((KEY, b"x"))]


@target(_index)
def index(data: bytes) -> None:
    """The whole index read at once: what reading it entry by entry gives."""
    pairs = _pairs(data)
    good: list[tuple[bytes, Entry]] = []
    damaged = []
    for key, value in pairs:
        if len(key) == HASH_BYTES and len(value) >= ENTRY_HEAD.itemsize:
            good.append((key, unpack_entry(value)))
        else:
            damaged.append(key)
    found = read_entries(iter(pairs), len(pairs))
    listed = sorted(good, key=lambda each: (each[1].batch, -each[1].label.depth))
    assert list(found.listing) == [(key, each.label) for key, each in listed]
    assert found.slots.tolist() == [each.slot for _, each in good]
    assert (found.damaged, found.listing.damaged) == (damaged, len(damaged))


# What users pass

NAMESPACE = Namespace(spec=KVSpec(layers=1, kv_heads=1, head_dim=8, dtype="float32", block_tokens=4), weights="w")


def _prompts() -> list[bytes]:
    texts = ["[1, 2, 3, 4, 5]", "[]", "[[1, 2]]", "[1, -1]", "[4294967296, 0]", "[0.5]", '"text"', "null", "[9e999]"]
    texts += ["[18446744073709551616]", "[true]", '{"ids": [1]}', "[1, [2]]", "[null, 1, 2, 3]"]
    return [text.encode() for text in texts]


@target(_prompts)
def tokens(data: bytes) -> None:
    """A prompt as JSON: a TokenError, or names made from exactly these ids."""
    try:
        prompt = json.loads(data)
    except (ValueError, RecursionError):
        return
    try:
        chain = name_chain(NAMESPACE, prompt)
    except TokenError:
        return
    ids = [int(each) for label in chain.labels for each in np.frombuffer(label.tokens, "<u4")]
    assert ids == list(prompt)[: len(prompt) // 4 * 4]
    assert all(name_block(label) == key for key, label in zip(chain.keys, chain.labels, strict=True))


@target(
    lambda: [b"2 GiB", b"1.5 GiB", b"0", b"40 GB", b" 7 kb ", b"-1", b"1e3", b"", b"inf", b"9" * 400, "٣ MiB".encode()]
)
def size(data: bytes) -> None:
    """A size in words: a ConfigError, or a number of bytes that is not negative."""
    with suppress(ConfigError):
        assert parse_size(data.decode(errors="replace")) >= 0


# What an environment says of itself


@cache
def _environment() -> tuple[Path, dict[str, Any]]:
    """A directory that a disk tier has made, and what it says of itself."""
    path = Path(tempfile.mkdtemp(prefix="kvtier-fuzz-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    _open_tier(path)
    with lmdb.open(str(path), max_dbs=8) as env, env.begin(db=env.open_db(b"meta", create=False)) as txn:
        return path, json.loads(txn.get(b"format"))


def _open_tier(path: Path) -> None:
    from kvtier.tiers.disk import LMDBTier

    LMDBTier("disk", path, capacity_bytes=4 * 512, block_bytes=512, block_tokens=4, threads=1).close()


def _abouts() -> list[bytes]:
    def texts() -> Iterator[str]:
        about = _environment()[1]
        yield from (json.dumps(about), "null", "[]", "{", "", "[" * 2000, '"text"')
        for name in about:
            yield json.dumps({key: value for key, value in about.items() if key != name})
            for value in (0, -1, "1", None, [], 1.5, 2**70):
                yield json.dumps({**about, name: value})

    return [text.encode() for text in texts()]


@target(_abouts)
def about(data: bytes) -> None:
    """What an environment says of itself, in JSON: opened, or refused with an error of kvtier's."""
    path, _ = _environment()
    with lmdb.open(str(path), max_dbs=8, sync=False) as env:
        meta = env.open_db(b"meta", create=False)
        with env.begin(write=True) as txn:
            txn.put(b"format", data or b" ", db=meta)
    with suppress(KVTierError):
        _open_tier(path)


# Traces


@cache
def _trace_file() -> Path:
    """A file for one trace after another."""
    path = Path(tempfile.mkdtemp(prefix="kvtier-fuzz-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path / "trace"


def _traces() -> list[bytes]:
    turns = [
        {"t": 0.0, "in": 200, "out": 9, "keep": 0, "add": [[1, 3]]},
        {"t": 1, "in": 64, "out": 1, "keep": 1, "add": []},
    ]
    about = {"block_size": 64, "tool_tokens": 70, "system_tokens": 9}
    agents = [{"t": 1, **about, "subagent": "a", "requests": [{**turns[0], "add": [[90, 3]]}]}]
    texts = [
        '{"timestamp": 0, "input_length": 1300, "output_length": 1, "hash_ids": [0, 1, 2]}\n' * 2,
        '{"timestamp": 5, "input_length": 600, "output_length": 1, "hash_ids": [0, 1]}\n{"hash_ids": [-1]}',
        json.dumps({**about, "requests": [*turns, *agents]}),
        json.dumps({**about, "requests": [{**turns[0], "in": 64 * 10**12, "add": [[1, 10**12]]}]}),
        json.dumps({**about, "requests": turns[::-1]}),
        '{"tokens": [1, 2, 3], "time": 1}\n{"text": "abc", "time": NaN}\n{"text": "abcd", "time": 2}',
        'tokens,text,time\n1 2 3,,0\n,"a ""b""\n c",4\n',
        "[" * 2000,
        "",
    ]
    plain = [text.encode() for text in texts]
    return [*plain, *(gzip.compress(data, mtime=0) for data in plain), gzip.compress(plain[0], mtime=0)[:-5]]


@target(_traces)
def trace(data: bytes) -> None:
    """A trace of any format: a TraceError, or requests in order of time whose ids form a forest, twice the same."""
    _trace_file().write_bytes(data)
    try:
        found = open_trace(_trace_file(), shared_prefix=len(data) % 2 == 1)
        requests = list(found)
    except TraceError:
        return
    before: dict[int, int] = {}
    now_s = 0.0
    for request in requests:
        assert request.time_s >= now_s
        now_s = request.time_s
        for previous, block in zip([-1, *request.blocks], request.blocks, strict=False):
            assert 0 <= block <= len(before)
            assert before.setdefault(block, previous) == previous
    assert list(found) == requests
