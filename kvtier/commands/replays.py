"""How every command that replays a trace lets its user say over which tiers, and what it says of the result."""

from __future__ import annotations

import argparse
from typing import Any

from kvtier.commands.counting import counted
from kvtier.commands.profiles import add_profile_arguments, profile_of
from kvtier.commands.replay_plot import History
from kvtier.config import parse_duration
from kvtier.econ.profile import Profile
from kvtier.errors import ConfigError
from kvtier.policy.registry import ADMISSIONS, POLICIES
from kvtier.sim.costs import Bill
from kvtier.sim.replay import Replay, rare_collections
from kvtier.sim.settings import Settings, TierSettings, parse_capacity, parse_tier
from kvtier.sim.tally import rates, tier_rows
from kvtier.sim.trace import Trace


def add_tier_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a command its tiers, their policies, and how blocks move between them."""
    tiers = parser.add_argument_group("the tiers")
    tiers.add_argument(
        "--capacity-blocks", metavar="N", help="one tier of N blocks, or of bytes such as '40 GiB' with --model"
    )
    tiers.add_argument(
        "--tier",
        action="append",
        metavar="NAME=CAPACITY[:POLICY][:ttl=T][:refresh=no][:admit=NAME]",
        help="device, host, disk or remote, fastest first; once for each",
    )
    tiers.add_argument("--policy", metavar="NAME", help=f"of tiers that name none: {' '.join(POLICIES)} (lru)")
    tiers.add_argument("--admission", metavar="NAME", help=f"of tiers that name none: {' '.join(ADMISSIONS)} (all)")
    tiers.add_argument("--ttl", metavar="T", help="of tiers that name none: 5min, 1h, 1d (none)")
    tiers.add_argument("--no-refresh", action="store_true", help="time to live runs from when a block was stored")
    tiers.add_argument(
        "--write", choices=("on_eviction", "on_insertion"), default="on_eviction", help="to the last tier"
    )
    tiers.add_argument(
        "--copies",
        choices=("disk", "inclusive", "exclusive"),
        default="disk",
        help="tiers that keep a block that was brought up: disk and remote, all, none (default: %(default)s)",
    )
    tiers.add_argument("--no-promote", action="store_true", help="leave hits where they are")
    tiers.add_argument(
        "--comparison",
        action="store_true",
        help="every reference is a request of its own without a prefix, as caches of unrelated objects see it",
    )
    add_profile_arguments(parser, required=False)


def profile_asked_for(args: argparse.Namespace) -> Profile | None:
    """The profile that the command line names; None if it names none."""
    return profile_of(args) if args.model or args.config or args.profile else None


def settings_of(args: argparse.Namespace, block_bytes: int | None) -> Settings:
    """The tiers that the command line names.

    Raises:
        ConfigError: None, both ways at once, or something that cannot be.
    """
    if bool(args.tier) == bool(args.capacity_blocks):
        raise ConfigError(
            "say how large the cache is: --capacity-blocks N for one tier, or --tier NAME=CAPACITY for each"
        )
    common = {
        **({"policy": args.policy} if args.policy else {}),
        **({"admission": args.admission} if args.admission else {}),
        **({"ttl_s": parse_duration(args.ttl)} if args.ttl else {}),
        **({"refresh": False} if args.no_refresh else {}),
    }
    if args.capacity_blocks:
        capacity = parse_capacity(args.capacity_blocks, block_bytes)
        tiers = [TierSettings(name="device", capacity_blocks=capacity, **common)]
    else:
        tiers = [parse_tier(text, block_bytes, common) for text in args.tier]
    return Settings(
        tiers=tiers,
        write=args.write,
        promote=not args.no_promote,
        copies=args.copies,
        whole_requests=not args.comparison,
    )


def replayed(trace: Trace, settings: Settings, profile: Profile | None, history: History | None) -> dict[str, Any]:
    """Replay a trace, counting on the terminal; what it found, for JSON.

    Args:
        trace: What is asked for.
        settings: Over which tiers.
        profile: What it takes and costs; None leaves that out.
        history: Watches it.
    """
    from kvtier.sim.costs import Meter, speeds

    meter = None if profile is None else Meter(profile, settings, trace.block_tokens)
    replay = Replay(trace, settings, **({} if profile is None else speeds(profile, settings, trace.block_tokens)))
    with counted("requests") as count, rare_collections():
        for served in replay.serve():
            count()
            if meter is not None:
                meter.watch(served)
            if history is not None:
                history.watch(served)
    return _result(trace, replay, profile, None if meter is None else meter.bill(replay.tally))


def _result(trace: Trace, replay: Replay, profile: Profile | None, bill: Bill | None) -> dict[str, Any]:
    tally, settings = replay.tally, replay.settings
    block_bytes = None if profile is None else trace.block_tokens * profile.bytes_per_token
    rows = tier_rows(tally, [tier.name for tier in settings.tiers], block_bytes)
    return {
        "trace": trace.name,
        "block_tokens": trace.block_tokens,
        "requests": tally.requests,
        "block_references": tally.references,
        "block_hits": tally.block_hits,
        "prefix_hits": tally.prefix_hits,
        "input_tokens": tally.input_tokens,
        "token_hits": tally.token_hits,
        **rates(tally),
        "write": settings.write,
        "copies": settings.copies,
        "promote": settings.promote,
        "comparison": not settings.whole_requests,
        "tiers": [
            {
                **row,
                "capacity_blocks": tier.capacity_blocks,
                "policy": tier.policy,
                "admission": tier.admission,
                "ttl_s": tier.ttl_s,
                "held_blocks": replay.placement.used_blocks(number),
            }
            for number, (row, tier) in enumerate(zip(rows, settings.tiers, strict=True))
        ],
        **({} if profile is None or bill is None else {"profile": profile.name, "cost": bill.as_dict()}),
    }
