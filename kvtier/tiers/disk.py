"""Blocks on NVMe, in one memory-mapped LMDB environment.

Three databases share every transaction, so bytes, index and accounting cannot disagree:

    blocks   name -> record        see ``kvtier.format``; contiguous pages, outside the tree's nodes
    index    name -> entry         commit number and label: what a restart reads, without payloads
    meta     "format", "books"     what this environment is; how many blocks, and the last commit

A kill at any instant leaves the last committed state. Every commit is synced, so that state
also survives a power cut; several blocks share a commit to pay for it.

Reads run on several threads, each with its own transaction: page faults on a cold map are
served one at a time per thread, and a warm copy is faster than one core. Every record is
verified before it is copied out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kvtier.errors import CorruptBlockError, TierFullError, TierUnavailableError
from kvtier.format import Bytes, header_bytes, pack_entry, record_bytes, seal, unpack_entry, verify
from kvtier.hashing import BlockHash, Label
from kvtier.spec import DEFAULT_BLOCK_TOKENS
from kvtier.tiers.base import check_blocks
from kvtier.tiers.copying import Striper
from kvtier.tiers.environment import Books, Environment, translated

#: Bytes of new records in one commit: enough to make the sync cheap, small enough to stay in cache.
COMMIT_BYTES = 64 << 20


class LMDBTier:
    """A tier in one directory; see ``kvtier.tiers.base.Tier`` for the contract.

    ``read`` and ``write`` take CPU buffers.

    Args:
        name: Labels errors and metrics.
        path: The directory, made if absent. One process at a time.
        capacity_bytes: Payload bytes to hold; rounded down to whole blocks.
        block_bytes: Payload bytes of one block.
        block_tokens: Tokens of one block; sizes the record's header.
        threads: Readers of one batch.
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
        threads: int = 4,
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
        check_blocks(self.name, self.block_bytes, keys, out)
        ends: dict[int, CorruptBlockError | None] = {len(keys): None}

        def stripe(indices: range) -> None:
            with self._env.reading() as txn:
                for i in indices:
                    if i > min(ends):
                        return
                    try:
                        found = self._copy_out(txn, keys[i], out[i], labels[i] if labels is not None else None)
                    except CorruptBlockError as exc:
                        ends[i] = exc
                        return
                    if not found:
                        ends[i] = None
                        return

        self._striper.run(len(keys), len(keys) * self.block_bytes, stripe)
        end = min(ends)
        if (error := ends[end]) is not None:
            raise error
        return end

    def write(self, keys: Sequence[BlockHash], blocks: Sequence[torch.Tensor], labels: Sequence[Label]) -> None:
        """See ``Tier.write``."""
        self._env.check_open()
        check_blocks(self.name, self.block_bytes, keys, blocks)
        with self._env.writing():
            news = self._absent(keys)
            self._check_room(len(news))
            per_commit = max(1, COMMIT_BYTES // self._record_bytes)
            done: list[BlockHash] = []
            try:
                for start in range(0, len(news), per_commit):
                    part = news[start : start + per_commit]
                    self._commit([(keys[i], blocks[i], labels[i]) for i in part])
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
        self._env.sync()

    def close(self) -> None:
        """See ``Tier.close``."""
        self._striper.close()
        self._env.close()

    def _copy_out(self, txn: Any, key: BlockHash, out: torch.Tensor, label: Label | None) -> bool:
        """Verify one record and copy its payload; False if it is not held.

        The view of the map ends here, inside the transaction that protects its pages.
        """
        stored = txn.get(key, db=self._env.blocks)
        if stored is None:
            return False
        record = np.frombuffer(stored, np.uint8)
        found = verify(record, key, header=self._header, block_bytes=self.block_bytes)
        if label is not None and found.label != label:
            raise CorruptBlockError(key, "the stored token ids are not those of the prompt")
        np.copyto(out.numpy(), record[self._header :].reshape(out.shape))
        return True

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

    def _commit(self, batch: list[tuple[BlockHash, torch.Tensor, Label]]) -> None:
        books = self._env.books
        after = Books(books.blocks + len(batch), books.commit + 1)
        with translated(self.name), self._env.change(after) as txn:
            for key, block, label in batch:
                payload = self._scratch[self._header :].reshape(block.shape)
                np.copyto(payload, block.numpy())
                seal(self._scratch, key, label, header=self._header)
                txn.put(key, self._scratch.data, db=self._env.blocks)
                txn.put(key, pack_entry(after.commit, label), db=self._env.index)

    def _remove(self, keys: Sequence[BlockHash]) -> int:
        with self._env.reading() as txn:
            held = [key for key in dict.fromkeys(keys) if txn.get(key, db=self._env.index) is not None]
        if held:
            books = self._env.books
            after = Books(books.blocks - len(held), books.commit + 1)
            with translated(self.name), self._env.change(after) as txn:
                for key in held:
                    txn.delete(key, db=self._env.blocks)
                    txn.delete(key, db=self._env.index)
        return len(held)
