"""Threads that hesitate where it hurts: at kvtier's locks, its tiers' calls, and the reads and writes of its file.

    thread 1   acquire . release . copy row .......... meets -> copy row
    thread 2   acquire ........................ meets -> pwritev . commit

Left alone, the interpreter switches threads every few milliseconds, and a window of a few
instructions is hit once in hours. Here every lock that kvtier makes, every call of a tier, every
row copied and every ``preadv`` and ``pwritev`` is a point, at which a thread may yield, sleep, or
wait for another thread to reach a point too, so that both go on together from there.

Each seed has a sore spot, one of the four kinds of points, where threads often sleep for long:
a race shows itself when one side of it is slow. What each thread does at its points is drawn from
the seed and the thread's name. The operating system still decides who runs, so a seed that failed
fails often, not always, when it is run again.

Source: noise injection at synchronisation points as in ConTest (Edelstein et al., IBM Systems
Journal 2002). A scheduler that runs one thread at a time would repeat a run exactly, but it
cannot see inside LMDB and NumPy, where the interpreter lock is not held.
"""

import os
import random
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

from kvtier.tiers import copying, memory

#: Chances of a hesitation at a point, in this order: yield, sleep, meet.
CHANCES = (0.05, 0.003, 0.01)
#: Kinds of points, with the chances while one is the sore spot; of locks there are many in every call.
SORE = {"lock": (0.10, 0.03, 0.05), "tier": (0.10, 0.30, 0.10), "file": (0.10, 0.30, 0.10), "copy": (0.10, 0.30, 0.10)}
SLEEP_S = 0.005
MEETING_S = 0.002
TIER_CALLS = ("read", "read_parts", "write", "delete", "contains", "flush")

_make_lock, _make_rlock = threading.Lock, threading.RLock


class Schedule:
    """One seed's hesitations.

    Args:
        seed: What they are drawn from.
    """

    def __init__(self, seed):
        self.seed = seed
        self.sore = random.Random(f"{seed}").choice(list(SORE))
        self.num_points = 0
        """Points reached; threads count it without a lock, so it is approximate."""
        self._own = threading.local()
        self._door = threading.Condition()
        self._arrivals = 0

    def point(self, kind):
        """Where a thread may hesitate; a kind of ``SORE``."""
        self.num_points += 1
        rng = getattr(self._own, "rng", None)
        if rng is None:
            rng = self._own.rng = random.Random(f"{self.seed}/{threading.current_thread().name}")
        turn = rng.random()
        chances = SORE[kind] if kind == self.sore else CHANCES
        for chance, hesitate in zip(chances, (self._yield, self._sleep, self._meet), strict=True):
            if turn < chance:
                hesitate(rng)
                return
            turn -= chance

    @contextmanager
    def disturbing(self):
        """While this lasts, kvtier's new locks and all its reads, writes and copies have points."""
        interval_s = sys.getswitchinterval()
        with ExitStack() as stack:
            stack.enter_context(patch("threading.Lock", self._lock_factory(_make_lock)))
            stack.enter_context(patch("threading.RLock", self._lock_factory(_make_rlock)))
            for name in ("preadv", "pwritev"):
                stack.enter_context(patch.object(os, name, self._around("file", getattr(os, name))))
            stack.enter_context(patch.object(memory, "copy_rows", self._copy_rows))
            stack.callback(sys.setswitchinterval, interval_s)
            sys.setswitchinterval(1e-5)
            yield

    def watch(self, store):
        """Give the calls of a store's tiers points too."""
        for tier in store.tiers:
            for name in TIER_CALLS:
                if hasattr(tier, name):
                    setattr(tier, name, self._around("tier", getattr(tier, name)))
        return store

    def _yield(self, rng):
        time.sleep(0)

    def _sleep(self, rng):
        time.sleep(rng.random() * SLEEP_S)

    def _meet(self, rng):
        """Wait until another thread meets too, for a bounded time."""
        with self._door:
            self._arrivals += 1
            mine = self._arrivals
            self._door.notify_all()
            self._door.wait_for(lambda: self._arrivals != mine, MEETING_S)

    def _around(self, kind, call):
        def disturbed(*args, **kwargs):
            self.point(kind)
            try:
                return call(*args, **kwargs)
            finally:
                self.point(kind)

        return disturbed

    def _copy_rows(self, striper, rows, slots, blocks, *, out, layers=None):
        """``copy_rows``, one row at a time."""
        for slot, block in zip(slots, blocks, strict=False):
            self.point("copy")
            copying.copy_rows(striper, rows, [slot], [block], out=out, layers=layers)
        self.point("copy")

    def _lock_factory(self, make):
        def factory():
            return _Lock(make(), self.point) if _asked_by_kvtier() else make()

        return factory


class _Lock:
    """A lock with points before it is taken and after it is given back."""

    def __init__(self, inner, point):
        self._inner = inner
        self._point = point

    def acquire(self, *args, **kwargs):
        self._point("lock")
        return self._inner.acquire(*args, **kwargs)

    def release(self):
        self._inner.release()
        self._point("lock")

    def __enter__(self):
        return self.acquire()

    def __exit__(self, *_):
        self.release()

    def __getattr__(self, name):
        return getattr(self._inner, name)  # what threading.Condition asks a reentrant lock for


def _asked_by_kvtier():
    """Whether the first caller outside this file and ``threading`` is a module of kvtier."""
    frame = sys._getframe(2)
    while frame is not None and frame.f_globals.get("__name__") == "threading":
        frame = frame.f_back
    return frame is not None and str(frame.f_globals.get("__name__")).startswith("kvtier.")
