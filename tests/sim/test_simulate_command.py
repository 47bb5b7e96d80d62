"""``kvtier simulate``: what scripts rely on, and what it says to those who ask for what cannot be."""

import gzip
import json

import pytest
from sim.traces import file_of, mooncake, published

from kvtier import cli
from kvtier.policy.registry import ADMISSIONS, POLICIES


@pytest.fixture
def trace(tmp_path):
    """``abc``, ``abd``, ``ab``, ``ab``: blocks of 512 tokens, the last one of each prompt is not whole."""
    return file_of(
        tmp_path,
        mooncake(0, 1300, [0, 1, 2]),
        mooncake(1000, 1300, [0, 1, 3]),
        mooncake(2000, 1000, [0, 1]),
        mooncake(400_000, 1000, [0, 1]),
    )


def result_of(capsys, *words):
    assert cli.main(["simulate", *map(str, words), "--json", "-"]) == 0
    return json.loads(capsys.readouterr().out)


def refusal_of(capsys, *words):
    """Standard error of a command line that is refused, which leaves standard output empty."""
    try:
        status = cli.main(["simulate", *map(str, words)])
    except SystemExit as stopped:
        status = stopped.code
    said = capsys.readouterr()
    assert (status, said.out) == (2, "")
    assert "Traceback" not in said.err
    return said.err


# The contract


def test_json_has_what_scripts_rely_on(capsys, trace):
    result = result_of(capsys, trace, "--policy", "lru", "--capacity-blocks", "10000")

    assert {
        "requests": 4,
        "block_references": 10,
        "block_hits": 6,
        "prefix_hits": 6,
        "input_tokens": 4600,
        "token_hits": 1024 + 1000 + 1000,
        "token_hit_rate": 3024 / 4600,
        "block_hit_rate": 0.6,
        "prefix_hit_rate": 0.6,
        "block_tokens": 512,
        "comparison": False,
    }.items() <= result.items()
    assert result["tiers"] == [
        {
            "name": "device",
            "block_hits": 6,
            "read_blocks": 6,
            "written_blocks": 4,
            "evicted_blocks": 0,
            "expired_blocks": 0,
            "lost_blocks": 0,
            "capacity_blocks": 10000,
            "policy": "lru",
            "admission": "all",
            "ttl_s": None,
            "held_blocks": 4,
        }
    ]


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_can_be_named(capsys, trace, policy):
    result = result_of(capsys, trace, "--policy", policy, "--capacity-blocks", "3")

    assert result["tiers"][0]["policy"] == policy
    assert result["block_hits"] == result["prefix_hits"] > 0
    assert result["tiers"][0]["held_blocks"] <= 3


def test_the_policies_are_those_of_the_contract():
    assert {"fifo", "lru", "lfu", "sieve", "s3fifo", "arc", "wtinylfu", "gdsf", "ttl", "belady"} <= set(POLICIES)


@pytest.mark.parametrize("admission", ["all", "second_touch", "long_prompts/2", "write_budget/48"])
def test_every_admission_can_be_named(capsys, trace, admission):
    assert admission.partition("/")[0] in {each.partition("/")[0] for each in ADMISSIONS}

    result = result_of(capsys, trace, "--capacity-blocks", "3", "--admission", admission)

    assert result["tiers"][0]["admission"] == admission


def test_several_tiers_are_told_apart(capsys, trace):
    result = result_of(
        capsys, trace, "--tier", "device=2", "--tier", "host=1:fifo:ttl=1min", "--tier", "disk=9:admit=second_touch"
    )

    assert [(t["name"], t["capacity_blocks"], t["policy"], t["admission"], t["ttl_s"]) for t in result["tiers"]] == [
        ("device", 2, "lru", "all", None),
        ("host", 1, "fifo", "all", 60.0),
        ("disk", 9, "lru", "second_touch", None),
    ]
    assert sum(tier["block_hits"] for tier in result["tiers"]) == result["prefix_hits"]


def test_what_is_common_holds_for_tiers_that_say_nothing_else(capsys, trace):
    words = ("--policy", "sieve", "--ttl", "5min", "--tier", "device=2", "--tier", "host=3:lru:ttl=1h")

    tiers = result_of(capsys, trace, *words)["tiers"]

    assert [(tier["policy"], tier["ttl_s"]) for tier in tiers] == [("sieve", 300.0), ("lru", 3600.0)]


