"""The ledger against figures worked out by hand, and what it says where the cache loses."""

import json
import math
from dataclasses import replace

import pytest

from kvtier.econ import formulas, keeping
from kvtier.econ.figures import Figure
from kvtier.econ.ledger import make_ledger
from kvtier.econ.prices import load_prices
from kvtier.econ.profile import PrefillPoint, Profile, TierProfile
from kvtier.errors import ConfigError, ProfileError


def figure(value, unit, lo=None, hi=None):
    return Figure(value=value, unit=unit, source="a test", date="2026-11", kind="measured", lo=lo, hi=hi)


HOST = TierProfile(
    medium="memory",
    read_bytes_per_s=figure(10e9, "bytes/s"),
    write_bytes_per_s=figure(10e9, "bytes/s"),
    latency_s=figure(0.0, "s"),
    write_amplification=figure(1, "ratio"),
    rent_usd_per_gb_hour=figure(0.0036, "USD/GB-h"),
)
DISK = TierProfile(
    medium="drive",
    read_bytes_per_s=figure(2e9, "bytes/s", 1e9, 4e9),
    write_bytes_per_s=figure(1e9, "bytes/s"),
    latency_s=figure(0.0, "s"),
    write_amplification=figure(1.5, "ratio"),
    rent_usd_per_gb_hour=figure(0.00036, "USD/GB-h"),
    device_usd_per_hour=figure(0.36, "USD/h"),
    wear_usd_per_gb=figure(0.002, "USD/GB"),
    power_w=figure(20, "W"),
)

#: 1 MB a token, 1 ms to compute one, 7.2 USD an hour: computing a million costs 2 USD.
PROFILE = Profile(
    name="mine",
    source="measured",
    date="2026-11-25",
    machine="a machine",
    versions={},
    model="tiny",
    kv_dtype="float32",
    bytes_per_token=1_000_000,
    prefill=(PrefillPoint(tokens=1000, lo=0.5, mid=1, hi=2), PrefillPoint(tokens=10_000, lo=5, mid=10, hi=20)),
    gpu_usd_per_hour=figure(7.2, "USD/h"),
    tiers={"host": HOST, "disk": DISK},
    power_w=figure(300, "W"),
)


def rows(**options):
    asked = {"prompt_tokens": [1000], "reuses": [2], "holds_s": [3600.0], "tiers": ["disk"]} | options
    return make_ledger(asked.pop("profile", PROFILE), **asked).rows


def row(**options):
    (only,) = rows(**options)
    return only


def tier(**change):
    return replace(PROFILE, tiers={"host": HOST, "disk": replace(DISK, **change)})


def test_every_component_by_hand():
    found = row(request_s=10.0)

    gb = 1000  # of a million tokens
    assert found.recompute_usd == pytest.approx(1000 * 7.2 / 3600)
    assert found.read_usd == pytest.approx(gb / 2 * 0.36 / 3600)
    assert found.write_usd == pytest.approx((gb * 0.002 * 1.5 + gb / 1 * 0.36 / 3600) / 2)
    assert found.rent_usd == pytest.approx(gb * 0.00036 / 2)
    assert found.occupancy_usd == pytest.approx(gb * 0.0036 * 10 / 3600)
    assert found.stall_usd == pytest.approx(gb / 2 * 7.2 / 3600)
    assert found.speed_up == pytest.approx(1.0 / 0.5)
    assert found.recompute_kj == pytest.approx(300)
    assert found.read_kj == pytest.approx(20 * 500 / 1e3)


def test_a_hit_is_the_sum_of_its_parts_and_memory_is_no_saving():
    found = row()
    parts = found.read_usd + found.write_usd + found.rent_usd

    assert found.hit_usd == pytest.approx(parts + found.occupancy_usd)
    assert found.miss_usd == pytest.approx(found.recompute_usd + found.occupancy_usd)
    assert found.saves_usd == pytest.approx(found.recompute_usd - parts)
    assert found.share == pytest.approx(found.hit_usd / found.miss_usd)
    assert found.share_stalled == pytest.approx((found.hit_usd + found.stall_usd) / found.miss_usd)


