"""Everything that a report rests on, each measured, given or assumed, with source and date."""

from __future__ import annotations

import argparse
import datetime as dt
from collections.abc import Mapping
from typing import Any

from kvtier.commands.durations import human_s
from kvtier.commands.sizes import human_bytes
from kvtier.econ.figures import Figure
from kvtier.econ.ledger import Ledger

_NAMES = {
    "prompt_tokens": "prompt tokens of the ledger",
    "reuse": "hits that one write serves",
    "hold": "time a prefix is held for them",
    "request_time": "time from a load to the last word",
}


def inputs_of(
    args: argparse.Namespace,
    ledger: Ledger,
    reload: Mapping[str, Any] | None,
    replay: Mapping[str, Any],
    sizes: Mapping[str, Figure],
) -> list[dict[str, str]]:
    """Rows of ``name``, ``value``, ``kind``, ``date``, ``source``.

    Args:
        args: The command line.
        ledger: See ``make_ledger``.
        reload: See ``reloads.read_reload``.
        replay: What it found.
        sizes: Of the tiers, where the command line has none.
    """
    profile = ledger.profile
    lengths = [point.tokens for point in profile.prefill]
    kind = "assumed" if profile.machine is None else "measured"
    span = f"{len(lengths)} lengths from {lengths[0]:,} to {lengths[-1]:,} tokens"
    today = dt.datetime.now(dt.UTC).date().isoformat()
    rows = [
        _row("prefill time", span, kind, profile.date, profile.source),
        *(_figure(name, figure) for name, figure in ledger.figures.items()),
        *_cases(args, ledger, today),
        *_tiers(replay, sizes, today),
        _trace(args, replay, today),
    ]
    if reload is not None:
        source = f"benchmarks/reload_vs_prefill.py with {reload['model']} on {reload['processor']}"
        rows.append(_row("reload benchmark", f"{len(reload['rows'])} medians", "measured", reload["date"], source))
    return rows


def _row(name: str, value: str, kind: str, date: str, source: str) -> dict[str, str]:
    return {"name": name, "value": value, "kind": kind, "date": date, "source": source}


def _figure(name: str, figure: Figure) -> dict[str, str]:
    band = "" if figure.lo is None or figure.hi is None else f" ({figure.lo:.4g} to {figure.hi:.4g})"
    return _row(name, f"{figure.value:.4g}{band} {figure.unit}", figure.kind, figure.date, figure.source)


def _cases(args: argparse.Namespace, ledger: Ledger, today: str) -> list[dict[str, str]]:
    lengths, holds = (
        list(dict.fromkeys(getattr(row, name) for row in ledger.rows)) for name in ("prompt_tokens", "hold_s")
    )
    values = {
        "prompt_tokens": ", ".join(f"{tokens:,}" for tokens in lengths),
        "reuse": ", ".join(map(str, args.reuse)),
        "hold": ", ".join(map(human_s, holds)),
        "request_time": human_s(ledger.request_s),
    }
    return [
        _row(_NAMES[name], value, "assumed", today, f"--{name.replace('_', '-')} says another")
        for name, value in values.items()
    ]


def _tiers(replay: Mapping[str, Any], sizes: Mapping[str, Figure], today: str) -> list[dict[str, str]]:
    found = []
    for tier in replay["tiers"]:
        name = f"{tier['name']}, size in the replay"
        blocks = f"{tier['capacity_blocks']:,} blocks"
        size = sizes.get(tier["name"])
        if size is None:
            found.append(_row(name, blocks, "given", today, "the command line"))
        else:
            value = f"{human_bytes(size.value)}, {blocks}"
            found.append(_row(name, value, size.kind, size.date, size.source))
    return found


def _trace(args: argparse.Namespace, replay: Mapping[str, Any], today: str) -> dict[str, str]:
    made = args.trace.startswith("synthetic:")
    value = f"{replay['requests']:,} requests, {replay['input_tokens']:,} tokens"
    source = f"{args.trace}, made from a seed" if made else args.trace
    return _row("trace", value, "assumed" if made else "given", today, source)
