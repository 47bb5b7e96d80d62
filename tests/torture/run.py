"""Torture stores: kill their processes, cut their power, damage their files, and count.

Every part is a module of this package with ``TRIES``, ``FAULTS`` and ``run(budget, progress)``,
which returns a row for each kind of fault. Each row says how many faults were tried and survived, how many
bytes were delivered wrong, and how many blocks are gone that had been promised to be durable. The
last two must be 0.

    scripts/torture                                  everything, under 30 minutes on two cores
    scripts/torture --quick                          a little of everything, under a minute
    scripts/torture --only kills --seed 7 --tries 1  one case again
"""

from __future__ import annotations

import argparse
import gc
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from lib.machine import conditions
from lib.results import write_json

from torture.report import Budget, Progress, Row, failures, table

#: Modules of this package, in the order they are run.
PARTS = ["control", "kills", "power", "damage", "disks", "processes", "threads", "soak", "fuzz"]


_say = partial(print, flush=True)
_warn = partial(print, file=sys.stderr, flush=True)


def parts(only: Sequence[str] = ()) -> dict[str, ModuleType]:
    """The parts asked for by name; all of them if none is."""
    return {name: import_module(f"torture.{name}") for name in PARTS if not only or name in only}


def run_part(name: str, part: ModuleType, budget: Budget) -> list[Row]:
    """The rows of one part. Its directory is removed afterwards, unless something failed and is to be kept."""
    began = time.monotonic()
    directory = Path(tempfile.mkdtemp(prefix=f"kvtier-torture-{name}-", dir=budget.directory))
    failed = True
    try:
        rows: list[Row] = part.run(replace(budget, directory=directory), Progress(name))
        failed = not all(row.is_good for row in rows)
    finally:
        if failed and budget.keep:
            _warn(f"{name}: kept in {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    _warn(f"{name}: {time.monotonic() - began:.0f} s")
    return rows


def plan(chosen: dict[str, ModuleType], budget: Budget) -> str:
    """What would be run."""
    lines = []
    for name, part in chosen.items():
        summary = (part.__doc__ or "").partition("\n")[0]
        lines.append(f"{name:10} {budget.pick(part.TRIES):6,}  {summary}")
        lines += [f"{'':18} {fault}" for fault in part.FAULTS]
    return "\n".join(lines)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="torture", description="Torture stores, and count what is lost or wrong. Exit status 1 if anything is."
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--quick", dest="mode", action="store_const", const="quick", help="a little of everything")
    mode.add_argument("--ci", dest="mode", action="store_const", const="ci", help="as much as the tests do")
    parser.add_argument("--only", action="append", default=[], choices=PARTS, metavar="NAME", help="this part; repeats")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the first case (default: %(default)s)")
    parser.add_argument("--tries", type=int, metavar="N", help="cases of each part, whatever the mode says")
    parser.add_argument("--lanes", type=int, default=2, metavar="N", help="cases at a time (default: %(default)s)")
    parser.add_argument("--directory", type=Path, metavar="DIR", help="where stores are made (default: the system's)")
    parser.add_argument("--keep", action="store_true", help="leave the directories of a part that failed")
    parser.add_argument("--plan", action="store_true", help="only list the parts, their cases and their faults")
    parser.add_argument("--json", metavar="FILE", help="also write the report here; - for standard output")
    parser.set_defaults(mode="long")
    return parser.parse_args(argv)


def report(rows: Sequence[Row], budget: Budget, seconds: float) -> dict[str, Any]:
    """What goes into the JSON."""
    return {
        "benchmark": "torture",
        "mode": budget.mode,
        "seed": budget.seed,
        "tries": budget.tries,
        "seconds": round(seconds, 1),
        "conditions": conditions(budget.directory),
        "rows": [{**asdict(row), "seconds": round(row.seconds, 1)} for row in rows],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts asked for; 1 if anything was wrong, lost or did not survive."""
    args = parse(argv)
    place = args.directory or Path(tempfile.gettempdir())
    budget = Budget(directory=place, mode=args.mode, seed=args.seed, tries=args.tries, lanes=args.lanes, keep=args.keep)
    chosen = parts(args.only)
    if args.plan:
        _say(plan(chosen, budget))
        return 0
    torch.set_num_threads(1)  # a fork does not take a pool of threads along
    gc.freeze()  # nor need it look through all of torch when it collects
    began = time.monotonic()
    rows = [row for name, part in chosen.items() for row in run_part(name, part, budget)]
    (_warn if args.json == "-" else _say)(table(rows))
    if bad := failures(rows):
        _warn(f"\n{bad}\n\nagain: scripts/torture --only PART --tries 1 --seed SEED")
    write_json(report(rows, budget, time.monotonic() - began), args.json)
    return 0 if all(row.is_good for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
