"""The table of ``scripts/torture`` for docs/reliability.md, from the JSON of its last long run.

| fault | unit | tried | survived | wrong bytes | lost flushed | leaks |

Faults that were not survived, or lost or leaked anything, are named once more under the table, so that
nobody has to look for them among a hundred rows.
"""

from __future__ import annotations

from typing import Any

COUNTS = ("tried", "survived", "wrong_bytes", "lost_flushed", "leaks")


def markdown(report: dict[str, Any]) -> str:
    """For docs/reliability.md: how it was run, a line for every row, the sums, and what was not good.

    Args:
        report: What ``scripts/torture --json`` wrote.
    """
    rows: list[dict[str, Any]] = report["rows"]
    total = {"fault": "all", "unit": "", **{name: sum(row[name] for row in rows) for name in COUNTS}}
    heads = ("fault", "unit", *(name.replace("_", " ") for name in COUNTS))
    lines = [_line(heads), _line(["---", "---", *["---:"] * len(COUNTS)])]
    lines += [_line([row["fault"], row["unit"], *(f"{row[name]:,}" for name in COUNTS)]) for row in [*rows, total]]
    return "\n".join([_how(report), "", *lines, "", _verdict(rows)])


def _how(report: dict[str, Any]) -> str:
    about = report["conditions"]
    disk = f", {about['disk']['filesystem']}" if about["disk"] else ""
    return (
        f"{about['cpu']}, {about['cores']} cores{disk}; `scripts/torture`, mode {report['mode']}, "
        f"from seed {report['seed']} on, {report['seconds'] / 60:.0f} minutes; {about['date_utc'][:10]}."
    )


def _verdict(rows: list[dict[str, Any]]) -> str:
    bad = [row["fault"] for row in rows if _is_bad(row)]
    return f"Not as it should be: {'; '.join(bad)}." if bad else "Every row is as it should be."


def _is_bad(row: dict[str, Any]) -> bool:
    return row["survived"] != row["tried"] or any(row[name] for name in ("wrong_bytes", "lost_flushed", "leaks"))


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"
