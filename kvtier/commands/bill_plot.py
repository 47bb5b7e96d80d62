"""The plot of ``kvtier bill``: one bar a tariff, its parts in the order in which a prompt has them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kvtier.econ.billing.bills import Bill
from kvtier.errors import ConfigError

_PARTS = (("read", "#2a788e"), ("written", "#7ad151"), ("uncached", "#b8b8b8"), ("storage", "#e07b39"))


def plot(bills: Sequence[Bill], path: Path, *, title: str) -> None:
    """Draw shares of the price without a cache and write them to a file; its suffix says which kind.

    Raises:
        ConfigError: matplotlib is not installed, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as exc:
        raise ConfigError("--plot needs matplotlib: pip install 'kvtier[bench]'") from exc
    figure = Figure(figsize=(8, 1.2 + 0.4 * len(bills)), layout="constrained")
    axes = figure.subplots()
    labels = [bill.tariff.name for bill in bills]
    left = [0.0] * len(bills)
    for part, colour in _PARTS:
        widths = [getattr(bill, f"{part}_usd") / bill.no_cache_usd if bill.no_cache_usd else 0.0 for bill in bills]
        axes.barh(labels, widths, left=left, color=colour, label=part)
        left = [at + width for at, width in zip(left, widths, strict=True)]
    for row, share in enumerate(left):
        axes.text(share, row, f" {share:.3f}", va="center", fontsize=8)
    axes.axvline(1.0, color="black", linewidth=0.8, linestyle="--")
    axes.set_xlim(0, 1.12 * max([1.0, *left]))
    axes.invert_yaxis()
    axes.set_xlabel("cost of the prompts, as a share of their price without a cache (list prices)")
    axes.set_title(title, fontsize=10)
    axes.legend(loc="lower right", fontsize=8)
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as exc:
        raise ConfigError(f"--plot: {path} cannot be written: {exc}") from exc
