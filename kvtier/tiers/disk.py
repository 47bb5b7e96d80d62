"""Blocks on NVMe, in one memory-mapped LMDB environment.

Four databases share every transaction, so index and accounting cannot disagree:

    index    name -> entry         batch, slot and label: what a restart reads, without payloads
    slabs    number -> slots       where records lie; see ``kvtier.tiers.slabs``
    places   number -> offset      where in the file a slab lies
    meta     "format", "books"     what this environment is; how many blocks, and the last commit

A record is written to a free slot, directly to the medium, and its index entry is committed
afterwards. The sync of that commit covers the record as well, since both lie in one file, and
LMDB publishes the commit only after it. So a kill at any instant, or a power cut, leaves the
last committed state; several blocks share a commit to pay for the sync.

Records in the page cache are read through the map, where a copy runs at memory speed. Others are
read directly, as one queue of small requests (``kvtier.tiers.requests``). Every record is
verified before it is copied out.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import torch

from kvtier.errors import ConfigError, CorruptBlockError, TierError, TierFullError, TierUnavailableError
from kvtier.format import (
    Entry,
    check_label,
    header_bytes,
    pack_entry,
    record_bytes,
    seal,
    whole_pages,
)
from kvtier.hashing import BlockHash, Label
from kvtier.listing import Listing
from kvtier.spec import DEFAULT_BLOCK_TOKENS
from kvtier.tiers.base import Arrived, check_blocks, check_layers
from kvtier.tiers.copying import Striper
from kvtier.tiers.entries import Entries, read_entries, slot_of
from kvtier.tiers.environment import Books, Environment, translated
from kvtier.tiers.gpu_direct import GpuDirect, open_gpu_direct
from kvtier.tiers.layered import LayeredRead, Source, end_of, piece_bytes, whole_page_layers
from kvtier.tiers.layout import layout_for
from kvtier.tiers.records import WARM_LANES, Records
from kvtier.tiers.requests import Buffers
from kvtier.tiers.slabs import Slabs, whole_pages_of
from kvtier.tiers.slots import Slots

log = logging.getLogger("kvtier")


class LMDBTier:
    """A tier in one directory; see ``kvtier.tiers.base.Tier`` for the contract.

    ``read`` and ``write`` take CPU buffers; ``read`` also those that ``reaches`` says yes to.

    Args:
        name: Labels errors and metrics.
        path: The directory, made if absent. One process at a time.
        capacity_bytes: Payload bytes to hold; rounded down to whole blocks.
        block_bytes: Payload bytes of one block.
        block_tokens: Tokens of one block; sizes the record's header.
        threads: Requests in flight to a cold disk, at most.
        min_free_bytes: The file does not grow while the file system has less than this left.
        page_cache: ``"bypass"``: records are written and read around the page cache, which then
            holds none of them twice. ``"keep"``: through it, so that what was written or read
            lately is in memory while the kernel has room. Another process may bring them in all
            the same; then they are read from memory.
        gpu_direct: ``"auto"``: read into GPU memory straight from the drive, by GPUDirect Storage, where the machine
            offers it; the log says at opening whether it does. ``"off"``: by way of host memory. See docs/adr/0008.

    Raises:
        ConfigError: The directory cannot be used; see ``kvtier.tiers.environment``.
        SpecMismatchError: It holds blocks of another size.
    """

    durable = True
    any_device = False

    def __init__(
        self,
        name: str,
        path: str | os.PathLike[str],
        *,
        capacity_bytes: int,
        block_bytes: int,
        block_tokens: int = DEFAULT_BLOCK_TOKENS,
        threads: int = 16,
        min_free_bytes: int = 512 << 20,
        page_cache: Literal["bypass", "keep"] = "bypass",
        gpu_direct: Literal["off", "auto"] = "off",
    ) -> None:
        if page_cache not in {"bypass", "keep"}:
            raise ConfigError(f"{name}: page_cache must be 'bypass' or 'keep', got {page_cache!r}")
        if gpu_direct not in {"off", "auto"}:
            raise ConfigError(f"{name}: gpu_direct must be 'off' or 'auto', got {gpu_direct!r}")
        self.name = name
        self.block_bytes = block_bytes
        self.capacity_bytes = capacity_bytes // block_bytes * block_bytes
        self._header = header_bytes(block_tokens)
        self._min_free_bytes = min_free_bytes
        record = record_bytes(block_bytes, block_tokens)
        self._env = Environment(
            name,
            Path(path),
            capacity_bytes=capacity_bytes,
            block_bytes=block_bytes,
            layout=layout_for(capacity_bytes // block_bytes, whole_pages(record)),
        )
        try:
            self._slabs = Slabs(
                self._env, self._env.layout, record, readers=threads + 1, keep_cached=page_cache == "keep"
            )
            self._slots = Slots()
            self._opening: Listing | None = self._take_stock()
            """What ``scan`` would find, as it was read at opening; until it is asked for or changes."""
        except BaseException:
            self._env.close()
            raise
        self._striper = Striper(name, threads)
        self._pieces: dict[int, Buffers] = {}
        """Buffers for reads by layers, by their length."""
        self._records = Records(self._slabs, self._striper, header=self._header, block_bytes=block_bytes)
        hindrance = "gpu_direct is 'off'" if gpu_direct == "off" else None
        if hindrance is None and not self._slabs.direct:
            hindrance = "records go through the page cache; it takes page_cache='bypass' and O_DIRECT"
        self._gpu: GpuDirect | None = open_gpu_direct(name, self._env.data, self._records, hindrance)

    @property
    def used_bytes(self) -> int:
        """See ``Tier.used_bytes``."""
        return self._env.books.blocks * self.block_bytes

    @property
    def file_bytes(self) -> int:
        """Bytes the file system has allocated for the environment."""
        return self._env.file_bytes

    def contains(self, keys: Sequence[BlockHash]) -> int:
        """See ``Tier.contains``."""
        with self._env.reading() as txn:
            for i, key in enumerate(keys):
                if txn.get(key, db=self._env.index) is None:
                    return i
        return len(keys)

    def read(
        self, keys: Sequence[BlockHash], out: Sequence[torch.Tensor], labels: Sequence[Label] | None = None
    ) -> int:
        """See ``Tier.read``."""
        self._env.check_open()
        check_blocks(self.name, self.block_bytes, keys, out, labels)
        with self._env.held_open(), self._slots.reading():
            places, damaged = self._places(keys)
            source = self._gpu if self._gpu is not None and self._gpu.takes(out) else self._records
            ends = source.read(places, keys, out, labels)
        return end_of({len(places): damaged, **ends})

    def reaches(self, out: Sequence[torch.Tensor]) -> bool:
        """See ``DirectTier.reaches``."""
        return self._gpu is not None and self._gpu.reaches(out)

    def read_parts(
        self,
        keys: Sequence[BlockHash],
        out: Sequence[torch.Tensor],
        labels: Sequence[Label] | None,
        parts: Sequence[slice],
        arrived: Arrived,
    ) -> int:
        """See ``LayeredTier.read_parts``. Layers that are not whole pages arrive all at once."""
        self._env.check_open()
        check_blocks(self.name, self.block_bytes, keys, out, labels)
        check_layers(self.name, keys, out, parts)
        with self._env.held_open(), self._slots.reading():
            places, damaged = self._places(keys)
            if len(places) < len(keys) or not whole_page_layers(self.block_bytes, parts):
                count = self.read(keys, out, labels)
                for number in range(len(parts) if count == len(keys) else 0):
                    arrived(number, None)
                return count
            source = Source(self._slabs.file, places, [self._slabs.view(place) for place in places])
            span = piece_bytes(self._header, self.block_bytes, parts)
            if span not in self._pieces:
                self._pieces[span] = Buffers(span, self._striper.threads + 1)
            pieces = self._pieces[span]
            batch = LayeredRead(
                source, keys, out, labels, header=self._header, parts=parts, arrived=arrived, buffers=pieces
            )
            self._striper.run(batch.num_turns, batch.work, self._striper.threads if source.on_disk else WARM_LANES)
        return end_of({len(places): damaged, **batch.ends})

    def write(self, keys: Sequence[BlockHash], blocks: Sequence[torch.Tensor], labels: Sequence[Label]) -> None:
        """See ``Tier.write``."""
        self._env.check_open()
        check_blocks(self.name, self.block_bytes, keys, blocks, labels)
        for key, label in zip(keys, labels, strict=True):
            check_label(key, label, header=self._header)
        with self._env.writing():
            news = self._absent(keys)
            self._check_room(len(news))
            slots = self._claim(len(news))
            with self._returned_unless_committed(slots), translated(self.name):
                self._fill(slots, [(keys[i], blocks[i], labels[i]) for i in news])
                self._commit({keys[i]: (slot, labels[i]) for slot, i in zip(slots, news, strict=True)})

    def delete(self, keys: Sequence[BlockHash]) -> int:
        """See ``Tier.delete``."""
        self._env.check_open()
        with self._env.writing():
            return self._remove(keys)

    def scan(self) -> Listing:
        """See ``Tier.scan``. Reads the index only, never a payload, and the first time not even that."""
        self._env.check_open()
        listing, self._opening = self._opening, None
        return self._read_index().listing if listing is None else listing

    def flush(self) -> None:
        """See ``Tier.flush``."""
        with self._env.writing():
            if self._slabs.has_unkept_places:
                books = self._env.books
                self._change(Books(books.blocks, books.commit + 1), lambda _: None)
        self._env.sync()

    def close(self) -> None:
        """See ``Tier.close``. Waits for readers; in a forked child it does nothing."""
        self._env.close()
        if self._gpu is not None:
            self._gpu.close()
        self._striper.close()
        self._slabs.close()

    def _places(self, keys: Sequence[BlockHash]) -> tuple[list[int], CorruptBlockError | None]:
        """Where each record lies, as far as the run is held, and what ends it if that is damage."""
        places: list[int] = []
        with self._env.reading() as txn:
            for key in keys:
                stored = txn.get(key, db=self._env.index)
                if stored is None:
                    break
                slot = slot_of(stored)
                place = None if slot is None else self._slabs.place(slot)
                if place is None:
                    return places, CorruptBlockError(key, "its place in the file is lost")
                places.append(place)
        return places, None

    def _take_stock(self) -> Listing:
        """Read the index: slots that no entry names are free, entries that cannot be read are removed."""
        found = self._read_index()
        self._slots.add(self._slabs.unused(found.slots))
        if found.damaged:
            log.warning("%s: %d index entries are damaged; their blocks are lost", self.name, len(found.damaged))
            with suppress(TierError), self._env.writing():  # a disk that refuses can still be read
                self._remove([BlockHash(key) for key in found.damaged])
        return found.listing

    def _read_index(self) -> Entries:
        with self._env.reading(buffers=False) as txn:
            return read_entries(txn.cursor(self._env.index), txn.stat(self._env.index)["entries"])

    def _claim(self, count: int) -> list[int]:
        """Slots to write, in new slabs if there are too few."""
        while self._slots.spare < count:
            with translated(self.name):
                self._slots.add(self._slabs.grow())
        return self._slots.take(count)

    @contextmanager
    def _returned_unless_committed(self, slots: Sequence[int]) -> Iterator[None]:
        """Slots are free again if what is done with them fails, and surely left no commit.

        Where that is not sure they are used by nobody until the environment is opened again.
        """
        before = self._env.last_commit
        try:
            yield
        except BaseException:
            if self._env.last_commit == before:
                self._slots.add(slots)
            raise

    def _fill(self, slots: Sequence[int], news: Sequence[tuple[BlockHash, torch.Tensor, Label]]) -> None:
        """Write records to slots; returns when the medium has them, durable with the next commit."""

        def work(turns: Iterable[int]) -> None:
            for turn in turns:
                key, block, label = news[turn]
                buffer = self._slabs.buffers.take()
                try:
                    header, payload = buffer[: self._header], whole_pages_of(block, buffer[self._header :])
                    seal(header, payload[: self.block_bytes], key, label)
                    self._slabs.write(slots[turn], [header, payload])
                finally:
                    self._slabs.buffers.give_back(buffer)

        self._striper.run(len(news), work, self._striper.threads)

    def _change(self, after: Books, work: Callable[[Any], None]) -> None:
        """One transaction: some work, and the places of new slabs."""
        self._opening = None
        with translated(self.name), self._env.change(after) as txn:
            self._slabs.keep_places(txn)
            work(txn)
        self._slabs.places_kept()

    def _absent(self, keys: Sequence[BlockHash]) -> list[int]:
        """Positions of the names that are not held, each name once."""
        with self._env.reading() as txn:
            first = {key: i for i, key in reversed(list(enumerate(keys)))}
            return sorted(i for key, i in first.items() if txn.get(key, db=self._env.index) is None)

    def _check_room(self, num_new: int) -> None:
        capacity, used = self.capacity_bytes // self.block_bytes, self._env.books.blocks
        if used + num_new > capacity:
            raise TierFullError(
                self.name, f"{num_new} blocks do not fit: {capacity - used} of {capacity} places are free"
            )
        missing = max(0, num_new - self._slots.spare)
        growth = -(-missing // self._env.layout.slab_slots) * self._env.layout.slab_bytes
        free = self._env.free_bytes
        if growth > 0 and free - growth < self._min_free_bytes:
            raise TierUnavailableError(
                self.name,
                f"the disk has {free} bytes left and {self._min_free_bytes} must stay free; nothing was written",
            )

    def _commit(self, news: dict[BlockHash, tuple[int, Label]]) -> None:
        books = self._env.books
        after = Books(books.blocks + len(news), books.commit + 1)

        def work(txn: Any) -> None:
            for key, (slot, label) in news.items():
                txn.put(key, pack_entry(Entry(after.commit, slot, label)), db=self._env.index)

        if news:
            self._change(after, work)

    def _remove(self, keys: Sequence[BlockHash]) -> int:
        with self._env.reading() as txn:
            found = {key: txn.get(key, db=self._env.index) for key in keys}
            slots = {key: slot_of(entry) for key, entry in found.items() if entry is not None}
        if slots:
            books = self._env.books
            after = Books(books.blocks - len(slots), books.commit + 1)

            def work(txn: Any) -> None:
                for key in slots:
                    txn.delete(key, db=self._env.index)

            self._change(after, work)
            self._slots.leave(
                slot for slot in slots.values() if slot is not None and self._slabs.place(slot) is not None
            )
        return len(slots)
