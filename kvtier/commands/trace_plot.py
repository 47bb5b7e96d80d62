"""What ``kvtier trace stats --plot`` draws: hit rate by size, time between uses, length of prompts."""

from __future__ import annotations

from typing import Any

import numpy as np

from kvtier.sim.stats import Stats

_KEPT_S = {"5 min": 300, "1 h": 3600, "1 day": 86_400}
_BLUE, _GREY = "#2b6cb0", "#888888"


def paint(stats: Stats, panels: list[Any]) -> None:
    """Draw three panels."""
    _hit_rate(stats, panels[0])
    _intervals(stats, panels[1])
    _prompts(stats, panels[2])
    for panel in panels:
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)


def _hit_rate(stats: Stats, panel: Any) -> None:
    top = max(stats.unique_blocks, 2)
    capacities = np.unique(np.geomspace(1, top, 200).astype(np.int64))
    panel.semilogx(capacities, 100 * stats.lru_hit_rate(capacities), color=_BLUE)
    best = 100 * stats.best_block_hit_rate
    panel.axhline(best, color=_GREY, linestyle="--")
    panel.annotate(f"everything kept: {best:.1f}%", (1, best), (0, 4), textcoords="offset points", color=_GREY)
    panel.set(xlabel="capacity, blocks", ylabel="blocks hit, %", ylim=(0, max(1.12 * best, 1)))
    panel.set_title(f"{stats.trace}: LRU", fontsize=11)


def _intervals(stats: Stats, panel: Any) -> None:
    panel.set(
        xlabel="seconds between two uses of a block, at least 0.1", ylabel="uses that came sooner, %", ylim=(0, 105)
    )
    panel.set_title("time between uses", fontsize=11)
    if not len(stats.interval_s):
        return
    order = np.argsort(stats.interval_s)
    seconds = np.maximum(stats.interval_s[order], 0.1)
    share = 100 * np.cumsum(stats.interval_uses[order]) / stats.interval_uses.sum()
    panel.semilogx(seconds, share, color=_BLUE)
    for label, kept_s in _KEPT_S.items():
        if seconds[0] <= kept_s <= seconds[-1]:
            panel.axvline(kept_s, color=_GREY, linestyle=":")
            panel.annotate(f" {label}", (kept_s, 2), color=_GREY)


def _prompts(stats: Stats, panel: Any) -> None:
    tokens = np.maximum(stats.prompt_tokens, 1)
    low, high = tokens.min(), max(tokens.max(), tokens.min() + 1)
    panel.hist(tokens, bins=np.geomspace(low, high, 50), color=_BLUE, alpha=0.85)
    panel.set_xscale("log")
    panel.set(xlabel="input tokens", ylabel="requests")
    panel.set_title(f"length of prompts, median {np.median(tokens):,.0f}", fontsize=11)
