"""Tables and plot of ``tier_bandwidth``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_HEAD = f"{'store':<13}{'op':<9}{'path':<17}{'block KiB':>10}{'batch':>6}{'GiB/s':>8}{'limit':>8}{'ratio':>7}"
_HEAD += f"{'p50 ms':>9}{'p99 ms':>9}{'CPU s/GiB':>11}"


def table(report: dict[str, Any]) -> str:
    """Every row, then the turnovers."""
    lines = [_HEAD]
    last = None
    for row in sorted(report["rows"], key=by_cell):
        cell = (row["block_bytes"], row["batch"])
        lines += [""] if cell != last else []
        last = cell
        lines.append(
            f"{row['store']:<13}{row['op']:<9}{row['path']:<17}{row['block_bytes'] >> 10:>10}{row['batch']:>6}"
            f"{row['gib_per_s']:>8.2f}{row['limit_gib_per_s']:>8.2f}{row['ratio_to_limit']:>7.2f}"
            f"{row['p50_ms']:>9.2f}{row['p99_ms']:>9.2f}{row['cpu_s_per_gib']:>11.2f}"
        )
    lines += [
        "",
        "a full store, blocks replaced at random, durable: delete and put against a raw write of the same rounds",
    ]
    lines.append(f"{'store':<13}{'turnover':>9}{'GiB/s':>8}{'limit':>8}{'ratio':>7}{'file/payload':>14}")
    lines += [
        f"{row['store']:<13}{row['turnover']:>9}{row['gib_per_s']:>8.2f}{row['limit_gib_per_s']:>8.2f}"
        f"{row['ratio_to_limit']:>7.2f}{row['file_bytes'] / row['payload_bytes']:>14.2f}"
        for row in report["sustained"]
    ]
    lines += ["", "what the caller of a store waits for"]
    for row in report["caller"]:
        beside = (
            "" if row["times_memcpy"] is None else f"   {row['times_memcpy']:.2f} x memcpy ({row['memcpy_ms']:.2f} ms)"
        )
        lines.append(f"{row['what']:<70}{row['p50_ms']:>9.2f} ms{beside}")
    lines += ["", "where the time goes: share of what all threads of the disk tier spent"]
    lines += [
        f"{row['op']:<5}{row['stage']:<36}{row['share']:>7.1%}{row['thread_ms']:>9.1f} ms" for row in report["stages"]
    ]
    return "\n".join(lines)


def by_cell(row: dict[str, Any]) -> tuple[Any, ...]:
    """Sorts rows by block size, batch, operation and path, kvtier first."""
    return row["block_bytes"], row["batch"], row["op"], row["path"], row["store"] != "kvtier", row["store"]


def draw(report: dict[str, Any], path: Path) -> None:
    """Share of the limit: kvtier by path and block size; all stores at one size; a full store over time."""
    import matplotlib as mpl  # drawing is optional, and its import takes a second

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (by_size, by_store, over_time) = plt.subplots(1, 3, figsize=(17, 5))
    figure.suptitle(f"Share of the raw limit, {report['conditions']['cpu']}, {report['conditions']['cores']} cores")
    rows = report["rows"]
    batch = max(row["batch"] for row in rows if row["store"] != "kvtier")
    for op, where in sorted(
        {(row["op"], row["path"]) for row in rows if row["store"] == "kvtier" and row["op"] in {"get", "put"}}
    ):
        mine = [r for r in rows if (r["store"], r["op"], r["path"]) == ("kvtier", op, where) and _widest(r, rows)]
        mine.sort(key=lambda row: row["block_bytes"])
        style = "-o" if op == "get" else "--s"
        by_size.plot(
            [r["block_bytes"] / 2**10 for r in mine], [r["ratio_to_limit"] for r in mine], style, label=f"{op} {where}"
        )
    by_size.set(xscale="log", xlabel="block, KiB", ylabel="share of the raw limit", title="kvtier, longest batch")
    by_size.legend(fontsize=8)
    _bars(by_store, [r for r in rows if r["batch"] == batch])
    for store in dict.fromkeys(row["store"] for row in report["sustained"]):
        mine = [row for row in report["sustained"] if row["store"] == store]
        over_time.plot([r["turnover"] for r in mine], [r["ratio_to_limit"] for r in mine], "-o", label=store)
    over_time.set(
        xlabel="turnover (0 fills the store)", ylabel="share of the raw write", title="durable put at a full store"
    )
    over_time.legend(fontsize=8)
    for axes in (by_size, over_time):
        axes.axhline(1, color="gray", linewidth=0.8)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    over_time.set_xticks(range(1 + max(row["turnover"] for row in report["sustained"])))
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _widest(row: dict[str, Any], rows: list[dict[str, Any]]) -> bool:
    return bool(row["batch"] == max(r["batch"] for r in rows if r["block_bytes"] == row["block_bytes"]))


def _bars(axes: Any, rows: list[dict[str, Any]]) -> None:
    """Cold get and put of every store at the block size nearest to a real model's."""
    size = min({row["block_bytes"] for row in rows}, key=lambda size: abs(size - (1440 << 10)))
    here = [row for row in rows if row["block_bytes"] == size]
    stores = list(dict.fromkeys(row["store"] for row in here))
    for offset, (op, wanted) in enumerate((("get", {"disk_cold"}), ("put", {"disk_cold", "disk_warm"}))):
        best = {
            store: max(
                (r["ratio_to_limit"] for r in here if (r["store"], r["op"]) == (store, op) and r["path"] in wanted),
                default=0,
            )
            for store in stores
        }
        axes.barh([i + 0.4 * offset for i in range(len(stores))], list(best.values()), height=0.4, label=f"{op}, disk")
    axes.set_yticks([i + 0.2 for i in range(len(stores))], stores)
    axes.axvline(1, color="gray", linewidth=0.8)
    axes.grid(alpha=0.3, axis="x")
    axes.invert_yaxis()
    axes.set(xlabel="share of the raw limit", title=f"{size >> 10} KiB blocks, {rows[0]['batch']} at a time")
    axes.legend(fontsize=8)
