"""Reading a leased chain, from whichever tier holds each block, into the caller's buffers.

Every tier gets all of its blocks as one batch, and all tiers read at the same time: what comes from
memory is copied while the disk's queue is full.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Literal, NamedTuple

import torch

from kvtier.core import Core
from kvtier.errors import CorruptBlockError, TierError
from kvtier.hashing import BlockHash, Chain
from kvtier.index import Lease
from kvtier.streaming import Arrivals
from kvtier.tiers.base import DirectTier, LayeredTier, Tier
from kvtier.tiers.batches import copy_across, wait_for
from kvtier.tiers.copying import Striper
from kvtier.transfer import Mover, Staging

_Way = Literal["whole", "layers", "via host"]
"""Blocks as they are, layer by layer, or through the staging buffer."""


class _How(NamedTuple):
    """How blocks are read."""

    arrivals: Arrivals | None
    beside: bool

    def way(self, source: Tier, out: Sequence[torch.Tensor]) -> _Way:
        """From a tier into buffers; layers only where somebody waits for them."""
        if source.any_device or all(buffer.device.type == "cpu" for buffer in out):
            return "layers" if self.arrivals is not None and isinstance(source, LayeredTier) else "whole"
        return "whole" if isinstance(source, DirectTier) and source.reaches(out) else "via host"


class Reader:
    """Delivers leading blocks of chains.

    Args:
        core: Whose tiers and placement.
        mover: Carries out the drops that follow from a block that cannot be read.
        pinned: Page-lock the buffer between a CPU-only tier and a device.
    """

    def __init__(self, core: Core, mover: Mover, *, pinned: bool = False) -> None:
        self._core = core
        self._mover = mover
        self._pinned = pinned
        self._striper = Striper("reader", max(2, len(core.tiers)))
        self._staging: Staging | None = None

    def hold(self, chain: Chain, owner: str) -> tuple[Lease, str | None]:
        """A lease on the leading run of a chain that is held, and why the run ends before the chain does."""
        with self._core.lock:
            stopped_by = self._core.placement.match(chain.keys).stopped_by
            return self._core.placement.lease(chain.keys, owner, float("inf")), stopped_by

    def read(
        self,
        chain: Chain,
        out: Sequence[torch.Tensor],
        lease: Lease,
        *,
        arrivals: Arrivals | None = None,
        beside: bool = False,
    ) -> tuple[list[int], str | None]:
        """Copy the blocks of a lease, and release it.

        Args:
            chain: Blocks that begin with the leased ones.
            out: A buffer for each, shaped ``[layers, ...]`` if there are ``arrivals``.
            lease: From ``hold``.
            arrivals: Told about layers as they come.
            beside: A model computes at the same time; what the read takes is learnt as such.

        Returns:
            The tier each delivered block came from, and why that is not all of the lease.
        """
        try:
            return self._read_leased(chain.part(0, len(lease.nodes)), out, lease, _How(arrivals, beside))
        finally:
            with self._core.lock:
                self._core.placement.release(lease)

    def close(self) -> None:
        """End the threads."""
        self._striper.close()

    def _read_leased(
        self, chain: Chain, out: Sequence[torch.Tensor], lease: Lease, how: _How
    ) -> tuple[list[int], str | None]:
        sources: list[int] = []
        while (at := len(sources)) < len(chain):
            with self._core.lock:
                tiers = self._core.placement.match(lease.keys[at:]).tiers
            if not tiers:
                return sources, "damaged"  # an ancestor was found damaged by another reader
            part = chain.part(at, at + len(tiers))
            if at:  # what a second look finds is there when the read is over
                how = _How(None, how.beside)
            done, error = self._read_at_once(tiers, part, out[at : at + len(tiers)], how)
            sources += tiers[:done]
            if isinstance(error, TierError):  # the block may well be there: it stays held
                self._core.failed(tiers[done], error, "read")
                return sources, "unavailable"
            if done < len(part) and self._still_in(tiers[done], part.keys[done]):
                self._mover.submit(self._core.forget(part.keys[done], tiers[done], error))
                return sources, "not_held" if error is None else "damaged"
        return sources, None

    def _read_at_once(
        self, tiers: Sequence[int], chain: Chain, out: Sequence[torch.Tensor], how: _How
    ) -> tuple[int, CorruptBlockError | TierError | None]:
        """Read each block from its tier, all tiers at the same time; how many arrived, and what stopped the rest."""
        mine: dict[int, list[int]] = {}
        for position, tier in enumerate(tiers):
            mine.setdefault(tier, []).append(position)
        shares = list(mine.items())
        if how.arrivals is not None:
            how.arrivals.expect(len(shares))
        ends: dict[int, CorruptBlockError | TierError | None] = {len(chain): None}
        stream = _stream_of(out)

        def work(turns: Iterator[int]) -> None:
            with torch.cuda.stream(stream) if stream is not None else nullcontext():
                for turn in turns:
                    tier, positions = shares[turn]
                    share = chain.picked(positions)
                    count, error = self._read_share(tier, share, [out[i] for i in positions], how)
                    if count < len(share):
                        ends[positions[count]] = error

        self._striper.run(len(shares), work, len(shares))
        end = min(ends)
        return end, ends[end]

    def _still_in(self, tier: int, key: BlockHash) -> bool:
        """Whether a block that a tier did not give should be there; else it was promoted meanwhile."""
        with self._core.lock:
            now = self._core.placement.match([key]).tiers
        return not now or now[0] == tier

    def _read_share(
        self, tier: int, share: Chain, out: Sequence[torch.Tensor], how: _How
    ) -> tuple[int, CorruptBlockError | TierError | None]:
        """Read blocks of one tier; how many arrived, and what stopped the rest."""
        way = how.way(self._core.tiers[tier], out)
        step = len(self._bounce().blocks) if way == "via host" else len(share)
        done = 0
        while done < len(share):
            part, targets = share.part(done, done + step), out[done : done + step]
            error: CorruptBlockError | TierError | None = None
            try:
                count = self._timed(tier, part, targets, how, way)
                if way == "layers":
                    self._core.worked(tier, "read")
                    return count, None
            except CorruptBlockError as exc:
                error, count = exc, part.keys.index(BlockHash(exc.key))
            except TierError as exc:
                error, count = exc, 0
            done += count
            if not isinstance(error, TierError):
                self._core.worked(tier, "read")
            if count < len(part):
                return done, error
        if how.arrivals is not None:
            how.arrivals.all_arrived()
        return done, None

    def _timed(self, tier: int, part: Chain, targets: Sequence[torch.Tensor], how: _How, way: _Way) -> int:
        """One request to a tier: blocks delivered. What it takes is learnt."""
        source, loads, user = self._core.tiers[tier], self._core.loads, object()
        num_bytes = len(part) * self._core.block_bytes
        with self._core.lock:
            crowded = loads.begin(user, source.name, num_bytes)
        count, began = 0, time.perf_counter()
        try:
            if way == "via host":
                count = self._via_host(tier, part, targets)
            elif way == "layers":
                assert how.arrivals is not None
                assert isinstance(source, LayeredTier)
                count = source.read_parts(part.keys, targets, part.labels, how.arrivals.parts, how.arrivals.arrived)
            else:
                count = source.read(part.keys, targets, part.labels)
        finally:
            seconds = time.perf_counter() - began
            with self._core.lock:
                loads.end(user, source.name, num_bytes)
                if count == len(part):  # answered in full
                    loads.observe(source.name, num_bytes, seconds, crowded=crowded, beside=how.beside)
        return count

    def _via_host(self, tier: int, part: Chain, out: Sequence[torch.Tensor]) -> int:
        """Host memory is the gateway: read into the staging buffer, then copy to the device."""
        staging = self._bounce()
        with staging.lock:
            try:
                count = self._core.tiers[tier].read(part.keys, staging.blocks[: len(part)], part.labels)
            except CorruptBlockError as exc:
                self._to_device(staging, out[: part.keys.index(BlockHash(exc.key))])
                raise
            self._to_device(staging, out[:count])
        return count

    def _to_device(self, staging: Staging, out: Sequence[torch.Tensor]) -> None:
        try:
            copy_across(staging.pool, range(len(out)), out, out=True)
        finally:  # also after an error: the staging buffer is about to be used again
            wait_for(*out)

    def _bounce(self) -> Staging:
        if self._staging is None:
            self._staging = Staging(self._core.block_bytes, pinned=self._pinned)
        return self._staging


def _stream_of(out: Sequence[torch.Tensor]) -> torch.cuda.Stream | None:
    """The caller's stream on the buffers' device: what it has queued there comes before the copies."""
    device = next((buffer.device for buffer in out if buffer.is_cuda), None)
    return None if device is None else torch.cuda.current_stream(device)
