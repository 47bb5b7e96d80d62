"""The formulas against simulation, and the simulation against figures worked out elsewhere."""

import math
from dataclasses import replace

import pytest

from kvtier.context import (
    POLICIES,
    AppendOnly,
    ChunkedDrop,
    Hysteresis,
    Prices,
    SlidingWindow,
    formulas,
    make_policy,
)
from kvtier.errors import ConfigError
from kvtier.sim.chat import ChatSettings, play, summary

PRICES = Prices(write=1.25, read=0.1)
LONG = ChatSettings(turns=450, head_tokens=2_000, user_tokens=10, reply_tokens=40)
"""Messages short beside the limits, so that teeth are as long as the formulas take them to be."""


def played(make, chat, prices=PRICES, **options):
    return play(make, chat, ttl_s=300, prices=prices, **options)


def steady_cost(make, chat, **options):
    """Mean cost over a whole tooth, the first one left out."""
    turns = played(make, chat, **options)
    cold = [number for number, turn in enumerate(turns) if turn.cold]
    part = turns[cold[0] : cold[1]]
    return sum(turn.cost for turn in part) / len(part)


@pytest.mark.parametrize("caches_replies", [True, False])
@pytest.mark.parametrize(("high", "low"), [(16_000, 8_000), (12_000, 4_000), (11_000, 3_000)])
@pytest.mark.parametrize("prices", [PRICES, Prices(write=1, read=0.5)], ids=str)
def test_hysteresis_costs_what_its_formula_says_to_one_per_cent(high, low, prices, caches_replies):
    new = 10 if caches_replies else 50

    simulated = steady_cost(lambda: Hysteresis(high, low), LONG, prices=prices, caches_replies=caches_replies)

    assert simulated == pytest.approx(
        formulas.hysteresis_cost(
            head_tokens=2_000, low_tokens=low, high_tokens=high, turn_tokens=50, new_tokens=new, prices=prices
        ),
        rel=0.01,
    )


def test_a_chunked_drop_costs_what_its_formula_says_to_one_per_cent():
    simulated = steady_cost(lambda: ChunkedDrop(14_000, 8_000), LONG)

    assert simulated == pytest.approx(
        formulas.chunked_cost(
            head_tokens=2_000, chunk_tokens=8_000, high_tokens=14_000, turn_tokens=50, new_tokens=10, prices=PRICES
        ),
        rel=0.01,
    )


def test_a_full_sliding_window_costs_what_its_formula_says_to_one_per_cent():
    last = played(lambda: SlidingWindow(16_000), LONG)[-1]

    assert last.cost == pytest.approx(
        formulas.sliding_cost(head_tokens=2_000, high_tokens=16_000, prices=PRICES), rel=0.01
    )


def test_append_only_costs_what_its_formula_says_to_one_per_cent():
    last = played(AppendOnly, LONG)[-1]

    assert last.cost == pytest.approx(
        formulas.append_only_cost(tokens=last.tokens, new_tokens=10, prices=PRICES), rel=0.01
    )


def test_turns_that_come_too_late_cost_what_their_formula_says():
    chat = replace(LONG, user_tokens=1, reply_tokens=0, idle_share=0.1, head_tokens=0)
    turns = played(AppendOnly, chat)[1:]

    idle = [turn for turn in turns if turn.live_tokens == 0]
    extra = sum(turn.cost - PRICES.of(turn.tokens, turn.tokens - 1) for turn in idle) / len(turns)
    mean = sum(turn.tokens - 1 for turn in idle) / len(idle)

    assert extra == pytest.approx(
        formulas.idle_cost(tokens=mean, idle_share=len(idle) / len(turns), prices=PRICES), rel=0.01
    )


def test_the_best_gap_is_the_best_by_trying():
    settings = {"head_tokens": 2_000, "high_tokens": 32_000, "turn_tokens": 500}
    best = formulas.optimal_gap_tokens(**settings, value=0.3, prices=PRICES)

    def loss(gap):
        low = 32_000 - gap
        cost = formulas.hysteresis_cost(**settings, low_tokens=low, new_tokens=0, prices=PRICES)
        return cost - 0.3 * (low + 32_000) / 2

    assert best == pytest.approx(min(range(500, 30_000, 10), key=loss), abs=10)


def test_where_context_is_worth_little_all_of_it_is_dropped():
    settings = {"head_tokens": 2_000, "high_tokens": 32_000, "turn_tokens": 500, "prices": PRICES}

    assert formulas.optimal_gap_tokens(**settings, value=0.101) == 30_000
    assert formulas.optimal_gap_tokens(**settings, value=0.05) == 30_000


def test_an_early_cut_has_paid_after_as_many_turns_as_the_formula_says():
    turns = formulas.payback_turns(head_tokens=2_000, low_tokens=16_000, tokens=32_000, prices=PRICES)
    once = PRICES.of(16_000, 2_000) - PRICES.of(16_000, 16_000)

    assert once == pytest.approx(turns * (PRICES.of(32_000, 32_000) - PRICES.of(16_000, 16_000)))


