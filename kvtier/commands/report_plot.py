"""The pictures of a report that no other command draws; each paints one panel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kvtier.commands.cost_plot import TIER_COLOURS
from kvtier.commands.plots import INK
from kvtier.commands.replay_plot import COLOURS

_COMPUTED = "#7f7f7f"
_PATHS = {
    "recompute": _COMPUTED,
    "device": TIER_COLOURS["device"],
    "host": TIER_COLOURS["host"],
    "disk_warm": "#66ccee",
    "disk_cold": TIER_COLOURS["disk"],
}
_SHORTEST_DRAWN = 8


def times(calibration: Mapping[str, Any], panel: Any) -> None:
    """Time to first token by prompt length, computed and from each tier, with bands; break-even points as rings.

    Args:
        calibration: See ``report.calibration_of``.
        panel: matplotlib's ``Axes``.
    """
    rows = [row for row in calibration["curve"] if row["tokens"] >= _SHORTEST_DRAWN] or calibration["curve"]
    tokens = [row["tokens"] for row in rows]
    lines = {"computed": [row["recompute_s"] for row in rows]}
    lines |= {f"from {tier}": [row["hit_s"][tier] for row in rows] for tier in calibration["break_even_tokens"]}
    for label, bands in lines.items():
        colour = TIER_COLOURS.get(label.removeprefix("from "), _COMPUTED)
        lo, mid, hi = zip(*bands, strict=True)
        panel.plot(tokens, mid, color=colour, label=label, linewidth=1.8)
        panel.fill_between(tokens, lo, hi, color=colour, alpha=0.2, linewidth=0)
    for tier, crossing in calibration["break_even_tokens"].items():
        if crossing is not None and crossing >= tokens[0]:
            at = next(row for row in calibration["crossings"] if row["tier"] == tier)
            panel.plot([crossing], [at["hit_s"]], "o", color=TIER_COLOURS[tier], markersize=9, fillstyle="none")
    _log_log(panel, "seconds to the first token")


def _log_log(panel: Any, ylabel: str) -> None:
    panel.set(xscale="log", yscale="log", xlabel="prompt tokens", ylabel=ylabel)
    panel.legend(fontsize=9, frameon=False)
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)


def speeds(tiers: Sequence[Mapping[str, Any]], panel: Any) -> None:
    """Reads and writes of each tier with their band, and a mark where the bare medium stands.

    Args:
        tiers: Rows with ``tier``, ``read`` and ``write``, each ``speed`` (lo, value, hi) and ``raw``, in bytes/s.
        panel: matplotlib's ``Axes``.
    """
    labels = []
    for way in ("read", "write"):
        for row in tiers:
            lo, mid, hi = (value / 1e9 for value in row[way]["speed"])
            place = len(labels)
            labels.append(f"{row['tier']} {way}")
            panel.barh(place, mid, color=TIER_COLOURS[row["tier"]], alpha=1.0 if way == "read" else 0.6, height=0.65)
            panel.plot([lo, hi], [place, place], color=INK, linewidth=1.2)
            if row[way]["raw"] is not None:
                raw = row[way]["raw"][1] / 1e9
                panel.plot([raw, raw], [place - 0.42, place + 0.42], color="#d62728", linewidth=2.5)
    panel.set_yticks(range(len(labels)), labels, fontsize=9)
    panel.invert_yaxis()
    panel.set_xlim(left=0)
    panel.set_xlabel("GB/s")
    panel.grid(axis="x", alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)


def reload(found: Mapping[str, Any], panel: Any) -> None:
    """Median time to first token by prompt length, a line for each way.

    Args:
        found: See ``reloads.read_reload``.
        panel: matplotlib's ``Axes``.
    """
    for way in dict.fromkeys(row["path"] for row in found["rows"]):
        rows = sorted((row["prompt_tokens"], row["p50_ms"] / 1e3) for row in found["rows"] if row["path"] == way)
        label = "recomputed" if way == "recompute" else way.replace("_", " ")
        panel.plot(*zip(*rows, strict=True), color=_PATHS.get(way, INK), marker="o", markersize=4, label=label)
    _log_log(panel, "seconds to the first token, median")


def sources(tokens: Mapping[str, int], panel: Any) -> None:
    """Share of all prompt tokens by where they were found.

    Args:
        tokens: By tier, and computed.
        panel: matplotlib's ``Axes``.
    """
    total = max(1, sum(tokens.values()))
    for place, (name, count) in enumerate(tokens.items()):
        share = 100 * count / total
        panel.barh(place, share, color=COLOURS[name], height=0.65)
        panel.text(share + 1, place, f"{share:.1f} %", va="center", fontsize=10)
    panel.set_yticks(range(len(tokens)), list(tokens), fontsize=10)
    panel.invert_yaxis()
    panel.set_xlim(0, 112)
    panel.set_xticks(range(0, 101, 20))
    panel.set_xlabel("share of prompt tokens, %")
    panel.spines[["top", "right"]].set_visible(False)
