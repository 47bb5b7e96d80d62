"""The tables and the drawing of ``integrity``, for a terminal and for docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Columns = dict[str, Callable[[Row], str]]

COSTS: Columns = {
    "cost of": lambda row: str(row["cost"]),
    "op": lambda row: str(row["op"]),
    "with, GiB/s": lambda row: f"{row['with_gib_per_s']:.2f}",
    "without, GiB/s": lambda row: f"{row['without_gib_per_s']:.2f}",
    "time with / without": lambda row: f"{row['time_ratio']:.2f}",
    "limit, GiB/s": lambda row: f"{row['limit_gib_per_s']:.2f} ({row['limit']})",
    "with / limit": lambda row: f"{row['with_of_limit']:.2f}",
    "without / limit": lambda row: f"{row['without_of_limit']:.2f}",
}
PARTS: Columns = {
    "alone": lambda row: str(row["part"]),
    "GiB/s": lambda row: f"{row['gib_per_s']:.2f}",
    "of memcpy": lambda row: f"{row['of_memcpy']:.2f}",
}
PER_BLOCK: Columns = {
    "once for each block": lambda row: str(row["what"]),
    "ns": lambda row: f"{row['ns']:,.0f}",
}


def table(report: dict[str, Any]) -> str:
    """For a terminal: columns as wide as what stands in them."""
    parts = [_aligned(columns, report[name]) for name, columns in _tables()]
    return "\n\n".join([_head(report), *parts])


def markdown(report: dict[str, Any]) -> str:
    """For docs/benchmarks.md, with the conditions that the numbers need."""
    parts = [_piped(columns, report[name]) for name, columns in _tables()]
    return "\n\n".join([_head(report), *parts])


def _tables() -> tuple[tuple[str, Columns], ...]:
    return ("costs", COSTS), ("parts", PARTS), ("per_block", PER_BLOCK)


def _head(report: dict[str, Any]) -> str:
    about = report["conditions"]
    return (
        f"{about['cpu']}, {about['cores']} cores; {about['batch']} blocks of {about['block_bytes'] >> 10:,} KiB at a "
        f"time; {about['runs']} interleaved runs, medians; {about['date_utc'][:10]}."
    )


def _aligned(columns: Columns, rows: list[Row]) -> str:
    lines = [list(columns), *_cells(columns, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def _piped(columns: Columns, rows: list[Row]) -> str:
    marks = ["---", *("---:" for _ in list(columns)[1:])]
    return "\n".join("| " + " | ".join(line) + " |" for line in [list(columns), marks, *_cells(columns, rows)])


def _cells(columns: Columns, rows: list[Row]) -> list[list[str]]:
    return [[column(row) for column in columns.values()] for row in rows]


def draw(report: dict[str, Any], path: Path) -> None:
    """Rates with and without each cost beside the limit; the parts alone."""
    import matplotlib as mpl  # drawing is optional, and its import takes a second

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    about, costs, parts = report["conditions"], report["costs"], report["parts"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(14, 4.5))
    figure.suptitle(f"Verification and encryption, {about['cpu']}, {about['cores']} cores")
    labels = [f"{row['cost']}: {row['op']}" for row in costs]
    for offset, (field, label) in enumerate(
        (("without_gib_per_s", "without"), ("with_gib_per_s", "with"), ("limit_gib_per_s", "raw limit"))
    ):
        left.barh([i + 0.27 * offset for i in range(len(costs))], [row[field] for row in costs], 0.27, label=label)
    left.set_yticks([i + 0.27 for i in range(len(costs))], labels)
    left.set(xlabel="GiB/s", title="disk tier")
    left.legend(fontsize=8)
    right.barh([row["part"] for row in parts], [row["gib_per_s"] for row in parts])
    right.set(xlabel="GiB/s", title="the parts alone")
    for axes in (left, right):
        axes.invert_yaxis()
        axes.grid(alpha=0.3, axis="x")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
