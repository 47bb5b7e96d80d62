"""How long computing and loading take on this machine, learnt from what they took.

    prefill seconds = a * new tokens + b * tokens attended to + c * forward passes
    load seconds    = r * bytes      + k * requests                    for each tier

Both are fitted to what was observed, by least squares of the *relative* error with no weight
below zero. Relative, because then a run that was held up counts for little: predicting far
less than it took is an error of at most one. None below zero, because then a prediction is
never negative and never falls when there is more to do.

What a profile says of the machine is believed of work larger than what was observed covers, and of
no other: had it gone into the fit, a profile that promises too much could never be disproved,
because being slower than predicted counts for little.

The newest observations count most, but the last ones of each size are kept: a thousand
one-token passes after full hits must not wash out what a long prompt once took.

What is observed while the other side works too (``beside``) goes into one factor for the side,
not into the weights, so that the cost of each alone stays known.

Nothing here reads a clock or does I/O: seconds come in as numbers.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from kvtier.econ.profile import Profile, TierProfile

#: An observation's weight falls by this factor with every later one, down to the floor.
_FORGET = 0.95
_FLOOR = 0.05
_KEPT_PER_SIZE = 4
#: Pulls every weight but the first to zero while there is too little to tell them apart.
_RIDGE = 1e-6
#: How far the newest observation moves the factor for working beside the other side.
_BESIDE_STEP = 0.3
#: Until there are so many, what was observed beside the other side is better than nothing.
_ENOUGH = 3
#: A prediction may be for this many times more than was ever observed.
_REACH = 8


@dataclass(frozen=True, slots=True)
class Cost:
    """What a kind of work costs, as known at one moment.

    Example:
        >>> Cost(weights=(0.5, 2.0), beside=1.5, num_seen=3, largest=10.0).seconds((4, 1))
        4.0
        >>> Cost(weights=(0.5, 2.0), beside=1.5, num_seen=3, largest=10.0).seconds((4, 1), beside=True)
        6.0
    """

    weights: tuple[float, ...]
    """Seconds for one of each term, none negative."""

    beside: float
    """How much longer it takes while the other side works too, at least 1."""

    num_seen: int
    """Observations so far."""

    largest: float
    """The largest first term observed."""

    profiled: Cost | None = None
    """What a profile says, for work that was not observed; None without one."""

    def seconds(self, terms: Sequence[float], *, beside: bool = False) -> float:
        """Predicted seconds for an amount of work."""
        weights = self.weights if self.profiled is None or self._observed(terms[0]) else self.profiled.weights
        alone = sum(weight * term for weight, term in zip(weights, terms, strict=True))
        return alone * self.beside if beside else alone

    def covers(self, first_term: float) -> bool:
        """Whether enough is known to predict work of this size."""
        return self._observed(first_term) or (self.profiled is not None and self.profiled.covers(first_term))

    def _observed(self, first_term: float) -> bool:
        return self.num_seen >= _ENOUGH and first_term <= _REACH * self.largest


class Rate:
    """Learns the cost of one kind of work: what one of each of its terms takes.

    The first term is its size: until more is known, all seconds are put down to that.

    Args:
        profiled: What a profile says of it.

    Example:
        >>> rate = Rate()
        >>> for size in (1, 5, 20):
        ...     rate.observe((size, 1), 0.5 * size + 3)
        >>> [round(weight, 3) for weight in rate.cost().weights]
        [0.5, 3.0]
    """

    def __init__(self, profiled: Cost | None = None) -> None:
        self._profiled = profiled
        self._kept: dict[Hashable, deque[tuple[int, tuple[float, ...], float]]] = {}
        """By size: number of the observation, terms, seconds."""
        self._num_seen = 0
        self._largest = 0.0
        self._beside = 1.0
        self._weights: tuple[float, ...] | None = None
        """None since something was observed."""

    def observe(self, terms: Sequence[float], seconds: float, *, beside: bool = False) -> None:
        """Learn from one piece of work.

        Args:
            terms: Its amount, the first above zero, none below.
            seconds: What it took.
            beside: The other side worked at the same time.

        Raises:
            ValueError: No amount of work, or no time.
        """
        if not (math.isfinite(seconds) and seconds >= 0 and terms[0] > 0 and min(terms) >= 0):
            raise ValueError(f"seconds must be finite and work positive, got {seconds} s for {tuple(terms)}")
        seconds = max(seconds, 1e-9)
        known = self.cost() if beside else None
        if known is not None and known.covers(terms[0]):
            ratio = seconds / max(known.seconds(terms), 1e-9)
            self._beside += _BESIDE_STEP * (ratio - self._beside)
            return
        self._num_seen += 1
        self._largest = max(self._largest, terms[0])
        self._weights = None
        size = tuple(int(term).bit_length() for term in terms)
        kept = self._kept.setdefault(size, deque(maxlen=_KEPT_PER_SIZE))
        kept.append((self._num_seen, tuple(terms), seconds))

    def cost(self) -> Cost | None:
        """What is known now; None before the first observation and without a profile."""
        if not self._num_seen:
            return None if self._profiled is None else replace(self._profiled, beside=max(1.0, self._beside))
        if self._weights is None:
            self._weights = self._fitted()
        return Cost(self._weights, max(1.0, self._beside), self._num_seen, self._largest, self._profiled)

    def covers(self, first_term: float) -> bool:
        """See ``Cost.covers``; without working out the cost."""
        return Cost((), 1.0, self._num_seen, self._largest).covers(first_term)

    def _fitted(self) -> tuple[float, ...]:
        """Weights that predict what is kept best."""
        kept = [entry for entries in self._kept.values() for entry in entries]
        importance = np.sqrt([max(_FLOOR, _FORGET ** (self._num_seen - number)) for number, _, _ in kept])
        rows = np.array([[term / seconds for term in terms] for _, terms, seconds in kept]) * importance[:, None]
        scale = np.linalg.norm(rows, axis=0)
        scale[scale == 0] = 1.0
        rows /= scale
        gram, aim = rows.T @ rows, rows.T @ importance
        gram[np.diag_indices_from(gram)] += _RIDGE * (np.arange(len(aim)) > 0)
        return tuple(float(weight) for weight in _least_squares(gram, aim) / scale)


def _least_squares(gram: NDArray[np.float64], aim: NDArray[np.float64]) -> NDArray[np.float64]:
    """The non-negative vector x that makes ``x @ gram @ x - 2 * aim @ x`` least; tries every set of non-zeros."""
    best, least = np.zeros(len(aim)), 0.0
    for count in range(1, len(aim) + 1):
        for chosen in map(list, combinations(range(len(aim)), count)):
            found = np.linalg.solve(gram[np.ix_(chosen, chosen)], aim[chosen])
            value = -float(aim[chosen] @ found)
            if found.min() >= 0 and value < least:
                best, least = np.zeros(len(aim)), value
                best[chosen] = found
    return best


def prefill_terms(start: int, stop: int, step: int | None = None) -> tuple[int, int, int]:
    """The work of computing tokens ``start`` to ``stop`` of a prompt whose first ``start`` are in place.

    Args:
        start: Tokens in place.
        stop: Tokens in place afterwards.
        step: Passes end at multiples of it; None is one pass.

    Returns:
        New tokens, tokens attended to (each new one attends to itself and to all before it), forward passes.

    Example:
        >>> prefill_terms(0, 4)
        (4, 10, 1)
        >>> prefill_terms(3, 9, step=4)
        (6, 39, 3)
    """
    passes = 1 if step is None else -(-stop // step) - start // step
    return stop - start, (stop * (stop + 1) - start * (start + 1)) // 2, passes if stop > start else 0


def profiled_prefill(profile: Profile) -> Cost:
    """What a profile says of computing, by ``prefill_terms``."""
    rate = Rate()
    for point in profile.prefill:
        rate.observe(prefill_terms(0, point.tokens), profile.prefill_s(0, point.tokens))
    cost = rate.cost()
    assert cost is not None
    return replace(cost, num_seen=max(_ENOUGH, cost.num_seen))


def _profiled_load(tier: TierProfile) -> Cost:
    """What a profile says of reading from a tier, by bytes and requests."""
    return Cost((1 / tier.read_bytes_per_s.value, tier.latency_s.value), 1.0, _ENOUGH, math.inf)


@dataclass(frozen=True, slots=True)
class LoadCosts:
    """What reading from each tier costs, and what it is busy with, as known at one moment."""

    tiers: Mapping[str, Cost]
    queued: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Bytes under way, by tier, for each of those who share it."""

    def seconds(self, tier: str, num_bytes: int, *, beside: bool = False) -> float | None:
        """Predicted seconds of one request; None for a tier nothing was ever read from."""
        cost = self.tiers.get(tier)
        return None if cost is None else cost.seconds((num_bytes, 1), beside=beside)

    def crowding(self, tier: str, num_bytes: int) -> float:
        """How many times longer a read takes because others use the tier now.

        Everybody gets an equal share while it lasts, so each of the others holds it up by as
        much as is read, or by all the other one wants if that is less.

        Example:
            >>> LoadCosts({}, {"disk": (100, 25)}).crowding("disk", 50)
            2.5
        """
        others = sum(min(num_bytes, theirs) for theirs in self.queued.get(tier, ()))
        return 1.0 + others / num_bytes if num_bytes else 1.0