def test_the_worst_of_the_band_is_a_fast_recompute_and_a_slow_read():
    found = row()

    assert found.saves_lo_usd == pytest.approx(1.0 - 2 * found.read_usd - found.write_usd - found.rent_usd)


@pytest.mark.parametrize("reuses", [1, 2, 10])
def test_writing_and_rent_are_shared_among_the_hits_and_reading_is_not(reuses):
    one, many = row(reuses=[1]), row(reuses=[reuses])

    assert many.write_usd == pytest.approx(one.write_usd / reuses)
    assert many.rent_usd == pytest.approx(one.rent_usd / reuses)
    assert many.read_usd == one.read_usd
    assert many.occupancy_usd == one.occupancy_usd


def test_without_wear_or_power_these_cost_nothing_and_are_unknown():
    found = row(tiers=["host"])

    assert (found.read_usd, found.write_usd) == (0, 0)
    assert found.read_kj is None


# The verdict. Recompute 2.00; with its bands 1.00.


def verdict(hold_s, **options):
    """Of a tier that costs nothing but rent: 0.36 USD/Mtok-h, shared between two hits."""
    free = tier(device_usd_per_hour=None, wear_usd_per_gb=None, **options)
    return row(profile=free, holds_s=[hold_s]).verdict


@pytest.mark.parametrize(
    ("hours", "said"),
    [(0, "saves"), (5, "saves"), (5.7, "loses if it stalls"), (11, "loses if it stalls"), (12, "loses")],
)
def test_the_verdict_follows_the_rent(hours, said):
    assert verdict(hours * 3600.0) == said


def test_within_the_bands_it_may_lose():
    fast = {"read_bytes_per_s": figure(100e9, "bytes/s")}

    assert verdict(5 * 3600.0, **fast) == "saves"
    assert verdict(6 * 3600.0, **fast) == "may lose"


def test_a_hit_that_saves_nothing_loses():
    assert verdict(2.0 / 0.18 * 3600) == "loses"


# Order and extent


def test_rows_are_by_length_tier_hold_and_reuses():
    found = rows(prompt_tokens=[1000, 2000], tiers=["disk", "host"], holds_s=[60.0, 120.0], reuses=[1, 2])

    assert [(r.prompt_tokens, r.tier, r.hold_s, r.reuses) for r in found[:5]] == [
        (1000, "host", 60, 1),
        (1000, "host", 60, 2),
        (1000, "host", 120, 1),
        (1000, "host", 120, 2),
        (1000, "disk", 60, 1),
    ]
    assert len(found) == 16


def test_all_tiers_are_taken_where_none_is_named():
    assert {found.tier for found in rows(tiers=None)} == {"host", "disk"}


def test_a_prompt_beyond_the_profile_is_marked():
    assert [found.extrapolated for found in rows(prompt_tokens=[1000, 20_000])] == [False, True]


# How long to keep it


def hold(name, **options):
    return next(item for item in make_ledger(PROFILE, prompt_tokens=[2000], **options).holds if item.tier == name)


def test_hold_times_by_hand():
    disk = hold("disk")

    assert disk.rent_usd_per_hour == pytest.approx(0.36)
    assert disk.recompute_s == pytest.approx(2.0 / 0.36 * 3600)
    assert disk.saving_s == pytest.approx((2.0 - 0.05) / 0.36 * 3600)
    assert disk.over_next_s is None
    assert disk.over_next_stalled_s is None
    assert disk.least_reuses == pytest.approx((3.0 + 0.1) / (2.0 - 0.05))


