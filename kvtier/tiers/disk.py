"""Blocks on NVMe, in one memory-mapped LMDB environment.

Several databases share every transaction, so index and accounting cannot disagree:

    index    name -> entry         commit, slot, time and label: what a restart reads, without payloads
    slabs    number -> slots       where records lie; see ``kvtier.tiers.slabs``
    places   number -> offset      where in the file a slab lies
    meta     "format", "books"     what this environment is; how many blocks, and the last commit
    journal  commit -> changes     what other processes follow; see ``kvtier.tiers.journal``

A record is written to a free slot, directly to the medium, and its index entry is committed
afterwards. The sync of that commit covers the record as well, since both lie in one file, and
LMDB publishes the commit only after it. So a kill at any instant, or a power cut, leaves the
last committed state; several blocks share a commit to pay for the sync.

Records in the page cache are read through the map, where a copy runs at memory speed. Others are
read directly, as one queue of small requests (``kvtier.tiers.requests``). Every record is
verified, and it is memory of this process that is, not the map.

A file may be cut, removed or damaged under the open tier. So it is looked at before every call, and pages that
go meanwhile are zeros (``kvtier.tiers.mapguard``). What is found wrong makes the tier unavailable, and the next
call opens the directory anew, as a restart would (``_mend``).
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from kvtier.errors import (
    ConfigError,
    CorruptBlockError,
    KVTierError,
    TierClosedError,
    TierError,
    TierUnavailableError,
)
from kvtier.format import check_label, header_bytes
from kvtier.hashing import BlockHash, Label, Namespace
from kvtier.listing import Listing
from kvtier.spec import DEFAULT_BLOCK_TOKENS
from kvtier.tiers.base import Arrived, Namespaced, News, check_blocks, check_layers
from kvtier.tiers.copying import Striper
from kvtier.tiers.environment import translated
from kvtier.tiers.gpu_direct import GpuDirect, open_gpu_direct
from kvtier.tiers.journal import followed
from kvtier.tiers.layered import LayeredRead, Source, end_of, piece_bytes, whole_page_layers
from kvtier.tiers.records import WARM_LANES
from kvtier.tiers.requests import Buffers
from kvtier.tiers.volume import Sizes, Volume

log = logging.getLogger("kvtier")


class LMDBTier:
    """A tier in one directory; see ``kvtier.tiers.base.Tier`` for the contract.

    ``read`` and ``write`` take CPU buffers; ``read`` also those that ``reaches`` says yes to.

    Args:
        name: Labels errors and metrics.
        path: The directory, made if absent. Several processes of one host may have it open, with equal sizes.
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
        self._pid = os.getpid()
        self._striper = Striper(name, threads)
        self._pieces: dict[int, Buffers] = {}
        """Buffers for reads by layers, by their length."""
        sizes = Sizes(capacity_bytes, block_bytes, block_tokens, min_free_bytes)
        self._open_volume = partial(Volume, name, Path(path), sizes, self._striper, keep_cached=page_cache == "keep")
        self._wants_gpu = gpu_direct == "auto"
        self._closed = False
        self._mending = threading.Lock()
        self._broken: str | None = None
        """Why the volume must be opened anew before it can be used."""
        self._known: list[Namespace] = []
        self._told = _Told()
        try:
            with translated(name):
                self._volume = self._open_volume()
        except BaseException:
            self._striper.close()
            raise
        self._gpu = self._open_gpu()
        self._told.commit, self._told.last_commit = self._volume.seen, self._volume.env.last_commit
        self._told.room_blocks = self._volume.room_blocks

    @property
    def used_bytes(self) -> int:
        """See ``Tier.used_bytes``: of all processes together."""
        with suppress(TierError), self._at_work() as volume:
            self._told.used_blocks = volume.env.books.blocks
        return self._told.used_blocks * self.block_bytes

    @property
    def file_bytes(self) -> int:
        """Bytes the file system has allocated for the environment."""
        return self._volume.env.file_bytes

    @property
    def shared(self) -> bool:
        """See ``SharedTier.shared``."""
        return not self._volume.env.alone

    @property
    def hindrance(self) -> str | None:
        """See ``SharedTier.hindrance``."""
        return self._broken or self._volume.hindrance

    def contains(self, keys: Sequence[BlockHash]) -> int:
        """See ``Tier.contains``."""
        with self._at_work() as volume, volume.env.reading() as txn:
            for i, key in enumerate(keys):
                if txn.get(key, db=volume.env.index) is None:
                    return i
        return len(keys)

    def read(
        self, keys: Sequence[BlockHash], out: Sequence[torch.Tensor], labels: Sequence[Label] | None = None
    ) -> int:
        """See ``Tier.read``."""
        check_blocks(self.name, self.block_bytes, keys, out, labels)
        with self._at_work() as volume, volume.env.reading() as txn:
            places, damaged = volume.places(txn, keys)
            source = self._gpu if self._gpu is not None and self._gpu.takes(out) else volume.records
            ends = source.read(places, keys, out, labels)
            return self._end(volume, {len(places): damaged, **ends})

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
        check_blocks(self.name, self.block_bytes, keys, out, labels)
        check_layers(self.name, keys, out, parts)
        with self._at_work() as volume, volume.env.reading() as txn:
            places, damaged = volume.places(txn, keys)
            if len(places) == len(keys) and whole_page_layers(self.block_bytes, parts):
                ends = self._read_layers(volume, places, keys, out, labels, parts, arrived)
                return self._end(volume, {len(places): damaged, **ends})
        count = self.read(keys, out, labels)
        for number in range(len(parts) if count == len(keys) else 0):
            arrived(number, None)
        return count

    def write(self, keys: Sequence[BlockHash], blocks: Sequence[torch.Tensor], labels: Sequence[Label]) -> None:
        """See ``Tier.write``."""
        check_blocks(self.name, self.block_bytes, keys, blocks, labels)
        for key, label in zip(keys, labels, strict=True):
            check_label(key, label, header=self._header)
        with self._at_work() as volume:
            volume.write(keys, blocks, labels)

    def delete(self, keys: Sequence[BlockHash]) -> int:
        """See ``Tier.delete``."""
        try:
            with self._at_work() as volume:
                return volume.remove(keys)
        except TierError:
            self._told.everything = False  # what should be gone is still there
            raise

    def scan(self) -> Listing:
        """See ``Tier.scan``. Reads the index only, never a payload, and the first time not even that."""
        with self._at_work() as volume:
            return volume.listing()

    def news(self) -> News | None:
        """See ``SharedTier.news``."""
        told = self._told
        with self._at_work() as volume, told.lock:
            room, last = volume.room_blocks, volume.env.last_commit
            if told.everything and (room, last) == (told.room_blocks, told.last_commit):
                return None
            found = listing = None
            everything, told.everything = told.everything, True  # first: a call that fails meanwhile has a say
            anew, told.anew = told.anew, False
            try:
                if everything:
                    told.commit, found = followed(volume.env, told.commit)
                if found is None:
                    told.commit, listing = volume.env.books.commit, volume.listing()
            except BaseException:
                told.everything, told.anew = False, told.anew or anew
                raise
            told.room_blocks, told.last_commit = room, last
        if found is None:
            return News((), (), listing, room, anew)
        return News(found.added, found.dropped, None, room)

    def introduce(self, namespace: Namespace) -> list[Namespaced]:
        """See ``SharedTier.introduce``."""
        if namespace not in self._known:
            self._known.append(namespace)
        with self._at_work() as volume:
            found = volume.env.introduce(namespace.root, namespace.record())
        return [Namespaced(BlockHash(root), record) for root, record in found.items() if root != namespace.root]

    def flush(self) -> None:
        """See ``Tier.flush``."""
        with self._at_work() as volume:
            volume.keep_places()
            volume.env.sync()

    def close(self) -> None:
        """See ``Tier.close``. Waits for readers; in a forked child it does nothing."""
        if os.getpid() != self._pid:
            return  # before any lock: in a forked child one may be held by a thread left behind
        with self._mending:
            self._closed = True
            self._close_volume()
            self._striper.close()

    def _read_layers(  # noqa: PLR0917  (what ``read_parts`` was given)
        self,
        volume: Volume,
        places: Sequence[int],
        keys: Sequence[BlockHash],
        out: Sequence[torch.Tensor],
        labels: Sequence[Label] | None,
        parts: Sequence[slice],
        arrived: Arrived,
    ) -> dict[int, CorruptBlockError]:
        """Read records layer by layer; those that are not good, by number, and why."""
        source = Source(volume.slabs.file, places, [volume.slabs.view(place) for place in places])
        span = piece_bytes(self._header, self.block_bytes, parts)
        if span not in self._pieces:
            self._pieces[span] = Buffers(span, self._striper.threads + 1)
        batch = LayeredRead(
            source, keys, out, labels, header=self._header, parts=parts, arrived=arrived, buffers=self._pieces[span]
        )
        self._striper.run(batch.num_turns, batch.work, self._striper.threads if source.on_disk else WARM_LANES)
        return batch.ends

    @contextmanager
    def _at_work(self) -> Iterator[Volume]:
        """The open volume, if it can be used; a file that was removed, cut or damaged is opened anew first.

        Raises:
            TierClosedError: The tier is closed, or this is a forked child.
            TierUnavailableError: The file cannot be used.
        """
        if self._closed:
            raise TierClosedError(self.name, "used after close()")
        if os.getpid() != self._pid:
            raise TierClosedError(self.name, "used in a forked process; open a store of its own there")
        if self._broken is not None:
            self._mend()
        volume = self._volume
        try:
            with volume.env.held_open(), translated(self.name):
                problem = volume.trouble()
            if problem is not None:
                log.error("%s: %s; it is opened anew with the next call", self.name, problem)
                self._broken = problem
                raise TierUnavailableError(self.name, problem)
            with translated(self.name):
                yield volume
        except TierClosedError as exc:
            if self._closed:
                raise
            raise TierUnavailableError(self.name, "the file is being opened anew") from exc

    def _mend(self) -> None:
        """Open the directory anew, as a restart would."""
        with self._mending:
            if self._broken is None or self._closed:
                return
            self._close_volume()
            try:
                with translated(self.name):
                    self._volume = self._open_volume()
                self._gpu = self._open_gpu()
                for namespace in self._known:
                    self._volume.env.introduce(namespace.root, namespace.record())
            except KVTierError as exc:
                raise TierUnavailableError(self.name, f"{self._broken}; opening it anew failed: {exc}") from exc
            self._told.everything, self._told.anew = False, True
            log.warning("%s: opened anew after: %s", self.name, self._broken)
            self._broken = None

    def _close_volume(self) -> None:
        self._volume.env.close()
        if self._gpu is not None:
            self._gpu.close()
            self._gpu = None
        self._volume.slabs.close()

    def _open_gpu(self) -> GpuDirect | None:
        hindrance = None if self._wants_gpu else "gpu_direct is 'off'"
        if hindrance is None and not self._volume.slabs.direct:
            hindrance = "records go through the page cache; it takes page_cache='bypass' and O_DIRECT"
        return open_gpu_direct(self.name, self._volume.env.data, self._volume.records, hindrance)

    def _end(self, volume: Volume, ends: dict[int, CorruptBlockError | None]) -> int:
        """Where a run ends, as ``Tier.read`` says; what did not verify is kept in mind.

        A record that cannot be read is a fault of its place, unless the file was cut or its first page cannot be
        read either.

        Raises:
            TierUnavailableError: That is so.
        """
        damaged = [error for error in ends.values() if error is not None]
        if damaged:
            volume.env.check_whole()
        if any(error.kind == "unreadable" for error in damaged) and not volume.slabs.answers():
            raise TierUnavailableError(self.name, "the disk answers no read")
        for error in damaged:
            volume.suspect(BlockHash(error.key), error.reason)
        return end_of(ends)


class _Told:
    """How far the store has been told of what happened to the tier."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.everything = True
        """Nothing has happened that only a look at the whole index could tell."""
        self.anew = False
        """The file is another one than the store knows of."""
        self.commit = 0
        self.last_commit = -1
        self.room_blocks = 0
        self.used_blocks = 0
