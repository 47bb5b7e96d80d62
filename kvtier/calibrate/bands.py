"""Bands of a few runs: the median, and two of the runs between which the true median lies.

    sorted runs  x1 <= x2 <= ... <= xn        band  x_k .. x_(n+1-k)
    P(the band holds the median of all runs that could be)  =  1 - 2 P(Binomial(n, 1/2) < k)

k is the largest for which that is still at least nine tenths: five runs give their extremes, and
93.75 %. Nothing is assumed about how runs are distributed, which matters: on a shared machine a few
are held up for long, and a standard deviation of five such is noise.

It is a band of this machine as it was in those minutes. What it does on another day is not in it.

Source: David and Nagaraja, "Order Statistics", 3rd edition, 2003, section 7.1.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from math import comb

from kvtier.calibrate.stats import percentile
from kvtier.econ.figures import Figure
from kvtier.econ.profile import Band

LEVEL = 0.9


def median_band(samples: Sequence[float]) -> Band:
    """Median of the samples and the ends of its band, in their unit.

    Raises:
        ValueError: No samples.

    Example:
        >>> median_band([3.0, 1.0, 9.0, 2.0, 4.0])
        Band(lo=1.0, mid=3.0, hi=9.0)
    """
    ordered, mid = sorted(samples), percentile(samples, 50)
    edge = _edge(len(ordered))
    return Band(ordered[edge], mid, ordered[-1 - edge])


def _edge(count: int) -> int:
    """How many runs are left out at either end."""
    edge, outside = 0, 2 / 2**count
    while 2 * (edge + 1) < count and 1 - (outside := outside + 2 * comb(count, edge + 1) / 2**count) >= LEVEL:
        edge += 1
    return edge


def measured(band: Band, unit: str, source: str) -> Figure:
    """A figure measured now."""
    return Figure(value=band.mid, unit=unit, source=source, date=today(), kind="measured", lo=band.lo, hi=band.hi)


def today() -> str:
    """The date as figures have it."""
    return dt.datetime.now(dt.UTC).date().isoformat()
