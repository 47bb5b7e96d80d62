"""A store at its capacity for many turnovers: does its write rate last, does its file grow?

Each round deletes a batch of blocks chosen at random and stores as many new ones, timed together,
beside a raw write of as many bytes. A turnover is as many rounds as replace the whole store once.
Random victims are the worst case for a store that looks for runs of free pages.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kvtier.calibrate.rawdisk import RawDisk
from kvtier.tiers.pages import page_aligned

from .rivals import Rival


def sustained(
    kinds: Sequence[type[Rival]], directory: Path, *, block_bytes: int, batch: int, blocks: int, turnovers: int
) -> list[dict[str, Any]]:
    """A row for each store and turnover: rate, ratio to the raw write of the same rounds, bytes of its files."""
    memory = page_aligned(batch * block_bytes)
    memory[:] = np.random.default_rng(0).integers(0, 256, len(memory), np.uint8)
    payload = list(torch.from_numpy(memory).view(batch, block_bytes))
    rows = []
    with RawDisk(directory, batch * block_bytes) as raw:
        raw.calibrate(runs=1)
        for kind in kinds:
            with kind(directory / "sustained", block_bytes, blocks) as store:
                rows += _turn(store, payload, raw, blocks=blocks, turnovers=turnovers)
    return rows


def _turn(
    store: Rival, payload: Sequence[torch.Tensor], raw: RawDisk, *, blocks: int, turnovers: int
) -> list[dict[str, Any]]:
    batch = len(payload)
    numbers = count()
    rng = np.random.default_rng(0)
    held: list[str] = []
    rows = []
    size = batch * payload[0].numel()
    for turnover in range(turnovers + 1):  # the first fills the store
        rates, limits = [], []
        for _ in range(blocks // batch):
            rng.shuffle(held)
            gone = [held.pop() for _ in range(max(0, len(held) + batch - blocks))]
            new = [str(next(numbers)) for _ in range(batch)]
            limits.append(raw.write_once())
            began = time.perf_counter()
            store.delete(gone)
            store.put(new, payload)
            rates.append(size / (time.perf_counter() - began))
            held += new
        rows.append(
            {
                "store": store.name,
                "durable": store.durable,
                "turnover": turnover,
                "gib_per_s": float(np.median(rates)) / 2**30,
                "limit_gib_per_s": float(np.median(limits)) / 2**30,
                "ratio_to_limit": float(np.median([rate / limit for rate, limit in zip(rates, limits, strict=True)])),
                "file_bytes": sum(path.stat().st_blocks * 512 for path in store.files()),
                "payload_bytes": len(held) * payload[0].numel(),
            }
        )
        print(f"{store.name}: turnover {turnover} of {turnovers}", file=sys.stderr, flush=True)
    return rows
