"""What a profile answers, how it is kept, and which ones are refused."""

import json
import re
from dataclasses import replace

import pytest

from kvtier.econ import machine
from kvtier.econ.curve import PrefillCurve, fit
from kvtier.econ.derive import derive_profile
from kvtier.econ.figures import Figure
from kvtier.econ.models import load_model
from kvtier.econ.profile import PrefillPoint, Profile, TierProfile
from kvtier.errors import ConfigError, ProfileError


def figure(value, unit, lo=None, hi=None):
    return Figure(value=value, unit=unit, source="a test", date="2026-11", kind="measured", lo=lo, hi=hi)


HOST = TierProfile(
    medium="memory",
    read_bytes_per_s=figure(10e9, "bytes/s", 8e9, 12e9),
    write_bytes_per_s=figure(5e9, "bytes/s"),
    latency_s=figure(0.0, "s"),
    write_amplification=figure(1, "ratio"),
    rent_usd_per_gb_hour=figure(0.0036, "USD/GB-h"),
)
DISK = TierProfile(
    medium="drive",
    read_bytes_per_s=figure(2e9, "bytes/s", 1e9, 4e9),
    write_bytes_per_s=figure(1e9, "bytes/s"),
    latency_s=figure(0.5, "s", 0.25, 1.0),
    write_amplification=figure(1.5, "ratio"),
    rent_usd_per_gb_hour=figure(0.00036, "USD/GB-h"),
    device_usd_per_hour=figure(3.6, "USD/h"),
    wear_usd_per_gb=figure(0.002, "USD/GB"),
    usd_per_gb_read=figure(0.01, "USD/GB"),
    usd_per_gb_written=figure(0.03, "USD/GB"),
    power_w=figure(20, "W"),
    raw_read_bytes_per_s=figure(3e9, "bytes/s"),
)


def seconds(tokens):
    return 0.5 + 0.001 * tokens + 1e-7 * tokens * tokens


def points(lengths=(1000, 2000, 4000, 8000), *, by=seconds):
    return tuple(PrefillPoint(tokens=n, lo=0.9 * by(n), mid=by(n), hi=1.2 * by(n)) for n in lengths)


def profile(**change):
    fields = {
        "name": "mine",
        "source": "measured",
        "date": "2026-11-25",
        "machine": "a processor, 2 cores",
        "versions": {"kvtier": "0.1.0"},
        "model": "tiny",
        "kv_dtype": "float32",
        "bytes_per_token": 1_000_000,
        "prefill": points(),
        "gpu_usd_per_hour": figure(7.2, "USD/h"),
        "tiers": {"host": HOST, "disk": DISK},
        "inputs": {"mfu": figure(0.3, "ratio")},
    }
    return Profile(**(fields | change))


# Prefill


@pytest.mark.parametrize("tokens", [1000, 2000, 4000, 8000])
def test_a_whole_prompt_takes_what_was_measured(tokens):
    assert profile().prefill_s(0, tokens) == pytest.approx(seconds(tokens))


@pytest.mark.parametrize("tokens", [10, 500, 1500, 3000, 7000, 20_000])
def test_between_and_beyond_the_points_a_quadratic_machine_is_met_exactly(tokens):
    assert profile().prefill_s(0, tokens) == pytest.approx(seconds(tokens), rel=1e-6)


def test_a_rest_pays_the_launch_and_its_own_part():
    expected = seconds(4000) - seconds(1000) + 0.5

    assert profile().prefill_s(1000, 4000) == pytest.approx(expected, rel=1e-6)


def test_a_rest_later_in_the_prompt_takes_longer():
    assert profile().prefill_s(7000, 8000) > profile().prefill_s(1000, 2000)


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (5, 5), (9, 3)])
def test_no_tokens_take_no_time(start, stop):
    assert profile(pass_s=2.0).prefill_s(start, stop) == 0


def test_a_pass_takes_at_least_a_pass():
    assert profile(pass_s=30.0).prefill_s(0, 1) == 30.0
    assert profile(pass_s=30.0).prefill_s(7999, 8000) == 30.0


def test_measured_points_are_met_where_no_quadratic_fits():
    odd = (PrefillPoint(tokens=64, lo=1, mid=1, hi=1), PrefillPoint(tokens=128, lo=1, mid=1, hi=1))
    odd += (PrefillPoint(tokens=256, lo=9, mid=9, hi=9), PrefillPoint(tokens=512, lo=10, mid=10, hi=10))

    assert [profile(prefill=odd).prefill_s(0, n) for n in (64, 128, 256, 512)] == pytest.approx([1, 1, 9, 10])


