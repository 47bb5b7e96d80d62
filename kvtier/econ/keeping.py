"""How long a prefix is worth keeping, in which tier, and whether it is worth writing at all.

    rent equals one recompute    T  = C_recompute / rent                                  (per Mtok)
    tier i above tier j          T_ij = (c_j + s (1/BW_j - 1/BW_i)) / (rent_i - rent_j)   (per GB)
    drop, bottom tier            keep while hazard x (C_recompute - C_hit) > rent
    write                        write if reuses x (C_recompute - C_hit) > wear + rent x hold

The first two are the five-minute rule with GPU time in the place of disk accesses. A block is kept
in a tier while its next use is expected sooner than T_ij, and dropped from the last one when even
the cheapest rent costs more than the chance of a reuse is worth.

Source: Gray and Putzolu, "The 5 Minute Rule for Trading Memory for Disc Accesses", SIGMOD 1987.
"""

from __future__ import annotations

import math

from kvtier.econ.formulas import check_not_negative, check_positive

DAYS_PER_YEAR = 365


def rent_usd_per_mtok_hour(*, bytes_per_token: float, usd_per_gb_hour: float) -> float:
    """What keeping a million tokens for an hour costs.

    Args:
        bytes_per_token: KV of one token as stored.
        usd_per_gb_hour: Of the tier.

    Returns:
        USD/Mtok-h.

    Example:
        Llama-3.1-8B in rented DRAM:

        >>> round(rent_usd_per_mtok_hour(bytes_per_token=131_072, usd_per_gb_hour=0.00367), 3)
        0.481

    Source:
        Arithmetic.

    Leaves out:
        Space that is paid for and empty.
    """
    check_not_negative(bytes_per_token=bytes_per_token, usd_per_gb_hour=usd_per_gb_hour)
    return bytes_per_token * 1e6 / 1e9 * usd_per_gb_hour


def hold_s_of_one_recompute(*, recompute_usd_per_mtok: float, rent_usd_per_mtok_hour: float) -> float:
    """How long tokens can be kept for what computing them once costs.

    Args:
        recompute_usd_per_mtok: What a hit would save, less what it costs if that is wanted.
        rent_usd_per_mtok_hour: Of the tier.

    Returns:
        Seconds; infinite where keeping is free. A prefix that comes back sooner is worth keeping.

    Example:
        >>> round(hold_s_of_one_recompute(recompute_usd_per_mtok=0.0256, rent_usd_per_mtok_hour=0.481) / 60, 1)
        3.2

    Source:
        Gray and Putzolu, SIGMOD 1987, with a recompute in the place of a disk access.

    Leaves out:
        That the prefix may never come back; weigh the saving with that chance first.
    """
    check_not_negative(recompute_usd_per_mtok=recompute_usd_per_mtok, rent_usd_per_mtok_hour=rent_usd_per_mtok_hour)
    return recompute_usd_per_mtok / rent_usd_per_mtok_hour * 3600 if rent_usd_per_mtok_hour else math.inf


