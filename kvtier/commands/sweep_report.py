"""The HTML report of a sweep, from what its JSON says."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from kvtier.commands import html, sweep_plot
from kvtier.commands.html import Cell, Markup
from kvtier.commands.plots import inline_svg

DEFINITIONS = {
    "block hit": "a reference to a block that some tier held when the prompt came",
    "prefix hit": "the same, and every block before it in the prompt was held: what a prefix cache can serve",
    "token hit": "a token of the prompt that a prefix hit stands for",
    "hit rate": "hits over references, or over input tokens. A store never holds a block without the one before it, so "
    "the first two are equal; a last block that is not whole is a reference like any other",
    "share of the optimum": "prefix hits over those of belady at the same capacity, which knows what comes and lets in "
    "only what is worth it; no time to live and no admission hold it back",
}

_RATES = ("block", "prefix", "token")


def report(result: Mapping[str, Any]) -> str:
    """The whole page."""
    parts = [
        html.code(result["command"]),
        html.section("The trace", [html.facts(_trace(result))]),
        html.section("Hit rate by capacity", [_curves(result), _policies(result)]),
        *_front(result),
        html.section("What the words mean", [html.facts(DEFINITIONS)]),
        html.section("Made with", [html.facts(result["versions"])]),
    ]
    return html.page(f"kvtier sweep: {result['trace']}", parts)


def _trace(result: Mapping[str, Any]) -> dict[str, str]:
    stats = result["stats"]
    hours = stats["duration_s"] / 3600
    best = stats["best_block_hit_rate"], stats["best_token_hit_rate"]
    found = {
        "name": result["trace"],
        "requests": f"{stats['requests']:,} in {hours:,.2f} h",
        "input tokens": f"{stats['input_tokens']:,}",
        "block references": f"{stats['block_references']:,}",
        "blocks": f"{stats['unique_blocks']:,} of {stats['block_tokens']} tokens",
        "hit rate of a cache that keeps everything": f"{best[0]:.2%} of blocks, {best[1]:.2%} of tokens",
        "malformed lines passed over": f"{result['skipped_lines']:,}",
    }
    limits = {
        "admission": result["admission"] != "all" and result["admission"],
        "time to live": result["ttl_s"] is not None
        and f"{result['ttl_s']:g} s from {'the last use' if result['refresh'] else 'being stored'}",
    }
    return found | {f"{name} (all but the optimum)": text for name, text in limits.items() if text}


def _curves(result: Mapping[str, Any]) -> Markup:
    title = sweep_plot.hit_rate_title(result)
    pictures = []
    for rate, caption in (("prefix", "Prefix hits: what a prefix cache can serve."), ("token", "The same in tokens.")):
        draw = partial(_one, partial(sweep_plot.curves, result["rows"], title=title, rate=f"{rate}_hit_rate"))
        pictures.append((inline_svg(rate, draw), f"{caption} The dashed line is the optimum, where it was replayed."))
    return html.figures(pictures)


def _one(paint: Any, panels: list[Any]) -> None:
    paint(panel=panels[0])


def _policies(result: Mapping[str, Any]) -> Markup:
    head = ["policy", "capacity, blocks", *(f"{rate} hit rate" for rate in _RATES), "of the optimum"]
    rows = [
        [
            row["policy"],
            _count(row["capacity_blocks"]),
            *(_percent(row[f"{rate}_hit_rate"]) for rate in _RATES),
            Cell("-", -1.0) if row["share_of_optimum"] is None else _percent(row["share_of_optimum"]),
            _count(row["written_blocks"]),
            _count(row["evicted_blocks"]),
            Cell(f"{row['seconds']:.2f}", row["seconds"]),
            _count(round(row["references_per_s"])),
        ]
        for row in result["rows"]
    ]
    return html.table([*head, "blocks written", "evicted", "seconds", "references/s"], rows)


def _front(result: Mapping[str, Any]) -> list[Markup]:
    if "grid" not in result:
        return []
    its = result["grid"]
    names = list(dict.fromkeys(name for row in its["rows"] for name in row["sizes"]))
    draw = partial(_one, partial(sweep_plot.front, its["rows"], title=sweep_plot.front_title(result)))
    said = (
        f"{its['policy']} in all tiers of {result['profile']}, written {its['write'].replace('_', ' ')}. Nothing is "
        "both cheaper and sooner than what is on the front. The memory of the first tier is in the price of the "
        "machine: more of it costs nothing here, so compare sizes of the other tiers at one size of the first."
    )
    head = ["front", *(f"{name}, blocks" for name in names), "USD per 1000 requests", "mean TTFT, s", "token hit rate"]
    rows = [
        [
            "yes" if row["pareto"] else "",
            *(_count(row["sizes"].get(name, 0)) for name in names),
            Cell(f"{1000 * row['usd_per_request']:.4f}", row["usd_per_request"]),
            Cell(f"{row['ttft_mean_s']:.4f}", row["ttft_mean_s"]),
            _percent(row["token_hit_rate"]),
        ]
        for row in its["rows"]
    ]
    caption = "Each point is one combination of sizes; the line joins the Pareto front, the cross is no cache at all."
    parts = [html.paragraph(said), html.figures([(inline_svg("front", draw), caption)]), html.table(head, rows)]
    return [html.section("Cost against time to first token", parts)]


def _count(number: int) -> Cell:
    return Cell(f"{number:,}", number)


def _percent(share: float) -> Cell:
    return Cell(f"{share:.2%}", share)
