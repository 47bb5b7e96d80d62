"""What a replay counts.

    reference     one block of one prompt
    block hit     a reference to a block that some tier held when the prompt came
    prefix hit    the same, and every block before it in the prompt was held: what a prefix cache can serve
    token hit     a token of the prompt that a prefix hit stands for

A store never holds a block without its parent, so the first two are equal in a replay of whole
requests; both are counted, and a difference would be a bug.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kvtier.books import Move
from kvtier.hashing import BlockHash
from kvtier.index import Node


@dataclass(slots=True)
class TierTally:
    """One tier."""

    hits: int = 0
    """Prefix hits that were served from here."""

    written: int = 0
    """Blocks written: new ones, promoted, sunk or copied."""

    read: int = 0
    """Blocks read: hits, and what moved to another tier."""

    evicted: int = 0
    """Blocks that left to make room, whether they sank, were dropped for good, or had a copy elsewhere."""

    expired: int = 0
    """Blocks that left because their time was over, what hung on them, and who made room below for them."""

    lost: int = 0
    """Of those evicted or expired, the ones that no other tier had or took; each once, however many copies it had."""


@dataclass(slots=True)
class Tally:
    """All tiers together."""

    tiers: list[TierTally]
    requests: int = 0
    references: int = 0
    block_hits: int = 0
    prefix_hits: int = 0
    input_tokens: int = 0
    token_hits: int = 0

    def moved(self, moves: Iterable[Move]) -> None:
        """Count what was written and read for moves that were carried out."""
        tiers = self.tiers
        for _, src, dst, _ in moves:
            if dst is not None:
                tiers[dst].written += 1
                if src is not None:
                    tiers[src].read += 1

    def ordered(self, moves: Iterable[Move], nodes: Mapping[BlockHash, Node]) -> None:
        """Count the victims among the orders of a plan as well."""
        tiers = self.tiers
        for key, src, dst, keep in moves:
            if src is None:
                assert dst is not None
                tiers[dst].written += 1
            elif dst is None:
                tiers[src].evicted += 1
                if nodes[key].dead:
                    tiers[src].lost += 1
            else:
                tiers[dst].written += 1
                tiers[src].read += 1
                if not keep:
                    tiers[src].evicted += 1

    def finish(self) -> None:
        """Count hits as reads."""
        for tier in self.tiers:
            tier.read += tier.hits


def rates(tally: Tally) -> dict[str, float]:
    """The three hit rates, 0 to 1; 0 of nothing is 0."""

    def of(part: int, whole: int) -> float:
        return part / whole if whole else 0.0

    return {
        "block_hit_rate": of(tally.block_hits, tally.references),
        "prefix_hit_rate": of(tally.prefix_hits, tally.references),
        "token_hit_rate": of(tally.token_hits, tally.input_tokens),
    }


def tier_rows(tally: Tally, names: Sequence[str], block_bytes: int | None) -> list[dict[str, Any]]:
    """Each tier's counts by name; bytes too where the size of a block is known."""
    rows = []
    for name, tier in zip(names, tally.tiers, strict=True):
        row: dict[str, Any] = {
            "name": name,
            "block_hits": tier.hits,
            "read_blocks": tier.read,
            "written_blocks": tier.written,
            "evicted_blocks": tier.evicted,
            "expired_blocks": tier.expired,
            "lost_blocks": tier.lost,
        }
        if block_bytes is not None:
            row |= {"read_bytes": tier.read * block_bytes, "written_bytes": tier.written * block_bytes}
        rows.append(row)
    return rows
