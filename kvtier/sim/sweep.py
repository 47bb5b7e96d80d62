"""Many replays of one trace: policies by capacities, or sizes of tiers, and which of these are worth having.

    policies x capacities  ->  hit rate, share of the optimum at the same capacity
    sizes of tiers         ->  dollars a request, time to first token, and the Pareto front of the two

The optimum is a bound only while nothing holds it back, so it is replayed without a time to live and without
an admission of the user's. Each job opens the trace itself: requests are never carried between processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from kvtier.econ.profile import Profile
from kvtier.errors import ConfigError
from kvtier.policy.registry import POLICIES
from kvtier.sim.costs import Meter, speeds
from kvtier.sim.replay import Replay, rare_collections
from kvtier.sim.settings import TIER_NAMES, Settings, TierSettings
from kvtier.sim.tally import rates, tier_rows
from kvtier.sim.trace import Trace

OPTIMUM = "belady"
"""The policy that no other can beat."""

_SHARES = (0.01, 0.60)
"""Of a trace's unique blocks: the least and the largest capacity that is tried where nobody says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One replay. Can be carried to another process."""

    open: Callable[[], Trace]
    settings: Settings
    profile: Profile | None = None
    costs: bool = False
    """Whether to work out times and dollars, for which there must be a profile."""

    @property
    def label(self) -> str:
        """What it is, for messages."""
        tiers = [f"{tier.policy} at {tier.capacity_blocks:,} blocks" for tier in self.settings.tiers]
        if len(tiers) > 1:
            tiers = [f"{tier.name}: {text}" for tier, text in zip(self.settings.tiers, tiers, strict=True)]
        return ", ".join(tiers)


def measure(job: Job) -> dict[str, Any]:
    """Carry out one job.

    Returns:
        Counts, the three hit rates, a row for each tier, ``seconds`` and ``references_per_s`` of the replay with
        the reading of the trace, and ``cost`` where it was asked for.

    Raises:
        ConfigError: The trace cannot be read, or something in the settings cannot be.
    """
    trace, settings, profile = job.open(), job.settings, job.profile
    began_s = time.perf_counter()
    replay = Replay(trace, settings, **({} if profile is None else speeds(profile, settings, trace.block_tokens)))
    meter = Meter(profile, settings, trace.block_tokens) if job.costs and profile is not None else None
    with rare_collections():
        for served in replay.serve():
            if meter is not None:
                meter.watch(served)
    seconds = time.perf_counter() - began_s
    tally = replay.tally
    return {
        "block_references": tally.references,
        "block_hits": tally.block_hits,
        "prefix_hits": tally.prefix_hits,
        "token_hits": tally.token_hits,
        **rates(tally),
        "tiers": [
            {"capacity_blocks": tier.capacity_blocks, **row}
            for tier, row in zip(
                settings.tiers, tier_rows(tally, [tier.name for tier in settings.tiers], None), strict=True
            )
        ],
        "seconds": seconds,
        "references_per_s": tally.references / seconds,
        **({} if meter is None else {"cost": meter.bill(tally).as_dict()}),
    }


# Policies by capacities


def default_capacities(unique_blocks: int, count: int = 8) -> list[int]:
    """Capacities from a hundredth of a trace's blocks to six tenths of them, each larger than the last by a factor.

    Example:
        >>> default_capacities(10_000)
        [100, 179, 322, 578, 1038, 1863, 3343, 6000]
    """
    low, high = (share * unique_blocks for share in _SHARES)
    return sorted({max(1, round(size)) for size in np.geomspace(low, high, count)})


def policy_jobs(
    source: Callable[[], Trace],
    policies: Sequence[str],
    capacities: Sequence[int],
    *,
    common: Mapping[str, Any] | None = None,
    profile: Profile | None = None,
) -> list[Job]:
    """A job for each policy at each capacity of a single tier.

    Args:
        source: Opens the trace; can be carried to another process.
        policies: Names.
        capacities: In blocks.
        common: Fields of ``TierSettings`` for all policies but the optimum.
        profile: What policies may know of a machine.

    Raises:
        ConfigError: No such policy, or a capacity that cannot be.
    """
    for policy in policies:
        if policy not in POLICIES:
            raise ConfigError(f"unknown policy {policy!r}; known are {', '.join(POLICIES)}")
    jobs = []
    for policy, capacity in product(policies, capacities):
        held_back = {} if policy == OPTIMUM else dict(common or {})
        tier = TierSettings(name="device", capacity_blocks=capacity, policy=policy, **held_back)
        jobs.append(Job(open=source, settings=Settings(tiers=[tier]), profile=profile))
    return jobs


