"""What docs/policies.md asks of traces, each question a list of replays.

A question takes an ``Asker`` and returns rows for JSON. Everything is replayed by ``kvtier.sim``, but for one cache
that kvtier is not: ``without_prefixes``, which knows nothing of prefixes, written out here.
"""

from __future__ import annotations

import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from kvtier.econ.profile import Profile
from kvtier.hashing import BlockHash
from kvtier.policy.base import Evictable, EvictionPolicy
from kvtier.policy.registry import POLICIES
from kvtier.sim.naming import SCHEME, trace_from
from kvtier.sim.replay import Replay
from kvtier.sim.settings import Settings, TierSettings
from kvtier.sim.stats import stats_of
from kvtier.sim.sweep import OPTIMUM, Job, default_capacities, measure, policy_jobs, policy_rows
from kvtier.sim.tally import rates
from kvtier.sim.trace import Trace
from kvtier.sim.workers import Act, in_order

Row = dict[str, Any]
Source = Callable[[], Trace]

KNOWN = ("fifo", "lru", "lfu", "sieve", "s3fifo", "arc", "wtinylfu", "gdsf", "ttl", OPTIMUM)
"""Published policies. What else the registry has is kvtier's own."""

PAPER_TOKENS = (1_000_000, 3_000_000, 5_000_000, 10_000_000, 20_000_000, 50_000_000)
LIFETIMES_S = {"5 min": 300.0, "1 h": 3600.0, "1 day": 86_400.0, "none": None}
SSD_TIB = (0, 1, 2, 4, 8, 16)
HBM_GIB, RAM_GIB = 80, 512
WORKLOAD_SHARES = (0.02, 0.1, 0.3)
"""Capacities for the synthetic workloads, of their unique blocks."""


@dataclass(frozen=True, kw_only=True)
class Asker:
    """How replays are run."""

    processes: int

    def ask(self, what: str, jobs: Sequence[Job], act: Act = measure) -> list[Row]:
        """Run jobs; says what and how long."""
        began_s = time.perf_counter()
        found = in_order(jobs, self.processes, act=act)
        print(f"{what}: {len(jobs)} replays, {time.perf_counter() - began_s:.0f} s", file=sys.stderr, flush=True)
        return found


def about(source: Source) -> Row:
    """A trace's size, and what a cache that keeps everything hits."""
    trace = source()
    stats = stats_of(trace)
    names = ("requests", "duration_s", "block_references", "unique_blocks", "block_tokens")
    best = {f"best_{what}_hit_rate": getattr(stats, f"best_{what}_hit_rate") for what in ("block", "token")}
    return {"trace": trace.name, **{name: getattr(stats, name) for name in names}, **best}


def curves(asker: Asker, source: Source, policies: Sequence[str], count: int) -> Row:
    """Hit rate by capacity for each policy."""
    facts = about(source)
    jobs = policy_jobs(source, policies, default_capacities(facts["unique_blocks"], count))
    names = ("policy", "capacity_blocks", "prefix_hit_rate", "token_hit_rate", "share_of_optimum", "written_blocks")
    rows = policy_rows(jobs, asker.ask(f"{facts['trace']}: policies by capacities", jobs))
    return {**facts, "rows": [{name: row[name] for name in (*names, "seconds")} for row in rows]}


# Figure 9 of Mooncake's paper


