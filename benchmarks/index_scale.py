"""What the index costs as it grows: memory, match, put and evict decisions, restart.

    benchmarks/index_scale.py                 ten thousand to a million blocks
    benchmarks/index_scale.py --blocks 10000000

No payload is moved: these are the decisions alone, and for the restart the disk's index with no record
behind its entries. Each size runs in a process of its own, so that memory is what that size takes.
"""

import argparse
import gc
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from lib.machine import conditions
from lib.results import write_json

from kvtier.calibrate.stats import percentile
from kvtier.format import Entry, pack_entry
from kvtier.hashing import HASH_BYTES, BlockHash, Chain, Label, Namespace, chain_hashes
from kvtier.placement import Placement, TierRules
from kvtier.policy.lru import LRU
from kvtier.spec import KVSpec
from kvtier.tiers.disk import LMDBTier

SIZES = (10_000, 100_000, 1_000_000)
BLOCK_TOKENS = 32
PROMPT_BLOCKS = 64
LONG_PROMPT_TOKENS = 1_000_000
LEAST_BLOCKS = LONG_PROMPT_TOKENS // BLOCK_TOKENS // 10


def main(argv: list[str] | None = None) -> int:
    """Parse, measure each size in a process of its own, print, write JSON and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, nargs="+", default=list(SIZES), metavar="N", help="sizes of the index")
    parser.add_argument("--runs", type=int, default=5, help="repetitions of each short measurement")
    parser.add_argument("--json", help="write the results here; - for standard output")
    parser.add_argument("--plot", help="draw the results here (PNG, SVG, PDF by suffix)")
    args = parser.parse_args(argv)
    if min(args.blocks) < LEAST_BLOCKS:
        sys.exit(f"index_scale: --blocks {min(args.blocks)}: give at least {LEAST_BLOCKS}, so that a long prompt fits")
    rows = []
    context = multiprocessing.get_context("spawn")
    for blocks in sorted(args.blocks):
        print(f"{blocks:,} blocks ...", file=sys.stderr, flush=True)
        with context.Pool(1) as pool:
            rows.append(pool.apply(measure, (blocks, args.runs)))
    report = {"benchmark": "index_scale", "conditions": {**conditions(), "runs": args.runs}, "rows": rows}
    print(table(rows))
    if args.plot:
        draw(rows, Path(args.plot))
        print(f"plot: {args.plot}")
    write_json(report, args.json)
    return 0


def measure(blocks: int, runs: int) -> dict[str, Any]:
    """One size: a placement of that capacity, filled, then worked at its capacity, then restored from disk."""
    gc.disable()  # a collection of millions of nodes in the middle of a decision is measured nowhere else
    chains = prompts(blocks)
    before = resident_bytes()
    placement = Placement([TierRules(blocks, LRU())])
    for chain in chains:
        placement.commit(placement.plan_write(chain))
    held = placement.used_blocks(0)
    row: dict[str, Any] = {"blocks": blocks, "bytes_per_block": (resident_bytes() - before) / held}
    row["long_prompt_tokens"] = min(LONG_PROMPT_TOKENS, held * BLOCK_TOKENS // 2)
    row["match_ms"] = match_ms(placement, row["long_prompt_tokens"], runs)
    row["decisions_per_s"] = decisions_per_s(placement, blocks)
    del placement
    row |= restart(blocks)
    return row


def prompts(blocks: int) -> Iterator[Chain]:
    """Prompts of some length with random names; as many as give so many blocks."""
    for _ in range(blocks // PROMPT_BLOCKS):
        names = os.urandom(HASH_BYTES * PROMPT_BLOCKS)
        keys = [BlockHash(names[i : i + HASH_BYTES]) for i in range(0, len(names), HASH_BYTES)]
        parents = [BlockHash(bytes(HASH_BYTES)), *keys]
        tokens = [names[i : i + 1] * (4 * BLOCK_TOKENS) for i in range(PROMPT_BLOCKS)]
        yield Chain(keys, [Label(parents[i], i, tokens[i]) for i in range(PROMPT_BLOCKS)])


def match_ms(placement: Placement, num_tokens: int, runs: int) -> float:
    """Name one long prompt, all of it held, and look it up."""
    space = Namespace(spec=KVSpec(layers=1, kv_heads=1, head_dim=8, dtype="float16"), weights="benchmark")
    ids = np.arange(num_tokens, dtype=np.uint32) % 50_000
    keys = chain_hashes(space, ids)
    parents = [BlockHash(bytes(HASH_BYTES)), *keys]
    labels = [Label(parents[i], i, b"") for i in range(len(keys))]
    placement.commit(placement.plan_write(Chain(keys, labels)))
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        found = placement.match(chain_hashes(space, ids))
        times.append(time.perf_counter() - began)
        assert len(found) == len(keys)
    return percentile(times, 50) * 1e3


def decisions_per_s(placement: Placement, blocks: int) -> float:
    """Blocks a second put into a full placement, each with the eviction of another."""
    count = min(blocks // 2, 50_000)
    chains = list(prompts(count))
    began = time.perf_counter()
    for chain in chains:
        placement.commit(placement.plan_write(chain))
    return len(chains) * PROMPT_BLOCKS / (time.perf_counter() - began)


def restart(blocks: int) -> dict[str, float]:
    """Open a disk tier whose index has that many entries, list it, and take it up.

    What a restart puts off is measured after it: memory, and putting blocks where those found have to
    be evicted.
    """
    block_bytes = 4096
    with tempfile.TemporaryDirectory(prefix="kvtier-index-") as directory:

        def opened() -> LMDBTier:
            return LMDBTier("disk", directory, capacity_bytes=blocks * block_bytes, block_bytes=block_bytes)

        tier = opened()
        with tier._volume.env._env.begin(write=True) as txn:  # noqa: SLF001  # entries alone: records would take hours
            slot = 0
            for commit, chain in enumerate(prompts(blocks)):
                for key, label in zip(chain.keys, chain.labels, strict=True):
                    txn.put(key, pack_entry(Entry(commit, slot, 0, label)), db=tier._volume.env.index)  # noqa: SLF001
                    slot += 1
        tier.close()
        gc.collect()
        before = own_bytes()
        began = time.perf_counter()
        tier = opened()
        placement = Placement([TierRules(blocks, LRU(), durable=True)])
        placement.restore(0, tier.scan())
        seconds = time.perf_counter() - began
        assert placement.used_blocks(0) == slot
        found = {
            "restart_s": seconds,
            "restored_bytes_per_block": (own_bytes() - before) / slot,
            "restored_decisions_per_s": decisions_per_s(placement, slot),
        }
        tier.close()
    return found


def resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def own_bytes() -> int:
    """Memory of this process in RAM that is its own, without pages of files it has mapped."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024


