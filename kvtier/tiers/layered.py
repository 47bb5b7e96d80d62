"""Reading records of the disk tier layer by layer.

    records          0     1     2
    turns          |a0|  |b0|  |c0|  |a1|  |b1|  |c1|  |a2| ...     any thread takes the next one
                     first layers of all: reported |

The requests are those of a plain read, in another order: a model can begin when the first layers of every
record are there. A record is checked as its pieces arrive, in their order, and is known to be good with the last.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from kvtier.errors import CorruptBlockError
from kvtier.format import PAGE_BYTES, Bytes, Verifier
from kvtier.hashing import BlockHash, Label
from kvtier.tiers.base import Arrived
from kvtier.tiers.requests import Buffers


class Source:
    """Where records lie: their places in a file, and those that are in memory already.

    Args:
        file: Opened for reading; directly, if offsets and lengths are to be whole pages.
        places: Offset of each record.
        views: The record in memory, or None.
    """

    def __init__(self, file: int, places: Sequence[int], views: Sequence[Bytes | None]) -> None:
        self._file = file
        self._places = places
        self._views = views

    def __len__(self) -> int:
        return len(self._places)

    @property
    def on_disk(self) -> bool:
        """Whether any record has to be read."""
        return any(view is None for view in self._views)

    def piece(self, record: int, start: int, stop: int, buffer: Bytes) -> Bytes | None:
        """Bytes ``start`` to ``stop`` of a record in the buffer; None if they cannot be read.

        Those that the map shows are copied as well: others can write to them, or cut them off, at any instant.
        """
        piece, view = buffer[: stop - start], self._views[record]
        if view is not None:
            np.copyto(piece, view[start:stop])
            return piece
        try:
            return piece if os.preadv(self._file, [piece.data], self._places[record] + start) == len(piece) else None
        except OSError:
            return None


class LayeredRead:
    """One batch of records on its way into shaped buffers.

    Args:
        source: Where they are.
        keys: Their names.
        out: A buffer for each, shaped ``[layers, ...]``.
        labels: What the names were made from, or None.
        header: Length of a record's header in bytes.
        parts: Layers that arrive together; a layer is whole pages.
        arrived: Told when a part of every record is in its buffer.
        buffers: For one piece each; see ``piece_bytes``.
    """

    def __init__(
        self,
        source: Source,
        keys: Sequence[BlockHash],
        out: Sequence[torch.Tensor],
        labels: Sequence[Label] | None,
        *,
        header: int,
        parts: Sequence[slice],
        arrived: Arrived,
        buffers: Buffers,
    ) -> None:
        self._source, self._keys, self._out, self._labels = source, keys, out, labels
        self._header, self._parts, self._arrived, self._buffers = header, parts, arrived, buffers
        self._checks: list[Verifier | None] = [None] * len(keys)
        self._next = [0] * len(keys)
        """By record, the part to be looked at next."""
        self._missing = [len(keys)] * len(parts)
        self.ends: dict[int, CorruptBlockError] = {}
        """Records that are not good, and why."""
        self._state = threading.Condition()

    @property
    def num_turns(self) -> int:
        """Pieces of all records."""
        return len(self._parts) * len(self._keys)

    def work(self, turns: Iterable[int]) -> None:
        """Carry out some turns, in order; for as many threads as like to."""
        for turn in turns:
            number, record = divmod(turn, len(self._keys))
            buffer = self._buffers.take()
            try:
                if self._wanted(record):
                    self._advance(record, number, buffer)
            except CorruptBlockError as exc:
                self.ends[record] = exc
            finally:
                self._buffers.give_back(buffer)
                self._step(record, number)  # in any case: the thread with the next piece waits for it

    def _wanted(self, record: int) -> bool:
        """Whether the run does not end before this record or with it."""
        return record < min(self.ends, default=len(self._keys))

    def _advance(self, record: int, number: int, buffer: Bytes) -> None:
        layers, block = self._parts[number], self._out[record].numpy()
        layer_bytes = block.nbytes // len(block)
        start, stop = self._header + layers.start * layer_bytes, self._header + layers.stop * layer_bytes
        piece = self._source.piece(record, start if number else 0, stop, buffer)
        with self._state:  # the piece before it was taken up before this one, so it comes without our help
            self._state.wait_for(lambda: self._next[record] >= number)  # beyond it where later ones were not wanted
        if not self._wanted(record):
            return
        if piece is None:
            raise CorruptBlockError(self._keys[record], "its record cannot be read", "unreadable")
        self._check(record, piece, first=not number, last=number == len(self._parts) - 1)
        target = block[layers]
        np.copyto(target, piece[0 if number else self._header :].reshape(target.shape))

    def _check(self, record: int, piece: Bytes, *, first: bool, last: bool) -> None:
        key, check = self._keys[record], self._checks[record]
        if first:
            block_bytes = self._out[record].numel()
            check = self._checks[record] = Verifier(piece, key, header=self._header, block_bytes=block_bytes)
        else:
            assert check is not None
            check.add(piece)
        if last:
            check.finish()
            if self._labels is not None and check.named.label != self._labels[record]:
                raise CorruptBlockError(key, "the stored token ids are not those of the prompt")

    def _step(self, record: int, number: int) -> None:
        with self._state:
            self._next[record] = max(self._next[record], number + 1)
            self._missing[number] -= 1
            there = not self._missing[number] and not self.ends
            self._state.notify_all()
        if there:
            self._arrived(number, None)


def piece_bytes(header: int, block_bytes: int, parts: Sequence[slice]) -> int:
    """Length of the longest piece; the first one has the header with it."""
    layers: list[int] = [part.stop - part.start for part in parts]
    return header + max(layers) * (block_bytes // sum(layers))


def whole_page_layers(block_bytes: int, parts: Sequence[slice]) -> bool:
    """Whether layers of a block can be read directly."""
    num_layers: int = parts[-1].stop
    return block_bytes % (PAGE_BYTES * num_layers) == 0


def end_of(ends: dict[int, CorruptBlockError | None]) -> int:
    """Length of a run from where it may end; raises what ends it first, if that is damage."""
    end = min(ends)
    if (error := ends[end]) is not None:
        raise error
    return end
