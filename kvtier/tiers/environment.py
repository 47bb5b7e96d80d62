"""The LMDB environment behind the disk tier: opening it safely, and what it says about itself.

A directory belongs to one process at a time. A lock file, locked with flock, names the holder;
the kernel releases it when the holder dies, however it dies. Nothing is changed in a directory
that is not kvtier's, that a newer release wrote, or that is in use: those are refused by name.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import lmdb

from kvtier.errors import ConfigError, SpecMismatchError, TierClosedError, TierFullError, TierUnavailableError
from kvtier.format import FORMAT_VERSION, PAGE_BYTES
from kvtier.tiers.layout import Layout

_DATA, _LOCK = "data.mdb", "kvtier.lock"
_OURS = {_DATA, "lock.mdb", _LOCK}
_BOOKS = struct.Struct("<QQ")


class Books(NamedTuple):
    """The accounting that is written in the same transaction as the blocks."""

    blocks: int
    """Blocks held."""

    commit: int
    """Number of the last commit."""


@contextmanager
def translated(name: str) -> Iterator[None]:
    """Raise kvtier's errors in place of LMDB's; the only place that knows both."""
    try:
        yield
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
        ConfigError: Too small for one block, not a directory, not writable, not kvtier's, written
            by a newer release, or in use.
        SpecMismatchError: It holds blocks of another size.
        TierUnavailableError: LMDB cannot open it, or its file is cut short.
    """

    def __init__(self, name: str, path: Path, *, capacity_bytes: int, block_bytes: int, layout: Layout) -> None:
        if capacity_bytes < block_bytes:
            raise ConfigError(f"{name}: {capacity_bytes} bytes hold no block of {block_bytes} bytes; give it more or 0")
        self.name = name
        self._path = path.expanduser()
        self._pid = os.getpid()
        self._closed = False
        self._writer = threading.Lock()
        self._readers = 0
        self._state = threading.Condition()
        """Guards ``_closed`` and ``_readers``."""
        _claim_directory(name, self._path)
        self._holder = _lock_directory(name, self._path)
        try:
            self._env = self._open(_map_bytes(capacity_bytes // block_bytes, layout))
            try:
                self._open_databases(block_bytes, layout)
                self._stretch()
            except BaseException:
                self._env.close()
                raise
        except BaseException:
            _unlock_directory(self._holder)
            raise

    @property
    def data(self) -> Path:
        """The data file."""
        return self._path / _DATA

    @property
    def last_page(self) -> int:
        """Number of the last page in use."""
        return int(self._env.info()["last_pgno"])

    @property
    def last_commit(self) -> int:
        """LMDB's number of the last transaction that is visible."""
        return int(self._env.info()["last_txnid"])

    @property
    def file_bytes(self) -> int:
        """Bytes the file system has allocated for the data file."""
        return (self._path / _DATA).stat().st_blocks * 512

    @property
    def free_bytes(self) -> int:
        """Bytes left on the file system for this user."""
        stat = os.statvfs(self._path)
        return stat.f_bavail * stat.f_frsize

    def check_open(self) -> None:
        """Refuse use after close, and in a forked child, whose copy of the map LMDB cannot protect."""
        if self._closed:
            raise TierClosedError(self.name, "used after close()")
        if os.getpid() != self._pid:
            raise TierClosedError(self.name, "used in a forked process; open a store of its own there")

    @contextmanager
    def reading(self, *, buffers: bool = True) -> Iterator[Any]:
        """A read transaction: a consistent view whose pages are neither reused nor unmapped before it ends.

        Args:
            buffers: Give views of the map that last as long as the transaction, instead of bytes;
                slower for what is small.
        """
        with self.held_open(), translated(self.name), self._env.begin(buffers=buffers) as txn:
            yield txn

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
        """One writer at a time, over several transactions."""
        with self._writer:
            self.check_open()
            yield

    @contextmanager
    def change(self, after: Books) -> Iterator[Any]:
        """A write transaction that ends with new books; the caller holds ``writing``."""
        with self._env.begin(write=True) as txn:
            yield txn
            txn.put(b"books", _BOOKS.pack(*after), db=self.meta)
        self.books = after

    def sync(self) -> None:
        """Everything committed reaches the medium."""
        self.check_open()
        with translated(self.name):
            self._env.sync(True)

    def close(self) -> None:
        """Close the environment and give the directory free; a second close does nothing.

        Waits for readers: unmapping the file under one would end the process.
        """
        if os.getpid() != self._pid:
            return  # before any lock: in a forked child one may be held by a thread left behind
        with self._writer, self._state:
            if self._closed:
                return
            self._closed = True
            self._state.wait_for(lambda: self._readers == 0)
            self._env.close()
            _unlock_directory(self._holder)

    def _open(self, map_bytes: int) -> Any:
        data = self._path / _DATA
        if data.exists():  # a map cut down to a smaller capacity would have no room to delete in
            map_bytes = max(map_bytes, data.stat().st_size)
        try:
            env = lmdb.open(
                str(self._path), map_size=map_bytes, max_dbs=4, mode=0o600, readahead=False, max_spare_txns=16
            )
        except (lmdb.InvalidError, lmdb.VersionMismatchError) as exc:
            raise ConfigError(
                f"{self.name}: {data} is not an LMDB file kvtier can read: {exc}; choose another directory"
            ) from exc
        except (lmdb.Error, OSError) as exc:
            raise TierUnavailableError(self.name, f"cannot open {data}: {exc}") from exc
        needed, size = (env.info()["last_pgno"] + 1) * PAGE_BYTES, data.stat().st_size
        if needed > size:  # reading the missing pages through the map would kill the process
            env.close()
            raise TierUnavailableError(
                self.name, f"{data} is cut short: {size} bytes, its pages need {needed}; move it away to start afresh"
            )
        return env

    def _stretch(self) -> None:
        """Give the file the length of its map; what was never written stays a hole and takes no space.

        LMDB does not write a page it took and gave back in one commit, so the file of a healthy
        environment may end before its last page. With this it cannot: a short file was cut.
        """
        map_bytes = self._env.info()["map_size"]
        if (self._path / _DATA).stat().st_size < map_bytes:
            with translated(self.name):
                os.truncate(self._path / _DATA, map_bytes)

    def _open_databases(self, block_bytes: int, layout: Layout) -> None:
        fresh = self._env.stat()["entries"] == 0
        if fresh:
            self._create(block_bytes, layout)
        try:
            self.meta = self._env.open_db(b"meta", create=False)
            with self._env.begin() as txn:
                about = json.loads(txn.get(b"format", db=self.meta, default=b"null"))
        except (lmdb.Error, ValueError, RecursionError):
            about = None
        if not isinstance(about, dict) or "format" not in about:
            raise ConfigError(
                f"{self.name}: {self._path} holds an LMDB environment that is not kvtier's; choose another directory"
            )
        self.layout = self._check_format(about, block_bytes, layout)
        try:
            self.index = self._env.open_db(b"index", create=False)
            self.slabs = self._env.open_db(b"slabs", create=False)
            self.places = self._env.open_db(b"places", create=False)
            with self._env.begin() as txn:
                self.books = Books(*_BOOKS.unpack(txn.get(b"books", db=self.meta, default=b"")))
        except (lmdb.Error, struct.error) as exc:
            raise TierUnavailableError(
                self.name, f"{self._path} is incomplete: {exc}; move it away to start afresh"
            ) from exc

    def _create(self, block_bytes: int, layout: Layout) -> None:
        """A new environment becomes kvtier's in one transaction, so a kill leaves it empty or whole."""
        about = {"format": FORMAT_VERSION, "block_bytes": block_bytes, **layout._asdict()}
        with translated(self.name), self._env.begin(write=True) as txn:
            meta = self._env.open_db(b"meta", txn=txn)
            self._env.open_db(b"index", txn=txn)
            self._env.open_db(b"slabs", txn=txn)
            self._env.open_db(b"places", txn=txn)
            txn.put(b"format", json.dumps(about).encode(), db=meta)
            txn.put(b"books", _BOOKS.pack(0, 0), db=meta)

    def _check_format(self, about: dict[str, int], block_bytes: int, layout: Layout) -> Layout:
        if about["format"] != FORMAT_VERSION:
            raise ConfigError(
                f"{self.name}: {self._path} has format {about['format']}, this kvtier reads {FORMAT_VERSION}; "
                "use the release that wrote it, or another directory"
            )
        sizes = {name: about.get(name) for name in ("block_bytes", *Layout._fields)}
        if not all(isinstance(size, int) and 0 < size < 2**32 for size in sizes.values()):
            raise ConfigError(f"{self.name}: {self._path} says of itself {about}; choose another directory")
        found = (about["block_bytes"], about["slot_bytes"])
        if found != (block_bytes, layout.slot_bytes):
            raise SpecMismatchError(
                f"{self.name}: {self._path} holds blocks of {found[0]} bytes in slots of {found[1]}, "
                f"expected {block_bytes} in {layout.slot_bytes}; "
                "another model, dtype or block_tokens wrote it: use one directory for each"
            )
        return Layout(about["slot_bytes"], about["slab_slots"])


def _map_bytes(num_blocks: int, layout: Layout) -> int:
    """Size of the map: address space, not disk.

    Whole slabs for the blocks; for their index entries several times what a half-full B-tree takes,
    because pages freed in one commit can be reused only after the commits that may still be read.
    """
    slabs = -(-num_blocks // layout.slab_slots)
    return slabs * layout.slab_bytes + 2048 * num_blocks + (32 << 20)


def _claim_directory(name: str, path: Path) -> None:
    try:
        if path.exists() and not path.is_dir():
            raise ConfigError(f"{name}: {path} is a file; the disk tier needs a directory")
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = {entry.name for entry in path.iterdir()}
    except OSError as exc:
        raise ConfigError(
            f"{name}: {path} cannot be used: {exc.strerror}; choose a directory this user can write to"
        ) from exc
    if not os.access(path, os.W_OK | os.X_OK):
        raise ConfigError(f"{name}: {path} is not writable; choose a directory this user can write to")
    if found - _OURS and _DATA not in found:
        stranger = min(found - _OURS)
        raise ConfigError(f"{name}: {path} is not kvtier's: it holds {stranger!r}; choose an empty directory")


def _lock_directory(name: str, path: Path) -> IO[str]:
    """Hold the directory for this process, or say who does."""
    try:
        holder = os.fdopen(os.open(path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600), "r+")
    except OSError as exc:
        raise ConfigError(f"{name}: {path / _LOCK} cannot be opened: {exc.strerror}; who made it?") from exc
    try:
        fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        owner = holder.read().strip() or "unknown"
        holder.close()
        raise ConfigError(f"{name}: {path} is in use by process {owner}; close that store first") from exc
    holder.truncate(0)
    holder.write(str(os.getpid()))
    holder.flush()
    return holder


def _unlock_directory(holder: IO[str]) -> None:
    """Let the next one in; explicitly, because a forked child has the same lock and may outlive us."""
    fcntl.flock(holder, fcntl.LOCK_UN)
    holder.close()