def table(rows: list[dict[str, Any]]) -> str:
    """A line for each size."""
    lines = [
        f"{'blocks':>12}{'bytes/block':>13}{'match, ms':>11}{'of tokens':>12}{'put+evict/s':>13}{'restart, s':>12}",
    ]
    lines[0] += f"{'bytes/block':>13}{'put+evict/s':>13} after it"
    lines += [
        f"{row['blocks']:>12,}{row['bytes_per_block']:>13,.0f}{row['match_ms']:>11.1f}{row['long_prompt_tokens']:>12,}"
        f"{row['decisions_per_s']:>13,.0f}{row['restart_s']:>12.2f}"
        f"{row['restored_bytes_per_block']:>13,.0f}{row['restored_decisions_per_s']:>13,.0f}"
        for row in rows
    ]
    return "\n".join(lines)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Each cost against the number of blocks, relative to the smallest size: flat is good."""
    import matplotlib as mpl  # drawing is optional, and its import takes a second

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5))
    sizes = [row["blocks"] for row in rows]
    costs = {
        "memory per block": [row["bytes_per_block"] for row in rows],
        "match, per token": [row["match_ms"] / row["long_prompt_tokens"] for row in rows],
        "put with eviction, per block": [1 / row["decisions_per_s"] for row in rows],
        "restart, per block": [row["restart_s"] / row["blocks"] for row in rows],
    }
    for name, values in costs.items():
        axes.plot(sizes, [value / values[0] for value in values], "-o", label=name)
    axes.set(xscale="log", xlabel="blocks", ylabel=f"cost, {sizes[0]:,} blocks = 1", title="The index as it grows")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
