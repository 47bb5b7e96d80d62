"""Accelerators and media: what they cost, how fast they are, how long they last.

    rented   rent per GB-hour                                 nothing else
    bought   price per GB / (life in years x 8,760 hours)     and wear, if it has an endurance

Renting and buying the same medium are two entries, because they differ in kind: who rents a drive
pays for the hour whether it writes or not, who owns it pays for what it writes.

Data: ``data/hardware.toml``; ``load_hardware(path)`` lays a file of one's own over it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from kvtier.econ.figures import Figure, unknown_name
from kvtier.econ.tables import Section, build, load_tables
from kvtier.errors import ConfigError

TierName = Literal["device", "host", "disk", "remote"]

TIER_NAMES: tuple[str, ...] = get_args(TierName)

HOURS_PER_YEAR = 8760
HOURS_PER_MONTH = 730

_ACCELERATOR = Section(
    units={
        "usd_per_hour": "USD/h",
        "peak_bf16_flop_per_s": "FLOP/s",
        "mfu": "ratio",
        "hbm_bytes": "bytes",
        "hbm_bytes_per_s": "bytes/s",
        "link_bytes_per_s": "bytes/s",
        "power_w": "W",
    }
)
_PROCESSOR = Section(units={"usd_per_core_hour": "USD/h"})
_MEDIUM = Section(
    units={
        "rent_usd_per_gb_hour": "USD/GB-h",
        "rent_usd_per_gb_month": "USD/GB-month",
        "price_usd_per_gb": "USD/GB",
        "life_years": "years",
        "endurance_dwpd": "1/day",
        "device_bytes": "bytes",
        "read_bytes_per_s": "bytes/s",
        "write_bytes_per_s": "bytes/s",
        "latency_s": "s",
        "usd_per_gb_read": "USD/GB",
        "usd_per_gb_written": "USD/GB",
        "power_w": "W",
    },
    texts=frozenset({"tier"}),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """One GPU."""

    name: str
    usd_per_hour: Figure
    peak_bf16_flop_per_s: Figure
    """Dense, without sparsity."""

    mfu: Figure
    """Share of that peak which prefill reaches."""

    hbm_bytes: Figure
    hbm_bytes_per_s: Figure
    link_bytes_per_s: Figure
    """From host memory, as a copy reaches it."""

    power_w: Figure
    """Its share of the node's."""

    @property
    def hbm_rent_usd_per_gb_hour(self) -> Figure:
        """The GPU's price shared among the bytes of its memory: what holding KV there keeps others from using."""
        price = self.usd_per_hour
        value = price.value / (self.hbm_bytes.value / 1e9)
        return derived(price, value, "USD/GB-h", f"over {self.hbm_bytes.value / 1e9:g} GB of HBM")


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """What a machine without a GPU costs, its memory with it."""

    name: str
    usd_per_core_hour: Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Medium:
    """Where KV can be kept besides the GPU, and on which terms."""

    name: str
    tier: TierName
    rent_usd_per_gb_hour: Figure | None = None
    rent_usd_per_gb_month: Figure | None = None
    price_usd_per_gb: Figure | None = None
    life_years: Figure | None = None
    endurance_dwpd: Figure | None = None
    """Drive writes a day over its life; None for what does not wear out, or is another's to wear out."""

    device_bytes: Figure | None = None
    """Size of one drive: its rent is what an hour of its bandwidth costs."""

    read_bytes_per_s: Figure | None = None
    """None for host memory, which the accelerator's link limits."""

    write_bytes_per_s: Figure | None = None
    latency_s: Figure | None = None
    usd_per_gb_read: Figure | None = None
    usd_per_gb_written: Figure | None = None
    power_w: Figure | None = None

    def __post_init__(self) -> None:
        if self.tier not in {"host", "disk", "remote"}:
            raise ConfigError(f"medium {self.name!r}: tier {self.tier!r} is none of host, disk, remote")
        terms = [self.rent_usd_per_gb_hour, self.rent_usd_per_gb_month, self.price_usd_per_gb]
        if sum(term is not None for term in terms) != 1:
            raise ConfigError(
                f"medium {self.name!r}: expected exactly one of rent_usd_per_gb_hour, rent_usd_per_gb_month and "
                "price_usd_per_gb"
            )
        if self.price_usd_per_gb is not None and self.life_years is None:
            raise ConfigError(f"medium {self.name!r} has a price_usd_per_gb and no life_years to spread it over")
        if self.tier != "host" and (self.read_bytes_per_s is None or self.write_bytes_per_s is None):
            raise ConfigError(f"medium {self.name!r} needs read_bytes_per_s and write_bytes_per_s")

    @property
    def rent(self) -> Figure:
        """What holding one GB for one hour costs, in USD/GB-h."""
        if self.rent_usd_per_gb_hour is not None:
            return self.rent_usd_per_gb_hour
        if self.rent_usd_per_gb_month is not None:
            month = self.rent_usd_per_gb_month
            return derived(month, month.value / HOURS_PER_MONTH, "USD/GB-h", f"over {HOURS_PER_MONTH} hours")
        price, years = self.price_usd_per_gb, self.life_years
        assert price is not None
        assert years is not None
        value = price.value / (years.value * HOURS_PER_YEAR)
        return derived(price, value, "USD/GB-h", f"over {years.value:g} years")

    @property
    def device_usd_per_hour(self) -> Figure | None:
        """What an hour of one drive costs; None where bandwidth is not sold by the drive."""
        if self.device_bytes is None:
            return None
        gb = self.device_bytes.value / 1e9
        return derived(self.rent, self.rent.value * gb, "USD/h", f"for {gb:g} GB")

    @property
    def wear_usd_per_gb(self) -> Figure | None:
        """Price of one GB written to the flash: P / (DWPD x 365 x years); None where nothing wears."""
        if self.endurance_dwpd is None or self.price_usd_per_gb is None or self.life_years is None:
            return None
        writes = self.endurance_dwpd.value * 365 * self.life_years.value
        price = self.price_usd_per_gb
        return derived(price, price.value / writes, "USD/GB", f"over {writes:g} drive writes")


