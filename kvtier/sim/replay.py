"""A trace, request by request, through the decisions of a live store.

    for each request   expire -> match -> touch -> promote what was found below -> write what was missing -> arrange

The same ``Placement`` and the same policy objects as in ``TieredStore``, called in the order in which its
``get`` and ``put`` call them, with every move reported as done at once. So what differs from a live
store is what takes time there: a put that does not wait for the background, a block in flight
that is a miss, two requests that run at once. A request is looked up as a whole and then stored as a whole.

Names are the trace's ids, which serve as names because all that is asked of a name is to be
hashed and compared.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import cast

from kvtier.books import Move
from kvtier.hashing import BlockHash, Chain, Label
from kvtier.index import Match, PrefixIndex
from kvtier.placement import Placement, TierRules
from kvtier.policy.base import Admission, EvictionPolicy, Setting
from kvtier.policy.belady import Belady, Foresight
from kvtier.policy.registry import make_admission, make_policy
from kvtier.policy.ttl import TTL
from kvtier.sim.future import Future
from kvtier.sim.settings import Settings, TierSettings
from kvtier.sim.tally import Tally, TierTally
from kvtier.sim.trace import Request, Trace

_ROOT = cast("BlockHash", -1)
"""The parent of every first block."""

_LABEL: Callable[[tuple[BlockHash, int, bytes]], Label] = partial(tuple.__new__, Label)
"""A label from its fields, at half the cost of its constructor."""

_COLLECT_AFTER = 100_000, 50, 50
"""New objects before a collection of the youngest, and how many of those before one of the older."""

Served = tuple[Request, Match]


def needs_future(settings: Settings) -> bool:
    """Whether a policy of these settings looks ahead, so that the trace must be read twice."""
    return any(tier.policy == "belady" for tier in settings.tiers)


@contextmanager
def rare_collections() -> Iterator[None]:
    """Let the garbage collector of this process run rarely meanwhile.

    A replay makes and drops objects by the million and leaves no cycles; to look for some takes a good part of its
    time. For one replay at a time, and where nothing else in the process relies on collections.
    """
    before = gc.get_threshold()
    gc.set_threshold(*_COLLECT_AFTER)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@dataclass(slots=True)
class _Now:
    """The trace's clock."""

    s: float = 0.0

    def read(self) -> float:
        return self.s