def test_memory_over_the_drive_by_hand():
    host, extra_rent = hold("host"), (0.0036 - 0.00036) / 3600

    assert host.over_next_s == pytest.approx(0.36 / 3600 / 2 / extra_rent)
    assert host.over_next_stalled_s == pytest.approx((0.36 / 3600 / 2 + 7.2 / 3600 * (1 / 2 - 1 / 10)) / extra_rent)


def test_a_tier_that_reads_dearer_than_computing_is_worth_no_holding():
    dear = make_ledger(tier(usd_per_gb_read=figure(1, "USD/GB")), prompt_tokens=[1000], tiers=["disk"]).holds[0]

    assert dear.saving_s == 0
    assert dear.least_reuses == math.inf


def test_what_is_infinite_is_null_in_json():
    ledger = make_ledger(
        tier(usd_per_gb_read=figure(1, "USD/GB")), prompt_tokens=[1000], prices=list(load_prices().values())
    )
    found = json.loads(json.dumps(ledger.as_dict(), allow_nan=False))

    assert found["holds"][1]["least_reuses"] is None
    assert found["rows"][0]["verdict"] == ledger.rows[0].verdict
    assert found["inputs"]["disk.wear_usd_per_gb"]["source"] == "a test"
    shares = [price["share"] for price in found["list_prices"]]
    assert shares == sorted(shares)
    assert len(shares) > 25


@pytest.mark.parametrize(
    "wrong",
    [
        {"prompt_tokens": [0]},
        {"prompt_tokens": []},
        {"reuses": [0]},
        {"reuses": []},
        {"holds_s": []},
        {"holds_s": [-1.0]},
        {"request_s": 0.0},
    ],
)
def test_a_question_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ConfigError, match="expected"):
        make_ledger(PROFILE, **wrong)


def test_a_tier_that_the_profile_lacks_is_refused():
    with pytest.raises(ProfileError, match="unknown tier 'device'"):
        make_ledger(PROFILE, tiers=["device"])


# Formulas refuse what they would turn into a bargain


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: formulas.prefill_tokens_per_s(flop_per_token=0, peak_flop_per_s=1, mfu=0.5),
        lambda: formulas.prefill_tokens_per_s(flop_per_token=1, peak_flop_per_s=1, mfu=1.5),
        lambda: formulas.recompute_usd_per_mtok(usd_per_hour=-1, tokens_per_s=1),
        lambda: formulas.recompute_usd_per_mtok(usd_per_hour=1, tokens_per_s=0),
        lambda: formulas.break_even_bytes_per_s(bytes_per_token=1, tokens_per_s=-1),
        lambda: formulas.drive_usd_per_mtok(bytes_per_token=1, read_bytes_per_s=0, device_usd_per_hour=1),
        lambda: formulas.drive_usd_per_mtok(bytes_per_token=1, read_bytes_per_s=1, device_usd_per_hour=-1),
        lambda: formulas.stall_usd_per_mtok(bytes_per_token=1, read_bytes_per_s=1, gpu_usd_per_hour=math.nan),
        lambda: formulas.occupancy_usd_per_mtok(bytes_per_token=1, request_s=-1, hbm_usd_per_gb_hour=1),
        lambda: formulas.hit_share(recompute_usd_per_mtok=0, drive_usd_per_mtok=1, occupancy_usd_per_mtok=1),
        lambda: formulas.recompute_kj_per_mtok(power_w=0, tokens_per_s=1),
        lambda: formulas.read_kj_per_mtok(power_w=1, bytes_per_token=1, read_bytes_per_s=math.inf),
        lambda: keeping.rent_usd_per_mtok_hour(bytes_per_token=1, usd_per_gb_hour=-1),
        lambda: keeping.hold_s_of_one_recompute(recompute_usd_per_mtok=-1, rent_usd_per_mtok_hour=1),
        lambda: keeping.hold_s_above(rent_above_usd_per_gb_hour=-1, rent_below_usd_per_gb_hour=0),
        lambda: keeping.gray_putzolu_s(pages_per_mb=0, accesses_per_s=1, usd_per_disk=1, usd_per_mb=1),
        lambda: keeping.wear_usd_per_gb(usd_per_gb=1, write_amplification=0, dwpd=1, years=5),
        lambda: keeping.wear_usd_per_gb(usd_per_gb=-1, write_amplification=1, dwpd=1, years=5),
        lambda: keeping.owned_usd_per_gb(usd_per_gb=1, days=-1, dwpd=1, years=5),
        lambda: keeping.least_reuses(wear_usd_per_mtok=-1, recompute_usd_per_mtok=1, hit_usd_per_mtok=0),
    ],
)
def test_a_formula_refuses_absurd_numbers(wrong):
    with pytest.raises(ConfigError, match="expected a"):
        wrong()


