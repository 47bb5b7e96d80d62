"""The picture of one replay: where tokens came from as the trace went on, and what each tier had to do."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from kvtier.commands.plots import draw
from kvtier.sim.replay import Served
from kvtier.sim.settings import Settings

_POINTS = 100
COLOURS = {"device": "#1b9e77", "host": "#7570b3", "disk": "#e6ab02", "remote": "#a6761d", "computed": "#d9d9d9"}


class History:
    """Watches a replay.

    Args:
        settings: Of the replay.
        block_tokens: Of the trace.
    """

    def __init__(self, settings: Settings, block_tokens: int) -> None:
        self._names = [tier.name for tier in settings.tiers]
        self._block_tokens = block_tokens
        self._tokens: list[list[int]] = []
        """For each request: tokens found in each tier, and tokens computed."""

    def tokens_by_source(self) -> dict[str, int]:
        """Tokens of all prompts by the tier they were found in, and those computed."""
        names = (*self._names, "computed")
        return {name: sum(row[place] for row in self._tokens) for place, name in enumerate(names)}

    def watch(self, served: Served) -> None:
        """One request was served."""
        request, match = served
        counts = Counter(match.tiers)
        left, row = request.input_tokens, []
        for tier in range(len(self._names)):
            found = min(left, counts[tier] * self._block_tokens)
            row.append(found)
            left -= found
        self._tokens.append([*row, left])

    def draw(self, target: Path, result: dict[str, Any]) -> None:
        """Save the picture."""
        draw(target, 2, lambda panels: self._paint(panels, result))

    def _paint(self, panels: list[Any], result: dict[str, Any]) -> None:
        left, right = panels
        self.paint_shares(left)
        left.set_title(f"{result['trace']}: {result['token_hit_rate']:.1%} of tokens found", fontsize=10)
        kinds = ("read", "written", "evicted", "expired", "lost")
        width = 0.8 / len(self._names)
        for number, tier in enumerate(result["tiers"]):
            places = np.arange(len(kinds)) + number * width
            right.bar(places, [tier[f"{kind}_blocks"] for kind in kinds], width, color=COLOURS[tier["name"]])
        right.set_xticks(np.arange(len(kinds)) + 0.4 - width / 2, kinds)
        right.set(ylabel="blocks")
        right.set_title("what each tier did", fontsize=10)

    def paint_shares(self, panel: Any) -> None:
        """Where tokens came from as the trace went on; it must have had a request."""
        parts = np.array_split(np.array(self._tokens, dtype=float), min(_POINTS, len(self._tokens)))
        sums = np.array([part.sum(axis=0) for part in parts])
        shares = sums / np.maximum(1, sums.sum(axis=1, keepdims=True))
        names = [*self._names, "computed"]
        at = np.linspace(0, len(self._tokens), len(parts))
        panel.stackplot(at, shares.T, labels=names, colors=[COLOURS[name] for name in names], linewidth=0)
        panel.set(xlabel="request", ylabel="share of prompt tokens", xlim=(0, at[-1]), ylim=(0, 1))
        panel.legend(loc="upper right", fontsize=8, framealpha=0.9)
