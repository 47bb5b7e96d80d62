"""Hits computed once more without the store, a sampled share of them, to see that both are the same.

    hit, drawn -> compute the same tokens from nothing -> keys, values and logits equal, bit for bit?
                    yes   go on with what the store gave
                    no    count it, log it, forget the first wrong block and all that hangs on it,
                          go on with what was computed

Only under ``chunk_tokens`` must they be equal: without it the blocks of a hit may have been computed in
other pieces than any computation now would take, and kernels chosen by shape then differ in the last
bits. A tolerance wide enough for that would let a damaged block pass.
"""

from __future__ import annotations

import logging
import random
import threading
from collections import Counter
from dataclasses import dataclass

import torch

from kvtier.answers import Hit
from kvtier.errors import ConfigError
from kvtier.formats.base import FORMATS
from kvtier.hashing import BlockHash, Chain
from kvtier.store import TieredStore

log = logging.getLogger("kvtier")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a prefill led to."""

    kv: torch.Tensor
    """Keys and values in place, ``[1, layers, 2, kv_heads, tokens, head_dim]``, ``head_dim`` contiguous."""

    logits: torch.Tensor | None
    """Of the last token, ``[vocab]``; None if no token was computed."""


class Shadow:
    """Draws hits to be checked, and judges them. Safe to use from many threads.

    Args:
        share: Of the hits, from 0 (none) to 1 (all).
        seed: Equal seeds draw the same hits of the same sequence.

    Raises:
        ConfigError: ``share`` is no share.
    """

    def __init__(self, share: float, *, seed: int = 0) -> None:
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 1:
            raise ConfigError(f"shadow must be a share of the hits, from 0 to 1, got {share!r}")
        self.share = share
        self._lock = threading.Lock()
        self._random = random.Random(seed)  # noqa: S311  (a sample, not a secret)

    def check_fits(self, store: TieredStore | None, chunk_tokens: int | None) -> None:
        """Refuse where equal bits cannot be expected.

        Raises:
            ConfigError: There are no fixed chunks, or the store keeps blocks in a format that is not exact.
        """
        if not self.share:
            return
        if chunk_tokens is None:
            raise ConfigError(
                "shadow compares bit for bit, which only fixed chunks make possible; "
                "set chunk_tokens, or leave shadow out"
            )
        if store is None:
            return
        name = store.namespace.layout.rpartition("/")[2]
        if name in FORMATS and name != "lossless":
            raise ConfigError(f"shadow compares bit for bit, and disk_format={name!r} is not exact; leave shadow out")

    def drawn(self) -> bool:
        """Whether the next hit is to be checked."""
        with self._lock:
            return self.share > 0 and self._random.random() < self.share

    def same(self, hit: Hit, given: Outcome, computed: Outcome, store: TieredStore, chain: Chain) -> bool:
        """Whether a hit led to what computing leads to, bit for bit; counted, and if not, told and acted upon.

        Args:
            hit: What the store gave.
            given: What it led to.
            computed: The same tokens without the store.
            store: Forgets the first block that is wrong, and all that hangs on it.
            chain: Names of the prompt's whole blocks.
        """
        token = _first_difference(given.kv, computed.kv)
        far = _distance(given.logits, computed.logits)
        core = store._core  # noqa: SLF001  (a counter is no verb)
        with core.lock:
            core.metrics.add("shadow_checks")
            core.metrics.add("shadow_mismatches", token is not None or far is not None)
        if token is None and far is None:
            return True
        block = None if token is None else token // store.spec.block_tokens
        tiers = ", ".join(f"{count} from {name}" for name, count in Counter(hit.tiers).items())
        log.error(
            "shadow: a hit led to other bits than computing: prompt of %d tokens, %d blocks (%s), %s, logits differ "
            "by up to %s; the prompt was computed again",
            *(given.kv.shape[4], hit.num_blocks, tiers),
            "keys and values equal: the model does not compute the same twice"
            if block is None
            else f"first at block {block}",
            0 if far is None else f"{far:.3g}",
        )
        if block is not None and block < len(chain):
            _forget(store, chain.keys[block])
        return False


def _first_difference(one: torch.Tensor, other: torch.Tensor) -> int | None:
    """The first token whose keys or values differ in a bit, in any layer."""
    wrong = torch.zeros(one.shape[4], dtype=torch.bool, device=one.device)
    for layer in range(one.shape[1]):  # not all at once: the comparison is as large as what it compares
        pair = (each[:, layer].view(torch.uint8) for each in (one, other))
        wrong |= torch.ne(*pair).movedim(3, 0).flatten(1).any(1)
    found = wrong.nonzero()
    return int(found[0]) if len(found) else None


def _distance(one: torch.Tensor | None, other: torch.Tensor | None) -> float | None:
    """The largest difference of logits; None if all bits are equal, or there are none to compare."""
    if one is None or other is None or torch.equal(one.view(torch.uint8), other.view(torch.uint8)):
        return None
    return float((one.double() - other.double()).abs().max())


def _forget(store: TieredStore, key: BlockHash) -> None:
    """Give up a block in every tier, with its descendants, before the prompt is saved again."""
    core, mover = store._core, store._mover  # noqa: SLF001  (the store has no verb for what only a check can know)
    mover.drain()  # a copy of the block on its way to another tier would outlive it
    with core.lock:
        node = core.placement.index.get(key)
        tiers = [] if node is None else [tier for tier in range(len(core.tiers)) if node.tiers >> tier & 1]
        drops = [move for tier in tiers for move in core.placement.forget(key, tier)]
        core.metrics.add("damaged_blocks", bool(tiers))
    mover.carry(drops)