def test_what_is_kept_for_nothing_is_kept_for_ever():
    assert keeping.hold_s_of_one_recompute(recompute_usd_per_mtok=1, rent_usd_per_mtok_hour=0) == math.inf


def test_a_faster_tier_that_is_not_dearer_is_always_better():
    assert keeping.hold_s_above(rent_above_usd_per_gb_hour=1, rent_below_usd_per_gb_hour=1) == math.inf


def test_a_slower_tier_above_is_never_worth_it():
    times = keeping.hold_s_above(
        rent_above_usd_per_gb_hour=2,
        rent_below_usd_per_gb_hour=1,
        bytes_per_s_above=1e9,
        bytes_per_s_below=2e9,
        stalled_usd_per_hour=1,
    )

    assert times == 0


@pytest.mark.parametrize("hit", [1, 2])
def test_a_hit_that_saves_nothing_is_never_kept_or_written(hit):
    rates = {"recompute_usd_per_mtok": 1, "hit_usd_per_mtok": hit}

    assert keeping.least_reuses_per_hour(**rates, rent_usd_per_mtok_hour=1) == math.inf
    assert keeping.least_reuses(**rates, wear_usd_per_mtok=1) == math.inf


def test_the_rate_at_which_a_block_is_dropped_is_the_inverse_of_its_hold_time():
    saving, rent = 0.0213, 0.0279
    rate = keeping.least_reuses_per_hour(
        recompute_usd_per_mtok=0.0256, hit_usd_per_mtok=0.0256 - saving, rent_usd_per_mtok_hour=rent
    )

    assert 3600 / rate == pytest.approx(
        keeping.hold_s_of_one_recompute(recompute_usd_per_mtok=saving, rent_usd_per_mtok_hour=rent)
    )


def test_write_amplification_shortens_a_drives_life():
    drive = {"usd_per_gb": 0.3, "dwpd": 1, "years": 5}

    assert keeping.wear_usd_per_gb(write_amplification=3, **drive) == pytest.approx(3 * 0.3 / 1825)


@pytest.mark.parametrize(("days", "dwpd", "used"), [(0.1, 1, 1), (1, 1, 1), (10, 1, 10), (1, 0.25, 4)])
def test_a_drive_of_ones_own_is_used_up_by_time_or_by_writes(days, dwpd, used):
    usd = keeping.owned_usd_per_gb(usd_per_gb=0.3, days=days, dwpd=dwpd, years=5)

    assert usd == pytest.approx(0.3 * used / 1825)


def test_rent_counts_as_a_cost_of_writing():
    reuses = keeping.least_reuses(
        wear_usd_per_mtok=1, rent_usd_per_mtok=2, recompute_usd_per_mtok=4, hit_usd_per_mtok=1
    )

    assert reuses == pytest.approx(1.0)


def test_beside_computing_for_nothing_no_cache_has_a_price():
    free = replace(PROFILE, gpu_usd_per_hour=figure(0.0, "USD/h"))

    with pytest.raises(ConfigError, match="gpu_usd_per_hour is 0"):
        rows(profile=free)