def hold_s_above(
    *,
    rent_above_usd_per_gb_hour: float,
    rent_below_usd_per_gb_hour: float,
    read_below_usd_per_gb: float = 0.0,
    bytes_per_s_above: float = math.inf,
    bytes_per_s_below: float = math.inf,
    stalled_usd_per_hour: float = 0.0,
) -> float:
    """How long a block is worth keeping in the faster of two tiers that could both serve it.

    Args:
        rent_above_usd_per_gb_hour: Of the faster tier.
        rent_below_usd_per_gb_hour: Of the slower one, which holds the block in any case or instead.
        read_below_usd_per_gb: What the slower tier's device costs for each GB read.
        bytes_per_s_above: Speed of the faster tier.
        bytes_per_s_below: Speed of the slower one.
        stalled_usd_per_hour: Of the GPUs that wait while a block is read; 0 if loads overlap.

    Returns:
        T_ij in seconds: keep the block above while its next use is expected sooner. Infinite where the
        faster tier is not the dearer one.

    Example:
        Rented DRAM over a rented drive, loads overlapped, then not:

        >>> rents = {"rent_above_usd_per_gb_hour": 0.00367, "rent_below_usd_per_gb_hour": 0.000213}
        >>> read = 0.818 / 3600 / 7  # USD per GB of a drive at 7 GB/s
        >>> round(hold_s_above(**rents, read_below_usd_per_gb=read))
        34
        >>> speeds = {"bytes_per_s_above": 50e9, "bytes_per_s_below": 7e9}
        >>> round(hold_s_above(**rents, **speeds, read_below_usd_per_gb=read, stalled_usd_per_hour=2.50) / 60, 1)
        2.0

    Source:
        Gray and Putzolu, SIGMOD 1987; Zhang et al., arXiv 2511.03944, add what the host stalls for.

    Leaves out:
        What copying the block up and down costs.
    """
    check_not_negative(
        rent_above_usd_per_gb_hour=rent_above_usd_per_gb_hour,
        rent_below_usd_per_gb_hour=rent_below_usd_per_gb_hour,
        read_below_usd_per_gb=read_below_usd_per_gb,
        stalled_usd_per_hour=stalled_usd_per_hour,
        seconds_per_byte_above=1 / bytes_per_s_above,
        seconds_per_byte_below=1 / bytes_per_s_below,
    )
    extra_s_per_gb = 1e9 / bytes_per_s_below - 1e9 / bytes_per_s_above
    saved_usd = read_below_usd_per_gb + stalled_usd_per_hour / 3600 * extra_s_per_gb
    extra_rent = (rent_above_usd_per_gb_hour - rent_below_usd_per_gb_hour) / 3600
    return max(0.0, saved_usd) / extra_rent if extra_rent > 0 else math.inf


def gray_putzolu_s(*, pages_per_mb: float, accesses_per_s: float, usd_per_disk: float, usd_per_mb: float) -> float:
    """The five-minute rule as it was published, so that the forms above can be held against it.

    Args:
        pages_per_mb: Pages in a megabyte of memory.
        accesses_per_s: Of one disk.
        usd_per_disk: Price of one disk.
        usd_per_mb: Price of a megabyte of memory.

    Returns:
        Seconds between two uses of a page at which memory and disk accesses cost the same.

    Example:
        The records of 1 KB of 1987:

        >>> round(gray_putzolu_s(pages_per_mb=1024, accesses_per_s=15, usd_per_disk=30_000, usd_per_mb=5_000))
        410

    Source:
        Gray and Putzolu, SIGMOD 1987.

    Leaves out:
        All that has come since.
    """
    check_positive(pages_per_mb=pages_per_mb, accesses_per_s=accesses_per_s, usd_per_mb=usd_per_mb)
    check_not_negative(usd_per_disk=usd_per_disk)
    return pages_per_mb / accesses_per_s * usd_per_disk / usd_per_mb


def least_reuses_per_hour(
    *, recompute_usd_per_mtok: float, hit_usd_per_mtok: float, rent_usd_per_mtok_hour: float
) -> float:
    """How often a prefix must be expected back for its place in the bottom tier to pay.

    Args:
        recompute_usd_per_mtok: At its depth in the prompt.
        hit_usd_per_mtok: What a hit costs, rent apart.
        rent_usd_per_mtok_hour: Of the bottom tier.

    Returns:
        Expected uses per hour, the hazard rate: drop what falls below. For reuse with probability p and rate
        lambda compare p x lambda. Infinite where a hit saves nothing.

    Example:
        >>> round(least_reuses_per_hour(
        ...     recompute_usd_per_mtok=0.0256, hit_usd_per_mtok=0.0043, rent_usd_per_mtok_hour=0.0279), 2)
        1.31

    Source:
        Keep while hazard x saving > rent: the marginal form of the five-minute rule.

    Leaves out:
        Tokens behind the prefix, which are useless without it and add to its value.
    """
    check_not_negative(
        recompute_usd_per_mtok=recompute_usd_per_mtok,
        hit_usd_per_mtok=hit_usd_per_mtok,
        rent_usd_per_mtok_hour=rent_usd_per_mtok_hour,
    )
    saving = recompute_usd_per_mtok - hit_usd_per_mtok
    return rent_usd_per_mtok_hour / saving if saving > 0 else math.inf


