"""What a hit costs beside what a recompute costs, per million tokens.

    recompute = GPU price / tokens per second
    hit       = drive time + GPU time that waits for it (0 if overlapped) + memory the prefix fills

Every function takes plain numbers by name and returns one; where they come from, and how far to
trust them, is for the ledger to say. US dollars, seconds, bytes, 1e9 bytes to the GB, 1 Mtok = 1e6
tokens. Negative and absurd inputs are refused, because a formula would turn them into a bargain.
"""

from __future__ import annotations

import math

from kvtier.errors import ConfigError


def check_positive(**numbers: float) -> None:
    """Refuse what a formula divides by, or multiplies with, unless it is a finite number above 0.

    Raises:
        ConfigError: One is not; it is named.
    """
    for name, value in numbers.items():
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{name}: expected a finite number above 0, got {value}")


def check_not_negative(**numbers: float) -> None:
    """Refuse prices, times and counts below 0.

    Raises:
        ConfigError: One is; it is named.
    """
    for name, value in numbers.items():
        if not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"{name}: expected a finite number of at least 0, got {value}")


def prefill_tokens_per_s(*, flop_per_token: float, peak_flop_per_s: float, mfu: float, num_gpus: int = 1) -> float:
    """How fast a prompt is computed.

    Args:
        flop_per_token: Mean over the prompt, attention included: ``Model.prefill_flops(0, n) / n``.
        peak_flop_per_s: Of one GPU in the dtype that is computed in.
        mfu: Share of the peak that is reached, above 0 and up to 1.
        num_gpus: That share the work.

    Returns:
        Tokens per second.

    Example:
        Llama-3.1-8B at 8 Ki tokens on an H100 that reaches half of its peak:

        >>> round(prefill_tokens_per_s(flop_per_token=18.2e9, peak_flop_per_s=989e12, mfu=0.5))
        27170

    Source:
        Model FLOP utilisation as in PaLM, arXiv 2204.02311, appendix B.

    Leaves out:
        Queueing, padding, and decoding that shares the GPU.
    """
    check_positive(flop_per_token=flop_per_token, peak_flop_per_s=peak_flop_per_s, mfu=mfu, num_gpus=num_gpus)
    if mfu > 1:
        raise ConfigError(f"mfu: expected a share of at most 1, got {mfu}")
    return num_gpus * peak_flop_per_s * mfu / flop_per_token


def recompute_usd_per_mtok(*, usd_per_hour: float, tokens_per_s: float) -> float:
    """What computing a million tokens costs.

    Args:
        usd_per_hour: Of all GPUs that share the work.
        tokens_per_s: Prefill speed at the prompt's length.

    Returns:
        USD/Mtok.

    Example:
        >>> round(recompute_usd_per_mtok(usd_per_hour=2.50, tokens_per_s=27_200), 4)
        0.0255

    Source:
        Arithmetic.

    Leaves out:
        Idle GPUs, staff and margin: a cost at full load, not a price.
    """
    check_not_negative(usd_per_hour=usd_per_hour)
    check_positive(tokens_per_s=tokens_per_s)
    return usd_per_hour / 3600 / tokens_per_s * 1e6


def break_even_bytes_per_s(*, bytes_per_token: float, tokens_per_s: float) -> float:
    """The speed at which loading a prefix takes as long as computing it.

    Args:
        bytes_per_token: KV of one token.
        tokens_per_s: Prefill speed at the prompt's length.

    Returns:
        Bytes per second, over all GPUs. A tier that is faster wins time; latency comes on top.

    Example:
        >>> round(break_even_bytes_per_s(bytes_per_token=131_072, tokens_per_s=27_200) / 1e9, 1)
        3.6

    Source:
        Equating b / bandwidth with 1 / prefill speed.

    Leaves out:
        Latency, which matters below some thousand tokens, and loads that overlap with computing.
    """
    check_positive(bytes_per_token=bytes_per_token, tokens_per_s=tokens_per_s)
    return bytes_per_token * tokens_per_s


def drive_usd_per_mtok(*, bytes_per_token: float, read_bytes_per_s: float, device_usd_per_hour: float) -> float:
    """What the drive's time costs that reads a million tokens.

    Args:
        bytes_per_token: KV of one token.
        read_bytes_per_s: Of the drives together.
        device_usd_per_hour: Of the drives together.

    Returns:
        USD/Mtok.

    Example:
        A rented 3.84 TB drive at 0.000213 USD/GB-h that reads 7 GB/s:

        >>> round(drive_usd_per_mtok(bytes_per_token=131_072, read_bytes_per_s=7e9, device_usd_per_hour=0.818), 4)
        0.0043

    Source:
        The price per access of Gray and Putzolu, SIGMOD 1987, with bytes for accesses.

    Leaves out:
        That the same drive also holds what is paid for as rent: with both charged in full, a drive is paid twice
        as soon as it is busy and full. An upper bound, therefore.
    """
    check_not_negative(bytes_per_token=bytes_per_token, device_usd_per_hour=device_usd_per_hour)
    check_positive(read_bytes_per_s=read_bytes_per_s)
    return bytes_per_token * 1e6 / read_bytes_per_s * device_usd_per_hour / 3600


