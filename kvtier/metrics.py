"""Counters of one store, as plain numbers under documented names."""

from __future__ import annotations

from collections import Counter

#: Every counter a store keeps, and what one unit of it is.
COUNTERS = {
    "gets": "calls of get",
    "hit_blocks": "blocks served by get, all tiers; also as hit_blocks.<tier>",
    "missed_blocks": "whole blocks asked for and not served; also as missed_blocks.<reason>, see Hit.stopped_by",
    "puts": "calls of put",
    "new_blocks": "blocks taken up by put",
    "refused_blocks": "blocks that put could not find room for in time",
    "dropped_demotions": "blocks that put gave up instead of letting them sink, because the background was behind",
    "skipped_copies": "blocks that write on insertion did not copy down, because too many copies were queued",
    "promoted_blocks": "blocks copied to a faster tier",
    "demoted_blocks": "blocks that sank to a slower tier",
    "copied_blocks": "blocks copied to the last tier by flush, close or write on insertion",
    "dropped_blocks": "copies deleted from a tier",
    "expired_blocks": "copies that left a tier because their time was over",
    "lost_blocks": "blocks given up because a move failed",
    "damaged_blocks": "blocks that failed verification, and unreadable index entries; also as damaged_blocks.<kind>",
    "shadow_checks": "hits that were computed once more without the store (CachedLM(shadow=...))",
    "shadow_mismatches": "hits among them that came out different",
    "tier_errors": "calls a tier could not carry out; also as tier_errors.<tier>",
}


class Metrics:
    """Counters by name. The store's lock is held around ``add``."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, name: str, amount: int = 1, *, of: str | None = None) -> None:
        """Count ``amount`` units, in total and, if they are ``of`` some tier, reason or kind, for that as well."""
        assert name in COUNTERS, name
        self._counts[name] += amount
        if of is not None and amount:
            self._counts[f"{name}.{of}"] += amount

    def snapshot(self) -> dict[str, int]:
        """All counters now; names that were never counted are 0."""
        return {**dict.fromkeys(COUNTERS, 0), **self._counts}
