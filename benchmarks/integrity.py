"""What it costs to verify every block that is read from disk, and to encrypt every block that is written.

    python benchmarks/integrity.py --json out/integrity.json --plot out/integrity.png
    python benchmarks/integrity.py --quick

Verification (checksum, name, token ids): the disk tier's read with it, and the very same read with the
check replaced by nothing, which only this benchmark can do. Encryption: the tier's read and durable write with
it and without. Beside them the parts alone: memcpy, XXH3 and AES-GCM over as many bytes, and what the names
cost. Cold means closed, dropped from the page cache, and checked not to be resident. Cases take turns;
ratios pair measurements of one round.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lib.arguments import positive
from lib.errors import BenchError
from lib.integrity import SPEC, measure
from lib.integrity_report import draw, table
from lib.machine import conditions
from lib.results import write_json

from kvtier.calibrate.limits import best_memcpy
from kvtier.errors import MeasureError


def main(argv: list[str] | None = None) -> int:
    """Parse, measure, print for people, write JSON and plot."""
    args = arguments().parse_args(argv)
    runs, batch = args.runs or (3 if args.quick else 7), args.batch
    began, load = time.perf_counter(), os.getloadavg()[0]
    _, threads = best_memcpy(batch * SPEC.block_bytes, runs=3)
    try:
        with tempfile.TemporaryDirectory(prefix="kvtier-integrity-", dir=args.store) as name:
            found = measure(Path(name), batch=batch, runs=runs, threads=threads)
            about = conditions(Path(name))
    except (BenchError, MeasureError) as exc:
        print(f"integrity: {exc}", file=sys.stderr)
        return 2
    report: dict[str, Any] = {
        "benchmark": "integrity",
        "conditions": {
            **about,
            "runs": runs,
            "interleaved": True,
            "load_average_before": load,
            "block_bytes": SPEC.block_bytes,
            "block_tokens": SPEC.block_tokens,
            "batch": batch,
            "memcpy_threads": threads,
            "cache_state": "cold: closed, dropped, residency checked; warm: every page read into memory before",
            "without_verification": "the same read with kvtier.tiers.records.Records.check replaced by nothing",
            "seconds": time.perf_counter() - began,
        },
        **found,
    }
    print(table(report))
    if args.plot:
        draw(report, Path(args.plot))
        print(f"plot: {args.plot}")
    write_json(report, args.json)
    return 0


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three rounds, under a minute")
    parser.add_argument("--runs", type=positive, help="interleaved rounds of every case; default: 7, with --quick 3")
    parser.add_argument(
        "--batch",
        type=positive,
        default=40,
        help="blocks at a time; default: %(default)s, 56 MiB: the store's background moves at most 64 MiB",
    )
    parser.add_argument("--store", help="directory on the disk to measure; default: the system's for temporary files")
    parser.add_argument("--json", help="write the results here; - for standard output")
    parser.add_argument("--plot", help="draw the results here (PNG, SVG, PDF by suffix)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