def test_time_to_live_runs_in_the_traces_time(capsys, trace):
    hits = [
        result_of(capsys, trace, "--capacity-blocks", "9", *words)["block_hits"]
        for words in (
            ("--ttl", "5min"),
            ("--ttl", "1h"),
            ("--ttl", "401s", "--no-refresh"),
            ("--ttl", "400s", "--no-refresh"),
        )
    ]

    assert hits == [4, 6, 6, 4]


def test_the_ways_to_write_and_copy_are_told(capsys, trace):
    words = (
        "--tier",
        "device=2",
        "--tier",
        "disk=9",
        "--write",
        "on_insertion",
        "--copies",
        "exclusive",
        "--no-promote",
    )
    result = result_of(capsys, trace, *words)

    assert (result["write"], result["copies"], result["promote"]) == ("on_insertion", "exclusive", False)
    assert result["tiers"][1]["written_blocks"] >= 4


def test_references_can_be_replayed_one_by_one(capsys, trace):
    result = result_of(capsys, trace, "--capacity-blocks", "9", "--comparison")

    assert (result["comparison"], result["requests"], result["block_hits"]) == (True, 10, 6)


def test_a_machine_and_a_model_give_bytes_times_and_costs(capsys, trace):
    words = ("--model", "llama-3.1-8b", "--tier", "device=1 GiB", "--tier", "disk=1 GiB:lru:admit=worth_reloading")
    result = result_of(capsys, trace, *words)

    block_bytes = 512 * 131072
    assert [tier["capacity_blocks"] for tier in result["tiers"]] == [2**30 // block_bytes] * 2
    assert result["tiers"][0]["written_bytes"] == result["tiers"][0]["written_blocks"] * block_bytes
    cost = result["cost"]
    assert 0 < cost["ttft_mean_s"] < cost["recompute_ttft_mean_s"]
    assert 0 < cost["compute_usd"] < cost["recompute_usd"]
    total = sum(cost[f"{part}_usd"] for part in ("compute", "read", "wear", "rent"))
    assert cost["total_usd"] == pytest.approx(total)
    assert cost["usd_per_request"] == pytest.approx(total / 4)


def test_a_table_is_for_people(capsys, trace):
    assert cli.main(["simulate", str(trace), "--capacity-blocks", "9"]) == 0

    said = capsys.readouterr().out
    assert "4 requests, 10 references to blocks of 512 tokens" in said
    assert "blocks 60.0%, prefixes 60.0%, tokens 65.7%" in said
    assert "device  9         lru     6     60.0%   6     4        0        0        0" in said


def test_costs_are_told_to_people_too(capsys, trace):
    assert cli.main(["simulate", str(trace), "--capacity-blocks", "9", "--model", "llama-3.1-8b"]) == 0

    said = capsys.readouterr().out
    assert "time to first token: mean" in said
    assert "USD, without a cache" in said


def test_a_picture_can_be_drawn(capsys, trace, tmp_path):
    pytest.importorskip("matplotlib")

    result_of(capsys, trace, "--tier", "device=2", "--tier", "disk=9", "--plot", tmp_path / "out.png")

    assert (tmp_path / "out.png").read_bytes()[:4] == b"\x89PNG"


def test_a_trace_is_made_up_where_there_is_none(capsys):
    result = result_of(capsys, "synthetic:chat?requests=50&seed=3", "--capacity-blocks", "500")

    assert result["requests"] == 50
    assert 0 < result["block_hits"] < result["block_references"]


def test_a_recorded_trace_is_counted_as_it_is(capsys):
    result = result_of(
        capsys, published("mooncake_conversation_trace.jsonl.gz"), "--limit", "500", "--capacity-blocks", "1000"
    )

    assert result["requests"] == 500
    assert 0 < result["block_hits"] == result["prefix_hits"] < result["block_references"]


# What cannot be


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--policy", "mru", "--capacity-blocks", "9"], ["unknown policy 'mru'", *POLICIES]),
        (["--admission", "some", "--capacity-blocks", "9"], ["unknown admission 'some'", *ADMISSIONS]),
        (["--admission", "worth_reloading", "--capacity-blocks", "9"], ["--model"]),
        (["--admission", "long_prompts/0", "--capacity-blocks", "9"], ["at least 1"]),
        (["--tier", "tape=9"], ["unknown tier 'tape'", "device, host, disk, remote"]),
        (["--tier", "disk=9", "--tier", "device=9"], ["fastest first"]),
        (["--tier", "host=9", "--tier", "host=9"], ["once each"]),
        (["--tier", "host"], ["NAME=CAPACITY"]),
        (["--tier", "host=9:lru:fifo"], ["after the capacity"]),
        (["--tier", "host=9:size=4"], ["after the capacity"]),
        (["--tier", "host=9:refresh=maybe"], ["yes or no"]),
        (["--tier", "host=9:ttl=soon"], ["'soon' is not a time"]),
        (["--capacity-blocks", "0"], ["at least 1 block, got 0"]),
        (["--capacity-blocks", "-3"], ["at least 1 block, got -3"]),
        (["--capacity-blocks", "many"], ["'many' is not a capacity"]),
        (["--capacity-blocks", "1.5"], ["'1.5' is not a capacity"]),
        (["--capacity-blocks", "9" * 5000], ["is not a capacity"]),
        (["--capacity-blocks", ""], ["--capacity-blocks N"]),
        (["--capacity-blocks", "4 GiB"], ["--model"]),
        (["--capacity-blocks", "1 KiB", "--model", "llama-3.1-8b"], ["at least 1 block, got 0"]),
        (["--capacity-blocks", "9", "--tier", "host=9"], ["--tier NAME=CAPACITY"]),
        ([], ["--capacity-blocks N"]),
        (["--capacity-blocks", "9", "--ttl", "0s"], ["'0s' is not a time"]),
        (["--capacity-blocks", "9", "--ttl", "5"], ["'5' is not a time"]),
        (["--capacity-blocks", "9", "--model", "gpt-0"], ["gpt-0"]),
        (["--capacity-blocks", "9", "--write", "never"], ["on_insertion"]),
    ],
)
def test_what_cannot_be_is_refused(capsys, trace, tmp_path, words, said):
    told = " ".join(refusal_of(capsys, trace, *words, "--json", tmp_path / "out.json").split())

    assert [each for each in said if each not in told] == []
    assert not (tmp_path / "out.json").exists()


