"""Sizes and times as people write them."""

from __future__ import annotations

import re

from kvtier.errors import ConfigError

_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}

_UNITS_S = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(text: str) -> float:
    """Seconds from a text such as ``"90s"``, ``"5min"``, ``"1.5 h"`` or ``"2d"``; a unit must be given.

    Raises:
        ConfigError: Not a duration above 0.

    Example:
        >>> parse_duration("5min"), parse_duration("1.5 h")
        (300.0, 5400.0)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", text)
    seconds = float(found[1]) * _UNITS_S.get(found[2], 0.0) if found is not None else 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"{text!r} is not a time such as 90s, 5min, 1h or 2d")
    return seconds


def parse_size(size: int | str) -> int:
    """Bytes from a number of bytes or a text such as ``"2 GiB"``.

    Raises:
        ConfigError: Not a size, or negative.

    Example:
        >>> parse_size("1.5 GiB"), parse_size("40 GB"), parse_size(4096), parse_size("0")
        (1610612736, 40000000000, 4096, 0)
    """
    if isinstance(size, int) and not isinstance(size, bool):
        if size < 0:
            raise ConfigError(f"a size cannot be negative, got {size}")
        return size
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", size) if isinstance(size, str) else None
    if found is None or found[2].lower() not in _UNITS:
        raise ConfigError(f"{size!r} is not a size; write bytes or a text like '512 MiB', '2 GiB', '40 GB'")
    try:
        return int(float(found[1]) * _UNITS[found[2].lower()])
    except OverflowError:
        raise ConfigError(f"a size of {len(found[1])} digits is more than any tier holds") from None
