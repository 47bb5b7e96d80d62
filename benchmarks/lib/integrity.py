"""The disk tier with verification and without, with encryption and without, and the parts of both alone.

    get warm, cold     verified | not verified          the same tier, its check replaced by nothing
    get warm, cold     encrypted | not encrypted        two tiers, both verified
    put, durable       encrypted | not encrypted        deleted and stored again
    alone              memcpy, XXH3, AES-GCM            over as many bytes, on one thread and on several
    for each block     its name, its token ids, the key of its name

A switch to turn verification off would be one more way to serve a wrong byte, so kvtier has none; the
benchmark patches it out.
"""

from __future__ import annotations

import os
import timeit
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import xxhash
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESGCMSIV, ChaCha20Poly1305

from kvtier.calibrate.limits import memcpy_once
from kvtier.calibrate.rawdisk import RawDisk
from kvtier.calibrate.residency import make_resident, resident_fraction
from kvtier.calibrate.stats import interleave, summary
from kvtier.calibrate.threads import timed_threads
from kvtier.errors import NotColdError
from kvtier.format import Bytes
from kvtier.formats.encrypted import TAG_BYTES, Encrypted
from kvtier.formats.keys import KEY_BYTES, Key
from kvtier.hashing import name_block
from kvtier.spec import KVSpec
from kvtier.tiers.encoded import EncodedTier
from kvtier.tiers.pages import page_aligned
from kvtier.tiers.records import Records

from .bandwidth import COLD_BYTES, GRID, KvtierDisk, named

#: Blocks of a small real model.
SPEC = KVSpec(layers=30, kv_heads=3, head_dim=64, dtype="float32")

Times = dict[str, list[float]]
"""Seconds of every round, by case."""


