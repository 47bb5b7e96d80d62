"""List prices of API providers: what a cached token is sold for.

    share = cached read / input        from 2 to 50 % over the market

These are list prices, not what anyone's contract says. Where a provider states a share and no
price, the share is kept as it is. Data: ``data/prices.toml``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from kvtier.econ.figures import Figure, unknown_name
from kvtier.econ.tables import Section, build, load_tables
from kvtier.errors import ConfigError

_PRICE = Section(
    units={
        "input": "USD/Mtok",
        "cached_read": "USD/Mtok",
        "read_share": "ratio",
        "write": "USD/Mtok",
        "write_long": "USD/Mtok",
        "storage": "USD/Mtok-h",
    },
    texts=frozenset({"provider", "write_ttl", "write_long_ttl", "retention", "note"}),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListPrice:
    """What one provider asks for one model's input tokens."""

    name: str
    """``provider/model``."""

    provider: str
    input: Figure | None = None
    cached_read: Figure | None = None
    read_share: Figure | None = None
    """Cached read over input, where that is what the provider states."""

    write: Figure | None = None
    """Of tokens that are written to the cache; None where they cost the input price and no more."""

    write_long: Figure | None = None
    """The same for the longer of two lifetimes."""

    storage: Figure | None = None
    """Of a million tokens kept for an hour; None where keeping is free."""

    write_ttl: str = ""
    write_long_ttl: str = ""
    retention: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        prices = self.input is not None and self.cached_read is not None
        if not prices and self.read_share is None:
            raise ConfigError(f"price {self.name!r} needs input and cached_read, or read_share")
        if self.input is not None and self.input.value == 0:
            raise ConfigError(f"price {self.name!r}: input is 0, so nothing is a share of it")

    @property
    def share(self) -> float:
        """Price of a cached token over that of one that is not."""
        if self.input is None or self.cached_read is None:
            assert self.read_share is not None
            return self.read_share.value
        return self.cached_read.value / self.input.value

    @property
    def write_multiple(self) -> float:
        """Price of a written token over that of an uncached one; 1 where writing costs nothing more."""
        if self.input is None or self.write is None:
            return 1.0
        return self.write.value / self.input.value


def load_prices(path: Path | None = None) -> Mapping[str, ListPrice]:
    """The shipped list prices by ``provider/model``, and the user's over them.

    Args:
        path: A TOML file in the form of ``data/prices.toml``; fields it has replace those of the same entry,
            other entries are added.

    Raises:
        ConfigError: The file cannot be read, or something in it is refused, with its place.

    Example:
        >>> prices = load_prices()
        >>> round(prices["anthropic/sonnet-4.5"].share, 3), prices["deepseek/v4.1-flash"].share
        (0.1, 0.02)
    """
    entries = load_tables("prices.toml", path, {"price": _PRICE})["price"]
    return {
        name.lower(): cast("ListPrice", build(ListPrice, name.lower(), fields, ("provider",), "price"))
        for name, fields in entries.items()
    }


def find_prices(name: str, prices: Mapping[str, ListPrice]) -> list[ListPrice]:
    """The prices that a name stands for: a ``provider/model``, a provider, or a model.

    Raises:
        ConfigError: It stands for none; near ones are named.

    Example:
        >>> [price.name for price in find_prices("xai", load_prices())]
        ['xai/grok-4.5', 'xai/grok-4.7', 'xai/grok-4.20']
    """
    wanted = name.lower()
    found = [price for key, price in prices.items() if wanted in {key, price.provider, key.partition("/")[2]}]
    if not found:
        known = {*prices, *(price.provider for price in prices.values()), *(key.partition("/")[2] for key in prices)}
        raise ConfigError(unknown_name("provider or model", name, known))
    return found
