"""Reading a leased chain, from whichever tier holds each block, into the caller's buffers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import groupby

import torch

from kvtier.core import Core
from kvtier.errors import CorruptBlockError, TierError
from kvtier.hashing import BlockHash, Chain
from kvtier.index import Lease
from kvtier.tiers.copying import Striper, copy_blocks, shaped
from kvtier.transfer import Mover, Staging


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
        self._striper = Striper("reader", 1)
        self._staging: Staging | None = None

    def read(
        self, chain: Chain, out: Sequence[torch.Tensor], owner: str, *, beside: bool = False
    ) -> tuple[list[int], str | None]:
        """Copy the leading run of a chain that is held.

        Args:
            chain: Blocks wanted, in prefix order.
            out: A buffer for each.
            owner: Who holds the lease meanwhile.
            beside: A model computes at the same time; what the read takes is learnt as such.

        Returns:
            The tier each delivered block came from, and why the run ended before the chain did.
        """
        with self._core.lock:
            stopped_by = self._core.placement.match(chain.keys).stopped_by
            lease = self._core.placement.lease(chain.keys, owner, float("inf"))
        try:
            sources, failed_by = self._read_leased(chain.part(0, len(lease.nodes)), out, lease, beside=beside)
        finally:
            with self._core.lock:
                self._core.placement.release(lease)
        return sources, failed_by or stopped_by

    def close(self) -> None:
        """End the threads."""
        self._striper.close()

    def _read_leased(
        self, chain: Chain, out: Sequence[torch.Tensor], lease: Lease, *, beside: bool
    ) -> tuple[list[int], str | None]:
        sources: list[int] = []
        while (at := len(sources)) < len(chain):
            with self._core.lock:
                tiers = self._core.placement.match(lease.keys[at:]).tiers
            if not tiers:
                return sources, "damaged"  # an ancestor was found damaged by another reader
            tier, run = next((tier, len(list(run))) for tier, run in groupby(tiers))
            done, error = self._read_run(tier, chain.part(at, at + run), out[at : at + run], beside=beside)
            sources += [tier] * done
            if done < run and self._still_in(tier, chain.keys[at + done]):
                self._mover.submit(self._core.forget(chain.keys[at + done], tier, error))
                return sources, "damaged" if isinstance(error, CorruptBlockError) else "unavailable"
        return sources, None

    def _still_in(self, tier: int, key: BlockHash) -> bool:
        """Whether a block that a tier did not give should be there; else it was promoted meanwhile."""
        with self._core.lock:
            now = self._core.placement.match([key]).tiers
        return not now or now[0] == tier

    def _read_run(
        self, tier: int, run: Chain, out: Sequence[torch.Tensor], *, beside: bool
    ) -> tuple[int, Exception | None]:
        """Read blocks of one tier; how many arrived, and what stopped the rest."""
        source = self._core.tiers[tier]
        direct = source.any_device or all(buffer.device.type == "cpu" for buffer in out)
        step = len(run) if direct else len(self._bounce().blocks)
        done = 0
        while done < len(run):
            part, targets = run.part(done, done + step), out[done : done + step]
            error: Exception | None = None
            try:
                count = self._read_timed(tier, part, targets, direct=direct, beside=beside)
            except CorruptBlockError as exc:
                error, count = exc, part.keys.index(BlockHash(exc.key))
            except TierError as exc:
                error, count = exc, 0
            done += count
            if count < len(part):
                return done, error
        return done, None

    def _read_timed(
        self, tier: int, part: Chain, targets: Sequence[torch.Tensor], *, direct: bool, beside: bool
    ) -> int:
        """One request to a tier; what it takes is learnt if it was answered in full."""
        source, loads, user = self._core.tiers[tier], self._core.loads, object()
        num_bytes = len(part) * self._core.block_bytes
        with self._core.lock:
            crowded = loads.begin(user, source.name, num_bytes)
        count, began = 0, time.perf_counter()
        try:
            count = source.read(part.keys, targets, part.labels) if direct else self._via_host(tier, part, targets)
        finally:
            seconds = time.perf_counter() - began
            with self._core.lock:
                loads.end(user, source.name, num_bytes)
                if count == len(part):
                    loads.observe(source.name, num_bytes, seconds, crowded=crowded, beside=beside)
        return count

    def _via_host(self, tier: int, part: Chain, out: Sequence[torch.Tensor]) -> int:
        """Host memory is the gateway: read into the staging buffer, then copy to the device."""
        staging = self._bounce()
        with staging.lock:
            buffers = staging.blocks[: len(part)]
            try:
                count = self._core.tiers[tier].read(part.keys, buffers, part.labels)
            except CorruptBlockError as exc:
                self._to_device(buffers, out, part.keys.index(BlockHash(exc.key)))
                raise
            self._to_device(buffers, out, count)
        return count

    def _to_device(self, buffers: Sequence[torch.Tensor], out: Sequence[torch.Tensor], count: int) -> None:
        pairs = [(target, shaped(buffer, target)) for buffer, target in zip(buffers[:count], out, strict=False)]
        copy_blocks(self._striper, [target for target, _ in pairs], [source for _, source in pairs])

    def _bounce(self) -> Staging:
        if self._staging is None:
            self._staging = Staging(self._core.block_bytes, pinned=self._pinned)
        return self._staging
