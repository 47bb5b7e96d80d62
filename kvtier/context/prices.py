"""What tokens of a request cost, in units of an uncached input token."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kvtier.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Prices of input tokens; only their ratio decides anything.

    Raises:
        ConfigError: A price that is negative or no number, or a read dearer than a write, for which no
            cache is worth using.
    """

    write: float
    """Of a token that is not cached, with what the provider charges for writing it."""

    read: float
    """Of a token that is."""

    def __post_init__(self) -> None:
        for name, price in (("write", self.write), ("read", self.read)):
            if not (math.isfinite(price) and price >= 0):
                raise ConfigError(f"the {name} price must be a number of at least 0, got {price!r}")
        if self.read > self.write:
            raise ConfigError(f"the read price, {self.read:g}, is above the write price, {self.write:g}")

    def of(self, tokens: int, live_tokens: int) -> float:
        """Cost of a request of ``tokens``, of which ``live_tokens`` are found cached.

        Example:
            >>> Prices(write=1.25, read=0.1).of(32_000, 2_000)
            37700.0
        """
        return self.read * live_tokens + self.write * (tokens - live_tokens)
