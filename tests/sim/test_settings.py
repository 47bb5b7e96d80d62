"""Tiers as text."""

import pytest

from kvtier.errors import ConfigError
from kvtier.sim.settings import Settings, TierSettings, parse_capacity, parse_tier


def test_a_tier_needs_a_name_and_a_capacity_only():
    assert parse_tier("host=5000") == TierSettings(name="host", capacity_blocks=5000)


def test_everything_can_be_said_of_a_tier():
    assert parse_tier("disk=1 MiB:sieve:ttl=1h:refresh=no:admit=long_prompts/4", 1024) == TierSettings(
        name="disk", capacity_blocks=1024, policy="sieve", ttl_s=3600.0, refresh=False, admission="long_prompts/4"
    )


def test_what_a_tier_says_goes_before_what_is_common():
    common = {"policy": "fifo", "ttl_s": 9.0, "refresh": False}

    assert parse_tier("host=2:refresh=yes", None, common) == TierSettings(
        name="host", capacity_blocks=2, policy="fifo", ttl_s=9.0
    )


def test_bytes_make_whole_blocks():
    assert parse_capacity("2 KiB", 1000) == 2
    assert parse_capacity(" 12 ", None) == 12


@pytest.mark.parametrize("text", ["", "x", "1.5", "1e3", "0x10", "4 XB", "9" * 30])
def test_what_is_no_capacity_is_refused(text):
    with pytest.raises(ConfigError, match="is not a capacity"):
        parse_capacity(text, 1)


def test_bytes_without_a_model_are_refused():
    with pytest.raises(ConfigError, match="--model"):
        parse_capacity("1 GiB", None)


def test_a_replay_needs_a_tier():
    with pytest.raises(ConfigError, match="at least one tier"):
        Settings(tiers=[])


@pytest.mark.parametrize("ttl_s", [0.0, -1.0, float("inf"), float("nan")])
def test_a_time_that_is_none_is_refused(ttl_s):
    with pytest.raises(ConfigError, match="time to live"):
        TierSettings(name="host", capacity_blocks=1, ttl_s=ttl_s)


def keeping(copies):
    tiers = [TierSettings(name=name, capacity_blocks=1) for name in ("device", "host", "disk", "remote")]
    settings = Settings(tiers=tiers, copies=copies)
    return [tier.name for tier in tiers if settings.keeps(tier)]


def test_who_keeps_copies():
    assert keeping("disk") == ["disk", "remote"]
    assert keeping("exclusive") == []
    assert keeping("inclusive") == ["device", "host", "disk", "remote"]


@pytest.mark.parametrize(
    ("names", "write", "does"),
    [
        (["device", "disk"], "on_insertion", True),
        (["device", "remote"], "on_insertion", True),
        (["device", "disk"], "on_eviction", False),
        (["device", "host"], "on_insertion", False),
        (["disk"], "on_insertion", False),
    ],
)
def test_new_blocks_are_copied_to_a_disk_below_others(names, write, does):
    tiers = [TierSettings(name=name, capacity_blocks=1) for name in names]

    assert Settings(tiers=tiers, write=write).writes_through == does
