"""Blocks that check themselves: a block, its name and its contents are functions of one number.

So whoever reads a block can check it without asking who wrote it: another thread, or a process
that was killed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import torch

from kvtier.hashing import HASH_BYTES, BlockHash, Chain, Label, name_block
from kvtier.tiers.base import Tier

#: Layers, K and V, heads, tokens, bytes of one head: the shape a model's cache gives a block.
SHAPE = (4, 2, 4, 32, 256)

BLOCK_TOKENS = SHAPE[3]


def chain(*numbers: int) -> Chain:
    """Names and labels of the blocks with these numbers, the same in every run."""
    root = BlockHash(bytes(HASH_BYTES))
    labels = [Label(root, number, number.to_bytes(4, "little") * BLOCK_TOKENS) for number in numbers]
    return Chain([name_block(label) for label in labels], labels)


@lru_cache(maxsize=64)
def contents(number: int) -> torch.Tensor:
    """The payload of the block with this number; not to be changed."""
    random = np.random.default_rng(number)
    return torch.from_numpy(random.integers(0, 256, math.prod(SHAPE), np.uint8))


def fill(tier: Tier, *numbers: int, device: str = "cpu") -> Chain:
    """Write some blocks as one batch; returns their names."""
    part = chain(*numbers)
    tier.write(part.keys, [contents(number).to(device) for number in numbers], part.labels)
    return part


def write_until_killed(tier: Tier) -> None:
    """Store blocks for ever, and say so on standard output: what the process to be killed runs.

    A line ``wrote 7`` follows each write that returned; a line ``deleting 1 2`` precedes each
    delete. Goes on where the blocks already held end.
    """
    held = [label.depth for _, label in tier.scan()]
    while True:
        if len(held) == tier.capacity_bytes // tier.block_bytes:
            oldest = held[: -(-len(held) // 2)]
            _say("deleting", oldest)
            tier.delete(chain(*oldest).keys)
            held = held[len(oldest) :]
        number = max(held, default=0) + 1
        fill(tier, number)
        held.append(number)
        _say("wrote", [number])


def check_survivors(tier: Tier, lines: Iterable[str]) -> None:
    """What a kill must leave: books that add up, whole blocks only, and every block acknowledged.

    Args:
        tier: Opened again after the kill.
        lines: What ``write_until_killed`` said.
    """
    acknowledged: set[int] = set()
    for line in lines:
        verb, *numbers = line.split()
        if verb == "wrote":
            acknowledged.update(map(int, numbers))
        else:
            acknowledged.difference_update(map(int, numbers))
    listed = {label.depth for _, label in tier.scan()}
    out = torch.empty_like(contents(0))
    for number in listed:
        part = chain(number)
        assert tier.read(part.keys, [out], part.labels) == 1, f"block {number} is listed and not held"
        assert torch.equal(out, contents(number)), f"block {number} is not what was written"
    assert tier.used_bytes == len(listed) * tier.block_bytes
    assert acknowledged <= listed, "a block whose write had returned is gone"


def _say(verb: str, numbers: list[int]) -> None:
    os.write(1, f"{verb} {' '.join(map(str, numbers))}\n".encode())
