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

import json
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
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
from kvtier.tiers.about import DATABASES
from kvtier.tiers.directory import DAMAGED, DATA, Directory
from kvtier.tiers.entries import read_entries
from kvtier.tiers.journal import BOOKS, Books
from kvtier.tiers.layout import Layout
from kvtier.tiers.mapguard import MapGuard
from kvtier.tiers.structure import structural_problem

REBUILT = "kvtier.rebuilt"
"""Where a new data file is made before it takes the place of the old one."""

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
    books: Books | None
    """None if they cannot be read."""

    namespaces: dict[bytes, dict[str, Any]]
    """What is known of each, by its root."""

    num_quarantined: int
    """Slots that are not written any more."""

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
    """Hold a store's directory: while this lasts, no other process has it open or can open it.

    Raises:
        ConfigError: There is no store in it, or a process has it open; says which.
    """
    find(directory)
    its = Directory("doctor", directory)
    with its.opening():
        its.enter()
        free = its.exclusive()
    try:
        if not free:
            raise ConfigError(f"{directory} is in use by process {holder(directory)}; close that store first")
        yield
    finally:
        its.leave()


def holder(directory: Path) -> str | None:
    """The processes that have a store open, by their numbers; None if none has, or that cannot be told."""
    try:
        state = (directory / DATA).stat()
        locks = Path("/proc/locks").read_text(encoding="ascii")
    except OSError:
        return None
    file = f"{os.major(state.st_dev):02x}:{os.minor(state.st_dev):02x}:{state.st_ino}"
    lines = (line.split() for line in locks.splitlines())
    found = {line[4] for line in lines if "FLOCK" in line and "->" not in line and line[5] == file}
    return ", ".join(sorted(found, key=int)) or None


@contextmanager
def turn(directory: Path) -> Iterator[None]:
    """While this lasts, nobody is between finding the data file and locking it, so it may be replaced."""
    with Directory("doctor", directory).opening():
        yield


def find(directory: Path) -> None:
    """Be sure that there is a store in a directory.

    Raises:
        ConfigError: There is none.
    """
    if not directory.is_dir():
        raise ConfigError(f"{directory} is not a directory; name the one that the store was opened with")
    if not (holds_data(directory) or (directory / DAMAGED).is_file()):
        raise ConfigError(f"{directory} holds no store: there is no {DATA} in it")


def holds_data(directory: Path) -> bool:
    """Whether there is a data file, and something in it."""
    data = directory / DATA
    return data.is_file() and data.stat().st_size > 0


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
        its = _databases(env, data)
        with env.begin() as txn:
            geometry = _geometry(data, txn.get(b"format", db=its["meta"], default=b""))
            books = txn.get(b"books", db=its["meta"], default=b"")
            pairs = list(txn.cursor(its["index"]))
            kept = list(txn.cursor(its["places"]))
            namespaces = list(txn.cursor(its["namespaces"]))
            num_quarantined = txn.stat(its["quarantine"])["entries"]
        last_page = int(env.info()["last_pgno"])
    found = read_entries(pairs, len(pairs))
    heads = b"".join(
        v[: ENTRY_HEAD.itemsize] for k, v in pairs if len(k) == HASH_BYTES and len(v) >= ENTRY_HEAD.itemsize
    )
    return Held(
        data=data,
        geometry=geometry,
        books=Books(*BOOKS.unpack(books)) if len(books) == BOOKS.size else None,
        namespaces={bytes(root): about for root, value in namespaces if (about := _about(value))},
        num_quarantined=num_quarantined,
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
    problem = structural_problem(data) if holds_data(directory) else "it is not there"
    if problem is not None:
        raise TierUnavailableError(
            "doctor", f"{data} is damaged: {problem}; kvtier check --repair {directory} saves what is whole"
        )
    return read(directory)


def note_namespaces(directory: Path, known: Mapping[BlockHash, Mapping[str, Any] | None]) -> None:
    """Note what is known of namespaces, where nothing is noted yet.

    Args:
        directory: Held by the caller, see ``alone``; its structure proven.
        known: By root.
    """
    with _opened(directory, readonly=False, lock=True) as env:
        namespaces = env.open_db(b"namespaces", create=False)
        with env.begin(write=True) as txn:
            for root, about in known.items():
                if about is not None:
                    txn.put(root, json.dumps(about).encode(), db=namespaces, overwrite=False)


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
            books = Books(*BOOKS.unpack(txn.get(b"books", db=meta)))
            txn.put(b"books", BOOKS.pack(*books._replace(blocks=blocks, commit=books.commit + 1)), db=meta)
        env.sync(True)


@contextmanager
def _opened(directory: Path, *, readonly: bool, lock: bool) -> Iterator[Any]:
    data = directory / DATA
    try:
        env = lmdb.open(
            str(directory),
            map_size=data.stat().st_size,
            max_dbs=len(DATABASES),
            readonly=readonly,
            lock=lock,
            create=False,
            readahead=False,
            mode=0o600,
        )
    except (lmdb.Error, OSError) as exc:
        raise TierUnavailableError("doctor", f"cannot open {data}: {exc}") from exc
    guard = MapGuard()
    guard.watch_maps_of(data)
    try:
        yield env
    except lmdb.Error as exc:
        raise TierUnavailableError("doctor", f"{data}: {exc}") from exc
    finally:
        guard.release()
        env.close()
    if guard.hit:
        raise TierUnavailableError(
            "doctor",
            f"{data}: a page could not be read, so what was found is worth nothing; if nobody has cut the file "
            "meanwhile, the drive fails: copy what can be read of it and look at the copy",
        )


def _databases(env: Any, data: Path) -> dict[str, Any]:
    found = {}
    for name in DATABASES:
        with suppress(lmdb.NotFoundError):
            found[name] = env.open_db(name.encode(), create=False)
    if not found:
        raise ConfigError(f"{data} is an LMDB file that is not kvtier's")
    if "meta" in found:  # asked first, because a file of another format has other databases
        with env.begin() as txn:
            version = _about(txn.get(b"format", db=found["meta"], default=b"")).get("format", FORMAT_VERSION)
        if version != FORMAT_VERSION:
            raise ConfigError(f"{data} has format {version}, this kvtier reads {FORMAT_VERSION}")
    if len(found) < len(DATABASES):  # one name changed is damage; nobody else has the others
        raise TierUnavailableError("doctor", f"{data}: {len(DATABASES) - len(found)} of its databases are missing")
    return found


def _about(stored: bytes) -> dict[str, Any]:
    """A JSON object; empty if it cannot be read."""
    try:
        found = json.loads(stored)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _geometry(data: Path, stored: bytes) -> Geometry:
    about = _about(stored)
    sizes: list[Any] = [about.get(name) for name in ("format", "block_bytes", "slot_bytes", "slab_slots")]
    if all(isinstance(size, int) and size > 0 for size in sizes):
        _, block_bytes, slot_bytes, slab_slots = sizes
        geometry = Geometry(block_bytes, Layout(slot_bytes, slab_slots))
        fits = slot_bytes % PAGE_BYTES == 0 and slot_bytes <= data.stat().st_size
        if fits and geometry.header >= PAGE_BYTES:
            return geometry
    raise TierUnavailableError("doctor", f"{data}: its sizes make no sense: {stored[:120]!r}")


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
