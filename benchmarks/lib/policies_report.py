"""The tables and findings of docs/policies.md, from the JSON of ``benchmarks/policies.py``.

Each finding is worked out from the rows beside it, so that no sentence can say more than they do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from kvtier.sim.sweep import OPTIMUM
from lib.policies import HBM_GIB, KNOWN, RAM_GIB

Report = dict[str, Any]
Row = dict[str, Any]

PAPER_RATIOS = {"conversation": 0.40, "synthetic": 0.66}
"""Table 2 of the paper: cache ratio."""


def markdown(report: Report) -> dict[str, str]:
    """Each part of the page."""
    return {
        "policies_conditions": conditions(report),
        "policies_curves": curves(report["curves"]),
        "policies_paper": paper(report["paper_figure"]),
        "policies_ssd": ssd(report["ssd"]),
        "policies_lifetimes": lifetimes(report["lifetimes"]),
        "policies_admissions": admissions(report["admissions"]),
        "policies_order": orders(report["orders"]),
        "policies_workloads": workloads(report),
    }


def conditions(report: Report) -> str:
    """What was replayed, and where."""
    about = report["conditions"]
    quick = "; a quick run, of no meaning" if about["quick"] else ""
    took = f"{about['processes']} processes, {about['seconds'] / 60:.0f} minutes"
    lines = [
        f"{about['cpu']}, {took}; {about['date_utc'][:10]}, commit {about['git_commit']}{quick}.",
        "",
        *_table(
            ["trace", "requests", "lasts", "references", "blocks", "tokens a block", "best: blocks", "tokens"],
            [
                [
                    name,
                    f"{each['requests']:,}",
                    f"{each['duration_s'] / 60:,.0f} min",
                    f"{each['block_references']:,}",
                    f"{each['unique_blocks']:,}",
                    f"{each['block_tokens']}",
                    _percent(each["best_block_hit_rate"]),
                    _percent(each["best_token_hit_rate"]),
                ]
                for name, each in report["curves"].items()
            ],
        ),
    ]
    return "\n".join(lines)


# Policies by capacities


def curves(found: Report) -> str:
    """A table for each trace, and who comes closest to the optimum."""
    parts = []
    for name, each in found.items():
        sizes = sorted({row["capacity_blocks"] for row in each["rows"]})
        policies = list(dict.fromkeys(row["policy"] for row in each["rows"]))
        at = {(row["policy"], row["capacity_blocks"]): row for row in each["rows"]}
        rows = [[policy, *(_percent(at[policy, size]["prefix_hit_rate"]) for size in sizes)] for policy in policies]
        winners = [_best(at[policy, size] for policy in policies if policy != OPTIMUM) for size in sizes]
        parts += [
            f"{name}, prefix hit rate by capacity in blocks:",
            "",
            *_table(["policy", *(f"{size:,}" for size in sizes)], rows),
            "",
            f"Best at each capacity, the optimum aside: {', '.join(winners)}. {_lru(at, sizes)}{_ours(each['rows'])}",
            "",
        ]
    return "\n".join(parts[:-1])


def _lru(at: dict[tuple[str, int], Row], sizes: Sequence[int]) -> str:
    return f"LRU reaches {_span(at['lru', size]['share_of_optimum'] for size in sizes)} of the optimum's hits."


def _best(rows: Iterable[Row]) -> str:
    """The policy with the most hits, or all that have as many."""
    rows = list(rows)
    most = max(row["prefix_hit_rate"] for row in rows)
    names = [row["policy"] for row in rows if row["prefix_hit_rate"] == most]
    return " = ".join(names) if len(names) < 4 else f"{len(names)} alike"


def _ours(rows: Sequence[Row]) -> str:
    """At how many capacities a policy of kvtier's own beats all published ones."""
    said = []
    for name in dict.fromkeys(row["policy"] for row in rows):
        if name in KNOWN:
            continue
        sizes = [row for row in rows if row["policy"] == name]
        ahead = sum(
            row["prefix_hit_rate"]
            > max(
                other["prefix_hit_rate"]
                for other in rows
                if other["capacity_blocks"] == row["capacity_blocks"]
                and other["policy"] in KNOWN
                and other["policy"] != OPTIMUM
            )
            for row in sizes
        )
        said.append(f" {name} beats every published policy at {ahead} of {len(sizes)} capacities.")
    return "".join(said)


# Figure 9


