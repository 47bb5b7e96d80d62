"""``kvtier calibrate``: a profile that other commands take, and what is refused without a trace left behind."""

import json
from dataclasses import replace

import pytest

pytest.importorskip("transformers")

from kvtier import cli
from kvtier.calibrate import run as running
from kvtier.calibrate import settings as settings_module
from kvtier.calibrate.settings import Settings
from kvtier.econ.machine import machine_name, versions
from kvtier.econ.profile import Profile
from kvtier.errors import ConfigError, NotColdError

FAST = ("calibrate", "--budget", "2s", "--lengths", "16,32,64")


@pytest.fixture
def said(said, monkeypatch, tmp_path):
    """As everywhere, with a cache of its own."""
    monkeypatch.setenv("KVTIER_CACHE", str(tmp_path / "cache"))
    return said


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """One calibration: the directory it ran in, and what it printed."""
    from contextlib import redirect_stderr, redirect_stdout
    from io import StringIO

    place = tmp_path_factory.mktemp("calibrated")
    (place / "store").mkdir()
    out, err = StringIO(), StringIO()
    words = [*FAST, "--directory", place / "store", "--out", place / "p.json", "--json", place / "all.json"]
    words += ["--machine-price", "0.5", "--medium", "nvme-bought"]
    with redirect_stdout(out), redirect_stderr(err):
        status = cli.main([*map(str, words)])
    if status != 0 and "in memory" in err.getvalue():
        pytest.skip("this file system need not drop pages when asked")
    assert status == 0, err.getvalue()
    return place, out.getvalue(), err.getvalue()


@pytest.fixture
def profile(calibrated):
    return Profile.load(calibrated[0] / "p.json")


def test_the_profile_is_of_this_machine_and_has_a_band_on_every_measured_figure(profile):
    assert (profile.machine, profile.versions) == (machine_name(), versions())
    assert [point.tokens for point in profile.prefill][:2] == [1, 16]  # more of them if there was time
    assert set(profile.tiers) == {"host", "disk"}
    assert {figure.kind for figure in profile.figures().values()} == {"measured", "given", "assumed"}
    for name, figure in profile.figures().items():
        assert figure.source, name
        assert figure.lo is not None or figure.kind != "measured", name
    assert profile.bytes_per_token == 2 * 2 * 2 * 16 * 4  # layers, K and V, heads, their size, float32
    assert profile.pass_s == profile.prefill[0].mid


def test_prices_are_those_that_were_given(profile):
    assert (profile.gpu_usd_per_hour.value, profile.gpu_usd_per_hour.kind) == (0.5, "given")
    assert profile.tiers["disk"].medium == "nvme-bought"
    assert profile.tiers["disk"].power_w.kind == "given"
    assert profile.tiers["host"].rent_usd_per_gb_hour.kind == "assumed"


def test_what_the_store_writes_is_counted_or_said_not_to_be(profile):
    figure = profile.tiers["disk"].write_amplification

    assert figure.kind in {"measured", "assumed"}
    if figure.kind == "measured":  # blocks of 16 KiB, each with a header, and an index
        assert 1 < figure.value < 10
        assert "filled and turned over" in figure.source
        assert "the drive's own amplification cannot be seen" in figure.source
    else:
        assert "not measured" in figure.source


def test_it_says_what_it_measured_and_that_the_tiny_model_says_nothing(calibrated):
    _, out, err = calibrated

    assert "NO MODEL GIVEN" in err
    assert "NO MODEL GIVEN" in out
    assert "tokens/s" in out
    assert "raw limit" in out
    assert "disk.write_amplification" in out


def test_nothing_is_left_in_the_directory(calibrated):
    place = calibrated[0]

    assert list((place / "store").iterdir()) == []
    assert {path.name for path in place.iterdir()} == {"store", "p.json", "all.json"}


def test_the_json_has_the_profile_its_samples_and_its_shares(calibrated):
    place = calibrated[0]
    found = json.loads((place / "all.json").read_text())

    assert found["profile"] == json.loads((place / "p.json").read_text())
    assert set(found["samples"]) == set(found["shares"]) == {"host", "disk"}
    assert all(len(samples["read_s"]) == 5 for samples in found["samples"].values())
    assert any("NO MODEL" not in note for note in found["notes"]) or found["notes"] == []


def test_cost_and_simulate_take_the_profile(said, calibrated, tmp_path):
    path = calibrated[0] / "p.json"
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"timestamp": 0, "input_length": 64, "output_length": 1, "hash_ids": [1, 2]}\n' * 2)

    cost = said("cost", "--profile", path, "--prompt-tokens", "64")
    simulated = said("simulate", trace, "--block-tokens", "32", "--tier", "host=10", "--profile", path)

    assert cost[0] == 0, cost
    assert "random llama, seed 0" in cost[1]
    assert simulated[0] == 0, simulated


def test_a_profile_of_another_machine_is_refused(said, profile, tmp_path):
    replace(profile, machine="another").save(tmp_path / "other.json")

    status, _, err = said("cost", "--profile", tmp_path / "other.json")

    assert status == 2
    assert "was measured on 'another'" in err


# Where it goes


def stopping(monkeypatch, exc):
    """Ends every calibration at its tiers."""

    def stop(*_, **__):
        raise exc

    monkeypatch.setattr(running, "measure_tiers", stop)


def left_behind(place):
    return [path for path in place.rglob("*") if path.is_file()]


