"""Prefill time against length, within a budget.

    trial    1, 64, 128, ...  until five rounds of all so far and the next would not fit
    rounds   1, 64, 128 | 64, 128, 1 | ...  five times or more; the trial does not count

The trial is also what warms every length up: the first pass of a shape allocates and chooses kernels.
The pass over one token says what a pass costs that computes next to nothing, since it reads all weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from kvtier.calibrate.bands import median_band
from kvtier.calibrate.stats import interleave
from kvtier.econ.curve import PrefillCurve
from kvtier.econ.profile import PrefillPoint

Clock = Callable[[], float]

_SURPRISING = 1.5


def measure_prefill(
    compute: Callable[[int], object],
    lengths: Sequence[int],
    *,
    budget_s: float,
    runs: int,
    clock: Clock = time.perf_counter,
    progress: bool = True,
) -> dict[int, list[float]]:
    """Seconds of the prefill of prompts, ``runs`` for each length that the budget has time for.

    Args:
        compute: Computes a prompt of so many tokens from nothing, and returns when it is done.
        lengths: Rising; a pass over one token is measured besides. The shortest is measured at any price.
        budget_s: For all of it.
        runs: Rounds.
        clock: In seconds.
        progress: See ``stats.interleave``.
    """

    def timed(tokens: int) -> float:
        began = clock()
        compute(tokens)
        return clock() - began

    fitting = _fitting(dict.fromkeys((1, *lengths)), timed, budget_s, runs, clock)
    samples = interleave([(str(n), partial(timed, n)) for n in fitting], runs, progress=progress)
    return {int(name): seconds for name, seconds in samples.items()}


def _fitting(
    wanted: Iterable[int], timed: Callable[[int], float], budget_s: float, runs: int, clock: Clock
) -> list[int]:
    """The leading lengths that can be measured within the budget."""
    began, once = clock(), dict[int, float]()
    for tokens in wanted:
        guess = PrefillCurve(list(once), list(once.values())).from_nothing(tokens) if len(once) > 1 else 0.0
        if guess and clock() - began + guess + runs * (sum(once.values()) + guess) > budget_s:
            break
        once[tokens] = _tried(timed, tokens, guess)
    return list(once)


def _tried(timed: Callable[[int], float], tokens: int, guess: float) -> float:
    """What a length takes; tried again if the first time is surprising, for then something held it up."""
    seconds = timed(tokens)
    return seconds if seconds <= _SURPRISING * guess else min(seconds, timed(tokens))


def prefill_points(samples: Mapping[int, Sequence[float]]) -> tuple[PrefillPoint, ...]:
    """The points of a profile: medians with their bands, none below that of a shorter prompt.

    A longer prompt has more to compute; where noise says otherwise, the longer one gets the shorter one's time.

    Example:
        >>> [point.mid for point in prefill_points({1: [2.0], 64: [1.0], 128: [3.0]})]
        [2.0, 2.0, 3.0]
    """
    points: list[PrefillPoint] = []
    lo = mid = hi = 0.0
    for tokens, seconds in samples.items():
        band = median_band(seconds)
        lo, mid, hi = max(lo, band.lo), max(mid, band.mid), max(hi, band.hi)
        points.append(PrefillPoint(tokens=tokens, lo=lo, mid=mid, hi=hi))
    return tuple(points)
