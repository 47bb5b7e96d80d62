"""A ledger in words and rows, the same on a terminal and on a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kvtier.commands.durations import human_s
from kvtier.econ.figures import Figure
from kvtier.econ.ledger import Hold, Ledger, Row
from kvtier.econ.prices import ListPrice

ROW_HEAD = ("tier", "medium", "held", "hits", "read", "write", "rent", "hit", "stall", "of a miss", "saves", "")

HOLD_HEAD = (
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

MARKET_HEAD = ("list", "rows it covers", "stalled", "asked by")

INPUT_HEAD = ("", "", "kind", "date", "source")


def usd(value: float) -> str:
    """Dollars per million tokens, as many digits as say something.

    Example:
        >>> usd(0.0256), usd(0.0), usd(0.000012)
        ('0.0256', '0.0000', '1.2e-05')
    """
    return f"{value:.4f}" if abs(value) >= 0.00005 or value == 0 else f"{value:.1e}"


def row_cells(row: Row) -> tuple[str, ...]:
    """Under ``ROW_HEAD``; money in USD/Mtok."""
    money = (row.read_usd, row.write_usd, row.rent_usd, row.hit_usd, row.stall_usd)
    return (
        row.tier,
        row.medium,
        human_s(row.hold_s),
        str(row.reuses),
        *map(usd, money),
        f"{row.share:.1%} to {row.share_stalled:.1%}",
        usd(row.saves_usd),
        row.verdict,
    )


def hold_cells(hold: Hold) -> tuple[str, ...]:
    """Under ``HOLD_HEAD``."""
    return (
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


def losses(ledger: Ledger) -> list[str]:
    """Where the cache loses, one line a kind of loss; none where it nowhere does."""
    found: dict[tuple[str, str, int], list[Row]] = {}
    for row in ledger.rows:
        if row.verdict != "saves":
            found.setdefault((row.verdict, row.tier, row.prompt_tokens), []).append(row)
    lines = []
    for (verdict, tier, tokens), rows in found.items():
        cases = ", ".join(f"{row.reuses} hits in {human_s(row.hold_s)}" for row in rows[:4])
        lines.append(f"{verdict}: {tier} at {tokens:,} tokens: {cases}{', ...' if len(rows) > 4 else ''}")
    slow = dict.fromkeys(
        (row.tier, row.prompt_tokens, round(row.speed_up, 2)) for row in ledger.rows if row.speed_up < 1
    )
    return [*lines, *(f"slower than computing: {tier} at {tokens:,} tokens, {ratio}x" for tier, tokens, ratio in slow)]


def market_rows(ledger: Ledger) -> list[tuple[str, ...]]:
    """Under ``MARKET_HEAD``: list prices by share of the input price, and how many rows each would pay for."""
    by_share: dict[str, list[ListPrice]] = {}
    for price in ledger.prices:
        by_share.setdefault(f"{price.share:.1%}", []).append(price)
    return [
        (
            text,
            f"{sum(row.share <= prices[0].share for row in ledger.rows)} of {len(ledger.rows)}",
            f"{sum(row.share_stalled <= prices[0].share for row in ledger.rows)}",
            ", ".join(price.name for price in prices),
        )
        for text, prices in by_share.items()
    ]


def at_cost(rows: Sequence[Row]) -> str:
    """What share of an input token's price a cached one's would be at cost, tier by tier."""
    tiers = {row.tier: [other for other in rows if other.tier == row.tier] for row in rows}
    return ", ".join(
        f"{tier} {min(row.share for row in its):.1%} to {max(row.share_stalled for row in its):.1%}"
        for tier, its in tiers.items()
    )


def absolute(ledger: Ledger) -> str:
    """List prices without shares: they contain a margin on input that costs do not. Empty if none has one."""
    asked = [price.cached_read.value for price in ledger.prices if price.cached_read is not None]
    costs = [row.hit_usd for row in ledger.rows]
    if not asked:
        return ""
    return (
        f"in USD/Mtok a cached token is listed at {min(asked):g} to {max(asked):g}, of models of all sizes; "
        f"at cost it is {usd(min(costs))} to {usd(max(costs))} here"
    )


def input_rows(figures: Mapping[str, Figure]) -> list[tuple[str, ...]]:
    """Under ``INPUT_HEAD``."""
    return [
        (name, f"{figure.value:g} {figure.unit}", figure.kind, figure.date, figure.source)
        for name, figure in figures.items()
    ]
