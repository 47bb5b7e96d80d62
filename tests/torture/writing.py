"""A writer that keeps a store busy, and what is promised to last while it does.

    held 1 2 3      a write of the disk tier, a flush, or a put into a disk alone has returned
    gone 2          a delete begins; a promise ends only where the disk was full

A block is promised once it and all its ancestors are held: a tail that sank before its head is
dropped at opening if the head was only in memory.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from kvtier.hashing import BlockHash, Label
from kvtier.tiers.disk import LMDBTier
from torture import blocks
from torture.blocks import FULL, ROOMY

Tell = Callable[[str], None]


class Ground:
    """A directory that is killed in again and again, and what is promised to be there."""

    def __init__(self, path: Path, disk: int) -> None:
        self.path = path
        self.disk = disk
        self.held: set[int] = set()

    def afresh(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self.held = set()

    def hear(self, line: str) -> None:
        """Take note of what the writer said."""
        verb, *numbers = line.split()
        named = set(map(int, numbers))
        if verb == "held":
            self.held |= named
        elif self.disk == FULL:
            self.held -= named
        else:
            self.held -= named - self.promised()

    def promised(self) -> set[int]:
        """Blocks that are held with all their ancestors."""
        sound: set[int] = set()
        for number in sorted(self.held, key=lambda number: blocks.LABELS[blocks.KEYS[number]].depth):
            label = blocks.LABELS[blocks.KEYS[number]]
            if not label.depth or blocks.NUMBERS[label.parent] in sound:
                sound.add(number)
        return sound


def report_promises(tell: Tell) -> None:
    """Say what the disk tier has taken, and what it is about to give up."""
    write, delete = LMDBTier.write, LMDBTier.delete

    def written(
        tier: LMDBTier, keys: Sequence[BlockHash], out: Sequence[torch.Tensor], labels: Sequence[Label]
    ) -> None:
        write(tier, keys, out, labels)
        tell(_named("held", keys))

    def deleted(tier: LMDBTier, keys: Sequence[BlockHash]) -> int:
        tell(_named("gone", keys))
        return delete(tier, keys)

    LMDBTier.write, LMDBTier.delete = written, deleted  # type: ignore[method-assign]


def _named(verb: str, keys: Sequence[BlockHash]) -> str:
    return " ".join([verb, *(str(blocks.NUMBERS[key]) for key in keys)])


def work(ground: Ground, host: int, rng: random.Random, tell: Tell) -> None:
    """Open the store; put, get, prefetch, flush, close and open again at random, until killed or done."""
    options = {"write": rng.choice(["on_insertion", "on_eviction"]), "group_age_s": rng.choice([0.0, 0.005])}
    store = blocks.open_small(ground.path, host=host, disk=ground.disk, **options)
    put: set[BlockHash] = set()
    for _ in range(160):
        prompt = rng.randrange(blocks.NUM_PROMPTS)
        what = rng.choices(["put", "get", "prefetch", "flush", "reopen"], [60, 15, 5, 10, 5])[0]
        if what == "put":
            refused = blocks.put(store, prompt)
            put |= set() if refused else set(blocks.CHAINS[prompt].keys)
            if len(store.tiers) == 1 and not refused and ground.disk == ROOMY:
                tell(_named("held", blocks.CHAINS[prompt].keys))
        elif what == "get":
            served, wrong = blocks.get(store, prompt)
            assert not wrong, f"{wrong} wrong bytes in {served} blocks of a store at work"
        elif what == "prefetch":
            store.prefetch(blocks.PROMPTS[prompt])
        else:
            left = store.flush().num_left
            if ground.disk == ROOMY:
                assert not left, "a disk with room for everything left blocks in memory"
                _say_held(put, tell)
        if what == "reopen":
            store.close()
            store = blocks.open_small(ground.path, host=host, disk=ground.disk, **options)


def _say_held(keys: set[BlockHash], tell: Tell) -> None:
    listed = sorted(keys)
    for start in range(0, len(listed), 100):
        tell(_named("held", listed[start : start + 100]))
