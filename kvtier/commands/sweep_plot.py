"""The pictures of a sweep: hit rate by capacity for each policy under the optimum, and dollars against waiting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kvtier.commands.plots import INK
from kvtier.policy.registry import POLICIES
from kvtier.sim.sweep import OPTIMUM

_WARM = ("#8c564b", "#bcbd22", "#ff7f0e", "#e377c2", "#d62728", "#ff1493")
_COLD = ("#1f77b4", "#2ca02c", "#9467bd", "#17becf", "#556b2f", "#00b894")
_COLOURS = tuple(colour for pair in zip(_WARM, _COLD, strict=True) for colour in pair)
_MARKERS = "ovs^Dp*XP<>h"


def curves(rows: Sequence[Mapping[str, Any]], panel: Any, title: str, rate: str = "prefix_hit_rate") -> None:
    """A line for each policy over its capacities; the optimum dashed, as the bound that it is.

    Args:
        rows: See ``sweep.policy_rows``.
        panel: matplotlib's ``Axes``.
        title: Over it.
        rate: Which of the three hit rates.
    """
    for policy in dict.fromkeys(row["policy"] for row in rows):
        mine = sorted((row["capacity_blocks"], 100 * row[rate]) for row in rows if row["policy"] == policy)
        panel.plot(*zip(*mine, strict=True), label=policy, **_style(policy))
    panel.set_xscale("log")
    panel.set(xlabel="capacity, blocks", ylabel=f"{rate.removesuffix('_hit_rate')} hit rate, %")
    panel.set_ylim(bottom=0)
    panel.set_title(title, fontsize=10)
    panel.legend(fontsize=9, ncol=2, frameon=False)
    _tidy(panel)


def _style(policy: str) -> dict[str, Any]:
    """How a policy is drawn, the same in all pictures."""
    if policy == OPTIMUM:
        return {"color": INK, "linestyle": "--", "linewidth": 1.5, "zorder": 1}
    number = list(POLICIES).index(policy)
    look = {"color": _COLOURS[number % len(_COLOURS)], "marker": _MARKERS[number % len(_MARKERS)]}
    return {**look, "markersize": 4, "linewidth": 1.2, "zorder": 2}


def front(rows: Sequence[Mapping[str, Any]], panel: Any, title: str) -> None:
    """A point for each combination of sizes, the Pareto front joined, and no cache as a cross.

    Args:
        rows: See ``sweep.grid_rows``.
        panel: matplotlib's ``Axes``.
        title: Over it.
    """
    points = {id(row): (1000 * row["usd_per_request"], row["ttft_mean_s"]) for row in rows}
    best = sorted(points[id(row)] for row in rows if row["pareto"])
    panel.plot(*zip(*best, strict=True), color="#d62728", linewidth=1, zorder=1)
    kinds = {
        "sizes of tiers": ([row for row in rows if row["sizes"] and not row["pareto"]], "#7f7f7f", "o"),
        "Pareto front": ([row for row in rows if row["sizes"] and row["pareto"]], "#d62728", "o"),
        "no cache": ([row for row in rows if not row["sizes"]], INK, "x"),
    }
    for label, (its, colour, marker) in kinds.items():
        if its:
            at = zip(*(points[id(row)] for row in its), strict=True)
            panel.scatter(*at, color=colour, marker=marker, s=24, label=label, zorder=2)
    panel.set(xlabel="cost of a request, USD/1000", ylabel="mean time to first token, s")
    panel.set_xlim(left=0)
    panel.set_ylim(bottom=0)
    panel.set_title(title, fontsize=10)
    panel.legend(fontsize=9, frameon=False)
    _tidy(panel)


def _tidy(panel: Any) -> None:
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)


def paint(result: Mapping[str, Any], panels: Sequence[Any]) -> None:
    """Both, side by side; the second where sizes of tiers were tried."""
    curves(result["rows"], panels[0], hit_rate_title(result))
    if "grid" in result:
        front(result["grid"]["rows"], panels[1], front_title(result))


def hit_rate_title(result: Mapping[str, Any]) -> str:
    """Over the curves."""
    return f"{plain(result['trace'])}: hit rate by capacity"


def front_title(result: Mapping[str, Any]) -> str:
    """Over the front."""
    return f"{plain(result['trace'])} on {plain(result['profile'])}"


def plain(text: str) -> str:
    """Text of a user as it is: a dollar sign would begin a formula."""
    return text.replace("$", r"\$")
