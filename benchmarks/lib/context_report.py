"""The tables of docs/context.md, from the reports of ``context_policies.py`` and ``examples/chat_loop.py``."""

from typing import Any


def markdown(report: dict[str, Any]) -> dict[str, str]:
    """Every table of simulated chats by the name of its part."""
    return {f"context_{name}": simulated(report[name]) for name in ("steady", "stateless", "idle", "restless")}


def simulated(rows: list[dict[str, Any]]) -> str:
    """One scenario."""
    lifetimes = "ttl_s" in rows[0]
    heads = ["policy", *(["cache lasts, s"] if lifetimes else []), "cost a turn", "hit rate"]
    heads += ["mean context", "cold turns"]
    lines = ["| " + " | ".join(heads) + " |", "| --- " + "| ---: " * (len(heads) - 1) + "|"]
    for row in rows:
        cells = [row["policy"], *([f"{row['ttl_s']:,}"] if lifetimes else [])]
        cells += [f"{row['cost_per_turn']:,.0f}", f"{row['hit_rate']:.3f}"]
        cells += [f"{row['mean_context_tokens']:,.0f}", f"{row['cold_share']:.1%}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def chat_table(report: dict[str, Any]) -> str:
    """The real model's chat."""
    about = report["conditions"]
    lines = [
        (
            f"{about['model']} ({about['dtype']}) on {about['cpu']}, {about['cores']} cores; {about['turns']} turns, "
            f"limits {about['high_tokens']:,} and {about['low_tokens']:,}; {about['date_utc'][:10]}. Means over "
            "the turns in which something was dropped."
        ),
        "",
        "| policy | turns | prefill, ms | worst, ms | prompt tokens | of them computed |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in report["rows"]:
        cells = [row["policy"], str(row["turns_after_the_first_cut"])]
        cells += [f"{row[name] * 1e3:,.0f}" for name in ("mean_prefill_s", "worst_prefill_s")]
        cells += [f"{row[name]:,.0f}" for name in ("mean_prompt_tokens", "mean_computed_tokens")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
