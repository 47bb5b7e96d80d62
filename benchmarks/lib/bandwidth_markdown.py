"""The tables of docs/benchmarks.md, from a report of ``tier_bandwidth``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .bandwidth_report import by_cell

Row = dict[str, Any]
Columns = dict[str, Callable[[Row], str]]


def markdown(report: dict[str, Any]) -> dict[str, str]:
    """Every marked part of the page, by name."""
    about, last = report["conditions"], max(row["turnover"] for row in report["sustained"])
    here = _real_model(report["rows"])
    machine = (
        f"{about['cpu']}, {about['cores']} cores; {about['runs']} interleaved runs, medians; {about['date_utc'][:10]}."
    )
    own = [row for row in here if row["store"] == "kvtier"]
    return {
        "paths": f"{machine}\n\n{_table(PATHS, own)}",
        "stores": _table(STORES, [row for row in here if row["path"].startswith("disk")]),
        "grid": _grid([row for row in report["rows"] if row["store"] == "kvtier" and row["op"] in {"get", "put"}]),
        "sustained": _table(SUSTAINED, [row for row in report["sustained"] if row["turnover"] in {0, 1, last}]),
        "caller": _table(CALLER, report["caller"]),
        "stages": _table(STAGES, report["stages"]),
    }


def _real_model(rows: list[Row]) -> list[Row]:
    """The cell that all stores share, of blocks nearest in size to a small real model's."""
    batch = max(row["batch"] for row in rows if row["store"] != "kvtier")
    size = min({row["block_bytes"] for row in rows}, key=lambda size: abs(size - (1440 << 10)))
    return sorted((row for row in rows if (row["block_bytes"], row["batch"]) == (size, batch)), key=by_cell)


def _text(name: str) -> Callable[[Row], str]:
    return lambda row: str(row[name])


def _digits(name: str) -> Callable[[Row], str]:
    return lambda row: "" if row[name] is None else f"{row[name]:.2f}"


RATE: Columns = {"GiB/s": _digits("gib_per_s")}
PATHS: Columns = {
    "op": _text("op"),
    "path": _text("path"),
    **RATE,
    "limit": lambda row: f"{row['limit_gib_per_s']:.2f} ({row['limit']})",
    "share of it": _digits("ratio_to_limit"),
    "CPU s/GiB": _digits("cpu_s_per_gib"),
}
STORES: Columns = {
    "store": _text("store"),
    "op": _text("op"),
    "path": _text("path"),
    **RATE,
    "share of the limit": _digits("ratio_to_limit"),
    "durable": lambda row: {True: "yes", False: "no", None: ""}[row["durable"]],
}
SUSTAINED: Columns = {
    "store": _text("store"),
    "turnover": _text("turnover"),
    **RATE,
    "share of the raw write": _digits("ratio_to_limit"),
    "file / payload": lambda row: f"{row['file_bytes'] / row['payload_bytes']:.2f}",
}
CALLER: Columns = {
    "the caller waits for": _text("what"),
    "p50 ms": _digits("p50_ms"),
    "p99 ms": _digits("p99_ms"),
    "x memcpy": _digits("times_memcpy"),
}
STAGES: Columns = {
    "op": _text("op"),
    "stage": _text("stage"),
    "share of all thread time": lambda row: f"{row['share']:.0%}",
    "thread ms": lambda row: f"{row['thread_ms']:.1f}",
}


def _grid(rows: list[Row]) -> str:
    """Shares of the limit: a line for each size and batch, a column for each way."""
    ways = [(op, path) for op in ("get", "put") for path in ("device", "host", "disk_warm", "disk_cold")]
    share = {(r["block_bytes"], r["batch"], r["op"], r["path"]): r["ratio_to_limit"] for r in rows}
    cells = sorted({(row["block_bytes"], row["batch"]) for row in rows})
    lines = [
        [f"{size >> 10} KiB x {batch}", *(f"{share[size, batch, *way]:.2f}" for way in ways)] for size, batch in cells
    ]
    return _lines(["blocks", *(f"{op} {path}" for op, path in ways)], lines)


def _table(columns: Columns, rows: Iterable[Row]) -> str:
    return _lines(list(columns), [[column(row) for column in columns.values()] for row in rows])


def _lines(heads: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [heads, ["---" for _ in heads], *rows])
