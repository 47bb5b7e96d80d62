"""Taking up new blocks: into the fastest tier at once, victims in the background.

The fastest tier keeps some places aside. A put uses them for its blocks while the victims of
the same plan still wait to sink; the places are owed until those have left. When a put needs
more than are left, it waits for the background, for a bounded time, and then makes its room
at once: victims are dropped instead of sinking, whatever lies in another tier too before anything else.
So what a slow disk costs is old blocks, not new ones, and not the engine's time. New blocks are
refused only where nobody may be dropped.

Where the fastest tier is the only one, or is the disk, nothing is set aside: a put then makes
its room before it returns.

Everything is handed to the background after the copy, so that it does not compete with it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
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

#: Share of the fastest tier that may be queued for copying on insertion, and its bound. What is queued
#: cannot be evicted, so a put must find others.
_COPIES_SHARE = 2
_COPIES_BYTES = 256 << 20


def write_behind_blocks(tiers: Sequence[Tier]) -> int:
    """Places of the fastest tier to set aside; 0 where a put makes its room itself."""
    first = tiers[0]
    total = first.capacity_bytes // first.block_bytes
    if len(tiers) == 1 or first.durable or total < 2:
        return 0
    return max(1, min(total // _BEHIND_SHARE, _BEHIND_BYTES // first.block_bytes))


def copies_queued_blocks(first: Tier) -> int:
    """Blocks of the fastest tier that may wait for their copy on insertion at a time."""
    total = first.capacity_bytes // first.block_bytes
    return max(1, min(total // _COPIES_SHARE, _COPIES_BYTES // first.block_bytes))


class Writer:
    """Puts chains into the fastest tier.

    Args:
        core: Whose tiers and placement.
        mover: Takes the victims down.
        behind: Places set aside, see ``write_behind_blocks``.
        write_through: Also copy new blocks to the last tier, in the background, as long as no more
            than ``copies_queued_blocks`` wait for it.
        patience_s: Longest a put waits for places that are owed, before it drops victims.
    """

    def __init__(self, core: Core, mover: Mover, *, behind: int, write_through: bool, patience_s: float) -> None:
        self._core = core
        self._mover = mover
        self._behind = behind
        self._patience_s = patience_s
        self._owed = 0
        self._max_copies = copies_queued_blocks(core.tiers[0]) if write_through else 0
        self._copies = 0
        """Copies on insertion that are queued."""

    def write(self, part: Chain, blocks: Sequence[torch.Tensor], prompt: Chain) -> int:
        """Store the blocks of a part of a prompt that are not held, head first; returns how many are new."""
        deadline = time.monotonic() + self._patience_s
        with self._core.lock:
            part = self._core.placement.worth_writing(part)
        blocks = blocks[: len(part)]
        window = self._behind or max(1, len(part))
        num_new = 0
        for first in range(0, len(part), window):
            last = first + window
            new, whole = self._write_window(part.part(first, last), blocks[first:last], prompt, deadline)
            num_new += new
            if not whole:
                break
        return num_new

    def _write_window(
        self, part: Chain, blocks: Sequence[torch.Tensor], prompt: Chain, deadline: float
    ) -> tuple[int, bool]:
        """Store blocks that the places set aside suffice for: how many are new, and whether all are held now."""
        num_new = 0
        while True:
            with self._core.lock:
                if not self._missing(part):
                    return num_new, True
                demote = self._places_free(part, deadline)
                missing = self._missing(part)  # while it waited, others stored or dropped some
                new, at_once, later = self._plan(part, prompt, demote=demote)
                waited_for = self._mover.num_pending
            taken = self._take_up(new, at_once, later, part, blocks, prompt=prompt)
            num_new += taken
            if taken < len(new):
                return num_new, False
            if len(new) == missing:
                return num_new, True
            if not new and not (demote and waited_for and self._wait_for_progress(deadline)):
                return num_new, False

    def _missing(self, part: Chain) -> int:
        """Blocks of a part that are not held. Under the lock."""
        return sum(not self._core.holds(key) for key in part.keys)

    def _places_free(self, part: Chain, deadline: float) -> bool:
        """Wait until what is missing finds places that are not owed; False if that takes too long. Under the lock."""

        def free() -> bool:
            return self._owed + self._missing(part) - self._core.placement.free_blocks(0) <= self._behind

        if not self._behind or free():
            return True
        self._mover.hurry()
        return self._core.lock.wait_for(free, max(0.0, deadline - time.monotonic()))

    def _plan(self, part: Chain, prompt: Chain, *, demote: bool) -> tuple[list[Move], list[Move], list[Move]]:
        """Orders for new blocks, and those that make their room: now, and in the background. Under the lock."""
        placement = self._core.placement
        moves = placement.plan_write(part, hold=prompt.keys, demote=demote)
        new = [move for move in moves if move.src is None]
        rest = moves[: len(moves) - len(new)]
        if not demote:
            lost = sum(placement.index.nodes[move.key].dead for move in rest)
            self._core.metrics.add("dropped_demotions", lost)
        if not self._behind:
            return new, rest, []
        at_once = [move for move in rest if move.src == 0 and move.dst is None]
        later = [move for move in rest if move.src != 0 or move.dst is not None]
        self._owed += _leaving(later)
        return new, at_once, later

    def _wait_for_progress(self, deadline: float) -> bool:
        """Wait until something in the background has ended, which may be over by now; False if time is up."""
        self._mover.hurry()
        with self._core.lock:
            remaining = deadline - time.monotonic()
            return remaining > 0 and (not self._mover.num_pending or self._core.lock.wait(remaining))

    def _take_up(
        self,
        new: list[Move],
        at_once: list[Move],
        later: list[Move],
        part: Chain,
        blocks: Sequence[torch.Tensor],
        *,
        prompt: Chain,
    ) -> int:
        """Make room where that is to be done first, write new blocks, and leave the rest to the background.

        Returns how many new ones are held: those before the first that the tier did not take.
        """
        if at_once:
            self._mover.carry(at_once)
        lost = set(new)
        try:
            lost = self._copy_in(new, part, blocks)
        finally:  # also after an interrupt: the places would be owed for ever
            owed = _leaving(later)
            stored = [move for move in new if move not in lost]
            with self._core.lock:
                follow = self._core.settle(stored, [move for move in new if move in lost])
                self._mover.submit(later + follow, partial(self._pay, owed) if owed else None)
                if self._max_copies and stored:
                    self._copy_down(stored, prompt)
        return len(list(takewhile(lambda move: move not in lost, new)))

    def _copy_in(self, new: list[Move], part: Chain, blocks: Sequence[torch.Tensor]) -> set[Move]:
        """Write the new blocks of a part; returns those that the fastest tier did not take."""
        if not new:
            return set()
        if len(new) < len(part):
            wanted = {move.key for move in new}
            chosen = [i for i, key in enumerate(part.keys) if key in wanted]
            part = Chain([part.keys[i] for i in chosen], [part.labels[i] for i in chosen])
            blocks = [blocks[i] for i in chosen]
        first = self._core.tiers[0]
        if not first.any_device:  # a disk reads host memory only
            blocks = [block.cpu() for block in blocks]
        try:
            first.write(part.keys, blocks, part.labels)
            self._core.worked(0, "write")
        except TierError as exc:
            self._core.failed(0, exc, "write")
            return {move for move in new if not isinstance(exc, BlockRefusedError) or move.key in exc.keys}
        return set()

    def _copy_down(self, new: list[Move], prompt: Chain) -> None:
        """Queue copies of new blocks to the last tier, head first, as far as the bound allows. Under the lock."""
        room = self._max_copies - self._copies
        self._core.metrics.add("skipped_copies", max(0, len(new) - room))
        moves = self._core.placement.plan_copy_down([move.key for move in new[:room]])
        count = sum(move.keep for move in moves)
        self._copies += count
        self._mover.submit(moves, partial(self._copied, count, prompt) if count else None)

    def _copied(self, count: int, prompt: Chain) -> None:
        self._copies -= count
        self._core.placement.arrange(prompt.keys)  # its head may have been there before, and be older

    def _pay(self, places: int) -> None:
        self._owed -= places


def _leaving(moves: Sequence[Move]) -> int:
    """Places of the fastest tier that moves will give back."""
    return sum(move.src == 0 and not move.keep for move in moves)
