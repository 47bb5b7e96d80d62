"""List prices beside costs, for docs/economics.md: how many hits a price covers, and for how long it pays the rent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kvtier.econ.derive import derive_profile
from kvtier.econ.hardware import load_hardware
from kvtier.econ.ledger import Row, make_ledger
from kvtier.econ.prices import ListPrice, load_prices
from kvtier.econ.profile import Profile
from lib.economics import CASE, REQUEST_S, Case, one_row, reported_mfu

Json = dict[str, Any]


def price_terms(price: ListPrice) -> Json:
    """A list price, and how long what it asks for keeping would pay the rent.

    A write premium of w - 1 input prices and storage by the hour are both rent. If the input price were what
    computing costs, they would pay for so long a time in each tier.
    """
    long = None if price.write_long is None or price.input is None else price.write_long.value / price.input.value
    storage = None if price.storage is None or price.input is None else price.input.value / price.storage.value * 3600
    premiums = {name: multiple - 1 for name, multiple in (("write", price.write_multiple), ("write_long", long or 1))}
    return {
        "name": price.name,
        "share": price.share,
        "input_usd": None if price.input is None else price.input.value,
        "cached_usd": None if price.cached_read is None else price.cached_read.value,
        "write_multiple": price.write_multiple,
        "write_long_multiple": long,
        "storage_usd_per_hour": None if price.storage is None else price.storage.value,
        "rent_equals_input_s": storage,
        "retention": price.retention,
        "premium_pays_s": {
            name: {case: _paid_s(CASE[case], premium) for case in ("70b", "v3")}
            for name, premium in premiums.items()
            if premium > 0
        },
    }


def _paid_s(case: Case, premium: float) -> dict[str, float]:
    """How long a share of a miss pays the rent of a prefix of 8 Ki tokens, after what writing it costs."""
    rows = {tier: one_row(case, tier, 8192, hits=1, hold_s=3600.0) for tier in ("host", "disk")}
    return {tier: max(0.0, premium * row.miss_usd - row.write_usd) / row.rent_usd * 3600 for tier, row in rows.items()}


#: Case, tier, prompt and holding time for which the table of shares says from how many hits they cover the cost.
AT_COST = (
    ("8b", "host", 8192, 300.0),
    ("70b", "host", 8192, 300.0),
    ("70b", "disk", 65536, 3600.0),
    ("v3", "disk", 8192, 3600.0),
    ("v3", "disk", 65536, 86400.0),
)


def at_cost(shares: Sequence[float]) -> Json:
    """From how many hits per write each share of the input price covers what a hit costs; None where no number does."""
    rows = {place: one_row(CASE[place[0]], place[1], place[2], hits=1, hold_s=place[3]) for place in AT_COST}
    return {
        "places": [dict(zip(("case", "tier", "prompt_tokens", "hold_s"), place, strict=True)) for place in AT_COST],
        "rows": [{"share": share, "hits": [_hits_at(row, share) for row in rows.values()]} for share in shares],
    }


def _hits_at(row: Row, share: float) -> float | None:
    left = share * row.miss_usd - row.read_usd - row.occupancy_usd
    return (row.write_usd + row.rent_usd) / left if left > 0 else None


def deepseek() -> Json:
    """DeepSeek's list prices beside the cost of its model at the 2 USD an hour that it says its GPUs cost."""
    gpu = load_hardware().accelerator("h800")
    at = derive_profile(Profile, replace(gpu, mfu=reported_mfu(gpu)), "deepseek-v3", num_gpus=32)
    (row,) = make_ledger(
        at, prompt_tokens=[8192], reuses=[10], holds_s=[3600.0], tiers=["disk"], request_s=REQUEST_S
    ).rows
    prices = load_prices()
    listed = [prices[f"deepseek/{name}"] for name in ("v3", "v3.2")]
    return {
        "gpu_usd_per_hour": gpu.usd_per_hour.value,
        "miss_usd": row.miss_usd,
        "hit_usd": row.hit_usd,
        "hit_stalled_usd": row.hit_usd + row.stall_usd,
        "listed": [price_terms(price) for price in listed],
    }
