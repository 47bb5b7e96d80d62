"""A profile on disk: JSON with a schema version, every figure with its source.

A file of another schema is refused instead of guessed at: a profile takes minutes to measure, and
a wrong one is believed for months.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from kvtier.econ.figures import Figure, read_figure
from kvtier.econ.profile import PrefillPoint, Profile, TierProfile
from kvtier.errors import ConfigError, ProfileError

if TYPE_CHECKING:
    from typing import TypeVar

    P = TypeVar("P", bound=Profile)

SCHEMA = "kvtier-profile"
SCHEMA_VERSION = 1

TIER_UNITS: Mapping[str, str] = {
    "read_bytes_per_s": "bytes/s",
    "write_bytes_per_s": "bytes/s",
    "latency_s": "s",
    "write_amplification": "ratio",
    "rent_usd_per_gb_hour": "USD/GB-h",
    "device_usd_per_hour": "USD/h",
    "wear_usd_per_gb": "USD/GB",
    "usd_per_gb_read": "USD/GB",
    "usd_per_gb_written": "USD/GB",
    "power_w": "W",
    "raw_read_bytes_per_s": "bytes/s",
    "raw_write_bytes_per_s": "bytes/s",
}
_OPTIONAL = {item.name for item in fields(TierProfile) if item.default is None}
_PLAIN: Mapping[str, tuple[type, ...]] = {
    "name": (str,),
    "source": (str,),
    "date": (str,),
    "machine": (str, type(None)),
    "versions": (dict,),
    "model": (str,),
    "kv_dtype": (str,),
    "bytes_per_token": (int,),
    "window_bytes": (int,),
    "window_tokens": (int,),
    "pass_s": (int, float),
}


def to_json(profile: Profile) -> dict[str, Any]:
    """All of a profile as JSON has it."""
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        **{name: getattr(profile, name) for name in _PLAIN if name != "versions"},
        "versions": dict(profile.versions),
        "prefill": [asdict(point) for point in profile.prefill],
        "gpu_usd_per_hour": profile.gpu_usd_per_hour.as_dict(),
        "power_w": None if profile.power_w is None else profile.power_w.as_dict(),
        "tiers": {name: _tier_json(tier) for name, tier in profile.tiers.items()},
        "inputs": {name: figure.as_dict() for name, figure in profile.inputs.items()},
    }


def _tier_json(tier: TierProfile) -> dict[str, Any]:
    values = {item.name: getattr(tier, item.name) for item in fields(tier)}
    return {
        name: value.as_dict() if isinstance(value, Figure) else value
        for name, value in values.items()
        if value is not None
    }


def from_json(cls: type[P], raw: object, where: str) -> P:
    """A profile from what ``to_json`` gave.

    Raises:
        ProfileError: It is none, of another version, or incomplete.
    """
    if not isinstance(raw, Mapping) or raw.get("schema") != SCHEMA:
        raise ProfileError(f"{where}: not a profile: expected a JSON object with schema {SCHEMA!r}")
    if raw.get("schema_version") != SCHEMA_VERSION:
        raise ProfileError(
            f"{where}: a profile of schema version {raw.get('schema_version')!r}, this kvtier reads {SCHEMA_VERSION}; "
            "measure again"
        )
    wanted = [*_PLAIN, "prefill", "gpu_usd_per_hour", "tiers", "inputs"]
    if missing := [name for name in wanted if name not in raw]:
        raise ProfileError(f"{where}: the profile has no {', '.join(missing)}")
    try:
        return _read(cls, raw, where)
    except ProfileError:
        raise
    except ConfigError as exc:
        raise ProfileError(str(exc)) from exc
    except (AttributeError, KeyError, TypeError) as exc:
        raise ProfileError(f"{where}: the profile is damaged: {type(exc).__name__}: {exc}") from exc


def _read(cls: type[P], raw: Mapping[str, Any], where: str) -> P:
    for name, types in _PLAIN.items():
        if not isinstance(raw[name], types) or isinstance(raw[name], bool):
            raise ProfileError(f"{where}: {name}: expected {types[0].__name__}, got {raw[name]!r}")
    power = raw.get("power_w")
    return cls(
        **{name: raw[name] for name in _PLAIN},
        prefill=tuple(PrefillPoint(**point) for point in raw["prefill"]),
        gpu_usd_per_hour=read_figure(raw["gpu_usd_per_hour"], f"{where}: gpu_usd_per_hour", "USD/h"),
        power_w=None if power is None else read_figure(power, f"{where}: power_w", "W"),
        tiers={name: _read_tier(tier, f"{where}: {name}") for name, tier in raw["tiers"].items()},
        inputs={name: read_figure(item, f"{where}: {name}", item["unit"]) for name, item in raw["inputs"].items()},
    )


def _read_tier(raw: Mapping[str, Any], where: str) -> TierProfile:
    missing = [name for name in ("medium", *TIER_UNITS) if name not in raw and name not in _OPTIONAL]
    if missing:
        raise ProfileError(f"{where}: the tier has no {', '.join(missing)}")
    figures = {
        name: read_figure(raw[name], f"{where}.{name}", unit) for name, unit in TIER_UNITS.items() if name in raw
    }
    return TierProfile(medium=raw["medium"], **figures)
