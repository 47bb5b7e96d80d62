"""A million tokens served from the cache, held against a million computed: every component by itself.

    a hit costs     read + write / k + rent / k + occupancy      and a stall, unless loads overlap
    a miss costs    recompute                   + occupancy
    a hit saves     recompute - read - write / k - rent / k      and less the stall, unless they do

A prefix is written once, held for some time and used k times within it. What its bytes cost by
filling the GPU's memory during a request is part of either cost and of no saving: a computed
prefix fills the same memory. So a hit can cost a large share of a miss and still save nearly all
of the recompute, and the share is what a provider who sells at cost would charge.

Loads are worth between nothing and their whole time in stalled GPUs, depending on how well an engine
overlaps them; both ends are given, for the truth is the engine's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise, product
from typing import Any, Literal

from kvtier.econ.figures import Figure
from kvtier.econ.formulas import check_not_negative, check_positive
from kvtier.econ.hardware import TIER_NAMES
from kvtier.econ.keeping import hold_s_above, hold_s_of_one_recompute, least_reuses
from kvtier.econ.prices import ListPrice
from kvtier.econ.profile import Profile
from kvtier.errors import ConfigError

Verdict = Literal["saves", "may lose", "loses if it stalls", "loses"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One tier, prompt length, number of reuses and holding time. US dollars per million tokens served."""

    tier: str
    medium: str
    prompt_tokens: int
    reuses: int
    """Hits that one write serves."""

    hold_s: float
    """From the write to the last of them."""

    recompute_usd: float
    read_usd: float
    """The drive's time, and fees per GB."""

    write_usd: float
    """Wear, fees and the drive's time of the write, shared among the hits."""

    rent_usd: float
    """Of the holding time, shared among the hits."""

    occupancy_usd: float
    """GPU memory filled while a request is answered; a recomputed prefix fills it as well."""

    stall_usd: float
    """GPUs that wait for the load, if nothing overlaps with it."""

    saves_lo_usd: float
    """What an overlapped hit saves with the slowest read and the fastest recompute of the profile's bands."""

    speed_up: float
    """Time of the recompute over time of the load."""

    recompute_kj: float | None
    """Energy of computing a million tokens; None where the power is not known."""

    read_kj: float | None
    """Energy of reading as many; None where the power is not known."""

    extrapolated: bool
    """The prompt is longer than any that the profile knows."""

    @property
    def hit_usd(self) -> float:
        """What a hit costs if its load overlaps: the price at cost."""
        return self.read_usd + self.write_usd + self.rent_usd + self.occupancy_usd

    @property
    def miss_usd(self) -> float:
        """What computing the same tokens costs."""
        return self.recompute_usd + self.occupancy_usd

    @property
    def share(self) -> float:
        """Price of a cached token over that of an input token, both at cost, loads overlapped."""
        return self.hit_usd / self.miss_usd

    @property
    def share_stalled(self) -> float:
        """The same with GPUs that wait for the load."""
        return (self.hit_usd + self.stall_usd) / self.miss_usd

    @property
    def saves_usd(self) -> float:
        """What a hit saves if its load overlaps."""
        return self.miss_usd - self.hit_usd

    @property
    def verdict(self) -> Verdict:
        """Whether it pays: ``may lose`` within the profile's bands, though not in their middle."""
        if self.saves_usd <= 0:
            return "loses"
        if self.saves_usd <= self.stall_usd:
            return "loses if it stalls"
        return "may lose" if self.saves_lo_usd <= 0 else "saves"

    def as_dict(self) -> dict[str, Any]:
        """Fields and what follows from them."""
        names = ("hit_usd", "miss_usd", "share", "share_stalled", "saves_usd", "verdict")
        return {**asdict(self), **{name: getattr(self, name) for name in names}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """How long a prefix of one length is worth keeping in one tier, and writing to it."""

    tier: str
    medium: str
    prompt_tokens: int
    rent_usd_per_hour: float
    """Of a million tokens."""

    recompute_s: float
    """Seconds at which the rent equals one recompute."""

    saving_s: float
    """Seconds at which it equals what one hit saves, loads overlapped; 0 where it saves nothing."""

    over_next_s: float | None
    """T_ij: seconds for which it beats the next slower tier, loads overlapped; None in the last tier."""

    over_next_stalled_s: float | None
    """The same with GPUs that wait for the slower tier."""

    least_reuses: float
    """Hits that a write must be expected to bring, rent apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """All rows for one profile, and what they rest on."""

    profile: Profile
    request_s: float
    rows: tuple[Row, ...]
    holds: tuple[Hold, ...]
    prices: tuple[ListPrice, ...]

    @property
    def figures(self) -> Mapping[str, Figure]:
        """Inputs by name, each measured, given or assumed, with source and date."""
        return self.profile.figures()

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON has it; what is infinite becomes null."""
        found: dict[str, Any] = {
            "profile": self.profile.name,
            "model": self.profile.model,
            "machine": self.profile.machine,
            "source": self.profile.source,
            "date": self.profile.date,
            "request_s": self.request_s,
            "rows": [row.as_dict() for row in self.rows],
            "holds": [asdict(hold) for hold in self.holds],
            "list_prices": [_price_dict(price) for price in self.prices],
            "inputs": {name: figure.as_dict() for name, figure in self.figures.items()},
        }
        return {name: _finite(value) for name, value in found.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _price_dict(price: ListPrice) -> dict[str, Any]:
    figures = {name: getattr(price, name) for name in ("input", "cached_read", "read_share")}
    return {
        "name": price.name,
        "share": price.share,
        "write_multiple": price.write_multiple,
        **{name: figure.as_dict() for name, figure in figures.items() if figure is not None},
    }


def make_ledger(
    profile: Profile,
    *,
    prompt_tokens: Sequence[int] = (8192, 65536),
    reuses: Sequence[int] = (1, 2, 10),
    holds_s: Sequence[float] = (300.0,),
    tiers: Sequence[str] | None = None,
    request_s: float = 10.0,
    prices: Sequence[ListPrice] = (),
) -> Ledger:
    """What cached tokens cost on a machine, beside computed ones.

    Args:
        profile: The machine and the model.
        prompt_tokens: Lengths of the prefix that is reused.
        reuses: Hits that one write serves.
        holds_s: Seconds for which it is held for them.
        tiers: Names; None takes all that the profile has.
        request_s: Seconds from a prompt's load to the end of its answer.
        prices: List prices to set beside it.

    Returns:
        Rows in order of prompt length, tier, holding time, reuses.

    Raises:
        ConfigError: A number is negative or zero where that has no meaning, or computing costs nothing.
        ProfileError: The profile has no such tier.

    Example:
        >>> ledger = make_ledger(Profile.named("h100", "llama-3.1-70b"), reuses=[10])
        >>> [(row.tier, row.prompt_tokens, f"{row.share:.0%}", row.verdict) for row in ledger.rows][1:3]
        [('host', 8192, '16%', 'saves'), ('disk', 8192, '17%', 'saves')]

    Leaves out:
        The miss that wrote the prefix, which is paid with a cache and without.
    """
    check_positive(request_s=request_s)
    check_not_negative(**{f"hold {hold}": hold for hold in holds_s})
    if not (prompt_tokens and reuses and holds_s) or min(*prompt_tokens, *reuses) < 1:
        raise ConfigError("prompt lengths and reuses: expected whole numbers of at least 1")
    if not profile.gpu_usd_per_hour.value:
        raise ConfigError("gpu_usd_per_hour is 0: beside computing for nothing, no cache has a price; give the GPU one")
    names = [name for name in TIER_NAMES if name in (profile.tiers if tiers is None else tiers)]
    for name in tiers or ():
        profile.tier(name)
    return Ledger(
        profile=profile,
        request_s=request_s,
        rows=tuple(
            _row(profile, tier, tokens, reuses=count, hold_s=hold, request_s=request_s)
            for tokens, tier, hold, count in product(prompt_tokens, names, holds_s, reuses)
        ),
        holds=tuple(
            _hold(profile, tier, below, tokens)
            for tokens in prompt_tokens
            for tier, below in pairwise([*names, None])
            if tier is not None
        ),
        prices=tuple(sorted(prices, key=lambda price: price.share)),
    )


def _row(profile: Profile, tier: str, tokens: int, *, reuses: int, hold_s: float, request_s: float) -> Row:
    per_mtok = 1e6 / tokens
    size = profile.prefix_bytes(tokens)
    recompute, load = profile.prefill_band_s(0, tokens), profile.load_band_s(tier, tokens)
    read_usd = profile.read_usd(tier, tokens)
    write_usd = _write_usd(profile, tier, tokens) / reuses
    rent_usd = profile.rent_usd(tier, size, hold_s) / reuses
    slowest_read_usd = read_usd * load.hi / load.mid
    return Row(
        tier=tier,
        medium=profile.tier(tier).medium,
        prompt_tokens=tokens,
        reuses=reuses,
        hold_s=hold_s,
        recompute_usd=profile.compute_usd(recompute.mid) * per_mtok,
        read_usd=read_usd * per_mtok,
        write_usd=write_usd * per_mtok,
        rent_usd=rent_usd * per_mtok,
        occupancy_usd=profile.occupancy_usd(size, request_s) * per_mtok,
        stall_usd=profile.compute_usd(load.mid) * per_mtok,
        saves_lo_usd=(profile.compute_usd(recompute.lo) - slowest_read_usd - write_usd - rent_usd) * per_mtok,
        speed_up=recompute.mid / load.mid,
        recompute_kj=_kj(profile.power_w, recompute.mid * per_mtok),
        read_kj=_kj(profile.tier(tier).power_w, load.mid * per_mtok),
        extrapolated=profile.extrapolates(tokens),
    )


def _kj(power: Figure | None, seconds: float) -> float | None:
    return None if power is None else power.value * seconds / 1e3


def _write_usd(profile: Profile, tier_name: str, tokens: int) -> float:
    """Wear and fees of one write of a prefix, and the drive's time for it."""
    hourly = profile.tier(tier_name).device_usd_per_hour
    drive = 0.0 if hourly is None else hourly.value / 3600 * profile.write_s(tier_name, tokens)
    return profile.wear_usd(tier_name, profile.prefix_bytes(tokens)) + drive


def _hold(profile: Profile, tier_name: str, below: str | None, tokens: int) -> Hold:
    per_mtok = 1e6 / tokens
    tier = profile.tier(tier_name)
    recompute = profile.compute_usd(profile.prefill_s(0, tokens)) * per_mtok
    read = profile.read_usd(tier_name, tokens) * per_mtok
    rent = profile.rent_usd(tier_name, profile.prefix_bytes(tokens), 3600) * per_mtok
    saving = max(0.0, recompute - read)
    return Hold(
        tier=tier_name,
        medium=tier.medium,
        prompt_tokens=tokens,
        rent_usd_per_hour=rent,
        recompute_s=hold_s_of_one_recompute(recompute_usd_per_mtok=recompute, rent_usd_per_mtok_hour=rent),
        saving_s=hold_s_of_one_recompute(recompute_usd_per_mtok=saving, rent_usd_per_mtok_hour=rent),
        over_next_s=None if below is None else _above(profile, tier_name, below, tokens, stalled=False),
        over_next_stalled_s=None if below is None else _above(profile, tier_name, below, tokens, stalled=True),
        least_reuses=least_reuses(
            wear_usd_per_mtok=_write_usd(profile, tier_name, tokens) * per_mtok,
            recompute_usd_per_mtok=recompute,
            hit_usd_per_mtok=read,
        ),
    )


def _above(profile: Profile, name: str, below_name: str, tokens: int, *, stalled: bool) -> float:
    above, below = profile.tier(name), profile.tier(below_name)
    gb = profile.prefix_bytes(tokens) / 1e9
    return hold_s_above(
        rent_above_usd_per_gb_hour=above.rent_usd_per_gb_hour.value,
        rent_below_usd_per_gb_hour=below.rent_usd_per_gb_hour.value,
        read_below_usd_per_gb=profile.read_usd(below_name, tokens) / gb,
        bytes_per_s_above=above.read_bytes_per_s.value,
        bytes_per_s_below=below.read_bytes_per_s.value,
        stalled_usd_per_hour=profile.gpu_usd_per_hour.value if stalled else 0.0,
    )