def test_the_default_is_the_cache_directory(said, calibrated, monkeypatch, tmp_path, profile):
    from kvtier.calibrate.run import Calibration

    monkeypatch.setattr(running, "calibrate", lambda *_, **__: Calibration(profile=profile, samples={}, notes=[]))

    status, out, _ = said(*FAST)

    path = tmp_path / "cache" / "profiles" / "random-llama-seed-0.json"
    assert status == 0
    assert f"profile: {path}" in out
    assert Profile.load(path) == profile
    assert left_behind(tmp_path / "cache") == [path]


def test_an_interrupt_leaves_nothing_behind(said, monkeypatch, tmp_path):
    stopping(monkeypatch, KeyboardInterrupt())
    (tmp_path / "store").mkdir()

    status, _, _ = said(*FAST, "--directory", tmp_path / "store", "--out", tmp_path / "p.json")

    assert status == 130
    assert left_behind(tmp_path) == []


def test_a_disk_that_cannot_be_measured_is_the_directorys_fault(said, monkeypatch, tmp_path):
    stopping(monkeypatch, NotColdError("1 bytes are still in memory"))

    status, _, err = said(*FAST, "--directory", tmp_path, "--out", tmp_path / "p.json")

    assert status == 2
    assert "--directory: tiers cannot be measured in" in err
    assert left_behind(tmp_path) == []


def test_a_full_disk_is_found_before_anything_is_measured(said, monkeypatch, tmp_path):
    stopping(monkeypatch, AssertionError("something was measured"))
    usage = settings_module.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(settings_module.shutil, "disk_usage", lambda _: usage._replace(free=10**9))

    status, _, err = said(*FAST, "--directory", tmp_path, "--out", tmp_path / "p.json")

    assert status == 2
    assert "GB are needed and 1.0 GB are free" in err
    assert left_behind(tmp_path) == []


BAD = [
    (("--budget", "soon"), "is not a time"),
    (("--budget", "0s"), "is not a time"),
    (("--budget", "0.5s"), "--budget: expected at least 1 s, got 0.5 s"),
    (("--runs", "4"), "--runs: a band takes at least 5 runs, got 4"),
    (("--lengths", "64,none"), "'none' is not a whole number"),
    (("--lengths", "64,9000"), "--lengths: the model was made for 8192 tokens, got 9000"),
    (("--machine-price", "-1"), "--machine-price: expected USD an hour, 0 or more, got -1.0"),
    (("--machine-price", "nan"), "--machine-price"),
    (("--medium", "nvm-rented"), "unknown medium 'nvm-rented'; did you mean nvme-rented"),
    (("--hardware-file", "nowhere.toml"), "nowhere.toml: cannot be read"),
    (("--model", "nowhere"), "'nowhere' has no config.json"),
    (("--on", "nothing"), "'nothing' is not a device of this machine"),
    (("--directory", "nowhere"), "--directory: nothing can be made in 'nowhere'"),
    (("--directory", "a-file"), "--directory: nothing can be made in 'a-file'"),
    (("--out", "nowhere/p.json"), "is not a file in a directory that exists"),
    (("--out", "."), "is not a file in a directory that exists"),
    (("--json", "nowhere/p.json"), "is not a file in a directory that exists"),
]


@pytest.mark.parametrize(("words", "says"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_what_cannot_be_is_refused_before_anything_is_measured(said, monkeypatch, tmp_path, words, says):
    stopping(monkeypatch, AssertionError("something was measured"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-file").touch()

    status, _, err = said("calibrate", *words)

    assert status == 2
    assert says in " ".join(err.split())
    assert left_behind(tmp_path) == [tmp_path / "a-file"]


def test_a_model_that_no_store_can_keep_is_refused(said, tmp_path):
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"num_hidden_layers": 1, "hidden_size": 16, "vocab_size": 32, "state_size": 4}
    AutoModelForCausalLM.from_config(AutoConfig.for_model("mamba", **sizes)).save_pretrained(tmp_path / "mamba")

    status, _, err = said(*FAST, "--model", tmp_path / "mamba", "--directory", tmp_path)

    assert status == 2
    assert "kvtier: --model: " in err


def test_a_cache_that_cannot_be_made_is_named(said, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("KVTIER_CACHE", str(tmp_path / "file" / "cache"))

    status, _, err = said(*FAST)

    assert status == 2
    assert "KVTIER_CACHE names another place" in err


# Settings


def test_lengths_that_are_too_long_are_left_out_unless_they_were_asked_for():
    settings = Settings(lengths=(64, 128, 256))

    assert settings.within(128, asked=False).lengths == (64, 128)
    assert settings.within(256, asked=True) is settings
    assert settings.within(None, asked=True) is settings
    for most, asked in ((128, True), (32, False)):
        with pytest.raises(ConfigError, match=f"made for {most} tokens, got 256"):
            settings.within(most, asked=asked)


@pytest.mark.parametrize(
    ("budget_s", "block_bytes", "blocks"),
    [(10, 1 << 20, 20), (90, 1 << 20, 180), (900, 1 << 20, 256), (90, 1024, 2048), (1, 64 << 20, 2)],
)
def test_a_batch_grows_with_the_budget_up_to_a_limit(budget_s, block_bytes, blocks):
    assert Settings(budget_s=budget_s).batch(block_bytes) == blocks


def test_room_is_needed_for_two_files_and_what_stays_free():
    needed = Settings(budget_s=10).needed_bytes(1 << 20)

    assert needed == 3 * (20 << 20) + (1 << 30)
