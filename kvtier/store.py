"""The store: a prompt's blocks in the fastest place there is room, and back again.

    match   hashing -> placement                                    asks, changes nothing
    get     hashing -> placement, lease -> tier.read -> touch       then promotion in the background
    put     hashing -> placement -> tier.write                      then demotion in the background

Decisions are made under one lock and take microseconds; no lock of the store is held while
bytes move. A ``put`` copies its blocks into the fastest tier at once and leaves the victims to
the background; the fastest tier keeps a few places aside for that (``write_behind_bytes``),
so a prompt never waits for a disk unless those places are used up, and then only for
``put_patience_s`` before the rest of its blocks is not stored. Losing a block is allowed,
serving a wrong one never, blocking the engine never.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from numpy.typing import NDArray

from kvtier.core import Core
from kvtier.errors import ConfigError, SpecMismatchError, TierClosedError, TierError
from kvtier.hashing import BlockHash, Chain, Namespace, name_chain
from kvtier.placement import Placement, TierRules
from kvtier.policy.lru import LRU
from kvtier.rates import LoadCosts
from kvtier.reader import Reader
from kvtier.tiers.base import Tier, check_blocks
from kvtier.transfer import Mover, Transfer
from kvtier.writer import Writer, write_behind_blocks

log = logging.getLogger("kvtier")

Tokens = Sequence[int] | NDArray[Any]


@dataclass(frozen=True, slots=True)
class Hit:
    """The leading blocks of a prompt that the store holds, or has just delivered."""

    num_tokens: int
    """Tokens covered: whole blocks only."""

    tiers: tuple[str, ...]
    """For each block, the name of the tier it comes from, in prefix order."""

    stopped_by: str | None
    """Why the run ends before the prompt's last whole block: ``None`` (it does not),
    ``"not_held"``, ``"in_flight"``, ``"damaged"``, ``"unavailable"`` or ``"no_buffer"``."""

    @property
    def num_blocks(self) -> int:
        """Blocks covered."""
        return len(self.tiers)


@dataclass(frozen=True, slots=True)
class Stored:
    """What a put did."""

    num_new: int
    """Blocks taken up."""

    num_refused: int
    """Blocks not held now because no room could be made in time."""


@dataclass(frozen=True, slots=True)
class Flushed:
    """What flush or close brought to the last tier."""

    num_blocks: int
    num_bytes: int
    seconds: float
    num_left: int
    """Blocks that only memory holds, because the last tier has no room for them."""


class TieredStore:
    """KV blocks of prompts, over an ordered list of tiers.

    For the common case use ``kvtier.open_store``. Safe to use from many threads.

    Args:
        tiers: Fastest first, at least one; all with the namespace's block size. The store closes them.
        namespace: Whose blocks these are.
        write: When a block reaches the last tier: ``"on_eviction"`` (it sinks tier by tier as room
            is needed) or ``"on_insertion"`` (copied there in the background at once: more is
            written, and eviction costs nothing).
        promote: Copy blocks that a get found below up to the fastest tier, in the background.
        put_patience_s: Longest a put waits for room that the background is making.

    Raises:
        ConfigError: No tier, or two with one name.
        SpecMismatchError: A tier has another block size.
    """

    def __init__(
        self,
        tiers: Sequence[Tier],
        namespace: Namespace,
        *,
        write: Literal["on_eviction", "on_insertion"] = "on_eviction",
        promote: bool = True,
        put_patience_s: float = 0.25,
    ) -> None:
        _check_tiers(tiers, namespace.spec.block_bytes)
        if write not in {"on_eviction", "on_insertion"}:
            raise ConfigError(f"write must be 'on_eviction' or 'on_insertion', got {write!r}")
        self.namespace = namespace
        self.spec = namespace.spec
        self.tiers = tuple(tiers)
        self._promote = promote
        self._behind = write_behind_blocks(tiers)
        rules = [
            TierRules(tier.capacity_bytes // tier.block_bytes - (0 if i else self._behind), LRU(), tier.durable)
            for i, tier in enumerate(tiers)
        ]
        self._core = core = Core(self.tiers, Placement(rules))
        pinned = torch.cuda.is_available() and any(tier.any_device for tier in tiers)
        self._mover = Mover(core, pinned=pinned)
        self._reader = Reader(core, self._mover, pinned=pinned)
        self._writer = Writer(
            core,
            self._mover,
            behind=self._behind,
            write_through=write == "on_insertion" and len(tiers) > 1 and tiers[-1].durable,
            patience_s=put_patience_s,
        )
        self._closed = False
        for i, tier in enumerate(tiers):
            if tier.durable:
                self._mover.carry(core.placement.restore(i, tier.scan()))

    # Naming

    def name(self, tokens: Tokens) -> Chain:
        """Names of a prompt's whole blocks. Raises TokenError for what is not a prompt."""
        return name_chain(self.namespace, tokens)

    # Asking

    def match(self, tokens: Tokens) -> Hit:
        """The leading blocks of a prompt that could be read now. Changes nothing.

        Raises:
            TokenError: See ``kvtier.hashing.token_array``.
        """
        return self.match_chain(self.name(tokens).keys)

    def match_chain(self, keys: Sequence[BlockHash]) -> Hit:
        """``match`` for a caller that names its own blocks."""
        self._check_open()
        with self._core.lock:
            found = self._core.placement.match(keys)
        return self._hit(found.tiers, found.stopped_by)

    @contextmanager
    def pin(self, tokens: Tokens, *, owner: str, ttl_s: float = 60.0) -> Iterator[Hit]:
        """Keep the leading blocks of a prompt readable for the length of a ``with`` block.

        Args:
            tokens: The prompt.
            owner: Named in the log if the lease outlives its deadline or the store.
            ttl_s: Seconds until the lease lapses by itself.
        """
        self._check_open()
        keys = self.name(tokens).keys
        placement = self._core.placement
        with self._core.lock:
            self._expire_leases()
            found = placement.match(keys)
            lease = placement.lease(keys, owner, time.monotonic() + ttl_s)
        try:
            yield self._hit(found.tiers, found.stopped_by)
        finally:
            with self._core.lock:
                placement.release(lease)

    def stats(self) -> dict[str, Any]:
        """Counters (see ``kvtier.metrics.COUNTERS``) and, by tier, blocks and bytes held and capacity."""
        with self._core.lock:
            counters = self._core.metrics.snapshot()
        tiers = {
            tier.name: {
                "used_blocks": tier.used_bytes // tier.block_bytes,
                "used_bytes": tier.used_bytes,
                "capacity_bytes": tier.capacity_bytes,
            }
            for tier in self.tiers
        }
        return {"counters": counters, "tiers": tiers, "write_behind_bytes": self._behind * self.spec.block_bytes}

    # Reading

    def get(self, tokens: Tokens, out: Sequence[torch.Tensor]) -> Hit:
        """Copy the leading blocks of a prompt into the caller's buffers.

        Args:
            tokens: The prompt, shape ``[num_tokens]``.
            out: A buffer for each leading block wanted, in order: ``uint8``, ``block_bytes``
                elements, any shape and strides, on any device. Fewer than the prompt has blocks
                is fine.

        Returns:
            What was delivered: ``out[:hit.num_blocks]`` hold the blocks, the rest is undefined.
            Damage and failing tiers are misses.

        Raises:
            TokenError: See ``kvtier.hashing.token_array``.
            SpecMismatchError: A buffer has the wrong size or dtype.
            TierClosedError: The store is closed.
        """
        return self.get_chain(self.name(tokens), out)

    def get_chain(self, chain: Chain, out: Sequence[torch.Tensor], *, computing: bool | None = None) -> Hit:
        """``get`` for a caller that names its own blocks; they may start anywhere in a prompt.

        Args:
            chain: Blocks in prefix order.
            out: As for ``get``.
            computing: Given if this is one of several gets for one prompt: whether a model computes
                at the same time, for what is learnt from it. Promotion is then left to ``promote_chain``.
        """
        self._check_open()
        wanted = chain.part(0, len(out))
        check_blocks("get", self.spec.block_bytes, wanted.keys, out[: len(wanted)])
        sources, stopped_by = self._reader.read(wanted, out, "get", beside=bool(computing))
        if stopped_by is None and len(wanted) < len(chain):
            stopped_by = "no_buffer"
        served = wanted.keys[: len(sources)]
        with self._core.lock:
            self._expire_leases()
            self._core.placement.touch(served)
            self._core.metrics.add("gets")
            self._core.metrics.add("missed_blocks", len(wanted) - len(sources))
            for tier in sources:
                self._core.metrics.add("hit_blocks", tier=self.tiers[tier].name)
        if computing is None and any(sources):
            self.promote_chain(served)
        return self._hit(sources, stopped_by)

    def promote_chain(self, keys: Sequence[BlockHash]) -> None:
        """Copy blocks that a get has delivered to the fastest tier, in the background, if the store does so."""
        if self._promote:
            with self._core.lock:
                moves = self._core.placement.plan_promote(keys)
            self._mover.submit(moves)

    def load_costs(self) -> LoadCosts:
        """What reading from each tier takes, learnt from the reads so far, and what is queued there."""
        with self._core.lock:
            return self._core.loads.costs()

    def prefetch(self, tokens: Tokens) -> Transfer:
        """Start bringing a prompt's leading blocks up to the fastest tier."""
        self._check_open()
        keys = self.name(tokens).keys
        with self._core.lock:
            moves = self._core.placement.plan_promote(keys)
        return self._mover.submit(moves)

    # Writing

    def put(self, tokens: Tokens, blocks: Sequence[torch.Tensor], *, start: int = 0) -> Stored:
        """Store whole blocks of a prompt.

        Args:
            tokens: The prompt, shape ``[num_tokens]``.
            blocks: Its whole blocks from number ``start`` on: ``uint8``, ``block_bytes`` elements
                each, any shape and strides, on any device. Copied before the call returns.
            start: Blocks before the first one given; the store must still hold them, or nothing
                is stored.

        Raises:
            TokenError: See ``kvtier.hashing.token_array``.
            SpecMismatchError: A buffer has the wrong size or dtype, or there are more than the
                prompt has whole blocks; nothing was stored.
            TierClosedError: The store is closed.
        """
        return self.put_chain(self.name(tokens), blocks, start=start)

    def put_chain(self, chain: Chain, blocks: Sequence[torch.Tensor], *, start: int = 0) -> Stored:
        """``put`` for a caller that names its own blocks."""
        self._check_open()
        part = chain.part(start, start + len(blocks))
        if start < 0 or len(part) < len(blocks):
            raise SpecMismatchError(
                f"put: {len(blocks)} blocks from number {start} on, but the prompt has {len(chain)} whole blocks"
            )
        check_blocks("put", self.spec.block_bytes, part.keys, blocks)
        with self._core.lock:  # room for a prompt's tail is made by others before it is made by its head
            self._core.placement.touch(chain.keys)
        num_new = self._writer.write(part, blocks)
        with self._core.lock:
            self._core.placement.touch(chain.keys)
            refused = sum(not self._core.holds(key) for key in part.keys)
            self._core.metrics.add("puts")
            self._core.metrics.add("refused_blocks", refused)
        return Stored(num_new, refused)

    def flush(self) -> Flushed:
        """Bring every block that only memory holds to the last tier, and sync it.

        Without a durable tier this only waits for the background.
        """
        self._check_open()
        began = time.perf_counter()
        self._mover.drain()
        num_blocks = left = 0
        last = len(self.tiers) - 1
        if self.tiers[last].durable:
            with self._core.lock:
                moves = self._core.placement.plan_copy_down()
            self._mover.carry(moves)
            with self._core.lock:
                nodes = self._core.placement.index.nodes
                copied = {move.key for move in moves if move.dst == last and move.keep}
                num_blocks = sum(key in nodes and bool(nodes[key].tiers >> last & 1) for key in copied)
                left = sum(not node.tiers >> last & 1 for node in self._core.placement.index.alive())
            self.tiers[last].flush()
        return Flushed(num_blocks, num_blocks * self.spec.block_bytes, time.perf_counter() - began, left)

    def close(self) -> Flushed:
        """Flush, then release every tier; a second close does nothing.

        Returns:
            What was brought down, also logged. If a tier fails to flush, that is logged as a
            warning and the store is closed all the same.
        """
        done = Flushed(0, 0, 0.0, 0)
        if self._closed:
            return done
        try:
            done = self.flush()
        except TierError as exc:
            log.warning("close: what only memory held is lost: %s", exc)
        self._closed = True
        with self._core.lock:
            leaked = sorted({lease.owner for lease in self._core.placement.index.leases})
        if leaked:
            log.warning("close: leases never released, held by: %s", ", ".join(leaked))
        self._mover.close()
        self._reader.close()
        for tier in self.tiers:
            tier.close()
        log.info("close: %d blocks, %d bytes brought down in %.3f s", done.num_blocks, done.num_bytes, done.seconds)
        return done

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _hit(self, tiers: Sequence[int], stopped_by: str | None) -> Hit:
        names = tuple(self.tiers[tier].name for tier in tiers)
        return Hit(len(names) * self.spec.block_tokens, names, stopped_by)

    def _expire_leases(self) -> None:
        for lease in self._core.placement.index.expire(time.monotonic()):
            log.warning("lease of %s lapsed after its deadline; it held %d blocks", lease.owner, len(lease.nodes))

    def _check_open(self) -> None:
        if self._closed:
            raise TierClosedError("store", "used after close()")


def _check_tiers(tiers: Sequence[Tier], block_bytes: int) -> None:
    if not tiers:
        raise ConfigError("a store needs at least one tier with room for a block")
    names = [tier.name for tier in tiers]
    if len(set(names)) < len(names):
        raise ConfigError(f"tier names must differ, got {names}")
    for tier in tiers:
        if tier.block_bytes != block_bytes:
            raise SpecMismatchError(
                f"{tier.name}: tier holds blocks of {tier.block_bytes} bytes, the namespace's have {block_bytes}"
            )
