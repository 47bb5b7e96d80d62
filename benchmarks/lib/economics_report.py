"""Tables of docs/economics.md, and the figures that its prose may quote."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from kvtier.commands.durations import human_s

Json = Mapping[str, Any]

SHORT = {"8b": "8B", "70b": "70B", "v3": "V3", "tiny": "tiny"}
TIERS = {"device": "HBM", "host": "DRAM", "disk": "NVMe", "remote": "remote"}
PLACES = (("host", 300.0), ("disk", 3600.0))


def parts(report: Json) -> dict[str, str]:
    """Every table by the name of its part."""
    report = json.loads(json.dumps(report))
    found = {
        "econ_ledger": ledger(report),
        "econ_tie": tie(report),
        "econ_holds": holds(report),
        "econ_above": above(report),
        "econ_attention": attention(report),
        "econ_wear": wear(report),
        "econ_shares": shares(report),
        "econ_terms": terms(report),
        "econ_request": request(report),
        "econ_inputs": inputs(report),
    }
    return found | ({"econ_bills": bills(report)} if report["bills"] else {})


def table(heads: Iterable[str], rows: Iterable[Iterable[str]], left: int = 1) -> str:
    """Markdown; the first columns to the left, numbers to the right."""
    names = list(heads)
    rule = "| " + " | ".join("---" if n < left else "---:" for n in range(len(names))) + " |"
    return "\n".join(["| " + " | ".join(names) + " |", rule, *("| " + " | ".join(row) + " |" for row in rows)])


def facts(report: Json, case: str) -> Any:
    """One model on its machine."""
    return next(found for found in report["cases"] if found["case"] == case)


def row_of(report: Json, case: str, tier: str, tokens: int, *, hits: int = 10, hold_s: float = 300.0) -> Any:
    """One row of the ledgers with rented media."""
    return next(
        row
        for row in report["ledger"]
        if (row["case"], row["media"], row["tier"], row["prompt_tokens"]) == (case, "rented", tier, tokens)
        and (row["reuses"], row["hold_s"]) == (hits, hold_s)
    )


def hold_of(report: Json, case: str, medium: str, tokens: int = 8192) -> Any:
    """How long one medium is worth its rent."""
    return next(
        hold
        for hold in report["holds"]
        if (hold["case"], hold["prompt_tokens"]) == (case, tokens)
        and (hold["medium"] == medium or hold["tier"] == medium)
    )


def usd(value: float) -> str:
    """Four digits behind the point."""
    return f"{value:.4f}"


def ledger(report: Json) -> str:
    """A miss, and two kinds of hits, by component."""
    heads = ("model", "prompt", "a miss", "kept in", "read", "write", "rent", "memory", "a hit", "stall", "share", "")
    rows = []
    for fact in report["cases"]:
        for tokens in report["setting"]["lengths"]:
            for tier, hold_s in PLACES:
                hit = row_of(report, fact["case"], tier, tokens, hold_s=hold_s)
                money = (hit[f"{name}_usd"] for name in ("read", "write", "rent", "occupancy", "hit", "stall"))
                rows.append(
                    (
                        f"{fact['label']}, {fact['machine']}",
                        f"{tokens:,}",
                        usd(hit["miss_usd"]),
                        f"{TIERS[tier]}, {human_s(hold_s)}",
                        *map(usd, money),
                        f"{hit['share']:.1%} to {hit['share_stalled']:.1%}",
                        hit["verdict"],
                    )
                )
    return table(heads, rows)


def priced(report: Json) -> str:
    """The README's table: a hit over a miss, and for how long to keep it."""
    report = json.loads(json.dumps(report))
    heads = ("model", "a hit in DRAM costs of a miss", "on a drive", "worth keeping in DRAM", "on a drive")
    rows = []
    for fact in report["cases"][:3]:
        hits = [row_of(report, fact["case"], tier, 8192, hold_s=hold_s) for tier, hold_s in PLACES]
        kept = [hold_of(report, fact["case"], medium) for medium in ("dram-rented", "nvme-rented")]
        cells = [f"{hit['share']:.1%}" for hit in hits] + [human_s(hold["recompute_s"]) for hold in kept]
        rows.append((f"{fact['label']}, {fact['machine']}", *cells))
    return table(heads, rows)


def tie(report: Json) -> str:
    """Work for each byte, and the speed at which loading ties with computing."""
    heads = ["model", "machine", "KV bytes a token", "kFLOP a byte", "computes, tokens/s", "ties at, GB/s"]
    heads += ["one drive", "a drive a GPU", "DRAM"]
    rows = []
    for fact in report["cases"]:
        speeds, gb = fact["tokens_per_s"], fact["break_even_gb_per_s"]
        gains = (fact[f"speed_up_{name}"] for name in ("one_drive", "all_drives", "host"))
        rows.append(
            (
                fact["label"],
                fact["machine"],
                f"{fact['bytes_per_token']:,}",
                f"{fact['flop_per_kv_byte'] / 1e3:,.0f}",
                both(speeds, "{:,.0f}"),
                both(gb, "{:.1f}"),
                *(both(gain, "{:.2g}x" if max(gain.values()) < 10 else "{:.0f}x") for gain in gains),
            )
        )
    return table(heads, rows, left=2)


def both(by_length: Json, form: str) -> str:
    """Two lengths, short and long, with a slash between."""
    return " / ".join(form.format(value) for value in by_length.values())


def holds(report: Json) -> str:
    """How long rent takes to equal one recompute, by medium and model."""
    cases = [fact["case"] for fact in report["cases"]]
    media = list(dict.fromkeys("HBM" if hold["tier"] == "device" else hold["medium"] for hold in report["holds"]))
    lengths = report["setting"]["lengths"]
    rows = [
        (
            medium,
            *(
                " / ".join(
                    human_s(hold_of(report, case, "device" if medium == "HBM" else medium, n)["recompute_s"])
                    for n in lengths
                )
                for case in cases
            ),
        )
        for medium in media
    ]
    return table(("kept in", *(facts(report, case)["label"] for case in cases)), rows)


