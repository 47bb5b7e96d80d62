"""Cost, hit rate and kept context by turn, one line a policy; equal lines are drawn once, under both names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kvtier.commands.output import write_figure
from kvtier.errors import ConfigError

#: A line keeps its colour whichever policies it is drawn beside.
_COLOURS = {
    "append": "#7f7f7f",
    "sliding": "#d62728",
    "hysteresis": "#1f77b4",
    "chunked": "#ff7f0e",
    "expired": "#2ca02c",
    "longest": "#9467bd",
    "cheapest": "#17becf",
}

#: Turns up to which the sent tokens are drawn as they are; of longer chats the mean.
_MOST_TEETH = 500


def draw(by_turn: dict[str, dict[str, list[float]]], target: str, *, high: int, low: int) -> None:
    """Write a PNG.

    Args:
        by_turn: ``cost``, ``tokens`` and ``live_tokens`` of every turn, by policy.
        target: The file.
        high: The high limit, drawn where context is.
        low: The low one.

    Raises:
        ConfigError: matplotlib is missing, or the file cannot be written.
    """
    try:
        import matplotlib as mpl
    except ImportError as exc:
        raise ConfigError("--plot needs matplotlib: pip install 'kvtier[bench]'") from exc
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (cost, hits, context) = plt.subplots(3, 1, figsize=(9, 9.5), sharex=True, layout="constrained")
    window = max(1, len(next(iter(by_turn.values()))["cost"]) // 16)
    for names, columns in _unequal(by_turn):
        turns = range(1, len(columns["cost"]) + 1)
        style: dict[str, Any] = {"label": " = ".join(names), "color": _COLOURS[names[0]], "linewidth": 1.6}
        cost.plot(turns, _smooth(columns["cost"], window), **style)
        served, sent = (_smooth(columns[name], window) for name in ("live_tokens", "tokens"))
        hits.plot(turns, [part / (whole or 1) for part, whole in zip(served, sent, strict=True)], **style)
        teeth = len(turns) <= _MOST_TEETH
        context.plot(turns, columns["tokens"] if teeth else _smooth(columns["tokens"], window), **style)
    cost.set(ylabel="cost of a turn, in uncached tokens", yscale="log", title=f"Mean of the last {window} turns")
    cost.yaxis.set_major_formatter("{x:,.0f}")
    hits.set(ylabel="share of tokens served by the cache", ylim=(-0.03, 1.03))
    context.set(ylabel="tokens sent", xlabel="turn", ylim=(0, 1.3 * high))
    context.yaxis.set_major_formatter("{x:,.0f}")
    for limit, name in ((high, "high limit"), (low, "low limit")):
        context.axhline(limit, color="black", linewidth=0.8, linestyle=":")
        edge: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        context.annotate(name, (1, limit), xytext=(4, 0), va="center", fontsize=8, **edge)
    for axes in (cost, hits, context):
        axes.grid(visible=True, alpha=0.3)
    figure.legend(*cost.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    write_figure(figure, Path(target))
    plt.close(figure)


def _unequal(by_turn: dict[str, dict[str, list[float]]]) -> list[tuple[list[str], dict[str, list[float]]]]:
    found: list[tuple[list[str], dict[str, list[float]]]] = []
    for name, columns in by_turn.items():
        same = next((names for names, other in found if other == columns), None)
        if same is None:
            found.append(([name], columns))
        else:
            same.append(name)
    return found


def _smooth(values: list[float], window: int) -> list[float]:
    """The mean of each value and those before it, at most ``window``."""
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    starts = (max(0, end - window) for end in range(1, len(sums)))
    return [(sums[end] - sums[start]) / (end - start) for end, start in enumerate(starts, start=1)]
