"""What traces ask of a cache, and how long reading and measuring them takes.

    benchmarks/traces.py conversation.jsonl.gz agentic.jsonl.gz
    benchmarks/traces.py                          the synthetic workloads alone
    benchmarks/traces.py --interval 20 --interval 60 agentic.jsonl.gz

Each trace is read once for the CPU time that takes, and once more for ``kvtier trace stats``, in a process of its own,
so that memory is what that trace takes. An agentic trace is measured at every ``--interval`` between its sessions.
"""

import argparse
import multiprocessing
import resource
import sys
import time
from typing import Any

from lib.machine import conditions
from lib.results import write_json
from lib.trace_tables import markdown

from kvtier.errors import KVTierError
from kvtier.sim.agentic import SESSION_INTERVAL_S
from kvtier.sim.naming import SCHEME, trace_from
from kvtier.sim.reading import FileTrace
from kvtier.sim.stats import stats_of
from kvtier.sim.workloads import WORKLOADS


def main(argv: list[str] | None = None) -> int:
    """Parse, measure each trace in a process of its own, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", nargs="*", metavar="TRACE", help="a file, or synthetic:NAME; see kvtier trace stats")
    parser.add_argument(
        "--interval",
        action="append",
        type=float,
        metavar="S",
        help=f"seconds between agentic sessions; may be repeated (default: {SESSION_INTERVAL_S:g})",
    )
    parser.add_argument("--json", help="write the results here; - for standard output")
    args = parser.parse_args(argv)
    rows = []
    context = multiprocessing.get_context("spawn")
    try:
        for argument in [*args.traces, *(f"{SCHEME}{name}" for name in WORKLOADS)]:
            for interval_s in _intervals(argument, args.interval or [SESSION_INTERVAL_S]):
                print(f"{argument} ...", file=sys.stderr, flush=True)
                with context.Pool(1) as pool:
                    rows.append(pool.apply(measure, (argument, interval_s)))
    except KVTierError as exc:
        print(f"traces: {exc}", file=sys.stderr)
        return 2
    report = {"benchmark": "traces", "conditions": conditions(), "rows": rows}
    print(markdown(report), file=sys.stderr if args.json == "-" else sys.stdout)
    write_json(report, args.json)
    return 0


def _intervals(argument: str, asked: list[float]) -> list[float]:
    trace = trace_from(argument)
    return asked if isinstance(trace, FileTrace) and trace.format == "agentic" else [SESSION_INTERVAL_S]


def measure(argument: str, interval_s: float) -> dict[str, Any]:
    """Read a trace, and go through it for its figures."""
    trace = trace_from(argument, session_interval_s=interval_s)
    begin = time.process_time()
    requests = sum(1 for _ in trace)
    read_cpu_s = time.process_time() - begin
    begin = time.process_time()
    facts = stats_of(trace).as_dict()
    return {
        "session_interval_s": interval_s if facts["conversations"] and not argument.startswith(SCHEME) else None,
        "read_cpu_s": read_cpu_s,
        "requests_read": requests,
        "stats_cpu_s": time.process_time() - begin,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        **facts,
    }


if __name__ == "__main__":
    sys.exit(main())
