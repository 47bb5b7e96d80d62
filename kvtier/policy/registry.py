"""Eviction policies by the name that commands and configurations use."""

from __future__ import annotations

from collections.abc import Callable

from kvtier.errors import ConfigError
from kvtier.policy.arc import ARC
from kvtier.policy.base import EvictionPolicy, Setting
from kvtier.policy.belady import belady
from kvtier.policy.fifo import FIFO
from kvtier.policy.gdsf import gdsf
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
    "ttl": ttl,
    "belady": belady,
}
"""How to make each policy, in the order in which tables and plots show them."""


def make_policy(name: str, setting: Setting) -> EvictionPolicy:
    """An empty policy.

    Args:
        name: One of ``POLICIES``.
        setting: Where it will work.

    Raises:
        ConfigError: There is no policy of this name.
    """
    make = POLICIES.get(name)
    if make is None:
        raise ConfigError(f"unknown policy {name!r}; known are {', '.join(POLICIES)}")
    return make(setting)
