"""``kvtier context``: one chat under each context policy, against a cache that forgets."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from kvtier.commands.output import add_json, add_plot, say, table, write_json
from kvtier.context.choice import POLICIES, make_policy
from kvtier.context.formulas import chunked_cost, hysteresis_cost, sliding_cost
from kvtier.context.prices import Prices
from kvtier.errors import ConfigError
from kvtier.sim.chat import EVENTS, GAPS, ChatSettings, Turn, play, summary

HELP = "simulate a chat under each context policy: what a turn costs, what the cache serves, how much context is kept"

_NOTE = """Costs are in prices of one uncached input token; replies are not priced. The chat is made up from the
settings and the seed, the same for every policy. A formula stands beside what has one, for steady chats."""

_HEAD = ("policy", "cost/turn", "hit rate", "mean context", "cold turns", "once full, by formula")

#: What each setting of a chat is called on the command line, its kind, and what it says.
_CHAT: tuple[tuple[str, str, type, str], ...] = (
    ("turns", "turns", int, "requests in the chat"),
    ("head", "head_tokens", int, "tokens of the stable head: system and tools (S)"),
    ("user-tokens", "user_tokens", int, "tokens of a user's message"),
    ("reply-tokens", "reply_tokens", int, "tokens of a reply"),
    ("spread", "spread", float, "share by which lengths vary, up and down"),
    ("gap", "gap_s", float, "mean seconds between requests"),
    ("gap-sigma", "gap_sigma", float, "of a lognormal gap"),
    ("idle-share", "idle_share", float, "share of gaps that last --idle seconds instead"),
    ("idle", "idle_s", float, "seconds of an idle gap"),
    ("edit", "edit", float, "share of turns before which an older message is changed in place"),
    ("delete", "delete", float, "share of turns before which an older turn is taken out"),
    ("regenerate", "regenerate", float, "share of turns that ask for the last reply again"),
    ("branch", "branch", float, "share of turns that go on from some turns ago"),
    ("switch", "switch", float, "share of turns that return to another branch"),
    ("depth", "depth", float, "how many turns back those reach, on average"),
    ("seed", "seed", int, "of the chat"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See ``kvtier.cli``."""
    parser.epilog = _NOTE
    parser.add_argument(
        "--policy", nargs="+", default=POLICIES, metavar="NAME", help=f"which, of {', '.join(POLICIES)} (default: all)"
    )
    parser.add_argument("--high", type=int, default=32_000, metavar="TOKENS", help="limit (H; default: %(default)s)")
    parser.add_argument(
        "--low", type=int, default=16_000, metavar="TOKENS", help="what a cut leaves (L; default: %(default)s)"
    )
    parser.add_argument(
        "--write-price", type=float, default=1.25, metavar="W", help="of an uncached token (default: %(default)s)"
    )
    parser.add_argument(
        "--read-price", type=float, default=0.1, metavar="R", help="of a cached token (default: %(default)s)"
    )
    parser.add_argument(
        "--ttl", type=float, default=300, metavar="S", help="seconds that a cache lasts unread (default: %(default)s)"
    )
    parser.add_argument("--gap-kind", choices=GAPS, default="constant", help="how gaps are spread (default: constant)")
    preset = ChatSettings()
    for option, name, kind, what in _CHAT:
        value = getattr(preset, name)
        parser.add_argument(
            f"--{option}", dest=name, type=kind, default=value, metavar="N", help=f"{what} (default: {value:g})"
        )
    parser.add_argument(
        "--replies-uncached", action="store_true", help="the engine does not keep the KV of the replies it generates"
    )
    parser.add_argument("--stateless", action="store_true", help="every policy forgets its last cut after every turn")
    add_plot(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """See ``kvtier.cli``."""
    settings = ChatSettings(gap=args.gap_kind, **{field: getattr(args, field) for _, field, _, _ in _CHAT})
    prices = Prices(write=args.write_price, read=args.read_price)
    names = list(dict.fromkeys(args.policy))
    for name in names:
        make_policy(name, args.high, args.low, prices)
    played = {name: _play(name, args, settings, prices) for name in names}
    rows = {name: summary(turns) for name, turns in played.items()}
    for name, row in rows.items():
        row["formula_cost"] = _formula_cost(name, args, settings, prices)
    if args.plot:
        from kvtier.commands.context_plot import draw

        draw(_by_turn(played), args.plot, high=args.high, low=args.low)
    say(_text(args, settings, rows), args.json)
    write_json(_report(args, settings, rows, played), args.json)
    return 0


def _formula_cost(name: str, args: argparse.Namespace, settings: ChatSettings, prices: Prices) -> float | None:
    """Cost of a turn once the limit has been reached, by formula; None where no formula holds."""
    restless = args.stateless or args.gap_kind != "constant" or settings.gap_s >= args.ttl
    if restless or any(getattr(settings, event) for event in (*EVENTS, "idle_share")):
        return None
    if not settings.head_tokens <= args.low < args.high:
        return None
    if name == "sliding":
        return sliding_cost(head_tokens=settings.head_tokens, high_tokens=args.high, prices=prices)
    shared: dict[str, Any] = {
        "head_tokens": settings.head_tokens,
        "high_tokens": args.high,
        "turn_tokens": settings.user_tokens + settings.reply_tokens,
        "new_tokens": settings.user_tokens + (settings.reply_tokens if args.replies_uncached else 0),
        "prices": prices,
    }
    if name == "chunked":
        return chunked_cost(chunk_tokens=args.high - args.low, **shared)
    return hysteresis_cost(low_tokens=args.low, **shared) if name == "hysteresis" else None


def _play(name: str, args: argparse.Namespace, settings: ChatSettings, prices: Prices) -> list[Turn]:
    try:
        return play(
            lambda: make_policy(name, args.high, args.low, prices),
            settings,
            ttl_s=args.ttl,
            prices=prices,
            caches_replies=not args.replies_uncached,
            stateless=args.stateless,
        )
    except ConfigError as exc:
        raise ConfigError(f"{name}: {exc}") from exc


def _text(args: argparse.Namespace, settings: ChatSettings, rows: dict[str, dict[str, Any]]) -> str:
    about = (
        f"{settings.turns:,} turns of {settings.user_tokens:,} + {settings.reply_tokens:,} tokens, "
        f"head {settings.head_tokens:,}, limits {args.high:,} and {args.low:,}, "
        f"a cached token {args.read_price:g}, another {args.write_price:g}, "
        f"cache of {args.ttl:g} s, {args.gap_kind} gaps of {settings.gap_s:g} s"
    )
    events = [f"{event} {getattr(settings, event):g}" for event in (*EVENTS, "idle_share") if getattr(settings, event)]
    notes = [*events, *(["no state between turns"] if args.stateless else [])]
    cells = [
        (
            name,
            f"{row['cost_per_turn']:,.0f}",
            f"{row['hit_rate']:.3f}",
            f"{row['mean_context_tokens']:,.0f}",
            f"{row['cold_turns']:,} ({row['cold_share']:.1%})",
            "-" if row["formula_cost"] is None else f"{row['formula_cost']:,.0f}",
        )
        for name, row in rows.items()
    ]
    return "\n".join([", ".join([about, *notes]), table(_HEAD, cells)])


def _by_turn(played: dict[str, list[Turn]]) -> dict[str, dict[str, list[float]]]:
    return {name: _columns(turns) for name, turns in played.items()}


def _columns(turns: Sequence[Turn]) -> dict[str, list[float]]:
    return {name: [getattr(turn, name) for turn in turns] for name in ("cost", "tokens", "live_tokens")}


def _report(
    args: argparse.Namespace,
    settings: ChatSettings,
    rows: dict[str, dict[str, Any]],
    played: dict[str, list[Turn]],
) -> dict[str, Any]:
    limits = {"high_tokens": args.high, "low_tokens": args.low, "ttl_s": args.ttl}
    choices = {"caches_replies": not args.replies_uncached, "stateless": args.stateless}
    chat = {field.name: getattr(settings, field.name) for field in fields(settings)}
    prices = asdict(Prices(write=args.write_price, read=args.read_price))
    by_turn = _by_turn(played)
    policies = [{"policy": name, **row, "by_turn": by_turn[name]} for name, row in rows.items()]
    return {"chat": chat, "prices": prices, **limits, **choices, "policies": policies}
