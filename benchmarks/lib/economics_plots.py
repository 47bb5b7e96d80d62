"""The pictures of docs/economics.md, from the report of economics.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lib.economics_report import PLACES, TIERS, row_of

Json = Mapping[str, Any]

COLOURS = {"8b": "#4477aa", "70b": "#228833", "v3": "#aa3377", "tiny": "#888888"}
PARTS = (
    ("read_usd", "read", "#4477aa"),
    ("write_usd", "write", "#aa3377"),
    ("rent_usd", "rent", "#228833"),
    ("occupancy_usd", "GPU memory during the request", "#ccbb44"),
    ("stall_usd", "GPUs that wait, if loads do not overlap", "#ee6677"),
)
DEEP = "#333333"
PLAIN = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


def draw_all(report: Json, directory: Path) -> None:
    """Write every picture as PNG.

    Args:
        report: As JSON has it; the one of bills is left out where it has none.
        directory: Made if it is not there.
    """
    directory.mkdir(parents=True, exist_ok=True)
    pictures: dict[str, tuple[tuple[float, float], Callable[[Any, Json], None]]] = {
        "share": ((9, 5.2), parts_of_a_hit),
        "holds": ((9, 4.6), holds),
        "market": ((9, 6.4), market),
        "length": ((9, 4.6), length),
        "wear": ((9, 4.2), wear),
    }
    if report["bills"]:
        pictures["bills"] = ((9, 5.6), bills)
    for name, (size, paint) in pictures.items():
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        paint(figure.subplots(), report)
        figure.savefig(directory / f"economics_{name}.png", dpi=110)


def parts_of_a_hit(axes: Any, report: Json) -> None:
    """What a hit is made of, as a share of a miss; the tiny model is off the scale and left to the table."""
    labels, place = [], 0.0
    for fact in report["cases"][:3]:
        for tokens in report["setting"]["lengths"]:
            for tier, hold_s in PLACES:
                row, left = row_of(report, fact["case"], tier, tokens, hold_s=hold_s), 0.0
                for name, _, colour in PARTS:
                    width = row[name] / row["miss_usd"] * 100
                    axes.barh(place, width, left=left, color=colour, alpha=0.4 if name == "stall_usd" else 1)
                    left += width
                axes.text(
                    left + 0.8,
                    place,
                    f"{row['share']:.0%}" if row["share"] > 0.1 else f"{row['share']:.1%}",
                    va="center",
                    fontsize=8,
                )
                labels.append((place, f"{fact['label'].split(' ')[0]}, {tokens // 1024} Ki, {TIERS[tier]}"))
                place += 1
        place += 0.6
    axes.set_yticks([at for at, _ in labels], [label for _, label in labels], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.axvline(10, color=DEEP, linestyle=":", linewidth=1)
    axes.text(10.4, place - 1.1, "10 %", fontsize=8, color=DEEP)
    axes.set_xlabel("% of what computing the same tokens costs; the figure beside a bar is without waiting")
    axes.set_title("A hit is not free: ten hits a write, within 5 min in DRAM or an hour on a drive", fontsize=10)
    for _, label, colour in PARTS:
        axes.barh(0, 0, color=colour, alpha=0.4 if "wait" in label else 1, label=label)
    axes.legend(fontsize=8, loc="lower right")


def holds(axes: Any, report: Json) -> None:
    """How long rent takes to equal one recompute, from the short prompt to the long one."""
    media = ["device", "dram-rented", "dram-bought", "nvme-rented", "s3-standard", "nvme-bought"]
    names = ["GPU memory", "DRAM, rented", "DRAM, bought", "NVMe, rented", "object store", "NVMe, bought"]
    cases = report["cases"][:3]
    for number, fact in enumerate(cases):
        for place, medium in enumerate(media):
            found = [
                hold["recompute_s"]
                for hold in report["holds"]
                if hold["case"] == fact["case"] and medium in {hold["tier"], hold["medium"]}
            ]
            at = place + (number - 1) * 0.24
            axes.plot(
                [min(found), max(found)], [at, at], color=COLOURS[fact["case"]], linewidth=7, solid_capstyle="butt"
            )
        axes.plot([], [], color=COLOURS[fact["case"]], linewidth=7, label=fact["label"])
    for seconds, name in ((5 * MINUTE, "5 min"), (HOUR, "1 h"), (DAY, "1 day")):
        axes.axvline(seconds, color=DEEP, linestyle=":", linewidth=1)
        axes.text(seconds * 1.05, -0.75, name, fontsize=8, color=DEEP)
    axes.set_xscale("log")
    ticks = {
        1: "1 s",
        10: "10 s",
        MINUTE: "1 min",
        600: "10 min",
        HOUR: "1 h",
        10 * HOUR: "10 h",
        4 * DAY: "4 d",
        40 * DAY: "40 d",
    }
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.minorticks_off()
    axes.set_xlim(10, 90 * DAY)
    axes.set_yticks(range(len(media)), names)
    axes.set_ylim(len(media) - 0.4, -1)
    axes.set_xlabel(
        "time after which its rent has cost as much as one recompute (bars: prompts of 8 Ki to 64 Ki tokens)"
    )
    axes.set_title("How long a prefix is worth keeping", fontsize=10)
    axes.legend(fontsize=8, loc="lower left")


def market(axes: Any, report: Json) -> None:
    """List prices as shares, over what a hit costs in three models."""
    prices = report["prices"]
    for place, price in enumerate(prices):
        axes.plot(price["share"] * 100, place, "o", color=DEEP, markersize=5)
        axes.annotate(
            price["name"], (price["share"] * 100, place), xytext=(6, -3), textcoords="offset points", fontsize=7
        )
    for fact in report["cases"][:3]:
        rows = [
            row_of(report, fact["case"], tier, tokens, hold_s=hold_s)
            for tier, hold_s in PLACES
            for tokens in report["setting"]["lengths"]
        ]
        low, high = min(row["share"] for row in rows) * 100, max(row["share_stalled"] for row in rows) * 100
        axes.axvspan(low, high, color=COLOURS[fact["case"]], alpha=0.18, label=f"at cost: {fact['label']}")
    axes.set_xscale("log")
    axes.set_xticks([1, 2, 5, 10, 20, 50, 100], ["1 %", "2 %", "5 %", "10 %", "20 %", "50 %", "100 %"])
    axes.minorticks_off()
    axes.set_xlim(0.9, 130)
    axes.set_yticks([])
    axes.set_ylim(-1, len(prices))
    axes.set_xlabel("price of a cached token as a share of the price of an input token")
    axes.set_title("List prices, and what hits cost (ten hits a write; prompts of 8 Ki to 64 Ki tokens)", fontsize=10)
    axes.legend(fontsize=8, loc="lower right")


def length(axes: Any, report: Json) -> None:
    """The share by prompt length."""
    styles = {"host": "-", "disk": "--"}
    for fact in report["cases"]:
        for tier, hold_s in PLACES:
            points = [p for p in report["curve"] if (p["case"], p["tier"]) == (fact["case"], tier)]
            axes.plot(
                [p["prompt_tokens"] for p in points],
                [p["share"] * 100 for p in points],
                styles[tier],
                color=COLOURS[fact["case"]],
                label=f"{fact['label']}, {TIERS[tier]} {'5 min' if hold_s == 300 else '1 h'}",
            )
    axes.axhline(10, color=DEEP, linestyle=":", linewidth=1)
    axes.axhline(100, color=DEEP, linewidth=1)
    axes.text(2**20, 108, "above this line the cache loses", fontsize=8, color=DEEP, ha="right")
    axes.text(1050, 10.8, "10 %", fontsize=8, color=DEEP)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_yticks([0.1, 1, 10, 100], ["0.1 %", "1 %", "10 %", "100 %"])
    lengths = [2**step for step in range(10, 21, 2)]
    axes.set_xticks(lengths, [f"{n // 1024} Ki" for n in lengths])
    axes.set_xlabel("tokens of the prompt")
    axes.set_ylabel("a hit's cost as a share of a miss's")
    axes.set_title("Long prompts and small KV make hits cheap (ten hits a write, loads overlapped)", fontsize=10)
    axes.legend(fontsize=7, loc="lower left")
    axes.grid(alpha=0.25)


def wear(axes: Any, report: Json) -> None:
    """Hits that a write must bring, by drive."""
    drives = {
        "nvme-bought-2024": "TLC at 0.10 USD/GB",
        "nvme-bought": "TLC at 0.30 USD/GB",
        "qlc-bought": "QLC at 0.30 USD/GB",
    }
    rows = {(row["case"], row["medium"]): row["least_hits"]["8192"] for row in report["wear"]["rows"]}
    for number, fact in enumerate(report["cases"]):
        for place, drive in enumerate(drives):
            hits = rows[fact["case"], drive]
            at = place + (number - 1.5) * 0.2
            axes.bar(at, hits, width=0.18, color=COLOURS[fact["case"]], label=fact["label"] if place == 0 else None)
            axes.text(at, hits * 1.1, f"{hits:.2g}", ha="center", fontsize=8, bbox=PLAIN)
    axes.axhline(1, color=DEEP, linestyle=":", linewidth=1)
    axes.set_yscale("log")
    axes.set_yticks([0.01, 0.1, 1, 10], ["0.01", "0.1", "1", "10"])
    axes.set_ylim(0.008, 90)
    axes.set_xticks(range(len(drives)), list(drives.values()))
    axes.set_ylabel("hits that a write must bring")
    axes.set_title(
        "What a write must bring to pay for the drive's wear (prompts of 8 Ki tokens, rent apart)", fontsize=10
    )
    axes.legend(fontsize=8, loc="upper left")


def bills(axes: Any, report: Json) -> None:
    """The same traffic under every tariff."""
    traces = report["bills"]
    order = [row["tariff"] for row in traces[0]["bills"]]
    for number, trace in enumerate(traces):
        by_name = {row["tariff"]: row for row in trace["bills"]}
        for place, tariff in enumerate(order):
            row, at = by_name[tariff], place + (number - 1) * 0.27
            axes.barh(at, row["share"], height=0.25, color=tuple(COLOURS.values())[number])
            axes.text(row["share"] + 0.01, at, f"{row['share']:.2f}", va="center", fontsize=7)
        axes.barh(0, 0, color=tuple(COLOURS.values())[number], label=trace["trace"])
    by_hand = {row["tariff"]: row["manual"] for row in traces[0]["bills"]}
    axes.set_yticks(range(len(order)), [f"{name}{' (by hand)' if by_hand[name] else ''}" for name in order], fontsize=8)
    axes.invert_yaxis()
    axes.axvline(1, color=DEEP, linestyle=":", linewidth=1)
    axes.set_xlabel("bill for prompts over the same prompts without a cache; right of the line the cache loses")
    axes.set_title("Recorded traffic under ten tariffs", fontsize=10)
    axes.legend(fontsize=8, loc="lower right")
