"""A report's answer in words, every number of it computed from the same ledger and replay that the page shows.

It speaks of one case: the longest prompt, the most reuses, and the tier that a cache outlives the
process in, the disk, or the slowest there is. The other cases are in the page's tables; where any of them
loses, it says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvtier.commands.durations import human_s
from kvtier.commands.ledgers import losses, usd
from kvtier.econ.crossing import hit_band_s
from kvtier.econ.ledger import Ledger, Row

_LOSSES_NAMED = 3


def answer_of(ledger: Ledger, crossings: Mapping[str, int | None], replay: Mapping[str, Any] | None) -> dict[str, Any]:
    """The numbers of the answer and its words.

    Args:
        ledger: With at least one row.
        crossings: Break-even length by tier.
        replay: Its result with ``cost``; None where there was none.
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
        "keep_s": hold.saving_s,
        "cases": len(ledger.rows),
        "losing_cases": sum(row.verdict != "saves" for row in ledger.rows),
        "losses": losses(ledger),
    }
    words = [_where(ledger), _time(found, row), _money(found), _losing(found), _crossing(crossings)]
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
    return f"On this machine with {profile.model}, measured {profile.date}:"


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
    outcome = f"a hit saves {usd(saves)}" if saves > 0 else f"a hit loses {usd(-saves)}"
    keep = f"; for one expected hit it is worth keeping {_for(found['keep_s'])}" if found["keep_s"] else ""
    return (
        f"Written once and hit {hits:,} {'time' if hits == 1 else 'times'} within {human_s(found['hold_s'])}, a million "
        f"cached tokens cost {usd(found['hit_usd_per_mtok'])} USD against {usd(found['miss_usd_per_mtok'])} computed: "
        f"{found['share']:.1%} of the price, {found['share_stalled']:.1%} if the processor waits for the load; "
        f"{outcome}{keep}."
    )


def _for(seconds: float) -> str:
    text = human_s(seconds)
    return text if text == "for ever" else f"up to {text}"


def _losing(found: Mapping[str, Any]) -> str:
    lines = found["losses"]
    if not lines:
        return f"The cache loses in none of the {found['cases']} cases below."
    more = "; ..." if len(lines) > _LOSSES_NAMED else ""
    head = f"It loses or may lose in {found['losing_cases']} of the {found['cases']} cases below: "
    return head + "; ".join(lines[:_LOSSES_NAMED]) + f"{more}."


def _crossing(crossings: Mapping[str, int | None]) -> str:
    said = (
        f"{tier} {'at no length known' if tokens is None else f'from {tokens:,} tokens'}"
        for tier, tokens in crossings.items()
    )
    return f"Loading is the faster way: {', '.join(said)}."


def _replay(replay: Mapping[str, Any]) -> str:
    cost = replay["cost"]
    return (
        f"Replaying {replay['trace']}, {replay['token_hit_rate']:.1%} of prompt tokens are found; the mean time to first "
        f"token goes from {human_s(cost['recompute_ttft_mean_s'])} to {human_s(cost['ttft_mean_s'])}, and a thousand "
        f"requests cost {1000 * cost['usd_per_request']:.3g} USD instead of {1000 * cost['recompute_usd_per_request']:.3g}."
    )
