"""How fast traces are replayed: seconds and references a second, beside libCacheSim's Python binding.

    benchmarks/replay_rate.py                  the conversation trace, every policy
    benchmarks/replay_rate.py --agentic        and the whole trace of coding agents, once for each policy

Times are those of one process on one core and contain reading the trace's file. Both caches are driven from
Python, reference by reference, in comparison mode; whole requests with prefixes are kvtier's alone. Each
replay of the agentic trace runs in a process of its own, whose peak memory is that of the replay.
"""

import argparse
import importlib.util
import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from lib.machine import conditions
from lib.results import write_json

from kvtier.calibrate.stats import interleave
from kvtier.policy.registry import POLICIES
from kvtier.sim.reading import open_trace
from kvtier.sim.replay import Replay, rare_collections
from kvtier.sim.settings import Settings, TierSettings

CAPACITY = 10_000
THREE_TIERS = {"device": 2_000, "host": 10_000, "disk": 100_000}
AGENTIC_CAPACITY = 200_000
CONVERSATION = "mooncake_conversation_trace.jsonl.gz"
AGENTIC = "agentic_coding_trace.jsonl.gz"
THEIRS = {
    "fifo": "FIFO",
    "lru": "LRU",
    "lfu": "LFU",
    "sieve": "Sieve",
    "s3fifo": "S3FIFO",
    "arc": "ARC",
    "wtinylfu": "WTinyLFU",
    "gdsf": "GDSF",
}


def main(argv: list[str] | None = None) -> int:
    """Parse, measure, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=Path, help="directory of the traces (KVTIER_TRACES, or shared/traces beside)")
    parser.add_argument("--runs", type=int, default=5, help="interleaved repetitions (default: %(default)s)")
    parser.add_argument("--policies", nargs="+", choices=tuple(POLICIES), default=list(POLICIES), metavar="NAME")
    parser.add_argument("--agentic", action="store_true", help="also the agentic trace, a minute or two a policy")
    parser.add_argument("--jobs", type=int, default=1, help="agentic replays at a time, on a core each (%(default)s)")
    parser.add_argument("--json", help="write the results here; - for standard output")
    args = parser.parse_args(argv)
    traces = directory(args.traces)
    rows = conversation_rows(traces / CONVERSATION, args.policies, args.runs)
    if args.agentic:
        rows += agentic_rows(traces / AGENTIC, args.policies, args.jobs)
    print(table(rows))
    about = {**conditions(), "libcachesim": version_of_theirs(), "runs": args.runs, "agentic_jobs": args.jobs}
    write_json({"benchmark": "replay_rate", "conditions": about, "rows": rows}, args.json)
    return 0


def directory(given: Path | None) -> Path:
    """Where the traces are."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "traces"
    found = given or Path(os.environ.get("KVTIER_TRACES", beside))
    if not (found / CONVERSATION).is_file():
        print(f"replay_rate: {CONVERSATION} is not in {found.name}/; say where with --traces", file=sys.stderr)
        sys.exit(2)
    return found


def conversation_rows(path: Path, policies: list[str], runs: int) -> list[dict[str, Any]]:
    """Whole requests in one tier and in three, and single references beside libCacheSim."""
    one = {name: Settings(tiers=[tier("device", CAPACITY, name)]) for name in policies}
    three = Settings(tiers=[tier(name, blocks, "lru") for name, blocks in THREE_TIERS.items()])
    single = {
        name: Settings(tiers=[tier("device", CAPACITY, name)], whole_requests=False)
        for name in policies
        if name in THEIRS
    }
    stream = [block for request in open_trace(path) for block in request.blocks]
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    cases: list[tuple[str, Callable[[], float]]] = []

    def add(key: tuple[str, str, str], play: Callable[[], dict[str, Any]]) -> None:
        found[key] = {}
        cases.append((" ".join(key), partial(timed, play, found[key])))

    for name, settings in one.items():
        add(("kvtier", name, "requests, one tier"), partial(play_ours, path, settings))
    add(("kvtier", "lru", "requests, three tiers"), partial(play_ours, path, three))
    for name, settings in single.items():
        add(("kvtier", name, "single references"), partial(play_ours, path, settings))
        if importlib.util.find_spec("libcachesim") is not None:
            add(("libCacheSim", name, "single references"), partial(play_theirs, name, stream))
    seconds = interleave(cases, runs)
    return [row("conversation", key, statistics.median(seconds[" ".join(key)]), said) for key, said in found.items()]