def paper_figure(asker: Asker, source: Source) -> Row:
    """LRU at the capacities that the paper speaks of, and everything kept."""
    facts = about(source)
    stats = stats_of(source())
    sizes = [tokens // facts["block_tokens"] for tokens in PAPER_TOKENS] + [facts["unique_blocks"]]
    found = asker.ask(f"{facts['trace']}: LRU as in the paper", policy_jobs(source, ["lru"], sizes))
    best = found[-1]["prefix_hit_rate"]
    rows = [
        {
            "tokens": tokens,
            "capacity_blocks": size,
            "prefix_hit_rate": result["prefix_hit_rate"],
            "token_hit_rate": result["token_hit_rate"],
            "share_of_best": result["prefix_hit_rate"] / best if best else None,
            "stack_distance_hit_rate": float(stats.lru_hit_rate([size])[0]),
        }
        for tokens, size, result in zip((*PAPER_TOKENS, None), sizes, found, strict=True)
    ]
    return {**facts, **_ways_to_count(source()), "rows": rows}


def _ways_to_count(trace: Trace) -> Row:
    """The best hit rate counted in whole blocks alone, and as the mean of the requests' own rates."""
    seen: set[int] = set()
    whole_hits = whole = requests = 0
    of_requests = 0.0
    for request in trace:
        hits = sum(block in seen for block in request.blocks)
        blocks = request.input_tokens // trace.block_tokens
        whole_hits, whole, requests = whole_hits + min(hits, blocks), whole + blocks, requests + 1
        of_requests += min(hits * trace.block_tokens, request.input_tokens) / max(1, request.input_tokens)
        seen.update(request.blocks)
    return {"best_whole_block_hit_rate": whole_hits / max(1, whole), "best_mean_of_requests": of_requests / requests}


# Tiers


def machine() -> Profile:
    """What prices and speeds are of: data sheets, no measurement."""
    return Profile.named("h100", "llama-3.1-70b")


def tier_sizes(profile: Profile, block_tokens: int, ssd_tib: int) -> dict[str, int]:
    """Capacities in blocks of the memory and an SSD of so many TiB."""
    block_bytes = profile.bytes_per_token * block_tokens
    sizes = {"device": HBM_GIB * 2**30, "host": RAM_GIB * 2**30, "disk": ssd_tib * 2**40}
    return {name: size // block_bytes for name, size in sizes.items() if size}


def ssd(asker: Asker, source: Source) -> Row:
    """Device and host memory alone, and with SSDs of several sizes."""
    facts, profile = about(source), machine()
    jobs = [
        Job(open=source, settings=tiers(tier_sizes(profile, facts["block_tokens"], tib)), profile=profile, costs=True)
        for tib in SSD_TIB
    ]
    rows = []
    for tib, job, result in zip(SSD_TIB, jobs, asker.ask(f"{facts['trace']}: SSD sizes", jobs), strict=True):
        cost = result["cost"]
        rows.append(
            {
                "ssd_tib": tib,
                "sizes": {tier.name: tier.capacity_blocks for tier in job.settings.tiers},
                "prefix_hit_rate": result["prefix_hit_rate"],
                "hits": {tier["name"]: tier["block_hits"] for tier in result["tiers"]},
                **{name: cost[name] for name in ("ttft_mean_s", "recompute_ttft_mean_s")},
                **{name: cost[name] for name in ("usd_per_request", "recompute_usd_per_request")},
            }
        )
    return {**facts, "profile": profile.name, "rows": rows}


def tiers(sizes: Mapping[str, int], *, disk: Mapping[str, Any] | None = None, **options: Any) -> Settings:
    """LRU in all tiers; some fields of the disk's own."""
    return Settings(
        tiers=[
            TierSettings(name=name, capacity_blocks=size, **(disk or {} if name == "disk" else {}))
            for name, size in sizes.items()
        ],
        **options,
    )


def admissions(asker: Asker, source: Source) -> Row:
    """Writing everything to an SSD against writing less, when evicted and when inserted."""
    facts, profile = about(source), machine()
    sizes = tier_sizes(profile, facts["block_tokens"], 4)
    budgets = [f"write_budget/{times * sizes['disk']}" for times in (1, 10)]
    cases = [
        (write, admission)
        for write in ("on_eviction", "on_insertion")
        for admission in ("all", "second_touch", "long_prompts/8", "long_prompts/32", *budgets)
    ]
    jobs = [
        Job(open=source, settings=tiers(sizes, disk={"admission": admission}, write=write))
        for write, admission in cases
    ]
    rows = []
    everything: Row = {}
    found = asker.ask(f"{facts['trace']}: admissions", jobs)
    for (write, admission), result in zip(cases, found, strict=True):
        disk = result["tiers"][-1]
        row = {
            "write": write,
            "admission": admission,
            "prefix_hits": result["prefix_hits"],
            "disk_hits": disk["block_hits"],
            "written_blocks": disk["written_blocks"],
        }
        everything = row if admission == "all" else everything
        row["hits_lost_share"] = 1 - row["prefix_hits"] / max(1, everything["prefix_hits"])
        row["writes_saved_share"] = 1 - row["written_blocks"] / max(1, everything["written_blocks"])
        rows.append(row)
    return {**facts, "sizes": sizes, "rows": rows}


# Time to live


def lifetimes(asker: Asker, source: Source) -> Row:
    """What is hit if blocks are kept so long after their last use, and nothing is ever evicted for room."""
    facts = about(source)
    jobs = [
        Job(
            open=source,
            settings=Settings(tiers=[TierSettings(name="device", capacity_blocks=facts["unique_blocks"], ttl_s=ttl_s)]),
        )
        for ttl_s in LIFETIMES_S.values()
    ]
    found = asker.ask(f"{facts['trace']}: times to live", jobs, held)
    kept = found[-1]["prefix_hit_rate"]
    rows = [
        {"ttl": name, **result, "share_of_none": result["prefix_hit_rate"] / kept if kept else None}
        for name, result in zip(LIFETIMES_S, found, strict=True)
    ]
    return {**facts, "rows": rows}


def held(job: Job) -> Row:
    """Hit rate, and the blocks held at a request: on average, and at most."""
    replay = Replay(job.open(), job.settings)
    sizes = [replay.placement.used_blocks(0) for _ in replay.serve()]
    return {**rates(replay.tally), "held_mean_blocks": sum(sizes) / len(sizes), "held_most_blocks": max(sizes)}


# Prefix order


class HeadFirst:
    """A policy told of every prompt back to front, so that its head ages before its tail. See ``EvictionPolicy``."""

    def __init__(self, policy: EvictionPolicy) -> None:
        self._policy = policy

    def insert(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.insert``."""
        self._policy.insert(keys[::-1])

    def touch(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.touch``."""
        self._policy.touch(keys[::-1])

    def remove(self, keys: Sequence[BlockHash]) -> None:
        """See ``EvictionPolicy.remove``."""
        self._policy.remove(keys)

    def evict(self, evictable: Evictable) -> Generator[BlockHash]:
        """See ``EvictionPolicy.evict``."""
        yield from self._policy.evict(evictable)

    def __len__(self) -> int:
        return len(self._policy)


def orders(asker: Asker, source: Source, count: int) -> Row:
    """LRU tail first; head first where only leaves may leave; and head first where anything may."""
    facts = about(source)
    jobs = policy_jobs(source, ["lru"], default_capacities(facts["unique_blocks"], count))
    ways: dict[str, Act] = {"tail_first": measure, "head_first": head_first, "no_prefixes": without_prefixes}
    found = {way: asker.ask(f"{facts['trace']}: {way}", jobs, act) for way, act in ways.items()}
    rows = [
        {
            "capacity_blocks": job.settings.tiers[0].capacity_blocks,
            **{way: results[number]["prefix_hit_rate"] for way, results in found.items()},
            "no_prefixes_block_hit_rate": found["no_prefixes"][number]["block_hit_rate"],
        }
        for number, job in enumerate(jobs)
    ]
    return {**facts, "rows": rows}


def head_first(job: Job) -> Row:
    """The job with its policy told back to front; a store still lets only leaves leave."""
    name = job.settings.tiers[0].policy
    make = POLICIES[name]
    POLICIES[name] = lambda setting: HeadFirst(make(setting))
    try:
        replay = Replay(job.open(), job.settings)
    finally:
        POLICIES[name] = make
    return rates(replay.run())


def without_prefixes(job: Job) -> Row:
    """LRU over blocks that are as good as unrelated: used in the order of the prompt, and anything may leave."""
    capacity = job.settings.tiers[0].capacity_blocks
    order: OrderedDict[int, None] = OrderedDict()
    references = block_hits = prefix_hits = 0
    for request in job.open():
        found = [block in order for block in request.blocks]
        references += len(found)
        block_hits += sum(found)
        prefix_hits += found.index(False) if False in found else len(found)
        for block in request.blocks:
            order[block] = None
            order.move_to_end(block)
        while len(order) > capacity:
            order.popitem(last=False)
    return {"block_hit_rate": block_hits / references, "prefix_hit_rate": prefix_hits / references}


# Workloads


def workload(asker: Asker, name: str, requests: int) -> Row:
    """All policies over a synthetic workload."""
    source = partial(trace_from, f"{SCHEME}{name}?requests={requests}")
    facts = about(source)
    sizes = sorted({max(1, round(share * facts["unique_blocks"])) for share in WORKLOAD_SHARES})
    jobs = policy_jobs(source, list(POLICIES), sizes)
    rows = policy_rows(jobs, asker.ask(f"{facts['trace']}: policies", jobs))
    names = ("policy", "capacity_blocks", "prefix_hit_rate", "share_of_optimum")
    return {**facts, "rows": [{name: row[name] for name in names} for row in rows]}
