"""Bills of recorded traces, beside figures that were computed without this engine.

The traces lie in ``KVTIER_TRACES`` or in ``shared/traces`` beside the repository; without them nothing is tried.
"""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from billing_helpers import TARIFFS

from kvtier.econ.billing.bills import bills
from kvtier.econ.billing.calls import calls_of_trace
from kvtier.econ.billing.tariffs import Lifetime, Prices, Rules
from kvtier.sim.naming import trace_from

ROOT = Path(__file__).resolve().parents[2]

#: By retention in seconds: token hits, then the bill over no cache for (w, r) of PRICES.
TABLE = {
    60: (0.788, 0.344, 0.503, 0.291, 0.285),
    300: (0.916, 0.197, 0.260, 0.176, 0.128),
    3600: (0.960, 0.146, 0.177, 0.136, 0.075),
    86400: (0.963, 0.142, 0.170, 0.133, 0.070),
}
PRICES = ((1.25, 0.1), (2, 0.1), (1, 0.1), (1.25, 0.025))


def trace(name):
    places = [os.environ.get("KVTIER_TRACES"), ROOT.parent / "shared" / "traces"]
    found = next((path for place in places if place and (path := Path(place) / name).is_file()), None)
    if found is None:
        pytest.skip(f"no {name} in KVTIER_TRACES, nor in shared/traces beside the repository")
    return trace_from(str(found))


def ideal(seconds, write, read):
    """Every token is stored at w, kept from its last use, and usable at once: the arithmetic of the table."""
    return replace(
        TARIFFS["xai grok-4.5 automatic"],
        plan="p",
        rules=Rules(entries="everywhere", lifetime_s=seconds),
        prices=Prices(input_usd_per_mtok=1.0, cached_usd_per_mtok=read),
        lifetimes={"p": Lifetime(seconds=seconds, write_usd_per_mtok=write)},
    )


@pytest.mark.slow
def test_coding_agents_pay_what_was_computed_for_them():
    agents = trace("agentic_coding_trace.jsonl.gz")
    under = [ideal(seconds, write, read) for seconds in TABLE for write, read in PRICES]

    made = bills(calls_of_trace(agents, agents.block_tokens), under, first_token_s=0.0)

    assert made[0].input_tokens == 6_037_445_403
    for number, (seconds, (hit, *shares)) in enumerate(TABLE.items()):
        row = made[number * len(PRICES) :][: len(PRICES)]
        assert row[0].hit_rate == pytest.approx(hit, abs=5.1e-4), seconds
        # half of the last printed digit, and a little: one of the sixteen is 0.07447 here and 0.075 there
        assert [bill.share for bill in row] == pytest.approx(shares, abs=5.5e-4), seconds


@pytest.mark.slow
def test_no_retention_makes_a_dear_write_pay_for_chats_that_seldom_return():
    chats = trace("mooncake_conversation_trace.jsonl.gz")

    short, long = bills(calls_of_trace(chats, chats.block_tokens), [ideal(300, 1.25, 0.1), ideal(3600, 2, 0.1)])

    assert short.share < 1 < long.share
