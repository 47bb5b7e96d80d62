"""One opening of a disk tier's directory: index, slots and records of its data file.

A write, whoever else has the directory open:

    LMDB's write lock --- follow the journal --- take slots --- write records --- commit --- give the lock back
                          (slots that others        no reader older       index, books and
                           took or left)            than their drop       journal together

So the slots that two processes write are never the same, and a writer that dies leaves slots that
no entry names, which are free. Readers take no lock: a read transaction keeps what it sees from
being written over (``kvtier.tiers.slots``).
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from kvtier.errors import CorruptBlockError, TierError, TierFullError, TierUnavailableError
from kvtier.format import Bytes, header_bytes, record_bytes, seal, whole_pages
from kvtier.hashing import BlockHash, Label
from kvtier.listing import Listing
from kvtier.tiers.copying import Striper
from kvtier.tiers.entries import Entries, read_entries, slot_of
from kvtier.tiers.environment import Environment, translated
from kvtier.tiers.growth import Growth
from kvtier.tiers.journal import NO_SLOT, Commit, lines_since, quarantined
from kvtier.tiers.layout import layout_for
from kvtier.tiers.records import Records
from kvtier.tiers.slabs import Slabs, whole_pages_of
from kvtier.tiers.slots import Slots
from kvtier.tiers.structure import structural_problem

log = logging.getLogger("kvtier")

#: Longest that a writer waits for readers of dropped blocks, wherever they are, before it gives up.
READER_PATIENCE_S = 5.0

#: Slots that may be kept from being written because their bytes did not verify: a share of all, and at least some.
_QUARANTINE_SHARE, _QUARANTINE_LEAST = 64, 8


class Sizes(NamedTuple):
    """What is fixed about a tier's blocks and its file."""

    capacity_bytes: int
    block_bytes: int
    block_tokens: int
    min_free_bytes: int


