"""The picture of a ledger: what a hit is made of beside a miss, and where list prices stand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kvtier.commands.durations import human_s
from kvtier.econ.ledger import Ledger, Row
from kvtier.errors import ConfigError

_PARTS = (
    ("recompute_usd", "recompute", "#7f7f7f"),
    ("read_usd", "read", "#4477aa"),
    ("write_usd", "write and wear", "#aa3377"),
    ("rent_usd", "rent", "#228833"),
    ("occupancy_usd", "memory during the request", "#ccbb44"),
    ("stall_usd", "stall, if not overlapped", "#ee6677"),
)

TIER_COLOURS = {"device": "#ee6677", "host": "#ccbb44", "disk": "#4477aa", "remote": "#228833"}


def draw(ledger: Ledger, target: Path) -> None:
    """Write the picture.

    Args:
        ledger: With at least one row.
        target: File; its ending says the format.

    Raises:
        ConfigError: matplotlib is not installed, or the file cannot be written.
    """
    try:
        import matplotlib as mpl

        mpl.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError as exc:
        raise ConfigError("--plot needs matplotlib: pip install matplotlib") from exc
    figure, (left, right) = plt.subplots(1, 2, figsize=(14, 6), layout="constrained")
    bars(left, ledger.rows)
    market(right, ledger)
    figure.suptitle(f"{ledger.profile.name}: {ledger.profile.source}")
    try:
        figure.savefig(target, dpi=120)
    except (OSError, ValueError) as exc:
        raise ConfigError(f"--plot: {str(target)!r} cannot be written: {exc}") from exc
    finally:
        plt.close(figure)


def bars(axes: Any, rows: Sequence[Row]) -> None:
    """One bar a miss, one a row, stacked by component.

    Args:
        axes: matplotlib's ``Axes``.
        rows: Of a ledger, at least one. What is the same in all is left out of the labels.
    """
    labelled = _labelled(rows)
    for place, (_, parts) in enumerate(labelled):
        left = 0.0
        for name, _, colour in _PARTS:
            value = parts.get(name, 0.0)
            axes.barh(place, value, left=left, color=colour, alpha=0.45 if name == "stall_usd" else 1.0)
            left += value
    axes.set_yticks(range(len(labelled)), [label for label, _ in labelled], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("USD per million tokens, at cost")
    axes.legend(handles=[_patch(label, colour) for _, label, colour in _PARTS], fontsize=8, frameon=False)


def _patch(label: str, colour: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(color=colour, label=label)


def _labelled(rows: Sequence[Row]) -> list[tuple[str, dict[str, float]]]:
    found: list[tuple[str, dict[str, float]]] = []
    seen: set[int] = set()
    several = len({row.prompt_tokens for row in rows}) > 1
    for row in rows:
        length = f", {row.prompt_tokens:,} tokens" if several else ""
        if row.prompt_tokens not in seen:
            seen.add(row.prompt_tokens)
            miss = {name: getattr(row, name) for name in ("recompute_usd", "occupancy_usd")}
            found.append((f"miss{length}", miss))
        label = f"{row.tier}{length}, {row.reuses} hits in {human_s(row.hold_s)}"
        found.append((label, {name: getattr(row, name) for name, _, _ in _PARTS[1:]}))
    return found


def market(axes: Any, ledger: Ledger) -> None:
    """List prices as shares of the input price, over the band that this machine would need."""
    for tier, colour in TIER_COLOURS.items():
        rows = [row for row in ledger.rows if row.tier == tier]
        if rows:
            low, high = min(row.share for row in rows), max(row.share_stalled for row in rows)
            axes.axvspan(low, high, color=colour, alpha=0.15, label=f"at cost: {tier}")
    axes.scatter(
        [p.share for p in ledger.prices], range(len(ledger.prices)), color="#aa3377", label="list price", zorder=3
    )
    axes.set_yticks(range(len(ledger.prices)), [price.name for price in ledger.prices], fontsize=7)
    axes.set_xscale("log")
    axes.set_xlabel("price of a cached token / price of an input token")
    axes.legend(fontsize=8, frameon=False)
    axes.grid(axis="x", alpha=0.3)
