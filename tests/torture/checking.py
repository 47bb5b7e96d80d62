"""What is asked of a directory after a fault; run in a child, because it may be the end of it.

check_survivors    after a kill or a power cut: everything is whole and adds up
use                after damage: anything may be lost, nothing may be wrong, and life goes on
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from store_helpers import check

from kvtier.errors import KVTierError
from kvtier.hashing import BlockHash
from kvtier.store import TieredStore
from torture import blocks
from torture.children import Say


def check_survivors(path: Path, host: int, disk: int, _: int, say: Say) -> dict[str, Any]:
    """Open a directory and hold what is listed, accounted, read and served against one another.

    Returns:
        ``opening_s``, ``listed`` (numbers of blocks), ``wrong_bytes``, ``leaks``, and ``problems`` in words.
    """
    before = _held_by_process()
    problems: list[str] = []
    say("opening")
    began = time.monotonic()
    store = blocks.open_small(path, host=host, disk=disk)
    opening_s = time.monotonic() - began
    say("reading")
    tier = store.tiers[-1]
    check(store)
    held = dict(tier.scan())
    if tier.used_bytes != len(held) * blocks.BLOCK:
        problems.append(f"{len(held)} blocks listed, {tier.used_bytes} bytes accounted")
    if strange := [key for key in held if blocks.LABELS.get(key) != held[key]]:
        problems.append(f"{len(strange)} blocks listed that nobody wrote")
    if lonely := blocks.orphans(held):
        problems.append(f"{len(lonely)} blocks without a parent")
    wrong = sum(_wrong_in(tier, key, problems) for key in held)
    for prompt, chain in enumerate(blocks.CHAINS):
        served, bad = blocks.get(store, prompt)
        wrong += bad
        run = next((i for i, key in enumerate(chain.keys) if key not in held), len(chain))
        if served != run:
            problems.append(f"{served} of the {run} blocks held of prompt {prompt} served")
    say("closing")
    store.close()
    return {
        "opening_s": opening_s,
        "wrong_bytes": wrong,
        "problems": problems,
        "listed": [blocks.NUMBERS[key] for key in held if key in blocks.NUMBERS],
        "leaks": _leaked(before),
    }


def use(
    path: Path, host: int, disk: int, say: Say, *, seed: int = 0, while_open: Callable[[], None] | None = None
) -> dict[str, Any]:
    """Open a directory, read all of it, write until it evicts, flush, close, and open it again.

    Args:
        path: The directory.
        host: Blocks of the tier above; small, so that most is read from disk.
        disk: Blocks of the disk.
        say: Told of each stage.
        seed: Which prompts are written.
        while_open: The damage, if it is to be done to an open store that has been read in part.

    Returns:
        ``refused`` (the error at opening) or ``served`` (numbers of the blocks delivered after the
        damage), ``wrong_bytes``, ``leaks``, and ``problems`` in words.
    """
    before = _held_by_process()
    problems: list[str] = []
    say("opening")
    try:
        store = blocks.open_small(path, host=host, disk=disk, put_patience_s=0.05)
    except KVTierError as exc:
        return {"refused": f"{type(exc).__name__}: {exc}", "served": [], "wrong_bytes": 0, "leaks": 0, "problems": []}
    wrong = 0
    if while_open is not None:
        wrong += sum(blocks.get(store, prompt)[1] for prompt in range(0, blocks.NUM_PROMPTS, 5))
        say("damaging")
        while_open()
    say("reading")
    served, bad = _read_all(store)
    wrong += bad
    say("writing")
    for prompt in range(seed % 3, blocks.NUM_PROMPTS, 3):
        blocks.put(store, prompt)
    wrong += _read_all(store)[1]
    say("flushing")
    try:
        store.flush()
    except KVTierError:
        say("closing, after a flush that failed as it may")
    say("closing")
    store.close()
    leaks = _leaked(before)
    say("opening again")
    try:
        store = blocks.open_small(path, host=host, disk=disk, put_patience_s=0.05)
    except KVTierError as exc:
        problems.append(f"opening again: {type(exc).__name__}: {exc}")
    else:
        say("reading again")
        wrong += _read_all(store)[1]
        say("closing again")
        store.close()
    return {"refused": None, "served": sorted(served), "wrong_bytes": wrong, "leaks": leaks, "problems": problems}


def _read_all(store: TieredStore) -> tuple[set[int], int]:
    """Numbers of the blocks that gets deliver, and how many of their bytes are wrong."""
    served: set[int] = set()
    wrong = 0
    for prompt, chain in enumerate(blocks.CHAINS):
        count, bad = blocks.get(store, prompt)
        served.update(blocks.NUMBERS[key] for key in chain.keys[:count])
        wrong += bad
    return served, wrong


def _wrong_in(tier: Any, key: BlockHash, problems: list[str]) -> int:
    """Wrong bytes in a block that the disk lists; one it cannot read is a problem."""
    out = torch.zeros(blocks.BLOCK, dtype=torch.uint8)
    try:
        count = tier.read([key], [out], [blocks.LABELS[key]])
    except KVTierError as exc:
        problems.append(str(exc))
        return 0
    if not count:
        problems.append(f"block {blocks.NUMBERS[key]} is listed and not held")
        return 0
    return blocks.wrong_bytes([key], [out])


def _held_by_process() -> tuple[int, int]:
    """Descriptors and threads."""
    return blocks.num_descriptors(), threading.active_count()


def _leaked(before: tuple[int, int]) -> int:
    """How many more there are than before. A collection first: an error that was caught may hold the map's view."""
    gc.collect()
    return sum(max(0, now - then) for now, then in zip(_held_by_process(), before, strict=True))