def test_one_point_is_enough_for_a_line():
    one = profile(prefill=points([1000], by=lambda n: n / 1000))

    assert one.prefill_s(0, 500) == pytest.approx(0.5)
    assert one.prefill_s(0, 3000) == pytest.approx(3.0)


def test_only_what_is_longer_than_all_points_is_extrapolated():
    assert not profile().extrapolates(8000)
    assert profile().extrapolates(8001)


def test_the_band_is_that_of_the_points_around_the_end():
    wide = (PrefillPoint(tokens=1000, lo=0.5, mid=1, hi=2), PrefillPoint(tokens=3000, lo=2.7, mid=3, hi=3))

    assert profile(prefill=wide).prefill_band_s(0, 1000) == pytest.approx((0.5, 1, 2))
    assert profile(prefill=wide).prefill_band_s(0, 2000) == pytest.approx((1.4, 2, 3))


def test_a_fit_has_no_coefficient_below_zero():
    falling = fit([100, 200, 400], [1.0, 1.9, 3.5])  # less than linear: a free fit would bend down

    assert min(falling) >= 0
    assert falling[0] > 0


def test_a_fit_finds_the_quadratic_that_it_was_made_of():
    lengths = [64, 256, 1024, 4096]

    assert fit(lengths, [seconds(n) for n in lengths]) == pytest.approx((0.5, 0.001, 1e-7), rel=1e-6)


def test_a_curve_begins_at_nothing():
    assert PrefillCurve([1000, 2000], [1.5, 2.5]).from_nothing(0) == 0


def test_a_curve_never_goes_below_zero():
    curve = PrefillCurve([1000, 1001, 1002], [1.0, 5.0, 5.0])

    assert curve.from_nothing(1) >= 0
    assert curve.span(1001, 1002) >= 0


# Tiers


def test_a_load_is_its_latency_and_its_bytes():
    assert profile().load_s("disk", 4000) == pytest.approx(0.5 + 4e9 / 2e9)
    assert profile().load_band_s("disk", 4000) == pytest.approx((0.25 + 1, 0.5 + 2, 1.0 + 4))
    assert profile().load_s("disk", 0) == 0


def test_a_write_is_its_bytes():
    assert profile().write_s("disk", 4000) == pytest.approx(4.0)


def test_windowed_layers_are_loaded_up_to_their_window():
    windowed = profile(window_bytes=600, window_tokens=100, bytes_per_token=10)

    assert [windowed.prefix_bytes(n) for n in (0, 50, 100, 1000)] == [0, 800, 1600, 10_600]


def test_money_by_hand():
    mine = profile()

    assert mine.compute_usd(10) == pytest.approx(10 * 7.2 / 3600)
    assert mine.rent_usd("disk", 5e9, 7200) == pytest.approx(5 * 0.00036 * 2)
    assert mine.wear_usd("disk", 2e9) == pytest.approx(2 * (0.002 * 1.5 + 0.03))
    assert mine.wear_usd("host", 2e9) == 0
    assert mine.read_usd("disk", 2000) == pytest.approx(2 / 2 * 3.6 / 3600 + 2 * 0.01)
    assert mine.read_usd("host", 2000) == 0


def test_a_request_fills_the_device_and_where_there_is_none_the_host():
    device = replace(HOST, rent_usd_per_gb_hour=figure(36, "USD/GB-h"))

    assert profile().occupancy_usd(1e9, 10) == pytest.approx(0.0036 * 10 / 3600)
    assert profile(tiers={"host": HOST, "device": device}).occupancy_usd(1e9, 10) == pytest.approx(0.1)


def test_an_unknown_tier_is_refused_with_near_names():
    with pytest.raises(ProfileError, match="profile 'mine': unknown tier 'dsk'; did you mean disk"):
        profile().load_s("dsk", 1)


def test_all_figures_are_named():
    names = set(profile(power_w=figure(9, "W")).figures())

    assert {"gpu_usd_per_hour", "mfu", "power_w", "disk.wear_usd_per_gb", "host.read_bytes_per_s"} <= names
    assert "host.wear_usd_per_gb" not in names


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"prefill": ()}, "no prefill points"),
        ({"prefill": (PrefillPoint(tokens=0, lo=1, mid=1, hi=1),)}, "tokens >= 1"),
        ({"prefill": (PrefillPoint(tokens=1, lo=2, mid=1, hi=3),)}, "lo <= mid <= hi"),
        ({"prefill": (PrefillPoint(tokens=1, lo=1, mid=4, hi=3),)}, "lo <= mid <= hi"),
        ({"prefill": (PrefillPoint(tokens=1, lo=0, mid=1, hi=3),)}, "0 < lo"),
        ({"prefill": points([2000, 1000])}, "must rise in tokens"),
        ({"prefill": points([1000, 1000])}, "must rise in tokens"),
        ({"prefill": points(by=lambda n: 1 / n)}, "not fall in time"),
        ({"tiers": {"host": HOST, "tape": DISK}}, "unknown tier 'tape'"),
        ({"tiers": {"disk": DISK}}, "neither a device nor a host tier"),
    ],
)
def test_a_profile_that_makes_no_sense_is_refused(change, complaint):
    with pytest.raises(ProfileError, match=complaint):
        profile(**change)


