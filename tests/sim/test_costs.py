"""Seconds and dollars of a replay, by hand from a profile whose every figure is round."""

import pytest

from kvtier.sim.costs import Meter, speeds
from kvtier.sim.replay import Replay
from kvtier.sim.settings import Settings, parse_tier
from kvtier.sim.tally import Tally, TierTally, rates, tier_rows
from kvtier.sim.trace import Request

TOKENS = 10
SETTINGS = Settings(tiers=[parse_tier("device=2"), parse_tier("disk=8")])


class Round:
    """Prefill of n tokens takes n s and as much again for each 100 before; loading takes 1 s and 0.1 s a token."""

    bytes_per_token = 100

    def __init__(self):
        self.asked = []

    def tier(self, name):
        self.asked.append(name)

    def prefill_s(self, start, end):
        return (end - start) + (end * end - start * start) / 100

    def load_s(self, name, tokens):
        return {"device": 0.0, "disk": 1.0}[name] + 0.1 * tokens

    def read_usd(self, name, tokens):
        return 0.01 * tokens

    def wear_usd(self, name, num_bytes):
        return 1e-6 * num_bytes

    def rent_usd(self, name, num_bytes, seconds):
        return 1e-6 * num_bytes * seconds

    def compute_usd(self, seconds):
        return 2.0 * seconds


class Words:
    name, block_tokens = "words", TOKENS

    def __init__(self, *requests):
        self.requests = requests

    def __iter__(self):
        return iter([Request(time_s, list(blocks), tokens, 1) for time_s, blocks, tokens in self.requests])


def billed(*requests, settings=SETTINGS):
    profile = Round()
    replay = Replay(Words(*requests), settings)
    meter = Meter(profile, settings, TOKENS)
    for served in replay.serve():
        meter.watch(served)
    return meter.bill(replay.tally)


def test_what_is_found_nowhere_is_computed():
    bill = billed((5.0, [0, 1], 20))

    assert bill.ttft_mean_s == bill.recompute_ttft_mean_s == 20 + 4
    assert (bill.compute_usd, bill.recompute_usd, bill.read_usd, bill.wear_usd, bill.rent_usd) == (48.0, 48.0, 0, 0, 0)


def test_what_is_found_in_the_first_tier_is_there_at_once():
    bill = billed((0.0, [0, 1], 20), (0.0, [0, 1, 2], 30))

    assert bill.ttft_p50_s == pytest.approx((24 + 10 + 5) / 2)
    assert bill.read_usd == 0


def test_the_last_token_is_computed_though_everything_was_found():
    bill = billed((0.0, [0], 10), (0.0, [0], 10))

    assert bill.ttft_mean_s == pytest.approx((10 + 1 + 1 + 0.19) / 2)


def test_what_is_found_below_is_loaded_written_once_and_rented_all_the_time():
    bill = billed((2.0, [0, 1], 20), (3.0, [2, 3], 20), (12.0, [0, 1], 15))

    # Two blocks sink; of them 15 tokens are loaded; the other two sink when these come up.
    loaded_s = 1 + 1.5
    last_s = 1 + (15 * 15 - 14 * 14) / 100
    assert bill.ttft_mean_s == pytest.approx((24 + 24 + loaded_s + last_s) / 3)
    assert bill.ttft_p99_s == pytest.approx(24.0)
    assert bill.read_usd == pytest.approx(0.15)
    assert bill.wear_usd == pytest.approx(1e-6 * 4 * 1000)
    assert bill.rent_usd == pytest.approx(1e-6 * 8 * 1000 * 10)
    assert bill.compute_usd == pytest.approx(2 * 3 * bill.ttft_mean_s)
    assert bill.recompute_usd == pytest.approx(2 * (24 + 24 + 15 + 2.25))
    assert bill.total_usd == pytest.approx(bill.compute_usd + bill.read_usd + bill.wear_usd + bill.rent_usd)
    assert bill.as_dict()["usd_per_request"] == pytest.approx(bill.total_usd / 3)
    assert bill.as_dict()["recompute_usd_per_request"] == pytest.approx(bill.recompute_usd / 3)


def test_no_request_costs_nothing():
    bill = billed()

    assert (bill.ttft_mean_s, bill.total_usd, bill.as_dict()["usd_per_request"]) == (0, 0, 0)


def test_a_profile_must_know_every_tier():
    profile = Round()

    Meter(profile, SETTINGS, TOKENS)

    assert profile.asked == ["device", "disk"]


def test_policies_know_what_a_block_takes_at_its_depth_and_what_a_tier_takes():
    known = speeds(Round(), SETTINGS, TOKENS)

    assert [known["recompute_s"](depth) for depth in range(3)] == [11, 13, 15]
    assert known["load_s"]["disk"] == pytest.approx((1.0, 1.0))
    assert known["load_s"]["device"] == pytest.approx((0.0, 1.0))


# Rates and rows


def test_rates_are_shares_and_nothing_of_nothing():
    tally = Tally([], references=10, block_hits=5, prefix_hits=4, input_tokens=100, token_hits=25)

    assert rates(tally) == {"block_hit_rate": 0.5, "prefix_hit_rate": 0.4, "token_hit_rate": 0.25}
    assert set(rates(Tally([])).values()) == {0.0}


def test_rows_name_every_count_and_bytes_where_they_are_known():
    tally = Tally([TierTally(hits=1, written=2, read=3, evicted=4, expired=5, lost=6)])
    row = {"name": "disk", "block_hits": 1, "read_blocks": 3, "written_blocks": 2}
    row |= {"evicted_blocks": 4, "expired_blocks": 5, "lost_blocks": 6}

    assert tier_rows(tally, ["disk"], None) == [row]
    assert tier_rows(tally, ["disk"], 10) == [row | {"read_bytes": 30, "written_bytes": 20}]
