"""What list prices of cached tokens imply for whoever pays them.

    w   price of a cache write / input price       1.25 for five minutes, 2 for an hour, 1 where free
    r   price of a cached read / input price       0.02 to 0.5

One write and k reads cost w + k r; without a cache the same tokens cost 1 + k. Everything here
follows from that, for the caller's side of the counter; what the provider's side costs is in
``formulas`` and ``keeping``.

Source: arithmetic on published price lists, which ``prices`` holds.
"""

from __future__ import annotations

import math

from kvtier.econ.formulas import check_not_negative, check_positive


def least_reads(*, write: float, read: float) -> float:
    """How many reads must follow a write for caching to pay.

    Args:
        write: w, as a multiple of the input price.
        read: r, likewise.

    Returns:
        k above which it pays: (w - 1) / (1 - r), and 0 where writing costs no more than not caching. Infinite
        where reads are not cheaper.

    Example:
        >>> [round(least_reads(write=w, read=0.1), 2) for w in (1, 1.25, 2)]
        [0.0, 0.28, 1.11]

    Source:
        w + k r < 1 + k.

    Leaves out:
        Storage by the hour.
    """
    check_not_negative(write=write, read=read)
    return max(0.0, write - 1) / (1 - read) if read < 1 else math.inf


def most_pings(*, write: float, read: float) -> int:
    """How many keep-alive reads in a row cost less than letting an entry expire and writing it again.

    Args:
        write: w, as a multiple of the input price.
        read: r, likewise.

    Returns:
        The largest n with r (n + 1) < w.

    Example:
        >>> most_pings(write=1.25, read=0.1), most_pings(write=1.25, read=0.025)
        (11, 48)

    Source:
        n pings and the read that they keep warm, against one write.

    Leaves out:
        The pings' own output tokens, one each.
    """
    check_not_negative(write=write)
    check_positive(read=read)
    return max(0, math.ceil(write / read - 1 - 1e-9) - 1)


def longest_gap_s(*, write: float, read: float, ttl_s: float) -> float:
    """The longest silence that keep-alive reads bridge for less than a new write.

    Args:
        write: w, as a multiple of the input price.
        read: r, likewise.
        ttl_s: Seconds an entry lives after each use.

    Returns:
        Seconds: one TTL for each ping, and one more for the read.

    Example:
        >>> longest_gap_s(write=1.25, read=0.1, ttl_s=300) / 60
        60.0

    Source:
        ``most_pings``.

    Leaves out:
        Pings that come late.
    """
    check_positive(ttl_s=ttl_s)
    return (most_pings(write=write, read=read) + 1) * ttl_s


def expiries_that_pay_a_longer_ttl(*, write_short: float, write_long: float, read: float) -> float:
    """How many expiries a dearer write must be expected to prevent.

    Args:
        write_short: w of the short TTL.
        write_long: w of the long one.
        read: r, as multiples of the input price like the others.

    Returns:
        Expected expiries within the long TTL above which it pays. Infinite where an expiry costs nothing.

    Example:
        >>> round(expiries_that_pay_a_longer_ttl(write_short=1.25, write_long=2, read=0.1), 2)
        0.65

    Source:
        Each expiry turns a read into a write of the short kind.

    Leaves out:
        Keep-alive reads, which may be cheaper than both.
    """
    check_not_negative(write_short=write_short, write_long=write_long, read=read)
    lost = write_short - read
    return max(0.0, write_long - write_short) / lost if lost > 0 else math.inf


def hold_s_of_storage(*, input_usd: float, read_usd: float, storage_usd_per_hour: float) -> float:
    """How seldom an entry that is stored by the hour may be used.

    Args:
        input_usd: Price of a million input tokens.
        read_usd: Of as many cached ones.
        storage_usd_per_hour: Of keeping as many for an hour.

    Returns:
        Seconds between uses at which storage eats the saving; infinite where it is free.

    Example:
        >>> round(hold_s_of_storage(input_usd=1.25, read_usd=0.125, storage_usd_per_hour=4.50) / 60, 1)
        15.0

    Source:
        (input - read) / storage.

    Leaves out:
        The first write, which is billed as input.
    """
    check_not_negative(input_usd=input_usd, read_usd=read_usd, storage_usd_per_hour=storage_usd_per_hour)
    saving = max(0.0, input_usd - read_usd)
    return saving / storage_usd_per_hour * 3600 if storage_usd_per_hour else math.inf


def warm_up_saving(*, num_calls: int, write: float, read: float) -> float:
    """What sending one call first saves, before others that share its prefix.

    Args:
        num_calls: N calls that share P tokens, of which one or none may go first.
        write: w, as a multiple of the input price.
        read: r, likewise.

    Returns:
        Saving in units of P tokens' input price; negative if a call is sent only to warm up and does not pay.
        Sent at once, N calls write N times; warmed up by one more, they write once and read N times.

    Example:
        >>> round(warm_up_saving(num_calls=2, write=1.25, read=0.1), 2)
        1.05

    Source:
        N w - (w + N r) = N (w - r) - w.

    Leaves out:
        The round trip that all others wait for.
    """
    check_positive(num_calls=num_calls)
    check_not_negative(write=write, read=read)
    return num_calls * (write - read) - write
