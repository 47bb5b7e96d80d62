"""Carrying out moves: one background thread that takes what is queued together.

A disk commits a hundred blocks in little more time than one, and puts come a few blocks at a time. So
the thread takes everything that is queued, up to one staging buffer of copies into any one tier,
as one batch, and carries it out in one order, whatever plans it came from:

    drops        1 -> 2        0 -> 1        promotions
                 0 -> 2 (copies on insertion)

Neighbours between the same two tiers then are one read, one write and one commit. When only a
little is queued for a durable tier, the thread first waits for more, but no longer than
``group_age_s``, and not at all once somebody waits for it.

Why plans may be mixed. Two plans in flight never move the same block, because a block that a
move concerns is nobody's victim and is planned nowhere else. So they depend on each other only
through places. A plan reserves a free place for each arrival or sends somebody away for it, and
never counts on somebody whom another plan sends away. In every tier, then,

    held now  +  all arrivals ordered  -  all departures ordered  <=  capacity

whatever was ordered and is not carried out. In the order above, every departure of a batch from a
tier comes before every arrival of the batch there: drops are first, a block sinks by one tier
and the deepest tier goes first, only drops leave the last tier, and promotions arrive at the end.
What a batch has moved so far is therefore never more in any tier than what was there before it or will be
there after it, and no tier holds more than its capacity at any instant. What other threads carry
out meanwhile pays for itself in the same way.

Each step of a move happens in the order read, write, delete, commit: a block is never nowhere,
and never counted where it is not.

What fails is reported to the placement and counted, never raised: by the time a move runs,
nobody is there to catch. A write that fails loses what it was to write, at most one staging
buffer, also where several plans had blocks in it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import compress, groupby

import torch

from kvtier.core import Core
from kvtier.errors import BlockRefusedError, CorruptBlockError, TierClosedError, TierError
from kvtier.hashing import BlockHash, Label
from kvtier.placement import Move

log = logging.getLogger("kvtier")

#: Bytes of the buffer between two tiers; a longer run of moves goes through it in parts.
STAGING_BYTES = 64 << 20
_STAGING_BLOCKS = 256  # of tiny blocks a part needs no more


@dataclass(slots=True, eq=False)
class _Submission:
    """Moves that were queued together."""

    moves: Sequence[Move]
    finished: Callable[[], None] | None
    begin_by: float
    """On the monotonic clock; 0 for at once."""

    num_durable: int
    """Blocks among them that a durable tier is to take."""

    ended: bool = False
    """Set under the core's lock, as is what follows."""

    succeeded: int = 0
    error: Exception | None = None

    def end(self, done: set[Move], broken: dict[Move, Exception]) -> None:
        """Take from what became of a batch what became of one's own moves."""
        self.ended = True
        self.succeeded = sum(move in done for move in self.moves)
        self.error = next((broken[move] for move in self.moves if move in broken), None) if broken else None
        if self.finished is not None:
            self.finished()


class Transfer:
    """Moves under way in the background."""

    def __init__(self, mover: Mover, submission: _Submission) -> None:
        self._mover = mover
        self._submission = submission

    def done(self) -> bool:
        """Whether every move has ended, carried out or not."""
        return self._submission.ended

    def wait(self, timeout_s: float | None = None) -> int:
        """How many of the moves were carried out, once all have ended. They begin at once, if they have not.

        Raises:
            TimeoutError: They have not ended within ``timeout_s`` seconds; they go on.
        """
        return self._mover.wait_for(self._submission, timeout_s)


