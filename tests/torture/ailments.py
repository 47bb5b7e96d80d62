"""What a disk can suffer from for a while, each as a context: it begins, lasts, and is over.

    with ailment(scene):      the disk is full, refuses, is slow ...
        traffic               nothing is raised, nothing is wrong
    traffic                   the store finds out by itself that it is over

The file systems are real where one can be had; errors that a healthy kernel does not give on request
are put in the place of ``os.pwritev``, ``os.preadv`` and LMDB's commit.
"""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import PropertyMock, patch

import lmdb
from tier_helpers import place_of

from kvtier.core import Core
from kvtier.store import TieredStore
from kvtier.tiers.environment import Environment
from kvtier.tiers.journal import Commit
from kvtier.tiers.slabs import Slabs
from torture import blocks


@dataclass(slots=True)
class Scene:
    """A store at work, and what the fault is known to have cost."""

    store: TieredStore
    path: Path
    rng: random.Random
    excused: set[int] = field(default_factory=set)
    """Blocks that the fault itself took."""

    waiting: threading.Event | None = None
    """Set once a write hangs, where one does."""

    def forgets(self) -> AbstractContextManager[Any]:
        """Blocks found unreadable meanwhile are excused: it was their records that the fault hit."""
        forget = Core.forget

        def noted(core: Core, key: Any, tier: int, error: Any) -> Any:
            if error is not None:
                self.excused.add(blocks.NUMBERS[key])
            return forget(core, key, tier, error)

        return patch.object(Core, "forget", noted)


Ailment = Callable[[Scene], AbstractContextManager[None]]


def _failing(name: str, error: int, applies: Callable[[int], bool]) -> AbstractContextManager[Any]:
    """``os.pwritev`` or ``os.preadv`` with an error at the offsets that a fault applies to."""
    real = getattr(os, name)

    def fail(file: int, parts: Sequence[Any], offset: int) -> int:
        if applies(offset):
            raise OSError(error, os.strerror(error))
        return int(real(file, parts, offset))

    return patch.object(os, name, fail)


def _failing_commits(error: Exception, applies: Callable[[], bool]) -> AbstractContextManager[Any]:
    finish = Commit.finish

    def fail(commit: Commit) -> None:
        finish(commit)
        if applies():
            raise error

    return patch.object(Commit, "finish", fail)


def _always(*_: int) -> bool:
    return True


@contextmanager
def ballast(scene: Scene) -> Iterator[None]:
    """Somebody fills the file system to the last byte."""
    other = scene.path.parent / "ballast"
    with other.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)) == 4096:
                pass
        except OSError as exc:
            if exc.errno != errno.ENOSPC:
                raise
    yield
    other.unlink()


