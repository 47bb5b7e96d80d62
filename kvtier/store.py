"""The store: a prompt's blocks in the fastest place there is room, and back again.

    match   hashing -> placement                                    asks, changes nothing
    get     hashing -> placement, lease -> tier.read -> touch       then promotion in the background
    put     hashing -> placement -> tier.write                      then demotion in the background

Decisions are made under one lock and take microseconds; no lock of the store is held while
bytes move. A ``put`` copies its blocks into the fastest tier at once and leaves the victims to
the background; the fastest tier keeps a few places aside for that (``write_behind_bytes``),
so a prompt never waits for a disk unless those places are used up, and then only for
``put_patience_s`` before victims are dropped instead of sinking. Losing a block is allowed,
serving a wrong one never, blocking the engine never.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Literal, Self
from weakref import WeakSet

import torch
from numpy.typing import NDArray

from kvtier.answers import Flushed, Hit, Stored
from kvtier.core import Core
from kvtier.econ.profile import Profile
from kvtier.errors import SpecMismatchError, TierClosedError, TierError
from kvtier.hashing import BlockHash, Chain, Namespace, name_chain
from kvtier.leases import name_leaked, release_lapsed
from kvtier.listing import Listing
from kvtier.neighbours import explained, neighbours_of
from kvtier.rates import LoadCosts
from kvtier.reader import Reader
from kvtier.ruling import Ruling, check_options, placement_of
from kvtier.streaming import Arrivals, Stream, parts_of
from kvtier.tiers.base import SharedTier, Tier, check_blocks, check_layers, check_tiers
from kvtier.tiers.batches import wait_for
from kvtier.transfer import Mover, Transfer
from kvtier.writer import Writer, write_behind_blocks

log = logging.getLogger("kvtier")

Tokens = Sequence[int] | NDArray[Any]


class TieredStore:
    """KV blocks of prompts, over an ordered list of tiers.

    For the common case use ``kvtier.open_store``. Safe to use from many threads.

    Args:
        tiers: Fastest first, at least one; all with the namespace's block size. The store closes them.
        namespace: Whose blocks these are.
        write: When a block reaches the last tier: ``"on_eviction"`` (it sinks tier by tier as room
            is needed) or ``"on_insertion"`` (copied there in the background at once: more is
            written, and eviction costs nothing; what the background cannot keep up with sinks later).
        promote: Copy blocks that a get found below up to the fastest tier, in the background.
        put_patience_s: Longest a put waits for room that the background is making, before it drops
            victims instead of letting them sink. 0.05 s is what a disk of 1.3 GB/s takes for a batch of the
            background (64 MiB), and about as long as a user does not notice in a stream of tokens. 0 never waits.
        group_age_s: Longest that a few blocks on their way to a durable tier wait for others to be
            committed with. Nobody waits for that: a flush, a close, a prefetch and a put in need of
            places cut it short. 0 commits what there is.
        policy: Who leaves a full tier, by name, see ``kvtier.policy.registry``; one for all tiers, or one for each.
        admission: What is worth writing to a tier, likewise. What is not counts as refused.
        ttl_s: Seconds for which a tier keeps a block after its last use, likewise; None for as long as there is room.

    Raises:
        ConfigError: No tier, two with one name, a time below 0, or a policy or admission that is not known.
        SpecMismatchError: A tier has another block size.
    """

    def __init__(
        self,
        tiers: Sequence[Tier],
        namespace: Namespace,
        *,
        write: Literal["on_eviction", "on_insertion"] = "on_eviction",
        promote: bool = True,
        put_patience_s: float = 0.05,
        group_age_s: float = 0.02,
        policy: str | Sequence[str] = "lru",
        admission: str | Sequence[str] = "all",
        ttl_s: float | Sequence[float | None] | None = None,
    ) -> None:
        check_tiers(tiers, namespace.spec.block_bytes)
        check_options(write, put_patience_s=put_patience_s, group_age_s=group_age_s)
        self.namespace = namespace
        self.spec = namespace.spec
        self.tiers = tuple(tiers)
        self._promote = promote
        self._behind = write_behind_blocks(tiers)
        ruling = Ruling(policy=policy, admission=admission, ttl_s=ttl_s)
        placement = placement_of(tiers, ruling, set_aside_blocks=self._behind)
        self._core = core = Core(self.tiers, placement, set_aside_blocks=self._behind)
        pinned = torch.cuda.is_available() and any(tier.any_device for tier in tiers)
        self._mover = Mover(core, pinned=pinned, group_age_s=group_age_s)
        self._reader = Reader(core, self._mover, pinned=pinned)
        self._writer = Writer(
            core,
            self._mover,
            behind=self._behind,
            write_through=write == "on_insertion" and len(tiers) > 1 and tiers[-1].durable,
            patience_s=put_patience_s,
        )
        self._streams: WeakSet[Stream[Hit]] = WeakSet()
        self._closed, self._pid = False, os.getpid()
        self._neighbours = neighbours_of(tiers, namespace)
        for i, tier in enumerate(tiers):
            if tier.durable:
                self._restore(i)

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
        chain = self.name(tokens)
        return explained(self.match_chain(chain.keys), chain, self._core, self._neighbours)

    def match_chain(self, keys: Sequence[BlockHash]) -> Hit:
        """``match`` for a caller that names its own blocks."""
        self._look_around()
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
        self._look_around()
        keys, placement = self.name(tokens).keys, self._core.placement
        with self._core.lock:
            release_lapsed(self._core.placement.index)
            found = placement.match(keys)
            lease = placement.lease(keys, owner, time.monotonic() + ttl_s)
        try:
            yield self._hit(found.tiers, found.stopped_by)
        finally:
            with self._core.lock:
                placement.release(lease)

    def stats(self) -> dict[str, Any]:
        """Counters (see ``kvtier.metrics.COUNTERS``), live leases and, by tier, its state and what it holds."""
        return self._core.report() | {"write_behind_bytes": self._behind * self.spec.block_bytes}

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
        self._look_around()
        wanted = chain.part(0, len(out))
        check_blocks("get", self.spec.block_bytes, wanted.keys, out[: len(wanted)])
        lease, ended_by = self._reader.hold(wanted, "get")
        sources, failed_by = self._reader.read(wanted, out, lease, beside=bool(computing))
        return self._served(chain, wanted, sources, failed_by or ended_by, promote=computing is None)

    def stream(self, tokens: Tokens, out: Sequence[torch.Tensor]) -> Stream[Hit]:
        """``get`` in the background, layer by layer, for a model that computes on the first layers meanwhile.

        Args:
            tokens: The prompt, shape ``[num_tokens]``.
            out: As for ``get``, but each shaped ``[layers, ...]``; the caller's again after ``result``.

        Returns:
            ``num_promised`` blocks are on their way; ``wait(layer)`` returns when a layer of all of
            them may be computed on; ``result()`` waits for the end and says what arrived. If that is less than
            was promised, what was computed meanwhile must be thrown away.

        Raises:
            TokenError: See ``kvtier.hashing.token_array``.
            SpecMismatchError: A buffer has the wrong size, dtype or shape.
            TierClosedError: The store is closed.
        """
        self._look_around()
        chain = self.name(tokens)
        wanted = chain.part(0, len(out))
        arrivals = Arrivals(parts_of(self.spec.layers, self.spec.block_bytes))
        check_blocks("stream", self.spec.block_bytes, wanted.keys, out[: len(wanted)])
        check_layers("stream", wanted.keys, out[: len(wanted)], arrivals.parts)
        wait_for(*out)  # the copies run on streams of their own
        lease, ended_by = self._reader.hold(wanted, "stream")

        def work() -> tuple[Hit, bool]:
            sources, failed_by = self._reader.read(wanted, out, lease, arrivals=arrivals, beside=True)
            return self._served(chain, wanted, sources, failed_by or ended_by), failed_by is None

        stream = Stream(arrivals, len(lease.nodes), work)
        self._streams.add(stream)
        return stream

    def _served(
        self, chain: Chain, wanted: Chain, sources: Sequence[int], stopped_by: str | None, *, promote: bool = True
    ) -> Hit:
        """Count what a read of a chain's leading blocks delivered, and start bringing it up."""
        if stopped_by is None and len(wanted) < len(chain):
            stopped_by = "no_buffer"
        hit = explained(self._hit(sources, stopped_by), chain, self._core, self._neighbours)
        served = wanted.keys[: len(sources)]
        with self._core.lock:
            release_lapsed(self._core.placement.index)
            self._core.placement.touch(wanted.keys)
            self._core.metrics.add("gets")
            self._core.metrics.add("missed_blocks", len(wanted) - len(sources), of=hit.stopped_by)
            for tier in sources:
                self._core.metrics.add("hit_blocks", of=self.tiers[tier].name)
        if promote and any(sources):
            self.promote_chain(served)
        return hit

    def promote_chain(self, keys: Sequence[BlockHash]) -> None:
        """Copy blocks that a get has delivered to the fastest tier, in the background, if the store does so."""
        if self._promote:
            with self._core.lock:
                moves = self._core.placement.plan_promote(keys)
            # Once there, they are put in order with the blocks of their prompt that were there before.
            self._mover.submit(moves, partial(self._core.placement.arrange, keys) if moves else None)

    def load_costs(self, profile: Profile | None = None) -> LoadCosts:
        """What reading from each tier takes, learnt from a profile and the reads so far, and what is queued there."""
        with self._core.lock:
            return self._core.loads.costs(profile)

    def prefetch(self, tokens: Tokens) -> Transfer:
        """Start bringing a prompt's leading blocks up to the fastest tier."""
        self._look_around()
        keys = self.name(tokens).keys
        with self._core.lock:
            release_lapsed(self._core.placement.index)
            moves = self._core.placement.plan_promote(keys)
        return self._mover.submit(moves, urgent=True)

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
        self._look_around()
        part = chain.part(start, start + len(blocks))
        if start < 0 or len(part) < len(blocks):
            raise SpecMismatchError(
                f"put: {len(blocks)} blocks from number {start} on, but the prompt has {len(chain)} whole blocks"
            )
        check_blocks("put", self.spec.block_bytes, part.keys, blocks)
        with self._core.lock:
            release_lapsed(self._core.placement.index)
            self._core.placement.touch([key for key in part.keys if self._core.holds(key)])  # the rest a get has told
            self._core.placement.arrange(chain.keys)  # others make room for a prompt's tail before its head does
        num_new = self._writer.write(part, blocks, chain)
        with self._core.lock:
            self._core.placement.arrange(chain.keys)
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
                release_lapsed(self._core.placement.index)
                moves = self._core.placement.plan_copy_down()
            self._mover.carry(moves)
            with self._core.lock:
                index = self._core.placement.index
                copied = {move.key for move in moves if move.dst == last and move.keep}
                num_blocks = sum(
                    (node := index.get(key)) is not None and bool(node.tiers >> last & 1) for key in copied
                )
                left = sum(not node.tiers >> last & 1 for node in index.alive(besides=last))
            self.tiers[last].flush()
        return Flushed(num_blocks, num_blocks * self.spec.block_bytes, time.perf_counter() - began, left)

    def close(self) -> Flushed:
        """Flush, then release every tier; a second close does nothing.

        Returns:
            What was brought down, and the leases never released; also logged. If a tier fails to
            flush, that is logged as a warning and the store is closed all the same.
        """
        done = Flushed(0, 0, 0.0, 0)
        if self._closed:
            return done
        for stream in list(self._streams):
            stream.wait_for_end()
        try:
            done = self.flush()
        except TierError as exc:
            log.warning("close: what only memory held is lost: %s", exc)
        self._closed = True
        with self._core.lock:
            done = replace(done, leaked=name_leaked(self._core.placement.index))
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

    def _restore(self, tier: int) -> None:
        """Take up what a durable tier holds."""
        asked = self.tiers[tier]
        held = asked.scan()
        if isinstance(held, Listing):
            self._core.metrics.add("damaged_blocks", held.damaged, of="entry")
        shared = isinstance(asked, SharedTier) and asked.shared
        self._mover.carry(self._core.placement.restore(tier, held, shared=shared))

    def _look_around(self) -> None:
        """Before every verb: is the store open, and have tiers changed without its doing?"""
        self._check_open()
        self._mover.submit(self._core.follow())

    def _hit(self, tiers: Sequence[int], stopped_by: str | None) -> Hit:
        return Hit(len(tiers) * self.spec.block_tokens, tuple(self.tiers[tier].name for tier in tiers), stopped_by)

    def _check_open(self) -> None:
        if self._closed:
            raise TierClosedError("store", "used after close()")
        if os.getpid() != self._pid:
            raise TierClosedError("store", "used in a forked process; open a store of its own there")
