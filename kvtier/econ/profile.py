"""What one machine does with one model: prefill by length, tiers by name, and what each costs.

    prefill_s(start, stop)      seconds to compute tokens start..stop behind a cached prefix
    load_s(tier, tokens)        seconds to read that many tokens' KV:  latency + bytes / speed
    compute_usd(s)              what those seconds of the machine cost
    rent_usd(tier, bytes, s)    what holding bytes for a while costs
    wear_usd(tier, bytes)       what writing them takes off a drive:  bytes x WAF x price per GB written

A profile is either measured, and then good for the machine and the software it names, or derived
from data sheets (``Profile.named``), and then good anywhere and marked as assumed. Simulator,
ledger and the decision to load or recompute ask it alone, so that they agree on what things cost.

Speeds are those of the whole machine: of all its GPUs and drives together.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Self

from kvtier.econ.curve import PrefillCurve, interpolate
from kvtier.econ.figures import Figure, unknown_name
from kvtier.econ.hardware import TIER_NAMES
from kvtier.errors import ProfileError


class Band(NamedTuple):
    """A number between two that it will hardly leave."""

    lo: float
    mid: float
    hi: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillPoint:
    """Seconds of the prefill of a whole prompt of one length, with the band they were seen in."""

    tokens: int
    lo: float
    mid: float
    hi: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TierProfile:
    """One tier of the machine. Units in ``profile_json.TIER_UNITS``."""

    medium: str
    """What it is made of, for tables."""

    read_bytes_per_s: Figure
    write_bytes_per_s: Figure
    latency_s: Figure
    """Of one read, before the first byte."""

    write_amplification: Figure
    """Bytes that reach the medium for each byte stored."""

    rent_usd_per_gb_hour: Figure
    device_usd_per_hour: Figure | None = None
    """What an hour of its bandwidth costs; None where bandwidth is not sold."""

    wear_usd_per_gb: Figure | None = None
    """Price of one GB written to the medium; None where nothing wears."""

    usd_per_gb_read: Figure | None = None
    usd_per_gb_written: Figure | None = None
    power_w: Figure | None = None
    raw_read_bytes_per_s: Figure | None = None
    """What the medium gives without a store in front."""

    raw_write_bytes_per_s: Figure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A machine with a model, as measured or as derived from data sheets."""

    name: str
    source: str
    date: str

    machine: str | None
    """As ``machine.machine_name`` says it; None if derived, which is good anywhere."""

    versions: Mapping[str, str]
    """Of the software it was measured with."""

    model: str
    kv_dtype: str
    bytes_per_token: int
    prefill: tuple[PrefillPoint, ...]
    """Rising in tokens."""

    gpu_usd_per_hour: Figure
    """Of the whole machine while it computes."""

    tiers: Mapping[str, TierProfile]
    """By ``device``, ``host``, ``disk`` or ``remote``."""

    window_bytes: int = 0
    """Bytes of a sequence's windowed layers once full; see ``Model.window_bytes``."""

    window_tokens: int = 0
    pass_s: float = 0.0
    """A pass over any number of tokens takes at least this: the weights are read once."""

    power_w: Figure | None = None
    """Of the whole machine while it computes."""

    inputs: Mapping[str, Figure] = field(default_factory=dict)
    """Figures that the others were derived from, so that a ledger can name them."""

    _curve: PrefillCurve = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        where = f"profile {self.name!r}"
        if not self.prefill:
            raise ProfileError(f"{where} has no prefill points")
        for point in self.prefill:
            if point.tokens < 1 or not 0 < point.lo <= point.mid <= point.hi:
                raise ProfileError(f"{where}: expected tokens >= 1 and 0 < lo <= mid <= hi, got {point}")
        for before, after in pairwise(self.prefill):
            if before.tokens >= after.tokens or before.mid > after.mid:
                raise ProfileError(f"{where}: prefill points must rise in tokens and not fall in time at {after}")
        for tier in self.tiers:
            if tier not in TIER_NAMES:
                raise ProfileError(f"{where}: {unknown_name('tier', tier, TIER_NAMES)}")
        if not {"device", "host"} & set(self.tiers):
            raise ProfileError(f"{where} has neither a device nor a host tier, so nothing to compute in")
        curve = PrefillCurve([p.tokens for p in self.prefill], [p.mid for p in self.prefill])
        object.__setattr__(self, "_curve", curve)

    @classmethod
    def named(cls, hardware: str, model: str, **options: Any) -> Self:
        """A profile derived from the data files; ``derive.derive_profile`` says what it assumes.

        Args:
            hardware: An accelerator of ``hardware.toml``, such as ``h100``.
            model: A model that comes with kvtier, such as ``llama-3.1-8b``.
            **options: See ``derive.derive_profile``.

        Raises:
            ConfigError: One of them is unknown; near names are given.

        Example:
            >>> profile = Profile.named("h100", "llama-3.1-8b")
            >>> round(8192 / profile.prefill_s(0, 8192))  # tokens per second
            27158
        """
        from kvtier.econ.derive import derive_profile

        return derive_profile(cls, hardware, model, **options)

    # How long things take

    def prefill_s(self, start_tokens: int, stop_tokens: int) -> float:
        """Seconds to compute the tokens from ``start`` up to ``stop``, all before ``start`` being cached.

        0 for no tokens; else at least ``pass_s``. Beyond the last point it follows the fit, see ``extrapolates``.
        """
        if stop_tokens <= start_tokens:
            return 0.0
        return max(self.pass_s, self._curve.span(start_tokens, stop_tokens))

    def prefill_band_s(self, start_tokens: int, stop_tokens: int) -> Band:
        """The same with the relative band of the points around ``stop``."""
        mid = self.prefill_s(start_tokens, stop_tokens)
        lengths = [p.tokens for p in self.prefill]
        lo = interpolate(stop_tokens, lengths, [p.lo / p.mid for p in self.prefill])
        hi = interpolate(stop_tokens, lengths, [p.hi / p.mid for p in self.prefill])
        return Band(mid * lo, mid, mid * hi)

    def extrapolates(self, stop_tokens: int) -> bool:
        """Whether a prompt of that length is longer than any that the profile knows."""
        return stop_tokens > self.prefill[-1].tokens

    def prefix_bytes(self, num_tokens: int) -> int:
        """Bytes of KV of a prefix; windowed layers hold no more than their window."""
        if not self.window_tokens:
            return num_tokens * self.bytes_per_token
        windowed = self.window_bytes * min(num_tokens, self.window_tokens) / self.window_tokens
        return num_tokens * self.bytes_per_token + round(windowed)

    def load_s(self, tier_name: str, num_tokens: int) -> float:
        """Seconds to read a prefix of that length from a tier; 0 for no tokens.

        Raises:
            ProfileError: The profile has no such tier.
        """
        return self.load_band_s(tier_name, num_tokens).mid

    def load_band_s(self, tier_name: str, num_tokens: int) -> Band:
        """The same with the band of the tier's speed: the fastest read is the lower end."""
        if num_tokens < 1:
            return Band(0.0, 0.0, 0.0)
        tier = self.tier(tier_name)
        slow, speed, fast = tier.read_bytes_per_s.band
        size = self.prefix_bytes(num_tokens)
        return Band(*(wait + size / rate for wait, rate in zip(tier.latency_s.band, (fast, speed, slow), strict=True)))

    def write_s(self, tier_name: str, num_tokens: int) -> float:
        """Seconds to write a prefix of that length to a tier; 0 for no tokens.

        Raises:
            ProfileError: The profile has no such tier.
        """
        return self.prefix_bytes(num_tokens) / self.tier(tier_name).write_bytes_per_s.value

    # What they cost

    def compute_usd(self, seconds: float) -> float:
        """What the machine costs while it computes, or waits."""
        return self.gpu_usd_per_hour.value / 3600 * seconds

    def rent_usd(self, tier_name: str, num_bytes: float, seconds: float) -> float:
        """What holding bytes in a tier costs."""
        return self.tier(tier_name).rent_usd_per_gb_hour.value / 3600 * num_bytes / 1e9 * seconds

    def wear_usd(self, tier_name: str, bytes_written: float) -> float:
        """What storing bytes takes off the medium's life, write amplification included, and fees per GB stored."""
        tier = self.tier(tier_name)
        wear = 0.0 if tier.wear_usd_per_gb is None else tier.wear_usd_per_gb.value * tier.write_amplification.value
        fee = 0.0 if tier.usd_per_gb_written is None else tier.usd_per_gb_written.value
        return (wear + fee) * bytes_written / 1e9

    def read_usd(self, tier_name: str, num_tokens: int) -> float:
        """What the drive's time to read a prefix costs, and fees per GB read; the machine's time is not in it."""
        tier = self.tier(tier_name)
        size = self.prefix_bytes(num_tokens)
        hourly = 0.0 if tier.device_usd_per_hour is None else tier.device_usd_per_hour.value
        fee = 0.0 if tier.usd_per_gb_read is None else tier.usd_per_gb_read.value
        return hourly / 3600 * size / tier.read_bytes_per_s.value + fee * size / 1e9

    def occupancy_usd(self, num_bytes: float, seconds: float) -> float:
        """What a request's KV costs by filling the memory it is computed in."""
        return self.rent_usd("device" if "device" in self.tiers else "host", num_bytes, seconds)

    def tier(self, name: str) -> TierProfile:
        """A tier by name.

        Raises:
            ProfileError: The profile has none of that name.
        """
        if name not in self.tiers:
            raise ProfileError(f"profile {self.name!r}: {unknown_name('tier', name, self.tiers)}")
        return self.tiers[name]

    def figures(self) -> dict[str, Figure]:
        """Every input of a ledger by name, with its source."""
        found = {"gpu_usd_per_hour": self.gpu_usd_per_hour, **self.inputs}
        if self.power_w is not None:
            found["power_w"] = self.power_w
        for name, tier in self.tiers.items():
            for item in fields(tier):
                value = getattr(tier, item.name)
                if isinstance(value, Figure):
                    found[f"{name}.{item.name}"] = value
        return found

    # On disk

    def save(self, path: Path) -> None:
        """Write it as JSON, whole or not at all.

        Raises:
            ProfileError: The file cannot be written.
        """
        from kvtier.econ.profile_json import to_json

        partial = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            partial.write_text(json.dumps(to_json(self), indent=2) + "\n")
            partial.replace(path)
        except OSError as exc:
            raise ProfileError(f"{path}: cannot be written: {exc.strerror}") from exc
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what ``save`` wrote; ``check_here`` says whether it is this machine's.

        Raises:
            ProfileError: The file cannot be read, is of another schema, or lacks something.
        """
        from kvtier.econ.profile_json import from_json

        try:
            raw = json.loads(path.read_text())
        except (OSError, ValueError) as exc:
            raise ProfileError(f"{path}: not a readable profile: {exc}") from exc
        return from_json(cls, raw, str(path))

    def check_here(self, machine: str, versions: Mapping[str, str]) -> None:
        """Refuse a profile that was measured elsewhere; a derived one is good anywhere.

        Args:
            machine: As ``machine.machine_name`` says it.
            versions: As ``machine.versions`` says them.

        Raises:
            ProfileError: It is another machine's, or software of its has another version here.
        """
        if self.machine is None:
            return
        if self.machine != machine:
            raise ProfileError(
                f"profile {self.name!r} was measured on {self.machine!r}, this machine is {machine!r}; measure again"
            )
        for package, version in self.versions.items():
            if versions.get(package) != version:
                raise ProfileError(
                    f"profile {self.name!r} was measured with {package} {version}, here is "
                    f"{versions.get(package, 'none')}; measure again"
                )