@contextmanager
def file_limit(scene: Scene) -> Iterator[None]:
    """The file may not become longer than what is used of it, and sometimes a little."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    used = (scene.store.tiers[-1]._volume.env.last_page + 1) * 4096
    resource.setrlimit(resource.RLIMIT_FSIZE, (used + scene.rng.choice([0, 1000, 70_000]), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def floor(_: Scene) -> Iterator[None]:
    """No more is free than must stay free."""
    with patch.object(Environment, "free_bytes", PropertyMock(return_value=0)):
        yield


@contextmanager
def no_writes(_: Scene) -> Iterator[None]:
    """Every write is an error."""
    with _failing("pwritev", errno.EIO, _always):
        yield


@contextmanager
def some_writes(scene: Scene) -> Iterator[None]:
    """Writes fail at random."""
    share = scene.rng.choice([0.02, 0.2, 0.6])
    with _failing("pwritev", errno.EIO, lambda _: scene.rng.random() < share):
        yield


@contextmanager
def bad_places(scene: Scene) -> Iterator[None]:
    """Some places of the file cannot be written, ever."""
    which = scene.rng.randrange(61)
    with _failing("pwritev", errno.EIO, lambda offset: offset // 8192 % 61 == which):
        yield


@contextmanager
def no_reads(_: Scene) -> Iterator[None]:
    """Every read is an error."""
    with patch.object(Slabs, "view", lambda *_: None), _failing("preadv", errno.EIO, _always):
        yield


@contextmanager
def bad_records(scene: Scene) -> Iterator[None]:
    """Some records cannot be read."""
    disk = scene.store.tiers[-1]
    held = [key for key, _ in disk.scan()]
    hit = scene.rng.sample(held, min(len(held), scene.rng.choice([1, 2, 5])))
    places = {place_of(disk, key) // 4096 for key in hit}
    within = lambda offset: bool(places & {offset // 4096, offset // 4096 + 1})  # noqa: E731
    with scene.forgets(), patch.object(Slabs, "view", lambda *_: None), _failing("preadv", errno.EIO, within):
        yield


@contextmanager
def no_commits(_: Scene) -> Iterator[None]:
    """Every commit is an error."""
    with _failing_commits(lmdb.DiskError("mdb_txn_commit: Input/output error"), _always):
        yield


@contextmanager
def some_commits(scene: Scene) -> Iterator[None]:
    """Commits fail at random."""
    with _failing_commits(lmdb.Error("mdb_txn_commit: Input/output error"), lambda: scene.rng.random() < 0.5):
        yield


class _GivenUp:
    """An LMDB environment whose last write of a meta page failed: it refuses everything from then on."""

    def __init__(self, env: Any) -> None:
        self._env = env

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def begin(self, **_: Any) -> Any:
        raise lmdb.PanicError("mdb_txn_begin: MDB_PANIC: Update of meta page failed or environment had fatal error")


@contextmanager
def panic(scene: Scene) -> Iterator[None]:
    """LMDB gives the environment up."""
    env = scene.store.tiers[-1]._volume.env
    env._env = _GivenUp(env._env)
    yield


@contextmanager
def read_only(_: Scene) -> Iterator[None]:
    """The file system has turned read-only."""
    with (
        _failing("pwritev", errno.EROFS, _always),
        _failing_commits(lmdb.ReadonlyError("mdb_txn_commit: Read-only file system"), _always),
    ):
        yield


@contextmanager
def few_descriptors(spare: int) -> Iterator[None]:
    """The process may open so many files more."""
    taken = {int(entry.name) for entry in Path("/proc/self/fd").iterdir()}
    free = (number for number in count() if not (number in taken and _is_open(number)))
    limit = next(islice(free, spare, None))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def _is_open(file: int) -> bool:
    """Whether a descriptor is open: that of the directory that listed them is not any more."""
    try:
        os.fstat(file)
    except OSError:
        return False
    return True


@contextmanager
def no_descriptors(_: Scene) -> Iterator[None]:
    """The process may open nothing more."""
    with few_descriptors(0):
        yield


@contextmanager
def touched_without_descriptors(scene: Scene) -> Iterator[None]:
    """Somebody has written to the file, and it cannot be opened to be looked at."""
    with no_descriptors(scene):
        os.utime(scene.store.tiers[-1]._volume.env.data)
        yield


@contextmanager
def cut_without_descriptors(scene: Scene) -> Iterator[None]:
    """The file was cut, and no new one can be opened."""
    scene.store._mover.drain()
    scene.excused.update(range(len(blocks.KEYS)))
    with no_descriptors(scene):
        os.truncate(scene.store.tiers[-1]._volume.env.data, 8192)
        yield


@contextmanager
def slow(scene: Scene) -> Iterator[None]:
    """Every tenth request takes a fifth of a second."""
    with ExitStack() as stack:
        for name in ("pwritev", "preadv"):
            stack.enter_context(patch.object(os, name, _slowed(getattr(os, name), scene.rng)))
        yield


def _slowed(real: Callable[..., int], rng: random.Random) -> Callable[..., int]:
    def wait(*args: Any) -> int:
        if rng.random() < 0.1:
            time.sleep(rng.uniform(0.05, 0.2))
        return real(*args)

    return wait


@contextmanager
def hanging(scene: Scene) -> Iterator[None]:
    """A write does not come back until it is over."""
    gate, scene.waiting, real = threading.Event(), threading.Event(), os.pwritev
    waiting = scene.waiting

    def wait(*args: Any) -> int:
        waiting.set()
        gate.wait()
        return real(*args)

    with patch.object(os, "pwritev", wait):
        try:
            yield
        finally:
            gate.set()


class Kind(NamedTuple):
    """How a case of an ailment goes."""

    ailment: Ailment
    degrades: bool = True
    """The tier's state must show it."""

    mounted: bool = False
    """It takes a small file system of its own."""

    evicts: bool = False
    """The disk has less room than it should: blocks may leave it that would not."""

    flushes: bool = True
    """A flush meanwhile comes back."""


AILMENTS: dict[str, Kind] = {
    "file system full": Kind(ballast, mounted=True, evicts=True),
    "file at its limit": Kind(file_limit, evicts=True),
    "below the floor of free space": Kind(floor, evicts=True),
    "no write works": Kind(no_writes),
    "some writes fail": Kind(some_writes, degrades=False),
    "places that cannot be written": Kind(bad_places, degrades=False),
    "no read works": Kind(no_reads),
    "records that cannot be read": Kind(bad_records, degrades=False),
    "no commit works": Kind(no_commits),
    "some commits fail": Kind(some_commits, degrades=False),
    "LMDB gives up": Kind(panic, degrades=False),
    "read-only": Kind(read_only),
    "no descriptors": Kind(no_descriptors, degrades=False),
    "no descriptors, touched": Kind(touched_without_descriptors, degrades=False),
    "no descriptors, cut": Kind(cut_without_descriptors),
    "slow": Kind(slow, degrades=False),
    "hanging": Kind(hanging, degrades=False, flushes=False),
}