def cut(tmp_path):
    path = file_of(tmp_path, *(mooncake(1000 * i, 700, [2 * i, 2 * i + 1]) for i in range(5000)), packed=True)
    path.write_bytes(path.read_bytes()[:-2000])
    return path


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path / "none.jsonl", "none.jsonl"),
        (file_of, "empty"),
        (cut, "the gzip file is truncated"),
        (lambda path: file_of(path, mooncake(0, 900, [0, 1]), mooncake(1, 900, [2, 1])), "line 2: id 1"),
        (lambda path: file_of(path, mooncake(9, 400, [0]), mooncake(1, 400, [0])), "line 2: time runs backwards"),
        (lambda path: file_of(path, "{not json"), "no record of a known format"),
    ],
    ids=["missing", "empty", "truncated", "no prefixes", "backwards", "no records"],
)
def test_a_trace_that_cannot_be_replayed_is_refused(capsys, tmp_path, make, said):
    told = refusal_of(capsys, make(tmp_path), "--capacity-blocks", "9", "--json", tmp_path / "out.json")

    assert said in told
    assert not (tmp_path / "out.json").exists()


def test_malformed_lines_are_counted_and_named_and_refused_if_told_to(capsys, tmp_path):
    path = file_of(tmp_path, mooncake(0, 400, [0]), "{", mooncake(1, 400, [0]))

    assert cli.main(["simulate", str(path), "--capacity-blocks", "9"]) == 0
    assert "line 2" in capsys.readouterr().err
    assert "line 2" in refusal_of(capsys, path, "--capacity-blocks", "9", "--strict")


def test_a_packed_trace_is_read_as_it_is(capsys, tmp_path, trace):
    packed = tmp_path / "packed.jsonl.gz"
    packed.write_bytes(gzip.compress(trace.read_bytes()))

    assert result_of(capsys, packed, "--capacity-blocks", "9")["block_hits"] == 6
