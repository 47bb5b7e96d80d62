"""A store's directory as it is, whatever wrote it: its sizes, its index, its records.

    alone       nobody else has the directory open
      structure     every page of the B-trees is where it should be; the file is not opened for that
        read            sizes, books, index and slabs, in columns
            Source          one record after another, proven as it is read (``kvtier.doctor.copying``)

The order matters. LMDB trusts its file: opened on a damaged one, it can end the process. So the
structure is proven byte by byte first, while nobody can change it, and LMDB is asked only then.

All that the doctor knows of how the disk tier lays out its file is here and in
``kvtier.doctor.rebuilding``.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import lmdb
import numpy as np
from lmdb import verify as lmdb_verify
from numpy.typing import NDArray

from kvtier.errors import ConfigError, TierUnavailableError
from kvtier.format import ENTRY_HEAD, FORMAT_VERSION, PAGE_BYTES, Bytes, whole_pages
from kvtier.hashing import HASH_BYTES, BlockHash
from kvtier.listing import Listing
from kvtier.tiers.entries import read_entries
from kvtier.tiers.layout import Layout

DATA = "data.mdb"
SET_ASIDE = "data.mdb.damaged"
"""A damaged data file that is no longer used."""

REBUILT = "kvtier.rebuilt"
"""Where a new data file is made before it takes the place of the old one."""

_LOCK = "kvtier.lock"
_DATABASES = (b"meta", b"index", b"places", b"slabs")
_BOOKS = struct.Struct("<QQ")
_SLAB_HEADER = struct.Struct("<4sI16s")
_SLAB_MAGIC = b"KVTS"
_LARGE_VALUE_AT = 16  # LMDB's page header before it
_PLACE = struct.Struct("<Q16s")
_NUMBER = struct.Struct(">I")
_NAME_AT = slice(16, 16 + HASH_BYTES)


class Geometry(NamedTuple):
    """The sizes a data file was made with."""

    block_bytes: int
    """Payload bytes of one block."""

    layout: Layout

    @property
    def header(self) -> int:
        """Bytes of a record before its payload."""
        return self.layout.slot_bytes - whole_pages(self.block_bytes)

    @property
    def record_bytes(self) -> int:
        """Bytes of a whole record."""
        return self.header + self.block_bytes


@dataclass(frozen=True, slots=True)
class Held:
    """What the index and the books say. Nothing of it has been compared with a record."""

    data: Path
    geometry: Geometry
    blocks: int | None
    """Blocks by the books; None if the books cannot be read."""

    listing: Listing
    slots: NDArray[np.uint32]
    """Where the record of each row lies."""

    heads: NDArray[Any]
    """Of each row, what its entry begins with: ``kvtier.format.ENTRY_HEAD``."""

    damaged: list[bytes]
    """Keys of entries that cannot be read."""

    starts: list[int | None]
    """By slab, where its first slot lies; None if the slab cannot be found."""

    @property
    def num_slots(self) -> int:
        """Slots of all slabs, lost ones included."""
        return len(self.starts) * self.geometry.layout.slab_slots

    @property
    def file_bytes(self) -> int:
        """Bytes the file system has allocated for the data file."""
        return allocated(self.data)

    def place(self, row: int) -> int | None:
        """Offset of a row's record; None if it names no slot, or one of a slab that cannot be found."""
        number, at = divmod(int(self.slots[row]), self.geometry.layout.slab_slots)
        start = self.starts[number] if number < len(self.starts) else None
        return None if start is None else start + at * self.geometry.layout.slot_bytes

    def entry(self, row: int, slot: int) -> bytes:
        """A row's index entry as it is stored, with another slot."""
        head = self.heads[row : row + 1].copy()
        head["slot"] = slot
        return head.tobytes() + self.listing.label(row).tokens


