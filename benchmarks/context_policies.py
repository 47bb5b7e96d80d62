"""What each context policy costs, in simulated chats: the tables of docs/context.md.

    steady      400 turns without edits, a turn a minute; hysteresis at several low limits
    stateless   the same chat from a front end that keeps nothing between turns
    idle        every tenth gap outlasts the cache
    restless    edits, deletions, regenerations, branches; the mean of several seeds

Nothing is measured but the policies' own decisions, so the result is the same on every machine.

    python benchmarks/context_policies.py
    python benchmarks/context_policies.py --json out/context.json --plot out/context.png
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from lib.results import write_json

from kvtier.commands.context_plot import draw
from kvtier.commands.output import table
from kvtier.context import POLICIES, ContextPolicy, Hysteresis, Prices, make_policy
from kvtier.sim.chat import ChatSettings, play, summary

HIGH, LOW = 32_000, 16_000
LOWS = (30_000, 28_000, 24_000, 20_000, LOW, 8_000)
TTL_S, LONG_TTL_S = 300, 3_600
PRICES = Prices(write=1.25, read=0.1)
STEADY = ChatSettings()
IDLE = ChatSettings(idle_share=0.1)
RESTLESS = ChatSettings(turns=800, edit=0.02, delete=0.02, regenerate=0.05, branch=0.05, switch=0.03, spread=0.5)
RESTLESS_LIMITS = (16_000, 8_000)

Row = dict[str, Any]


def main(argv: list[str] | None = None) -> int:
    """Play, print, write JSON and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="chats that a restless row is the mean of")
    parser.add_argument("--json", help="write the report there; - is standard output")
    parser.add_argument("--plot", help="draw the steady chat there, as PNG")
    args = parser.parse_args(argv)
    if args.seeds < 1:
        parser.error(f"--seeds must be at least 1, got {args.seeds}")
    report = measure(args.seeds)
    for name in ("steady", "stateless", "idle", "restless"):
        print(f"\n{name}", file=sys.stderr if args.json == "-" else sys.stdout)
        print(lines(report[name]), file=sys.stderr if args.json == "-" else sys.stdout)
    if args.plot:
        Path(args.plot).parent.mkdir(parents=True, exist_ok=True)
        draw(by_turn(), args.plot, high=HIGH, low=LOW)
    write_json(report, args.json)
    return 0


def measure(seeds: int) -> dict[str, Any]:
    """Every scenario's rows."""
    kept = [name for name in POLICIES if name not in {"append", "sliding"}]
    return {
        "benchmark": "context_policies",
        "high_tokens": HIGH,
        "low_tokens": LOW,
        "restless_limits": RESTLESS_LIMITS,
        "prices": asdict(PRICES),
        "ttl_s": TTL_S,
        "long_ttl_s": LONG_TTL_S,
        "seeds": seeds,
        "chats": {"steady": asdict(STEADY), "idle": asdict(IDLE), "restless": asdict(RESTLESS)},
        "steady": [
            row("append only", of("append")),
            row("sliding", of("sliding")),
            *(row(f"hysteresis to {low:,}", partial(Hysteresis, HIGH, low)) for low in LOWS),
            *(row(name, of(name)) for name in kept if name != "hysteresis"),
        ],
        "stateless": [row(name, of(name), stateless=True) for name in kept],
        "idle": [row(name, of(name), IDLE) for name in POLICIES],
        "restless": [
            restless(name, seeds, ttl_s=ttl_s) | {"ttl_s": ttl_s} for ttl_s in (TTL_S, LONG_TTL_S) for name in POLICIES
        ],
    }


def of(name: str, high: int = HIGH, low: int = LOW) -> Callable[[], ContextPolicy]:
    """Makes a policy."""
    return lambda: make_policy(name, high, low, PRICES)


def row(label: str, make: Callable[[], ContextPolicy], chat: ChatSettings = STEADY, *, stateless: bool = False) -> Row:
    """One policy in one chat."""
    return {"policy": label, **summary(play(make, chat, ttl_s=TTL_S, prices=PRICES, stateless=stateless))}


def restless(name: str, seeds: int, *, ttl_s: float) -> Row:
    """One policy, the mean over chats of several seeds."""
    make = of(name, *RESTLESS_LIMITS)
    done = [summary(play(make, replace(RESTLESS, seed=seed), ttl_s=ttl_s, prices=PRICES)) for seed in range(seeds)]
    numbers = ("cost_per_turn", "hit_rate", "mean_context_tokens", "cold_turns", "cold_share")
    reasons = {
        reason: sum(each["reasons"].get(reason, 0) for each in done) for each in done for reason in each["reasons"]
    }
    return {"policy": name, **{key: sum(each[key] for each in done) / seeds for key in numbers}, "reasons": reasons}


def by_turn() -> dict[str, dict[str, list[float]]]:
    """The steady chat, turn by turn."""
    played = {name: play(of(name), STEADY, ttl_s=TTL_S, prices=PRICES) for name in POLICIES}
    return {
        name: {column: [getattr(turn, column) for turn in turns] for column in ("cost", "tokens", "live_tokens")}
        for name, turns in played.items()
    }


def lines(rows: list[Row]) -> str:
    """A scenario, for people."""
    head = ("policy", "cost/turn", "hit rate", "mean context", "cold turns")
    return table(head, [tuple(cells(each)) for each in rows])


def cells(each: Row) -> list[str]:
    """A row's figures as text."""
    name = each["policy"] + (f", {each['ttl_s']:,} s" if "ttl_s" in each else "")
    figures = [f"{each['cost_per_turn']:,.0f}", f"{each['hit_rate']:.3f}", f"{each['mean_context_tokens']:,.0f}"]
    return [name, *figures, f"{each['cold_share']:.1%}"]


if __name__ == "__main__":
    sys.exit(main())
