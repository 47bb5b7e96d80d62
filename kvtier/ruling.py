"""What decides over each tier of a store: its policy, its admission, its time to live.

    names of a caller  ->  one for each tier  ->  policy, admission  ->  TierRules

The same names as in ``kvtier simulate``, and the same objects, so that a replay says what a store
would do. They look into the index that the store's placement will use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from kvtier.books import TierRules
from kvtier.errors import ConfigError
from kvtier.index import PrefixIndex
from kvtier.placement import Placement
from kvtier.policy.base import Setting
from kvtier.policy.registry import make_admission, make_policy
from kvtier.tiers.base import Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """How a store decides. Each is one for all tiers, or one for each, fastest first."""

    policy: str | Sequence[str] = "lru"
    """Who leaves a full tier, see ``kvtier.policy.registry.POLICIES``."""

    admission: str | Sequence[str] = "all"
    """What is worth writing, see ``kvtier.policy.registry.ADMISSIONS``."""

    ttl_s: float | Sequence[float | None] | None = None
    """Seconds for which a block is kept after its last use; None for as long as there is room."""


def check_options(write: str, **seconds: float) -> None:
    """Raise ConfigError for a way to write that is not known, or a time below 0."""
    for name, value in seconds.items():
        if not value >= 0:
            raise ConfigError(f"{name} must be 0 or more seconds, got {value!r}")
    if write not in {"on_eviction", "on_insertion"}:
        raise ConfigError(f"write must be 'on_eviction' or 'on_insertion', got {write!r}")


def placement_of(tiers: Sequence[Tier], ruling: Ruling, *, set_aside_blocks: int = 0) -> Placement:
    """The decisions of a store.

    Args:
        tiers: Fastest first.
        ruling: How.
        set_aside_blocks: Places of the first tier that are not to be planned with.

    Raises:
        ConfigError: A name that is not known, one that only a replay can use, a time that is none, or as many of
            them as there are no tiers.
    """
    index = PrefixIndex()
    policies = _each("policy", ruling.policy, len(tiers))
    admissions = _each("admission", ruling.admission, len(tiers))
    lives_s = _each("ttl_s", ruling.ttl_s, len(tiers))
    rules: list[TierRules] = []
    for tier, policy, admission, ttl_s in zip(tiers, policies, admissions, lives_s, strict=True):
        blocks = tier.capacity_bytes // tier.block_bytes - (0 if rules else set_aside_blocks)
        rules.append(_rules(index, blocks, policy, admission, ttl_s, durable=tier.durable))
    return Placement(rules, index)


def _rules(
    index: PrefixIndex, blocks: int, policy: str, admission: str, ttl_s: float | None, *, durable: bool
) -> TierRules:
    setting = Setting(
        capacity_blocks=blocks,
        depth=lambda key: index[key].depth,
        num_children=lambda key: index[key].num_children,
        clock=monotonic,
    )
    made = make_policy(policy, setting, ttl_s=ttl_s)
    if admission == "worth_reloading":
        raise ConfigError("admission worth_reloading is for replays: a store does not know what computing takes")
    return TierRules(blocks, made, durable, admission=make_admission(admission, setting))


def _each(name: str, given: Any, num_tiers: int) -> Sequence[Any]:
    """One for each tier."""
    if given is None or isinstance(given, str | int | float):
        return [given] * num_tiers
    if len(given) != num_tiers:
        raise ConfigError(f"{name}: {len(given)} given for {num_tiers} tiers; write one for all, or one for each")
    return list(given)
