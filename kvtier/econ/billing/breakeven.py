"""When a cache, a longer lifetime, a ping or a warm-up pays, from prices alone.

    w  price of a stored token over that of an input token      r  price of a cached one
    T  lifetime, refreshed on use

Everything here is arithmetic on one prefix; what real traffic pays is for ``kvtier.econ.billing.bills``.
"""

from __future__ import annotations

import math

from kvtier.errors import ConfigError

_EPSILON = 1e-9


def reuses_to_pay(*, write: float, read: float) -> float:
    """Reuses of one stored prefix above which storing it is cheaper than not to.

    Without a cache k reuses cost 1 + k, with it w + k*r; so k > (w - 1) / (1 - r).

    Args:
        write: w.
        read: r, below 1.

    Example:
        >>> round(reuses_to_pay(write=1.25, read=0.1), 2), round(reuses_to_pay(write=2, read=0.1), 2)
        (0.28, 1.11)
        >>> reuses_to_pay(write=1, read=0.1)
        0.0
    """
    _check(write, read)
    return (write - 1) / (1 - read)


def hit_share_to_pay(*, write: float, read: float) -> float:
    """Share of uses that must be hits for a cache to pay: h*r + (1 - h)*w < 1.

    Example:
        >>> round(hit_share_to_pay(write=1.25, read=0.1), 3), round(hit_share_to_pay(write=2, read=0.1), 3)
        (0.217, 0.526)
    """
    _check(write, read)
    return (write - 1) / (write - read)


def rate_to_pay_per_hour(*, write: float, read: float, lifetime_s: float) -> float:
    """Uses an hour of one prefix above which a cache pays, if uses come at random (Poisson).

    A use is a hit if the one before it lies no longer than T back: h = 1 - exp(-rate * T).

    Example:
        >>> round(rate_to_pay_per_hour(write=1.25, read=0.1, lifetime_s=300), 2)
        2.94
        >>> round(rate_to_pay_per_hour(write=2, read=0.1, lifetime_s=3600), 2)
        0.75
    """
    return -math.log1p(-hit_share_to_pay(write=write, read=read)) / lifetime_s * 3600


def rate_for_longer_per_hour(
    *, write: float, lifetime_s: float, longer_write: float, longer_lifetime_s: float, read: float
) -> float:
    """Uses an hour above which the longer of two lifetimes is cheaper, if uses come at random.

    Both miss with exp(-rate * T) and lose w - r by it, so the losses are equal where
    rate = ln((w2 - r) / (w1 - r)) / (T2 - T1). Above it the longer is never dearer.

    Example:
        >>> round(rate_for_longer_per_hour(
        ...     write=1.25, lifetime_s=300, longer_write=2, longer_lifetime_s=3600, read=0.1), 2)
        0.55
    """
    _check(write, read)
    if not longer_lifetime_s > lifetime_s:
        raise ConfigError(f"the longer lifetime must be above {lifetime_s} s, got {longer_lifetime_s}")
    return math.log((longer_write - read) / (write - read)) / (longer_lifetime_s - lifetime_s) * 3600


def expiries_for_longer(*, write: float, longer_write: float, read: float) -> float:
    """Expiries that a longer lifetime must prevent, on average, to be worth its dearer write.

    The extra is paid once; an expiry costs a write in place of a read: (w2 - w1) / (w1 - r).

    Example:
        >>> round(expiries_for_longer(write=1.25, longer_write=2, read=0.1), 2)
        0.65
    """
    _check(write, read)
    return (longer_write - write) / (write - read)


def most_pings(*, write: float, read: float) -> int:
    """Pings in a row that keep an entry cheaper than writing it anew: n < w/r - 1.

    n pings and the read after them cost r * (n + 1); the write they avoid costs w.

    Example:
        >>> most_pings(write=1.25, read=0.1), most_pings(write=1.25, read=0.025)
        (11, 48)
    """
    _check(write, read)
    if read == 0:
        raise ConfigError("with reads for nothing, pings may go on for ever; give a price above 0")
    return max(math.ceil(write / read - 1 - _EPSILON) - 1, 0)


def longest_gap_s(*, write: float, read: float, lifetime_s: float) -> float:
    """The longest pause that pings can bridge at a gain: one lifetime after the last of them.

    Example:
        >>> longest_gap_s(write=1.25, read=0.1, lifetime_s=300) / 60
        60.0
        >>> round(longest_gap_s(write=1.25, read=0.025, lifetime_s=300) / 3600, 1)
        4.1
    """
    return (most_pings(write=write, read=read) + 1) * lifetime_s


def longest_gap_between_reuses_s(
    *, input_usd_per_mtok: float, cached_usd_per_mtok: float, storage_usd_per_mtok_hour: float
) -> float:
    """How far apart the reuses of an entry may be that is rented by the hour: each saves input - cached.

    Example:
        >>> def minutes(*prices):
        ...     names = ("input_usd_per_mtok", "cached_usd_per_mtok", "storage_usd_per_mtok_hour")
        ...     return round(longest_gap_between_reuses_s(**dict(zip(names, prices))) / 60, 1)
        >>> minutes(1.25, 0.125, 4.50), minutes(0.30, 0.03, 1.00), minutes(0.75, 0.075, 0.50)
        (15.0, 16.2, 81.0)
    """
    if not storage_usd_per_mtok_hour > 0:
        raise ConfigError(f"storage must have a price above 0, got {storage_usd_per_mtok_hour}")
    return (input_usd_per_mtok - cached_usd_per_mtok) / storage_usd_per_mtok_hour * 3600


def warm_up_saving(*, num_calls: int, write: float, read: float) -> float:
    """What one call ahead of a fan-out saves, in prices of the shared tokens once as plain input.

    N calls at once all miss and cost N*w. With one call ahead that stores what they share they cost
    w + N*r: N*(w - r) - w are saved, for one more round trip.

    Example:
        >>> round(warm_up_saving(num_calls=2, write=1.25, read=0.1), 2)
        1.05
        >>> round(warm_up_saving(num_calls=1, write=1.25, read=0.1), 2)
        -0.1
    """
    _check(write, read)
    return num_calls * (write - read) - write


def _check(write: float, read: float) -> None:
    if not 0 <= read < 1 <= write:
        raise ConfigError(f"a read costs 0 to 1 and a write at least 1 of an input token, got {read} and {write}")
