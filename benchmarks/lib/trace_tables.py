"""The table of traces in docs/traces.md."""

from __future__ import annotations

from typing import Any

_HEADS = (
    "trace",
    "requests",
    "block uses",
    "unique blocks",
    "used once",
    "best hit rate: blocks",
    "tokens",
    "reuse distance p50, p90",
    "between uses p50, p90",
    "sessions going on p50, max",
    "read, CPU s",
    "stats, CPU s",
    "peak MiB",
)


def markdown(report: dict[str, Any]) -> str:
    """One row a trace."""
    about = report["conditions"]
    lines = [
        f"{about['cpu']}, {about['cores']} cores, Python {about['python']}; {about['date_utc'][:10]}.",
        "",
        f"| {' | '.join(_HEADS)} |",
        "| " + " | ".join("---" for _ in _HEADS) + " |",
        *(f"| {' | '.join(_cells(row))} |" for row in report["rows"]),
    ]
    return "\n".join(lines)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    distance, between = row["reuse_distance_blocks"]["percentiles"], row["time_between_uses_s"]
    interval_s, on = row["session_interval_s"], row["conversations_going_on"]
    return (
        row["trace"] + (f", every {interval_s:g} s" if interval_s is not None else ""),
        f"{row['requests']:,}",
        f"{row['block_references']:,}",
        f"{row['unique_blocks']:,}",
        f"{row['used_once_share']:.1%}",
        f"{row['best_block_hit_rate']:.2%}",
        f"{row['best_token_hit_rate']:.2%}",
        f"{distance['p50']:,}, {distance['p90']:,}" if distance else "-",
        f"{between['p50']:.0f} s, {between['p90']:.0f} s" if between else "-",
        f"{on['p50']:,}, {on['max']:,}" if on else "-",
        f"{row['read_cpu_s']:.2f}",
        f"{row['stats_cpu_s']:.1f}",
        f"{row['peak_bytes'] / 2**20:,.0f}",
    )
