"""The page of a report, from what its JSON says and the ledger and replay that it came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from kvtier.commands import cost_plot, html, report_plot
from kvtier.commands.html import Cell, Markup
from kvtier.commands.ledgers import (
    HOLD_HEAD,
    MARKET_HEAD,
    ROW_HEAD,
    absolute,
    at_cost,
    hold_cells,
    losses,
    market_rows,
    row_cells,
    usd,
)
from kvtier.commands.plots import inline_svg
from kvtier.commands.replay_plot import History
from kvtier.commands.report_answer import keeping
from kvtier.econ.ledger import Ledger
from kvtier.econ.profile import Profile

_RINGS = "A ring: the break-even, where it is in view; right of it loading wins. A store holds whole blocks only."

_BAR_IN = 0.24
_FRAME_IN = 1.3


def page(result: Mapping[str, Any], ledger: Ledger, history: History) -> str:
    """The whole page."""
    parts = [
        html.lead(result["answer"]["words"]),
        html.tiles(_tiles(result)),
        *_missing(result),
        _speed(result["calibration"]),
        *_reload(result, ledger.profile),
        *_replay(result, history),
        _costs(ledger),
        _holds(ledger),
        _losses(ledger),
        *_market(ledger),
        _inputs(result),
        html.section("Made with", [html.code(result["command"]), html.facts(result["versions"])]),
    ]
    return html.page(f"What caching is worth: {ledger.profile.name}", parts)


def _picture(name: str, paint: Callable[[Any], None], bars: int | None = None) -> Markup:
    """A picture of one panel; with bars, as high as they need."""
    size = {} if bars is None else {"height_in": _FRAME_IN + _BAR_IN * bars}
    return inline_svg(name, lambda panels: paint(panels[0]), **size)


def _tiles(result: Mapping[str, Any]) -> dict[str, str]:
    answer, replay = result["answer"], result["replay"]
    saves = answer["saves_usd_per_mtok"]
    case = f"{answer['prompt_tokens']:,} tokens, {answer['tier']}"
    found = {
        f"price of a cached token over a computed one, at cost; {case}": f"{answer['share']:.1%}",
        f"{'saved' if saves > 0 else 'lost'} by a hit, USD per million tokens": usd(abs(saves)),
        f"as fast to the first token as computing; {case}": f"{answer['recompute_s'] / answer['hit_s']:.1f}x",
        "worth keeping for one hit": keeping(answer["keep_s"]),
        "of the cases lose or may lose": f"{answer['losing_cases']} of {answer['cases']}",
    }
    return found if replay is None else {**found, "of prompt tokens found in the replay": _percent(replay)}


def _percent(replay: Mapping[str, Any]) -> str:
    return f"{replay['token_hit_rate']:.1%}"


def _missing(result: Mapping[str, Any]) -> list[Markup]:
    if not result["missing"]:
        return []
    return [html.section("Not in this report", [html.listing(result["missing"])])]


def _speed(calibration: Mapping[str, Any]) -> Markup:
    tiers = calibration["tiers"]
    origin = "measured" if calibration["measured"] else "derived from data sheets, not measured"
    bars = _picture("speeds", lambda panel: report_plot.speeds(tiers, panel), 2 * len(tiers))
    raw = any(row["read"]["raw"] for row in tiers)
    limit = " The red mark is the bare medium without a store." if raw else " No raw limits are known."
    pictures = [
        (
            _picture("times", lambda panel: report_plot.times(calibration, panel)),
            f"Compute or load, {origin}. A hit is the load and the pass of the last token. Shaded: bands. {_RINGS}",
        ),
        (bars, f"What each tier reads and writes, and its band, {origin}.{limit}"),
    ]
    head = ["tier", "medium", "read, GB/s", "of raw", "write, GB/s", "of raw", "loading wins from", "speeds are"]
    rows = [
        [
            row["tier"],
            row["medium"],
            *(cell for way in ("read", "write") for cell in _speed_cells(row[way])),
            _tokens(calibration["break_even_tokens"][row["tier"]]),
            row["kind"],
        ]
        for row in tiers
    ]
    return html.section("Compute or load", [html.figures(pictures), html.table(head, rows)])


def _speed_cells(speed: Mapping[str, Any]) -> list[Cell]:
    mid, share = speed["speed"][1], speed["of_raw"]
    return [Cell(f"{mid / 1e9:.2f}", mid), Cell("-", -1.0) if share is None else Cell(f"{share:.2f}", share)]


def _tokens(tokens: float | None) -> Cell:
    return Cell("nowhere", float("1e99")) if tokens is None else Cell(f"{tokens:,} tokens", tokens)


def _reload(result: Mapping[str, Any], profile: Profile) -> list[Markup]:
    found = result["reload"]
    if found is None:
        return []
    same = found["bytes_per_token"] == profile.bytes_per_token and found["processor"] in (profile.machine or "")
    ways = list(dict.fromkeys(row["path"] for row in found["rows"]))
    medians = {(row["path"], row["prompt_tokens"]): row["p50_ms"] for row in found["rows"]}
    rows = [
        [_number(tokens), *(_known(medians.get((way, tokens))) for way in ways)]
        for tokens in sorted({tokens for _, tokens in medians})
    ]
    about = {
        "model": found["model"],
        "processor": found["processor"],
        "measured": found["date"],
        "kvtier": found["kvtier"],
        **{f"{name.replace('_', ' ')} wins from": _tokens(at).text for name, at in found["break_even_tokens"].items()},
    }
    caption = "Whole requests through a store with a real model, every way in turn in one run; both axes logarithmic."
    picture = _picture("reload", lambda panel: report_plot.reload(found, panel))
    head = ["prompt tokens", *(f"{way.replace('_', ' ')}, ms" for way in ways)]
    note = "" if same else "Its model or its machine may be another than the profile's: compare ratios, not times."
    parts = [html.facts(about), html.figures([(picture, caption)]), html.table(head, rows)]
    return [html.section("The reload benchmark", [*([html.paragraph(note)] if note else []), *parts])]


def _number(value: float) -> Cell:
    return Cell(f"{value:,.0f}" if value >= 100 else f"{value:.3g}", value)


def _known(value: float | None) -> Cell:
    return Cell("-", -1.0) if value is None else _number(value)


def _replay(result: Mapping[str, Any], history: History) -> list[Markup]:
    replay = result["replay"]
    if replay is None:
        return []
    cost, tokens = replay["cost"], replay["tokens_by_source"]
    pictures = [
        (
            _picture("sources", lambda panel: report_plot.sources(tokens, panel), 2 * len(tokens)),
            f"Where prompt tokens came from: {_percent(replay)} were found.",
        ),
        (_picture("shares", history.paint_shares), "The same as the trace went on."),
    ]
    rows: list[list[str | Cell]] = [
        ["mean time to first token, s", *(_number(cost[f"{way}ttft_mean_s"]) for way in ("", "recompute_"))],
        ["USD per 1000 requests", *(_number(1000 * cost[f"{way}usd_per_request"]) for way in ("", "recompute_"))],
    ]
    head = ["", "with the cache", "without"]
    whole = sum(tokens.values())
    tiers = [
        [
            tier["name"],
            *(_number(tier[name]) for name in ("capacity_blocks", "block_hits", "written_blocks", "evicted_blocks")),
            Cell(f"{tokens[tier['name']] / max(1, whole):.1%}", tokens[tier["name"]]),
        ]
        for tier in replay["tiers"]
    ]
    said = (
        f"{replay['trace']}: {replay['requests']:,} requests over tiers by {', '.join(_policies(replay))}. "
        "Loads are not overlapped and no request waits for another; rent is of whole tiers for the whole trace."
        + (" Prompts are longer than any that was measured: times follow the fit." if replay["extrapolated"] else "")
    )
    columns = ["tier", "capacity, blocks", "block hits", "written", "evicted", "of all tokens"]
    parts = [html.paragraph(said), html.figures(pictures), html.table(head, rows), html.table(columns, tiers)]
    return [html.section("A replay", parts)]


def _policies(replay: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(tier["policy"] for tier in replay["tiers"]))


def _costs(ledger: Ledger) -> Markup:
    pictures = []
    for tokens in dict.fromkeys(row.prompt_tokens for row in ledger.rows):
        rows = [row for row in ledger.rows if row.prompt_tokens == tokens]
        beyond = " Longer than any prompt that was measured." if rows[0].extrapolated else ""
        picture = _picture(f"bars{tokens}", partial(cost_plot.bars, rows=rows), len(rows) + 1)
        pictures.append((picture, f"A prompt of {tokens:,} tokens.{beyond}"))
    lines = [[f"{row.prompt_tokens:,}", *row_cells(row)] for row in ledger.rows]
    table = html.table(["prompt", *ROW_HEAD], lines)
    said = (
        "US dollars per million tokens, at cost. A miss fills the same memory during the request as a hit, so a hit "
        "saves what computing costs less its read, its share of the write and its rent. Stall: what processors cost "
        "that wait for the load, if nothing overlaps with it."
    )
    return html.section("What a hit costs beside a miss", [html.paragraph(said), html.figures(pictures), table])


def _holds(ledger: Ledger) -> Markup:
    said = (
        "Drop a prefix if its next use is expected later than this: than its rent equals one recompute, or what a hit "
        "saves; over the next tier, keep it in the faster one only so long. Least hits: what a write must bring."
    )
    table = html.table(HOLD_HEAD, [hold_cells(hold) for hold in ledger.holds])
    return html.section("How long to keep it", [html.paragraph(said), table])


def _losses(ledger: Ledger) -> Markup:
    lines = losses(ledger)
    body = html.listing(lines) if lines else html.paragraph("In none of these cases.")
    return html.section("Where the cache loses", [body])


def _market(ledger: Ledger) -> list[Markup]:
    if not ledger.prices:
        return []
    picture = _picture("market", lambda panel: cost_plot.market(panel, ledger), len(ledger.prices))
    head = f"A cached token's price as a share of an input token's. At cost here: {at_cost(ledger.rows)}."
    return [
        html.section(
            "List prices beside the cost",
            [
                html.paragraph(head),
                html.figures([(picture, "Dots: list prices. Shaded: what each tier would need here, at cost.")]),
                html.table(MARKET_HEAD, market_rows(ledger)),
                *([html.paragraph(f"{text[0].upper()}{text[1:]}.")] if (text := absolute(ledger)) else []),
            ],
        )
    ]


def _inputs(result: Mapping[str, Any]) -> Markup:
    names = ("name", "value", "kind", "date", "source")
    rows = [[row[name] for name in names] for row in result["inputs"]]
    return html.section("What all this rests on", [html.table(("input", *names[1:]), rows)])