def paper(found: Report) -> str:
    """Our LRU at the paper's capacities, and how close what the paper says in words comes."""
    parts = []
    for name, each in found.items():
        rows = [
            [
                "all kept" if row["tokens"] is None else f"{row['tokens'] / 1e6:.0f}M",
                f"{row['capacity_blocks']:,}",
                _percent(row["prefix_hit_rate"]),
                _percent(row["token_hit_rate"]),
                _percent(row["share_of_best"]),
            ]
            for row in each["rows"]
        ]
        heads = ["tokens", "blocks", "prefix hit rate", "of tokens", "of all that can be hit"]
        parts += [f"{name}:", "", *_table(heads, rows), "", _beside_paper(each, PAPER_RATIOS[name]), ""]
    return "\n".join(parts[:-1])


def _beside_paper(each: Report, ratio: float) -> str:
    """The paper's ratio beside four ways to count ours, and what it says of two capacities."""
    best = {"references": each["best_block_hit_rate"], "tokens": each["best_token_hit_rate"]}
    best |= {"whole blocks": each["best_whole_block_hit_rate"], "a request": each["best_mean_of_requests"]}
    ways = ", ".join(f"{_percent(rate)} of {what}" for what, rate in best.items())
    near = min(best, key=lambda what: abs(best[what] - ratio))
    exact = all(abs(row["prefix_hit_rate"] - row["stack_distance_hit_rate"]) < 1e-9 for row in each["rows"])
    small, large = (_percent(_share_at(each, tokens), 0) for tokens in (3_000_000, 50_000_000))
    return (
        f"The paper's cache ratio is {_percent(ratio, 0)}; everything kept hits here {ways} on average. Nearest is the "
        f"count of {near}, {abs(best[near] - ratio) * 100:.1f} points away. With 3M tokens LRU gets {small} of what "
        f"can be hit, with 50M {large}. Stack distances say {'the same' if exact else 'otherwise'}."
    )


def _share_at(found: Report, tokens: int) -> float:
    return next(float(row["share_of_best"] or 0) for row in found["rows"] if row["tokens"] == tokens)


# Tiers


def ssd(found: Report) -> str:
    """Hits, waiting and cost with SSDs of several sizes."""
    parts = []
    for name, each in found.items():
        rows = [
            [
                f"{row['ssd_tib']} TiB",
                _percent(row["prefix_hit_rate"]),
                *(_percent(row["hits"].get(tier, 0) / each["block_references"]) for tier in ("device", "host", "disk")),
                f"{row['ttft_mean_s']:.2f}",
                f"{1000 * row['usd_per_request']:.2f}",
            ]
            for row in each["rows"]
        ]
        heads = ["SSD", "prefix hit rate", "device", "host", "disk", "mean TTFT, s", "USD/1000 requests"]
        first, last = each["rows"][0], each["rows"][-1]
        cheapest = min(each["rows"], key=lambda row: row["usd_per_request"])
        gain = last["prefix_hit_rate"] / first["prefix_hit_rate"] if first["prefix_hit_rate"] else float("inf")
        parts += [
            f"{name}, {HBM_GIB} GiB of device memory and {RAM_GIB} GiB of RAM for KV, {each['profile']}:",
            "",
            *_table(heads, rows),
            "",
            (
                f"{last['ssd_tib']} TiB of SSD make {gain:.1f} times the hits of memory alone; mean TTFT goes from "
                f"{first['ttft_mean_s']:.2f} s to {last['ttft_mean_s']:.2f} s (without a cache "
                f"{first['recompute_ttft_mean_s']:.2f} s). A request is cheapest with {cheapest['ssd_tib']} TiB."
            ),
            "",
        ]
    return "\n".join(parts[:-1])


def lifetimes(found: Report) -> str:
    """What each time to live keeps, and what it holds for that."""
    names = list(found)
    kinds = list(dict.fromkeys(row["ttl"] for each in found.values() for row in each["rows"]))
    at = {(name, row["ttl"]): row for name, each in found.items() for row in each["rows"]}
    heads = ["kept", *(f"{name}: hit rate" for name in names), *(f"{name}: held on average" for name in names)]
    rows = [
        [
            kind,
            *(_percent(at[name, kind]["prefix_hit_rate"]) for name in names),
            *(f"{at[name, kind]['held_mean_blocks']:,.0f}" for name in names),
        ]
        for kind in kinds
    ]
    said = []
    for name in names:
        short, hour, day = (_percent(at[name, kind]["share_of_none"], 0) for kind in ("5 min", "1 h", "1 day"))
        length = f"{found[name]['duration_s'] / 3600:.1f} h long"
        said.append(f"{name} ({length}): 5 minutes keep {short} of the hits there are, an hour {hour}, a day {day}.")
    return "\n".join([*_table(heads, rows), "", " ".join(said)])


