"""Prompts whose blocks anybody can check, and small stores for them.

    prompt  12:  | 0 | 106 | 1200 | 1201 | 1202 | ...      shares its first blocks with others
    block        ``TOKENS`` equal token ids; its payload is a function of its name alone

A block has a number, its place in ``KEYS``, which fits in a message of a few bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import shake_128
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from kvtier.hashing import BlockHash, Label, Namespace, name_chain
from kvtier.opening import open_store
from kvtier.spec import KVSpec
from kvtier.store import TieredStore

TOKENS = 4
SPEC = KVSpec(layers=1, kv_heads=1, head_dim=128, dtype="float32", block_tokens=TOKENS)
BLOCK = SPEC.block_bytes  # 4 KiB
NAMESPACE = Namespace(spec=SPEC, weights="w")

NUM_PROMPTS = 48

#: A disk with room for every block there is, and one that must evict; in blocks.
ROOMY, FULL = 400, 96


def _ids(prompt: int) -> list[int]:
    blocks = [prompt % 6, 100 + prompt % 12, *(100 * prompt + i for i in range(1200, 1204 + prompt % 5))]
    return [block for block in blocks for _ in range(TOKENS)]


PROMPTS = [_ids(number) for number in range(NUM_PROMPTS)]
CHAINS = [name_chain(NAMESPACE, prompt) for prompt in PROMPTS]

LABELS: dict[BlockHash, Label] = {
    key: label for chain in CHAINS for key, label in zip(chain.keys, chain.labels, strict=True)
}
KEYS = list(LABELS)
NUMBERS = {key: number for number, key in enumerate(KEYS)}
PAYLOADS = {key: torch.from_numpy(np.frombuffer(bytearray(shake_128(key).digest(BLOCK)), np.uint8)) for key in KEYS}
"""Made before any fork, so that no child spends time on it."""


def open_small(path: Path, *, host: int, disk: int, slab: int = 16, **options: object) -> TieredStore:
    """A store by ``open_store``; sizes in blocks, the disk's file in slabs of ``slab`` blocks.

    A put that finds no room waits long, so that a busy machine does not decide what is kept.
    """
    with (
        patch("kvtier.tiers.layout.SLAB_BYTES", slab * 2 * BLOCK),
        patch("kvtier.transfer.STAGING_BYTES", 8 * BLOCK),
    ):
        settings = {"put_patience_s": 10.0, **options}
        return open_store(path, NAMESPACE, host=host * BLOCK, disk=disk * BLOCK, **settings)


def put(store: TieredStore, prompt: int) -> int:
    """Put a whole prompt; how many of its blocks were refused."""
    return store.put(PROMPTS[prompt], [PAYLOADS[key] for key in CHAINS[prompt].keys]).num_refused


def wrong_bytes(keys: Iterable[BlockHash], out: Sequence[torch.Tensor]) -> int:
    """Bytes that are not those saved under these names."""
    return sum(int((block != PAYLOADS[key]).sum()) for key, block in zip(keys, out, strict=True))


def get(store: TieredStore, prompt: int) -> tuple[int, int]:
    """Get a whole prompt: how many leading blocks were delivered, and how many of their bytes are wrong."""
    keys = CHAINS[prompt].keys
    out = list(torch.zeros((len(keys), BLOCK), dtype=torch.uint8))
    served = store.get(PROMPTS[prompt], out).num_blocks
    return served, wrong_bytes(keys[:served], out[:served])


def orphans(held: Iterable[BlockHash]) -> list[BlockHash]:
    """Blocks whose parent is not among them."""
    there = set(held)
    return [key for key in there if LABELS[key].depth and LABELS[key].parent not in there]


def num_descriptors() -> int:
    """Files this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
