"""Blocks on NVMe, in one memory-mapped LMDB environment.

Four databases share every transaction, so bytes, index and accounting cannot disagree:

    blocks   name -> record        see ``kvtier.format``; contiguous pages, outside the tree's nodes
    index    name -> entry         commit number and label: what a restart reads, without payloads
    extents  name -> offset        where in the file the record lies; a hint, see ``kvtier.tiers.extents``
    meta     "format", "books"     what this environment is; how many blocks, and the last commit

A kill at any instant leaves the last committed state. Every commit is synced, so that state
also survives a power cut; several blocks share a commit to pay for it.

Reads run on several threads, under one transaction. Records in the page cache are read through
the map, where a copy runs at memory speed. Others are read directly from their place in the file,
as one queue of small requests (``kvtier.tiers.requests``); a record whose place is not known yet
is faulted in through the map. Every record is verified before it is copied out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kvtier.errors import CorruptBlockError, TierFullError, TierUnavailableError
from kvtier.format import Bytes, Header, check_label, header_bytes, pack_entry, record_bytes, seal, unpack_entry, verify
from kvtier.hashing import BlockHash, Label
from kvtier.spec import DEFAULT_BLOCK_TOKENS
from kvtier.tiers.base import check_blocks
from kvtier.tiers.copying import Striper, worthwhile
from kvtier.tiers.environment import Books, Environment, translated
from kvtier.tiers.extents import Extents
from kvtier.tiers.requests import Reading

#: A record in memory, one on disk, or one whose place is not known.
Job = Bytes | Reading | None

#: Bytes of new records in one commit: enough to make the sync cheap, small enough to stay in cache.
COMMIT_BYTES = 64 << 20

#: Threads that read records from the page cache: a copy is bound by memory, not by waiting.
_WARM_LANES = min(8, os.cpu_count() or 1)


class LMDBTier:
    """A tier in one directory; see ``kvtier.tiers.base.Tier`` for the contract.

    ``read`` and ``write`` take CPU buffers.

    Args:
        name: Labels errors and metrics.
        path: The directory, made if absent. One process at a time.
        capacity_bytes: Payload bytes to hold; rounded down to whole blocks.
        block_bytes: Payload bytes of one block.
        block_tokens: Tokens of one block; sizes the record's header.
        threads: Requests in flight to a cold disk, at most.
        min_free_bytes: The file does not grow while the file system has less than this left.

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
    ) -> None:
        self.name = name
        self.block_bytes = block_bytes
        self.capacity_bytes = capacity_bytes // block_bytes * block_bytes
        self._header = header_bytes(block_tokens)
        self._record_bytes = record_bytes(block_bytes, block_tokens)
        self._min_free_bytes = min_free_bytes
        self._env = Environment(
            name,
            Path(path),
            capacity_bytes=capacity_bytes,
            block_bytes=block_bytes,
            record_bytes=self._record_bytes,
            commit_bytes=COMMIT_BYTES,
        )
        self._extents = Extents(self._env.data, self._record_bytes, threads)
        self._striper = Striper(name, threads)
        self._scratch: Bytes = np.zeros(self._record_bytes, np.uint8)

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
        with self._env.held_open(), self._env.reading() as txn:
            jobs = self._plan(txn, keys)
            ends: dict[int, CorruptBlockError | None] = {len(jobs): None}
            turns = [
                (i, at) for i, job in enumerate(jobs) for at in (job.requests() if isinstance(job, Reading) else [0])
            ]

            def work(mine: Iterable[int]) -> None:
                for turn in mine:
                    i, at = turns[turn]
                    if i > min(ends):
                        return
                    try:
                        if not self._advance(jobs[i], at, keys[i], out[i], None if labels is None else labels[i]):
                            ends[i] = None
                    except CorruptBlockError as exc:
                        ends[i] = exc

            try:
                with self._extents.read_ahead(on=any(job is None for job in jobs)):
                    self._striper.run(len(turns), work, self._lanes(jobs))
            finally:
                for job in jobs:
                    if isinstance(job, Reading):  # one behind the end of the run
                        self._extents.done_with(job)
        end = min(ends)
        if (error := ends[end]) is not None:
            raise error
        return end

    def write(self, keys: Sequence[BlockHash], blocks: Sequence[torch.Tensor], labels: Sequence[Label]) -> None:
        """See ``Tier.write``."""
        self._env.check_open()
        check_blocks(self.name, self.block_bytes, keys, blocks, labels)
        for key, label in zip(keys, labels, strict=True):
            check_label(key, label, header=self._header)
        with self._env.writing():
            news = self._absent(keys)
            self._check_room(len(news))
            per_commit = max(1, COMMIT_BYTES // self._record_bytes)
            batch = self._env.books.commit + 1
            done: list[BlockHash] = []
            try:
                for start in range(0, len(news), per_commit):
                    part = news[start : start + per_commit]
                    self._commit(batch, [(keys[i], blocks[i], labels[i]) for i in part])
                    done += [keys[i] for i in part]
            except TierFullError:
                self._remove(done)
                raise

    def delete(self, keys: Sequence[BlockHash]) -> int:
        """See ``Tier.delete``."""
        self._env.check_open()
        with self._env.writing():
            return self._remove(keys)

    def scan(self) -> Iterator[tuple[BlockHash, Label]]:
        """See ``Tier.scan``. Reads the index only, never a payload."""
        with self._env.reading() as txn:
            entries = [
                (BlockHash(bytes(key)), *unpack_entry(bytes(value))) for key, value in txn.cursor(self._env.index)
            ]
        entries.sort(key=lambda entry: (entry[1], -entry[2].depth))
        return ((key, label) for key, _, label in entries)

    def flush(self) -> None:
        """See ``Tier.flush``."""
        with self._env.writing():
            if self._extents.learned:
                books = self._env.books
                self._change(Books(books.blocks, books.commit + 1), lambda _: None)
        self._env.sync()

    def close(self) -> None:
        """See ``Tier.close``. Waits for readers; in a forked child it does nothing."""
        self._env.close()
        self._striper.close()
        self._extents.close()

    def _plan(self, txn: Any, keys: Sequence[BlockHash]) -> list[Job]:
        """How to read each record, as far as the run is held.

        The transaction sees the blocks and outlives the read, so nobody reuses their pages; were a
        place wrong all the same, the record would not verify.
        """
        jobs: list[Job] = []
        for key in keys:
            place = self._place(txn, key)
            if place is None and not self._is_held(txn, key):
                break
            if place is None or not self._extents.usable:
                jobs.append(None)
            else:
                seen = self._extents.view(place)
                jobs.append(self._extents.reading(place) if seen is None else seen)
        return jobs

    def _lanes(self, jobs: Sequence[Job]) -> int:
        """Threads to read with: the disk wants a queue, memory as many as there are cores."""
        if all(isinstance(job, np.ndarray) for job in jobs):
            return worthwhile(len(jobs) * self.block_bytes, _WARM_LANES)
        return self._striper.threads

    def _advance(self, job: Job, at: int, key: BlockHash, out: torch.Tensor, label: Label | None) -> bool:
        """One turn of a record's reading; False if it is not held after all."""
        if not isinstance(job, Reading):
            return self._copy_out(key, job, out, label)
        if not self._extents.carry_out(job, at):
            return True  # its last request is still out
        try:
            return self._copy_out(key, job.record(), out, label)
        finally:
            self._extents.done_with(job)

    def _copy_out(self, key: BlockHash, record: Bytes | None, out: torch.Tensor, label: Label | None) -> bool:
        """Verify a record and copy its payload; False if it is not held.

        Without a record that verifies, LMDB is asked, which is the authority. A view of its map
        ends here, inside the transaction that protects it.
        """
        if record is None:
            return self._copy_from_map(key, out, label)
        try:
            header = verify(record, key, header=self._header, block_bytes=self.block_bytes)
        except CorruptBlockError:  # a wrong place, or damage
            return self._copy_from_map(key, out, label)
        self._give(header, record, out, label)
        return True

    def _copy_from_map(self, key: BlockHash, out: torch.Tensor, label: Label | None) -> bool:
        with self._env.reading() as txn:
            stored = txn.get(key, db=self._env.blocks)
            if stored is None:
                return False
            record = np.frombuffer(stored, np.uint8)
            header = verify(record, key, header=self._header, block_bytes=self.block_bytes)
            if (place := self._extents.place(record)) is not None:
                self._extents.learned[key] = place
            self._give(header, record, out, label)
        return True

    def _give(self, header: Header, record: Bytes, out: torch.Tensor, label: Label | None) -> None:
        """Copy a verified payload out, if it is the prompt's."""
        if label is not None and header.label != label:
            raise CorruptBlockError(header.key, "the stored token ids are not those of the prompt")
        np.copyto(out.numpy(), record[self._header :].reshape(out.shape))

    def _place(self, txn: Any, key: BlockHash) -> int | None:
        """Where a record lies that this transaction sees, if that is known."""
        stored = txn.get(key, db=self._env.extents)
        if stored is not None:  # it leaves with its block, so this transaction sees the block as well
            return int.from_bytes(stored, "little")
        return self._extents.learned.get(key) if self._is_held(txn, key) else None

    def _is_held(self, txn: Any, key: BlockHash) -> bool:
        return txn.get(key, db=self._env.index) is not None

    def _learn(self, keys: Sequence[BlockHash]) -> None:
        """Note where records lie that were just written: their pages are in the page cache now."""
        if not self._extents.usable:
            return
        with self._env.reading() as txn:
            for key in keys:
                place = self._extents.place(np.frombuffer(txn.get(key, db=self._env.blocks), np.uint8))
                if place is not None:
                    self._extents.learned[key] = place

    def _keep_extents(self, txn: Any) -> list[BlockHash]:
        """Write learned places along with another change; returns the names to forget once it is committed."""
        kept = list(self._extents.learned)
        for key in kept:
            if self._is_held(txn, key):
                txn.put(key, self._extents.learned[key].to_bytes(8, "little"), db=self._env.extents)
        return kept

    def _change(self, after: Books, work: Callable[[Any], None]) -> None:
        """One transaction: some work, and the places learned since the last one."""
        with translated(self.name), self._env.change(after) as txn:
            kept = self._keep_extents(txn)
            work(txn)
        for key in kept:
            self._extents.learned.pop(key, None)

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
        growth = (used + num_new) * self._record_bytes - self._env.file_bytes
        free = self._env.free_bytes
        if growth > 0 and free - growth < self._min_free_bytes:
            raise TierUnavailableError(
                self.name,
                f"the disk has {free} bytes left and {self._min_free_bytes} must stay free; nothing was written",
            )

    def _commit(self, batch: int, part: list[tuple[BlockHash, torch.Tensor, Label]]) -> None:
        """Store a part of a batch, whose number is that of its first commit: a scan lists it as one."""
        books = self._env.books
        after = Books(books.blocks + len(part), books.commit + 1)

        def work(txn: Any) -> None:
            for key, block, label in part:
                payload = self._scratch[self._header :].reshape(block.shape)
                np.copyto(payload, block.numpy())
                seal(self._scratch, key, label, header=self._header)
                txn.put(key, self._scratch.data, db=self._env.blocks)
                txn.put(key, pack_entry(batch, label), db=self._env.index)

        self._change(after, work)
        self._learn([key for key, _, _ in part])

    def _remove(self, keys: Sequence[BlockHash]) -> int:
        with self._env.reading() as txn:
            held = [key for key in dict.fromkeys(keys) if txn.get(key, db=self._env.index) is not None]
        if held:
            books = self._env.books
            after = Books(books.blocks - len(held), books.commit + 1)

            def work(txn: Any) -> None:
                for key in held:
                    for table in (self._env.blocks, self._env.index, self._env.extents):
                        txn.delete(key, db=table)

            self._change(after, work)
        return len(held)


def _turns(job: Job) -> Iterable[int]:
    """The turns a record takes: a request each if it is read from disk, one if it is in memory."""
    return job.requests() if isinstance(job, Reading) else [0]
