"""``kvtier cost``: what a cached token costs beside a computed one."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from kvtier.commands.durations import duration_s, durations_s, human_s
from kvtier.commands.output import add_json, say, table, write_json
from kvtier.commands.profiles import add_profile_arguments, profile_of
from kvtier.commands.sizes import at_least_one
from kvtier.econ.hardware import TIER_NAMES
from kvtier.econ.ledger import Hold, Ledger, Row, make_ledger
from kvtier.econ.prices import ListPrice, find_prices, load_prices
from kvtier.errors import ConfigError

HELP = "say what a cached token costs beside a computed one, per tier, and for how long to keep it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See ``kvtier.cli``."""
    add_profile_arguments(parser, required=True)
    parser.add_argument("--tier", action="append", choices=TIER_NAMES, help="only this one; may be repeated")
    parser.add_argument(
        "--prompt-tokens", type=_counts, default=[8192, 65536], metavar="N,...", help="default: 8192,65536"
    )
    parser.add_argument(
        "--reuse", type=_counts, default=[1, 2, 10], metavar="K,...", help="hits a write serves: 1,2,10"
    )
    parser.add_argument("--hold", type=durations_s, default=[300.0], metavar="T,...", help="held for them: 5min")
    parser.add_argument("--request-time", type=duration_s, default=10.0, metavar="T", help="load to last word: 10s")
    parser.add_argument("--list-price", action="append", metavar="NAME", help="provider, model or provider/model; all")
    parser.add_argument("--prices-file", type=Path, metavar="FILE", help="TOML with list prices of your own")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also draw it there (needs matplotlib)")
    add_json(parser)


def _counts(text: str) -> list[int]:
    return [at_least_one(part) for part in text.split(",")]


def run(args: argparse.Namespace) -> int:
    """See ``kvtier.cli``."""
    _check_plot(args.plot)
    ledger = make_ledger(
        profile_of(args),
        prompt_tokens=args.prompt_tokens,
        reuses=args.reuse,
        holds_s=args.hold,
        tiers=args.tier,
        request_s=args.request_time,
        prices=_prices(args),
    )
    say(_text(ledger), args.json)
    if args.plot is not None:
        from kvtier.commands.cost_plot import draw

        draw(ledger, args.plot)
    write_json(ledger.as_dict(), args.json)
    return 0


def _check_plot(target: Path | None) -> None:
    if target is not None and (target.is_dir() or not target.absolute().parent.is_dir()):
        raise ConfigError(f"--plot: {str(target)!r} is not a file in a directory that exists")


def _prices(args: argparse.Namespace) -> list[ListPrice]:
    prices = load_prices(args.prices_file)
    if not args.list_price:
        return list(prices.values())
    return list({price.name: price for name in args.list_price for price in find_prices(name, prices)}.values())


def _text(ledger: Ledger) -> str:
    profile = ledger.profile
    lengths = dict.fromkeys(row.prompt_tokens for row in ledger.rows)
    parts = [
        f"{profile.name}: {profile.bytes_per_token:,} bytes of KV per token in {profile.kv_dtype}"
        + (f", {profile.window_bytes / 1e6:,.1f} MB more per sequence in windows" if profile.window_bytes else "")
        + f"\n{profile.source}, {profile.date}; {profile.machine or 'no machine in particular'}",
        *(_rows_text(ledger, tokens) for tokens in lengths),
        _holds_text(ledger.holds),
        _losses_text(ledger),
        _market_text(ledger),
        _inputs_text(ledger),
    ]
    return "\n\n".join(part for part in parts if part)


def _rows_text(ledger: Ledger, tokens: int) -> str:
    rows = [row for row in ledger.rows if row.prompt_tokens == tokens]
    columns = ("tier", "medium", "held", "hits", "read", "write", "rent", "hit", "stall", "of a miss", "saves", "")
    return _head(ledger, rows) + "\n" + table(columns, [_cells(row) for row in rows])


def _head(ledger: Ledger, rows: list[Row]) -> str:
    """What a recompute of one length takes and costs, and its energy where that is known."""
    first = rows[0]
    slow, speed, fast = (
        first.prompt_tokens / s for s in reversed(ledger.profile.prefill_band_s(0, first.prompt_tokens))
    )
    parts = [
        f"prompt of {first.prompt_tokens:,} tokens: computed at {speed:,.0f} tokens/s ({slow:,.0f} to {fast:,.0f})",
        "longer than any that was measured" if first.extrapolated else "",
        f"{_usd(first.recompute_usd)} USD/Mtok",
        f"memory during {human_s(ledger.request_s)} of request {_usd(first.occupancy_usd)}",
    ]
    if first.recompute_kj is not None:
        reads = {row.tier: row.read_kj for row in rows if row.read_kj is not None}
        parts += [f"{first.recompute_kj:.0f} kJ/Mtok", *(f"{tier} read {kj:.2g} kJ" for tier, kj in reads.items())]
    return ", ".join(part for part in parts if part)


