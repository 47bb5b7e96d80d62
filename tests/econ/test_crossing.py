"""From which length on loading wins: held against a search through every length."""

from dataclasses import replace

import pytest

from kvtier.econ.crossing import break_even_tokens, hit_band_s, lengths_known
from kvtier.econ.profile import PrefillPoint, Profile


@pytest.mark.parametrize(("hardware", "model"), [("h100", "llama-3.1-8b"), ("a100", "qwen3-0.6b")])
def test_the_break_even_is_the_last_crossing(hardware, model):
    profile = Profile.named(hardware, model)

    for tier in profile.tiers:
        found = break_even_tokens(profile, tier)
        faster = [
            profile.load_s(tier, n - 1) + profile.prefill_s(n - 1, n) < profile.prefill_s(0, n)
            for n in range(1, 20_000)
        ]
        assert found == len(faster) - faster[::-1].index(False) + 1


def test_where_computing_wins_at_every_length_there_is_no_break_even():
    profile = Profile.named("h100", "smollm2-135m")
    slow = replace(profile.tiers["disk"], read_bytes_per_s=replace(profile.tiers["disk"].read_bytes_per_s, value=1e6))

    assert break_even_tokens(replace(profile, tiers={**profile.tiers, "disk": slow}), "disk") is None


def test_a_hit_is_the_load_and_the_last_token():
    profile = Profile.named("h100", "llama-3.1-8b")

    found = hit_band_s(profile, "disk", 1025)
    assert found.mid == pytest.approx(profile.load_s("disk", 1024) + profile.pass_s)
    assert found.lo < found.mid < found.hi


def test_lengths_go_from_one_token_to_the_longest_known():
    points = tuple(PrefillPoint(tokens=n, lo=n, mid=n, hi=n) for n in (64, 80))

    assert lengths_known(replace(Profile.named("h100", "qwen3-8b"), prefill=points)) == [
        1,
        2,
        3,
        4,
        6,
        8,
        11,
        16,
        23,
        32,
        45,
        64,
        80,
    ]
