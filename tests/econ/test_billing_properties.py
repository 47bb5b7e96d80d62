"""What must hold of every bill, whatever the traffic."""

from dataclasses import replace

import pytest
from billing_helpers import TARIFFS, Script, charges
from hypothesis import given
from hypothesis import strategies as st

from kvtier.econ.billing.bills import bills
from kvtier.econ.billing.breakeven import longest_gap_s, most_pings, reuses_to_pay, warm_up_saving
from kvtier.econ.billing.strategies import keep_alive, warm_up

PLAIN = [tariff for tariff in TARIFFS.values() if not tariff.rules.made_apart]
AUTOMATIC = [tariff for tariff in PLAIN if tariff.rules.entries != "marks"]


@st.composite
def traffic(draw):
    """Chats that share heads, branch and pause."""
    script, calls, now = Script(), [], 0.0
    for _ in range(draw(st.integers(1, 12))):
        now += draw(st.sampled_from([0, 0, 0.5, 30, 299, 400, 4000, 90_000]))
        names = draw(st.lists(st.sampled_from("abc"), min_size=1, max_size=5))
        marks = draw(st.sampled_from(["", "*"]))
        text = " ".join(f"{name}{depth}:{700 * (1 + ord(name) % 3)}" for depth, name in enumerate(names)) + marks
        calls.append(script.call(now, text, conversation=draw(st.integers(0, 2)), output=draw(st.integers(0, 50))))
    return calls


@given(traffic(), st.sampled_from(PLAIN), st.floats(0, 1))
def test_a_bill_is_never_above_the_dearest_write_nor_below_reads_alone(calls, tariff, probability):
    (bill,) = bills(calls, [tariff], hit_probability=probability)
    dearest = max(
        1.0, *(life.write_usd_per_mtok / tariff.prices.input_usd_per_mtok for life in tariff.lifetimes.values())
    )

    assert tariff.read_multiple - 1e-9 <= bill.share <= dearest + 1e-9


@given(traffic(), st.sampled_from(list(TARIFFS.values())))
def test_every_token_of_a_prompt_is_billed_once(calls, tariff):
    (bill,) = bills(calls, [tariff], keep_charges=True)

    for call, charge in zip(calls, bill.charges, strict=True):
        written = 0 if tariff.rules.made_apart else charge.written_tokens
        assert charge.read_tokens + written + charge.uncached_tokens == call.input_tokens
        assert min(charge.read_tokens, charge.written_tokens, charge.uncached_tokens) >= 0


@given(traffic(), st.sampled_from(PLAIN), st.floats(1, 5000), st.floats(0, 90_000))
def test_longer_retention_never_reads_less(calls, tariff, lifetime_s, more_s):
    def kept(seconds):
        lives = {name: replace(life, seconds=seconds) for name, life in tariff.lifetimes.items()}
        return replace(tariff, rules=replace(tariff.rules, lifetime_s=seconds), lifetimes=lives)

    short, long = bills(calls, [kept(lifetime_s), kept(lifetime_s + more_s)], keep_charges=True)

    assert all(a.read_tokens <= b.read_tokens for a, b in zip(short.charges, long.charges, strict=True))
    assert long.input_usd <= short.input_usd + 1e-12


@given(traffic(), st.sampled_from(AUTOMATIC), st.floats(0, 1), st.floats(0, 1))
def test_better_routing_never_reads_less(calls, tariff, one, other):
    worse, better = (bills(calls, [tariff], hit_probability=p, seed=5)[0] for p in sorted((one, other)))

    assert worse.read_tokens <= better.read_tokens


@given(st.integers(1, 9), st.sampled_from([t for t in AUTOMATIC if t.write_multiple == 1]))
def test_without_reuse_an_automatic_cache_costs_what_none_costs(count, tariff):
    script = Script()
    (bill,) = bills([script.call(60 * i, f"head{i}:3000 u:50") for i in range(count)], [tariff])

    assert bill.share == pytest.approx(1.0)
    assert bill.read_tokens == 0


def test_no_traffic_is_a_share_of_one():
    (bill,) = bills([], [TARIFFS["xai grok-4.5 automatic"]])

    assert (bill.share, bill.hit_rate, bill.input_usd) == (1.0, 0.0, 0.0)


