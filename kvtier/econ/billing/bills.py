"""A bill: the same calls under one tariff, beside what they would cost without a cache.

    cost = read * r + written * w(lifetime) + uncached * input + token-hours * storage (+ output)

Without a cache every prompt token costs the input price. Calls that a strategy added, pings and warm-ups, are
on the bill and not beside it: nobody without a cache would make them. A share is of input and storage alone,
so that it says the same with and without a price for output, which no cache changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from kvtier.econ.billing.calls import CALL, Call
from kvtier.econ.billing.meter import Meter, Usage
from kvtier.econ.billing.tariffs import Rules, Tariff

_MTOK = 1e6


class Charge(NamedTuple):
    """What one call costs, US$."""

    time_s: float
    purpose: str
    input_tokens: int
    read_tokens: int
    written_tokens: int
    uncached_tokens: int
    stored_token_hours: float
    output_tokens: int
    read_usd: float
    written_usd: float
    uncached_usd: float
    storage_usd: float
    output_usd: float
    no_cache_usd: float
    """Its prompt at the input price; 0 for a call that a strategy added."""

    @property
    def input_usd(self) -> float:
        """Everything but the answer."""
        return self.read_usd + self.written_usd + self.uncached_usd + self.storage_usd


@dataclass(slots=True, kw_only=True)
class Bill:
    """Sums over calls under one tariff."""

    tariff: Tariff
    calls: int = 0
    added_calls: int = 0
    """Pings and warm-ups among them."""

    input_tokens: int = 0
    """Of the calls themselves; what strategies added counts in ``added_tokens``."""

    added_tokens: int = 0
    read_tokens: int = 0
    """Of the calls themselves."""

    written_tokens: int = 0
    uncached_tokens: int = 0
    stored_token_hours: float = 0.0
    output_tokens: int = 0
    read_usd: float = 0.0
    written_usd: float = 0.0
    uncached_usd: float = 0.0
    storage_usd: float = 0.0
    output_usd: float = 0.0
    added_usd: float = 0.0
    """Of the sums above, what pings and warm-ups cost."""

    no_cache_usd: float = 0.0
    charges: list[Charge] = field(default_factory=list)
    """Call by call, where asked for."""

    @property
    def input_usd(self) -> float:
        """Everything but the answers."""
        return self.read_usd + self.written_usd + self.uncached_usd + self.storage_usd

    @property
    def share(self) -> float:
        """``input_usd`` over what the same prompts cost without a cache; 1 where there are none."""
        return self.input_usd / self.no_cache_usd if self.no_cache_usd else 1.0

    @property
    def hit_rate(self) -> float:
        """Share of the calls' prompt tokens that were read."""
        return self.read_tokens / self.input_tokens if self.input_tokens else 0.0

    def add(self, charge: Charge) -> None:
        """Count one more call."""
        self.calls += 1
        if charge.purpose == CALL:
            self.input_tokens += charge.input_tokens
            self.read_tokens += charge.read_tokens
        else:
            self.added_calls += 1
            self.added_tokens += charge.input_tokens
            self.added_usd += charge.input_usd
        self.written_tokens += charge.written_tokens
        self.uncached_tokens += charge.uncached_tokens
        self.stored_token_hours += charge.stored_token_hours
        self.output_tokens += charge.output_tokens
        self.read_usd += charge.read_usd
        self.written_usd += charge.written_usd
        self.uncached_usd += charge.uncached_usd
        self.storage_usd += charge.storage_usd
        self.output_usd += charge.output_usd
        self.no_cache_usd += charge.no_cache_usd


def price(call: Call, usage: Usage, tariff: Tariff) -> Charge:
    """What one call costs under a tariff whose rules its usage was counted by."""
    prices = tariff.prices
    factor = prices.long_prompt_factor if call.input_tokens > prices.long_prompt_tokens else 1.0
    written_usd = sum(tokens * tariff.lifetimes[name].write_usd_per_mtok for name, tokens in usage.written.items())
    plain_usd = call.input_tokens * prices.input_usd_per_mtok
    return Charge(
        time_s=call.time_s,
        purpose=call.purpose,
        input_tokens=call.input_tokens,
        read_tokens=usage.read,
        written_tokens=sum(usage.written.values()),
        uncached_tokens=usage.uncached,
        stored_token_hours=usage.stored_token_hours,
        output_tokens=call.output_tokens,
        read_usd=factor * usage.read * prices.cached_usd_per_mtok / _MTOK,
        written_usd=factor * written_usd / _MTOK,
        uncached_usd=factor * usage.uncached * prices.input_usd_per_mtok / _MTOK,
        storage_usd=usage.stored_token_hours * prices.storage_usd_per_mtok_hour / _MTOK,
        output_usd=call.output_tokens * (prices.output_usd_per_mtok or 0.0) / _MTOK,
        no_cache_usd=factor * plain_usd / _MTOK if call.purpose == CALL else 0.0,
    )


def meter_of(tariff: Tariff, *, first_token_s: float = 1.0, hit_probability: float = 1.0, seed: int = 0) -> Meter:
    """The cache behind a tariff; arguments as of ``Meter``."""
    return Meter(
        tariff.rules,
        lifetime=tariff.plan,
        lifetimes={name: lifetime.seconds for name, lifetime in tariff.lifetimes.items()},
        first_token_s=first_token_s,
        hit_probability=hit_probability,
        seed=seed,
    )


def bills(
    calls: Iterable[Call],
    under: Sequence[Tariff],
    *,
    first_token_s: float = 1.0,
    hit_probability: float = 1.0,
    seed: int = 0,
    keep_charges: bool = False,
) -> list[Bill]:
    """Bill the same calls under several tariffs, in one pass.

    Args:
        calls: In order of time.
        under: Tariffs.
        first_token_s: From a call to the start of its answer, for calls that do not say.
        hit_probability: Share of calls that reach the machine with their prefix, where a provider routes.
        seed: Of the draws for that: with equal seeds, a higher probability hits whatever a lower one does.
        keep_charges: Keep what every call costs, in ``Bill.charges``.

    Raises:
        ConfigError: As ``Meter`` and ``Meter.count`` raise it.
    """
    made = [Bill(tariff=tariff) for tariff in under]
    meters: dict[tuple[Rules, str, tuple[float, ...]], Meter] = {}
    kinds = []
    for tariff in under:
        kinds.append((tariff.rules, tariff.plan, tuple(lifetime.seconds for lifetime in tariff.lifetimes.values())))
        if kinds[-1] not in meters:
            meters[kinds[-1]] = meter_of(
                tariff, first_token_s=first_token_s, hit_probability=hit_probability, seed=seed
            )
    for call in calls:
        counted = {kind: meter.count(call) for kind, meter in meters.items()}
        for bill, kind in zip(made, kinds, strict=True):
            charge = price(call, counted[kind], bill.tariff)
            bill.add(charge)
            if keep_charges:
                bill.charges.append(charge)
    return made
