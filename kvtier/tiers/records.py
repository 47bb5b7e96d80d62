"""Reading whole records from their places in the data file into CPU buffers, each verified.

Records in the page cache are copied from the map, others are read directly as one queue of small
requests; see ``kvtier.tiers.requests``. What is verified is memory of our own: the buffer that a record was read
into, or the copy of what the map showed, for the file can be written to, or cut, by others at any instant.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from kvtier.errors import CorruptBlockError
from kvtier.format import Bytes, verify
from kvtier.hashing import BlockHash, Label
from kvtier.tiers.copying import Striper, worthwhile
from kvtier.tiers.requests import Job, Reading, turns_of
from kvtier.tiers.slabs import Slabs

#: Threads that read records from the page cache: a copy is bound by memory, not by waiting.
WARM_LANES = min(8, os.cpu_count() or 1)

_UNREADABLE = "its record cannot be read"


class Records:
    """The records of one data file.

    Args:
        slabs: Where they lie.
        striper: Threads to read and verify with.
        header: Length of a record's header in bytes.
        block_bytes: Payload bytes of one block.
    """

    def __init__(self, slabs: Slabs, striper: Striper, *, header: int, block_bytes: int) -> None:
        self.striper = striper
        self.header = header
        self.block_bytes = block_bytes
        self._slabs = slabs

    def read(
        self,
        places: Sequence[int],
        keys: Sequence[BlockHash],
        out: Sequence[torch.Tensor],
        labels: Sequence[Label] | None,
    ) -> dict[int, CorruptBlockError]:
        """Copy the payloads of the leading records that are good.

        Args:
            places: Offset of each record in the file, length n. The caller keeps them from being reused.
            keys: Names of the records, n at least.
            out: CPU buffers as for ``Tier.read``, n at least.
            labels: What the names were made from, or None.

        Returns:
            Records that are not good, by number, and why. Those before the first of them are in their
            buffers; those behind it may not have been looked at.
        """
        jobs = [self._slabs.job(place) for place in places]
        ends: dict[int, CorruptBlockError] = {}
        turns = [(i, at) for i, job in enumerate(jobs) for at in turns_of(job)]

        def work(mine: Iterable[int]) -> None:
            for turn in mine:
                i, at = turns[turn]
                if i > min(ends, default=len(jobs)):
                    return
                try:
                    self._advance(jobs[i], at, keys[i], out[i], None if labels is None else labels[i])
                except CorruptBlockError as exc:
                    ends[i] = exc

        try:
            self.striper.run(len(turns), work, self._lanes(jobs))
        finally:
            for job in jobs:
                if isinstance(job, Reading):  # one behind the end of the run
                    self._slabs.buffers.reclaim(job)
        return ends

    def check(self, record: Bytes, key: BlockHash, label: Label | None, payload: Bytes | None = None) -> None:
        """Prove that a record is the block asked for, whole and unchanged.

        Args:
            record: See ``verify``, as ``payload``.
            key: Its name.
            label: What the name was made from; None compares nothing with that.
            payload: None if the record has it.

        Raises:
            CorruptBlockError: It is not.
        """
        header = verify(record, key, header=self.header, block_bytes=self.block_bytes, payload=payload)
        if label is not None and header.label != label:
            raise CorruptBlockError(key, "the stored token ids are not those of the prompt", "tokens")

    def _lanes(self, jobs: Sequence[Job]) -> int:
        """Threads to read with: the disk wants a queue, memory as many as there are cores."""
        if any(isinstance(job, Reading) for job in jobs):
            return self.striper.threads
        return worthwhile(len(jobs) * self.block_bytes, WARM_LANES)

    def _advance(self, job: Job, at: int, key: BlockHash, out: torch.Tensor, label: Label | None) -> None:
        """One turn of a record's reading; the last one verifies it and copies the payload out."""
        if not isinstance(job, Reading):
            self._copy_seen(key, job, out, label)
        elif self._slabs.carry_out(job, at):
            try:
                record = job.record()
                if record is None:
                    raise CorruptBlockError(key, _UNREADABLE, "unreadable")
                self._copy_out(key, record, out, label)
            finally:
                self._slabs.buffers.reclaim(job)

    def _copy_out(self, key: BlockHash, record: Bytes, out: torch.Tensor, label: Label | None) -> None:
        self.check(record, key, label)
        np.copyto(out.numpy(), record[self.header :].reshape(out.shape))

    def _copy_seen(self, key: BlockHash, record: Bytes, out: torch.Tensor, label: Label | None) -> None:
        """The payload of a record that the map shows; the copy is what is proven."""
        target = out.numpy()
        if not target.flags.c_contiguous:
            self._copy_out(key, record.copy(), out, label)
            return
        header = record[: self.header].copy()
        np.copyto(target, record[self.header :].reshape(target.shape))
        self.check(header, key, label, target.reshape(-1))
