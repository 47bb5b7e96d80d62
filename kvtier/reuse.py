"""Whether to load a prefix that the store holds, to compute it, or both: what each would take.

    load      load all of it                                                then compute the rest of the prompt
    compute   compute the whole prompt
    both      load its head, load its end and compute its middle at once    then compute the rest of the prompt

The head is what lies in faster tiers in front of slower ones; it may be empty. With too little
observed to predict, loading is chosen, because that is what a store is for. Everything here is
decided from numbers given: no I/O, no clock.

Source: Jin et al., "Compute Or Load KV Cache? Why Not Both?", 2024 (Cake); see ``kvtier.ground``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Literal

from kvtier.ground import Ground, meeting_s
from kvtier.rates import Cost, LoadCosts, prefill_terms

Choice = Literal["load", "compute", "both"]

#: A piece is at least this part of what the better side alone would take.
_LEAST_SHARE = 0.03
#: Both must be predicted to take less than this part of the better side alone to be worth a thread.
_WORTH_BOTH = 0.95
#: A load predicted to take less is neither worth a decision nor a mistake in one.
_SHORT_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix:
    """What the store holds of one prompt, and what is to become of it.

    A unit is the least that can be reused: a block, or a chunk where computing is bound to chunks.
    """

    tiers: tuple[str, ...]
    """Where each leading block would come from; whole units only."""

    block_tokens: int
    block_bytes: int
    num_tokens: int
    """Tokens of the prompt to be in place in the end."""

    num_reusable: int
    """Tokens of them that need not be computed."""

    step: int | None = None
    """Forward passes end at multiples of this many tokens; None sets them no limits."""

    @property
    def unit_blocks(self) -> int:
        """Blocks of one unit."""
        return (self.step or self.block_tokens) // self.block_tokens

    @property
    def num_units(self) -> int:
        """Units held."""
        return len(self.tiers) // self.unit_blocks

    def end_of(self, num_units: int) -> int:
        """Tokens in place once so many leading units are."""
        return min(num_units * self.unit_blocks * self.block_tokens, self.num_reusable)

    def runs(self) -> list[tuple[str, int, int]]:
        """Tier, first block and end of each run of blocks in one tier."""
        found = [(tier, [i for i, _ in run]) for tier, run in groupby(enumerate(self.tiers), key=lambda item: item[1])]
        return [(tier, blocks[0], blocks[-1] + 1) for tier, blocks in found]


class Prospect:
    """What the choices about one prefix would take, by what is known at one moment.

    Args:
        prefix: The prefix.
        prefill: Cost of computing by ``prefill_terms``; None before anything was computed.
        loads: Costs of loading.
    """

    def __init__(self, prefix: Prefix, prefill: Cost | None, loads: LoadCosts) -> None:
        self.prefix = prefix
        self._prefill = prefill
        self._loads = loads
        self._runs = prefix.runs()
        self._bytes: dict[str, int] = {}
        for tier, start, stop in self._runs:
            self._bytes[tier] = self._bytes.get(tier, 0) + (stop - start) * prefix.block_bytes
        self._crowding = {tier: loads.crowding(tier, count) for tier, count in self._bytes.items()}

    def renew(self, prefill: Cost | None, loads: LoadCosts) -> None:
        """Take newer costs; what was queued at the beginning stays, since one's own loads are queued by now."""
        self._prefill, self._loads = prefill, loads

    def compute_s(self, start: int, stop: int, *, beside: bool = False) -> float | None:
        """Seconds to compute units ``start`` to ``stop``."""
        return self._tokens_s(self.prefix.end_of(start), self.prefix.end_of(stop), beside=beside)

    def load_s(self, start: int, stop: int, *, beside: bool = False) -> float | None:
        """Seconds to load units ``start`` to ``stop``."""
        first, last = start * self.prefix.unit_blocks, stop * self.prefix.unit_blocks
        total = 0.0
        for tier, begin, end in self._runs:
            count = min(last, end) - max(first, begin)
            if count <= 0:
                continue
            seconds = self._loads.seconds(tier, count * self.prefix.block_bytes, beside=beside)
            if seconds is None:
                return None
            total += seconds * self._crowding[tier]
        return total

    def ground(self, start: int = 0) -> Ground:
        """The units to be brought into place from both ends."""
        prefix = self.prefix
        load, compute = self.load_s(0, prefix.num_units), self._tokens_s(0, prefix.num_tokens)
        return Ground(
            prefix.num_units,
            partial(self.compute_s, beside=True),
            partial(self.load_s, beside=True),
            start=start,
            least_s=0.0 if load is None or compute is None else _LEAST_SHARE * min(load, compute),
            single=prefix.step is not None,
        )

    def load_all_s(self) -> float | None:
        """Seconds of the choice ``load``, None if too little is known."""
        tiers = self._loads.tiers
        if not all(tier in tiers and tiers[tier].covers(count) for tier, count in self._bytes.items()):
            return None
        return _sum(self.load_s(0, self.prefix.num_units), self._rest_s(self.prefix.num_units))

    def compute_all_s(self) -> float | None:
        """Seconds of the choice ``compute``, None if too little is known."""
        known = self._prefill is not None and self._prefill.covers(self.prefix.num_tokens)
        return self._tokens_s(0, self.prefix.num_tokens) if known else None

    def best_both(self) -> tuple[float | None, int]:
        """Seconds of the choice ``both``, None if too little is known, and the units of the head it begins with."""
        if self.load_all_s() is None or self.compute_all_s() is None:
            return None, 0
        heads = {0, *(start // self.prefix.unit_blocks for _, start, _ in self._runs)}
        found = [(self._both_s(head), head) for head in heads]
        return min(found)

    def _both_s(self, head: int) -> float:
        ground = self.ground(head)
        compute, load = partial(self.compute_s, beside=True), partial(self.load_s, beside=True)
        met = meeting_s(ground, compute, load)
        return (self.load_s(0, head) or 0.0) + met + (self._rest_s(ground.front) or 0.0)

    def _rest_s(self, units: int) -> float | None:
        """Seconds to compute what is left of the prompt once so many units are in place."""
        return self._tokens_s(self.prefix.end_of(units), self.prefix.num_tokens)

    def _tokens_s(self, start: int, stop: int, *, beside: bool = False) -> float | None:
        if start >= stop:
            return 0.0
        terms = prefill_terms(start, stop, self.prefix.step)
        return None if self._prefill is None else self._prefill.seconds(terms, beside=beside)


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What was done about a prefix that the store holds, and why."""

    chosen: Choice
    reason: str
    """In words."""

    predicted: Mapping[Choice, float] = field(default_factory=dict)
    """Seconds of each choice; without those about which nothing is known."""

    seconds: float | None = None
    """What it took: loading and computing, without saving."""


def decide(predicted: Mapping[Choice, float], *, again: bool = False) -> Decision:
    """The choice predicted to be fastest; loading where too little is known.

    Args:
        predicted: Seconds of each choice; without those about which too little is known.
        again: It has been long since both sides were observed: do both.

    Example:
        >>> decide({"load": 2.0, "compute": 3.0, "both": 1.3}).chosen
        'both'
        >>> decide({"load": 2.0}).reason
        'too little is known about computing'
    """
    known = dict(predicted)
    if "load" not in known or "compute" not in known:
        side = "loading" if "compute" in known else "computing"
        return Decision(chosen="load", reason=f"too little is known about {side}", predicted=known)
    if known["load"] < _SHORT_S:
        return Decision(chosen="load", reason="too short to matter", predicted=known)
    if "both" in known and again:
        return Decision(chosen="both", reason="to observe both sides again", predicted=known)
    alone: Choice = "load" if known["load"] <= known["compute"] else "compute"
    if known.get("both", float("inf")) < _WORTH_BOTH * known[alone]:
        return Decision(chosen="both", reason="predicted to be fastest", predicted=known)
    return Decision(chosen=alone, reason="predicted to be fastest", predicted=known)


def both_if_useful(predicted: Mapping[Choice, float]) -> Decision:
    """Both sides, unless one alone is predicted to be done as soon: then that one.

    Example:
        >>> both_if_useful({}).chosen
        'both'
        >>> both_if_useful({"load": 2.0, "compute": 1.0, "both": 1.1}).chosen
        'compute'
    """
    known = dict(predicted)
    if "both" not in known or known["both"] < min(known["load"], known["compute"]):
        return Decision(chosen="both", reason="asked for", predicted=known)
    alone: Choice = "load" if known["load"] <= known["compute"] else "compute"
    return Decision(chosen=alone, reason="asked for both, which would gain nothing", predicted=known)
