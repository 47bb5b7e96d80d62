"""Which policy, which tiers, how long, and how much to write: replays of published traces and of synthetic workloads.

    benchmarks/policies.py --quick
    benchmarks/policies.py --agentic --json benchmarks/results/policies.json --images docs/images

The traces lie in ``KVTIER_TRACES``, or in ``shared/traces`` beside the checkout. That of coding agents has many times
as many references as both others and comes with ``--agentic`` alone. No hit rate depends on a clock, so a busy
machine takes longer and says the same; ``seconds`` are of the replays as they ran, several at a time.
"""

import argparse
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from lib import policies as ask
from lib.arguments import positive
from lib.machine import conditions
from lib.policies_plots import draw
from lib.policies_report import markdown
from lib.results import write_json

from kvtier.errors import KVTierError
from kvtier.policy.registry import POLICIES
from kvtier.sim.naming import SCHEME, trace_from
from kvtier.sim.sweep import OPTIMUM
from kvtier.sim.workers import usable_cores
from kvtier.sim.workloads import WORKLOADS

FILES = {
    "conversation": "mooncake_conversation_trace.jsonl.gz",
    "synthetic": "mooncake_synthetic_trace.jsonl.gz",
    "agentic": "agentic_coding_trace.jsonl.gz",
}
AGENTIC_POLICIES = ("lru", "sieve", "s3fifo", "gdsf", OPTIMUM)
SLOW_CHAT = "chat?think_s=600&requests="
"""Users who take ten minutes to answer, on average: a trace that lasts long enough to tell an hour from a day."""


def main(argv: list[str] | None = None) -> int:
    """Parse, replay, print, write JSON and plots."""
    args = arguments().parse_args(argv)
    wanted = ["conversation", "synthetic", *(["agentic"] if args.agentic else [])]
    directory = args.traces or Path(os.environ.get("KVTIER_TRACES", Path(__file__).parents[2] / "shared" / "traces"))
    if missing := [FILES[name] for name in wanted if not (directory / FILES[name]).is_file()]:
        print(f"policies: no {' or '.join(missing)} here; say where with --traces or KVTIER_TRACES", file=sys.stderr)
        return 2
    limits = {"agentic": args.agentic_requests}
    sources = {
        name: partial(trace_from, str(directory / FILES[name]), limit=400 if args.quick else limits.get(name))
        for name in wanted
    }
    began_s = time.perf_counter()
    try:
        found = measure(args, sources)
    except KVTierError as exc:
        print(f"policies: {exc}", file=sys.stderr)
        return 2
    about = {**conditions(), "processes": args.jobs, "quick": args.quick, "policies": list(POLICIES)}
    report = {
        "benchmark": "policies",
        "conditions": {**about, "seconds": time.perf_counter() - began_s, "agentic_requests": args.agentic_requests},
        **found,
    }
    print("\n\n".join(markdown(report).values()), file=sys.stderr if args.json == "-" else sys.stdout)
    if args.images:
        args.images.mkdir(parents=True, exist_ok=True)
        draw(report, args.images)
    write_json(report, args.json)
    return 0


def measure(args: argparse.Namespace, sources: dict[str, Any]) -> dict[str, Any]:
    """Every question, by its name in the JSON."""
    asker = ask.Asker(processes=args.jobs)
    mooncake = {name: source for name, source in sources.items() if name != "agentic"}
    count = 3 if args.quick else 8
    generated = 100 if args.quick else 2000
    curves = {name: ask.curves(asker, source, list(POLICIES), count) for name, source in mooncake.items()}
    aged = {**mooncake, "slow_chat": partial(trace_from, f"{SCHEME}{SLOW_CHAT}{generated}")}
    if "agentic" in sources:
        few = [name for name in POLICIES if name in AGENTIC_POLICIES or name not in ask.KNOWN]
        curves["agentic"] = ask.curves(asker, sources["agentic"], few, 2 if args.quick else 4)
        aged["agentic"] = sources["agentic"]
    return {
        "curves": curves,
        "paper_figure": {name: ask.paper_figure(asker, source) for name, source in mooncake.items()},
        "ssd": {name: ask.ssd(asker, source) for name, source in mooncake.items()},
        "lifetimes": {name: ask.lifetimes(asker, source) for name, source in aged.items()},
        "admissions": {name: ask.admissions(asker, source) for name, source in mooncake.items()},
        "orders": {name: ask.orders(asker, source, count) for name, source in mooncake.items()},
        "workloads": {name: ask.workload(asker, name, generated) for name in WORKLOADS},
    }


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=Path, help="directory of the traces (KVTIER_TRACES, or shared/traces beside)")
    parser.add_argument("--quick", action="store_true", help="400 requests a trace, three capacities: a minute or two")
    parser.add_argument("--agentic", action="store_true", help="also the trace of coding agents")
    parser.add_argument("--agentic-requests", type=positive, metavar="N", help="only its first N requests")
    parser.add_argument("--jobs", type=positive, default=usable_cores(), help="processes; default: %(default)s")
    parser.add_argument("--images", type=Path, metavar="DIRECTORY", help="draw the results there, as PNG")
    parser.add_argument("--json", help="write the results here; - for standard output")
    return parser


if __name__ == "__main__":
    sys.exit(main())
