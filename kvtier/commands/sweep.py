"""``kvtier sweep``: policies by capacities, and what sizes of tiers cost and save, in all cores."""

from __future__ import annotations

import argparse
import platform
import shlex
from collections.abc import Sequence
from functools import partial
from typing import Any

from kvtier.commands.counting import counted
from kvtier.commands.files import new_file
from kvtier.commands.output import add_json, say, table, write_json
from kvtier.commands.plots import add_plot, check_plot, draw
from kvtier.commands.profiles import add_profile_arguments
from kvtier.commands.replays import profile_asked_for
from kvtier.commands.sizes import at_least_one
from kvtier.commands.traces import add_trace_arguments, skipped_of, trace_opener, warn_of_skipped
from kvtier.config import parse_duration
from kvtier.econ.profile import Profile
from kvtier.errors import ConfigError
from kvtier.policy.registry import ADMISSIONS, POLICIES
from kvtier.sim.settings import TIER_NAMES, parse_capacity

HELP = "replay a trace through many policies and capacities at once: curves, the optimum, a Pareto front, a report"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See ``kvtier.cli``."""
    add_trace_arguments(parser)
    what = parser.add_argument_group("policies by capacities, in one tier")
    what.add_argument(
        "--policies",
        default="all",
        metavar="NAME,NAME,...",
        help=f"of {' '.join(POLICIES)}, or all (the default). belady is the optimum: it shows what the others leave",
    )
    what.add_argument(
        "--capacities",
        metavar="N,N,...",
        help="in blocks, or in bytes such as '40 GiB' with --model (default: 8 from 1%% to 60%% of the trace's blocks)",
    )
    what.add_argument("--admission", default="all", metavar="NAME", help=f"{' '.join(ADMISSIONS)} (all)")
    what.add_argument("--ttl", metavar="T", help="5min, 1h, 1d (none)")
    what.add_argument("--no-refresh", action="store_true", help="time to live runs from when a block was stored")
    sizes = parser.add_argument_group("sizes of tiers: cost against time to first token; needs --model or --profile")
    sizes.add_argument(
        "--grid",
        action="append",
        metavar="NAME=N,N,...",
        help="sizes of device, host, disk or remote to combine, once for each tier; 0 leaves it out",
    )
    sizes.add_argument("--grid-policy", default="lru", metavar="NAME", help="of all tiers (%(default)s)")
    sizes.add_argument(
        "--write", choices=("on_eviction", "on_insertion"), default="on_eviction", help="to the last tier"
    )
    add_profile_arguments(parser, required=False)
    parser.add_argument("--jobs", type=at_least_one, metavar="N", help="processes (default: one for each core)")
    parser.add_argument(
        "--html", type=new_file, metavar="FILE", help="also write a report there: one file, nothing else"
    )
    add_plot(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """See ``kvtier.cli``."""
    from kvtier.econ.machine import versions
    from kvtier.sim.stats import stats_of
    from kvtier.sim.sweep import Job, default_capacities, grid, grid_rows, policy_jobs, policy_rows
    from kvtier.sim.workers import in_order, usable_cores

    check_plot(args.plot)
    check_plot(args.html, "--html")
    source, profile = trace_opener(args), profile_asked_for(args)
    trace = source()
    block_bytes = None if profile is None else trace.block_tokens * profile.bytes_per_token
    limits = _limits(args)
    combinations = _grid(args, profile, block_bytes, grid)
    asked = _capacities(args.capacities, block_bytes)
    jobs = partial(policy_jobs, source, _policies(args.policies), common=limits, profile=profile)
    jobs(asked or [1])  # what cannot be is found before the trace is read
    stats = stats_of(trace)
    warn_of_skipped(trace)
    skipped = skipped_of(trace)
    single = jobs(asked or default_capacities(stats.unique_blocks))
    several = [Job(open=source, settings=each, profile=profile, costs=True) for each in combinations]
    total = len(single) + len(several)
    processes = min(args.jobs or usable_cores(), total)
    with counted("replays", total) as count:
        found = in_order([*single, *several], processes, count)
    result = {
        "trace": trace.name,
        "block_tokens": trace.block_tokens,
        "command": shlex.join(["kvtier", *args.words]),
        "versions": {**versions(), "python": platform.python_version()},
        "skipped_lines": skipped.count if skipped else 0,
        "stats": stats.as_dict(),
        "admission": args.admission,
        "ttl_s": limits.get("ttl_s"),
        "refresh": not args.no_refresh,
        "jobs": processes,
        **({} if profile is None else {"profile": profile.name}),
        "rows": policy_rows(single, found[: len(single)]),
    }
    if several:
        rows = grid_rows(several, found[len(single) :])
        result["grid"] = {"policy": args.grid_policy, "write": args.write, "rows": rows}
    _give(args, result)
    return 0


def _give(args: argparse.Namespace, result: dict[str, Any]) -> None:
    """Say, draw and write what was found."""
    from kvtier.commands.html import write_page
    from kvtier.commands.sweep_plot import paint
    from kvtier.commands.sweep_report import report

    say(_text(result), args.json)
    if args.plot is not None:
        draw(args.plot, 2 if "grid" in result else 1, partial(paint, result))
    if args.html is not None:
        write_page(args.html, report(result))
    write_json(result, args.json)


def _limits(args: argparse.Namespace) -> dict[str, Any]:
    """What holds all policies back but the optimum."""
    return {
        "admission": args.admission,
        **({"ttl_s": parse_duration(args.ttl)} if args.ttl else {}),
        **({"refresh": False} if args.no_refresh else {}),
    }


def _policies(text: str) -> list[str]:
    return list(POLICIES) if text == "all" else list(dict.fromkeys(name.strip() for name in text.split(",")))


def _capacities(text: str | None, block_bytes: int | None) -> list[int]:
    return [] if text is None else sorted({parse_capacity(part, block_bytes) for part in text.split(",")})


def _grid(args: argparse.Namespace, profile: Profile | None, block_bytes: int | None, combined: Any) -> list[Any]:
    """The combinations of sizes that the command line names; none if it names none."""
    if not args.grid:
        return []
    if profile is None:
        raise ConfigError("--grid compares dollars and seconds: name the machine with --model or --profile")
    sizes: dict[str, Sequence[int]] = {}
    for text in args.grid:
        name, equals, listed = text.partition("=")
        if not equals or not listed or name in sizes:
            raise ConfigError(f"--grid {text}: write NAME=N,N,... once for each of {', '.join(TIER_NAMES)}")
        sizes[name] = _capacities(listed, block_bytes)
    for name in sizes:
        if name in TIER_NAMES:
            profile.tier(name)
    return list(combined(sizes, args.grid_policy, write=args.write))


def _text(result: dict[str, Any]) -> str:
    stats = result["stats"]
    size = f"{stats['block_references']:,} references to {stats['unique_blocks']:,} blocks"
    heads: tuple[str, ...] = ("policy", "capacity", "blocks", "prefixes", "tokens", "of optimum", "s", "references/s")
    lines = [
        f"{result['trace']}: {stats['requests']:,} requests, {size} of {result['block_tokens']:,} tokens",
        "",
        table(heads, [_cells(row) for row in result["rows"]]),
    ]
    if "grid" in result:
        heads = ("", "sizes", "USD/1000 requests", "mean TTFT, s", "tokens")
        rows = [_grid_cells(row) for row in sorted(result["grid"]["rows"], key=lambda row: row["usd_per_request"])]
        lines += ["", f"on {result['profile']}; * is the Pareto front", table(heads, rows)]
    return "\n".join(lines)


def _cells(row: dict[str, Any]) -> list[str]:
    shares = [row[f"{rate}_hit_rate"] for rate in ("block", "prefix", "token")]
    optimum = "" if row["share_of_optimum"] is None else f"{row['share_of_optimum']:.1%}"
    speed = [f"{row['seconds']:.2f}", f"{row['references_per_s']:,.0f}"]
    return [row["policy"], f"{row['capacity_blocks']:,}", *(f"{share:.1%}" for share in shares), optimum, *speed]


def _grid_cells(row: dict[str, Any]) -> list[str]:
    sizes = " ".join(f"{name}={size:,}" for name, size in row["sizes"].items()) or "no cache"
    figures = [f"{1000 * row['usd_per_request']:.4f}", f"{row['ttft_mean_s']:.4f}", f"{row['token_hit_rate']:.1%}"]
    return ["*" if row["pareto"] else "", sizes, *figures]