def _cells(row: Row) -> tuple[str, ...]:
    money = (row.read_usd, row.write_usd, row.rent_usd, row.hit_usd, row.stall_usd)
    return (
        row.tier,
        row.medium,
        human_s(row.hold_s),
        str(row.reuses),
        *map(_usd, money),
        f"{row.share:.1%} to {row.share_stalled:.1%}",
        _usd(row.saves_usd),
        row.verdict,
    )


def _usd(value: float) -> str:
    return f"{value:.4f}" if abs(value) >= 0.00005 or value == 0 else f"{value:.1e}"


def _holds_text(holds: tuple[Hold, ...]) -> str:
    head = (
        "tier",
        "medium",
        "prompt",
        "USD/Mtok-h",
        "rent = recompute",
        "rent = saving",
        "over next tier",
        "stalled",
        "least hits",
    )
    rows = [
        (
            hold.tier,
            hold.medium,
            f"{hold.prompt_tokens:,}",
            f"{hold.rent_usd_per_hour:.3g}",
            human_s(hold.recompute_s),
            human_s(hold.saving_s),
            human_s(hold.over_next_s),
            human_s(hold.over_next_stalled_s),
            f"{hold.least_reuses:.2f}",
        )
        for hold in holds
    ]
    return "how long to keep it: drop it if its next use is expected later\n" + table(head, rows)


def _losses_text(ledger: Ledger) -> str:
    """Where the cache loses, in one line a kind of loss; or that it nowhere does."""
    found = Counter((row.verdict, row.tier, row.prompt_tokens) for row in ledger.rows)
    lines = []
    for (verdict, tier, tokens), count in found.items():
        if verdict == "saves":
            continue
        rows = [row for row in ledger.rows if (row.verdict, row.tier, row.prompt_tokens) == (verdict, tier, tokens)]
        cases = ", ".join(f"{row.reuses} hits in {human_s(row.hold_s)}" for row in rows[:4]) + (
            ", ..." if count > 4 else ""
        )
        lines.append(f"  {verdict}: {tier} at {tokens:,} tokens: {cases}")
    slow = dict.fromkeys(
        (row.tier, row.prompt_tokens, round(row.speed_up, 2)) for row in ledger.rows if row.speed_up < 1
    )
    lines += [f"  slower than computing: {tier} at {tokens:,} tokens, {ratio}x" for tier, tokens, ratio in slow]
    return "where the cache loses\n" + "\n".join(lines) if lines else "the cache loses in none of these cases"


def _market_text(ledger: Ledger) -> str:
    """List prices by share of the input price, and how many rows each would pay for."""
    if not ledger.prices:
        return ""
    by_share: dict[str, list[ListPrice]] = {}
    for price in ledger.prices:
        by_share.setdefault(f"{price.share:.1%}", []).append(price)
    rows = [
        (
            text,
            f"{sum(row.share <= prices[0].share for row in ledger.rows)} of {len(ledger.rows)}",
            f"{sum(row.share_stalled <= prices[0].share for row in ledger.rows)}",
            ", ".join(price.name for price in prices),
        )
        for text, prices in by_share.items()
    ]
    head = "a cached token's price as a share of an input token's: at cost here " + _at_cost(ledger)
    return head + "\n" + table(("list", "rows it covers", "stalled", "asked by"), rows) + "\n" + _absolute(ledger)


def _at_cost(ledger: Ledger) -> str:
    tiers = {row.tier: [other for other in ledger.rows if other.tier == row.tier] for row in ledger.rows}
    return ", ".join(
        f"{tier} {min(row.share for row in rows):.1%} to {max(row.share_stalled for row in rows):.1%}"
        for tier, rows in tiers.items()
    )


def _absolute(ledger: Ledger) -> str:
    """The same without shares: list prices contain a margin on input that costs do not."""
    asked = [price.cached_read.value for price in ledger.prices if price.cached_read is not None]
    costs = [row.hit_usd for row in ledger.rows]
    if not asked:
        return ""
    return (
        f"in USD/Mtok a cached token is listed at {min(asked):g} to {max(asked):g}, of models of all sizes; "
        f"at cost it is {_usd(min(costs))} to {_usd(max(costs))} here"
    )


def _inputs_text(ledger: Ledger) -> str:
    rows = [
        (name, f"{figure.value:g} {figure.unit}", figure.kind, figure.date, figure.source)
        for name, figure in ledger.figures.items()
    ]
    return "inputs\n" + table(("", "", "kind", "date", "source"), rows).lstrip("\n")
