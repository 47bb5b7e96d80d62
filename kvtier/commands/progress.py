"""One line on a terminal that says how far a command is, and nothing elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from kvtier.commands.sizes import human_bytes

_EVERY_S = 0.1


class Meter:
    """Shows bytes done, their share and their rate on standard error.

    Args:
        verb: What is being done to them.
    """

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._began = time.monotonic()
        self._shown = 0.0
        self._width = 0

    def __call__(self, done: int, total: int) -> None:
        """So many bytes of so many are done."""
        now = time.monotonic()
        if now - self._shown < _EVERY_S:
            return
        self._shown = now
        rate = done / max(now - self._began, 1e-9) / 2**30
        line = f"{self._verb} {human_bytes(done)} of {human_bytes(total)}, {rate:.2f} GiB/s"
        self._width = max(self._width, len(line))
        print(f"\r{line:{self._width}}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Leave the line as it was."""
        if self._width:
            print(f"\r{'':{self._width}}\r", end="", file=sys.stderr, flush=True)


@contextmanager
def shown(verb: str) -> Iterator[Meter | None]:
    """A meter while something lasts; None where nobody watches."""
    meter = Meter(verb) if sys.stderr.isatty() else None
    try:
        yield meter
    finally:
        if meter is not None:
            meter.clear()