class Staging:
    """A reusable buffer in host memory between two media, for one user at a time.

    Args:
        block_bytes: Bytes of one block.
        pinned: Page-lock it, for copies to and from CUDA.
    """

    def __init__(self, block_bytes: int, *, pinned: bool) -> None:
        num_blocks = max(1, min(_STAGING_BLOCKS, STAGING_BYTES // block_bytes))
        self.pool = torch.zeros((num_blocks, block_bytes), dtype=torch.uint8, pin_memory=pinned)
        self.blocks = list(self.pool)
        self.lock = threading.Lock()


class Mover:
    """Carries out orders between tiers.

    Args:
        core: Whose tiers and placement.
        pinned: Page-lock the buffer between tiers.
        group_age_s: Longest that a few blocks for a durable tier wait for others to be committed with.
    """

    def __init__(self, core: Core, *, pinned: bool = False, group_age_s: float = 0.02) -> None:
        self._core = core
        self._tiers = core.tiers
        self.num_pending = 0
        """Submissions that have not ended; read it under the core's lock."""
        self._group_age_s = group_age_s
        self._staging = Staging(core.block_bytes, pinned=pinned)
        self._queue: deque[_Submission] = deque()
        self._bell = threading.Condition()
        """Guards the queue. Whoever holds it takes no other lock."""
        self._working = False
        """The thread is at work, or waits for more; it looks at the queue once more before it stops."""
        self._closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kvtier-mover")

    def submit(
        self, moves: Sequence[Move], finished: Callable[[], None] | None = None, *, urgent: bool = False
    ) -> Transfer:
        """Queue moves behind all earlier ones.

        Args:
            moves: In the order planned.
            finished: Called once they have ended, under the core's lock, whatever happened to them.
            urgent: Begin at once, with all that is queued.

        Raises:
            TierClosedError: The mover is closed.
        """
        num_durable = sum(move.dst is not None and self._tiers[move.dst].durable for move in moves)
        begin_by = 0.0 if urgent else time.monotonic() + self._group_age_s
        new = _Submission(moves, finished, begin_by, num_durable, ended=not moves and finished is None)
        if not new.ended:
            self._enqueue(new)
        return Transfer(self, new)

    def hurry(self) -> None:
        """Begin what is queued now without waiting for more."""
        with self._bell:
            for each in self._queue:
                each.begin_by = 0.0
            self._bell.notify()

    def drain(self) -> None:
        """Return when everything queued so far is done."""
        marker = _Submission([], None, 0.0, 0)
        self._enqueue(marker)
        self.wait_for(marker)

    def wait_for(self, submission: _Submission, timeout_s: float | None = None) -> int:
        """See ``Transfer.wait``."""
        if not submission.ended:
            self.hurry()
            with self._core.lock:
                if not self._core.lock.wait_for(lambda: submission.ended, timeout_s):
                    raise TimeoutError(f"{len(submission.moves)} moves have not ended within {timeout_s} s; they go on")
        if submission.error is not None:
            raise submission.error
        return submission.succeeded

    def close(self) -> None:
        """Finish what is queued and end the thread."""
        with self._bell:
            self._closed = True
        self.hurry()
        self._thread.shutdown(wait=True)

    def carry(self, moves: Iterable[Move]) -> int:
        """Carry moves out now, with the drops that follow from them; returns how many succeeded.

        May be called from any thread. Drops wait for nobody; copies share one staging buffer.
        """
        done, broken = self._carry(moves)
        for error in broken.values():
            raise error
        return len(done)

    def _enqueue(self, new: _Submission) -> None:
        with self._core.lock, self._bell:
            if self._closed:
                raise TierClosedError("store", "used after close()")
            if not self._working:
                self._thread.submit(self._work)
                self._working = True
            self.num_pending += 1
            for tier, num_bytes in self._bytes_by_tier(new.moves).items():
                self._core.loads.begin(self, tier, num_bytes)
            self._queue.append(new)
            self._bell.notify()

    def _work(self) -> None:
        """Carry out batch after batch, until nothing is queued."""
        while batch := self._next_batch():
            done, broken = self._carry(move for each in batch for move in each.moves)
            with self._core.lock:
                self.num_pending -= len(batch)
                for each in batch:
                    for tier, num_bytes in self._bytes_by_tier(each.moves).items():
                        self._core.loads.end(self, tier, num_bytes)
                    each.end(done, broken)
                self._core.lock.notify_all()

    def _next_batch(self) -> list[_Submission]:
        """The oldest submissions, as many as fill the staging buffer; empty once there are none."""
        with self._bell:
            while (seconds := self._time_left()) > 0:
                self._bell.wait(seconds)
            batch: list[_Submission] = []
            arrivals: Counter[int] = Counter()
            while self._queue:
                arrivals.update(move.dst for move in self._queue[0].moves if move.dst is not None)
                if batch and max(arrivals.values(), default=0) > len(self._staging.blocks):
                    break
                batch.append(self._queue.popleft())
            self._working = bool(batch)
            return batch

    def _time_left(self) -> float:
        """Seconds that what is queued may wait for more; none unless a durable tier would get a small batch."""
        num_durable = sum(each.num_durable for each in self._queue)
        if not 0 < num_durable < len(self._staging.blocks):
            return 0.0
        return min(each.begin_by for each in self._queue) - time.monotonic()

    def _carry(self, moves: Iterable[Move]) -> tuple[set[Move], dict[Move, Exception]]:
        """Which moves were carried out, follow-ups included, and which broke in a way that kvtier does not know."""
        done: set[Move] = set()
        broken: dict[Move, Exception] = {}
        queue = deque(self._lanes(moves))
        while queue:
            lane = queue.popleft()
            try:
                good, follow = self._drop(lane) if lane[0].dst is None else self._copy(lane)
            except Exception as exc:
                log.exception("a move failed in a way kvtier does not know; its blocks are not served")
                broken.update(dict.fromkeys(lane, exc))
                continue
            done.update(good)
            queue.extend(self._lanes(follow))
        return done, broken

    def _bytes_by_tier(self, moves: Sequence[Move]) -> Counter[str]:
        """What copies will read from and write to each tier, by its name."""
        copies = [move for move in moves if move.dst is not None]
        ends = (end for move in copies for end in (move.src, move.dst) if end is not None)
        return Counter({self._tiers[end].name: count * self._core.block_bytes for end, count in Counter(ends).items()})

    def _lanes(self, moves: Iterable[Move]) -> list[list[Move]]:
        """Moves in an order that is safe for any mix of plans, in runs between the same two tiers.

        A run of copies is as long as the staging buffer.
        """
        lanes: list[list[Move]] = []
        for _, same in groupby(sorted(moves, key=_turn), key=_turn):
            run = list(same)
            step = len(run) if run[0].dst is None else len(self._staging.blocks)
            lanes += [run[start : start + step] for start in range(0, len(run), step)]
        return lanes

    def _drop(self, lane: list[Move]) -> tuple[list[Move], list[Move]]:
        src = lane[0].src
        assert src is not None
        self._delete(src, [move.key for move in lane])
        return lane, self._core.settle(lane, [])

    def _copy(self, lane: list[Move]) -> tuple[list[Move], list[Move]]:
        src, dst = lane[0].src, lane[0].dst
        assert src is not None
        assert dst is not None
        labels = self._labels(lane)
        with self._staging.lock:
            read, follow = self._stage(src, lane, labels)
            good = list(compress(lane, read))
            try:
                self._tiers[dst].write(
                    [move.key for move in good],
                    list(compress(self._staging.blocks, read)),
                    list(compress(labels, read)),
                )
                self._core.worked(dst, "write")
            except TierError as exc:
                self._core.failed(dst, exc, "write")
                good = [move for move in good if isinstance(exc, BlockRefusedError) and move.key not in exc.keys]
            self._delete(src, [move.key for move in lane if not move.keep])
        arrived = {move.key for move in good}
        failed = [move for move in lane if move.key not in arrived]
        return good, follow + self._core.settle(good, failed)

    def _stage(self, src: int, lane: list[Move], labels: list[Label]) -> tuple[list[bool], list[Move]]:
        """Read a lane into the staging buffer; which blocks are good, and drops for those that are not.

        The blocks of a lane are victims or parts of chains: one that cannot be read says nothing
        about the next, so the read goes on behind it.
        """
        read: list[bool] = []
        follow: list[Move] = []
        while (start := len(read)) < len(lane):
            keys = [move.key for move in lane[start:]]
            error: CorruptBlockError | None = None
            try:
                count = self._tiers[src].read(keys, self._staging.blocks[start : len(lane)], labels[start:])
            except CorruptBlockError as exc:
                error, count = exc, keys.index(BlockHash(exc.key))
            except TierError as exc:  # the blocks may well be there
                self._core.failed(src, exc, "read")
                return read + [False] * (len(lane) - start), follow
            read += [True] * count
            if len(read) < len(lane):
                follow += self._core.forget(lane[len(read)].key, src, error)
                read.append(False)
        return read, follow

    def _labels(self, lane: list[Move]) -> list[Label]:
        with self._core.lock:
            index = self._core.placement.index
            return [index[move.key].label for move in lane]

    def _delete(self, tier: int, keys: list[BlockHash]) -> None:
        if not keys:
            return
        try:
            self._tiers[tier].delete(keys)
        except TierError as exc:
            self._core.failed(tier, exc, "write")


def _turn(move: Move) -> tuple[int, int, int]:
    """When a move comes in a batch, see the module; moves of one turn are between the same two tiers."""
    assert move.src is not None
    if move.dst is None:
        return 0, 0, -move.src
    return int(move.dst < move.src) + 1, -move.dst, -move.src