class LoadRates:
    """Learns what reading from each tier costs. Not locked: its owner sees to that."""

    def __init__(self) -> None:
        self._rates: dict[str, Rate] = {}
        self._queued: dict[str, Counter[Hashable]] = {}

    def begin(self, user: Hashable, tier: str, num_bytes: int) -> bool:
        """Somebody is about to move bytes to or from a tier; returns whether others do so now."""
        queued = self._queued.setdefault(tier, Counter())
        crowded = any(count for other, count in queued.items() if other != user)
        queued[user] += num_bytes
        return crowded

    def end(self, user: Hashable, tier: str, num_bytes: int) -> None:
        """The bytes of a ``begin`` are through, or given up."""
        queued = self._queued[tier]
        queued[user] -= num_bytes
        if not queued[user]:
            del queued[user]

    def observe(
        self, tier: str, num_bytes: int, seconds: float, *, crowded: bool = False, beside: bool = False
    ) -> None:
        """Learn from one request.

        Args:
            tier: Read from.
            num_bytes: Delivered, at least one.
            seconds: What it took.
            crowded: Others used the tier; such a request counts only until better ones are known.
            beside: A model computed at the same time.
        """
        rate = self._rates.setdefault(tier, Rate())
        if not crowded or not rate.covers(num_bytes):
            rate.observe((num_bytes, 1), seconds, beside=beside)

    def costs(self, profile: Profile | None = None) -> LoadCosts:
        """What is known now, and what a profile says of the rest."""
        found = {tier: rate.cost() for tier, rate in self._rates.items()}
        known = {tier: cost for tier, cost in found.items() if cost is not None}
        for name, tier in {} if profile is None else profile.tiers.items():
            said = _profiled_load(tier)
            known[name] = replace(known[name], profiled=said) if name in known else said
        return LoadCosts(
            known,
            {tier: tuple(users.values()) for tier, users in self._queued.items() if users},
        )
