"""The plots of docs/policies.md, from the JSON of ``benchmarks/policies.py``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from kvtier.commands import plots, sweep_plot

Report = dict[str, Any]
_BLUE, _ORANGE, _GREY = "#1f77b4", "#ff7f0e", "#7f7f7f"


def draw(report: Report, directory: Path) -> list[Path]:
    """Save every plot as PNG; returns the files."""
    pictures: dict[str, tuple[int, Callable[[list[Any]], None]]] = {
        "hit_rate": (len(report["curves"]), partial(_curves, report["curves"])),
        "paper_figure": (2, partial(_paper, report["paper_figure"])),
        "ssd": (2, partial(_ssd, report["ssd"])),
        "lifetimes": (1, partial(_lifetimes, report["lifetimes"])),
        "order": (2, partial(_orders, report["orders"])),
    }
    files = []
    for name, (panels, paint) in pictures.items():
        files.append(directory / f"policies_{name}.png")
        plots.draw(files[-1], panels, paint)
    return files


def _curves(curves: Report, panels: list[Any]) -> None:
    for (name, found), panel in zip(curves.items(), panels, strict=True):
        sweep_plot.curves(found["rows"], panel, f"{name}: hit rate by capacity")


def _paper(figure: Report, panels: list[Any]) -> None:
    for (name, found), panel in zip(figure.items(), panels, strict=True):
        rows = [row for row in found["rows"] if row["tokens"]]
        tokens = [row["tokens"] / 1e6 for row in rows]
        panel.plot(tokens, [100 * row["prefix_hit_rate"] for row in rows], marker="o", color=_BLUE, label="LRU")
        best = 100 * found["rows"][-1]["prefix_hit_rate"]
        panel.axhline(best, color=_GREY, linestyle="--", label=f"everything kept: {best:.1f} %")
        panel.axvline(3, color=_GREY, linestyle=":", label="one node's memory, 3M tokens")
        panel.set(xlabel="capacity, million tokens", ylabel="prefix hit rate, %", xscale="log", ylim=(0, 1.15 * best))
        _finish(panel, name)


def _ssd(ssd: Report, panels: list[Any]) -> None:
    for (name, found), panel in zip(ssd.items(), panels, strict=True):
        at = range(len(found["rows"]))
        below = [0.0] * len(found["rows"])
        for tier, colour in (("device", _BLUE), ("host", _GREY), ("disk", _ORANGE)):
            hits = [100 * row["hits"].get(tier, 0) / found["block_references"] for row in found["rows"]]
            panel.bar(at, hits, bottom=below, color=colour, label=tier)
            below = [low + hit for low, hit in zip(below, hits, strict=True)]
        panel.axhline(100 * found["best_block_hit_rate"], color="black", linestyle="--", label="everything kept")
        panel.set_xticks(list(at), [f"{row['ssd_tib']}" for row in found["rows"]])
        panel.set(
            xlabel="SSD, TiB", ylabel="prefix hits, % of references", ylim=(0, 130 * found["best_block_hit_rate"])
        )
        _finish(panel, name, ncol=4)


def _lifetimes(lifetimes: Report, panels: list[Any]) -> None:
    for name, found in lifetimes.items():
        rows = found["rows"]
        rates = [100 * row["prefix_hit_rate"] for row in rows]
        panels[0].plot([row["ttl"] for row in rows], rates, marker="o", label=name)
    panels[0].set(xlabel="kept after the last use", ylabel="prefix hit rate, %")
    panels[0].set_ylim(bottom=0)
    _finish(panels[0], "time to live, nothing evicted")


def _orders(orders: Report, panels: list[Any]) -> None:
    labels = {
        "tail_first": ("tail ages first", _BLUE),
        "head_first": ("head ages first, leaves leave", _ORANGE),
        "no_prefixes": ("head ages first, anything leaves", _GREY),
    }
    for (name, found), panel in zip(orders.items(), panels, strict=True):
        sizes = [row["capacity_blocks"] for row in found["rows"]]
        for way, (label, colour) in labels.items():
            panel.plot(sizes, [100 * row[way] for row in found["rows"]], marker="o", color=colour, label=label)
        panel.set(xlabel="capacity, blocks", ylabel="prefix hit rate, %", xscale="log")
        panel.set_ylim(bottom=0)
        _finish(panel, f"{name}: LRU")


def _finish(panel: Any, title: str, ncol: int = 1) -> None:
    panel.set_title(title, fontsize=10)
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(fontsize=8, frameon=False, ncol=ncol)
