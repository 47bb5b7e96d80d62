"""What a replay counts.

    reference     one block of one prompt
    block hit     a reference to a block that some tier held when the prompt came
    prefix hit    the same, and every block before it in the prompt was held: what a prefix cache can serve
    token hit     a token of the prompt that a prefix hit stands for

A store never holds a block without its parent, so the first two are equal in a replay of whole
requests; both are counted, and a difference would be a bug.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from kvtier.books import Move

_WAY = itemgetter(1, 2, 3)


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
    ways: Counter[tuple[int | None, int | None, bool]] = field(default_factory=Counter)
    """Moves by source, destination and whether the source kept its copy."""

    def moved(self, moves: Iterable[Move]) -> None:
        """Count moves that were carried out."""
        self.ways.update(map(_WAY, moves))

    def finish(self) -> None:
        """Work out reads and writes by tier from the moves."""
        for (src, dst, _), count in self.ways.items():
            if dst is not None:
                self.tiers[dst].written += count
                if src is not None:
                    self.tiers[src].read += count
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
