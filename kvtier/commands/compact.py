"""``kvtier compact``: give the space of unused slots back."""

from __future__ import annotations

import argparse
from pathlib import Path

from kvtier.commands.output import add_json, say, write_json
from kvtier.commands.progress import shown
from kvtier.commands.sizes import at_least_one, human_bytes
from kvtier.doctor.reports import quiet

HELP = "write a store's blocks to a new, smaller data file that takes the place of the old one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See ``kvtier.cli``."""
    parser.add_argument("directory", type=Path, metavar="DIR", help="the store's; no process may have it open")
    parser.add_argument("--threads", type=at_least_one, metavar="N", help="records to copy at a time")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """See ``kvtier.cli``."""
    from kvtier.doctor.compacting import compact

    with shown("copied") as meter:
        done = compact(args.directory, threads=args.threads, progress=meter or quiet)
    before, after = human_bytes(done.bytes_before), human_bytes(done.bytes_after)
    lines = [f"{done.directory}: {before} on disk before, {after} after, {done.blocks:,} blocks"]
    if done.damaged or done.orphans:
        lines.append(f"left out: {done.damaged:,} damaged blocks, {done.orphans:,} without their prefix")
    say("\n".join(lines), args.json)
    write_json(done.as_dict(), args.json)
    return 1 if done.damaged else 0