def above(report: Json) -> str:
    """How long the faster of two tiers is worth its rent."""
    heads = ("model", "HBM over DRAM", "DRAM over NVMe, rented", "DRAM over NVMe, bought")
    rows = []
    for fact in report["cases"]:
        pair = [hold_of(report, fact["case"], medium) for medium in ("device", "dram-rented", "dram-bought")]
        rows.append(
            (fact["label"], *(f"{human_s(h['over_next_s'])} to {human_s(h['over_next_stalled_s'])}" for h in pair))
        )
    return table(heads, rows)


def attention(report: Json) -> str:
    """One model with other attentions."""
    heads = ("attention", "KV bytes a token", "kFLOP a byte", "ties at, GB/s", "DRAM", "NVMe", "share")
    rows = [
        (
            row["attention"],
            f"{row['bytes_per_token']:,}",
            f"{row['flop_per_kv_byte'] / 1e3:,.0f}",
            f"{row['break_even_gb_per_s']:.1f}",
            *(human_s(row["hold_s"][tier]) for tier in ("host", "disk")),
            f"{row['share']:.1%}",
        )
        for row in report["attention"]
    ]
    return table(heads, rows)


def wear(report: Json) -> str:
    """Price of a write, hits it needs, and how soon writing everything spends a day's rated writes."""
    heads = ("model", "drive", "USD/GB", "writes a day", "wear, USD/Mtok", "least hits", "a day's writes in")
    names = {fact["case"]: fact["label"] for fact in report["cases"]}
    rows = [
        (
            names[row["case"]],
            row["medium"],
            f"{row['usd_per_gb']:.2f}",
            f"{row['dwpd']:g}",
            usd(row["wear_usd_per_mtok"]),
            " / ".join("never" if hits is None else f"{hits:.2f}" for hits in row["least_hits"].values()),
            human_s(row["rated_day_s"]),
        )
        for row in report["wear"]["rows"]
    ]
    return table(heads, rows, left=2)


def shares(report: Json) -> str:
    """From how many hits each list price covers what a hit costs, in five settings."""
    found = report["at_cost"]
    heads = [
        f"{SHORT[p['case']]}, {p['prompt_tokens']:,}, {TIERS[p['tier']]} {human_s(p['hold_s'])}"
        for p in found["places"]
    ]
    rows = []
    for row in found["rows"]:
        asked = [price["name"] for price in report["prices"] if round(price["share"], 4) == row["share"]]
        hits = ["never" if hits is None else f"{hits:.1f}" for hits in row["hits"]]
        rows.append((f"{row['share']:.1%}", ", ".join(asked), *hits))
    return table(("share", "asked by", *heads), rows, left=2)


def terms(report: Json) -> str:
    """How long premiums and storage prices would pay the rent."""
    kinds: dict[tuple[str, ...], list[str]] = {}
    for price in report["prices"]:
        for key in terms_of(price):
            kinds.setdefault(key, []).append(price["name"])
    heads = ("asks for keeping", "70B: DRAM", "NVMe", "V3: DRAM", "NVMe", "asked by")
    return table(heads, sorted((*key, ", ".join(names)) for key, names in kinds.items()))


def terms_of(price: Json) -> list[tuple[str, ...]]:
    """What one price asks for keeping, and for how long that pays."""
    multiples = {"write": price["write_multiple"], "write_long": price["write_long_multiple"]}
    found: list[tuple[str, ...]] = []
    for name, paid in price["premium_pays_s"].items():
        times = (human_s(paid[case][tier]) for case in ("70b", "v3") for tier in ("host", "disk"))
        found.append((f"{multiples[name]:g} times the input price, once", *times))
    if price["rent_equals_input_s"] is not None:
        hourly = 3600 / price["rent_equals_input_s"]
        until = human_s(price["rent_equals_input_s"])
        found.append((f"{hourly:.2f} times the input price an hour: once in {until}", *["-"] * 4))
    return found


def request(report: Json) -> str:
    """The share of a miss if requests take shorter or longer."""
    times = list(report["request"][0]["share"])
    rows = [(row["label"], *(f"{share:.1%}" for share in row["share"].values())) for row in report["request"]]
    return table(("model", *(f"{float(seconds):g} s" for seconds in times)), rows)


def bills(report: Json) -> str:
    """Bills over the price without a cache, by trace."""
    traces = {found["trace"]: found for found in report["bills"]}
    by_name = {name: {row["tariff"]: row for row in found["bills"]} for name, found in traces.items()}
    order = [row["tariff"] for row in report["bills"][0]["bills"]]
    heads = ("tariff", "set by", "write", "read", *(f"{name}: hit, bill" for name in traces))
    rows = []
    for tariff in order:
        first = by_name[next(iter(traces))][tariff]
        cells = [by_name[name][tariff] for name in traces]
        rows.append(
            (
                tariff + ("*" if first["assumed"] else ""),
                "hand" if first["manual"] else "provider",
                f"{first['write_multiple']:g}",
                f"{first['read_multiple']:.3g}",
                *(f"{cell['hit_rate']:.1%}, {cell['share']:.3f}" for cell in cells),
            )
        )
    return table(heads, rows, left=2)


def inputs(report: Json) -> str:
    """All figures that went in."""
    rows = [(row["kind"], ", ".join(row["figures"]), row["source"], row["date"]) for row in report["inputs"]]
    return table(("kind", "figures", "source", "date"), rows, left=4)
