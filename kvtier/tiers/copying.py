"""Copying blocks within host memory, on several threads.

One thread of a CPU does not saturate its memory bus, and torch's own copy uses its OpenMP
team, which every calling thread would get a separate one of. NumPy copies in the calling
thread without the interpreter lock, so a few threads that share a batch reach the bus limit and
leave torch's threads to the model.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Self

import numpy as np
import torch

from kvtier.format import Bytes

#: Below this many bytes a batch is copied by the calling thread alone.
_PARALLEL_FROM_BYTES = 2 << 20


class Striper:
    """Runs a function over the indices of a batch, shared among a few threads."""

    def __init__(self, name: str, threads: int | None = None) -> None:
        self.threads = threads or min(4, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix=f"kvtier-{name}")

    def run(self, count: int, work: Callable[[Iterator[int]], None], lanes: int) -> None:
        """Call ``work`` here and on other threads, each with an iterator over what is left of ``range(count)``.

        The indices are handed out in order, one at a time, so threads end together. Returns when
        all are done.

        Args:
            count: Size of the batch.
            work: Called once a lane.
            lanes: How many at a time, at most one a thread; the first is the calling thread itself, which
                saves a wait for another to wake up.

        Raises:
            BaseException: The first lane's exception, or an interrupt, after every lane has ended.
        """
        lanes = min(lanes, self.threads, count)
        if lanes <= 1:
            work(iter(range(count)))
            return
        interrupted, busy = threading.Event(), [threading.Lock() for _ in range(lanes - 1)]
        left = _Shared(range(count), interrupted)

        def lane(lock: threading.Lock) -> None:
            with lock:
                work(left)

        try:
            futures = self._started(lane, busy)
            error = _error_of(work, left)
            wait(futures)
        except BaseException:  # Ctrl-C: the caller is about to reuse memory that lanes are copying to
            interrupted.set()
            for lock in busy:
                with lock:
                    pass
            raise
        errors = [each for future in futures if (each := future.exception()) is not None]
        if error is not None or errors:
            raise error or errors[0]

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=True)

    def _started(self, lane: Callable[[threading.Lock], None], busy: Iterable[threading.Lock]) -> list[Future[None]]:
        """Lanes on other threads; fewer, or none, once closed: the caller then does what is left of the batch."""
        futures: list[Future[None]] = []
        with suppress(RuntimeError):  # a batch that met close, or no thread is to be had
            for lock in busy:
                futures.append(self._pool.submit(lane, lock))  # noqa: PERF401  (those before the failure are waited for)
        return futures


def _error_of(work: Callable[[Iterator[int]], None], left: Iterator[int]) -> Exception | None:
    try:
        work(left)
    except Exception as exc:  # noqa: BLE001  (raised again once the other lanes have ended)
        return exc
    return None


class _Shared:
    """An iterator that several threads draw from; ends early once interrupted."""

    def __init__(self, numbers: Iterable[int], interrupted: threading.Event) -> None:
        self._numbers = iter(numbers)
        self._interrupted = interrupted
        self._lock = threading.Lock()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> int:
        with self._lock:
            if self._interrupted.is_set():
                raise StopIteration
            return next(self._numbers)


def worthwhile(num_bytes: int, lanes: int) -> int:
    """Lanes for a copy within memory: a small one is not worth a second thread."""
    return lanes if num_bytes >= _PARALLEL_FROM_BYTES else 1


def copy_rows(
    striper: Striper,
    rows: Bytes,
    slots: Sequence[int],
    blocks: Sequence[torch.Tensor],
    *,
    out: bool,
    layers: slice | None = None,
) -> None:
    """Copy between rows of one array and as many CPU blocks, without a tensor for each row.

    Args:
        striper: Threads to share the copies.
        rows: Shape ``[num_rows, block_bytes]``.
        slots: The rows, one for each block.
        blocks: ``uint8``, any shape and strides.
        out: From the rows to the blocks; else the other way.
        layers: Only this range along the blocks' first axis.
    """

    def copy(indices: Iterator[int]) -> None:
        for i in indices:
            block = blocks[i].numpy()
            row = rows[slots[i]].reshape(block.shape)
            if layers is not None:
                block, row = block[layers], row[layers]
            np.copyto(block, row) if out else np.copyto(row, block)

    striper.run(len(blocks), copy, worthwhile(len(blocks) * rows.shape[1], striper.threads))


def touch(pool: torch.Tensor) -> None:
    """Write to every page once, so that no later copy pays for the kernel to find memory."""
    flat = pool.view(-1)
    piece = 64 << 20
    for start in range(0, math.prod(pool.shape), piece):
        flat[start : start + piece].zero_()