def allocated(file: Path) -> int:
    """Bytes the file system has allocated for a file; 0 if there is none."""
    return file.stat().st_blocks * 512 if file.exists() else 0


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Hold a store's directory: while this lasts, no other process has it open.

    Raises:
        ConfigError: There is no store in it, or a process has it open; says which.
    """
    find(directory)
    try:
        lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as exc:
        raise ConfigError(
            f"{directory / _LOCK} cannot be opened: {exc.strerror}; run this as the store's user"
        ) from exc
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            owner = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
            raise ConfigError(f"{directory} is in use by process {owner}; close that store first") from exc
        os.truncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(lock)


def holder(directory: Path) -> str | None:
    """The process that has a store open; None if none has."""
    try:
        lock = os.open(directory / _LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
    finally:
        os.close(lock)
    return None


def find(directory: Path) -> None:
    """Be sure that there is a store in a directory.

    Raises:
        ConfigError: There is none.
    """
    if not directory.is_dir():
        raise ConfigError(f"{directory} is not a directory; name the one that the store was opened with")
    if not any((directory / name).is_file() for name in (DATA, SET_ASIDE)):
        raise ConfigError(f"{directory} holds no store: there is no {DATA} in it")


def structure(data: Path) -> list[str]:
    """What is wrong with the pages of an LMDB file; nothing of it is handed to LMDB.

    The caller sees to it that nobody changes the file meanwhile.

    Raises:
        TierUnavailableError: The file cannot be read.
    """
    try:
        problems: list[str] = lmdb_verify.verify(str(data), subdir=False)  # type: ignore[no-untyped-call]
    except lmdb_verify.VerifyError as exc:
        return [str(exc)]
    except (struct.error, ValueError, IndexError, OverflowError, RecursionError) as exc:
        return [f"its pages cannot be followed: {exc}"]
    except OSError as exc:
        raise TierUnavailableError("doctor", f"{data} cannot be read: {exc.strerror}") from exc
    return problems


def read(directory: Path, *, shared: bool = False) -> Held:
    """Sizes, books, index and slabs of a store whose structure has been proven.

    Args:
        directory: The store's.
        shared: Another process has it open; read what is committed at this moment.

    Raises:
        ConfigError: An LMDB file that is not kvtier's, or of another format.
        TierUnavailableError: It is kvtier's, and its sizes are missing or make no sense.
    """
    data = directory / DATA
    with _opened(directory, readonly=True, lock=shared) as env:
        meta, index, places, _ = _databases(env, data)
        with env.begin() as txn:
            geometry = _geometry(data, txn.get(b"format", db=meta, default=b""))
            books = txn.get(b"books", db=meta, default=b"")
            pairs = list(txn.cursor(index))
            kept = list(txn.cursor(places))
        last_page = int(env.info()["last_pgno"])
    found = read_entries(pairs, len(pairs))
    heads = b"".join(
        v[: ENTRY_HEAD.itemsize] for k, v in pairs if len(k) == HASH_BYTES and len(v) >= ENTRY_HEAD.itemsize
    )
    return Held(
        data=data,
        geometry=geometry,
        blocks=_BOOKS.unpack(books)[0] if len(books) == _BOOKS.size else None,
        listing=found.listing,
        slots=found.slots,
        heads=np.frombuffer(heads, ENTRY_HEAD),
        damaged=found.damaged,
        starts=_starts(data, kept, last_page, geometry.layout),
    )


def read_sound(directory: Path) -> Held:
    """Prove the structure, then ``read``.

    Raises:
        ConfigError: As for ``read``.
        TierUnavailableError: The structure is damaged, or as for ``read``.
    """
    data = directory / DATA
    problems = structure(data) if data.exists() else ["it is not there"]
    if problems:
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise TierUnavailableError(
            "doctor", f"{data} is damaged: {problems[0]}{more}; kvtier check --repair {directory} saves what is whole"
        )
    return read(directory)


def amend(directory: Path, remove: Sequence[bytes], blocks: int) -> None:
    """Take entries out of the index and set the books right, in one synced transaction.

    Args:
        directory: Held by the caller, see ``alone``; its structure proven.
        remove: Keys of index entries.
        blocks: Blocks held afterwards.
    """
    with _opened(directory, readonly=False, lock=True) as env:
        index, meta = env.open_db(b"index", create=False), env.open_db(b"meta", create=False)
        with env.begin(write=True) as txn:
            for key in remove:
                txn.delete(key, db=index)
            commit = _BOOKS.unpack(txn.get(b"books", db=meta))[1]
            txn.put(b"books", _BOOKS.pack(blocks, commit + 1), db=meta)
        env.sync(True)


@contextmanager
def _opened(directory: Path, *, readonly: bool, lock: bool) -> Iterator[Any]:
    data = directory / DATA
    try:
        env = lmdb.open(
            str(directory),
            map_size=data.stat().st_size,
            max_dbs=8,
            readonly=readonly,
            lock=lock,
            create=False,
            readahead=False,
        )
    except (lmdb.Error, OSError) as exc:
        raise TierUnavailableError("doctor", f"cannot open {data}: {exc}") from exc
    try:
        yield env
    except lmdb.Error as exc:
        raise TierUnavailableError("doctor", f"{data}: {exc}") from exc
    finally:
        env.close()


def _databases(env: Any, data: Path) -> list[Any]:
    found = []
    for name in _DATABASES:
        with suppress(lmdb.NotFoundError):
            found.append(env.open_db(name, create=False))
    if not found:
        raise ConfigError(f"{data} is an LMDB file that is not kvtier's")
    if len(found) < len(_DATABASES):  # one name changed is damage; nobody else has the others
        raise TierUnavailableError("doctor", f"{data}: {len(_DATABASES) - len(found)} of its databases are missing")
    return found


def _geometry(data: Path, stored: bytes) -> Geometry:
    try:
        about = json.loads(stored)
        version = int(about["format"])
        sizes = [int(about[name]) for name in ("block_bytes", "slot_bytes", "slab_slots")]
    except (ValueError, TypeError, KeyError) as exc:
        raise TierUnavailableError(
            "doctor", f"{data}: the record of its sizes cannot be read: {stored[:80]!r}"
        ) from exc
    if version != FORMAT_VERSION:
        raise ConfigError(f"{data} has format {version}, this kvtier reads {FORMAT_VERSION}")
    block_bytes, slot_bytes, slab_slots = sizes
    geometry = Geometry(block_bytes, Layout(slot_bytes, slab_slots))
    if min(sizes) < 1 or slot_bytes % PAGE_BYTES or geometry.header < PAGE_BYTES or slot_bytes > data.stat().st_size:
        raise TierUnavailableError("doctor", f"{data}: sizes that make no sense: {about}")
    return geometry


def _starts(data: Path, kept: Sequence[tuple[bytes, bytes]], last_page: int, layout: Layout) -> list[int | None]:
    """Where each slab begins: where it was noted, or else where its header is found."""
    starts: list[int | None] = []
    with data.open("rb", buffering=0) as file:

        def there(page: int, expected: tuple[bytes, int, bytes]) -> bool:
            found = os.pread(file.fileno(), _SLAB_HEADER.size, page * PAGE_BYTES + _LARGE_VALUE_AT)
            return len(found) == _SLAB_HEADER.size and _SLAB_HEADER.unpack(found) == expected

        for key, value in kept:
            if len(key) != _NUMBER.size or len(value) != _PLACE.size:
                starts.append(None)
                continue
            start, token = _PLACE.unpack(value)
            expected = (_SLAB_MAGIC, _NUMBER.unpack(key)[0], token)
            if start >= PAGE_BYTES and there(start // PAGE_BYTES - 1, expected):
                starts.append(start)
                continue
            last = last_page - layout.slab_bytes // PAGE_BYTES + 1
            page = next((page for page in range(last, 1, -1) if there(page, expected)), None)
            starts.append(None if page is None else (page + 1) * PAGE_BYTES)
    return starts


def own_name(record: Bytes) -> BlockHash:
    """The name that a record says it has."""
    return BlockHash(record[_NAME_AT].tobytes())


def sync_directory(directory: Path) -> None:
    """Names in a directory reach the medium."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