def test_a_long_prompt_is_dear_without_a_cache_too():
    (bill,) = bills([Script().call(0, "S:300000")], [TARIFFS["google gemini-2.5-pro implicit"]])

    assert bill.share == pytest.approx(1.0)
    assert bill.no_cache_usd == pytest.approx(300_000 * 2.50 / 1e6)


def test_sums_are_the_sums_of_the_calls():
    script, tariff = Script(), replace(TARIFFS["google gemini-2.5-pro explicit"])
    tariff = replace(tariff, prices=replace(tariff.prices, output_usd_per_mtok=10.0))
    calls = [script.call(60 * i, f"S:5000* u{i}:50", output=30) for i in range(3)]

    (bill,) = bills(calls, [tariff], keep_charges=True)

    assert (bill.calls, bill.added_calls, bill.input_tokens, bill.output_tokens) == (3, 0, 15_150, 90)
    assert bill.input_usd == pytest.approx(sum(charge.input_usd for charge in bill.charges))
    assert bill.output_usd == pytest.approx(90 * 10.0 / 1e6)
    assert bill.no_cache_usd == pytest.approx(15_150 * 1.25 / 1e6)
    assert bill.stored_token_hours == pytest.approx(5000)
    assert bill.written_tokens == 5000
    assert bill.uncached_tokens == 150


# Break-evens against the engine: the arithmetic must say what the bill says.


@pytest.mark.parametrize("plan", ["5m", "1h"])
def test_reuses_pay_from_where_the_formula_says(plan):
    tariff = TARIFFS[f"anthropic sonnet-4.5 {plan}"]
    needed = reuses_to_pay(write=tariff.write_multiple, read=tariff.read_multiple)

    for reuses in range(4):
        (bill,) = bills([Script().call(9 * i, "S:2000*") for i in range(reuses + 1)], [tariff])
        assert (bill.share < 1) == (reuses > needed)


@pytest.mark.parametrize("pings", range(14))
def test_pings_pay_as_long_as_the_formula_says(pings):
    tariff = TARIFFS["anthropic sonnet-4.5 5m"]
    script = Script()
    calls = [script.call(0, "S:2000*"), script.call(299 * (pings + 1), "S:2000*")]

    sent = list(keep_alive(calls, every_s=299, limit=pings))[: pings + 2]  # those after the last call are in vain
    (kept,) = bills(sent, [tariff])
    (let_go,) = bills(calls, [tariff])

    assert kept.added_calls == pings
    if pings:
        assert (kept.input_usd < let_go.input_usd - 1e-12) == (pings <= most_pings(write=1.25, read=0.1))


def test_the_longest_gap_is_one_lifetime_after_the_last_ping():
    assert longest_gap_s(write=1.25, read=0.1, lifetime_s=300) == (11 + 1) * 300


@pytest.mark.parametrize("num_calls", [2, 3, 10])
def test_a_warm_up_saves_what_the_formula_says(num_calls):
    tariff = TARIFFS["anthropic sonnet-4.5 5m"]
    script = Script()
    calls = [script.call(0, f"S:2000* u{i}:50") for i in range(num_calls)]

    (cold,) = bills(calls, [tariff])
    (warm,) = bills(warm_up(calls, within_s=1, lifetime_s=300, marked=True), [tariff])

    saved = warm_up_saving(num_calls=num_calls, write=1.25, read=0.1)
    assert cold.input_usd - warm.input_usd == pytest.approx(saved * 2000 * 3.00 / 1e6)


def test_two_calls_with_one_ahead_save_1_05_of_what_they_share():
    assert warm_up_saving(num_calls=2, write=1.25, read=0.1) == pytest.approx(1.05)


def test_what_a_strategy_adds_is_on_the_bill_and_not_beside_it():
    script = Script()
    calls = [script.call(0, "S:2000*"), script.call(700, "S:2000*")]

    (bill,) = bills(keep_alive(calls, every_s=299, limit=2), [TARIFFS["anthropic sonnet-4.5 5m"]])

    assert bill.added_calls == 4  # two before the second call, two in vain after it
    assert bill.added_tokens == 8000
    assert bill.added_usd == pytest.approx(4 * 2000 * 0.30 / 1e6)
    assert bill.no_cache_usd == pytest.approx(4000 * 3.00 / 1e6)
    assert bill.input_tokens == 4000
    assert charges("anthropic sonnet-4.5 5m", (0, "S:2000*"))[0].no_cache_usd == pytest.approx(2000 * 3 / 1e6)
