"""Eviction policies and admissions by the names that commands and configurations use."""

from __future__ import annotations

from collections.abc import Callable

from kvtier.errors import ConfigError
from kvtier.policy.admission import LongPrompts, SecondTouch, WorthReloading, WriteBudget
from kvtier.policy.arc import ARC
from kvtier.policy.base import Admission, EvictionPolicy, Setting
from kvtier.policy.belady import belady
from kvtier.policy.fifo import FIFO
from kvtier.policy.gdsf import gdsf
from kvtier.policy.hazard import hazard
from kvtier.policy.lfu import LFU
from kvtier.policy.lru import LRU
from kvtier.policy.s3fifo import S3FIFO
from kvtier.policy.sieve import Sieve
from kvtier.policy.ttl import ttl
from kvtier.policy.wtinylfu import WTinyLFU

POLICIES: dict[str, Callable[[Setting], EvictionPolicy]] = {
    "fifo": lambda _: FIFO(),
    "lru": lambda _: LRU(),
    "lfu": lambda _: LFU(),
    "sieve": lambda _: Sieve(),
    "s3fifo": lambda setting: S3FIFO(setting.capacity_blocks),
    "arc": lambda setting: ARC(setting.capacity_blocks),
    "wtinylfu": lambda setting: WTinyLFU(setting.capacity_blocks),
    "gdsf": gdsf,
    "hazard": hazard,
    "ttl": ttl,
    "belady": belady,
}
"""How to make each policy, in the order in which tables and plots show them."""


def make_policy(name: str, setting: Setting, *, ttl_s: float | None = None, refresh: bool = True) -> EvictionPolicy:
    """An empty policy.

    Args:
        name: One of ``POLICIES``.
        setting: Where it will work.
        ttl_s: Seconds for which a block is kept besides; None for as long as the policy keeps it.
        refresh: A use begins that time anew.

    Raises:
        ConfigError: There is no policy of this name, or it needs what the setting does not have, or the time is none.
    """
    make = POLICIES.get(name)
    if make is None:
        raise ConfigError(f"unknown policy {name!r}; known are {', '.join(POLICIES)}")
    if ttl_s is None:
        return make(setting)
    return ttl(setting, ttl_s, refresh=refresh, inner=None if name == "ttl" else make(setting))


ADMISSIONS = ("all", "second_touch", "long_prompts/N", "worth_reloading", "write_budget/N")
"""Known admissions; N is the shortest prompt in blocks, and blocks a day."""


def make_admission(text: str, setting: Setting) -> Admission | None:
    """What decides over writing to a tier; None for what lets everything in.

    Args:
        text: One of ``ADMISSIONS``, with a number in the place of N.
        setting: Where it will work.

    Raises:
        ConfigError: There is none of this name, or it needs what is not given.
    """
    name, _, number = text.partition("/")
    if name in {"long_prompts", "write_budget"}:
        if not number.isdecimal() or not int(number):
            raise ConfigError(f"admission {text!r}: write {name}/N with a whole number N of at least 1")
        if name == "long_prompts":
            return LongPrompts(int(number))
        if setting.clock is None:
            raise ConfigError("admission write_budget needs a clock")
        return WriteBudget(int(number), 1, setting.clock)
    if text == "all":
        return None
    if text == "second_touch":
        return SecondTouch()
    if text != "worth_reloading":
        raise ConfigError(f"unknown admission {text!r}; known are {', '.join(ADMISSIONS)}")
    if setting.load_s is None:
        raise ConfigError("admission worth_reloading must know how fast loading is; name a --model or a --profile")
    latency_s, load_s = setting.load_s
    return WorthReloading(
        setting.recompute_s, load_s, latency_s, depth=setting.depth, num_children=setting.num_children
    )
