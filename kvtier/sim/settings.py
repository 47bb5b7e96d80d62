"""What is replayed: tiers, who leaves them, and when blocks are written down.

As text a tier is ``NAME=CAPACITY[:POLICY][:ttl=TIME][:refresh=no][:admit=NAME]``:

    device=10000        host=40 GiB:sieve        disk=1 TiB:lru:ttl=1d:admit=second_touch
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from kvtier.config import parse_duration, parse_size
from kvtier.errors import ConfigError

Write = Literal["on_eviction", "on_insertion"]
Copies = Literal["disk", "inclusive", "exclusive"]

TIER_NAMES = ("device", "host", "disk", "remote")
"""From the fastest to the slowest; what a profile has figures for."""


_DURABLE = {"disk", "remote"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TierSettings:
    """One tier of a replay."""

    name: str
    """One of ``TIER_NAMES``."""

    capacity_blocks: int
    policy: str = "lru"
    admission: str = "all"
    ttl_s: float | None = None
    """How long a block is kept after its last use; None for as long as there is room."""

    refresh: bool = True
    """A use begins the time anew. Else it runs from when the block was stored."""

    def __post_init__(self) -> None:
        if self.name not in TIER_NAMES:
            raise ConfigError(f"unknown tier {self.name!r}; the tiers are {', '.join(TIER_NAMES)}")
        if self.capacity_blocks < 1:
            raise ConfigError(f"tier {self.name}: a capacity must be at least 1 block, got {self.capacity_blocks}")
        if self.ttl_s is not None and not 0 < self.ttl_s < float("inf"):
            raise ConfigError(f"tier {self.name}: a time to live must be above 0 s, got {self.ttl_s}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One replay."""

    tiers: Sequence[TierSettings]
    """Fastest first."""

    write: Write = "on_eviction"
    """When a block reaches the last tier, see ``TieredStore``."""

    promote: bool = True
    """A hit below the first tier is brought up."""

    copies: Copies = "disk"
    """Which tiers keep their copy of a block that was brought up: the disk, as in a store; every one
    (``"inclusive"``); or none (``"exclusive"``)."""

    whole_requests: bool = True
    """Prompts with their prefixes. If not, every reference is a prompt of its own without a prefix: how caches of
    unrelated objects are compared, and no way to run a prefix cache."""

    def __post_init__(self) -> None:
        names = [tier.name for tier in self.tiers]
        if not names:
            raise ConfigError("a replay needs at least one tier")
        if names != sorted(set(names), key=TIER_NAMES.index):
            raise ConfigError(f"tiers must come fastest first and once each, got {', '.join(names)}")

    @property
    def writes_through(self) -> bool:
        """Whether new blocks are copied to the last tier at once: as in a store, where that is not memory too."""
        return self.write == "on_insertion" and len(self.tiers) > 1 and self.tiers[-1].name in _DURABLE

    def keeps(self, tier: TierSettings) -> bool:
        """Whether a tier keeps its copy of a block that was brought up."""
        return self.copies == "inclusive" or (self.copies == "disk" and tier.name in _DURABLE)


def parse_capacity(text: str, block_bytes: int | None) -> int:
    """Blocks from a whole number of them, or from a size in bytes.

    Args:
        text: ``"10000"`` or ``"40 GiB"``.
        block_bytes: Bytes of one block; None if no model was named.

    Raises:
        ConfigError: Neither, or a size in bytes without a model.
    """
    if re.fullmatch(r"\s*[+-]?\d{1,18}\s*", text):
        return int(text)
    size: int | None = None
    if text.strip()[-1:].isalpha():  # a bare number that is not whole is neither
        with suppress(ConfigError):
            size = parse_size(text)
    if size is None:
        raise ConfigError(f"{text[:40]!r} is not a capacity; write a number of blocks, or bytes like '40 GiB'")
    if block_bytes is None:
        raise ConfigError(f"a capacity of {text!r} needs --model or --profile, to know the bytes of a block")
    return size // block_bytes


def parse_tier(text: str, block_bytes: int | None = None, common: Mapping[str, Any] | None = None) -> TierSettings:
    """A tier from ``NAME=CAPACITY[:POLICY][:ttl=TIME][:refresh=no][:admit=NAME]``.

    Args:
        text: The tier.
        block_bytes: See ``parse_capacity``.
        common: Fields of ``TierSettings`` that hold where the text says nothing.

    Raises:
        ConfigError: Not of this form, or a value that cannot be.

    Example:
        >>> parse_tier("host=5000:sieve:ttl=5min").ttl_s
        300.0
    """
    name, equals, rest = text.partition("=")
    capacity, *words = rest.split(":")
    if not equals or not capacity:
        raise ConfigError(f"{text!r} is not a tier; write NAME=CAPACITY, such as host=5000 or disk=100000:lru:ttl=1d")
    options = dict(word.split("=", 1) for word in words if "=" in word)
    policies = [word for word in words if "=" not in word]
    if len(policies) > 1 or set(options) - {"ttl", "refresh", "admit"}:
        raise ConfigError(f"{text!r}: after the capacity come a policy and ttl=, refresh=, admit=")
    said: dict[str, Any] = {"policy": policies[0]} if policies else {}
    if "admit" in options:
        said["admission"] = options["admit"]
    if "ttl" in options:
        said["ttl_s"] = parse_duration(options["ttl"])
    if "refresh" in options:
        said["refresh"] = _yes(text, options["refresh"])
    blocks = parse_capacity(capacity, block_bytes)
    return TierSettings(name=name.strip(), capacity_blocks=blocks, **(dict(common or {}) | said))


def _yes(text: str, word: str) -> bool:
    if word not in {"yes", "no"}:
        raise ConfigError(f"{text!r}: refresh is yes or no, got {word!r}")
    return word == "yes"
