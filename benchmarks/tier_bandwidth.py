"""Bytes per second of every tier, beside the raw limits of the same machine and other stores of the same bytes.

    benchmarks/tier_bandwidth.py                       the whole grid, some ten minutes
    benchmarks/tier_bandwidth.py --quick               one block size and batch, under a minute
    benchmarks/tier_bandwidth.py --device cuda         with the device tier on the GPU

Rows pair each rate with its limit, measured in the same rounds: memcpy, a copy to the GPU, an O_DIRECT
read or write of a file of as many bytes with the best of a grid of queue depths and request sizes.
Puts replace what is held, so that every store works at its capacity. Cold means closed, dropped from
the page cache, and checked not to be resident. What each row means is in docs/benchmarks.md.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from lib.bandwidth import Cell, KvtierDisk
from lib.bandwidth_report import draw, table
from lib.caller import seen_by_the_caller
from lib.machine import conditions
from lib.results import write_json
from lib.rivals import RIVALS, PlainLMDB
from lib.stages import stages
from lib.sustained import sustained

from kvtier.calibrate.limits import best_memcpy

KIB, MIB = 1 << 10, 1 << 20
SMOLLM2_BLOCK = 1440 * KIB
BLOCKS = (96 * KIB, 768 * KIB, SMOLLM2_BLOCK, 3 * MIB, 12 * MIB)
BATCHES = (1, 16, 64, 256)
MOST_BYTES = 384 * MIB
"""Of one batch: a longer one measures nothing else."""

RIVAL_BATCH = 64


def main(argv: list[str] | None = None) -> int:
    """Parse, measure, print for people, write JSON and plot."""
    args = arguments().parse_args(argv)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="kvtier-bandwidth-", dir=args.store) as name:
        report = measure(args, Path(name))
    report["conditions"]["seconds"] = time.perf_counter() - began
    publish(args, report)
    return 0


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1,440 KiB blocks, 64 at a time, one turnover")
    parser.add_argument("--block-kib", type=int, nargs="+", metavar="N", help="block sizes, multiples of 4 KiB")
    parser.add_argument("--batch", type=int, nargs="+", metavar="N", help="blocks at a time")
    parser.add_argument("--runs", type=int, default=5, help="interleaved rounds of every case (default: %(default)s)")
    parser.add_argument("--turnovers", type=int, help="of a full store; default: 10, with --quick 2")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--store", help="directory on the disk to measure; default: the system's for temporary files")
    parser.add_argument("--json", help="write the results here; - for standard output")
    parser.add_argument("--plot", help="draw the results here (PNG, SVG, PDF by suffix)")
    return parser


def measure(args: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """Every cell of the grid, then the turnovers."""
    sizes = [kib * KIB for kib in args.block_kib or []] or ([SMOLLM2_BLOCK] if args.quick else BLOCKS)
    if bad := [size for size in sizes if size <= 0 or size % 4096]:
        sys.exit(
            f"tier_bandwidth: --block-kib {bad[0] // KIB}: blocks are multiples of 4 KiB, so that O_DIRECT can be used"
        )
    batches = args.batch or ([RIVAL_BATCH] if args.quick else BATCHES)
    _, threads = best_memcpy(256 * MIB, runs=3)
    rows: list[dict[str, Any]] = []
    cells = [(size, batch) for size in sizes for batch in batches if size * batch <= MOST_BYTES]
    if not cells:
        sys.exit(
            f"tier_bandwidth: no batch of {list(batches)} blocks stays below {MOST_BYTES >> 20} MiB; "
            "give fewer or smaller blocks"
        )
    for n, (size, batch) in enumerate(cells, 1):
        print(f"{n} of {len(cells)}: blocks of {size // KIB} KiB, {batch} at a time", file=sys.stderr, flush=True)
        nearest = min((b for s, b in cells if s == size), key=lambda b: abs(b - RIVAL_BATCH))
        rivals = RIVALS if batch == nearest else ()
        with Cell(directory, size, batch, torch.device(args.device), rivals, threads) as cell:
            rows += cell.measure(args.runs)
    turns = args.turnovers if args.turnovers is not None else (2 if args.quick else 10)
    lasting = sustained(
        [KvtierDisk, *(kind for kind in RIVALS if kind.durable and (kind is PlainLMDB or not args.quick))],
        directory,
        block_bytes=SMOLLM2_BLOCK,
        batch=32,
        blocks=128 if args.quick else 256,
        turnovers=turns,
    )
    about = {
        **conditions(directory),
        "device": args.device,
        "runs": args.runs,
        "memcpy_threads": threads,
        "cache_state": "disk_cold: closed, dropped, residency checked; disk_warm: every page read into memory before",
    }
    caller = seen_by_the_caller(directory, runs=max(20, args.runs), threads=threads)
    return {
        "benchmark": "tier_bandwidth",
        "conditions": about,
        "rows": rows,
        "sustained": lasting,
        "caller": caller,
        "stages": stages(directory, block_bytes=SMOLLM2_BLOCK, batch=RIVAL_BATCH, runs=args.runs),
    }


def publish(args: argparse.Namespace, report: dict[str, Any]) -> None:
    """Print the tables, write JSON and plot."""
    print(table(report))
    if args.plot:
        draw(report, Path(args.plot))
        print(f"plot: {args.plot}")
    write_json(report, args.json)


if __name__ == "__main__":
    sys.exit(main())
