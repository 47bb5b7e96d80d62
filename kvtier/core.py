"""What the parts of one store share: its tiers, the state they are in, its decisions, and the lock around them."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

from kvtier.books import Move
from kvtier.errors import (
    BlockRefusedError,
    CorruptBlockError,
    TierClosedError,
    TierError,
    TierFullError,
)
from kvtier.hashing import BlockHash
from kvtier.health import Breaker
from kvtier.leases import live, release_lapsed
from kvtier.metrics import Metrics
from kvtier.placement import Placement
from kvtier.rates import LoadRates
from kvtier.tiers.base import News, SharedTier, Tier

log = logging.getLogger("kvtier")

Doing = Literal["read", "write"]


class Core:
    """One store's state. ``placement``, ``metrics`` and ``loads`` are used only under ``lock``.

    Args:
        tiers: Fastest first, as numbered in moves.
        placement: The decisions.
        set_aside_blocks: Places of the first tier that the placement does not know of.
    """

    def __init__(self, tiers: Sequence[Tier], placement: Placement, *, set_aside_blocks: int = 0) -> None:
        self.tiers = tiers
        self.placement = placement
        self.metrics = Metrics()
        self.loads = LoadRates()
        self.lock = threading.Condition()
        """Held for microseconds, never while bytes move; notified when moves have ended."""
        self._set_aside_blocks = set_aside_blocks
        self._shared = [(i, tier) for i, tier in enumerate(tiers) if isinstance(tier, SharedTier)]
        self._following = threading.Lock()
        """Whoever holds it may take ``lock``, and not the other way round."""
        self._moved: set[BlockHash] = set()
        """Blocks whose moves have ended while somebody was asking a tier what has become of it."""
        self._breakers: list[dict[Doing, Breaker]] = [{"read": Breaker(), "write": Breaker()} for _ in tiers]
        self._ailing = False
        """Some breaker does not say that its tier works."""

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
            if self._following.locked():
                self._moved.update(move.key for move in (*done, *failed))
            follow = self.placement.commit(done) + self.placement.abort(failed)
            self.lock.notify_all()
        return follow

    def forget(self, key: BlockHash, tier: int, error: CorruptBlockError | None) -> list[Move]:
        """Record that a tier has not got a block it should hold, or damaged it; returns the drops to make."""
        with self.lock:
            if error is not None:
                self.metrics.add("damaged_blocks", of=error.kind)
                log.warning("%s: %s; it is forgotten and computed again", self.tiers[tier].name, error)
            return self.placement.forget(key, tier)

    def failed(self, tier: int, error: TierError, doing: Doing) -> None:
        """Count a call that a tier could not carry out; unless it was only full, leave it alone for a while."""
        with self.lock:
            self.metrics.add("tier_errors", of=self.tiers[tier].name)
            if isinstance(error, TierFullError | BlockRefusedError | TierClosedError):
                return
            breaker = self._breakers[tier][doing]
            if breaker.works:
                log.warning("%s: degraded, it cannot %s: %s", self.tiers[tier].name, doing, error.reason)
            breaker.failed(error.reason, time.monotonic())
            self._ailing = True
            self._tell_placement(tier)

    def worked(self, tier: int, doing: Doing) -> None:
        """A tier did what it was asked."""
        if self._breakers[tier][doing].works:
            return
        with self.lock:
            log.warning("%s: recovered, it can %s again", self.tiers[tier].name, doing)
            self._breakers[tier][doing].worked()
            self._ailing = any(not each.works for both in self._breakers for each in both.values())
            self._tell_placement(tier)

    def report(self) -> dict[str, Any]:
        """All counters, live leases, and for each tier by name its state and what it holds."""
        with self.lock:
            counters = self.metrics.snapshot()
            leases = [asdict(lease) for lease in live(self.placement.index)]
            states = [self._state(tier) for tier in range(len(self.tiers))]
        tiers = {
            tier.name: {
                "state": state,
                "used_blocks": tier.used_bytes // tier.block_bytes,
                "used_bytes": tier.used_bytes,
                "capacity_bytes": tier.capacity_bytes,
            }
            for tier, state in zip(self.tiers, states, strict=True)
        }
        return {"counters": counters, "leases": leases, "tiers": tiers}

    def _state(self, tier: int) -> str:
        """``"ok"``, or what is wrong with a tier."""
        told = [
            f"cannot {doing}: {breaker.reason}" for doing, breaker in self._breakers[tier].items() if not breaker.works
        ]
        asked = self.tiers[tier]
        if not told and isinstance(asked, SharedTier) and asked.hindrance is not None:
            told = [asked.hindrance]
        return f"degraded: {'; '.join(told)}" if told else "ok"

    def follow(self) -> list[Move]:
        """Learn what has become of tiers that change by themselves, or with time; returns the moves that follow.

        Quick if nothing has changed, and if another thread is at it.
        """
        moves = self._expire() if self.placement.expires else []
        if self._ailing:
            self._try_again()
        if self._shared and self._following.acquire(blocking=False):
            try:
                for tier, asked in self._shared:
                    moves += self._follow_one(tier, asked)
            finally:
                self._following.release()
        return moves

    def _expire(self) -> list[Move]:
        """Moves of blocks whose time is over."""
        with self.lock:
            release_lapsed(self.placement.index)
            moves = self.placement.plan_expire()
            self.metrics.add("expired_blocks", len(moves))
        return moves

    def _follow_one(self, tier: int, asked: SharedTier) -> list[Move]:
        if not self._breakers[tier]["read"].may_try(time.monotonic()):
            return []
        with self.lock:
            self._moved.clear()
        try:
            news = asked.news()
        except TierError as exc:
            self.failed(tier, exc, "read")
            return []
        self.worked(tier, "read")
        return [] if news is None else self._learn(tier, news)

    def _learn(self, tier: int, news: News) -> list[Move]:
        with self.lock:
            room = news.room_blocks - (0 if tier else self._set_aside_blocks)
            self.placement.resize(tier, max(0, room))
            if news.listing is not None:
                moves = self.placement.reconcile(tier, news.listing, moved=self._moved, anew=news.anew)
            else:
                moves = self.placement.vanish(tier, news.dropped)
                self.placement.discover(tier, news.added)
            if moves or news.listing is not None or news.added or news.dropped:
                self.lock.notify_all()
        return moves

    def _try_again(self) -> None:
        """Let tiers be asked again whose wait is over."""
        with self.lock:
            for tier in range(len(self.tiers)):
                self._tell_placement(tier)

    def _tell_placement(self, tier: int) -> None:
        now = time.monotonic()
        both = self._breakers[tier]
        self.placement.set_available(tier, readable=both["read"].may_try(now), takes=both["write"].may_try(now))


def _counter(move: Move, num_tiers: int) -> str:
    if move.dst is None:
        return "dropped_blocks"
    if move.src is None:
        return "new_blocks"
    if move.dst < move.src:
        return "promoted_blocks"
    return "copied_blocks" if move.keep and move.dst == num_tiers - 1 else "demoted_blocks"
