"""What was measured on a GPU, as the tables of docs/benchmarks.md."""

from typing import Any

from .result_tables import heading, layerwise_table

TIERS = ("device", "host", "disk_warm", "disk_cold")


def parts(reload: dict[str, Any], layerwise: dict[str, Any], profile: dict[str, Any]) -> dict[str, str]:
    """The marked parts by name."""
    return {
        "gpu_gets": gets_table(reload),
        "gpu_tiers": tiers_table(profile),
        "gpu_layerwise": layerwise_table(layerwise),
    }


def gets_table(report: dict[str, Any]) -> str:
    """A prompt computed, beside a bare get of its blocks from each tier, and that beside the tier's limit."""
    rows = {(row["prompt_tokens"], row["path"]): row for row in report["rows"]}
    lines = [
        f"{heading(report)} On {report['conditions']['gpu']}.",
        "",
        "| tokens | KV, MiB | computed, ms | " + " | ".join(f"get {tier}, ms" for tier in TIERS) + " |",
        "| ---: | ---: | ---: | " + " | ".join("---:" for _ in TIERS) + " |",
    ]
    for tokens in sorted({tokens for tokens, _ in rows}):
        mib = tokens * report["conditions"]["kv_bytes_per_token"] / 2**20
        cells = [f"{tokens:,}", f"{mib:,.0f}", f"{rows[tokens, 'recompute']['p50_ms']:,.0f}"]
        for tier in TIERS:
            row = rows[tokens, tier]
            cells.append(f"{row['get_p50_ms']:,.1f} ({row['ratio_to_limit']:.2f})")
        lines.append("| " + " | ".join(cells) + " |")
    limits = "a copy within the GPU, a copy from page-locked memory, memcpy, an O_DIRECT read"
    return "\n".join([*lines, "", f"In brackets: of the limit in the same rounds ({limits})."])


def tiers_table(profile: dict[str, Any]) -> str:
    """Reads and writes of each tier as ``kvtier calibrate`` measured them, and what the raw medium does."""
    lines = [
        f"{profile['name']}: {profile['machine']}; {profile['source']}, {profile['date']}.",
        "",
        "| tier | read, GB/s | raw, GB/s | of it | write, GB/s | raw, GB/s | of it |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, tier in profile["tiers"].items():
        cells = [name]
        for op in ("read", "write"):
            own, raw = tier[f"{op}_bytes_per_s"]["value"], tier[f"raw_{op}_bytes_per_s"]["value"]
            cells += [f"{own / 1e9:,.1f}", f"{raw / 1e9:,.1f}", f"{own / raw:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
