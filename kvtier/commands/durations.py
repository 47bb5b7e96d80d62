"""Times as people type and read them."""

from __future__ import annotations

import argparse
import math

from kvtier.config import parse_duration
from kvtier.errors import ConfigError

_UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def duration_s(text: str) -> float:
    """Seconds from ``90s``, ``5min``, ``1h`` or ``2d``; a unit must be given.

    Example:
        >>> duration_s("5min"), duration_s("1.5h")
        (300.0, 5400.0)
    """
    try:
        return parse_duration(text)
    except ConfigError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def durations_s(text: str) -> list[float]:
    """Several, with commas between."""
    return [duration_s(part) for part in text.split(",")]


def human_s(seconds: float | None) -> str:
    """A time with two digits or so.

    Example:
        >>> [human_s(s) for s in (0.0004, 22.1, 192, 3300, 46000, 1.5e6, float("inf"), None)]
        ['0 s', '22 s', '3.2 min', '55 min', '12.8 h', '17 d', 'for ever', '-']
    """
    if seconds is None:
        return "-"
    if math.isinf(seconds):
        return "for ever"
    if seconds < 0.1:
        return f"{seconds * 1e3:.0f} ms" if seconds >= 0.001 else "0 s"
    for unit, limit in (("s", 120), ("min", 7200), ("h", 48 * 3600), ("d", math.inf)):
        if seconds < limit:
            value = seconds / _UNITS[unit]
            return f"{value:.1f} {unit}" if value < 10 or unit == "h" else f"{value:.0f} {unit}"
    raise AssertionError(seconds)
