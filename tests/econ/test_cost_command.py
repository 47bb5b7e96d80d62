"""``kvtier cost``: what it prints, what it writes, and what it refuses with exit status 2."""

import argparse
import json

import pytest

from kvtier.commands.durations import duration_s, human_s
from kvtier.econ.machine import machine_name, versions
from kvtier.econ.profile import Profile

BASE = ["cost", "--model", "llama-3.1-8b"]


def test_it_says_what_a_hit_costs_and_where_the_cache_loses(said):
    status, out, _ = said(*BASE, "--hardware", "h100")

    assert status == 0
    assert "llama-3.1-8b on 1 x h100: 131,072 bytes of KV per token in bfloat16" in out
    assert "computed at 27,158 tokens/s (21,727 to 32,590), 0.0256 USD/Mtok" in out
    assert "loses: host at 8,192 tokens: 1 hits in 5.0 min" in out
    assert "may lose: host at 65,536 tokens: 1 hits in 5.0 min" in out
    assert "deepseek/v4.1-flash" in out
    assert "given    2026-05  AWS on demand" in out


def test_it_says_so_where_the_cache_loses_nowhere(said):
    options = ("--hardware", "h100", "--tier", "disk", "--reuse", "10", "--prompt-tokens", "65536")

    assert "the cache loses in none of these cases" in said("cost", "--model", "llama-3.1-70b", *options)[1]


def test_it_says_so_where_loading_is_slower_than_computing(said):
    _, out, _ = said("cost", "--model", "smollm2-135m", "--tier", "disk", "--prompt-tokens", "256", "--reuse", "10")

    assert "slower than computing: disk at 256 tokens, 0." in out


def test_json_has_what_the_table_has(said, tmp_path):
    path = tmp_path / "cost.json"
    words = ("--tier", "disk", "--prompt-tokens", "4096", "--reuse", "3", "--hold", "90s,1h", "--request-time", "20s")
    status, out, _ = said(*BASE, *words, "--json", path)

    found = json.loads(path.read_text())
    assert status == 0
    assert [(row["tier"], row["reuses"], row["hold_s"]) for row in found["rows"]] == [
        ("disk", 3, 90),
        ("disk", 3, 3600),
    ]
    assert f"{found['rows'][1]['hit_usd']:.4f}" in out
    assert found["request_s"] == 20
    assert all({"source", "date", "kind"} <= set(item) for item in found["inputs"].values())


def test_json_on_standard_output_is_alone_there(said):
    _, out, err = said(*BASE, "--json", "-")

    assert json.loads(out)["model"] == "llama-3.1-8b"
    assert "bytes of KV" in err


def test_only_the_list_prices_asked_for_are_shown(said):
    out = said(*BASE, "--list-price", "xai", "--list-price", "openai/gpt-4o", "--list-price", "grok-4.5")[1]

    assert "xai/grok-4.5" in out
    assert out.count("grok-4.5") == 1
    assert "openai/gpt-4o" in out
    assert "anthropic" not in out


def test_a_config_file_takes_the_place_of_a_name(said, tmp_path):
    config = {
        "model_type": "llama",
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 128,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))

    assert "256 bytes of KV per token" in said("cost", "--config", tmp_path / "config.json")[1]


def test_machines_of_ones_own(said, tmp_path):
    mine = tmp_path / "mine.toml"
    mine.write_text(
        "[accelerator.h100]\n"
        'usd_per_hour = {value = 25, unit = "USD/h", source = "my bill", date = "2026-11", kind = "given"}\n'
    )
    out = said(
        *BASE, "--hardware-file", mine, "--gpus", "2", "--drives", "3", "--medium", "nvme-bought", "--mfu", "0.25"
    )[1]

    assert "on 2 x h100" in out
    assert "my bill; 2 GPUs" in out
    assert "dram-rented" not in out
    assert "3 drives" in out
    assert "27,158" in out  # twice the GPUs at half the share of their peak


def test_a_cache_of_fewer_bits_costs_less(said):
    assert "65,536 bytes of KV per token in fp8" in said(*BASE, "--kv-dtype", "fp8")[1]


def test_windows_are_named(said):
    assert "3.1 MB more per sequence in windows" in said("cost", "--model", "gpt-oss-20b")[1]


# Profiles


@pytest.fixture
def measured(tmp_path):
    """Saves a profile as if it had been measured on some machine with some versions."""

    def save(machine, software):
        from dataclasses import replace

        path = tmp_path / "profile.json"
        replace(Profile.named("h100", "qwen3-8b"), machine=machine, versions=software, name="measured").save(path)
        return path

    return save


