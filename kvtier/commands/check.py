"""``kvtier check``: verify every page, entry and record of a store, and repair it."""

from __future__ import annotations

import argparse
from pathlib import Path

from kvtier.commands.output import add_json, say, write_json
from kvtier.commands.progress import shown
from kvtier.commands.sizes import at_least_one, human_bytes
from kvtier.doctor.reports import KINDS, Report, quiet

HELP = "verify every block of a store, and repair it"

_LISTED = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See ``kvtier.cli``."""
    parser.add_argument("directory", type=Path, metavar="DIR", help="the store's; no process may have it open")
    parser.add_argument(
        "--repair",
        action="store_true",
        help="take out what is damaged; if the file's structure is, make a new file of what is whole",
    )
    parser.add_argument("--threads", type=at_least_one, metavar="N", help="records to read at a time")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """See ``kvtier.cli``."""
    from kvtier.doctor.checking import check

    with shown("checked") as meter:
        report = check(args.directory, repair=args.repair, threads=args.threads, progress=meter or quiet)
    say(_text(report), args.json)
    write_json(report.as_dict(), args.json)
    return 0 if report.clean else 1


def _text(report: Report) -> str:
    rate = report.bytes_read / max(report.seconds, 1e-9) / 2**30
    accounted, real = human_bytes(report.accounted_bytes), human_bytes(report.file_bytes)
    about = f"{report.blocks:,} blocks, {accounted} accounted, {real} on disk, {report.slots:,} slots"
    lines = [f"{report.directory}: {about}"]
    if report.records_read:
        read = f"read {report.records_read:,} records, {human_bytes(report.bytes_read)}"
        lines.append(f"{read} in {report.seconds:.2f} s ({rate:.2f} GiB/s)")
    for kind, count in report.counts.items():
        lines.append(f"{kind} ({count:,}): {KINDS[kind]}")
        its = [finding for finding in report.findings if finding.kind == kind]
        lines += [
            f"    {finding.block[:12] + '  ' if finding.block else ''}{finding.detail}" for finding in its[:_LISTED]
        ]
        if count > _LISTED:
            lines.append(f"    and {count - _LISTED:,} more; --json has all of them")
    return "\n".join([*lines, _verdict(report)])


def _verdict(report: Report) -> str:
    if not report.findings:
        return "nothing wrong"
    if report.repaired:
        return f"repaired: {report.kept_blocks:,} blocks kept, {report.removed_blocks:,} removed"
    if report.kept_blocks or not report.counts.get("structure"):
        return "kvtier check --repair puts it right"
    return "a repair saves the records that are whole; if it finds none, move the file away to start afresh"
