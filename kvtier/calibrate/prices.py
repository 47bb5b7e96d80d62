"""What this machine costs, which no measurement says: from the command line, or from ``hardware.toml``.

    machine    --machine-price, or the accelerator whose name the GPU's contains, or rent of a core x cores
    tiers      --medium, or rented DRAM and rented NVMe

What nobody named is labelled assumed, whatever it is in the file: a list price is given for the machine
it is the list price of, and assumed for this one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from kvtier.calibrate.bands import today
from kvtier.econ.derive import DEFAULT_MEDIA
from kvtier.econ.figures import Figure
from kvtier.econ.hardware import Hardware, Medium, derived
from kvtier.errors import ConfigError

PROCESSOR = "cpu-rented"


@dataclass(frozen=True, slots=True, kw_only=True)
class Priced:
    """A machine with a price on everything."""

    machine: Figure
    """USD/h."""

    media: Mapping[str, Medium]
    """By tier."""

    by_default: frozenset[str]
    """Tiers whose medium nobody named."""

    device_rent: Figure | None = None
    """USD/GB-h of the GPU's memory."""

    def terms(self, tier: str) -> dict[str, Figure]:
        """The fields of a ``TierProfile`` that are prices; none but the rent for the device tier."""
        if tier == "device":
            assert self.device_rent is not None
            return {"rent_usd_per_gb_hour": self.device_rent}
        medium = self.media[tier]
        found = {
            "rent_usd_per_gb_hour": medium.rent,
            "device_usd_per_hour": medium.device_usd_per_hour,
            "wear_usd_per_gb": medium.wear_usd_per_gb,
            "usd_per_gb_read": medium.usd_per_gb_read,
            "usd_per_gb_written": medium.usd_per_gb_written,
            "power_w": medium.power_w,
        }
        known = {name: figure for name, figure in found.items() if figure is not None}
        return {name: _assumed(figure) for name, figure in known.items()} if tier in self.by_default else known


def price_machine(
    hardware: Hardware,
    *,
    gpu: str | None,
    gpu_bytes: int,
    cores: int,
    machine_usd_per_hour: float | None,
    media: Sequence[str] | None,
) -> Priced:
    """Prices for this machine.

    Args:
        hardware: What the files know.
        gpu: Its name as the driver has it; None where the CPU computes.
        gpu_bytes: Its memory.
        cores: That this process may use.
        machine_usd_per_hour: Of the whole machine, as its user says; None takes it from the files.
        media: One for the host and one for the disk tier, as its user says; None takes the rented ones.

    Raises:
        ConfigError: A medium is unknown, two are for one tier, or the GPU's price is in no file.
    """
    machine = machine_price(hardware, gpu, cores, machine_usd_per_hour)
    rent = None
    if gpu is not None:
        gb = gpu_bytes / 1e9
        rent = derived(machine, machine.value / gb, "USD/GB-h", f"over {gb:.0f} GB of GPU memory")
    named = _by_tier(hardware, media or ())
    return Priced(
        machine=machine,
        media={**_by_tier(hardware, DEFAULT_MEDIA), **named},
        by_default=frozenset({"host", "disk"} - set(named)),
        device_rent=rent,
    )


def machine_price(hardware: Hardware, gpu: str | None, cores: int, usd_per_hour: float | None = None) -> Figure:
    """USD/h of a machine: as its user says, else of its GPU, else of its cores; see ``price_machine``.

    Raises:
        ConfigError: The GPU's price is in no file.
    """
    if usd_per_hour is not None:
        return Figure(value=usd_per_hour, unit="USD/h", source="--machine-price", date=today(), kind="given")
    if gpu is None:
        core = hardware.processor(PROCESSOR).usd_per_core_hour
        return _assumed(derived(core, core.value * cores, "USD/h", f"{cores} cores of that"))
    words = re.split(r"[^a-z0-9]+", gpu.lower())
    found = next((one for name, one in hardware.accelerators.items() if name in words), None)
    if found is None:
        raise ConfigError(f"no price is known for {gpu!r}; give --machine-price, in USD an hour")
    return _assumed(found.usd_per_hour)


def _by_tier(hardware: Hardware, names: Sequence[str]) -> dict[str, Medium]:
    found: dict[str, Medium] = {}
    for medium in map(hardware.medium, names):
        if medium.tier in found:
            raise ConfigError(f"media {', '.join(names)}: two are for the {medium.tier} tier, expected one")
        if medium.tier == "remote":
            raise ConfigError(f"medium {medium.name!r} is for a remote tier, which cannot be measured here")
        found[medium.tier] = medium
    return found


def _assumed(figure: Figure) -> Figure:
    return replace(figure, kind="assumed", source=f"{figure.source}; assumed of this machine")