def test_a_profile_of_this_machine_is_taken(said, measured):
    status, out, _ = said("cost", "--profile", measured(machine_name(), versions()))

    assert status == 0
    assert out.startswith("measured: 147,456 bytes")


def test_a_profile_of_another_machine_is_refused_unless_asked_for(said, measured):
    path = measured("another machine", versions())

    status, _, err = said("cost", "--profile", path)
    assert status == 2
    assert "was measured on 'another machine'" in err
    assert said("cost", "--profile", path, "--any-machine")[0] == 0


def test_a_profile_of_another_version_is_refused(said, measured):
    status, _, err = said("cost", "--profile", measured(machine_name(), {"kvtier": "0.0.1"}))

    assert status == 2
    assert "measured with kvtier 0.0.1" in err


@pytest.mark.parametrize(
    "word", ["--hardware=h100", "--gpus=2", "--mfu=0.5", "--kv-dtype=fp8", "--medium=ebs-gp3", "--mfu=0"]
)
def test_a_profile_already_says_what_the_machine_is(said, measured, word):
    status, _, err = said("cost", "--profile", measured(machine_name(), versions()), word)

    assert status == 2
    assert word.partition("=")[0] in err


# The picture


def test_the_picture_is_one(said, tmp_path):
    pytest.importorskip("matplotlib")

    assert said(*BASE, "--plot", tmp_path / "cost.png")[0] == 0
    assert (tmp_path / "cost.png").read_bytes()[:4] == b"\x89PNG"


def test_a_place_without_a_directory_is_refused_before_anything_is_said(said, tmp_path):
    status, out, err = said(*BASE, "--plot", tmp_path / "none" / "cost.png")

    assert (status, out) == (2, "")
    assert "is not a file in a directory that exists" in err


def test_a_picture_that_cannot_be_written_is_refused_and_leaves_nothing(said, tmp_path):
    pytest.importorskip("matplotlib")

    status, _, err = said(*BASE, "--plot", tmp_path / "cost.nonsense")

    assert status == 2
    assert "--plot" in err
    assert list(tmp_path.iterdir()) == []


# Bad input


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["cost"], "one of the arguments --model --config --profile is required"),
        (["cost", "--model", "llama-3.1-9b"], "unknown model 'llama-3.1-9b'; did you mean llama-3.1-8b"),
        ([*BASE, "--hardware", "h10"], "unknown hardware 'h10'; did you mean"),
        ([*BASE, "--list-price", "antropic"], "unknown provider or model 'antropic'; did you mean anthropic"),
        ([*BASE, "--medium", "nvm"], "unknown medium 'nvm'"),
        ([*BASE, "--tier", "tape"], "invalid choice: 'tape'"),
        ([*BASE, "--tier", "remote"], "unknown tier 'remote'"),
        ([*BASE, "--prompt-tokens", "0"], "not a whole number of at least 1"),
        ([*BASE, "--prompt-tokens", "8k"], "not a whole number of at least 1"),
        ([*BASE, "--reuse", "1,,2"], "not a whole number of at least 1"),
        ([*BASE, "--hold", "5"], "not a time such as"),
        ([*BASE, "--hold", "-5min"], "expected one argument"),
        ([*BASE, "--request-time", "0s"], "not a time such as"),
        ([*BASE, "--kv-dtype", "fp9"], "unknown KV dtype"),
        ([*BASE, "--mfu", "2"], "at most 1"),
        ([*BASE, "--hardware-file", "none.toml"], "none.toml: cannot be read"),
        ([*BASE, "--prices-file", "none.toml"], "none.toml: cannot be read"),
        (["cost", "--config", "none.json"], "not a readable config.json"),
        (["cost", "--profile", "none.json"], "not a readable profile"),
        ([*BASE, "--json", "none/cost.json"], "not a file in a directory that exists"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_refused(said, words, complaint):
    status, out, err = said(*words)

    assert status == 2
    assert complaint in " ".join(err.split())
    assert out == ""


# Times


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5min", 300), ("1h", 3600), ("2d", 172_800), (" 0.5h ", 1800)]
)
def test_a_time_is_read(text, seconds):
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["5", "min", "", "5 weeks", "0s", "-1h", "nand", "infs", "1e400s", "5mins"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is not a time"):
        duration_s(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.05, "50 ms"),
        (1.62, "1.6 s"),
        (119, "119 s"),
        (120, "2.0 min"),
        (7200, "2.0 h"),
        (48 * 3600, "2.0 d"),
        (0, "0 s"),
    ],
)
def test_a_time_is_said(seconds, text):
    assert human_s(seconds) == text
