"""How every command that makes a ledger lets its user say for which cases."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from kvtier.commands.durations import duration_s, durations_s
from kvtier.commands.sizes import at_least_one
from kvtier.econ.ledger import Ledger, make_ledger
from kvtier.econ.prices import ListPrice, find_prices, load_prices
from kvtier.econ.profile import Profile


def add_case_arguments(parser: argparse.ArgumentParser, lengths: str) -> None:
    """Give a command its prompt lengths, reuses, holding times and list prices.

    Args:
        parser: Of the command.
        lengths: What its default prompt lengths are, in words.
    """
    parser.add_argument("--prompt-tokens", type=_counts, metavar="N,...", help=f"default: {lengths}")
    parser.add_argument(
        "--reuse", type=_counts, default=[1, 2, 10], metavar="K,...", help="hits a write serves: 1,2,10"
    )
    parser.add_argument("--hold", type=durations_s, default=[300.0], metavar="T,...", help="held for them: 5min")
    parser.add_argument("--request-time", type=duration_s, default=10.0, metavar="T", help="load to last word: 10s")
    parser.add_argument("--list-price", action="append", metavar="NAME", help="provider, model or provider/model; all")
    parser.add_argument("--prices-file", type=Path, metavar="FILE", help="TOML with list prices of your own")


def _counts(text: str) -> list[int]:
    return [at_least_one(part) for part in text.split(",")]


def ledger_of(
    args: argparse.Namespace, profile: Profile, lengths: Sequence[int], tiers: Sequence[str] | None = None
) -> Ledger:
    """The ledger of those cases.

    Args:
        args: The command line.
        profile: The machine and the model.
        lengths: Prompt lengths where the command line names none.
        tiers: Names; None takes all that the profile has.

    Raises:
        ConfigError: A list price is unknown, or the file of prices is refused.
        ProfileError: The profile has no such tier.
    """
    return make_ledger(
        profile,
        prompt_tokens=args.prompt_tokens or lengths,
        reuses=args.reuse,
        holds_s=args.hold,
        tiers=tiers,
        request_s=args.request_time,
        prices=_prices(args),
    )


def _prices(args: argparse.Namespace) -> list[ListPrice]:
    prices = load_prices(args.prices_file)
    if not args.list_price:
        return list(prices.values())
    return list({price.name: price for name in args.list_price for price in find_prices(name, prices)}.values())
