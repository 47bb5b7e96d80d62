"""``kvtier cost``: what a cached token costs beside a computed one."""

from __future__ import annotations

import argparse
from pathlib import Path

from kvtier.commands.cases import add_case_arguments, ledger_of
from kvtier.commands.durations import human_s
from kvtier.commands.ledgers import (
    HOLD_HEAD,
    INPUT_HEAD,
    MARKET_HEAD,
    ROW_HEAD,
    absolute,
    at_cost,
    hold_cells,
    input_rows,
    losses,
    market_rows,
    row_cells,
    usd,
)
from kvtier.commands.output import add_json, say, table, write_json
from kvtier.commands.profiles import add_profile_arguments, profile_of
from kvtier.econ.hardware import TIER_NAMES
from kvtier.econ.ledger import Ledger, Row
from kvtier.errors import ConfigError

HELP = "say what a cached token costs beside a computed one, per tier, and for how long to keep it"

LENGTHS = (8192, 65536)
"""Prompt tokens where nobody says others."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See ``kvtier.cli``."""
    add_profile_arguments(parser, required=True)
    parser.add_argument("--tier", action="append", choices=TIER_NAMES, help="only this one; may be repeated")
    add_case_arguments(parser, "8192,65536")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also draw it there (needs matplotlib)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """See ``kvtier.cli``."""
    _check_plot(args.plot)
    ledger = ledger_of(args, profile_of(args), LENGTHS, args.tier)
    say(_text(ledger), args.json)
    if args.plot is not None:
        from kvtier.commands.cost_plot import draw

        draw(ledger, args.plot)
    write_json(ledger.as_dict(), args.json)
    return 0


def _check_plot(target: Path | None) -> None:
    if target is not None and (target.is_dir() or not target.absolute().parent.is_dir()):
        raise ConfigError(f"--plot: {str(target)!r} is not a file in a directory that exists")


def _text(ledger: Ledger) -> str:
    profile = ledger.profile
    lengths = dict.fromkeys(row.prompt_tokens for row in ledger.rows)
    parts = [
        f"{profile.name}: {profile.bytes_per_token:,} bytes of KV per token in {profile.kv_dtype}"
        + (f", {profile.window_bytes / 1e6:,.1f} MB more per sequence in windows" if profile.window_bytes else "")
        + f"\n{profile.source}, {profile.date}; {profile.machine or 'no machine in particular'}",
        *(_rows_text(ledger, tokens) for tokens in lengths),
        _holds_text(ledger),
        _losses_text(ledger),
        _market_text(ledger),
        _inputs_text(ledger),
    ]
    return "\n\n".join(part for part in parts if part)


def _rows_text(ledger: Ledger, tokens: int) -> str:
    rows = [row for row in ledger.rows if row.prompt_tokens == tokens]
    return _head(ledger, rows) + "\n" + table(ROW_HEAD, [row_cells(row) for row in rows])


def _head(ledger: Ledger, rows: list[Row]) -> str:
    """What a recompute of one length takes and costs, and its energy where that is known."""
    first = rows[0]
    slow, speed, fast = (
        first.prompt_tokens / s for s in reversed(ledger.profile.prefill_band_s(0, first.prompt_tokens))
    )
    parts = [
        f"prompt of {first.prompt_tokens:,} tokens: computed at {speed:,.0f} tokens/s ({slow:,.0f} to {fast:,.0f})",
        "longer than any that was measured" if first.extrapolated else "",
        f"{usd(first.recompute_usd)} USD/Mtok",
        f"memory during {human_s(ledger.request_s)} of request {usd(first.occupancy_usd)}",
    ]
    if first.recompute_kj is not None:
        reads = {row.tier: row.read_kj for row in rows if row.read_kj is not None}
        parts += [f"{first.recompute_kj:.0f} kJ/Mtok", *(f"{tier} read {kj:.2g} kJ" for tier, kj in reads.items())]
    return ", ".join(part for part in parts if part)


def _holds_text(ledger: Ledger) -> str:
    rows = [hold_cells(hold) for hold in ledger.holds]
    return "how long to keep it: drop it if its next use is expected later\n" + table(HOLD_HEAD, rows)


def _losses_text(ledger: Ledger) -> str:
    lines = [f"  {line}" for line in losses(ledger)]
    return "\n".join(("where the cache loses", *lines)) if lines else "the cache loses in none of these cases"


def _market_text(ledger: Ledger) -> str:
    if not ledger.prices:
        return ""
    head = f"a cached token's price as a share of an input token's: at cost here {at_cost(ledger.rows)}"
    return "\n".join((head, table(MARKET_HEAD, market_rows(ledger)), absolute(ledger)))


def _inputs_text(ledger: Ledger) -> str:
    return "inputs\n" + table(INPUT_HEAD, input_rows(ledger.figures)).lstrip("\n")
