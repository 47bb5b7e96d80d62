"""Numbers as people read them."""

from __future__ import annotations

import argparse

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def human_bytes(size: float) -> str:
    """A number of bytes with three digits or so.

    Example:
        >>> human_bytes(4096), human_bytes(1_500_000), human_bytes(17), human_bytes(8 << 30)
        ('4.0 KiB', '1.4 MiB', '17 bytes', '8.0 GiB')
    """
    for unit in _UNITS[:-1]:
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == _UNITS[0] else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} {_UNITS[-1]}"


def at_least_one(text: str) -> int:
    """A count from the command line."""
    try:
        count = int(text)
    except ValueError:
        count = 0
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return count


def bars(rows: list[tuple[str, int]], width: int = 40) -> str:
    """A histogram in text, one line a row.

    Example:
        >>> print(bars([("0", 4), ("1", 2), ("2 to 3", 0)], width=8))
          0       4  ########
          1       2  ####
          2 to 3  0
    """
    most = max((count for _, count in rows), default=0)
    labels = max((len(label) for label, _ in rows), default=0)
    digits = len(f"{most:,}")
    lines = [
        f"  {label:{labels}}  {count:{digits},}  {'#' * -(-count * width // max(most, 1))}".rstrip()
        for label, count in rows
    ]
    return "\n".join(lines)