def test_where_reading_is_free_an_early_cut_never_pays():
    free = Prices(write=1, read=0)

    assert formulas.payback_turns(head_tokens=0, low_tokens=10, tokens=20, prices=free) == math.inf


#: A chat of 400 turns of 100 + 400 tokens from empty, a turn a minute, a lifetime of 300 s, by another program.
TABLE = [
    (AppendOnly, 10_306, 0.999, 101_850, 0),
    (lambda: SlidingWindow(32_000), 32_321, 0.142, 29_728, 0.85),
    (lambda: Hysteresis(32_000, 30_000), 8_463, 0.832, 28_878, 0.17),
    (lambda: Hysteresis(32_000, 28_000), 5_752, 0.908, 28_019, 0.095),
    (lambda: Hysteresis(32_000, 24_000), 4_013, 0.954, 26_328, 0.050),
    (lambda: Hysteresis(32_000, 20_000), 3_295, 0.970, 24_534, 0.035),
    (lambda: Hysteresis(32_000, 16_000), 2_839, 0.979, 22_784, 0.028),
    (lambda: Hysteresis(32_000, 8_000), 2_184, 0.989, 19_441, 0.018),
]


@pytest.mark.parametrize(("make", "cost", "hits", "context", "cold"), TABLE)
def test_a_chat_of_400_turns_comes_out_as_another_program_says(make, cost, hits, context, cold):
    done = summary(played(make, ChatSettings()))

    assert round(done["cost_per_turn"]) == cost
    assert done["hit_rate"] == pytest.approx(hits, abs=0.0005001)
    assert round(done["mean_context_tokens"]) == context
    assert done["cold_share"] == pytest.approx(cold, abs=0.0005001)


def test_in_that_chat_all_that_remember_or_ask_cut_alike():
    costs = {
        name: summary(played(lambda name=name: make_policy(name, 32_000, 16_000, PRICES), ChatSettings()))
        for name in POLICIES
    }

    for name in ("expired", "longest", "cheapest"):
        assert costs[name]["cost_per_turn"] == costs["hysteresis"]["cost_per_turn"]


def test_without_memory_hysteresis_slides_and_the_longest_live_prefix_does_not():
    forgetful, asking = (
        summary(played(make, ChatSettings(), stateless=True))
        for make in (
            lambda: Hysteresis(32_000, 16_000),
            lambda: make_policy("longest", 32_000, 16_000, PRICES),
        )
    )

    assert forgetful["cold_turns"] == 340
    assert round(asking["cost_per_turn"]) == 2_839


def test_cutting_what_has_expired_pays():
    chat = ChatSettings(idle_share=0.1)
    plain, rule = (
        summary(played(lambda name=name: make_policy(name, 32_000, 16_000, PRICES), chat))["cost_per_turn"]
        for name in ("hysteresis", "expired")
    )

    assert rule < 0.8 * plain


@pytest.mark.parametrize(
    ("formula", "wrong", "said"),
    [
        (formulas.sliding_cost, {"head_tokens": 5, "high_tokens": 4}, "head_tokens, 5, must be below high_tokens, 4"),
        (formulas.sliding_cost, {"head_tokens": -1, "high_tokens": 4}, "head_tokens must be a number of at least 0"),
        (formulas.append_only_cost, {"tokens": math.nan, "new_tokens": 1}, "tokens must be a number of at least 0"),
        (formulas.idle_cost, {"tokens": 1, "idle_share": 1.5}, "idle_share must be from 0 to 1, got 1.5"),
        (formulas.idle_cost, {"tokens": -1, "idle_share": 0.5}, "tokens must be a number of at least 0, got -1"),
        (
            formulas.payback_turns,
            {"head_tokens": 1, "low_tokens": 9, "tokens": 9},
            "low_tokens, 9, must be below tokens, 9",
        ),
        (
            formulas.optimal_gap_tokens,
            {"head_tokens": 1, "high_tokens": 9, "turn_tokens": -3, "value": 1},
            "turn_tokens must be a number of at least 0, got -3",
        ),
        (
            formulas.hysteresis_cost,
            {"head_tokens": 0, "low_tokens": 9, "high_tokens": 9, "turn_tokens": 1, "new_tokens": 1},
            "low_tokens, 9, must be below high_tokens, 9",
        ),
        (
            formulas.hysteresis_cost,
            {"head_tokens": 0, "low_tokens": 1, "high_tokens": 9, "turn_tokens": 1, "new_tokens": -1},
            "new_tokens must be a number of at least 0, got -1",
        ),
    ],
)
def test_numbers_that_cannot_be_are_refused(formula, wrong, said):
    with pytest.raises(ConfigError, match=said):
        formula(**wrong, prices=PRICES)
