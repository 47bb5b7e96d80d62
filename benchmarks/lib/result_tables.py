"""The smaller tables of docs/benchmarks.md, each from the report of its script."""

from typing import Any

SETTINGS = ("load", "compute", "both", "auto")


def scale_table(report: dict[str, Any]) -> str:
    """The index at several sizes."""
    about = report["conditions"]
    lines = [
        f"{about['cpu']}, {about['cores']} cores; {about['date_utc'][:10]}.",
        "",
        "| blocks | bytes each | match, ms | of tokens | put + evict, 1/s | restart, s | then bytes each | and puts |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in report["rows"]:
        cells = [f"{row['blocks']:,}", f"{row['bytes_per_block']:,.0f}", f"{row['match_ms']:.1f}"]
        cells += [f"{row['long_prompt_tokens']:,}", f"{row['decisions_per_s']:,.0f}", f"{row['restart_s']:.2f}"]
        cells += [f"{row['restored_bytes_per_block']:,.0f}", f"{row['restored_decisions_per_s']:,.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def layerwise_table(report: dict[str, Any]) -> str:
    """Loading whole and layer by layer."""
    lines = [
        heading(report),
        "",
        "| prefix | new | from | load, ms | compute, ms | one by one, ms | layerwise, ms | of that | of the larger |",
        "| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in report["rows"]:
        cells = [f"{row['prefix_tokens']:,}", str(row["new_tokens"]), row["path"]]
        cells += [f"{row[name]:,.0f}" for name in ("load_ms", "compute_ms", "whole_ms", "layerwise_ms")]
        cells += [f"{row['ratio_to_whole']:.2f}", f"{row['ratio_to_larger']:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"Logits the same bit for bit: {'yes' if report['exact'] else 'NO'}."])


def meeting_table(report: dict[str, Any]) -> str:
    """Loading, computing, both, and what kvtier chose, at several rates of the tier."""
    about = report["conditions"]
    lines = [
        heading(report) + f" A prefix of {about['prefix_tokens']:,} tokens, {about['prefix_bytes'] / 2**20:.0f} MiB.",
        "",
        "| rate, MB/s | load, s | compute, s | both, s | auto, s | auto took | both / better | auto / better |",
        "| ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: |",
    ]
    for row in report["rows"]:
        rate = row["throttle_bytes_per_s"]
        cells = ["the disk's own" if rate is None else f"{rate / 1e6:,.1f}"]
        cells += [f"{row['seconds'][setting]:.2f}" for setting in SETTINGS]
        cells += ["/".join(row["chosen"]), f"{row['both_ratio']:.2f}", f"{row['auto_ratio']:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    worst = (
        f"Worst: auto {report['worst_auto_ratio']:.2f}, both {report['worst_both_ratio']:.2f} of the better of load "
    )
    worst += f"and compute (goal {report['target_ratio']}). Answers identical: {'yes' if report['exact'] else 'NO'}."
    return "\n".join([*lines, "", worst])


def heading(report: dict[str, Any]) -> str:
    """Model, machine, runs and day in a line."""
    about = report["conditions"]
    return (
        f"{about['model']} ({about['weights']} weights, {about['dtype']}) on {about['cpu']}, {about['cores']} cores, "
        f"{about['device']}; medians of {about['runs']} interleaved runs; {about['date_utc'][:10]}."
    )


def replay_table(report: dict[str, Any]) -> str:
    """How fast traces are replayed."""
    about = report["conditions"]
    software = f"Python {about['python']}, libCacheSim {about['libcachesim']}"
    lines = [
        f"{about['cpu']}, {about['cores']} cores, {software}; {about['date_utc'][:10]}.",
        "",
        "| trace | what | policy | blocks | s | references/s | libCacheSim, references/s | of that | peak, MiB |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    theirs = {(row["policy"], row["mode"]): row["references_per_s"] for row in report["rows"] if row["by"] != "kvtier"}
    for row in report["rows"]:
        if row["by"] != "kvtier":
            continue
        rate, other = row["references_per_s"], theirs.get((row["policy"], row["mode"]))
        cells = [row["trace"], row["mode"], row["policy"], row["capacity"], f"{row['seconds']:.2f}", f"{rate:,.0f}"]
        cells += ["", ""] if other is None else [f"{other:,.0f}", f"{rate / other:.2f}"]
        cells.append(f"{row['peak_rss_bytes'] / 2**20:,.0f}" if "peak_rss_bytes" in row else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
