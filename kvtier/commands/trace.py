"""``kvtier trace``: what a trace asks of a cache, and made-up traces as files."""

from __future__ import annotations

import argparse
import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from kvtier.commands.files import made_whole, new_file
from kvtier.commands.output import add_json, say, table, write_json
from kvtier.commands.plots import add_plot, check_plot, draw
from kvtier.commands.sizes import bars
from kvtier.commands.traces import add_trace_arguments, skipped_of, trace_of, warn_of_skipped
from kvtier.sim.naming import SCHEME, trace_from
from kvtier.sim.workloads import WORKLOADS

if TYPE_CHECKING:
    from kvtier.sim.stats import Stats

HELP = "look at a trace of requests, or make one up"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See ``kvtier.cli``."""
    parser.epilog = "Both take --json FILE."
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    stats = actions.add_parser("stats", help=_STATS, description=_STATS)
    add_trace_arguments(stats)
    add_plot(stats)
    add_json(stats)
    stats.set_defaults(act=_stats)
    generate = actions.add_parser(
        "generate",
        help=_GENERATE,
        description=_GENERATE,
        epilog=_workloads(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    generate.add_argument("name", metavar="NAME", help=f"one of {', '.join(WORKLOADS)}")
    generate.add_argument("parameters", metavar="PARAMETER=VALUE", nargs="*", help="such as requests=5000 seed=7")
    generate.add_argument(
        "--out", type=new_file, required=True, metavar="FILE", help="in Mooncake's format; gzip if it ends in .gz"
    )
    add_json(generate)
    generate.set_defaults(act=_generate)


_STATS = "requests, tokens, reuse distances, time between uses, and the best hit rate that any cache could have"
_GENERATE = "write a synthetic trace to a file"


def run(args: argparse.Namespace) -> int:
    """See ``kvtier.cli``."""
    status: int = args.act(args)
    return status


def _workloads() -> str:
    lines = []
    for name, each in WORKLOADS.items():
        shown = " ".join(f"{field.name}={field.default}" for field in fields(each))
        lines += [f"{name}: {each.about}", f"  {shown}", ""]
    return "\n".join(lines)


# stats


def _stats(args: argparse.Namespace) -> int:
    from kvtier.commands import trace_plot
    from kvtier.sim.stats import stats_of

    check_plot(args.plot)
    trace = trace_of(args)
    stats = stats_of(trace)
    warn_of_skipped(trace)
    if args.plot:
        draw(args.plot, 3, partial(trace_plot.paint, stats))
    say(_text(stats), args.json)
    skipped = skipped_of(trace)
    write_json({**stats.as_dict(), "skipped_lines": skipped.count if skipped else 0}, args.json)
    return 0


def _text(stats: Stats) -> str:
    facts = stats.as_dict()
    distance, between = facts["reuse_distance_blocks"]["percentiles"], facts["time_between_uses_s"]
    rate = f", {stats.requests / stats.duration_s:.2f} a second" if stats.duration_s else ""
    rows = [
        ("requests", f"{stats.requests:,} in {_duration(stats.duration_s)}{rate}"),
        ("input tokens", f"{stats.input_tokens:,}; a prompt: {_spread(facts['prompt_tokens'])}"),
        ("output tokens", f"{stats.output_tokens:,}"),
        ("block references", f"{stats.block_references:,} in blocks of {stats.block_tokens} tokens"),
        ("unique blocks", f"{stats.unique_blocks:,}; {facts['used_once_share']:.1%} of them used once"),
        (
            "best hit rate",
            f"{stats.best_block_hit_rate:.2%} of blocks, {stats.best_token_hit_rate:.2%} of tokens, keeping everything",
        ),
        ("time between uses", _spread(between, _duration)),
        ("reuse distance", f"{_spread(distance)} blocks used since"),
    ]
    if stats.conversations:
        on = facts["conversations_going_on"]
        rows.insert(1, ("conversations", f"{stats.conversations:,}; going on at a request: {_spread(on)}"))
    octaves = [(f"{low:,}" if low == high else f"{low:,} to {high:,}", uses) for low, high, uses in stats.octaves()]
    lines = [table((stats.trace, ""), rows)]
    if octaves:
        lines += ["uses by reuse distance, in blocks", bars(octaves)]
    return "\n".join(lines)


def _spread(found: dict[str, float] | None, show: Any = "{:,.0f}".format) -> str:
    if found is None:
        return "none"
    return f"median {show(found['p50'])}, 90% {show(found['p90'])}, 99% {show(found['p99'])}"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.3g} s"


# generate


def _generate(args: argparse.Namespace) -> int:
    from kvtier.sim.mooncake import write

    trace = trace_from(f"{SCHEME}{args.name}?{'&'.join(args.parameters)}")
    with made_whole(args.out) as place, _text_file(place, packed=args.out.suffix == ".gz") as file:
        count = write(trace, file)
    say(f"{args.out}: {count:,} requests of {trace.name}, blocks of {trace.block_tokens} tokens", args.json)
    write_json({"file": str(args.out), "requests": count, "block_tokens": trace.block_tokens}, args.json)
    return 0


@contextmanager
def _text_file(path: Path, *, packed: bool) -> Iterator[IO[str]]:
    with path.open("wb") as raw:
        if not packed:
            with io.TextIOWrapper(raw) as file:
                yield file
            return
        with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as zipped, io.TextIOWrapper(zipped) as file:
            yield file  # no name and no time inside: the same trace is the same file
