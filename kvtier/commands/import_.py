"""``kvtier import``: a bundle's blocks into a store."""

from __future__ import annotations

import argparse
from pathlib import Path

from kvtier.commands.output import add_json, say, write_json
from kvtier.commands.progress import shown
from kvtier.config import parse_size
from kvtier.doctor.reports import quiet

HELP = "put the blocks of a bundle into a store, once all of it has been verified"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See ``kvtier.cli``."""
    parser.add_argument("directory", type=Path, metavar="DIR", help="the store's, made if absent")
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="from kvtier export")
    parser.add_argument("--capacity", metavar="SIZE", help="what the store may hold, such as '8 GiB'")
    parser.add_argument(
        "--new-namespaces", action="store_true", help="also take blocks of models or tenants the store knows nothing of"
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """See ``kvtier.cli``."""
    from kvtier.doctor.carrying import import_bundle

    capacity = None if args.capacity is None else parse_size(args.capacity)
    with shown("imported") as meter:
        done = import_bundle(
            args.directory,
            args.bundle,
            capacity_bytes=capacity,
            new_namespaces=args.new_namespaces,
            progress=meter or quiet,
        )
    lines = [f"{done.directory}: {done.imported:,} blocks imported, {done.skipped:,} were held already"]
    lines += [f"{count:,} refused: {reason}" for reason, count in done.refused.items()]
    say("\n".join(lines), args.json)
    write_json(done.as_dict(), args.json)
    return 1 if done.refused else 0
