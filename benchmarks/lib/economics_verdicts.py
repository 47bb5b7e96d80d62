"""What docs/economics.md says of seven claims, and every figure that its prose may quote.

A verdict is a person's; that the numbers still bear it is for a test to say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kvtier.commands.durations import human_s
from kvtier.econ.billing.breakeven import hit_share_to_pay
from lib.economics_bills import AUTOMATIC, MANUAL
from lib.economics_report import facts, hold_of, row_of, table

Json = Mapping[str, Any]

SHORT_TOKENS, LONG_TOKENS = 8192, 65536
DEAR = "openai gpt-5.6 over-12h"


def parts(report: Json) -> dict[str, str]:
    """The table of verdicts; none for a report without bills."""
    report = json.loads(json.dumps(report))
    if not report["bills"]:
        return {}
    return {"econ_verdicts": table(("claim", "verdict", "the number"), claims(report), left=3)}


def claims(report: Json) -> list[tuple[str, str, str]]:
    """Claim, verdict, number."""
    return [
        nothing(report),
        extortion(report),
        ssd(report),
        vram(report),
        automatic(report),
        sliding(report),
        same(report),
    ]


def hit_shares(report: Json) -> list[Any]:
    """The rows that the first verdicts rest on: three models worth serving, ten hits, in DRAM and on a drive."""
    return [
        row_of(report, case, tier, tokens, hold_s=hold_s)
        for case in ("8b", "70b", "v3")
        for tokens in (SHORT_TOKENS, LONG_TOKENS)
        for tier, hold_s in (("host", 300.0), ("disk", 3600.0))
    ]


def nothing(report: Json) -> tuple[str, str, str]:
    """Whether a hit is free."""
    rows = hit_shares(report)
    low, high = (pick(rows, key=lambda row: row["share"]) for pick in (min, max))
    number = (
        f"with ten hits a write, from {share(low)} of a computed token ({named(report, low)}) to {share(high)} "
        f"({named(report, high)})"
    )
    return "cached tokens cost the provider nothing", "false", number


def extortion(report: Json) -> tuple[str, str, str]:
    """Whether a tenth of the input price is far above the cost."""
    llama, deep = (row_of(report, case, "disk", SHORT_TOKENS, hold_s=3600.0)["share"] for case in ("70b", "v3"))
    own = report["deepseek"]
    listed = own["listed"][1]
    number = (
        f"at cost {llama:.1%} for a 70B model with GQA, {deep:.1%} for one with MLA (8 Ki tokens, a drive, ten hits in "
        f"an hour); DeepSeek lists {listed['cached_usd']:g} USD/Mtok for what costs it {own['hit_usd']:.3f} to "
        f"{own['hit_stalled_usd']:.3f}"
    )
    return "10 % of the input price is extortion", "not as a rule", number


def ssd(report: Json) -> tuple[str, str, str]:
    """Whether drives make memory useless."""
    gains = {case: facts(report, case)["speed_up_all_drives"][str(SHORT_TOKENS)] for case in ("8b", "70b", "v3")}
    one = facts(report, "70b")["speed_up_one_drive"][str(SHORT_TOKENS)]
    above = hold_of(report, "70b", "dram-rented")
    number = (
        f"a drive for each GPU reads {gains['8b']:.1f}, {gains['70b']:.1f} and {gains['v3']:.0f} times as fast as the "
        f"8B, 70B and MLA models compute; one drive for eight GPUs {one:.2f} times, so it loses. DRAM is worth its "
        f"rent over a drive for what comes back within {human_s(above['over_next_s'])} to "
        f"{human_s(above['over_next_stalled_s'])}"
    )
    return "SSD reads are so fast compared with inference that RAM is wasted on it", "half true", number


def vram(report: Json) -> tuple[str, str, str]:
    """Whether only GPU memory will do."""
    hold = {medium: hold_of(report, "70b", medium) for medium in ("device", "dram-rented", "nvme-rented")}
    rents = hold["device"]["rent_usd_per_hour"] / hold["nvme-rented"]["rent_usd_per_hour"]
    times = [human_s(hold[medium]["recompute_s"]) for medium in hold]
    number = (
        f"GPU memory rents for {rents:.0f} times the price of a drive: a 70B model's prefix has eaten one recompute "
        f"after {times[0]} there, {times[1]} in DRAM, {times[2]} on a drive"
    )
    return "keeping a cache means keeping it in VRAM", "false", number


def bill_of(report: Json, trace: str, tariff: str) -> float:
    """A bill over its price without a cache."""
    found = next(found for found in report["bills"] if found["trace"] == trace)
    return float(next(row["share"] for row in found["bills"] if row["tariff"] == tariff))


def tie_of(report: Json, trace: str, tariff: str) -> float:
    """The share of calls that must find their prefix for the automatic cache to win."""
    return float(next(found["ties"][tariff] for found in report["bills"] if found["trace"] == trace))


def automatic(report: Json) -> tuple[str, str, str]:
    """Whether an automatic cache is never the worse one."""
    free, by_hand = (bill_of(report, "agents", tariff) for tariff in (AUTOMATIC, MANUAL[1]))
    tie, charged = tie_of(report, "agents", MANUAL[1]), terms_of(report, "openai/gpt-5.6")["write_multiple"]
    number = (
        f"coding agents pay {free:.3f} of the price without a cache where writing is free, and {by_hand:.3f} by hand "
        f"for an hour; the automatic one is dearer as soon as less than {tie:.1%} of calls land where their prefix is. "
        f"And where an automatic cache charges for writes, a prompt that never comes back costs {charged:g} times its "
        "price; by hand one marks nothing"
    )
    return "automatic caching is strictly better than manual", "false", number


def sliding(report: Json) -> tuple[str, str, str]:
    """Whether dropping the oldest message at every turn is harmless."""
    cost = {name: row["cost_per_turn"] for name, row in report["window"]["policies"].items()}
    hit = report["window"]["policies"]["sliding"]["hit_rate"]
    number = (
        f"{cost['sliding'] / cost['hysteresis']:.1f} times the cost of cutting rarely and deep, "
        f"{cost['sliding'] / cost['append']:.1f} times that of never cutting; {hit:.1%} of its tokens hit"
    )
    return "a sliding window is fine", "false", number


def same(report: Json) -> tuple[str, str, str]:
    """Whether a nearly equal prompt is nearly cached."""
    row, scattered = report["prefix"]["hundredth_in_a_row"], report["prefix"]["hundredth_scattered"]
    number = (
        f"{row['front']:.0%} cached with the other hundredth at the front, {row['middle']:.0%} in the middle, "
        f"{row['end']:.1%} at the end; scattered, {scattered:.2%}"
    )
    return "99 % the same prompt is 99 % cached", "only if the difference is at the end", number


def terms_of(report: Json, name: str) -> Any:
    """What one list price asks, and for how long that pays."""
    return next(price for price in report["prices"] if price["name"] == name)


def quotes(report: Json) -> list[str]:
    """Every figure that the prose of the page may quote, in the words around it."""
    report = json.loads(json.dumps(report))
    kinds = (cost_quotes, keeping_quotes, market_quotes, bill_quotes, setting_quotes)
    return [quote for kind in kinds for quote in kind(report)]


def cost_quotes(report: Json) -> list[str]:
    """What hits cost."""
    rows = hit_shares(report)
    ends = [share(pick(rows, key=lambda row: row["share"])) for pick in (min, max)]
    big = row_of(report, "70b", "disk", SHORT_TOKENS)
    waits = {row["case"]: row["share"] for row in report["request"]}["70b"]
    tiny, found = facts(report, "tiny"), report["measured"]
    memory = row_of(report, "8b", "host", SHORT_TOKENS)
    return [
        f"{ends[0]} and {ends[1]}",
        f"prompts of about {report['tenth_tokens'] / 1024:.0f} Ki tokens",
        f"{big['recompute_kj']:.0f} kJ against {big['read_kj']:.1f} kJ",
        f"{waits['1.0']:.1%} with one second, {waits['60.0']:.1%} with a minute",
        f"{tiny['speed_up_one_drive'][str(SHORT_TOKENS)]:.2f} times as fast",
        f"{found['speed_ups']['disk_cold']:.0f} times as fast",
        f"prompt of {found['prompt_tokens']:,} tokens",
        f"{memory['occupancy_usd'] / memory['hit_usd']:.0%} of it",
        f"{facts(report, 'v3')['mfu']:.0%} of the peak",
    ]


def keeping_quotes(report: Json) -> list[str]:
    """For how long, in what, and what writing takes."""
    models = ("8b", "70b", "v3")
    times = {
        medium: [human_s(hold_of(report, case, medium)["recompute_s"]) for case in models]
        for medium in ("device", "dram-rented", "nvme-rented")
    }
    worn = {(row["case"], row["medium"]): row for row in report["wear"]["rows"]}
    least = {key: row["least_hits"][str(SHORT_TOKENS)] for key, row in worn.items()}
    mha, gqa, fp8, mla = (f"{row['bytes_per_token']:,}" for row in report["attention"])
    shares = [f"{row['share']:.1%}" for row in report["attention"]]
    factor = report["wear"]["write_amplification"]
    return [
        f"{factor['kind']} to be {factor['value']:.2g}",
        *(f"{a}, {b} and {c}" for a, b, c in times.values()),
        *(f"within {human_s(worn[case, 'nvme-bought']['rated_day_s'])}" for case in ("8b", "v3")),
        *(f"{least[case, 'nvme-bought']:.2f} hits" for case in models),
        *(f"{least[case, 'qlc-bought']:.2f} hits" for case in models),
        f"{mha} bytes",
        f"{gqa} with grouped heads",
        f"{mla} with a latent",
        f"{fp8} bytes",
        f"{shares[0]} to {shares[3]}",
    ]


def market_quotes(report: Json) -> list[str]:
    """What list prices imply."""
    five, hour = (terms_of(report, "anthropic/opus-5")["premium_pays_s"][name] for name in ("write", "write_long"))
    own = report["deepseek"]
    old, new = own["listed"]
    storage = [
        human_s(terms_of(report, f"google/{name}")["rent_equals_input_s"])
        for name in ("gemini-2.5-pro", "gemini-3.8-flash")
    ]
    return [
        f"{human_s(five['70b']['host'])} of DRAM or {human_s(five['70b']['disk'])} of a drive",
        f"{human_s(hour['70b']['host'])} and {human_s(hour['70b']['disk'])}",
        f"{human_s(five['v3']['host'])} and {human_s(five['v3']['disk'])}",
        f"{own['miss_usd']:.3f} USD a million",
        f"{old['input_usd']:g} and {new['input_usd']:g}",
        f"{own['hit_usd']:.3f} to {own['hit_stalled_usd']:.3f}",
        f"{old['cached_usd']:g} and {new['cached_usd']:g}",
        f"{own['gpu_usd_per_hour']:g} USD an hour",
        f"once in {storage[0]}",
        f"once in {storage[1]}",
    ]


def bill_quotes(report: Json) -> list[str]:
    """What recorded traffic pays."""
    agents, chats = ({row["tariff"]: row["share"] for row in found["bills"]} for found in report["bills"][:2])
    new = terms_of(report, "openai/gpt-5.6")
    return [
        f"{agents[AUTOMATIC]:.3f} of the price",
        f"{agents[MANUAL[0]]:.3f} and {agents[MANUAL[1]]:.3f}",
        *(f"{tie_of(report, 'agents', tariff):.1%} of calls" for tariff in MANUAL),
        f"{tie_of(report, 'chats', MANUAL[0]):.0%} of calls",
        f"{chats[MANUAL[0]]:.3f} and {chats[MANUAL[1]]:.3f}",
        f"{chats[DEAR]:.3f} of the price",
        f"{new['write_multiple']:g} times the price",
        f"less than {hit_share_to_pay(write=new['write_multiple'], read=new['share']):.1%} of uses",
    ]


def setting_quotes(report: Json) -> list[str]:
    """What was assumed and chosen, where the prose says so."""
    listed = sorted(price["share"] * 100 for price in report["prices"])
    window = report["window"]
    low, high = report["setting"]["lengths"]
    drive = next(row for row in report["wear"]["rows"] if row["medium"] == "nvme-bought")
    return [
        f"{listed[0]:.0f} to {listed[-1]:.0f} %",
        f"{low // 1024} Ki and {high // 1024} Ki tokens",
        f"at {drive['usd_per_gb']:.2f} USD/GB",
        f"{window['high_tokens']:,} tokens, cut to {window['low_tokens']:,}",
        f"written token as {window['write']:g} and a cached one as {window['read']:g}",
        f"{report['prefix']['prompt_tokens']:,} tokens and go through",
        "from {1:g} to {2:g}".format(*report["mfu_band"]),
    ]


def share(row: Json) -> str:
    """A share, as the page has it."""
    return f"{row['share']:.1%}"


def named(report: Json, row: Json) -> str:
    """Which hit it is."""
    where = "DRAM" if row["tier"] == "host" else "a drive"
    return f"{facts(report, row['case'])['label'].split(' ')[0]}, {row['prompt_tokens'] // 1024} Ki tokens, {where}"
