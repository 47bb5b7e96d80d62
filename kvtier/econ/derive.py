"""A profile from data sheets: what a named model should do on named hardware.

    prefill seconds = FLOP(n) / (GPUs x peak x MFU)
    at least          weights / (GPUs x HBM bandwidth)
    disk speed      = drives x speed of one, at most the link

Nothing of it was measured: speeds are what a maker gives, and the share of the peak that prefill
reaches (MFU) is assumed. It carries the band, because it is the one number nobody publishes.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from kvtier.econ.figures import Figure
from kvtier.econ.hardware import Accelerator, Hardware, Medium, derived, load_hardware
from kvtier.econ.models import Model, load_model
from kvtier.econ.profile import PrefillPoint, Profile, TierProfile
from kvtier.errors import ConfigError

P = TypeVar("P", bound=Profile)

DEFAULT_MEDIA = ("dram-rented", "nvme-rented")

#: Half octaves from 64 tokens to 1 Mi: between them the curve is a parabola, up to windows.
_LENGTHS = tuple(round(64 * 2 ** (step / 2)) for step in range(29))

#: Share of a GPU's memory that weights may take; the rest is for KV and activations.
_WEIGHT_SHARE = 0.75


def derive_profile(
    cls: type[P],
    hardware: str | Accelerator,
    model: str | Model,
    *,
    media: Sequence[str] = DEFAULT_MEDIA,
    num_gpus: int | None = None,
    drives: int | None = None,
    mfu: float | None = None,
    kv_dtype: str = "bfloat16",
    hardware_file: Path | None = None,
) -> P:
    """A profile that follows from the data files.

    Args:
        cls: ``Profile``.
        hardware: An accelerator, or its name.
        model: A model, or its name.
        media: One medium each for the host, disk and remote tiers that there shall be.
        num_gpus: GPUs that share the model; None takes the smallest power of two whose memory holds the weights.
        drives: Devices of the disk tier; None takes one for each GPU.
        mfu: Share of the peak that prefill reaches, in place of the one in the data files; then without a band.
        kv_dtype: Of the cached numbers, see ``models.KV_DTYPES``.
        hardware_file: Laid over the shipped ``hardware.toml``.

    Raises:
        ConfigError: A name is unknown, two media are for the same tier, or a number is below 1.

    Leaves out:
        What GPUs lose by talking to each other, beyond what the MFU says; and padding, batching, decoding.
    """
    known = load_hardware(hardware_file)
    gpu = known.accelerator(hardware) if isinstance(hardware, str) else hardware
    model = load_model(model) if isinstance(model, str) else model
    gpus = _enough(model, gpu) if num_gpus is None else num_gpus
    num_drives = gpus if drives is None else drives
    if gpus < 1 or num_drives < 1:
        raise ConfigError(f"expected at least one GPU and one drive, got {gpus} and {num_drives}")
    reached = gpu.mfu if mfu is None else _own_mfu(mfu)
    lo, mid, hi = (gpus * gpu.peak_bf16_flop_per_s.value * share for share in reached.band)
    flops = [(n, model.prefill_flops(0, n)) for n in _LENGTHS]
    return cls(
        name=f"{model.name} on {gpus} x {gpu.name}",
        source="derived from data sheets, not measured",
        date=reached.date,
        machine=None,
        versions={},
        model=model.name,
        kv_dtype=kv_dtype,
        bytes_per_token=model.bytes_per_token(kv_dtype),
        window_bytes=model.window_bytes(kv_dtype),
        window_tokens=model.window_tokens,
        prefill=tuple(PrefillPoint(tokens=n, lo=f / hi, mid=f / mid, hi=f / lo) for n, f in flops),
        pass_s=model.weight_bytes / (gpus * gpu.hbm_bytes_per_s.value),
        gpu_usd_per_hour=_times(gpu.usd_per_hour, gpus, "GPUs"),
        power_w=_times(gpu.power_w, gpus, "GPUs"),
        tiers=_tiers(gpu, known, media, gpus, num_drives),
        inputs={
            "mfu": reached,
            "peak_bf16_flop_per_s": gpu.peak_bf16_flop_per_s,
            "active_params": _fact(model, float(model.active_params), "parameters"),
            "bytes_per_token": _fact(model, float(model.bytes_per_token(kv_dtype)), "bytes"),
        },
    )


def _enough(model: Model, gpu: Accelerator) -> int:
    need = model.weight_bytes / (gpu.hbm_bytes.value * _WEIGHT_SHARE)
    return 1 << max(0, math.ceil(math.log2(need)))


def _own_mfu(mfu: float) -> Figure:
    if not 0 < mfu <= 1:
        raise ConfigError(f"mfu: expected a share above 0 and at most 1, got {mfu}")
    today = dt.datetime.now(dt.UTC).date().isoformat()
    return Figure(value=mfu, unit="ratio", source="given by whoever asked", date=today, kind="assumed")


def _fact(model: Model, value: float, unit: str) -> Figure:
    return Figure(value=value, unit=unit, source=model.source, date=model.date, kind="given")


def _times(figure: Figure, count: int, what: str) -> Figure:
    return figure if count == 1 else derived(figure, figure.value * count, figure.unit, f"{count} {what}")


def _tiers(gpu: Accelerator, known: Hardware, media: Sequence[str], gpus: int, drives: int) -> dict[str, TierProfile]:
    tiers = {"device": _device(gpu, gpus)}
    for medium in map(known.medium, media):
        if medium.tier in tiers:
            raise ConfigError(f"media {', '.join(media)}: two are for the {medium.tier} tier, expected one")
        tiers[medium.tier] = _tier(medium, gpu, gpus, drives if medium.tier == "disk" else 1)
    order = ("device", "host", "disk", "remote")
    return {name: tiers[name] for name in order if name in tiers}


def _device(gpu: Accelerator, gpus: int) -> TierProfile:
    """The GPU's own memory: a copy within it reads and writes, so it runs at half the bandwidth."""
    speed = derived(gpu.hbm_bytes_per_s, gpu.hbm_bytes_per_s.value * gpus / 2, "bytes/s", f"a copy within {gpus} GPUs")
    return TierProfile(
        medium=f"{gpu.name} HBM",
        read_bytes_per_s=speed,
        write_bytes_per_s=speed,
        latency_s=_assumed(0.0, "s", "no transfer"),
        write_amplification=_assumed(1.0, "ratio", "memory"),
        rent_usd_per_gb_hour=gpu.hbm_rent_usd_per_gb_hour,
    )


