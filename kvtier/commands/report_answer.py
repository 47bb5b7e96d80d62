"""A report's answer in words, every number of it computed from the same ledger and replay that the page shows.

It speaks of one case: the longest prompt, the most reuses, and the tier that a cache outlives the
process in, the disk, or the slowest there is. The other cases are in the page's tables; where any of them
loses, it says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from kvtier.commands.durations import human_s
from kvtier.commands.ledgers import losses, usd
from kvtier.econ.crossing import hit_band_s
from kvtier.econ.ledger import Ledger, Row

_PLACES_NAMED = 4


def answer_of(ledger: Ledger, crossings: Mapping[str, int | None], replay: Mapping[str, Any] | None) -> dict[str, Any]:
    """The numbers of the answer and its words.

    Args:
        ledger: With at least one row.
        crossings: Break-even length by tier.
        replay: Its result with ``cost`` and ``extrapolated``; None where there was none.
    """
    profile, row = ledger.profile, headline(ledger)
    hold = next(item for item in ledger.holds if (item.tier, item.prompt_tokens) == (row.tier, row.prompt_tokens))
    found: dict[str, Any] = {
        "measured": profile.machine is not None,
        "tier": row.tier,
        "prompt_tokens": row.prompt_tokens,
        "reuses": row.reuses,
        "hold_s": row.hold_s,
        "recompute_s": profile.prefill_s(0, row.prompt_tokens),
        "hit_s": hit_band_s(profile, row.tier, row.prompt_tokens).mid,
        "hit_usd_per_mtok": row.hit_usd,
        "miss_usd_per_mtok": row.miss_usd,
        "share": row.share,
        "share_stalled": row.share_stalled,
        "saves_usd_per_mtok": row.saves_usd,
        "verdict": row.verdict,
        "keep_s": hold.saving_s if math.isfinite(hold.saving_s) else None,
        "cases": len(ledger.rows),
        "losing_cases": sum(row.verdict != "saves" for row in ledger.rows),
        "losses": losses(ledger),
    }
    words = [_where(ledger), _time(found, row), _money(found), _losing(ledger), _crossing(crossings)]
    found["words"] = " ".join([*words, *([] if replay is None else [_replay(replay)])])
    return found


def headline(ledger: Ledger) -> Row:
    """The row that the answer speaks of."""
    tiers = dict.fromkeys(row.tier for row in ledger.rows)
    tier = "disk" if "disk" in tiers else list(tiers)[-1]
    rows = [row for row in ledger.rows if row.tier == tier]
    return max(rows, key=lambda row: (row.prompt_tokens, row.reuses, -row.hold_s))


def _where(ledger: Ledger) -> str:
    profile = ledger.profile
    if profile.machine is None:
        return f"For {profile.name}, derived from data sheets and not measured:"
    return f"On {profile.machine} with {profile.model}, measured {profile.date}:"


def _time(found: Mapping[str, Any], row: Row) -> str:
    ratio = found["recompute_s"] / found["hit_s"]
    faster = f"{ratio:.1f} times faster" if ratio >= 1 else f"{1 / ratio:.1f} times slower"
    beyond = ", longer than any that was measured," if row.extrapolated else ""
    return (
        f"a prompt of {found['prompt_tokens']:,} tokens{beyond} takes {human_s(found['recompute_s'])} to compute "
        f"and {human_s(found['hit_s'])} to bring back from {found['tier']}, {faster}."
    )


def _money(found: Mapping[str, Any]) -> str:
    saves, hits = found["saves_usd_per_mtok"], found["reuses"]
    outcome = f"a hit saves {usd(saves)} USD" if saves > 0 else f"a hit loses {usd(-saves)} USD"
    keep = "" if found["keep_s"] == 0 else f"; for one expected hit it is worth keeping {keeping(found['keep_s'])}"
    cached, computed = usd(found["hit_usd_per_mtok"]), usd(found["miss_usd_per_mtok"])
    return (
        f"Written once and hit {hits:,} {'time' if hits == 1 else 'times'} within {human_s(found['hold_s'])}, a "
        f"million cached tokens cost {cached} USD against {computed} computed: "
        f"{found['share']:.1%} of the price, {found['share_stalled']:.1%} if the processor waits for the load; "
        f"{outcome}{keep}."
    )


def keeping(seconds: float | None) -> str:
    """How long something is worth keeping; None is without end."""
    return "for ever" if seconds is None else f"up to {human_s(seconds)}"


def _losing(ledger: Ledger) -> str:
    lost = [row for row in ledger.rows if row.verdict != "saves"]
    if not lost:
        return f"The cache loses in none of the {len(ledger.rows)} cases below."
    where = list(dict.fromkeys(f"{row.tier} at {row.prompt_tokens:,} tokens" for row in lost))
    more = ", ..." if len(where) > _PLACES_NAMED else ""
    head = f"The cache loses or may lose in {len(lost)} of the {len(ledger.rows)} cases below: "
    return f"{head}{', '.join(where[:_PLACES_NAMED])}{more}."


def _crossing(crossings: Mapping[str, int | None]) -> str:
    said = (
        f"{tier} {'at no length known' if tokens is None else f'from {tokens:,} tokens'}"
        for tier, tokens in crossings.items()
    )
    return f"Loading is the faster way: {', '.join(said)}."


def _replay(replay: Mapping[str, Any]) -> str:
    cost = replay["cost"]
    waits = [human_s(cost[name]) for name in ("recompute_ttft_mean_s", "ttft_mean_s")]
    each, before = 1000 * cost["usd_per_request"], 1000 * cost["recompute_usd_per_request"]
    rent = 1000 * cost["rent_usd"] / replay["requests"]
    beyond = ", guessed from shorter prompts," if replay["extrapolated"] else ""
    return (
        f"Replaying {replay['trace']}, {replay['token_hit_rate']:.1%} of prompt tokens are found; the mean time to "
        f"first token{beyond} goes from {waits[0]} to {waits[1]}, and a "
        f"thousand requests cost {each:.3g} USD instead of {before:.3g}, {rent:.3g} of it rent of "
        "the tiers."
    )
