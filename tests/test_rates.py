"""Rates learnt from observations: found again, never negative, never falling with more work."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvtier.econ.profile import Profile
from kvtier.rates import LoadCosts, LoadRates, Rate, prefill_terms, profiled_prefill

weight = st.floats(0, 1) | st.just(0.0)
pieces = st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 4000)), min_size=12, max_size=40)
any_seconds = st.floats(0, 1e4)


def learnt(work, seconds):
    rate = Rate()
    for start, count in work:
        terms = prefill_terms(start, start + count)
        rate.observe(terms, seconds(terms))
    return rate.cost()


@given(pieces, st.floats(1e-5, 1e-2), st.floats(0, 1e-6), st.floats(0, 0.1))
def test_what_was_observed_is_predicted_again(work, a, b, c):
    def true_s(terms):
        return a * terms[0] + b * terms[1] + c * terms[2]

    cost = learnt(work, true_s)

    for start, count in work[-4:]:
        terms = prefill_terms(start, start + count)
        assert cost.seconds(terms) == pytest.approx(true_s(terms), rel=0.02)


def test_work_of_another_size_is_predicted_from_varied_observations():
    work = [(start, count) for start in (0, 100, 3000) for count in (1, 50, 700, 2000)]

    cost = learnt(work, lambda terms: 1e-3 * terms[0] + 2e-7 * terms[1] + 0.03 * terms[2])

    assert cost.weights == pytest.approx((1e-3, 2e-7, 0.03), rel=0.01)


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 4000), any_seconds), min_size=1, max_size=30))
def test_no_weight_is_ever_negative_or_lost(observed):
    rate = Rate()
    for start, count, seconds in observed:
        rate.observe(prefill_terms(start, start + count), seconds)

    assert all(weight >= 0 and math.isfinite(weight) for weight in rate.cost().weights)
    assert any(rate.cost().weights)


@given(
    st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 4000), any_seconds), min_size=1, max_size=20),
    *[st.integers(0, 5000)] * 2,
    *[st.integers(0, 1000)] * 2,
)
def test_more_work_is_never_predicted_to_take_less(observed, start, count, earlier, more):
    rate = Rate()
    for begin, size, seconds in observed:
        rate.observe(prefill_terms(begin, begin + size), seconds)
    cost = rate.cost()

    less = cost.seconds(prefill_terms(start, start + count))

    assert 0 <= less <= cost.seconds(prefill_terms(start, start + count + more)) * (1 + 1e-9)
    assert less <= cost.seconds(prefill_terms(start + earlier, start + earlier + count)) * (1 + 1e-9)


def test_one_observation_is_put_down_to_size():
    rate = Rate()
    rate.observe((100, 5050, 1), 2.0)

    assert rate.cost().seconds((200, 0, 0)) == pytest.approx(4.0, rel=0.01)


def test_a_run_that_was_held_up_counts_for_little():
    rate = Rate()
    for seconds in (1.0, 60.0, 1.0, 1.0):
        rate.observe((100, 1), seconds)

    assert rate.cost().seconds((100, 1)) < 1.2


def test_the_newest_observations_win():
    rate = Rate()
    for seconds in [1.0] * 50 + [3.0] * 4:
        rate.observe((100, 1), seconds)

    assert rate.cost().seconds((100, 1)) == pytest.approx(3.0, rel=0.1)


def test_old_observations_of_another_size_fade():
    rate = Rate()
    for size, seconds in [(100, 1.0)] * 50 + [(200, 6.0)] * 60:
        rate.observe((size,), seconds)

    assert rate.cost().seconds((100,)) > 2.0


def test_many_short_passes_do_not_wash_out_a_long_one():
    rate = Rate()
    for count in (100, 400, 2000):
        rate.observe(prefill_terms(0, count), 0.01 * count + 0.05)
    for _ in range(1000):
        rate.observe(prefill_terms(2000, 2001), 0.06)

    assert rate.cost().seconds(prefill_terms(0, 1000)) == pytest.approx(10.05, rel=0.1)


def test_what_is_observed_beside_the_other_side_becomes_a_factor():
    rate = Rate()
    for count in (100, 200, 300):
        rate.observe((count, 0), 0.01 * count)
    for _ in range(30):
        rate.observe((100, 0), 1.5, beside=True)

    assert rate.cost().seconds((100, 0)) == pytest.approx(1.0)
    assert rate.cost().seconds((100, 0), beside=True) == pytest.approx(1.5, rel=0.01)


def test_working_beside_another_is_never_predicted_to_be_faster():
    rate = Rate()
    for count in (100, 200, 300):
        rate.observe((count, 0), 0.01 * count)
    for _ in range(30):
        rate.observe((100, 0), 0.5, beside=True)

    assert rate.cost().beside == 1.0


def test_while_little_is_known_what_is_observed_beside_the_other_side_counts_as_if_alone():
    rate = Rate()
    rate.observe((100, 0), 1.5, beside=True)

    assert rate.cost().seconds((100, 0)) == pytest.approx(1.5)


def test_three_observations_of_about_the_size_are_enough():
    rate = Rate()
    found = []
    for _ in range(3):
        rate.observe((100, 1), 1.0)
        found.append(rate.cost().covers(100))

    assert found == [False, False, True]
    assert (rate.cost().covers(800), rate.cost().covers(801)) == (True, False)


@pytest.mark.parametrize(
    ("terms", "seconds"), [((0, 1), 1.0), ((-1, 1), 1.0), ((1, -1), 1.0), ((1, 1), -1.0), ((1, 1), math.inf)]
)
def test_what_cannot_have_happened_is_refused(terms, seconds):
    with pytest.raises(ValueError, match="seconds must be finite and work positive"):
        Rate().observe(terms, seconds)


def test_nothing_is_known_before_the_first_observation():
    assert Rate().cost() is None
    assert LoadRates().costs().seconds("disk", 100) is None


@given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 64) | st.none())
def test_the_work_of_a_computation_is_that_of_its_tokens(start, count, step):
    new, attended, passes = prefill_terms(start, start + count, step)
    ends = {min(start + count, (token // step + 1) * step) if step else 0 for token in range(start, start + count)}

    assert (new, attended) == (count, sum(range(start + 1, start + count + 1)))
    assert passes == len(ends)


# Tiers


def test_each_tier_has_its_own_rate():
    rates = LoadRates()
    for num_bytes in (100, 1000, 5000):
        rates.observe("disk", num_bytes, 0.5 + num_bytes * 0.01)
        rates.observe("host", num_bytes, num_bytes * 0.001)
    costs = rates.costs()

    assert costs.seconds("disk", 2000) == pytest.approx(20.5, rel=0.01)
    assert costs.seconds("host", 2000) == pytest.approx(2.0, rel=0.01)


def test_a_crowded_request_counts_only_until_better_ones_are_known():
    rates = LoadRates()
    for _ in range(3):
        rates.observe("disk", 100, 5.0, crowded=True)
    early = rates.costs().seconds("disk", 100)
    for _ in range(4):
        rates.observe("disk", 100, 1.0)
    rates.observe("disk", 100, 5.0, crowded=True)

    assert early == pytest.approx(5.0, rel=0.01)
    assert rates.costs().seconds("disk", 100) == pytest.approx(1.0, rel=0.01)


def test_what_is_under_way_is_known_until_it_ends():
    rates = LoadRates()

    crowded = [rates.begin("me", "disk", 100), rates.begin("you", "disk", 30), rates.begin("me", "disk", 50)]
    during = rates.costs().queued
    rates.end("me", "disk", 100)
    after_one = rates.costs().queued
    rates.end("me", "disk", 50)
    rates.end("you", "disk", 30)

    assert crowded == [False, True, True]
    assert sorted(during["disk"]) == [30, 150]
    assert sorted(after_one["disk"]) == [30, 50]
    assert rates.costs().queued == {}
    assert rates.begin("me", "disk", 1) is False


def test_nobody_crowds_himself():
    rates = LoadRates()

    assert [rates.begin("me", "disk", 100) for _ in range(2)] == [False, False]


@given(st.lists(st.integers(1, 100), max_size=4), st.integers(1, 100))
def test_those_who_share_a_tier_hold_a_read_up_by_no_more_than_their_share(others, mine):
    costs = LoadCosts({}, {"disk": tuple(others)})

    assert 1 <= costs.crowding("disk", mine) <= 1 + len(others)
    assert costs.crowding("disk", mine) * mine <= mine + sum(others) + 1e-6
    assert costs.crowding("host", mine) == 1


# From a profile


PROFILE = Profile.named("h100", "llama-3.1-8b")


@pytest.mark.parametrize("tokens", [512, 4096, 32_768])
def test_before_anything_was_computed_a_profile_is_believed(tokens):
    cost = Rate(profiled_prefill(PROFILE)).cost()

    assert cost.covers(tokens)
    assert cost.seconds(prefill_terms(0, tokens)) == pytest.approx(PROFILE.prefill_s(0, tokens), rel=0.1)


def test_a_profile_of_two_lengths_is_enough():
    short = replace(PROFILE, prefill=PROFILE.prefill[:2])

    assert profiled_prefill(short).covers(100)


@pytest.mark.parametrize("tokens", [100, 5000])
@pytest.mark.parametrize("tier", ["device", "host", "disk"])
def test_before_anything_was_read_a_profile_is_believed(tier, tokens):
    costs, num_bytes = LoadRates().costs(PROFILE), PROFILE.prefix_bytes(tokens)

    assert costs.tiers[tier].covers(num_bytes)
    assert costs.seconds(tier, num_bytes) == pytest.approx(PROFILE.load_s(tier, tokens))


def test_without_a_profile_nothing_is_known():
    assert LoadRates().costs().tiers == {}
    assert Rate().cost() is None


def test_what_was_observed_is_believed_and_the_profile_beyond_it():
    loads, size = LoadRates(), 1 << 20
    for _ in range(3):
        loads.observe("disk", size, size / 1e6)

    costs = loads.costs(PROFILE)

    assert costs.seconds("disk", 8 * size) == pytest.approx(8 * size / 1e6, rel=0.01)
    assert costs.seconds("disk", 9 * size) == pytest.approx(0.0002 + 9 * size / 7e9)
    assert costs.tiers["disk"].covers(9 * size)
    assert not loads.costs().tiers["disk"].covers(9 * size)


def test_one_observation_does_not_outweigh_a_profile():
    rate = Rate(profiled_prefill(PROFILE))
    rate.observe(prefill_terms(0, 1024), 100.0)

    assert rate.cost().seconds(prefill_terms(0, 1024)) == pytest.approx(PROFILE.prefill_s(0, 1024), rel=0.1)


def test_a_profile_that_promises_too_much_is_disproved():
    rate = Rate(profiled_prefill(PROFILE))
    for tokens in (1024, 2048, 4096):
        rate.observe(prefill_terms(0, tokens), tokens / 10)

    assert rate.cost().seconds(prefill_terms(0, 2048)) == pytest.approx(204.8, rel=0.01)


def test_what_is_profiled_takes_longer_beside_the_other_side_as_well():
    rate, terms = Rate(profiled_prefill(PROFILE)), prefill_terms(0, 1024)
    alone = rate.cost().seconds(terms)

    for _ in range(60):
        rate.observe(terms, 3 * alone, beside=True)

    assert rate.cost().seconds(terms) == alone
    assert rate.cost().seconds(terms, beside=True) == pytest.approx(3 * alone)
