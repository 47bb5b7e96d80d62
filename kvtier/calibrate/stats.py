"""Percentiles, and cases that take turns so that drift hits all of them alike.

A shared machine gets slower and faster by itself. Measuring A ten times and then B ten times
hands that drift to one of them; rounds do not:

    round 1   A B C
    round 2   B C A      the first place (coldest caches, idle clocks) rotates too
    round 3   C A B
"""

import sys
import time
from collections.abc import Callable, Sequence
from typing import TypedDict


class Summary(TypedDict):
    """A set of durations, in milliseconds, ready for ``json.dumps``."""

    p50_ms: float
    p99_ms: float
    mean_ms: float
    min_ms: float
    max_ms: float
    n: int


def percentile(samples: Sequence[float], q: float) -> float:
    """The value below which q per cent of the samples lie.

    Args:
        samples: At least one number, any unit, any order.
        q: Between 0 and 100.

    Returns:
        In the unit of the samples, interpolated linearly between the two nearest ranks.

    Raises:
        ValueError: No samples, or q outside 0 to 100.

    Example:
        >>> percentile([4.0, 1.0, 3.0, 2.0], 50)
        2.5
    """
    if not samples:
        raise ValueError("a percentile needs at least one sample, got none")
    if not 0 <= q <= 100:
        raise ValueError(f"q must be between 0 and 100, got {q}")
    ordered = sorted(samples)
    rank = (len(ordered) - 1) * q / 100
    below = int(rank)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (rank - below)


def summary(samples_s: Sequence[float]) -> Summary:
    """Describe durations given in seconds; the result is in milliseconds.

    With fewer than 100 samples p99 lies between the two slowest runs: read it as "nearly the
    worst", not as a tail.

    Raises:
        ValueError: No samples.
    """
    return Summary(
        p50_ms=percentile(samples_s, 50) * 1e3,
        p99_ms=percentile(samples_s, 99) * 1e3,
        mean_ms=sum(samples_s) / len(samples_s) * 1e3,
        min_ms=min(samples_s) * 1e3,
        max_ms=max(samples_s) * 1e3,
        n=len(samples_s),
    )


def interleave(
    cases: Sequence[tuple[str, Callable[[], float]]], runs: int, *, progress: bool = True
) -> dict[str, list[float]]:
    """Run every case once per round, for ``runs`` rounds, each round starting one case later.

    Args:
        cases: Pairs of a unique name and a function that does its own timing and returns one
            number (seconds, bytes/s; it is kept as it is).
        runs: Rounds, and so samples per case; at least 1.
        progress: Say on standard error how far it is and when it will be done.

    Returns:
        Name to its ``runs`` numbers, names in the order given, numbers in the order measured.

    Raises:
        ValueError: Two cases share a name, or runs is below 1.

    A case that raises ends the whole run: half a comparison is none.
    """
    names = [name for name, _ in cases]
    if len(set(names)) < len(names):
        raise ValueError(f"case names must differ, got {names}")
    if runs < 1:
        raise ValueError(f"runs must be at least 1, got {runs}")
    results: dict[str, list[float]] = {name: [] for name in names}
    started = time.perf_counter()
    for round_ in range(runs):
        first = round_ % max(len(cases), 1)
        for name, case in (*cases[first:], *cases[:first]):
            results[name].append(case())
            if progress:
                _report(sum(map(len, results.values())), len(cases) * runs, started, name)
    return results


def _report(done: int, total: int, started: float, name: str) -> None:
    """Write one progress line: rewritten in place on a terminal, every tenth part elsewhere."""
    in_place = sys.stderr.isatty()
    if not in_place and done * 10 // total == (done - 1) * 10 // total:
        return
    left_s = (time.perf_counter() - started) / done * (total - done)
    start, end = ("\r\x1b[K", "\n" if done == total else "") if in_place else ("", "\n")
    line = f"{start}{done}/{total} runs, about {left_s:.0f} s left (last: {name}){end}"
    sys.stderr.write(line)
    sys.stderr.flush()