def agentic_rows(path: Path, policies: list[str], jobs: int) -> list[dict[str, Any]]:
    """The whole trace of coding agents in one tier, once for each policy."""
    rows = []
    with multiprocessing.get_context("spawn").Pool(jobs, maxtasksperchild=1) as pool:
        played = pool.imap(partial(play_alone, path), policies, chunksize=1)
        for name, (seconds, said) in zip(policies, played, strict=True):
            print(f"agentic trace, {name}: {seconds:.0f} s", file=sys.stderr, flush=True)
            rows.append(row("agentic", ("kvtier", name, "requests, one tier"), seconds, said))
    return rows


def play_alone(path: Path, policy: str) -> tuple[float, dict[str, Any]]:
    """One replay in this process, and the memory it came to."""
    said: dict[str, Any] = {}
    settings = Settings(tiers=[tier("device", AGENTIC_CAPACITY, policy)])
    seconds = timed(partial(play_ours, path, settings), said)
    said["peak_rss_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return seconds, said


def tier(name: str, blocks: int, policy: str) -> TierSettings:
    """A tier."""
    return TierSettings(name=name, capacity_blocks=blocks, policy=policy)


def play_ours(path: Path, settings: Settings) -> dict[str, Any]:
    """A replay, the reading of its trace included."""
    with rare_collections():  # as in the command
        tally = Replay(open_trace(path), settings).run()
    return {"capacity": capacity_of(settings), "references": tally.references, "hits": tally.prefix_hits}


def capacity_of(settings: Settings) -> str:
    """Blocks by tier, for tables."""
    return " + ".join(f"{each.capacity_blocks:,}" for each in settings.tiers)


def play_theirs(name: str, stream: list[int]) -> dict[str, Any]:
    """The same references through libCacheSim, one call each."""
    import libcachesim

    cache, request = getattr(libcachesim, THEIRS[name])(CAPACITY, hashpower=16), libcachesim.Request()
    request.obj_size = 1
    hits = 0
    for block in stream:
        request.obj_id = block + 1
        hits += cache.get(request)
    return {"capacity": f"{CAPACITY:,}", "references": len(stream), "hits": hits}


def timed(play: Callable[[], dict[str, Any]], said: dict[str, Any]) -> float:
    """Seconds of one run; what it found goes into ``said``."""
    begin = time.perf_counter()
    found = play()
    seconds = time.perf_counter() - begin
    said.update(found)
    return seconds


def row(trace: str, key: tuple[str, str, str], seconds: float, said: dict[str, Any]) -> dict[str, Any]:
    """One line of the table."""
    by, policy, mode = key
    rate = said["references"] / seconds
    return {
        "trace": trace,
        "by": by,
        "policy": policy,
        "mode": mode,
        "seconds": seconds,
        "references_per_s": rate,
        **said,
    }


def version_of_theirs() -> str | None:
    """libCacheSim's, if it is here."""
    if importlib.util.find_spec("libcachesim") is None:
        return None
    import libcachesim

    return str(libcachesim.__version__)


def table(rows: list[dict[str, Any]]) -> str:
    """For people."""
    lines = [
        f"{'trace':13} {'by':12} {'policy':9} {'mode':22} {'capacity':24} {'hits':>11} {'s':>8} {'references/s':>13}"
    ]
    lines += [
        f"{each['trace']:13} {each['by']:12} {each['policy']:9} {each['mode']:22} {each['capacity']:24} "
        f"{each['hits']:>11,} {each['seconds']:>8.2f} {each['references_per_s']:>13,.0f}"
        for each in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
