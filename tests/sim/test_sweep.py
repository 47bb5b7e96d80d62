"""A sweep is many replays: what each row says, the bound, the front, and processes that leave when they should."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sim.doors import at_interrupt, killed

from kvtier.econ.profile import Profile
from kvtier.errors import ConfigError, KVTierError, TraceError
from kvtier.policy.registry import POLICIES
from kvtier.sim.costs import Meter, speeds
from kvtier.sim.naming import trace_from
from kvtier.sim.replay import Replay
from kvtier.sim.settings import Settings, TierSettings
from kvtier.sim.stats import stats_of
from kvtier.sim.sweep import (
    Job,
    default_capacities,
    grid,
    grid_rows,
    measure,
    pareto,
    policy_jobs,
    policy_rows,
)
from kvtier.sim.workers import in_order, results

TESTS = Path(__file__).resolve().parents[1]
CHAT = partial(trace_from, "synthetic:chat?requests=80")

#: Two replays without end, as ``kvtier sweep`` would run them.
ENDLESS = """
from sim.doors import Endless
from kvtier.sim.sweep import policy_jobs
from kvtier.sim.workers import in_order

if __name__ == "__main__":
    in_order(policy_jobs(Endless, ["lru"], [10, 20]), 2)
"""


def without_time(rows):
    return [{name: row[name] for name in row if name not in {"seconds", "references_per_s"}} for row in rows]


def rows_of(jobs, processes=1):
    return policy_rows(jobs, in_order(jobs, processes))


# Policies by capacities


def test_a_row_is_what_a_replay_of_its_own_says():
    profile = Profile.named("h100", "llama-3.1-8b")
    common = {"admission": "worth_reloading"}  # which knows the machine, or complains
    jobs = policy_jobs(CHAT, ["sieve", "gdsf"], [40, 90], common=common, profile=profile)

    rows = rows_of(jobs)

    assert [(row["policy"], row["capacity_blocks"]) for row in rows] == [
        (policy, capacity) for policy in ("sieve", "gdsf") for capacity in (40, 90)
    ]
    for row in rows:
        tier = TierSettings(name="device", policy=row["policy"], capacity_blocks=row["capacity_blocks"], **common)
        settings = Settings(tiers=[tier])
        tally = Replay(CHAT(), settings, **speeds(profile, settings, CHAT().block_tokens)).run()
        assert (row["block_references"], row["prefix_hits"]) == (tally.references, tally.prefix_hits)
        assert row["token_hit_rate"] == tally.token_hits / tally.input_tokens
        assert (row["written_blocks"], row["evicted_blocks"]) == (tally.tiers[0].written, tally.tiers[0].evicted)


def test_lru_is_what_stack_distances_say():
    rows = rows_of(policy_jobs(CHAT, ["lru"], [20, 60, 200]))

    assert [row["block_hit_rate"] for row in rows] == pytest.approx(list(stats_of(CHAT()).lru_hit_rate([20, 60, 200])))


def test_two_processes_say_what_one_says():
    jobs = policy_jobs(CHAT, ["lru", "belady"], [30, 100])

    assert without_time(rows_of(jobs, 2)) == without_time(rows_of(jobs))


def test_no_policy_passes_the_optimum_and_shares_are_of_the_same_capacity():
    rows = rows_of(policy_jobs(CHAT, list(POLICIES), [25, 120]))

    best = {row["capacity_blocks"]: row["prefix_hits"] for row in rows if row["policy"] == "belady"}
    assert best[25] < best[120]
    for row in rows:
        assert row["share_of_optimum"] == row["prefix_hits"] / best[row["capacity_blocks"]]
        assert row["share_of_optimum"] <= 1


@pytest.mark.parametrize(("policies", "source"), [(["lru"], CHAT), (["belady"], partial(trace_from, "FILE"))])
def test_without_an_optimum_or_any_hit_there_is_no_share(policies, source, tmp_path):
    path = tmp_path / "once.jsonl"
    path.write_text('{"timestamp": 0, "input_length": 512, "output_length": 1, "hash_ids": [0]}\n')
    source = partial(trace_from, str(path)) if policies == ["belady"] else source

    assert [row["share_of_optimum"] for row in rows_of(policy_jobs(source, policies, [10]))] == [None]


def test_what_holds_policies_back_does_not_hold_the_optimum_back():
    held_back = policy_jobs(CHAT, ["lru", "belady"], [50], common={"ttl_s": 1.0, "admission": "second_touch"})
    free = policy_jobs(CHAT, ["lru", "belady"], [50])

    (lru, best), (free_lru, free_best) = rows_of(held_back), rows_of(free)

    assert lru["prefix_hits"] < free_lru["prefix_hits"]
    assert best["prefix_hits"] == free_best["prefix_hits"]


def test_default_capacities_are_shares_of_the_blocks_each_larger_by_a_factor():
    sizes = default_capacities(100_000)

    assert (sizes[0], sizes[-1], len(sizes)) == (1000, 60_000, 8)
    factors = [large / small for small, large in pairwise(sizes)]
    assert max(factors) - min(factors) < 0.01


@pytest.mark.parametrize("unique_blocks", [1, 2, 3, 10])
def test_of_a_few_blocks_there_are_a_few_capacities(unique_blocks):
    sizes = default_capacities(unique_blocks)

    assert sizes == sorted(set(sizes))
    assert sizes[0] == 1


def test_an_unknown_policy_names_the_known_ones():
    with pytest.raises(ConfigError, match=r"unknown policy 'mru'; known are fifo, lru,.* belady"):
        policy_jobs(CHAT, ["lru", "mru"], [10])


# Sizes of tiers


def test_a_grid_is_every_combination_and_0_leaves_a_tier_out():
    found = grid({"disk": [0, 70], "device": [5, 6], "host": [0, 30]}, "sieve", write="on_insertion")

    assert [{tier.name: tier.capacity_blocks for tier in each.tiers} for each in found] == [
        {"device": device, **({"host": host} if host else {}), **({"disk": disk} if disk else {})}
        for device in (5, 6)
        for host in (0, 30)
        for disk in (0, 70)
    ]
    assert {each.write for each in found} == {"on_insertion"}
    assert {tier.policy for each in found for tier in each.tiers} == {"sieve"}


@pytest.mark.parametrize(
    ("sizes", "policy", "complaint"),
    [
        ({"tape": [1]}, "lru", "unknown tier 'tape'; the tiers are device, host"),
        ({"host": [0, 5], "disk": [10]}, "lru", "tier host is where prompts are computed"),
        ({"device": [-1]}, "lru", "must be at least 1 block, got -1"),
        ({"device": [1]}, "mru", "unknown policy 'mru'"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(sizes, policy, complaint):
    with pytest.raises(ConfigError, match=complaint):
        grid(sizes, policy)


def test_rows_of_a_grid_are_bills_and_the_last_is_no_cache():
    profile = Profile.named("h100", "llama-3.1-8b")
    jobs = [
        Job(open=CHAT, settings=each, profile=profile, costs=True) for each in grid({"device": [30], "host": [0, 200]})
    ]

    *rows, none = grid_rows(jobs, in_order(jobs, 1))

    assert [row["sizes"] for row in [*rows, none]] == [{"device": 30}, {"device": 30, "host": 200}, {}]
    for job, row in zip(jobs, rows, strict=True):
        replay = Replay(CHAT(), job.settings, **speeds(profile, job.settings, CHAT().block_tokens))
        meter = Meter(profile, job.settings, CHAT().block_tokens)
        for served in replay.serve():
            meter.watch(served)
        bill = meter.bill(replay.tally).as_dict()
        assert {name: row[name] for name in bill} == bill
    assert (none["ttft_mean_s"], none["usd_per_request"]) == (
        rows[0]["recompute_ttft_mean_s"],
        rows[0]["recompute_usd_per_request"],
    )
    assert none["token_hit_rate"] == 0
    assert any(row["pareto"] for row in rows)
    assert not none["pareto"]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12))
def test_on_the_front_is_what_nothing_is_better_than(points):
    def better(a, b):
        return a != b and a[0] <= b[0] and a[1] <= b[1]

    assert pareto(points) == [not any(better(other, point) for other in points) for point in points]


# Processes


@pytest.mark.parametrize("processes", [1, 2])
def test_a_job_that_fails_names_its_policy_and_capacity(processes):
    jobs = policy_jobs(partial(trace_from, "/not/there"), ["lru"], [1234, 5678])

    with pytest.raises(TraceError, match=r"^lru at (1,234|5,678) blocks: /not/there: cannot be read"):
        in_order(jobs, processes)


def test_a_job_of_several_tiers_names_them_all():
    (settings,) = grid({"device": [10], "disk": [2000]}, "sieve")

    assert Job(open=CHAT, settings=settings).label == "device: sieve at 10 blocks, disk: sieve at 2,000 blocks"


def test_a_process_that_dies_is_no_hang_and_no_half_result():
    with pytest.raises(KVTierError, match=r"a process of the sweep died, with lru at \d+ blocks under way"):
        in_order(policy_jobs(killed, ["lru"], [10, 20, 30]), 2)


def test_an_interrupt_is_left_to_whoever_gave_the_jobs():
    with pytest.raises(TraceError, match=r"an interrupt is .*SIG_IGN"):
        in_order(policy_jobs(at_interrupt, ["lru"], [10]), 2)


def test_each_result_comes_with_its_place_and_each_is_reported():
    jobs = policy_jobs(CHAT, ["lru", "fifo", "sieve"], [40])
    seen = []

    found = in_order(jobs, 2, lambda: seen.append(1))

    assert len(seen) == 3
    assert without_time(found) == without_time([measure(job) for job in jobs])
    assert sorted(number for number, _ in results(jobs, 1)) == [0, 1, 2]


@pytest.mark.parametrize("to_all", [True, False])
def test_an_interrupt_or_a_death_leaves_no_process_behind(tmp_path, to_all):
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    sweep = subprocess.Popen([sys.executable, script], env=environment, start_new_session=True, text=True, **pipes)
    try:
        assert sweep.stdout.readline() != sweep.stdout.readline()  # two processes are in their traces
        if to_all:
            os.killpg(sweep.pid, signal.SIGINT)
        else:
            sweep.kill()
        rest, said = sweep.communicate(timeout=60)  # the pipe's end comes when the last of them has left
    finally:
        with suppress(ProcessLookupError):
            os.killpg(sweep.pid, signal.SIGKILL)  # or those of a sweep that fails this test would run for ever

    assert sweep.returncode != 0
    assert rest == ""
    assert said.count("Traceback") == (1 if to_all else 0)
