"""What the engine that calls the store waits for: a put, and a match of a long prompt.

The background goes on meanwhile, as it does in use: with the fastest tier full, each put makes the
mover carry as many blocks to the host tier, and that tier to disk.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kvtier import open_store
from kvtier.calibrate.limits import memcpy_once
from kvtier.calibrate.stats import summary
from kvtier.hashing import Namespace
from kvtier.spec import KVSpec
from kvtier.tiers.pages import page_aligned

_SPEC = KVSpec(layers=30, kv_heads=3, head_dim=64, dtype="float32")
_SMALL = KVSpec(layers=1, kv_heads=1, head_dim=8, dtype="float16")
_LONG_TOKENS = 131_072


def seen_by_the_caller(directory: Path, *, runs: int, threads: int) -> list[dict[str, Any]]:
    """Rows with ``what``, ``p50_ms``, ``p99_ms``, and for puts the memcpy of the same bytes and their ratio."""
    rows = [_put(directory / f"put{blocks}", blocks, runs, threads) for blocks in (1, 16)]
    return [*rows, _match(runs)]


def _put(directory: Path, blocks: int, runs: int, threads: int) -> dict[str, Any]:
    """Puts to a store whose device and host tiers are full, a pause between them for the background."""
    size = blocks * _SPEC.block_bytes
    memory = page_aligned(size)
    memory[:] = 1
    payload = list(torch.from_numpy(memory).view(blocks, _SPEC.block_bytes))
    rng = np.random.default_rng(0)
    seconds, limits = [], []
    with open_store(
        directory, Namespace(spec=_SPEC, weights="benchmark"), device=8 * size, host=4 * size, disk=32 * size
    ) as store:
        for n in range(12 + runs):
            ids = rng.integers(0, 50_000, blocks * _SPEC.block_tokens)
            limit = size / memcpy_once(size, min(threads, blocks))
            began = time.perf_counter()
            done = store.put(ids, payload)
            took = time.perf_counter() - began
            if done.num_refused:
                raise AssertionError(f"put: {done.num_refused} of {blocks} blocks were refused")
            store._mover.drain()  # noqa: SLF001  # so that no put pays for the one before it
            if n >= 12:  # the tiers are full by now
                seconds.append(took)
                limits.append(limit)
        refused = store.stats()["counters"].get("refused_blocks", 0)
    ratio = float(np.median([took / limit for took, limit in zip(seconds, limits, strict=True)]))
    times = summary(seconds)
    return {
        "what": f"put of {blocks} x {_SPEC.block_bytes >> 10} KiB, full store",
        "p50_ms": times["p50_ms"],
        "p99_ms": times["p99_ms"],
        "memcpy_ms": float(np.median(limits)) * 1e3,
        "times_memcpy": ratio,
        "refused_blocks": refused,
    }


def _match(runs: int) -> dict[str, Any]:
    """Name and look up a prompt of which every block is held."""
    blocks = _LONG_TOKENS // _SMALL.block_tokens
    ids = np.random.default_rng(0).integers(0, 50_000, _LONG_TOKENS)
    with open_store(
        None, Namespace(spec=_SMALL, weights="benchmark"), host=2 * blocks * _SMALL.block_bytes, disk=0
    ) as store:
        store.put(ids, list(torch.zeros((blocks, _SMALL.block_bytes), dtype=torch.uint8)))
        seconds = []
        for _ in range(max(runs, 5)):
            began = time.perf_counter()
            found = store.match(ids)
            seconds.append(time.perf_counter() - began)
            if found.num_tokens != _LONG_TOKENS:
                raise AssertionError(f"match: {found.num_tokens} of {_LONG_TOKENS} tokens are held")
    times = summary(seconds)
    return {
        "what": f"match of {_LONG_TOKENS:,} tokens in {blocks:,} blocks, all held, naming included",
        "p50_ms": times["p50_ms"],
        "p99_ms": times["p99_ms"],
        "memcpy_ms": None,
        "times_memcpy": None,
        "refused_blocks": 0,
    }
