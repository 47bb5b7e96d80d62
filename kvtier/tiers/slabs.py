"""Slots for records inside LMDB's data file, and reading and writing them there.

    slabs database   number -> | slab header | slot | slot | ... | slot |     one value, written once
    data.mdb            ... B-tree pages ... |############################| ... B-tree pages ...
                                                  ^ a page boundary; never moves

LMDB keeps a large value on a run of pages of its own, which it neither moves nor looks at until the
value changes. A slab is such a value, of zeros, that never changes as far as LMDB knows; its
slots are written and read in the file itself, with O_DIRECT if the file system has it. So a record
is written once, straight from memory to the medium: no copy into LMDB's dirty pages, none into
the page cache, no search for a run of free pages, no fragments.

What makes that safe is in docs/format.md. Where a slab lies is found after the commit that made it,
by a header with a random number in it, and looked at again whenever the environment is opened:
a slot is never written unless that header stands before it.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kvtier.errors import TierUnavailableError
from kvtier.format import PAGE_BYTES, Bytes
from kvtier.tiers.environment import Environment
from kvtier.tiers.journal import Commit
from kvtier.tiers.layout import Layout
from kvtier.tiers.requests import Buffers, Job, Reading

_PAGE_HEADER_BYTES = 16  # LMDB's, before a large value
_HEADER = struct.Struct("<4sI16sQ")
_MAGIC = b"KVTS"
_PLACE = struct.Struct("<Q16s")
_NUMBER = struct.Struct(">I")  # big-endian, so that LMDB keeps them in order

_LIBC = ctypes.CDLL(None)
_LIBC.mincore.argtypes = (ctypes.c_size_t, ctypes.c_size_t, ctypes.POINTER(ctypes.c_ubyte))


class Slabs:
    """The slots of one environment.

    Args:
        env: The environment.
        layout: As the environment was made with.
        record_bytes: Length of a record.
        readers: Records on their way at a time; a buffer for each is made and touched now.
        keep_cached: Write and read through the page cache instead of around it.
    """

    def __init__(self, env: Environment, layout: Layout, record_bytes: int, *, readers: int, keep_cached: bool) -> None:
        self.layout = layout
        self._env = env
        self._record_bytes = record_bytes
        self._lock = threading.Lock()
        self._following = threading.Lock()
        self.buffers = Buffers(layout.slot_bytes, readers)
        self._starts: list[int | None] = []
        """By slab, where its first slot lies; None if it cannot be found."""
        self._unwritten: dict[int, bytes] = {}
        """Places found and not yet kept in the environment."""
        self._plain = os.open(env.data, os.O_RDWR | os.O_CLOEXEC)
        os.posix_fadvise(self._plain, 0, 0, os.POSIX_FADV_RANDOM)
        self._files = [self._plain]
        self._direct: int | None = None
        self._seen: Bytes = np.empty(0, np.uint8)
        self._base = 0
        """Where the map of the whole file begins."""
        try:
            if not keep_cached and (direct := _open_direct(env)) is not None:
                self._direct = direct
                self._files.append(direct)
            data = mmap.mmap(self._plain, 0, prot=mmap.PROT_READ)
            data.madvise(mmap.MADV_RANDOM)
            self._seen = np.frombuffer(data, np.uint8)
            self._base = int(self._seen.ctypes.data)
            env.guard.watch(self._base, len(self._seen))
            with env.reading() as txn:
                self.follow(txn)
        except BaseException:
            self.close()
            raise

    @property
    def direct(self) -> bool:
        """Whether the page cache is passed by."""
        return self._direct is not None

    @property
    def file(self) -> int:
        """The data file, opened around the page cache unless it is to be used."""
        return self._plain if self._direct is None else self._direct

    @property
    def num_slots(self) -> int:
        """Slots of all slabs."""
        return len(self._starts) * self.layout.slab_slots

    def unused(self, used: NDArray[np.uint32]) -> list[int]:
        """Every slot that can be reached and is not among those used, in order."""
        reachable = np.array([start is not None for start in self._starts], np.bool_)
        free = np.repeat(reachable, self.layout.slab_slots)
        free[used[used < len(free)]] = False
        slots: list[int] = np.flatnonzero(free).tolist()
        return slots

    def place(self, slot: int) -> int | None:
        """Offset of a slot in the file; None if there is no such slot, or its slab is damaged."""
        number, at = divmod(slot, self.layout.slab_slots)
        start = self._starts[number] if number < len(self._starts) else None
        return None if start is None else start + at * self.layout.slot_bytes

    def grow(self) -> None:
        """Add a slab. The caller holds the environment's ``writing``, and no transaction.

        Raises:
            TierFullError: The map has no room for it.
            TierUnavailableError: It was written and cannot be found, so LMDB's file is not as expected.
        """
        token, value = os.urandom(16), np.zeros(self.layout.slab_bytes - _PAGE_HEADER_BYTES, np.uint8)
        with self._env.change() as commit:
            self.follow(commit.txn)
            number = len(self._starts)
            _HEADER.pack_into(value.data, 0, _MAGIC, number, token, self.layout.slab_bytes)
            commit.put(_NUMBER.pack(number), value.data, self._env.slabs)
            commit.put(_NUMBER.pack(number), _PLACE.pack(0, token), self._env.places)
        start = self._search(number, token)
        if start is None:
            raise TierUnavailableError(self._env.name, "LMDB did not keep a large value on pages of its own")
        with self._following:
            if len(self._starts) == number:  # a reader may have followed meanwhile
                self._starts.append(start)
        if self._direct is not None:
            os.posix_fadvise(self._plain, start, self.layout.slab_bytes - PAGE_BYTES, os.POSIX_FADV_DONTNEED)

    def follow(self, txn: Any) -> None:
        """Take up slabs that other processes have added."""
        with self._following:
            while (kept := txn.get(_NUMBER.pack(len(self._starts)), db=self._env.places)) is not None:
                number = len(self._starts)
                start, token = _PLACE.unpack(bytes(kept))
                there = start and self._begins_at(start - PAGE_BYTES, number, token)
                self._starts.append(start if there else self._search(number, token))

    def slots_of(self, number: int) -> range:
        """The slots of a slab, if it can be found; else none."""
        count = self.layout.slab_slots if self._starts[number] is not None else 0
        return range(number * self.layout.slab_slots, number * self.layout.slab_slots + count)

    @property
    def num_slabs(self) -> int:
        """Slabs known, those that cannot be found included."""
        return len(self._starts)

    def keep_places(self, commit: Commit) -> None:
        """Write places that are not kept yet along with another change."""
        for number, place in self._unwritten.items():
            commit.put(_NUMBER.pack(number), place, self._env.places)

    def places_kept(self) -> None:
        """That change is committed."""
        self._unwritten.clear()

    @property
    def has_unkept_places(self) -> bool:
        """Whether a slab would have to be searched for if the environment were opened now."""
        return bool(self._unwritten)

    def write(self, slot: int, parts: Sequence[Bytes]) -> None:
        """Write a slot: header and payload, page-aligned and whole pages if ``direct``.

        Raises:
            OSError: The medium refused.
        """
        place = self.place(slot)
        assert place is not None
        total = sum(len(part) for part in parts)
        if os.pwritev(self.file, [part.data for part in parts], place) < total:
            raise OSError(f"short write of {total} bytes at {place}")

    def answers(self) -> bool:
        """Whether the medium still reads anything: the first page of the file."""
        buffer = self.buffers.take()
        try:
            os.preadv(self.file, [buffer[:PAGE_BYTES].data], 0)
        except OSError:
            return False
        finally:
            self.buffers.give_back(buffer)
        return True

    def view(self, place: int) -> Bytes | None:
        """A record in memory, seen through the map; None if it is on disk.

        By mincore of its last page, since it is read front to back; asking for every page takes
        longer. A read that may not wait (``RWF_NOWAIT``) answers too, but starts read-ahead.
        """
        end = place + self._record_bytes
        answer = ctypes.c_ubyte()
        if end > len(self._seen) or _LIBC.mincore(self._base + (end - 1) // PAGE_BYTES * PAGE_BYTES, 1, answer) != 0:
            return None
        return self._seen[place:end] if answer.value & 1 else None

    def job(self, place: int) -> Job:
        """A record in memory, or what it takes to read it from the file: as many requests as it has."""
        seen = self.view(place)
        return Reading(place, self._record_bytes) if seen is None else seen

    def carry_out(self, reading: Reading, at: int) -> bool:
        """One request of a record; True if it was the last one missing."""
        return reading.carry_out(at, self.file, self.buffers, self._lock)

    def close(self) -> None:
        """Close the file; a second close does nothing. The map goes with the last view of it."""
        while self._files:
            os.close(self._files.pop())
        self._env.guard.release(self._base)
        self._seen = np.empty(0, np.uint8)

    def _search(self, number: int, token: bytes) -> int | None:
        """Find a slab by its header, newest pages first: it was made last, if it is not known."""
        last = self._env.last_page - self.layout.slab_bytes // PAGE_BYTES + 1
        for page in range(last, 1, -1):
            if self._begins_at(page * PAGE_BYTES, number, token):
                start = (page + 1) * PAGE_BYTES
                self._unwritten[number] = _PLACE.pack(start, token)
                return start
        return None

    def _begins_at(self, page: int, number: int, token: bytes) -> bool:
        """Whether a slab's header is there, and says that it is as long as this layout's slabs are."""
        found = os.pread(self._plain, _HEADER.size, page + _PAGE_HEADER_BYTES)
        wanted = (_MAGIC, number, token, self.layout.slab_bytes)
        return len(found) == _HEADER.size and _HEADER.unpack(found) == wanted


def whole_pages_of(block: torch.Tensor, spare: Bytes) -> Bytes:
    """A block as whole pages: where it lies if that will do for a direct write, else copied to ``spare``."""
    size = block.numel()
    if block.is_contiguous() and size == len(spare) and block.data_ptr() % PAGE_BYTES == 0:
        there: Bytes = block.numpy().reshape(-1)
        return there
    np.copyto(spare[:size].reshape(block.shape), block.numpy())
    spare[size:] = 0
    return spare


def _open_direct(env: Environment) -> int | None:
    flag = getattr(os, "O_DIRECT", 0)
    if not flag:
        return None
    try:
        file = os.open(env.data, os.O_RDWR | os.O_CLOEXEC | flag)
    except OSError as exc:
        if exc.errno in {errno.EMFILE, errno.ENFILE}:
            raise
        return None  # the file system does not do it; the page cache does everything
    try:
        os.preadv(file, [Buffers(PAGE_BYTES, 1).take().data], 0)
    except OSError:  # it said it would, and does not
        os.close(file)
        return None
    return file
