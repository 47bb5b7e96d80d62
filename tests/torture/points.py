"""Points in a store's work at which its process is killed, reached without any help from kvtier.

Functions of kvtier, of ``lmdb`` and of ``os`` are wrapped in the process that is to die:

    before   |                        the process kills itself as it enters for the n-th time
    during   |---x---|                somebody else kills it, at a random moment of about its last duration
    after            |                it kills itself before it returns

LMDB commits in C, where nothing can be wrapped: "during" is what reaches the middle of a commit.
Of a record write there is also a half: some of its pages are written, then the process dies.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn

import lmdb

from kvtier.format import PAGE_BYTES
from kvtier.store import TieredStore
from kvtier.tiers.disk import LMDBTier
from kvtier.tiers.memory import MemoryTier
from kvtier.tiers.slabs import Slabs


class Step(NamedTuple):
    """A step that can be cut short."""

    owner: Any
    """Whose function it is; None for what LMDB's environment does."""

    name: str
    often: int
    """The process dies at the n-th time, n from 1 to this."""

    needs: str = ""
    """``full``: a disk that must evict; ``host``: a tier above it; ``fresh``: a new directory."""


STEPS = {
    "put": Step(TieredStore, "put", 12),
    "get": Step(TieredStore, "get", 6),
    "flush": Step(TieredStore, "flush", 3),
    "close": Step(TieredStore, "close", 2),
    "host write": Step(MemoryTier, "write", 12, "host"),
    "host delete (demotion)": Step(MemoryTier, "delete", 6, "host"),
    "disk opening": Step(LMDBTier, "__init__", 2),
    "disk scan": Step(LMDBTier, "scan", 2),
    "disk read (promotion)": Step(LMDBTier, "read", 4, "host"),
    "disk write": Step(LMDBTier, "write", 12),
    "disk delete (eviction)": Step(LMDBTier, "delete", 6, "full"),
    "disk flush": Step(LMDBTier, "flush", 3),
    "disk close": Step(LMDBTier, "close", 2),
    "slab growth": Step(Slabs, "grow", 3, "fresh"),
    "record write": Step(os, "pwritev", 30),
    "file stretch": Step(os, "truncate", 1, "fresh"),
    "LMDB opening": Step(lmdb, "open", 2),
    "LMDB commit": Step(None, "commit", 16),
    "LMDB first commits": Step(None, "commit", 3, "fresh"),
    "LMDB sync": Step(None, "sync", 3),
    "LMDB close": Step(None, "close", 2),
}

RANDOM = ("random moment", "any")

#: Every point: a step's name, and when.
POINTS = [
    *((name, when) for name in STEPS for when in ("before", "during", "after")),
    ("record write", "half"),
    RANDOM,
    RANDOM,
    RANDOM,
]


class Trap:
    """Ends this process at a point.

    Args:
        point: One of ``POINTS``.
        rng: Decides at which occurrence, and where within it.
        tell: Takes ``soon SECONDS`` where somebody else must do it.
    """

    def __init__(self, point: tuple[str, str], rng: random.Random, tell: Callable[[str], None]) -> None:
        self._when = point[1]
        self._rng = rng
        self._tell = tell
        self._last_s = 0.001
        if point == RANDOM:
            return
        step = STEPS[point[0]]
        self._left = rng.randint(1, step.often)
        if step.owner is None:
            around_environments({step.name: self._around})
        elif self._when == "half":
            os.pwritev = self._half_write(os.pwritev)  # type: ignore[assignment]
        else:
            setattr(step.owner, step.name, self._wrapped(getattr(step.owner, step.name)))

    def _wrapped(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            with self._around():
                return function(*args, **options)

        return call

    @contextmanager
    def _around(self) -> Iterator[None]:
        self._left -= 1
        now = self._left == 0
        if now and self._when == "before":
            self._die()
        if now and self._when == "during":
            self._tell(f"soon {self._rng.uniform(0, 1.2 * self._last_s):.6f}")
        began = time.monotonic()
        yield
        self._last_s = time.monotonic() - began
        if now and self._when == "after":
            self._die()

    def _half_write(self, pwritev: Callable[..., int]) -> Callable[..., int]:
        def call(file: int, parts: list[Any], offset: int) -> int:
            self._left -= 1
            if self._left == 0:  # the parts are direct writes: whole pages, aligned as they are
                pages = [part[at : at + PAGE_BYTES] for part in parts for at in range(0, len(part), PAGE_BYTES)]
                pwritev(file, pages[: self._rng.randint(1, len(pages) - 1)], offset)
                self._die()
            return pwritev(file, parts, offset)

        return call

    def _die(self) -> NoReturn:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("still alive")


Around = Callable[[], Any]
"""Makes a context manager for one call."""


def around_environments(steps: dict[str, Around]) -> None:
    """Let environments opened from now on run ``commit``, ``sync`` or ``close`` inside a context manager."""
    plain = lmdb.open
    lmdb.open = lambda *args, **options: _Environment(plain(*args, **options), steps)


class _Environment:
    """An LMDB environment, with something around some of its calls."""

    def __init__(self, inner: Any, steps: dict[str, Around]) -> None:
        self._inner = inner
        self._steps = steps

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def begin(self, *args: Any, **options: Any) -> Any:
        transaction = self._inner.begin(*args, **options)
        if not options.get("write") or "commit" not in self._steps:
            return transaction
        flags = self._inner.flags()
        assert flags["sync"], "a commit that does not sync is no commit here"
        assert flags["metasync"], "likewise"
        return _commit_inside(transaction, self._steps["commit"])

    def sync(self, *args: Any) -> None:
        self._run("sync", *args)

    def close(self) -> None:
        self._run("close")

    def _run(self, name: str, *args: Any) -> None:
        if name in self._steps:
            with self._steps[name]():
                getattr(self._inner, name)(*args)
        else:
            getattr(self._inner, name)(*args)


@contextmanager
def _commit_inside(transaction: Any, around: Around) -> Iterator[Any]:
    try:
        yield transaction
    except BaseException:
        transaction.abort()
        raise
    with around():
        transaction.commit()
