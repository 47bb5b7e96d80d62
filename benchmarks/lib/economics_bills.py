"""Bills of recorded traffic under automatic and manual rules, for docs/economics.md.

Beside the tariffs that ``kvtier bill`` takes by itself there is GPT-5's: automatic, free to write, ten minutes. With
it and Anthropic's two lifetimes, which ask as much for a read, one can tell from which share of calls that find their
prefix an automatic cache is the cheaper one: nobody publishes that share, so it is a parameter.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kvtier.econ.billing.bills import Bill, bills
from kvtier.econ.billing.calls import Call, calls_of_trace
from kvtier.econ.billing.marking import mark_growing, mark_shared
from kvtier.econ.billing.tariffs import Tariff, chosen, tariffs
from kvtier.sim.naming import trace_from

ROOT = Path(__file__).resolve().parents[2]
TRACES = {
    "agents": "agentic_coding_trace.jsonl.gz",
    "chats": "mooncake_conversation_trace.jsonl.gz",
    "synthetic": "mooncake_synthetic_trace.jsonl.gz",
}
AUTOMATIC = "openai gpt-5 memory"
MANUAL = ("anthropic opus-5 5m", "anthropic opus-5 1h")

Json = dict[str, Any]


def trace_files() -> dict[str, Path]:
    """Where the traces are: in ``KVTIER_TRACES``, or in ``shared/traces`` beside the checkout.

    Raises:
        FileNotFoundError: One of them is in neither.
    """
    places = [Path(place) for place in (os.environ.get("KVTIER_TRACES"), ROOT.parent / "shared" / "traces") if place]
    found = {key: place / name for key, name in TRACES.items() for place in places if (place / name).is_file()}
    if missing := [name for key, name in TRACES.items() if key not in found]:
        raise FileNotFoundError(
            f"no {', '.join(missing)} in {' or '.join(map(str, places))}; set KVTIER_TRACES, or leave bills out "
            "with --no-bills"
        )
    return found


def billed(name: str, path: Path, limit: int | None = None) -> Json:
    """One trace under every tariff.

    Args:
        name: As tables have it.
        path: The trace's file.
        limit: First requests only.
    """
    every = {tariff.name: tariff for tariff in tariffs()}
    under = [*chosen(every.values()), every[AUTOMATIC]]
    apart = [tariff for tariff in under if tariff.rules.made_apart]
    together = [tariff for tariff in under if not tariff.rules.made_apart]
    made = bills(mark_shared(calls(path, limit)), together)
    for tariff in apart:
        marked = mark_growing(calls(path, limit), minimum_tokens=tariff.rules.minimum_tokens)
        made += bills(marked, [tariff])
    return {
        "trace": name,
        "file": path.name,
        "calls": made[0].calls,
        "input_tokens": made[0].input_tokens,
        "limit": limit,
        "bills": sorted((as_row(bill) for bill in made), key=lambda row: row["share"]),
        "ties": ties({bill.tariff.name: bill.share for bill in made}),
    }


def calls(path: Path, limit: int | None) -> Iterable[Call]:
    """A trace's calls from its start."""
    trace = trace_from(str(path), limit=limit)
    return calls_of_trace(trace, trace.block_tokens)


def as_row(bill: Bill) -> Json:
    """What the page says of a bill."""
    tariff: Tariff = bill.tariff
    return {
        "tariff": tariff.name,
        "manual": tariff.rules.entries == "marks",
        "write_multiple": tariff.write_multiple,
        "read_multiple": tariff.read_multiple,
        "hit_rate": bill.hit_rate,
        "share": bill.share,
        "assumed": list(tariff.assumed),
    }


def ties(shares: Mapping[str, float]) -> dict[str, float]:
    """The share of calls that must find their prefix for the automatic cache to be no dearer than each manual one.

    A call that lands elsewhere pays its whole prompt, and writing is free, so of what the cache would save a share of
    calls saves that share: p (1 - automatic) = 1 - manual. Nobody must cache by hand, so a bill above 1 is taken as 1.

    Example:
        >>> round(ties({AUTOMATIC: 0.2, MANUAL[0]: 0.4, MANUAL[1]: 1.3})[MANUAL[0]], 2)
        0.75
    """
    return {name: (1 - min(1.0, shares[name])) / (1 - shares[AUTOMATIC]) for name in MANUAL}
