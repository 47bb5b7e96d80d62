"""One line on a terminal that counts, and nothing elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_EVERY = 256
_EVERY_S = 0.1


@contextmanager
def counted(what: str, total: int | None = None) -> Iterator[Callable[[], None]]:
    """Show how many of something are done, while it lasts; yields what is to be called for each."""
    began = shown = time.monotonic()
    done = width = 0

    def count() -> None:
        nonlocal done, shown, width
        done += 1
        if done % (_EVERY if total is None else 1) or not watched or time.monotonic() - shown < _EVERY_S:
            return
        shown = time.monotonic()
        line = f"{done:,}{'' if total is None else f' of {total:,}'} {what}, {shown - began:.0f} s"
        width = max(width, len(line))
        print(f"\r{line:{width}}", end="", file=sys.stderr, flush=True)

    watched = sys.stderr.isatty()
    try:
        yield count
    finally:
        if width:
            print(f"\r{'':{width}}\r", end="", file=sys.stderr, flush=True)