def policy_rows(jobs: Sequence[Job], results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each policy at each capacity, with its share of the optimum's hits; None where that is not known."""
    rows = []
    for job, result in zip(jobs, results, strict=True):
        tier = job.settings.tiers[0]
        counts = {name: result["tiers"][0][name] for name in ("written_blocks", "evicted_blocks", "expired_blocks")}
        kept = {name: value for name, value in result.items() if name not in {"tiers", "seconds", "references_per_s"}}
        speed = {name: result[name] for name in ("seconds", "references_per_s")}
        rows.append({"policy": tier.policy, "capacity_blocks": tier.capacity_blocks, **kept, **counts, **speed})
    best = {row["capacity_blocks"]: row["prefix_hits"] for row in rows if row["policy"] == OPTIMUM}
    for row in rows:
        most = best.get(row["capacity_blocks"])
        row["share_of_optimum"] = row["prefix_hits"] / most if most else None
    return rows


# Sizes of tiers


def grid(sizes: Mapping[str, Sequence[int]], policy: str = "lru", **options: Any) -> list[Settings]:
    """Every combination of sizes.

    Args:
        sizes: Capacities in blocks by tier. 0 leaves a tier out, which the fastest cannot be.
        policy: Of all tiers.
        **options: Further fields of ``Settings``.

    Raises:
        ConfigError: No such tier or policy, or a size that cannot be.
    """
    if unknown := [name for name in sizes if name not in TIER_NAMES]:
        raise ConfigError(f"unknown tier {unknown[0]!r}; the tiers are {', '.join(TIER_NAMES)}")
    if policy not in POLICIES:
        raise ConfigError(f"unknown policy {policy!r}; known are {', '.join(POLICIES)}")
    names = sorted(sizes, key=TIER_NAMES.index)
    if names and 0 in sizes[names[0]]:
        raise ConfigError(f"tier {names[0]} is where prompts are computed, so it cannot be left out with a size of 0")
    return [
        Settings(
            tiers=[
                TierSettings(name=name, capacity_blocks=size, policy=policy)
                for name, size in zip(names, combination, strict=True)
                if size
            ],
            **options,
        )
        for combination in product(*(sizes[name] for name in names))
    ]


def grid_rows(jobs: Sequence[Job], results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each combination of sizes, and whether it is on the Pareto front; the last is no cache at all."""
    rows: list[dict[str, Any]] = []
    for job, result in zip(jobs, results, strict=True):
        cost = result["cost"]
        rows.append(
            {
                "sizes": {tier.name: tier.capacity_blocks for tier in job.settings.tiers},
                **{name: result[name] for name in ("block_hit_rate", "prefix_hit_rate", "token_hit_rate", "tiers")},
                **cost,
            }
        )
    if rows:
        none = dict.fromkeys(("block_hit_rate", "prefix_hit_rate", "token_hit_rate"), 0.0)
        ttft_s, usd = rows[0]["recompute_ttft_mean_s"], rows[0]["recompute_usd_per_request"]
        rows.append({"sizes": {}, **none, "tiers": [], "ttft_mean_s": ttft_s, "usd_per_request": usd})
    front = pareto([(row["usd_per_request"], row["ttft_mean_s"]) for row in rows])
    return [{**row, "pareto": on} for row, on in zip(rows, front, strict=True)]


def pareto(points: Iterable[tuple[float, float]]) -> list[bool]:
    """Whether each point is on the front: none is at least as small in both, and smaller in one.

    Example:
        >>> pareto([(1, 3), (2, 2), (2, 3), (3, 1)])
        [True, True, False, True]
    """
    points = list(points)
    front: set[tuple[float, float]] = set()
    lowest = float("inf")
    for point in sorted(set(points)):
        if point[1] < lowest:
            front.add(point)
            lowest = point[1]
    return [point in front for point in points]
