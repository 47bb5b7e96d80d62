"""``kvtier bill``: what providers would charge for the same traffic."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kvtier.commands.output import add_json, say, table, write_json
from kvtier.commands.traces import add_trace_arguments, trace_of, warn_of_skipped
from kvtier.econ.billing.bills import Bill, Charge, bills
from kvtier.econ.billing.breakeven import most_pings
from kvtier.econ.billing.calls import Call, calls_of_trace
from kvtier.econ.billing.conversation import calls_of_file, is_conversation
from kvtier.econ.billing.marking import MARKINGS, mark_growing
from kvtier.econ.billing.strategies import keep_alive, warm_up
from kvtier.econ.billing.tariffs import Tariff, check_price, chosen, tariffs
from kvtier.errors import ConfigError

HELP = "bill the same traffic under the caching rules and list prices of API providers"

_HEAD = ("provider", "model", "plan", "hit", "read $", "write $", "uncached $", "storage $", "total $", "no cache $")
_SHOWN_CALLS = 40

Traffic = Callable[[], Iterable[Call]]
"""Goes through the traffic from its start."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See ``kvtier.cli``."""
    add_trace_arguments(parser)
    which = parser.add_argument_group("tariffs")
    which.add_argument("--provider", action="append", default=[], metavar="NAME", help="only this one; may be repeated")
    which.add_argument(
        "--model", action="append", default=[], metavar="NAME", help="(default: the first of each provider)"
    )
    which.add_argument("--tariffs", type=Path, metavar="FILE", help="rules and prices of your own (docs/billing.md)")
    client = parser.add_argument_group("what the client does, and what nobody documents")
    client.add_argument(
        "--marks",
        choices=tuple(MARKINGS),
        default="shared",
        help="where it sets breakpoints if the traffic has none: on the last segment, or also where the call parts "
        "from earlier ones (default: %(default)s)",
    )
    client.add_argument("--keep-alive", action="store_true", help="ping what would expire, as often as can pay")
    client.add_argument("--ping-margin", type=_number, default=5.0, metavar="S", help="before it does (default: 5)")
    client.add_argument("--warm-up", action="store_true", help="send one call ahead of calls that come together")
    client.add_argument(
        "--first-token", type=_number, default=1.0, metavar="S", help="from call to answer, assumed (default: 1)"
    )
    client.add_argument(
        "--hit-probability", type=_number, default=1.0, metavar="P", help="of landing where the prefix is, if routed"
    )
    client.add_argument("--seed", type=int, default=0, metavar="N", help="of those draws (default: 0)")
    parser.add_argument("--calls", action="store_true", help="also every call: the first to read, all in the JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also bars of the shares, as PNG, SVG or PDF")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """See ``kvtier.cli``."""
    if args.plot is not None and not args.plot.absolute().parent.is_dir():
        raise ConfigError(f"--plot: {args.plot} is not in a directory that exists")
    every = tariffs(args.tariffs)
    under = chosen(every, args.provider, args.model)
    traffic = _traffic(args, {name for tariff in [*every, *tariffs()] for name in tariff.lifetimes})
    made = _billed(traffic, under, args)
    say(_text(made, args), args.json)
    if args.plot is not None:
        from kvtier.commands.bill_plot import plot

        plot(made, args.plot, title=str(args.trace))
    write_json({"trace": str(args.trace), "options": _options(args), "bills": [_as_dict(b) for b in made]}, args.json)
    return 0


def _traffic(args: argparse.Namespace, lifetimes: set[str]) -> Traffic:
    """The calls of the file that the command line names, a conversation's or a trace's."""
    path = Path(args.trace)
    if path.is_file() and args.format is None and is_conversation(path):
        return lambda: calls_of_file(path, lifetimes)
    trace = trace_of(args)

    def calls() -> Iterator[Call]:
        yield from calls_of_trace(trace, trace.block_tokens)
        warn_of_skipped(trace)

    return calls


def _billed(traffic: Traffic, under: list[Tariff], args: argparse.Namespace) -> list[Bill]:
    """One bill a tariff, in their order; tariffs for which the client does the same share a pass."""
    groups: dict[tuple[object, ...], list[Tariff]] = {}
    for tariff in under:
        groups.setdefault(_habits(tariff, args), []).append(tariff)
    made: dict[str, Bill] = {}
    for group in groups.values():
        found = bills(
            _as_sent(traffic(), group[0], args),
            group,
            first_token_s=args.first_token,
            hit_probability=args.hit_probability,
            seed=args.seed,
            keep_charges=args.calls,
        )
        made |= {bill.tariff.name: bill for bill in found}
    return [made[tariff.name] for tariff in under]


def _habits(tariff: Tariff, args: argparse.Namespace) -> tuple[object, ...]:
    """What a client's behaviour depends on; equal for two tariffs that see the same calls."""
    rules = tariff.rules
    habits: list[object] = [rules.made_apart, rules.minimum_tokens if rules.made_apart else None]
    if args.keep_alive or args.warm_up:
        habits += [rules.lifetime_s, rules.minimum_tokens, rules.entries, _pings(tariff)]
    return tuple(habits)