def stall_usd_per_mtok(*, bytes_per_token: float, read_bytes_per_s: float, gpu_usd_per_hour: float) -> float:
    """What the GPUs cost that wait for a million tokens to be loaded; nothing if loading overlaps with other work.

    Args:
        bytes_per_token: KV of one token.
        read_bytes_per_s: Into all GPUs that wait.
        gpu_usd_per_hour: Of all GPUs that wait.

    Returns:
        USD/Mtok.

    Example:
        >>> round(stall_usd_per_mtok(bytes_per_token=131_072, read_bytes_per_s=7e9, gpu_usd_per_hour=2.50), 4)
        0.013

    Source:
        Arithmetic.

    Leaves out:
        Partial overlap; the truth lies between this and 0.
    """
    check_not_negative(bytes_per_token=bytes_per_token, gpu_usd_per_hour=gpu_usd_per_hour)
    check_positive(read_bytes_per_s=read_bytes_per_s)
    return bytes_per_token * 1e6 / read_bytes_per_s * gpu_usd_per_hour / 3600


def occupancy_usd_per_mtok(*, bytes_per_token: float, request_s: float, hbm_usd_per_gb_hour: float) -> float:
    """What the GPU memory costs that a reused prefix fills until its request is answered.

    Args:
        bytes_per_token: KV of one token.
        request_s: From the load to the end of the generation.
        hbm_usd_per_gb_hour: The GPU's price shared among its memory.

    Returns:
        USD/Mtok.

    Example:
        >>> round(occupancy_usd_per_mtok(bytes_per_token=131_072, request_s=10, hbm_usd_per_gb_hour=0.03125), 4)
        0.0114

    Source:
        The GPU's price over its memory, as if memory were what limits the batch.

    Leaves out:
        That a recomputed prefix fills the same memory: this belongs to what a hit costs, not to what it saves.
    """
    check_not_negative(bytes_per_token=bytes_per_token, request_s=request_s, hbm_usd_per_gb_hour=hbm_usd_per_gb_hour)
    return bytes_per_token * 1e6 / 1e9 * hbm_usd_per_gb_hour / 3600 * request_s


def hit_share(
    *,
    recompute_usd_per_mtok: float,
    drive_usd_per_mtok: float,
    occupancy_usd_per_mtok: float,
    stall_usd_per_mtok: float = 0.0,
) -> float:
    """A hit's cost as a share of a recompute's.

    Args:
        recompute_usd_per_mtok: See the function of that name, as with the others.
        drive_usd_per_mtok: Time of the drive.
        occupancy_usd_per_mtok: Memory filled during the request.
        stall_usd_per_mtok: GPU time that waits; 0 if overlapped.

    Returns:
        A ratio; above 1 the hit costs more than what it replaces.

    Example:
        >>> round(hit_share(recompute_usd_per_mtok=0.0256, drive_usd_per_mtok=0.0043, occupancy_usd_per_mtok=0.0114), 2)
        0.61

    Source:
        Arithmetic.

    Leaves out:
        Rent and wear, which depend on how often the prefix is used: see ``kvtier.econ.keeping``.
    """
    parts = {"drive": drive_usd_per_mtok, "occupancy": occupancy_usd_per_mtok, "stall": stall_usd_per_mtok}
    check_not_negative(**parts)
    check_positive(recompute_usd_per_mtok=recompute_usd_per_mtok)
    return sum(parts.values()) / recompute_usd_per_mtok


def recompute_kj_per_mtok(*, power_w: float, tokens_per_s: float) -> float:
    """Energy to compute a million tokens.

    Args:
        power_w: Of the GPUs with their share of the node.
        tokens_per_s: Prefill speed at the prompt's length.

    Returns:
        kJ/Mtok.

    Example:
        >>> round(recompute_kj_per_mtok(power_w=1275, tokens_per_s=27_200))
        47

    Source:
        Arithmetic, at the power that the maker states as the highest.

    Leaves out:
        Cooling of the building.
    """
    check_positive(power_w=power_w, tokens_per_s=tokens_per_s)
    return power_w / tokens_per_s * 1e6 / 1e3


def read_kj_per_mtok(*, power_w: float, bytes_per_token: float, read_bytes_per_s: float) -> float:
    """Energy to read a million tokens from a drive.

    Args:
        power_w: Of the drive while it reads.
        bytes_per_token: KV of one token.
        read_bytes_per_s: Of the drive.

    Returns:
        kJ/Mtok.

    Example:
        >>> round(read_kj_per_mtok(power_w=25, bytes_per_token=131_072, read_bytes_per_s=7e9), 2)
        0.47

    Source:
        Arithmetic, at the power that the form factor allows.

    Leaves out:
        The idle drive, the processor and the link.
    """
    check_not_negative(bytes_per_token=bytes_per_token)
    check_positive(power_w=power_w, read_bytes_per_s=read_bytes_per_s)
    return power_w * bytes_per_token * 1e6 / read_bytes_per_s / 1e3