def _tier(medium: Medium, gpu: Accelerator, gpus: int, count: int) -> TierProfile:
    link = _times(gpu.link_bytes_per_s, gpus, "links")
    hourly = medium.device_usd_per_hour
    return TierProfile(
        medium=medium.name,
        read_bytes_per_s=_slower(medium.read_bytes_per_s, count, link),
        write_bytes_per_s=_slower(medium.write_bytes_per_s, count, link),
        latency_s=medium.latency_s or _assumed(0.0, "s", "small beside the transfer"),
        write_amplification=_assumed(1.0, "ratio", "large sequential writes; measure it"),
        rent_usd_per_gb_hour=medium.rent,
        device_usd_per_hour=None if hourly is None else _times(hourly, count, "drives"),
        wear_usd_per_gb=medium.wear_usd_per_gb,
        usd_per_gb_read=medium.usd_per_gb_read,
        usd_per_gb_written=medium.usd_per_gb_written,
        power_w=None if medium.power_w is None else _times(medium.power_w, count, "drives"),
    )


def _slower(speed: Figure | None, count: int, link: Figure) -> Figure:
    if speed is None:
        return link
    total = _times(speed, count, "drives")
    return min(total, link, key=lambda figure: figure.value)


def _assumed(value: float, unit: str, why: str) -> Figure:
    return Figure(value=value, unit=unit, source=why, date="2026-11", kind="assumed")
