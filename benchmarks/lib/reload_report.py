"""What the main benchmark says: rows for JSON, a table, break-even, a price tag, a plot."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kvtier.calibrate.stats import summary

from .reload import PATHS, TIERS, LengthResult
from .shapes import GPUS, SHAPES, break_even_bandwidth, flop_per_kv_byte

GIB = 2**30
DRIVE_BYTES_PER_S = 7e9  # sequential read of a PCIe 4 NVMe drive, vendors' data sheets
ASSUMED_MFU = 0.5  # share of peak FLOP/s in prefill; an assumption

Row = dict[str, Any]
_RATIOS = ("gib_per_s", "limit_gib_per_s", "ratio_to_limit", "ratio_to_floor")


def rows_of(result: LengthResult) -> list[Row]:
    """One row a path, as the JSON contract has it; ``None`` where a figure has no meaning."""
    recompute = statistics.median(result.ttft_s["recompute"])
    return [_row(result, path, recompute) for path in PATHS]


def _row(result: LengthResult, path: str, recompute_s: float) -> Row:
    times = summary(result.ttft_s[path])
    row: Row = {
        "path": path,
        "prompt_tokens": result.num_tokens,
        "p50_ms": times["p50_ms"],
        "p99_ms": times["p99_ms"],
        "runs": times["n"],
        "tokens_per_s": result.num_tokens / times["p50_ms"] * 1e3,
        "speedup": recompute_s * 1e3 / times["p50_ms"],
        "gib_per_s": None,
        "limit_gib_per_s": None,
        "ratio_to_limit": None,
        "get_p50_ms": None,
        "rest_p50_ms": statistics.median(result.rest_s[path]) * 1e3,
        "floor_ms": None,
        "ratio_to_floor": None,
    }
    if path in TIERS and result.num_bytes:
        rates = [result.num_bytes / seconds for seconds in result.get_s[path]]
        limits = result.limit_bytes_per_s[path]
        # The floor: the bytes at the raw rate, then the forward pass of what is left.
        floor_s = result.num_bytes / statistics.median(limits) + statistics.median(result.rest_s[path])
        row |= {
            "gib_per_s": statistics.median(rates) / GIB,
            "limit_gib_per_s": statistics.median(limits) / GIB,
            "ratio_to_limit": statistics.median(rate / limit for rate, limit in zip(rates, limits, strict=True)),
            "get_p50_ms": statistics.median(result.get_s[path]) * 1e3,
            "floor_ms": floor_s * 1e3,
            "ratio_to_floor": times["p50_ms"] / (floor_s * 1e3),
        }
    return row


def break_even_tokens(rows: Sequence[Row]) -> dict[str, int | None]:
    """For each tier, the prompt length from which it beats recomputing; None if it never did.

    Between two measured lengths the crossing is interpolated on logarithmic axes. A tier that
    already wins at the shortest length gets that length: nothing shorter was measured.
    """
    return {path: _crossing([row for row in rows if row["path"] == path]) for path in TIERS}


def _crossing(rows: Sequence[Row]) -> int | None:
    ordered = sorted(rows, key=lambda row: row["prompt_tokens"])
    wins = [row["speedup"] > 1 for row in ordered]
    if not wins or not wins[-1]:
        return None
    first = len(wins) - next((i for i, won in enumerate(reversed(wins)) if not won), len(wins))
    if first == 0:
        return int(ordered[0]["prompt_tokens"])
    low, high = ordered[first - 1], ordered[first]
    x0, x1 = math.log(low["prompt_tokens"]), math.log(high["prompt_tokens"])
    y0, y1 = math.log(low["speedup"]), math.log(high["speedup"])
    return math.ceil(math.exp(x0 + (x1 - x0) * -y0 / (y1 - y0)))


def table(rows: Sequence[Row]) -> str:
    """The measurements for people, one block a prompt length."""
    lines = [
        f"{'tokens':>7} {'path':<10} {'TTFT p50 ms':>12} {'p99 ms':>9} {'tokens/s':>10} {'faster':>8} "
        + " ".join(f"{name:>9}" for name in ("GiB/s", "limit", "of limit", "of floor"))
    ]
    for row in rows:
        figures = (
            " ".join(
                f"{row[name]:>9.2f}" for name in ("gib_per_s", "limit_gib_per_s", "ratio_to_limit", "ratio_to_floor")
            )
            if row["gib_per_s"] is not None
            else " ".join(f"{'-':>9}" for _ in range(4))
        )
        lines.append(
            f"{row['prompt_tokens']:>7} {row['path']:<10} {row['p50_ms']:>12.1f} {row['p99_ms']:>9.1f}"
            f" {row['tokens_per_s']:>10.0f} {row['speedup']:>7.1f}x {figures}"
        )
        if row["path"] == PATHS[-1]:
            lines.append("")
    return "\n".join(lines)


def computed_ratios(num_params: int, kv_bytes_per_token: int) -> list[Row]:
    """Loading against recomputing for bigger models on GPUs: computed from published peaks, not measured."""
    here = flop_per_kv_byte(num_params, kv_bytes_per_token)
    rows: list[Row] = []
    for shape_name in ("llama-3.2-1b", "llama-3.1-8b", "qwen3-32b", "llama-3.1-70b"):
        for gpu_name in ("rtx-4090", "h100-sxm"):
            shape, gpu = SHAPES[shape_name], GPUS[gpu_name]
            if 2 * shape.num_params > gpu.memory_bytes:
                continue  # its bf16 weights do not fit: nobody has this choice
            needed = break_even_bandwidth(shape, gpu, ASSUMED_MFU, num_tokens=8192)
            rows.append(
                {
                    "shape": shape_name,
                    "gpu": gpu.name,
                    "flop_per_kv_byte": flop_per_kv_byte(shape.num_params, shape.kv_bytes_per_token),
                    "flop_per_kv_byte_to_measured_model": flop_per_kv_byte(shape.num_params, shape.kv_bytes_per_token)
                    / here,
                    "break_even_gb_per_s": needed / 1e9,
                    "one_drive_speedup": DRIVE_BYTES_PER_S / needed,
                }
            )
    return rows


def words(computed: Sequence[Row], *, model: str, device: str, flop_per_byte: float) -> str:
    """The caveat that belongs beside every table of a small model."""
    lines = [
        f"{model} spends {flop_per_byte / 1e3:.1f} kFLOP on each KV byte it makes, on {device}.",
        "A small model on a slow processor flatters the SSD: recomputing is slow there, loading is not.",
        "Computed, not measured: bf16 KV, 8,192 tokens, loading not overlapped;",
        f"assumed {ASSUMED_MFU:.0%} of published peak FLOP/s, one PCIe 4 drive of {DRIVE_BYTES_PER_S / 1e9:.0f} GB/s:",
    ]
    lines += [
        f"  {row['shape']:<14} on {row['gpu']:<22} loading wins above {row['break_even_gb_per_s']:>5.1f} GB/s;"
        f" one drive: {row['one_drive_speedup']:>5.2f}x recompute"
        + ("" if row["one_drive_speedup"] > 1 else "  (the cache loses)")
        for row in computed
    ]
    return "\n".join(lines)


def price_tag(rows: Sequence[Row], *, kv_bytes_per_token: int, prices: dict[str, tuple[float, str]]) -> list[Row]:
    """Dollars per million tokens at the longest prompt: machine time, and an hour of keeping.

    Args:
        rows: The benchmark's rows.
        kv_bytes_per_token: As stored.
        prices: ``machine_usd_per_hour``, ``ram_usd_per_gb_month``, ``disk_usd_per_gb_month``, each
            with its source.
    """
    longest = max(row["prompt_tokens"] for row in rows)
    hourly = prices["machine_usd_per_hour"][0]
    gb_per_mtok = kv_bytes_per_token * 1e6 / 1e9
    rent = {
        "host": prices["ram_usd_per_gb_month"][0] * gb_per_mtok / 730,
        "disk_warm": prices["disk_usd_per_gb_month"][0] * gb_per_mtok / 730,
        "disk_cold": prices["disk_usd_per_gb_month"][0] * gb_per_mtok / 730,
    }
    return [
        {
            "path": row["path"],
            "prompt_tokens": longest,
            "usd_per_mtok": row["p50_ms"] / 1e3 / longest * 1e6 / 3600 * hourly,
            "usd_per_mtok_hour_kept": rent.get(row["path"]),
        }
        for row in rows
        if row["prompt_tokens"] == longest
    ]


def draw(rows: Sequence[Row], break_even: dict[str, int | None], title: str, target: Path) -> None:
    """Time to first token against prompt length, both logarithmic, one line a path."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = {"disk_warm": "disk (pages in RAM)", "disk_cold": "disk (cold)"}
    figure, axes = plt.subplots(figsize=(8, 5.2), layout="constrained")
    for path, marker in zip(PATHS, "sovd^", strict=True):
        own = sorted((row for row in rows if row["path"] == path), key=lambda row: row["prompt_tokens"])
        x, y = [row["prompt_tokens"] for row in own], [row["p50_ms"] for row in own]
        (line,) = axes.plot(
            x, y, marker=marker, label=names.get(path, path), linewidth=2 if path == "recompute" else 1.4
        )
        where = break_even.get(path)
        if where is not None and x[0] < where:
            height = math.exp(_interpolate([math.log(v) for v in x], [math.log(v) for v in y], math.log(where)))
            axes.plot([where], [height], marker="*", markersize=15, color=line.get_color(), linestyle="none")
            axes.annotate(f"{where} tokens", (where, height), textcoords="offset points", xytext=(6, -14), fontsize=8)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("prompt length, tokens")
    axes.set_ylabel("time to first token, ms (median)")
    axes.set_title(title, fontsize=10)
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(
        title="star: break-even" if any(v and v > rows[0]["prompt_tokens"] for v in break_even.values()) else None
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=130)
    plt.close(figure)


def _interpolate(x: Sequence[float], y: Sequence[float], at: float) -> float:
    right = next(i for i, value in enumerate(x) if value >= at)
    left = max(0, right - 1)
    return y[right] if x[right] == x[left] else y[left] + (y[right] - y[left]) * (at - x[left]) / (x[right] - x[left])
