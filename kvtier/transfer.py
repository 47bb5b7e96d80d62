"""Carrying out moves: one background thread, in the order the plans were made.

Plans of one store depend on each other only through the places they free, and each plan pays
for its own, so first-in first-out is always safe. Each step of a move happens in the order
read, write, delete, commit: a block is never nowhere, and never counted where it is not.

What fails is reported to the placement and counted, never raised: by the time a move runs,
nobody is there to catch.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import compress, groupby

import torch

from kvtier.core import Core
from kvtier.errors import CorruptBlockError, TierError
from kvtier.hashing import BlockHash, Label
from kvtier.placement import Move

log = logging.getLogger("kvtier")

#: Bytes of the buffer between two tiers; a longer run of moves goes through it in parts.
STAGING_BYTES = 64 << 20
_STAGING_BLOCKS = 256  # of tiny blocks a part needs no more


class Transfer:
    """Moves under way in the background."""

    def __init__(self, future: Future[int] | None = None) -> None:
        self._future = future

    def done(self) -> bool:
        """Whether every move has ended."""
        return self._future is None or self._future.done()

    def wait(self, timeout_s: float | None = None) -> int:
        """Moves carried out, once all have ended.

        Raises:
            TimeoutError: They have not ended within ``timeout_s`` seconds; they go on.
        """
        return 0 if self._future is None else self._future.result(timeout_s)


class Staging:
    """A reusable buffer in host memory between two media, for one user at a time.

    Args:
        block_bytes: Bytes of one block.
        pinned: Page-lock it, for copies to and from CUDA.
    """

    def __init__(self, block_bytes: int, *, pinned: bool) -> None:
        num_blocks = max(1, min(_STAGING_BLOCKS, STAGING_BYTES // block_bytes))
        self.blocks = list(torch.zeros((num_blocks, block_bytes), dtype=torch.uint8, pin_memory=pinned))
        self.lock = threading.Lock()


class Mover:
    """Carries out orders between tiers.

    Args:
        core: Whose tiers and placement.
        pinned: Page-lock the buffer between tiers.
    """

    def __init__(self, core: Core, *, pinned: bool = False) -> None:
        self._core = core
        self._tiers = core.tiers
        self.num_pending = 0
        """Submitted batches that have not ended; read it under the core's lock."""
        self._staging = Staging(core.block_bytes, pinned=pinned)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kvtier-mover")

    def submit(self, moves: Sequence[Move], finished: Callable[[], None] | None = None) -> Transfer:
        """Queue moves behind all earlier ones; ``finished`` is called after them, under the lock, whatever happens."""
        if not moves and finished is None:
            return Transfer()
        queued = self._bytes_by_tier(moves)
        with self._core.lock:
            self.num_pending += 1
            for tier, num_bytes in queued.items():
                self._core.loads.begin(self, tier, num_bytes)

        def work() -> int:
            try:
                return self.carry(moves)
            except Exception:
                log.exception("a background move failed in a way kvtier does not know; its blocks are not served")
                raise
            finally:
                with self._core.lock:
                    self.num_pending -= 1
                    for tier, num_bytes in queued.items():
                        self._core.loads.end(self, tier, num_bytes)
                    if finished is not None:
                        finished()
                    self._core.lock.notify_all()

        return Transfer(self._thread.submit(work))

    def drain(self) -> None:
        """Return when everything queued so far is done."""
        self._thread.submit(lambda: None).result()

    def close(self) -> None:
        """Finish what is queued and end the thread."""
        self._thread.shutdown(wait=True)

    def carry(self, moves: Iterable[Move]) -> int:
        """Carry moves out now, with the drops that follow from them; returns how many succeeded.

        May be called from any thread. Drops wait for nobody; copies share one staging buffer.
        """
        succeeded = 0
        queue = deque(_lanes(moves))
        while queue:
            lane = queue.popleft()
            done, follow = self._drop(lane) if lane[0].dst is None else self._copy(lane)
            succeeded += done
            queue.extend(_lanes(follow))
        return succeeded

    def _bytes_by_tier(self, moves: Sequence[Move]) -> Counter[str]:
        """What copies will read from and write to each tier, by its name."""
        copies = [move for move in moves if move.dst is not None]
        ends = (end for move in copies for end in (move.src, move.dst) if end is not None)
        return Counter({self._tiers[end].name: count * self._core.block_bytes for end, count in Counter(ends).items()})

    def _drop(self, lane: list[Move]) -> tuple[int, list[Move]]:
        src = lane[0].src
        assert src is not None
        self._delete(src, [move.key for move in lane])
        return len(lane), self._core.settle(lane, [])

    def _copy(self, lane: list[Move]) -> tuple[int, list[Move]]:
        done, follow = 0, []
        size = len(self._staging.blocks)
        for start in range(0, len(lane), size):
            with self._staging.lock:
                good, more = self._copy_part(lane[start : start + size])
            done += good
            follow += more
        return done, follow

    def _copy_part(self, lane: list[Move]) -> tuple[int, list[Move]]:
        src, dst = lane[0].src, lane[0].dst
        assert src is not None
        assert dst is not None
        labels = self._labels(lane)
        read, follow = self._stage(src, lane, labels)
        good = list(compress(lane, read))
        try:
            self._tiers[dst].write(
                [move.key for move in good],
                list(compress(self._staging.blocks, read)),
                list(compress(labels, read)),
            )
        except TierError:
            self._core.count_error(dst)
            good = []
        arrived = {move.key for move in good}
        self._delete(src, [move.key for move in lane if not move.keep])
        failed = [move for move in lane if move.key not in arrived]
        return len(good), follow + self._core.settle(good, failed)

    def _stage(self, src: int, lane: list[Move], labels: list[Label]) -> tuple[list[bool], list[Move]]:
        """Read a lane into the staging buffer; which blocks are good, and drops for those that are not.

        The blocks of a lane are victims or parts of chains: one that cannot be read says nothing
        about the next, so the read goes on behind it.
        """
        read: list[bool] = []
        follow: list[Move] = []
        while (start := len(read)) < len(lane):
            keys = [move.key for move in lane[start:]]
            error: Exception | None = None
            try:
                count = self._tiers[src].read(keys, self._staging.blocks[start : len(lane)], labels[start:])
            except CorruptBlockError as exc:
                error, count = exc, keys.index(BlockHash(exc.key))
            except TierError as exc:
                error, count = exc, 0
            read += [True] * count
            if len(read) < len(lane):
                follow += self._core.forget(lane[len(read)].key, src, error)
                read.append(False)
        return read, follow

    def _labels(self, lane: list[Move]) -> list[Label]:
        with self._core.lock:
            nodes = self._core.placement.index.nodes
            return [nodes[move.key].label for move in lane]

    def _delete(self, tier: int, keys: list[BlockHash]) -> None:
        if not keys:
            return
        try:
            self._tiers[tier].delete(keys)
        except TierError:
            self._core.count_error(tier)


def _lanes(moves: Iterable[Move]) -> list[list[Move]]:
    """Moves in order, in batches between the same two tiers."""
    return [list(lane) for _, lane in groupby(moves, key=lambda move: (move.src, move.dst, move.keep))]