class EncryptedDisk(KvtierDisk):
    """kvtier's disk tier with its blocks encrypted."""

    def __init__(self, directory: Path, capacity_blocks: int) -> None:
        self.codec = Encrypted(SPEC, Key(os.urandom(KEY_BYTES)))
        super().__init__(directory, self.codec.encoded_bytes, capacity_blocks)

    def open(self) -> None:
        """See ``Rival``."""
        super().open()
        self.tier: Any = EncodedTier(self.tier, self.codec)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two cases that differ in one thing."""

    cost: str
    """What the first one does and the second does not."""

    op: str
    with_it: str
    without: str
    limit: str


COMPARISONS = (
    Comparison("verification", "get, warm", "get warm", "get warm unverified", "memcpy"),
    Comparison("verification", "get, cold", "get cold", "get cold unverified", "disk read"),
    Comparison("encryption", "get, warm", "get warm encrypted", "get warm", "memcpy"),
    Comparison("encryption", "get, cold", "get cold encrypted", "get cold", "disk read"),
    Comparison("encryption", "put, durable", "put encrypted", "put", "disk write"),
)


def measure(directory: Path, *, batch: int, runs: int, threads: int) -> dict[str, Any]:
    """Rows ``costs`` (with and without), ``parts`` (alone) and ``per_block`` (nanoseconds).

    Args:
        directory: On the disk to measure.
        batch: Blocks at a time.
        runs: Rounds.
        threads: Of the memcpy that is the limit.
    """
    size = batch * SPEC.block_bytes
    memory = page_aligned(size)
    memory[:] = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    with ExitStack() as stack:
        plain = stack.enter_context(KvtierDisk(directory / "plain", SPEC.block_bytes, batch))
        crypt = stack.enter_context(EncryptedDisk(directory / "encrypted", batch))
        raw = stack.enter_context(RawDisk(directory, size))
        raw.calibrate(GRID, runs=2)
        best_write = max(GRID, key=lambda setting: max(raw.write_once(setting) for _ in range(2)))
        cases = [
            *_disk_cases(plain, crypt, list(torch.from_numpy(memory).view(batch, -1))),
            *_parts(memory),
            ("memcpy", lambda: size / memcpy_once(size, threads)),
            ("disk read", lambda: size / raw.read_once()),
            ("disk write", lambda: size / raw.write_once(best_write)),
        ]
        times = interleave(cases, runs)
    return {
        "costs": [_cost(comparison, times, size) for comparison in COMPARISONS],
        "parts": [_part(name, times, size) for name in ("memcpy", *(name for name in times if "alone" in name))],
        "per_block": _per_block(),
    }


def _disk_cases(
    plain: KvtierDisk, crypt: EncryptedDisk, blocks: Sequence[torch.Tensor]
) -> list[tuple[str, Callable[[], float]]]:
    """Gets and puts of two disks, filled; each returns seconds."""
    names = [str(number) for number in range(len(blocks))]
    out = list(torch.from_numpy(page_aligned(len(blocks) * SPEC.block_bytes)).view(len(blocks), -1))
    for block in out:
        block.fill_(1)
    cases: list[tuple[str, Callable[[], float]]] = []
    for disk, suffix in ((plain, ""), (crypt, " encrypted")):
        disk.put(names, blocks)
        get, put = partial(disk.get, names, out), partial(_renew, disk, names, blocks)
        cases += [
            (f"get warm{suffix}", partial(_timed, partial(_warm, disk, get), get)),
            (f"get cold{suffix}", partial(_timed, partial(_chill, disk), get)),
            (f"put{suffix}", partial(_timed, _nothing, put)),
        ]
    get = partial(plain.get, names, out)
    cases += [
        ("get warm unverified", partial(_timed, partial(_warm, plain, get), get, verified=False)),
        ("get cold unverified", partial(_timed, partial(_chill, plain), get, verified=False)),
    ]
    return cases


def _timed(prepare: Callable[[], None], run: Callable[[], None], *, verified: bool = True) -> float:
    prepare()
    control: Any = nullcontext() if verified else patch.object(Records, "check", lambda *_: None)
    with control:
        began = perf_counter()
        run()
        return perf_counter() - began


def _nothing() -> None:
    pass


def _renew(disk: KvtierDisk, names: Sequence[str], blocks: Sequence[torch.Tensor]) -> None:
    disk.delete(names)
    disk.put(names, blocks)


def _warm(disk: KvtierDisk, get: Callable[[], None]) -> None:
    for path in disk.files():
        make_resident(path)
    get()  # the first touch in this process maps the pages


def _chill(disk: KvtierDisk) -> None:
    disk.chill()
    for path in disk.files():
        resident = resident_fraction(path) * path.stat().st_blocks * 512
        if resident > COLD_BYTES:
            raise NotColdError(f"{disk.name}: {resident:.0f} bytes of {path.name} are still in memory")


def _parts(memory: Bytes) -> list[tuple[str, Callable[[], float]]]:
    """XXH3, AES-GCM and other ciphers over all blocks, in one call a block as in the tier; each returns seconds."""
    blocks = memory.reshape(-1, SPEC.block_bytes)
    sealed = page_aligned(len(blocks) * (SPEC.block_bytes + TAG_BYTES)).reshape(len(blocks), -1)
    aside, opened = np.ones_like(sealed), np.ones_like(blocks)
    cipher, nonce = AESGCM(os.urandom(KEY_BYTES)), os.urandom(12)  # one nonce for all: nothing is kept secret here
    others = {"ChaCha20-Poly1305": ChaCha20Poly1305(bytes(KEY_BYTES)), "AES-GCM-SIV": AESGCMSIV(bytes(KEY_BYTES))}
    works: dict[str, Callable[[int], object]] = {
        "XXH3": lambda i: xxhash.xxh3_64(blocks[i].data).intdigest(),
        "AES-GCM encrypt": partial(_encrypt, cipher, nonce, blocks, sealed),
        "AES-GCM decrypt": lambda i: cipher.decrypt_into(nonce, sealed[i], None, opened[i]),
    }
    for name, other in others.items():
        works[f"{name} encrypt"] = partial(_encrypt, other, nonce, blocks, aside)
    for i in range(len(blocks)):
        works["AES-GCM encrypt"](i)

    def run(work: Callable[[int], object], lanes: int) -> float:
        def lane(first: int) -> None:
            for i in range(first, len(blocks), lanes):
                work(i)

        return timed_threads([partial(lane, first) for first in range(lanes)])

    return [
        (f"alone {name}, {lanes} threads" if lanes > 1 else f"alone {name}, 1 thread", partial(run, work, lanes))
        for name, work in works.items()
        for lanes in sorted({1, len(os.sched_getaffinity(0))})
    ]


def _encrypt(cipher: Any, nonce: bytes, blocks: Bytes, sealed: Bytes, i: int) -> None:
    cipher.encrypt_into(nonce, blocks[i], None, sealed[i])


def _cost(comparison: Comparison, times: Times, size: int) -> dict[str, Any]:
    with_it, without, limit = (times[name] for name in (comparison.with_it, comparison.without, comparison.limit))
    return {
        "cost": comparison.cost,
        "op": comparison.op,
        "with_gib_per_s": _rate(with_it, size),
        "without_gib_per_s": _rate(without, size),
        "time_ratio": _ratio(with_it, without),
        "limit": comparison.limit,
        "limit_gib_per_s": _rate(limit, size),
        "with_of_limit": _ratio(limit, with_it),
        "without_of_limit": _ratio(limit, without),
        "with_p50_ms": summary(with_it)["p50_ms"],
        "without_p50_ms": summary(without)["p50_ms"],
        "with_s": with_it,
        "without_s": without,
    }


def _part(name: str, times: Times, size: int) -> dict[str, Any]:
    return {
        "part": name.removeprefix("alone "),
        "gib_per_s": _rate(times[name], size),
        "of_memcpy": _ratio(times["memcpy"], times[name]),
    }


def _rate(seconds: Sequence[float], size: int) -> float:
    return size / float(np.median(seconds)) / 2**30


def _ratio(first: Sequence[float], second: Sequence[float]) -> float:
    """Of two cases, round by round; the median."""
    return float(np.median([a / b for a, b in zip(first, second, strict=True)]))


def _per_block() -> list[dict[str, Any]]:
    """Nanoseconds of what is done once for each block, whatever its size."""
    part, again = named(("1",)), named.__wrapped__(("1",))
    key, label, same, master = part.keys[0], part.labels[0], again.labels[0], Key(os.urandom(KEY_BYTES))
    works: dict[str, Callable[[], object]] = {
        f"name from parent and {SPEC.block_tokens} token ids (BLAKE2b-256)": lambda: name_block(label),
        f"compare parent, depth and {SPEC.block_tokens} token ids": lambda: label == same,
        "key of the name (BLAKE2b-256, keyed)": lambda: master.of_block(key),
        "AES-256 key schedule and nonce": lambda: (AESGCM(key), os.urandom(12)),
    }
    rows = []
    for what, work in works.items():
        timer = timeit.Timer(work)
        rows.append({"what": what, "ns": min(timer.repeat(7, 2000)) / 2000 * 1e9})
    return rows