def admissions(found: Report) -> str:
    """Hits lost against writes saved."""
    parts = []
    for name, each in found.items():
        rows = [
            [
                row["write"].replace("_", " "),
                row["admission"],
                f"{row['prefix_hits']:,}",
                f"{row['disk_hits']:,}",
                f"{row['written_blocks']:,}",
                _percent(row["hits_lost_share"]),
                _percent(row["writes_saved_share"]),
            ]
            for row in each["rows"]
        ]
        heads = ["written", "admission", "hits", "from disk", "blocks written", "hits lost", "writes saved"]
        at = {(row["write"], row["admission"]): row for row in each["rows"]}
        evicted, inserted, twice = (
            at[key] for key in (("on_eviction", "all"), ("on_insertion", "all"), ("on_eviction", "second_touch"))
        )
        more = inserted["written_blocks"] / max(1, evicted["written_blocks"])
        disk = each["sizes"]["disk"]
        parts += [
            f"{name}, a disk of {disk:,} blocks under the memory above:",
            "",
            *_table(heads, rows),
            "",
            (
                f"Written on insertion, the disk takes {more:.2f} times the writes of on eviction, for "
                f"{inserted['prefix_hits'] - evicted['prefix_hits']:+,} hits. `second_touch` on eviction saves "
                f"{_percent(twice['writes_saved_share'], 0)} of the writes and loses "
                f"{_percent(twice['hits_lost_share'], 0)} of the hits. `write_budget/{disk}` is one drive write a day."
            ),
            "",
        ]
    return "\n".join(parts[:-1])


def orders(found: Report) -> str:
    """What tail first is worth."""
    parts = []
    for name, each in found.items():
        rows = [
            [
                f"{row['capacity_blocks']:,}",
                *(
                    _percent(row[way])
                    for way in ("tail_first", "head_first", "no_prefixes", "no_prefixes_block_hit_rate")
                ),
            ]
            for row in each["rows"]
        ]
        heads = ["capacity", "tail first", "head first, leaves leave", "head first, anything leaves", "its block hits"]
        leaf = max((row["tail_first"] - row["head_first"] for row in each["rows"]), key=abs)
        free = max(row["tail_first"] - row["no_prefixes"] for row in each["rows"])
        parts += [
            f"{name}, LRU, prefix hit rate:",
            "",
            *_table(heads, rows),
            "",
            (
                f"Where only leaves leave, tail first is worth {100 * leaf:+.1f} points where it matters most; over a "
                f"cache that knows nothing of prefixes it is worth up to {100 * free:+.1f} points."
            ),
            "",
        ]
    return "\n".join(parts[:-1])


def workloads(report: Report) -> str:
    """Each policy's mean share of the optimum on each workload, the best marked."""
    found = {**report["curves"], **{f"`{name}`": each for name, each in report["workloads"].items()}}
    policies = [name for name in report["conditions"]["policies"] if name != OPTIMUM]
    rows, winners = [], []
    for name, each in found.items():
        shares = {policy: _mean_share(each["rows"], policy) for policy in policies}
        known = {policy: share for policy, share in shares.items() if share is not None}
        most = max(known.values(), default=None)
        cells = [_marked(share, best=share is not None and share == most) for share in shares.values()]
        rows.append([name, *cells])
        winners.append(f"{name}: {' = '.join(p for p, s in known.items() if s == most) or 'none'}")
    said = f"Best on average over the capacities tried: {'; '.join(winners)}."
    return "\n".join([*_table(["workload", *policies], rows), "", said])


def _mean_share(rows: Sequence[Row], policy: str) -> float | None:
    shares = [row["share_of_optimum"] for row in rows if row["policy"] == policy]
    known = [share for share in shares if share is not None]
    return sum(known) / len(known) if known else None


def _marked(share: float | None, *, best: bool) -> str:
    text = "-" if share is None else _percent(share)
    return f"**{text}**" if best else text


# Cells


def _percent(share: float | None, digits: int = 1) -> str:
    return "-" if share is None else f"{100 * share:.{digits}f} %"


def _span(shares: Iterable[float | None], show: Callable[[float], str] = lambda share: _percent(share, 0)) -> str:
    known = [share for share in shares if share is not None]
    return f"{show(min(known))} to {show(max(known))}" if known else "none"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return [f"| {' | '.join(line)} |" for line in lines]