# On disk


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "profile.json"
    profile(power_w=figure(9, "W"), window_bytes=3, window_tokens=1, pass_s=0.25).save(path)
    return path


def change(path, edit):
    raw = json.loads(path.read_text())
    edit(raw)
    path.write_text(json.dumps(raw))


def test_a_profile_comes_back_as_it_was(saved):
    assert Profile.load(saved) == profile(power_w=figure(9, "W"), window_bytes=3, window_tokens=1, pass_s=0.25)


def test_a_derived_profile_comes_back_as_it_was(tmp_path):
    derived = Profile.named("h100", "gpt-oss-20b", media=["nvme-bought", "s3-express"])
    derived.save(tmp_path / "p.json")

    assert Profile.load(tmp_path / "p.json") == derived


def test_a_profile_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(ProfileError, match="cannot be written"):
        profile().save(tmp_path / "none" / "p.json")
    (tmp_path / "p.json").mkdir()
    with pytest.raises(ProfileError, match="cannot be written"):
        profile().save(tmp_path / "p.json")

    assert [item.name for item in tmp_path.iterdir()] == ["p.json"]


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda raw: raw.update(schema="other"), "not a profile"),
        (lambda raw: raw.update(schema_version=2), "schema version 2, this kvtier reads 1; measure again"),
        (lambda raw: raw.pop("schema_version"), "schema version None"),
        (lambda raw: (raw.pop("model"), raw.pop("prefill")), "the profile has no model, prefill"),
        (lambda raw: raw.update(bytes_per_token="many"), "bytes_per_token: expected int, got 'many'"),
        (lambda raw: raw.update(bytes_per_token=True), "bytes_per_token: expected int, got True"),
        (lambda raw: raw["gpu_usd_per_hour"].pop("source"), "gpu_usd_per_hour: has no source"),
        (lambda raw: raw["gpu_usd_per_hour"].update(value=-2), "expected 0 or more"),
        (lambda raw: raw["gpu_usd_per_hour"].update(unit="USD/s"), "unit 'USD/s', expected 'USD/h'"),
        (lambda raw: raw["tiers"]["disk"]["latency_s"].update(unit="ms"), "disk.latency_s: unit 'ms', expected 's'"),
        (lambda raw: raw["tiers"]["disk"].pop("read_bytes_per_s"), "disk: the tier has no read_bytes_per_s"),
        (lambda raw: raw["tiers"]["disk"].pop("medium"), "disk: the tier has no medium"),
        (lambda raw: raw["prefill"][0].pop("mid"), "damaged: TypeError"),
        (lambda raw: raw.update(tiers=[]), "damaged: AttributeError"),
        (lambda raw: raw["inputs"]["mfu"].pop("unit"), "damaged: KeyError"),
        (lambda raw: raw.update(prefill=[]), "no prefill points"),
    ],
)
def test_a_profile_with_something_wrong_is_refused(saved, edit, complaint):
    change(saved, edit)

    with pytest.raises(ProfileError, match=re.escape(complaint)):
        Profile.load(saved)


@pytest.mark.parametrize("text", ["", "{", "[]", None])
def test_a_file_that_is_no_profile_is_refused(tmp_path, text):
    path = tmp_path / "p.json"
    if text is not None:
        path.write_text(text)

    with pytest.raises(ProfileError, match=r"p\.json: not a"):
        Profile.load(path)


# Which machine


HERE = "a processor, 2 cores"


def test_a_profile_is_good_where_it_was_measured():
    profile().check_here(HERE, {"kvtier": "0.1.0", "torch": "9"})


def test_a_profile_of_another_machine_is_refused():
    with pytest.raises(ProfileError, match="measured on 'a processor, 2 cores', this machine is 'another'"):
        profile().check_here("another", {"kvtier": "0.1.0"})


