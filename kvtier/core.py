"""What the parts of one store share: its tiers, its decisions and the lock around them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from kvtier.errors import CorruptBlockError
from kvtier.hashing import BlockHash
from kvtier.metrics import Metrics
from kvtier.placement import Move, Placement
from kvtier.rates import LoadRates
from kvtier.tiers.base import Tier


@dataclass(frozen=True, slots=True)
class Core:
    """One store's state. ``placement``, ``metrics`` and ``loads`` are used only under ``lock``."""

    tiers: Sequence[Tier]
    """Fastest first, as numbered in moves."""

    placement: Placement
    metrics: Metrics = field(default_factory=Metrics)
    loads: LoadRates = field(default_factory=LoadRates)
    lock: threading.Condition = field(default_factory=threading.Condition)
    """Held for microseconds, never while bytes move; notified when moves have ended."""

    @property
    def block_bytes(self) -> int:
        """Payload bytes of one block, the same in every tier."""
        return self.tiers[0].block_bytes

    def holds(self, key: BlockHash) -> bool:
        """Whether a block is held or arriving; not one given up whose bytes still wait for deletion. Under the lock."""
        node = self.placement.index.get(key)
        return node is not None and not node.dead

    def settle(self, done: Sequence[Move], failed: Sequence[Move]) -> list[Move]:
        """Report moves to the placement and count them; returns follow-up drops."""
        with self.lock:
            for name, count in Counter(_counter(move, len(self.tiers)) for move in done).items():
                self.metrics.add(name, count)
            self.metrics.add("lost_blocks", sum(not move.keep and move.dst is not None for move in failed))
            follow = self.placement.commit(done) + self.placement.abort(failed)
            self.lock.notify_all()
        return follow

    def forget(self, key: BlockHash, tier: int, error: Exception | None) -> list[Move]:
        """Record that a tier could not give a block it should hold; returns the drops to make."""
        with self.lock:
            if isinstance(error, CorruptBlockError):
                self.metrics.add("damaged_blocks")
            else:
                self.count_error(tier)
            return self.placement.forget(key, tier)

    def count_error(self, tier: int) -> None:
        """Count a call that a tier could not carry out."""
        with self.lock:
            self.metrics.add("tier_errors", tier=self.tiers[tier].name)


def _counter(move: Move, num_tiers: int) -> str:
    if move.dst is None:
        return "dropped_blocks"
    if move.src is None:
        return "new_blocks"
    if move.dst < move.src:
        return "promoted_blocks"
    return "copied_blocks" if move.keep and move.dst == num_tiers - 1 else "demoted_blocks"