def derived(figure: Figure, value: float, unit: str, how: str) -> Figure:
    """A figure that follows from another by arithmetic, its band with it."""
    factor = value / figure.value if figure.value else 0.0
    return Figure(
        value=value,
        unit=unit,
        source=f"{figure.source}; {how}",
        date=figure.date,
        kind=figure.kind,
        lo=None if figure.lo is None else figure.lo * factor,
        hi=None if figure.hi is None else figure.hi * factor,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """All that a file, or the shipped one with it, knows."""

    accelerators: Mapping[str, Accelerator]
    media: Mapping[str, Medium]
    processors: Mapping[str, Processor]

    def accelerator(self, name: str) -> Accelerator:
        """One accelerator; case does not matter.

        Raises:
            ConfigError: There is none of that name; near ones are named.
        """
        if name.lower() not in self.accelerators:
            raise ConfigError(unknown_name("hardware", name, self.accelerators))
        return self.accelerators[name.lower()]

    def medium(self, name: str) -> Medium:
        """One medium; case does not matter.

        Raises:
            ConfigError: There is none of that name; near ones are named.
        """
        if name.lower() not in self.media:
            raise ConfigError(unknown_name("medium", name, self.media))
        return self.media[name.lower()]

    def processor(self, name: str) -> Processor:
        """One kind of machine without a GPU; case does not matter.

        Raises:
            ConfigError: There is none of that name; near ones are named.
        """
        if name.lower() not in self.processors:
            raise ConfigError(unknown_name("processor", name, self.processors))
        return self.processors[name.lower()]


def load_hardware(path: Path | None = None) -> Hardware:
    """The shipped hardware, and the user's over it.

    Args:
        path: A TOML file in the form of ``data/hardware.toml``; fields it has replace those of the same
            entry, other entries are added.

    Raises:
        ConfigError: The file cannot be read, or something in it is refused, with its place.
    """
    sections = {"accelerator": _ACCELERATOR, "medium": _MEDIUM, "processor": _PROCESSOR}
    entries = load_tables("hardware.toml", path, sections)
    required = tuple(_ACCELERATOR.units)
    return Hardware(
        accelerators={
            name.lower(): cast("Accelerator", build(Accelerator, name, fields, required, "accelerator"))
            for name, fields in entries["accelerator"].items()
        },
        media={
            name.lower(): cast("Medium", build(Medium, name, fields, ("tier",), "medium"))
            for name, fields in entries["medium"].items()
        },
        processors={
            name.lower(): cast("Processor", build(Processor, name, fields, tuple(_PROCESSOR.units), "processor"))
            for name, fields in entries["processor"].items()
        },
    )