@pytest.mark.parametrize(("versions", "found"), [({"kvtier": "0.2.0"}, "0.2.0"), ({}, "none")])
def test_a_profile_of_another_version_is_refused(versions, found):
    with pytest.raises(ProfileError, match=f"measured with kvtier 0.1.0, here is {found}; measure again"):
        profile().check_here(HERE, versions)


def test_a_derived_profile_is_good_anywhere():
    Profile.named("h100", "llama-3.1-8b").check_here("anything", {})


def test_this_machine_is_named_by_what_decides_its_speed():
    assert re.search(r", \d+ cores, \d+ GiB", machine.machine_name())


def test_the_versions_are_those_of_what_is_installed():
    assert set(machine.versions()) <= set(machine.PACKAGES)


# Derived


def test_a_derived_profile_takes_as_few_gpus_as_hold_the_weights():
    names = {name: Profile.named("h100", name).name for name in ("llama-3.1-8b", "llama-3.1-70b", "smollm2-135m")}

    assert names["llama-3.1-8b"] == "llama-3.1-8b on 1 x h100"
    assert names["llama-3.1-70b"] == "llama-3.1-70b on 4 x h100"
    assert names["smollm2-135m"] == "smollm2-135m on 1 x h100"


def test_more_gpus_compute_faster_for_the_same_price():
    one, eight = (Profile.named("h100", "llama-3.1-8b", num_gpus=n) for n in (1, 8))

    assert one.prefill_s(0, 8192) == pytest.approx(8 * eight.prefill_s(0, 8192))
    assert one.compute_usd(one.prefill_s(0, 8192)) == pytest.approx(eight.compute_usd(eight.prefill_s(0, 8192)))


def test_the_band_is_that_of_the_share_of_the_peak():
    lo, mid, hi = Profile.named("h100", "llama-3.1-8b").prefill_band_s(0, 8192)

    assert mid / lo == pytest.approx(0.6 / 0.5)
    assert hi / mid == pytest.approx(0.5 / 0.4)


def test_a_pass_reads_the_weights_once():
    small = Profile.named("h100", "llama-3.1-8b").prefill_s(8191, 8192)

    assert small == pytest.approx(2 * load_model("llama-3.1-8b").total_params / 3.35e12)


def test_drives_add_up_to_the_link():
    few, many = (derive_profile(Profile, "h100", "llama-3.1-8b", drives=n).tier("disk") for n in (2, 100))

    assert few.read_bytes_per_s.value == 14e9
    assert few.device_usd_per_hour.value == pytest.approx(2 * 0.81792)
    assert many.read_bytes_per_s.value == 55e9


def test_a_cached_number_of_fewer_bits_loads_faster():
    half = Profile.named("h100", "llama-3.1-8b", kv_dtype="fp8")

    assert half.bytes_per_token == 65_536
    assert half.kv_dtype == "fp8"


def test_windows_come_along():
    derived = Profile.named("h100", "gpt-oss-20b")

    assert derived.prefix_bytes(1000) == load_model("gpt-oss-20b").prefix_bytes(1000)
    assert derived.prefix_bytes(64) == load_model("gpt-oss-20b").prefix_bytes(64)


@pytest.mark.parametrize("name", ["llama-3.1-8b", "gpt-oss-20b", "deepseek-v3"])
@pytest.mark.parametrize(("start", "stop"), [(0, 3000), (1000, 3000), (100_000, 150_000)])
def test_a_derived_curve_is_the_models_flop(name, start, stop):
    model, derived = load_model(name), Profile.named("h100", name, num_gpus=16)

    expected = model.prefill_flops(start, stop) / (16 * 989e12 * 0.5)
    assert derived.prefill_s(start, stop) == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"media": ["nvme-rented", "nvme-bought"]}, "two are for the disk tier"),
        ({"media": ["nvme"]}, "unknown medium 'nvme'"),
        ({"num_gpus": 0}, "at least one GPU"),
        ({"drives": 0}, "at least one GPU and one drive"),
        ({"mfu": 0}, "above 0 and at most 1"),
        ({"mfu": 1.5}, "above 0 and at most 1"),
        ({"kv_dtype": "fp7"}, "unknown KV dtype 'fp7'; did you mean"),
    ],
)
def test_a_machine_that_cannot_be_is_refused(options, complaint):
    with pytest.raises(ConfigError, match=complaint):
        Profile.named("h100", "llama-3.1-8b", **options)


def test_tiers_are_those_of_the_media():
    assert list(Profile.named("h100", "llama-3.1-8b").tiers) == ["device", "host", "disk"]
    assert list(Profile.named("h100", "llama-3.1-8b", media=["s3-express"]).tiers) == ["device", "remote"]
