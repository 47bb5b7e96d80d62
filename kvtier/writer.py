"""Taking up new blocks: into the fastest tier at once, victims in the background.

The fastest tier keeps some places aside. A put uses them for its blocks while the victims of
the same plan still wait to sink; the places are owed until those have left. When as many are
owed as were set aside, a put waits for the background, for a bounded time, and then gives
the rest of its blocks up.

Where the fastest tier is the only one, or is the disk, nothing is set aside: a put then makes
its room before it returns.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import takewhile

import torch

from kvtier.core import Core
from kvtier.errors import BlockRefusedError, TierError
from kvtier.hashing import Chain
from kvtier.placement import Move
from kvtier.tiers.base import Tier
from kvtier.transfer import Mover

#: Share of the fastest tier set aside for blocks whose victims have not left yet, and its bound.
_BEHIND_SHARE = 4
_BEHIND_BYTES = 256 << 20


def write_behind_blocks(tiers: Sequence[Tier]) -> int:
    """Places of the fastest tier to set aside; 0 where a put makes its room itself."""
    first = tiers[0]
    total = first.capacity_bytes // first.block_bytes
    if len(tiers) == 1 or first.durable or total < 2:
        return 0
    return max(1, min(total // _BEHIND_SHARE, _BEHIND_BYTES // first.block_bytes))


class Writer:
    """Puts chains into the fastest tier.

    Args:
        core: Whose tiers and placement.
        mover: Takes the victims down.
        behind: Places set aside, see ``write_behind_blocks``.
        write_through: Also copy new blocks to the last tier, in the background.
        patience_s: Longest a put waits for places that are owed.
    """

    def __init__(self, core: Core, mover: Mover, *, behind: int, write_through: bool, patience_s: float) -> None:
        self._core = core
        self._mover = mover
        self._behind = behind
        self._write_through = write_through
        self._patience_s = patience_s
        self._owed = 0

    def write(self, chain: Chain, blocks: Sequence[torch.Tensor]) -> int:
        """Store the blocks of a chain that are not held, head first; returns how many are new."""
        deadline = time.monotonic() + self._patience_s
        window = self._behind or max(1, len(chain))
        num_new = 0
        for first in range(0, len(chain), window):
            part, bufs = chain.part(first, first + window), blocks[first : first + window]
            while not self._all_held(part):
                with self._core.lock:
                    if not self._places_free(len(part), deadline):
                        return num_new
                    new, rest = self._plan(part, chain)
                    waited_for = self._mover.num_pending
                taken = self._take_up(new, rest, part, bufs)
                num_new += taken
                if taken < len(new):
                    return num_new
                if not new and not (waited_for and self._wait_for_progress(deadline)):
                    return num_new
        return num_new

    def _places_free(self, count: int, deadline: float) -> bool:
        """Wait until ``count`` places are not owed; False if that takes too long. Under the lock."""
        return self._core.lock.wait_for(
            lambda: not self._behind or self._owed + count <= self._behind, max(0.0, deadline - time.monotonic())
        )

    def _plan(self, part: Chain, chain: Chain) -> tuple[list[Move], list[Move]]:
        """Orders for new blocks, and those that make their room."""
        moves = self._core.placement.plan_write(part, hold=chain.keys)
        rest = [move for move in moves if move.src is not None]
        self._owed += _leaving(rest)
        return [move for move in moves if move.src is None], rest

    def _wait_for_progress(self, deadline: float) -> bool:
        """Wait until something in the background has ended, which may be over by now; False if time is up."""
        with self._core.lock:
            remaining = deadline - time.monotonic()
            return remaining > 0 and (not self._mover.num_pending or self._core.lock.wait(remaining))

    def _take_up(self, new: list[Move], rest: list[Move], part: Chain, blocks: Sequence[torch.Tensor]) -> int:
        """Write new blocks now; make their room before (nothing set aside) or in the background.

        Returns how many are held: those before the first that the tier did not take.
        """
        quick = [move for move in rest if not self._behind or (move.src == 0 and move.dst is None)]
        self._mover.carry(quick)
        self._pay(_leaving(quick))
        wanted = {move.key for move in new}
        chosen = [i for i, key in enumerate(part.keys) if key in wanted]
        try:
            self._core.tiers[0].write(
                [part.keys[i] for i in chosen],
                self._reachable([blocks[i] for i in chosen]),
                [part.labels[i] for i in chosen],
            )
            follow = self._core.settle(new, [])
        except TierError as exc:
            self._core.count_error(0)
            stored = [move for move in new if isinstance(exc, BlockRefusedError) and move.key not in exc.keys]
            follow = self._core.settle(stored, [move for move in new if move not in stored])
            new = list(takewhile(lambda move: move in stored, new))
        slow = [move for move in rest if move not in quick]
        owed = _leaving(slow)
        self._mover.submit(slow + follow, (lambda: self._pay(owed)) if owed else None)
        if self._write_through and new:
            with self._core.lock:
                copies = self._core.placement.plan_copy_down([move.key for move in new])
            self._mover.submit(copies)
        return len(new)

    def _reachable(self, blocks: list[torch.Tensor]) -> list[torch.Tensor]:
        """The blocks where the fastest tier can read them: a disk reads host memory only."""
        return blocks if self._core.tiers[0].any_device else [block.cpu() for block in blocks]

    def _pay(self, places: int) -> None:
        with self._core.lock:
            self._owed -= places
            self._core.lock.notify_all()

    def _all_held(self, part: Chain) -> bool:
        with self._core.lock:
            return all(self._core.holds(key) for key in part.keys)


def _leaving(moves: Sequence[Move]) -> int:
    """Places of the fastest tier that moves will give back."""
    return sum(move.src == 0 and not move.keep for move in moves)