def _as_sent(calls: Iterable[Call], tariff: Tariff, args: argparse.Namespace) -> Iterable[Call]:
    """The calls as a client sends them that knows the tariff."""
    rules = tariff.rules
    if rules.made_apart:  # neither refreshed by a use nor late for a call beside it: no strategy helps
        return mark_growing(calls, minimum_tokens=rules.minimum_tokens)
    calls, marked = MARKINGS[args.marks](calls), rules.entries == "marks"
    least = max(rules.minimum_tokens, rules.unit_tokens)
    if args.warm_up:
        calls = warm_up(
            calls, within_s=args.first_token, lifetime_s=rules.lifetime_s, minimum_tokens=least, marked=marked
        )
    if args.keep_alive:
        every_s = rules.lifetime_s - args.ping_margin
        calls = keep_alive(calls, every_s=every_s, limit=_pings(tariff), minimum_tokens=least, marked=marked)
    return calls


def _pings(tariff: Tariff) -> int:
    return most_pings(write=tariff.write_multiple, read=tariff.read_multiple)


def _text(made: list[Bill], args: argparse.Namespace) -> str:
    first = made[0]
    sums = f"{first.calls - first.added_calls:,} calls, {first.input_tokens:,} input tokens"
    parts = [
        f"{args.trace}: {sums}, {first.output_tokens:,} output tokens",
        table(
            (*_HEAD, "share", *(("added",) if args.keep_alive or args.warm_up else ())), [_row(b, args) for b in made]
        ),
        _notes(made, args),
    ]
    if args.calls:
        parts[2:2] = [f"{bill.tariff.name}\n{_call_table(bill.charges)}" for bill in made]
    return "\n\n".join(parts)


def _row(bill: Bill, args: argparse.Namespace) -> tuple[str, ...]:
    tariff = bill.tariff
    sums = (bill.read_usd, bill.written_usd, bill.uncached_usd, bill.storage_usd, bill.input_usd, bill.no_cache_usd)
    added = (f"{bill.added_calls:,} for {_usd(bill.added_usd)}",) if args.keep_alive or args.warm_up else ()
    return (
        tariff.provider,
        tariff.model,
        tariff.plan + ("*" if tariff.assumed else ""),
        f"{bill.hit_rate:.1%}",
        *map(_usd, sums),
        f"{bill.share:.3f}",
        *added,
    )


def _call_table(charges: list[Charge]) -> str:
    rows = [
        (
            f"{charge.time_s:g}",
            charge.purpose,
            f"{charge.input_tokens:,}",
            f"{charge.read_tokens:,}",
            f"{charge.written_tokens:,}",
            f"{charge.uncached_tokens:,}",
            f"{charge.input_usd:.6f}",
        )
        for charge in charges[:_SHOWN_CALLS]
    ]
    text = table(("time, s", "what", "input", "read", "written", "uncached", "$"), rows)
    return text + (f"\nand {len(charges) - len(rows):,} more; --json has all" if len(charges) > len(rows) else "")


def _usd(amount: float) -> str:
    """Three digits or so, cents for what is large."""
    digits = 2 if amount >= 10 or amount == 0 else min(8, 2 - math.floor(math.log10(amount)))
    return f"{amount:,.{digits}f}"


def _notes(made: list[Bill], args: argparse.Namespace) -> str:
    """What the figures are: whose, of when, and what somebody assumed."""
    lines = [
        "List prices, US$; prompts only, answers cost the same with and without a cache. share: total over no cache.",
        f"Assumed: where the traffic does not say, answers begin {args.first_token:g} s after their call.",
        f"Assumed: a routed call finds its prefix with probability {args.hit_probability:g}.",
        f"Breakpoints, where the traffic has none: {args.marks}.",
    ]
    lines += dict.fromkeys(f"{b.tariff.provider} {b.tariff.plan}: {b.tariff.note}" for b in made if b.tariff.note)
    starred = dict.fromkeys(
        f"* {b.tariff.provider} {b.tariff.plan}: not documented, assumed: {', '.join(b.tariff.assumed)}"
        for b in made
        if b.tariff.assumed
    )
    sources = dict.fromkeys(f"  {source.title} ({source.date})" for bill in made for source in bill.tariff.sources)
    return "\n".join([*lines, *starred, "Sources:", *sources])


def _options(args: argparse.Namespace) -> dict[str, Any]:
    names = ("marks", "keep_alive", "ping_margin", "warm_up", "first_token", "hit_probability", "seed")
    return {name: getattr(args, name) for name in names}


def _as_dict(bill: Bill) -> dict[str, Any]:
    tariff = bill.tariff
    sums = asdict(bill)
    del sums["tariff"], sums["charges"]
    return {
        "provider": tariff.provider,
        "model": tariff.model,
        "plan": tariff.plan,
        "prices": {k: v for k, v in asdict(tariff.prices).items() if v is not None and v != math.inf},
        "write_usd_per_mtok": tariff.lifetimes[tariff.plan].write_usd_per_mtok,
        "rules": asdict(tariff.rules),
        "assumed": list(tariff.assumed),
        "note": tariff.note,
        "sources": [asdict(source) for source in tariff.sources],
        **sums,
        "input_usd": bill.input_usd,
        "hit_rate": bill.hit_rate,
        "share": bill.share,
        "charges": [charge._asdict() for charge in bill.charges],
    }


def _number(text: str) -> float:
    try:
        return check_price("it", float(text))
    except (ValueError, ConfigError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 0") from None
