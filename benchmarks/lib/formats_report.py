"""The table and the drawing of ``storage_formats``, and the table of docs/formats.md."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Columns = dict[str, Callable[[Row], str]]


def _digits(name: str, digits: int = 2) -> Callable[[Row], str]:
    return lambda row: "-" if row.get(name) is None else f"{row[name]:.{digits}f}"


def _small(name: str) -> Callable[[Row], str]:
    return lambda row: "-" if row.get(name) is None else f"{row[name]:.1e}" if row[name] else "0"


def _bits(row: Row) -> str:
    return "-" if row.get("identical_bits") is None else "identical" if row["identical_bits"] else "differ"


COLUMNS: Columns = {
    "dtype": lambda row: str(row["dtype"]),
    "format": lambda row: str(row["format"]),
    "place / raw": _digits("stored_share", 3),
    "in use / raw": _digits("used_share", 3),
    "encode GiB/s": _digits("encode_gib_per_s"),
    "decode GiB/s": _digits("decode_gib_per_s"),
    "of memcpy": lambda row: f"{_digits('encode_of_memcpy')(row)}, {_digits('decode_of_memcpy')(row)}",
    "cold read ms": _digits("cold_read_ms", 0),
    "faster than raw": lambda row: f"{row['cold_read_speedup']:.2f}x",
    "bits": _bits,
    "KL, nats": _small("kl_nats"),
    "same next token": lambda row: "-" if row.get("kl_nats") is None else f"{row['next_token_agreement']:.1%}",
    "perplexity": _digits("perplexity", 3),
}


def table(report: dict[str, Any]) -> str:
    """For a terminal: columns as wide as what stands in them."""
    lines = [list(COLUMNS), *_cells(report)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def markdown(report: dict[str, Any]) -> str:
    """For docs/formats.md, with the conditions that the numbers need."""
    about = report["conditions"]
    head = (
        f"{about['model']} on {about['cpu']}, {about['cores']} cores; {about['prompts']} prompts of "
        f"{about['prefix_tokens']:,} tokens of English text and {about['following_tokens']:,} that follow each; "
        f"{about['runs']} interleaved runs, medians; {about['date_utc'][:10]}."
    )
    rows = [list(COLUMNS), ["---"] * len(COLUMNS), *_cells(report)]
    return head + "\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in rows)


def _cells(report: dict[str, Any]) -> list[list[str]]:
    return [[column(row) for column in COLUMNS.values()] for row in report["rows"]]


def draw(report: dict[str, Any], path: Path) -> None:
    """Bytes stored, cold read against raw, and divergence, format by format."""
    import matplotlib as mpl  # drawing is optional, and its import takes a second

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    about = report["conditions"]
    figure, panels = plt.subplots(1, 3, figsize=(15, 4.5))
    figure.suptitle(f"Storage formats, {about['model']}, {about['cpu']}, {about['cores']} cores")
    titles = {"stored_share": "place on disk / raw", "cold_read_speedup": "cold read, times as fast as raw"}
    for axes, (field, title) in zip(panels, [*titles.items(), ("kl_nats", "divergence, nats a token")], strict=True):
        rows = [row for row in report["rows"] if row.get(field)]
        labels = [f"{row['format']} {row['dtype']}" for row in rows]
        axes.barh(labels, [row[field] for row in rows])
        axes.invert_yaxis()
        axes.set_title(title)
        axes.grid(alpha=0.3, axis="x")
        if field == "kl_nats" and rows:
            axes.set_xscale("log")
        else:
            axes.axvline(1, color="gray", linewidth=0.8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