class Volume:
    """An open directory.

    Args:
        name: The tier's name.
        path: The directory.
        sizes: Of the tier.
        striper: Threads to move records with.
        keep_cached: Write and read through the page cache instead of around it.
    """

    def __init__(self, name: str, path: Path, sizes: Sizes, striper: Striper, *, keep_cached: bool) -> None:
        self.name = name
        self._sizes = sizes
        self._header = header_bytes(sizes.block_tokens)
        self._striper = striper
        record = record_bytes(sizes.block_bytes, sizes.block_tokens)
        self.env = Environment(
            name,
            path,
            capacity_bytes=sizes.capacity_bytes,
            block_bytes=sizes.block_bytes,
            layout=layout_for(sizes.capacity_bytes // sizes.block_bytes, whole_pages(record)),
        )
        self.slots = Slots()
        self._suspects: dict[int, str] = {}
        """Slots whose bytes did not verify, and why, until their block is dropped."""
        self._num_quarantined = 0
        self._unwritable: dict[int, None] = {}
        """Slots whose last write was an I/O error, oldest first: others are taken in their place until a restart."""
        self._seen = 0
        """The last commit whose slots are in ``slots``."""
        with ExitStack() as undo:
            undo.callback(self.env.close)
            self.slabs = Slabs(self.env, self.env.layout, record, readers=striper.threads + 1, keep_cached=keep_cached)
            undo.callback(self.slabs.close)
            self.records = Records(self.slabs, striper, header=self._header, block_bytes=sizes.block_bytes)
            self._growth = Growth(self.env, self.slabs, sizes.min_free_bytes)
            self.opening: Listing | None = None
            """What ``listing`` would find, as it was read at opening; until it is asked for or changes."""
            self._stamp = self.env.directory.state().st_mtime_ns
            """When the file was last written by this process, by the file system's clock."""
            self.opening = self._take_stock()
            undo.pop_all()

    def trouble(self) -> str | None:
        """Why the file cannot be used as it is: somebody has removed it, cut it, or written to it."""
        if self.env.given_up is not None:
            return self.env.given_up
        lost = self.env.lost()
        if lost is not None:
            return lost
        if self.env.directory.state().st_mtime_ns == self._stamp or not self.env.try_writing():
            return None
        try:  # nobody of this process is writing
            return self._look_at_foreign_change()
        finally:
            self.env.done_trying()

    def _look_at_foreign_change(self) -> str | None:
        """Who wrote to the file? Another kvtier has a lock on it. Anybody else may have left anything."""
        now = self.env.directory.state().st_mtime_ns
        if now == self._stamp:
            return None
        with translated(self.name), self.env.directory.alone() as alone:  # or one who joins would write meanwhile
            problem = structural_problem(self.env.data) if alone else None
        if problem is None:  # records prove themselves when they are read
            self._stamp = now
            return None
        return f"{self.env.data} was damaged while it was open: {problem}"

    @property
    def seen(self) -> int:
        """Number of the last commit that is taken up."""
        return self._seen

    @property
    def room_blocks(self) -> int:
        """Blocks that can be held now: fewer than the capacity while the file cannot grow."""
        capacity = self._sizes.capacity_bytes // self._sizes.block_bytes
        return capacity if self.hindrance is None else min(capacity, self._usable_slots())

    @property
    def hindrance(self) -> str | None:
        """Why the file cannot grow; None if it may."""
        return self._growth.hindrance

    def places(self, txn: Any, keys: Sequence[BlockHash]) -> tuple[list[int], CorruptBlockError | None]:
        """Where each record lies, as far as the run is held, and what ends it if that is damage.

        Good until the transaction ends.
        """
        places: list[int] = []
        for key in keys:
            stored = txn.get(key, db=self.env.index)
            if stored is None:
                break
            slot = slot_of(stored)
            if slot is not None and slot >= self.slabs.num_slots:
                self.slabs.follow(txn)
            place = None if slot is None else self.slabs.place(slot)
            if place is None:
                return places, CorruptBlockError(key, "its place in the file is lost", "place")
            places.append(place)
        return places, None

    def suspect(self, key: BlockHash, reason: str) -> None:
        """A block did not verify: once it is dropped, its slot is not written again."""
        with suppress(TierError), self.env.reading() as txn:
            stored = txn.get(key, db=self.env.index)
            slot = None if stored is None else slot_of(stored)
            if slot is not None:
                self._suspects[slot] = reason

    def write(self, keys: Sequence[BlockHash], blocks: Sequence[torch.Tensor], labels: Sequence[Label]) -> None:
        """See ``Tier.write``; the arguments have been checked."""
        with self.env.writing():
            deadline = time.monotonic() + READER_PATIENCE_S
            while (missing := self._try_to_write(keys, blocks, labels)) is not None:
                if missing > 0:
                    self._grow(missing)
                elif time.monotonic() > deadline:
                    raise TierUnavailableError(
                        self.name, f"readers have held up the reuse of dropped blocks for {READER_PATIENCE_S} s"
                    )
                else:
                    self.env.forget_dead_readers()
                    time.sleep(0.0005)

    def remove(self, keys: Sequence[BlockHash]) -> int:
        """See ``Tier.delete``."""
        with self.env.writing():
            gone: list[int] = []
            with self._changing() as commit:
                found = {key: commit.get(key) for key in keys}
                slots = {key: slot_of(memoryview(entry)) for key, entry in found.items() if entry is not None}
                for key, slot in slots.items():
                    if slot is None or self.slabs.place(slot) is None or self._kept_back(commit, slot):
                        commit.drop(key, NO_SLOT)
                    else:
                        commit.drop(key, slot)
                        gone.append(slot)
                number = commit.id
            self.slots.leave(gone, number)
            return len(slots)

    def keep_places(self) -> None:
        """Note where new slabs lie, if that is not noted yet."""
        with self.env.writing():
            if self.slabs.has_unkept_places:
                with self.env.change() as commit:
                    self.slabs.keep_places(commit)
                self.slabs.places_kept()
                self._stamp = self.env.directory.state().st_mtime_ns

    def listing(self) -> Listing:
        """Everything held; the first time as it was read at opening, if nothing has changed since."""
        found, self.opening = self.opening, None
        return self.entries().listing if found is None else found

    def entries(self) -> Entries:
        """The whole index as columns."""
        with self.env.reading(buffers=False) as txn:
            return read_entries(txn.cursor(self.env.index), txn.stat(self.env.index)["entries"])

    def close(self) -> None:
        """Close the directory; a second close does nothing."""
        self.env.close()
        self.slabs.close()

    def _try_to_write(
        self, keys: Sequence[BlockHash], blocks: Sequence[torch.Tensor], labels: Sequence[Label]
    ) -> int | None:
        """Write in one transaction; None if done, else how many slots are missing: 0 if readers hold them up."""
        taken: list[int] = []
        number = 0
        try:
            with self._changing() as commit:
                news = _absent(commit, keys)
                self._check_room(commit, len(news))
                if len(news) > self.slots.spare:
                    return len(news) - self.slots.spare
                slots = self.slots.take(len(news), self.env.oldest_reader())
                if slots is None:
                    return 0
                taken, number = slots, commit.id
                self._fill(taken, [(keys[i], blocks[i], labels[i]) for i in news])
                for slot, i in zip(taken, news, strict=True):
                    commit.add(keys[i], slot, labels[i])
        except BaseException:
            if (
                taken and self.env.lost() is None and self.env.last_commit < number
            ):  # else it is not sure: nobody uses them until a restart
                self.slots.free(slot for slot in taken if slot not in self._unwritable)
                self._give_up_on_few()
            raise
        return None

    @contextmanager
    def _changing(self) -> Iterator[Commit]:
        """A transaction that has followed all others, and notes the places of new slabs."""
        try:
            with self.env.change() as commit:
                self._follow(commit)
                yield commit
                if commit.changed:
                    self.slabs.keep_places(commit)
        finally:
            self._stamp = self.env.directory.state().st_mtime_ns
        if commit.changed:
            self._seen = commit.number
            self.opening = None
            self.slabs.places_kept()

    def _follow(self, commit: Commit) -> None:
        """Take up what others have done to the slots since the last transaction of this process."""
        self.slabs.follow(commit.txn)
        for number in range(self.slots.num // self.slabs.layout.slab_slots, self.slabs.num_slabs):
            self.slots.extend((number + 1) * self.slabs.layout.slab_slots)
            self.slots.free(self.slabs.slots_of(number))
        if commit.before.commit == self._seen:
            return
        lines = lines_since(self.env, commit.txn, self._seen)
        if lines is None:
            found = read_entries(commit.txn.cursor(self.env.index), commit.txn.stat(self.env.index)["entries"])
            self._stock(found, commit.txn, commit.id - 1)
        for change in (change for line in lines or () for change in line):
            self._unwritable.pop(change.slot, None)
            if change.added:
                self.slots.occupy([change.slot])
            elif change.slot < self.slots.num:
                self.slots.leave([change.slot], commit.id - 1)
        self._seen = commit.before.commit

    def _take_stock(self) -> Listing:
        """Read the index: slots that no entry names are spare, entries that cannot be read are removed."""
        with self.env.reading(buffers=False) as txn:
            self._seen = self.env.books_in(txn).commit
            found = read_entries(txn.cursor(self.env.index), txn.stat(self.env.index)["entries"])
            self._stock(found, txn, txn.id())
        if found.damaged:
            log.warning("%s: %d index entries are damaged; their blocks are lost", self.name, len(found.damaged))
            with suppress(TierError):  # a disk that refuses can still be read
                self.remove([BlockHash(key) for key in found.damaged])
        return found.listing

    def _stock(self, found: Entries, txn: Any, commit: int) -> None:
        """Slots as the index says; what it does not name may still be read by somebody with an older snapshot."""
        bad = [slot for slot, _ in quarantined(self.env, txn)]
        self._num_quarantined = len(bad)
        self._unwritable.clear()
        self.slots = Slots()
        self.slots.extend(self.slabs.num_slots)
        self.slots.leave(self.slabs.unused(np.concatenate([found.slots, np.array(bad, np.uint32)])), commit)

    def _check_room(self, commit: Commit, num_new: int) -> None:
        capacity, used = commit.before.capacity_blocks, commit.before.blocks
        if used + num_new > capacity:
            raise TierFullError(
                self.name, f"{num_new} blocks do not fit: {capacity - used} of {capacity} places are free"
            )

    def _grow(self, missing: int) -> None:
        try:
            self._growth.add(missing)
        finally:
            self._stamp = self.env.directory.state().st_mtime_ns

    def _usable_slots(self) -> int:
        reachable = sum(len(self.slabs.slots_of(number)) for number in range(self.slabs.num_slabs))
        return reachable - self._num_quarantined - len(self._unwritable)

    def _most_lost(self) -> int:
        """Slots that may be kept from being written for one reason."""
        return max(_QUARANTINE_LEAST, self.slots.num // _QUARANTINE_SHARE)

    def _give_up_on_few(self) -> None:
        """A disk that writes nothing is not to use up all slots: the oldest failures are tried again."""
        while len(self._unwritable) > self._most_lost():
            slot = next(iter(self._unwritable))
            del self._unwritable[slot]
            self.slots.free([slot])

    def _kept_back(self, commit: Commit, slot: int) -> bool:
        """Whether a slot goes into quarantine instead of being written again."""
        reason = self._suspects.pop(slot, None)
        if reason is None or self._num_quarantined >= self._most_lost():
            return False
        commit.quarantine(slot, reason)
        self._num_quarantined += 1
        return True

    def _fill(self, slots: Sequence[int], news: Sequence[tuple[BlockHash, torch.Tensor, Label]]) -> None:
        """Write records to slots; returns when the medium has them, durable with the next commit."""

        def work(turns: Iterable[int]) -> None:
            for turn in turns:
                key, block, label = news[turn]
                buffer = self.slabs.buffers.take()
                try:
                    header, payload = buffer[: self._header], whole_pages_of(block, buffer[self._header :])
                    seal(header, payload[: self._sizes.block_bytes], key, label)
                    self._write_slot(slots[turn], [header, payload])
                finally:
                    self.slabs.buffers.give_back(buffer)

        self._striper.run(len(news), work, self._striper.threads)

    def _write_slot(self, slot: int, parts: Sequence[Bytes]) -> None:
        try:
            self.slabs.write(slot, parts)
        except OSError as exc:
            if exc.errno == errno.EIO:  # this place, perhaps; a full or read-only disk is not the place's fault
                self._unwritable[slot] = None
            raise


def _absent(commit: Commit, keys: Sequence[BlockHash]) -> list[int]:
    """Positions of the names that are not held, each name once."""
    first = {key: i for i, key in reversed(list(enumerate(keys)))}
    return sorted(i for key, i in first.items() if commit.get(key) is None)
