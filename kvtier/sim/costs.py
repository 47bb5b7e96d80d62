"""Time to first token and dollars of a replay, from what a profile says of a machine with a model.

    TTFT     = sum over tiers  load_s(tier, tokens found there)  +  prefill_s(tokens found, tokens of the prompt)
    cost     = machine time during TTFT  +  drive time of the reads  +  wear of the writes  +  rent of the tiers

Tiers are read one after the other and nothing is overlapped with computing, so a TTFT here is an upper
end; no request waits for another, so it is a lower one as far as queues go. At least the last token
is computed, as engines do, since its logits are what the first new token comes from. Rent is of
the whole capacity for the whole trace, used or not. What the memory of the first tier costs is
in the price of the machine, which is paid for the time it computes.

Source: the split into load and recompute is that of Mooncake (FAST 2025), section 4.
"""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from kvtier.econ.profile import Profile
from kvtier.sim.replay import Served
from kvtier.sim.settings import Settings
from kvtier.sim.tally import Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What a replay takes and costs, in all."""

    ttft_mean_s: float
    ttft_p50_s: float
    ttft_p99_s: float
    recompute_ttft_mean_s: float
    """The same without a cache."""

    compute_usd: float
    read_usd: float
    wear_usd: float
    rent_usd: float
    recompute_usd: float
    """Everything without a cache."""

    requests: int

    @property
    def total_usd(self) -> float:
        """What the requests cost with the cache."""
        return self.compute_usd + self.read_usd + self.wear_usd + self.rent_usd

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        each = max(1, self.requests)
        return {
            "ttft_mean_s": self.ttft_mean_s,
            "ttft_p50_s": self.ttft_p50_s,
            "ttft_p99_s": self.ttft_p99_s,
            "recompute_ttft_mean_s": self.recompute_ttft_mean_s,
            "usd_per_request": self.total_usd / each,
            "recompute_usd_per_request": self.recompute_usd / each,
            "compute_usd": self.compute_usd,
            "read_usd": self.read_usd,
            "wear_usd": self.wear_usd,
            "rent_usd": self.rent_usd,
            "total_usd": self.total_usd,
            "recompute_usd": self.recompute_usd,
        }


def speeds(profile: Profile, settings: Settings, block_tokens: int) -> dict[str, Any]:
    """What policies and admissions may know of the machine: ``recompute_s`` and ``load_s`` of a ``Replay``."""

    @cache
    def recompute_s(depth: int) -> float:
        return profile.prefill_s(0, (depth + 1) * block_tokens) - profile.prefill_s(0, depth * block_tokens)

    load_s = {}
    for tier in settings.tiers:
        one, two = (profile.load_s(tier.name, num * block_tokens) for num in (1, 2))
        load_s[tier.name] = (max(0.0, 2 * one - two), two - one)
    return {"recompute_s": recompute_s, "load_s": load_s}


class Meter:
    """Watches a replay.

    Args:
        profile: Of the machine and the model.
        settings: Of the replay; its tiers must be in the profile.
        block_tokens: Of the trace.

    Raises:
        ProfileError: The profile lacks a tier.
    """

    def __init__(self, profile: Profile, settings: Settings, block_tokens: int) -> None:
        self._profile = profile
        self._settings = settings
        self._names = [tier.name for tier in settings.tiers]
        self._block_tokens = block_tokens
        self._ttft_s, self._cold_s = array("d"), array("d")
        self._read_usd = 0.0
        self._began_s: float | None = None
        self._ended_s = 0.0
        for name in self._names:
            profile.tier(name)

    def watch(self, served: Served) -> None:
        """One request was served."""
        request, match = served
        profile, found, ttft_s = self._profile, 0, 0.0
        for tier, count in sorted(Counter(match.tiers).items()):
            tokens = min(count * self._block_tokens, request.input_tokens - found)
            found += tokens
            if tier:  # what lies in the first tier is where it is computed
                ttft_s += profile.load_s(self._names[tier], tokens)
                self._read_usd += profile.read_usd(self._names[tier], tokens)
        start = max(0, min(found, request.input_tokens - 1))
        self._ttft_s.append(ttft_s + profile.prefill_s(start, request.input_tokens))
        self._cold_s.append(profile.prefill_s(0, request.input_tokens))
        self._began_s = request.time_s if self._began_s is None else self._began_s
        self._ended_s = request.time_s

    def bill(self, tally: Tally) -> Bill:
        """What all of it comes to; after the replay."""
        profile = self._profile
        block_bytes = self._block_tokens * profile.bytes_per_token
        lasted_s = self._ended_s - (self._began_s or 0.0)
        lower = list(zip(self._settings.tiers, tally.tiers, strict=True))[1:]
        ttft, cold = np.array(self._ttft_s or [0.0]), np.array(self._cold_s or [0.0])
        return Bill(
            ttft_mean_s=float(ttft.mean()),
            ttft_p50_s=float(np.median(ttft)),
            ttft_p99_s=float(np.percentile(ttft, 99)),
            recompute_ttft_mean_s=float(cold.mean()),
            compute_usd=profile.compute_usd(float(ttft.sum())),
            read_usd=self._read_usd,
            wear_usd=sum(profile.wear_usd(tier.name, counts.written * block_bytes) for tier, counts in lower),
            rent_usd=sum(
                profile.rent_usd(tier.name, tier.capacity_blocks * block_bytes, lasted_s) for tier, _ in lower
            ),
            recompute_usd=profile.compute_usd(float(cold.sum())),
            requests=len(self._ttft_s),
        )
