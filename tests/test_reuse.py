"""Decisions about a prefix, from costs given."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvtier.rates import Cost, LoadCosts
from kvtier.reuse import Prefix, Prospect, both_if_useful, decide

BLOCK_BYTES = 1000


def prefix(*tiers, num_tokens=None, step=None):
    held = 16 * len(tiers)
    total = held + 10 if num_tokens is None else num_tokens
    reusable = min(held, total)
    return Prefix(
        tiers=tiers, block_tokens=16, block_bytes=BLOCK_BYTES, num_tokens=total, num_reusable=reusable, step=step
    )


def compute(per_token, *, attended=0.0, each=0.0, beside=1.0, seen=5, largest=1e9):
    return Cost((per_token, attended, each), beside, seen, largest)


def loads(queued=None, seen=5, largest=1e9, beside=1.0, **per_block):
    tiers = {tier: Cost((seconds / BLOCK_BYTES, 0.0), beside, seen, largest) for tier, seconds in per_block.items()}
    return LoadCosts(tiers, queued or {})


def choices(held, prefill, costs):
    prospect = Prospect(held, prefill, costs)
    return prospect.load_all_s(), prospect.compute_all_s(), prospect.best_both()


def test_each_choice_ends_with_what_is_left_of_the_prompt():
    load, computed, (both, _) = choices(prefix(*["disk"] * 10), compute(0.01), loads(disk=0.5))

    assert load == pytest.approx(10 * 0.5 + 10 * 0.01)
    assert computed == pytest.approx(170 * 0.01)
    assert 0.1 < both < computed


def test_equal_sides_take_little_more_than_half():
    load, computed, (both, head) = choices(prefix(*["disk"] * 100, num_tokens=1600), compute(0.01), loads(disk=0.16))

    assert load == pytest.approx(computed) == pytest.approx(16)
    assert both == pytest.approx(8, rel=0.1)
    assert head == 0


def test_a_fast_head_is_loaded_first():
    tiers = ["host"] * 50 + ["disk"] * 50

    _, _, (both, head) = choices(prefix(*tiers), compute(0.01), loads(host=0.001, disk=0.16))

    assert head == 50
    assert both == pytest.approx(0.05 + 4 + 0.1, rel=0.1)


def test_a_slow_head_is_not():
    tiers = ["remote"] * 50 + ["disk"] * 50

    _, _, (_, head) = choices(prefix(*tiers), compute(0.01), loads(remote=10.0, disk=0.16))

    assert head == 0


def test_others_on_the_tier_make_loading_slower():
    alone, _, _ = choices(prefix(*["disk"] * 10), compute(0.01), loads(disk=0.5))
    shared, _, _ = choices(prefix(*["disk"] * 10), compute(0.01), loads(disk=0.5, queued={"disk": (5 * BLOCK_BYTES,)}))

    assert shared - alone == pytest.approx(5 * 0.5)


def test_others_on_another_tier_do_not():
    alone, _, _ = choices(prefix(*["disk"] * 10), compute(0.01), loads(disk=0.5))
    shared, _, _ = choices(prefix(*["disk"] * 10), compute(0.01), loads(disk=0.5, queued={"host": (5 * BLOCK_BYTES,)}))

    assert shared == alone


def test_own_loads_that_are_queued_by_now_do_not_count():
    prospect = Prospect(prefix("disk"), compute(0.01), loads(disk=0.5))
    prospect.renew(compute(0.01), loads(disk=0.5, queued={"disk": (BLOCK_BYTES,)}))

    assert prospect.load_s(0, 1) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("prefill", "costs", "unknown"),
    [
        (None, loads(disk=0.5), {"load", "compute", "both"}),  # what is left of the prompt is computed in any case
        (compute(0.01, seen=2), loads(disk=0.5), {"compute", "both"}),
        (compute(0.01, largest=10), loads(disk=0.5), {"compute", "both"}),
        (compute(0.01), loads(), {"load", "both"}),
        (compute(0.01), loads(disk=0.5, seen=2), {"load", "both"}),
        (compute(0.01), loads(disk=0.5, largest=1000), {"load", "both"}),
    ],
)
def test_what_too_little_was_observed_of_is_not_predicted(prefill, costs, unknown):
    load, computed, (both, _) = choices(prefix(*["disk"] * 10), prefill, costs)

    assert {name for name, s in (("load", load), ("compute", computed), ("both", both)) if s is None} == unknown


@pytest.mark.parametrize("step", [None, 32])
@given(
    blocks=st.integers(1, 30),
    host=st.integers(0, 30),
    per_token=st.floats(1e-4, 1),
    each=st.floats(0, 1),
    disk=st.floats(1e-3, 10),
    beside=st.floats(1, 3),
)
def test_both_is_predicted_from_the_same_rates_as_either(step, blocks, host, per_token, each, disk, beside):
    tiers = (["host"] * host + ["disk"] * blocks)[: 2 * ((host + blocks) // 2)]
    held = prefix(*tiers, step=step)

    load, computed, (both, head) = choices(
        held, compute(per_token, each=each), loads(host=1e-3, disk=disk, beside=beside)
    )

    assert min(load, computed) >= 0
    assert 0 <= head <= held.num_units
    assert both >= per_token * (held.num_tokens - held.num_reusable)


def test_units_are_chunks_where_computing_is_bound_to_them():
    held = prefix(*["disk"] * 8, step=32)

    assert (held.unit_blocks, held.num_units) == (2, 4)
    assert [held.end_of(units) for units in (0, 1, 4)] == [0, 32, 128]


def test_the_last_token_is_not_reusable():
    held = Prefix(tiers=("disk",) * 3, block_tokens=16, block_bytes=1, num_tokens=48, num_reusable=47)

    assert [held.end_of(units) for units in (2, 3)] == [32, 47]


# Decisions


@pytest.mark.parametrize(
    ("load", "compute_", "both", "expected"),
    [(1.0, 2.0, 1.0, "load"), (2.0, 1.0, 1.0, "compute"), (1.0, 1.0, 0.6, "both"), (1.0, 2.0, 0.97, "load")],
)
def test_the_fastest_is_chosen_and_both_only_if_clearly_so(load, compute_, both, expected):
    decision = decide({"load": load, "compute": compute_, "both": both})

    assert (decision.chosen, decision.reason) == (expected, "predicted to be fastest")
    assert decision.predicted == {"load": load, "compute": compute_, "both": both}


@pytest.mark.parametrize(
    ("known", "side"), [({"load": 9.0}, "computing"), ({"compute": 0.1}, "loading"), ({}, "computing")]
)
def test_with_too_little_known_the_prefix_is_loaded_and_says_so(known, side):
    decision = decide(known)

    assert (decision.chosen, decision.reason) == ("load", f"too little is known about {side}")


def test_what_loads_in_no_time_is_loaded():
    assert decide({"load": 0.04, "compute": 0.001, "both": 0.001}).chosen == "load"


def test_after_long_one_sided_use_both_sides_are_observed_again():
    known = {"load": 1.0, "compute": 9.0, "both": 1.0}

    assert [decide(known, again=again).chosen for again in (False, True)] == ["load", "both"]


@pytest.mark.parametrize(("both", "expected"), [(0.99, "both"), (1.0, "load"), (1.5, "load")])
def test_both_when_asked_for_unless_it_gains_nothing(both, expected):
    assert both_if_useful({"load": 1.0, "compute": 2.0, "both": both}).chosen == expected
