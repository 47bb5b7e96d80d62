"""``kvtier simulate``: what would have been hit, and what it would have cost."""

from __future__ import annotations

import argparse
from typing import Any

from kvtier.commands.output import add_json, say, table, write_json
from kvtier.commands.plots import add_plot, check_plot
from kvtier.commands.replay_plot import History
from kvtier.commands.replays import add_tier_arguments, profile_asked_for, replayed, settings_of
from kvtier.commands.traces import add_trace_arguments, trace_of, warn_of_skipped

HELP = "replay a request trace through tiers and policies: hits, bytes moved, time to first token, cost"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See ``kvtier.cli``."""
    add_trace_arguments(parser)
    add_tier_arguments(parser)
    add_plot(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """See ``kvtier.cli``."""
    check_plot(args.plot)
    trace, profile = trace_of(args), profile_asked_for(args)
    block_bytes = None if profile is None else trace.block_tokens * profile.bytes_per_token
    settings = settings_of(args, block_bytes)
    history = History(settings, trace.block_tokens) if args.plot is not None else None
    result = replayed(trace, settings, profile, history)
    warn_of_skipped(trace)
    say(_text(result), args.json)
    if history is not None:
        history.draw(args.plot, result)
    write_json(result, args.json)
    return 0


def _text(result: dict[str, Any]) -> str:
    of = result["block_references"]
    rates = ", ".join(f"{what}s {result[f'{what}_hit_rate']:.1%}" for what in ("block", "prefix", "token"))
    size = f"{of:,} references to blocks of {result['block_tokens']:,} tokens"
    lines = [
        f"{result['trace']}: {result['requests']:,} requests, {size}",
        f"hit rates: {rates.replace('prefixs', 'prefixes')}",
        "",
        table(
            ("tier", "capacity", "policy", "hits", "of all", "read", "written", "evicted", "expired", "lost"),
            [_tier_cells(tier, of) for tier in result["tiers"]],
        ),
    ]
    if "cost" in result:
        lines += ["", _cost_text(result)]
    return "\n".join(lines)


def _tier_cells(tier: dict[str, Any], of: int) -> list[str]:
    counts = [f"{tier[f'{what}_blocks']:,}" for what in ("read", "written", "evicted", "expired", "lost")]
    share = f"{tier['block_hits'] / max(1, of):.1%}"
    return [tier["name"], f"{tier['capacity_blocks']:,}", tier["policy"], f"{tier['block_hits']:,}", share, *counts]


def _cost_text(result: dict[str, Any]) -> str:
    cost = result["cost"]
    return (
        f"on {result['profile']}:\n"
        f"time to first token: mean {cost['ttft_mean_s']:.3f} s, median {cost['ttft_p50_s']:.3f} s, "
        f"99 % within {cost['ttft_p99_s']:.3f} s; without a cache mean {cost['recompute_ttft_mean_s']:.3f} s\n"
        f"a request costs {cost['usd_per_request']:.6f} USD, without a cache {cost['recompute_usd_per_request']:.6f}: "
        f"compute {cost['compute_usd']:.4f}, reads {cost['read_usd']:.4f}, wear {cost['wear_usd']:.4f}, "
        f"rent {cost['rent_usd']:.4f} USD in all"
    )