class Replay:
    """One replay of one trace; its tally is whole once ``serve`` has been gone through.

    Args:
        trace: What is asked for.
        settings: By what.
        recompute_s: See ``Setting.recompute_s``.
        load_s: See ``Setting.load_s``, by the name of a tier.

    Raises:
        ConfigError: Unknown policy or admission.
        TraceError: A policy looks ahead, and the trace cannot be read.
    """

    def __init__(
        self,
        trace: Trace,
        settings: Settings,
        *,
        recompute_s: Callable[[int], float] | None = None,
        load_s: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        self.settings = settings
        self.tally = Tally([TierTally() for _ in settings.tiers])
        self._trace = trace
        self._now = _Now()
        self._index = PrefixIndex()
        self._future = Future(_requests(trace, settings)) if needs_future(settings) else None
        self._recompute_s = recompute_s
        self._load_s = load_s or {}
        self.placement = Placement([self._rules(tier) for tier in settings.tiers], self._index)

    def run(self) -> Tally:
        """Go through all requests."""
        for _ in self.serve():
            pass
        return self.tally

    def serve(self) -> Iterator[Served]:
        """Go through the requests; yields each with what was found for it, before it is stored."""
        tally = self.tally
        tokens = self._trace.block_tokens if self.settings.whole_requests else 1
        expires = self.placement.expires
        for request in _requests(self._trace, self.settings):
            self._now.s = request.time_s
            if self._future is not None:
                self._future.advance()
            if expires:
                self._expire()
            keys = cast("list[BlockHash]", request.blocks)
            match = self.placement.match(keys)
            num_hits = len(match)
            tally.requests += 1
            tally.references += len(keys)
            tally.prefix_hits += num_hits
            tally.block_hits += num_hits + self._held_behind(keys, num_hits)
            tally.input_tokens += request.input_tokens
            tally.token_hits += min(num_hits * tokens, request.input_tokens)
            for number, tier in enumerate(tally.tiers):
                tier.hits += match.tiers.count(number)
            yield request, match
            self._store(keys, match)
        tally.finish()

    def _store(self, keys: list[BlockHash], match: Match) -> None:
        """What a store does in a get that delivers the match, and in a put of the rest."""
        placement, num_hits = self.placement, len(match)
        placement.touch(keys)
        if self.settings.promote and any(match.tiers):
            self._carry(placement.plan_promote(match.keys))
            placement.arrange(keys)
        if num_hits == len(keys):
            return
        new = keys[num_hits:]
        parents = keys[num_hits - 1 : -1] if num_hits else [_ROOT, *keys[:-1]]
        labels = list(map(_LABEL, zip(parents, range(num_hits, len(keys)), repeat(b""))))
        self._write(placement.worth_writing(Chain(new, labels)))
        placement.arrange(keys)

    def _write(self, chain: Chain) -> None:
        """Store what is worth it. What is more than the first tier holds goes there, and sinks, in parts."""
        placement, several = self.placement, len(self.settings.tiers) > 1
        while chain.keys:
            moves = placement.plan_write(chain)
            self._carry(moves)
            if not several:
                return
            new = [move.key for move in moves if move.src is None]
            if self.settings.writes_through:
                self._carry(placement.plan_copy_down(new))
            if not new:
                return
            chain = chain.part(len(new), len(chain))

    def _expire(self) -> None:
        while moves := self.placement.plan_expire():  # a block's copy further down, once that above is gone
            lost = set[BlockHash]()
            for move in moves:
                assert move.src is not None
                tier = self.tally.tiers[move.src]
                tier.expired += 1
                if self._index.nodes[move.key].dead and move.key not in lost:
                    lost.add(move.key)
                    tier.lost += 1
            self._report(moves)

    def _carry(self, moves: list[Move]) -> None:
        """Count the orders of a plan, and report all of them as done."""
        self.tally.ordered(moves, self._index.nodes)
        self._report(self.placement.commit(moves))

    def _report(self, moves: list[Move]) -> None:
        """Carry out what follows from a plan."""
        while moves:
            self.tally.moved(moves)
            moves = self.placement.commit(moves)

    def _held_behind(self, keys: Sequence[BlockHash], num_hits: int) -> int:
        """References behind the first miss to blocks that are held all the same."""
        nodes = self._index.nodes
        if num_hits == len(keys):
            return 0
        return sum(map(nodes.__contains__, keys[num_hits:]))

    def _rules(self, tier: TierSettings) -> TierRules:
        """A tier's policy and admission."""
        setting = Setting(
            capacity_blocks=tier.capacity_blocks,
            depth=lambda key: self._index.nodes[key].depth,
            num_children=lambda key: self._index.nodes[key].num_children,
            clock=self._now.read,
            load_s=self._load_s.get(tier.name),
            next_use=None if self._future is None else self._future.next_use,
            **({} if self._recompute_s is None else {"recompute_s": self._recompute_s}),
        )
        policy = make_policy(tier.policy, setting, ttl_s=tier.ttl_s, refresh=tier.refresh)
        admission = self._admission(tier, setting, policy)
        return TierRules(tier.capacity_blocks, policy, durable=self.settings.keeps(tier), admission=admission)

    def _admission(self, tier: TierSettings, setting: Setting, policy: EvictionPolicy) -> Admission | None:
        inner = policy.inner if isinstance(policy, TTL) else policy
        if isinstance(inner, Belady) and tier.admission == "all":
            assert self._future is not None
            return Foresight(inner, tier.capacity_blocks, self._future.never)
        return make_admission(tier.admission, setting)


def _requests(trace: Trace, settings: Settings) -> Iterable[Request]:
    """A trace's requests, or its references one by one."""
    if settings.whole_requests:
        return trace
    return (request._replace(blocks=[block], input_tokens=1) for request in trace for block in request.blocks)