def wear_usd_per_gb(*, usd_per_gb: float, write_amplification: float, dwpd: float, years: float) -> float:
    """What storing one GB takes off a drive's life.

    Args:
        usd_per_gb: Price of the drive per GB of its size.
        write_amplification: Bytes that reach the flash for each byte stored.
        dwpd: Drive writes a day it is rated for.
        years: That rating holds for.

    Returns:
        USD per GB stored: P x WAF / (DWPD x 365 x years).

    Example:
        TLC at 1 DWPD over five years for 0.30 USD/GB, and QLC at 0.26 for the same:

        >>> drive = {"usd_per_gb": 0.30, "write_amplification": 1.0, "years": 5}
        >>> [round(wear_usd_per_gb(dwpd=dwpd, **drive), 6) for dwpd in (1, 0.26)]
        [0.000164, 0.000632]

    Source:
        Endurance as drive makers rate it (JEDEC JESD218).

    Leaves out:
        That the drive may be replaced before it is worn; see ``owned_usd_per_gb``.
    """
    check_not_negative(usd_per_gb=usd_per_gb)
    check_positive(write_amplification=write_amplification, dwpd=dwpd, years=years)
    return usd_per_gb * write_amplification / (dwpd * DAYS_PER_YEAR * years)


def owned_usd_per_gb(*, usd_per_gb: float, days: float, dwpd: float, years: float) -> float:
    """What keeping one GB on a drive of one's own costs, written once and held for a while.

    Args:
        usd_per_gb: Price of the drive per GB of its size.
        days: Of residence.
        dwpd: Drive writes a day it is rated for.
        years: That rating holds for.

    Returns:
        USD per GB: the larger of the share of its life in time and the share in writes. **Below 1/DWPD days
        holding longer is free**, for the writes use the drive up first.

    Example:
        >>> [round(owned_usd_per_gb(usd_per_gb=0.30, days=days, dwpd=1, years=5), 6) for days in (0.1, 1, 2)]
        [0.000164, 0.000164, 0.000329]

    Source:
        A drive is used up by time or by writes, whichever comes first.

    Leaves out:
        Write amplification; divide ``dwpd`` by it.
    """
    check_not_negative(usd_per_gb=usd_per_gb, days=days)
    check_positive(dwpd=dwpd, years=years)
    return usd_per_gb * max(days, 1 / dwpd) / (DAYS_PER_YEAR * years)


def least_reuses(
    *,
    wear_usd_per_mtok: float,
    recompute_usd_per_mtok: float,
    hit_usd_per_mtok: float,
    rent_usd_per_mtok: float = 0.0,
) -> float:
    """How many hits must be expected of a prefix for writing it to pay.

    Args:
        wear_usd_per_mtok: Of writing it once.
        recompute_usd_per_mtok: What each hit replaces.
        hit_usd_per_mtok: What each hit costs, rent and wear apart.
        rent_usd_per_mtok: For as long as it is expected to be held.

    Returns:
        Expected hits; infinite where a hit saves nothing.

    Example:
        Llama-3.1-8B on TLC at 0.30 USD/GB, then DeepSeek-V3:

        >>> round(least_reuses(wear_usd_per_mtok=0.0216, recompute_usd_per_mtok=0.0256, hit_usd_per_mtok=0.0043), 1)
        1.0
        >>> round(least_reuses(wear_usd_per_mtok=0.0116, recompute_usd_per_mtok=0.194, hit_usd_per_mtok=0.0023), 2)
        0.06

    Source:
        Write if reuses x (C_recompute - C_hit) > C_wear + rent.

    Leaves out:
        What the write takes from reads that run beside it.
    """
    check_not_negative(
        wear_usd_per_mtok=wear_usd_per_mtok,
        recompute_usd_per_mtok=recompute_usd_per_mtok,
        hit_usd_per_mtok=hit_usd_per_mtok,
        rent_usd_per_mtok=rent_usd_per_mtok,
    )
    saving = recompute_usd_per_mtok - hit_usd_per_mtok
    return (wear_usd_per_mtok + rent_usd_per_mtok) / saving if saving > 0 else math.inf
