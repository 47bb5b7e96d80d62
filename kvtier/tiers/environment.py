"""The LMDB environment behind the disk tier: opening it safely, and what it says about itself.

Several processes of one host may have a directory open. LMDB lets one of them write at a time, and
its lock is given back when its holder dies. Who opens a directory that nobody else has open
first proves, byte by byte and without LMDB, that the file's structure is sound: LMDB trusts its pages and
would end the process over a damaged one. A file that does not pass is set aside and the store
starts afresh. Nothing is changed in a directory that is not kvtier's or that a newer release wrote: those are
refused by name (``kvtier.tiers.directory``).
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import lmdb

from kvtier.errors import (
    ConfigError,
    KVTierError,
    TierClosedError,
    TierError,
    TierFullError,
    TierUnavailableError,
)
from kvtier.format import FORMAT_VERSION, PAGE_BYTES, WRITER_BYTES
from kvtier.tiers.about import DATABASES, About, UnfitError, of_another_release
from kvtier.tiers.directory import Directory
from kvtier.tiers.journal import BOOKS, Books, Commit
from kvtier.tiers.layout import Layout
from kvtier.tiers.mapguard import MapGuard
from kvtier.tiers.structure import structural_problem

log = logging.getLogger("kvtier")

_READERS = 1024
_NO_READER = 1 << 63

#: Of the lock file: a line of the processor's cache for each reader, and a page for what precedes them.
_LOCK_BYTES = _READERS * 64 + PAGE_BYTES


@contextmanager
def translated(name: str) -> Iterator[None]:
    """Raise kvtier's errors in place of LMDB's; the only place that knows both."""
    try:
        yield
    except KVTierError:
        raise
    except lmdb.MapFullError as exc:
        raise TierFullError(name, "the LMDB map is full: no run of free pages is long enough") from exc
    except (lmdb.Error, OSError) as exc:
        raise TierUnavailableError(name, f"the disk did not do it: {exc}") from exc


class Environment:
    """One open environment with its databases.

    Args:
        name: The tier's name, for errors.
        path: The directory.
        capacity_bytes: Payload bytes it must be able to hold.
        block_bytes: Payload bytes of one block.
        layout: How a new environment's data file is cut up; an old one keeps its own.

    Raises:
        ConfigError: Too small for one block, a directory that cannot be used (``kvtier.tiers.directory``), written
            by a newer release, or open elsewhere with another capacity.
        SpecMismatchError: It holds blocks of another size.
        TierUnavailableError: LMDB cannot open it.
    """

    guard: MapGuard
    """Of the maps of the data file; who makes another has it watched too."""

    index: Any
    slabs: Any
    places: Any
    meta: Any
    namespaces: Any
    journal: Any
    quarantine: Any
    layout: Layout

    def __init__(self, name: str, path: Path, *, capacity_bytes: int, block_bytes: int, layout: Layout) -> None:
        if capacity_bytes < block_bytes:
            raise ConfigError(f"{name}: {capacity_bytes} bytes hold no block of {block_bytes} bytes; give it more or 0")
        self.name = name
        self.writer = os.urandom(WRITER_BYTES)
        """Signs this opening's commits in the journal."""
        self.capacity_blocks = capacity_bytes // block_bytes
        self.given_up: str | None = None
        """Why nothing works before the directory is opened anew."""
        self._whole_bytes = 0
        """Length of the file, and of the map, once it is open: a shorter one was cut."""
        self._pid = os.getpid()
        self._closed = False
        self._writer = threading.RLock()
        self._readers = 0
        self._state = threading.Condition()
        """Guards ``_closed`` and ``_readers``."""
        with translated(name):
            self.directory = Directory(name, path)
        with translated(name), self.directory.opening():
            self.alone = self.directory.enter()
            """Nobody else had the directory open when this one opened it."""
            try:
                self._open(About(self, block_bytes, layout))
            except BaseException:
                self.directory.leave()
                raise
            self._whole_bytes = self.map_bytes

    @property
    def data(self) -> Path:
        """The data file."""
        return self.directory.data

    @property
    def last_page(self) -> int:
        """Number of the last page in use."""
        return int(self._env.info()["last_pgno"])

    @property
    def last_commit(self) -> int:
        """LMDB's number of the last transaction that is visible."""
        return int(self._env.info()["last_txnid"])

    @property
    def map_bytes(self) -> int:
        """Length of the memory map, and of the data file."""
        return int(self._env.info()["map_size"])

    @property
    def file_bytes(self) -> int:
        """Bytes the file system has allocated for the data file."""
        return self.directory.state().st_blocks * 512

    @property
    def free_bytes(self) -> int:
        """Bytes left on the file system for this user."""
        with translated(self.name):
            stat = os.statvfs(self.directory.path)
        return stat.f_bavail * stat.f_frsize

    @property
    def books(self) -> Books:
        """What all processes together have committed last."""
        with self.reading(buffers=False) as txn:
            return self.books_in(txn)

    def books_in(self, txn: Any) -> Books:
        """The books as a transaction sees them."""
        return Books(*BOOKS.unpack(txn.get(b"books", db=self.meta)))

    def oldest_reader(self) -> int:
        """LMDB's number of the oldest snapshot that any process reads; a large number if none does."""
        lines = self._env.readers().splitlines()[1:]
        snapshots = (line.split()[2] for line in lines)
        return min((int(snapshot) for snapshot in snapshots if snapshot != "-"), default=_NO_READER)

    def forget_dead_readers(self) -> int:
        """Give the snapshots of dead processes back; returns how many there were."""
        with translated(self.name):
            return int(self._env.reader_check())

    def check_open(self) -> None:
        """Refuse use after close, and in a forked child, whose copy of the map LMDB cannot protect."""
        if self._closed:
            raise TierClosedError(self.name, "used after close()")
        if os.getpid() != self._pid:
            raise TierClosedError(self.name, "used in a forked process; open a store of its own there")

    @contextmanager
    def reading(self, *, buffers: bool = True) -> Iterator[Any]:
        """A read transaction: a consistent view whose pages and slots are neither reused nor unmapped before it ends.

        Args:
            buffers: Give views of the map that last as long as the transaction, instead of bytes;
                slower for what is small.

        Raises:
            TierUnavailableError: The file is not whole any more, now or when the transaction ends.
        """
        with self.held_open(), self._asking(), self._env.begin(buffers=buffers) as txn:
            self.check_whole()
            yield txn
            if self.guard.hit:  # meanwhile, so that zeros were read
                self.check_whole()

    def lost(self) -> str | None:
        """Why nothing that the memory map shows is worth anything: pages of it are gone."""
        state = self.directory.state()
        if state.st_nlink == 0:
            return f"{self.data} was removed while it was open"
        if state.st_size < self._whole_bytes:
            return f"{self.data} was cut to {state.st_size} bytes while it was open"
        return f"a page of {self.data} could not be read" if self.guard.hit else None

    def check_whole(self) -> None:
        """Raise TierUnavailableError if pages of the map are gone."""
        lost = self.lost()
        if lost is not None:
            raise TierUnavailableError(self.name, lost)

    @contextmanager
    def held_open(self) -> Iterator[None]:
        """Keep ``close`` waiting: what is done here, on whatever threads, ends before it."""
        self.check_open()
        with self._state:
            self.check_open()  # again: only now is close() shut out
            self._readers += 1
        try:
            yield
        finally:
            with self._state:
                self._readers -= 1
                self._state.notify_all()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One writer of this process at a time, over several transactions."""
        with self._writer:
            self.check_open()
            yield

    def try_writing(self) -> bool:
        """``writing`` if that is to be had at once; to be ended by ``done_trying``."""
        return self._writer.acquire(blocking=False)

    def done_trying(self) -> None:
        """The end of a successful ``try_writing``."""
        self._writer.release()

    def introduce(self, root: bytes, record: dict[str, Any]) -> dict[bytes, dict[str, Any]]:
        """Note a namespace, if it is not noted yet; returns all that are."""
        with self.reading(buffers=False) as txn:
            stored = {bytes(key): bytes(value) for key, value in txn.cursor(self.namespaces)}
        if root not in stored:
            stored[root] = json.dumps(record).encode()
            with self.writing(), self.change() as commit:
                commit.put(root, stored[root], self.namespaces)
        found = {}
        for key, value in stored.items():
            with suppress(ValueError):
                found[key] = json.loads(value)
        return {key: value for key, value in found.items() if isinstance(value, dict)}

    @contextmanager
    def change(self) -> Iterator[Commit]:
        """A write transaction, which shuts out the writers of all processes; the caller holds ``writing``.

        Committed and on the medium when it ends, together with new books and a line in the journal, or
        not at all if it raised. Without a change nothing is committed.
        """
        with self._asking(), self._env.begin(write=True) as txn:
            self.check_whole()
            commit = Commit(self, txn)
            yield commit
            self.check_whole()  # or what was made of zeros would be kept
            commit.finish()

    def sync(self) -> None:
        """Everything committed reaches the medium."""
        self.check_open()
        with translated(self.name):
            self._env.sync(True)

    def close(self) -> None:
        """Close the environment and leave the directory; a second close does nothing.

        Waits for readers: unmapping the file under one would end the process.
        """
        if os.getpid() != self._pid:
            return  # before any lock: in a forked child one may be held by a thread left behind
        with self._writer, self._state:
            if self._closed:
                return
            self._closed = True
            self._state.wait_for(lambda: self._readers == 0)
            self._close_lmdb()
            self.directory.leave()

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """``translated``; takes note if LMDB will not do anything any more."""
        with translated(self.name):
            try:
                yield
            except lmdb.PanicError as exc:  # after an error in writing a meta page, for as long as it is open
                self.given_up = f"LMDB has given {self.data} up: {exc}"
                raise

    def _open(self, about: About, *, again: bool = False) -> None:
        """Open it; what is damaged beyond its pages is found here, and set aside as well, once."""
        if self.alone:
            self._prove_sound()
            with translated(self.name):
                self.directory.renew_lock_file(_LOCK_BYTES)
                if self.directory.state().st_size == 0:
                    self.directory.claim(about.marker())
        else:
            self.directory.check_joinable()
        self._env = self._open_lmdb(about.layout.map_bytes(self.capacity_blocks))
        self.guard = MapGuard()
        self.guard.watch_maps_of(self.data)
        try:
            self._set_up(about)
        except UnfitError as exc:
            self._close_lmdb()
            if again or not self.alone or not about.is_in(self.directory.marker()):
                raise exc.error from exc
            self.directory.set_aside(str(exc.error))
            self._open(about, again=True)
        except BaseException:
            self._close_lmdb()
            raise

    def _set_up(self, about: About) -> None:
        self.layout, databases = about.agree(self._env)
        for name, database in databases.items():
            setattr(self, name, database)
        self._agree_on_capacity()
        if self.alone:
            self.directory.mark(about.marker())
            self._stretch()

    def _prove_sound(self) -> None:
        """Set the file aside unless its structure is sound or it was never kvtier's."""
        size = self.directory.state().st_size
        if size == 0:
            return
        written = self.directory.marker().get("format")
        if written is not None and written != FORMAT_VERSION:
            raise of_another_release(self.name, self.directory.path, written)
        with translated(self.name):
            problem = structural_problem(self.data)
        if problem is None:
            return
        if written is None:
            raise ConfigError(
                f"{self.name}: {self.data} is not an LMDB file kvtier can read: {problem}; choose another directory"
            )
        self.directory.set_aside(problem)

    def _open_lmdb(self, map_bytes: int) -> Any:
        # a map cut down to a smaller capacity would have no room to delete in
        map_bytes = max(map_bytes, self.directory.state().st_size)
        try:
            return lmdb.open(
                str(self.directory.path),
                map_size=map_bytes,
                max_dbs=len(DATABASES),
                mode=0o600,
                readahead=False,
                max_spare_txns=16,
                max_readers=_READERS,
            )
        except lmdb.Error as exc:
            if "already open" in str(exc):
                raise ConfigError(
                    f"{self.name}: {self.directory.path} is open in this process (pid {self._pid}) already; "
                    "use that store, or close it first"
                ) from exc
            raise TierUnavailableError(self.name, f"cannot open {self.data}: {exc}") from exc
        except OSError as exc:
            raise TierUnavailableError(self.name, f"cannot open {self.data}: {exc}") from exc

    def _close_lmdb(self) -> None:
        self.guard.release()  # before the addresses may be another's
        self._env.close()

    def _stretch(self) -> None:
        """Give the file the length of its map; what was never written stays a hole and takes no space.

        LMDB does not write a page it took and gave back in one commit, so the file of a healthy
        environment may end before its last page. With this it cannot: a short file was cut.
        """
        map_bytes = self.map_bytes
        if self.directory.state().st_size < map_bytes:
            with translated(self.name):
                os.truncate(self.data, map_bytes)

    def _agree_on_capacity(self) -> None:
        """One cap for all who have the directory open: the first one's."""
        held = self.books
        if not self.alone and held.capacity_blocks != self.capacity_blocks:
            raise ConfigError(
                f"{self.name}: {self.directory.path} is open in another process with room for {held.capacity_blocks} "
                f"blocks, not for {self.capacity_blocks}; open it with the same size"
            )
        if self.alone and held.capacity_blocks != self.capacity_blocks:
            with suppress(TierError), self.writing(), self.change() as commit:  # a disk that refuses can still be read
                commit.announce(self.capacity_blocks)
