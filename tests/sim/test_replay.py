"""A replay's counters, worked out by hand on small traces, and what always holds of them.

A prompt is a word whose letters are blocks: ``"abc"`` and ``"abd"`` share two. A tier's counters are shown as
``hits read written evicted expired lost held``.
"""

import gc
from collections import OrderedDict, deque

import pytest
from forests import best_hits, random_prompts
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sim.traces import watched

from kvtier.errors import ConfigError
from kvtier.policy.registry import POLICIES
from kvtier.sim.replay import Replay, rare_collections
from kvtier.sim.settings import Settings, parse_tier
from kvtier.sim.trace import Request

TOKENS = 4
ONE_TIER = sorted(set(POLICIES) - {"ttl"})


class Prompts:
    """A trace of words, or of lists of ids; ``times`` in seconds, ``tokens`` per prompt."""

    name = "prompts"
    block_tokens = TOKENS

    def __init__(self, prompts, times=None, tokens=None):
        numbers = {}
        self.blocks = [
            [numbers.setdefault(text[: i + 1], len(numbers)) for i in range(len(text))]
            if isinstance(text, str)
            else text
            for text in prompts
        ]
        self.times = times or range(len(prompts))
        self.tokens = tokens or [TOKENS * len(blocks) for blocks in self.blocks]

    def __iter__(self):
        for time_s, blocks, tokens in zip(self.times, self.blocks, self.tokens, strict=True):
            yield Request(float(time_s), list(blocks), tokens, 1)


def replay(prompts, *tiers, times=None, tokens=None, **options):
    """A replay that has been run; each tier as on the command line."""
    return run(prompts, *tiers, times=times, tokens=tokens, **options)[0]


def run(prompts, *tiers, times=None, tokens=None, **options):
    """The same, and its moves; see ``watched``."""
    settings = Settings(tiers=[parse_tier(text) for text in tiers], **options)
    made, ways = watched(Replay(Prompts(prompts, times, tokens), settings))
    made.run()
    made.placement.check()
    return made, ways


def rows(made):
    """Each tier's counters, as the module says."""
    return [
        (tier.hits, tier.read, tier.written, tier.evicted, tier.expired, tier.lost, made.placement.used_blocks(number))
        for number, tier in enumerate(made.tally.tiers)
    ]


def found(made):
    return [made.tally.references, made.tally.block_hits, made.tally.prefix_hits]


# One tier


def test_one_tier_of_lru():
    made = replay(["ab", "ab", "abc", "xy", "abc"], "device=3")

    assert made.tally.requests == 5
    assert found(made) == [12, 5, 5]
    assert rows(made) == [(5, 5, 7, 4, 0, 4, 3)]


def test_one_tier_of_fifo():
    made = replay(["ab", "x", "ab", "y", "ab"], "device=3:fifo")

    # y: ab is the oldest leaf. ab again: the head is there, and x leaves for the tail.
    assert rows(made) == [(3, 3, 5, 2, 0, 2, 3)]


def test_a_request_is_looked_up_as_a_whole_before_any_of_it_is_stored():
    made = replay(["xy", "ab", "xy"], "device=2")

    assert found(made) == [6, 0, 0]


def test_a_prompt_longer_than_the_cache_keeps_its_head():
    made = replay(["abcd", "abcd"], "device=2")

    assert rows(made) == [(2, 2, 2, 0, 0, 0, 2)]


def test_a_tail_leaves_before_its_head():
    made = replay(["abc", "x", "abc"], "device=3")

    assert found(made) == [7, 2, 2]


def test_a_last_block_that_is_not_whole_counts_as_a_reference_and_for_its_tokens():
    made = replay(["abc", "abc", "abcd"], "device=9", tokens=[9, 9, 13])

    assert (made.tally.references, made.tally.input_tokens) == (10, 31)
    assert (made.tally.prefix_hits, made.tally.token_hits) == (6, 9 + 12)


def test_tokens_beyond_the_blocks_are_no_hits():
    made = replay(["ab", "ab"], "device=9", tokens=[11, 11])

    assert made.tally.token_hits == 8


@pytest.mark.parametrize("seed", range(10))
def test_the_optimum_is_the_best_there_is(seed):
    prompts = random_prompts(seed)

    assert replay(prompts, "device=3:belady").tally.block_hits == best_hits(prompts, 3)


def test_an_optimal_cache_does_not_take_up_what_is_not_used_again():
    made = replay(["a", "b", "a"], "device=1:belady")

    assert rows(made) == [(1, 1, 1, 0, 0, 0, 1)]


# Several tiers


def test_victims_sink_to_host_memory_and_come_up_again():
    made = replay(["ab", "xy", "ab"], "device=2", "host=2")

    # ab comes up; nobody can sink in its place, so xy is lost, and host memory is empty.
    assert rows(made) == [(0, 2, 6, 4, 0, 2, 2), (2, 4, 2, 0, 0, 0, 0)]


def test_a_disk_keeps_its_copy_of_what_comes_up():
    made = replay(["ab", "xy", "ab", "xy"], "device=2", "disk=4")

    assert rows(made) == [(0, 4, 8, 6, 0, 0, 2), (4, 8, 4, 0, 0, 0, 4)]


def test_an_inclusive_host_keeps_its_copy_too():
    made = replay(["ab", "xy", "ab", "xy"], "device=2", "host=4", copies="inclusive")

    assert rows(made) == [(0, 4, 8, 6, 0, 0, 2), (4, 8, 4, 0, 0, 0, 4)]


def test_an_exclusive_disk_gives_what_comes_up_away():
    made = replay(["ab", "xy", "ab", "xy"], "device=2", "disk=4", copies="exclusive")

    # Each time two come up and two sink.
    assert rows(made) == [(0, 6, 8, 6, 0, 0, 2), (4, 8, 6, 0, 0, 0, 2)]


def test_without_promotion_hits_stay_where_they_are():
    made = replay(["ab", "xy", "ab", "ab"], "device=2", "host=2", promote=False)

    assert rows(made) == [(0, 2, 4, 2, 0, 0, 2), (4, 4, 2, 0, 0, 0, 2)]


def test_three_tiers_pass_their_victims_on():
    made = replay(["a", "b", "c", "a"], "device=1", "host=1", "disk=2")

    assert rows(made) == [(0, 3, 4, 3, 0, 0, 1), (0, 2, 3, 2, 0, 0, 1), (1, 2, 2, 0, 0, 0, 2)]


def test_a_prompt_longer_than_the_first_tier_sinks_part_by_part():
    made = replay(["abcd", "abcd"], "device=2", "disk=4", promote=False)

    assert rows(made) == [(2, 4, 4, 2, 0, 0, 2), (2, 2, 2, 0, 0, 0, 2)]


def test_on_insertion_blocks_are_copied_at_once_and_sink_no_more():
    made = replay(["ab", "xy", "ab"], "device=2", "disk=4", write="on_insertion")

    assert rows(made) == [(0, 4, 6, 4, 0, 0, 2), (2, 4, 4, 0, 0, 0, 4)]


def test_on_insertion_means_nothing_to_one_tier():
    made = replay(["ab", "xy"], "device=2", write="on_insertion")

    assert rows(made) == [(0, 0, 4, 2, 0, 2, 2)]


def test_on_insertion_host_memory_is_passed_over():
    made = replay(["a", "b"], "device=1", "host=1", "disk=4", write="on_insertion")

    # b: a is on disk, two tiers down, and sinks into host memory all the same.
    assert rows(made) == [(0, 3, 2, 1, 0, 0, 1), (0, 0, 1, 0, 0, 0, 1), (0, 0, 2, 0, 0, 0, 2)]


# Time


def test_a_use_begins_a_blocks_time_anew():
    made = replay(["ab"] * 4, "device=4:lru:ttl=10s", times=[0, 6, 15, 25])

    # At 25 s the ten seconds since 15 are over.
    assert rows(made) == [(4, 4, 4, 0, 2, 2, 2)]


def test_without_refresh_a_blocks_time_runs_from_when_it_was_stored():
    made = replay(["ab"] * 4, "device=4:lru:ttl=10s:refresh=no", times=[0, 6, 15, 25])

    assert rows(made) == [(2, 2, 6, 0, 4, 4, 2)]


def test_the_policy_named_ttl_is_lru_for_five_minutes():
    made = replay(["a"] * 3, "device=4:ttl", times=[0, 299, 599], tokens=[4] * 3)

    assert found(made) == [3, 1, 1]


def test_each_tier_has_a_time_to_live_of_its_own():
    made = replay(["ab"] * 3, "device=4:lru:ttl=10s", "disk=4:lru:ttl=1min", times=[0, 10, 70])

    # At 10 s ab sinks, is found below and comes up. At 70 s both copies are too old.
    assert rows(made) == [(0, 2, 6, 0, 4, 0, 2), (2, 4, 2, 0, 2, 2, 0)]


def test_what_hangs_on_a_block_whose_time_is_over_is_lost_once():
    made = replay(
        ["a", "x", "ab", "y"], "device=1", "host=9:lru:ttl=10s:refresh=no", times=[0, 1, 5, 11.5], promote=False
    )

    # a has sunk at 1 s and lapses at 11 s; ab hangs on it.
    assert rows(made) == [(0, 2, 4, 2, 1, 1, 1), (1, 1, 2, 0, 1, 1, 1)]


# What is worth it


def test_only_what_was_asked_for_twice_sinks():
    made = replay(["ab", "xy", "ab", "xy"], "device=2", "disk=4:admit=second_touch")

    assert rows(made) == [(0, 2, 8, 6, 0, 4, 2), (0, 0, 2, 0, 0, 0, 2)]


def test_what_is_not_worth_writing_to_the_first_tier_is_in_none():
    made = replay(["ab", "ab", "ab"], "device=4:admit=second_touch")

    assert rows(made) == [(2, 2, 2, 0, 0, 0, 2)]


def test_a_budget_is_spent_in_the_traces_time():
    made = replay(["abc", "xyz", "uvw"], "device=9:admit=write_budget/48", times=[0, 1, 1801])

    # Two blocks an hour: two at once, and one more half an hour later.
    assert rows(made) == [(0, 0, 3, 0, 0, 0, 3)]


@pytest.mark.parametrize("text", ["device=4:mru", "device=4:admit=everything", "device=4:admit=worth_reloading"])
def test_what_is_not_known_is_refused_before_the_replay(text):
    with pytest.raises(ConfigError):
        Replay(Prompts(["a"]), Settings(tiers=[parse_tier(text)]))


def test_what_is_worth_reloading_is_told_how_fast_that_is():
    tiers = [parse_tier("device=1"), parse_tier("disk=9:admit=worth_reloading")]

    def written(recompute_s, load_s):
        known = {"recompute_s": lambda _: recompute_s, "load_s": {"disk": (0.0, load_s)}}
        made = Replay(Prompts(["a", "b", "c"]), Settings(tiers=tiers), **known)
        return made.run().tiers[1].written

    assert [written(1.0, 0.5), written(1.0, 2.0), written(3.0, 2.0)] == [2, 0, 2]


# Every reference a request of its own


def lru(stream, capacity):
    held, hits = OrderedDict(), 0
    for block in stream:
        hits += block in held
        held[block] = None
        held.move_to_end(block)
        if len(held) > capacity:
            held.popitem(last=False)
    return hits


def fifo(stream, capacity):
    held, hits = deque(maxlen=capacity), 0
    for block in stream:
        hits += block in held
        if block not in held:
            held.append(block)
    return hits


@pytest.mark.parametrize("oracle", [lru, fifo])
@pytest.mark.parametrize("capacity", [1, 3, 6])
def test_references_one_by_one_are_what_a_plain_cache_sees(oracle, capacity):
    prompts = [prompt for seed in range(12) for prompt in random_prompts(seed, max_blocks=15, max_requests=12)]
    stream = [block for prompt in prompts for block in prompt]

    made = replay(prompts, f"device={capacity}:{oracle.__name__}", whole_requests=False)

    assert (made.tally.requests, made.tally.references) == (len(stream), len(stream))
    assert made.tally.block_hits == made.tally.prefix_hits == oracle(stream, capacity)
    assert (made.tally.input_tokens, made.tally.token_hits) == (len(stream), made.tally.prefix_hits)


# What always holds


@st.composite
def setups(draw):
    tiers = draw(
        st.sampled_from([["device"], ["host"], ["device", "host"], ["device", "disk"], ["device", "host", "disk"]])
    )
    texts = []
    for name in tiers:
        text = f"{name}={draw(st.integers(1, 8))}:{draw(st.sampled_from(sorted(POLICIES)))}"
        text += draw(st.sampled_from(["", "", ":ttl=2s", ":ttl=3s:refresh=no"]))
        text += draw(st.sampled_from(["", "", ":admit=second_touch", ":admit=long_prompts/2"]))
        texts.append(text)
    return texts, {
        "write": draw(st.sampled_from(["on_eviction", "on_insertion"])),
        "copies": draw(st.sampled_from(["disk", "inclusive", "exclusive"])),
        "promote": draw(st.booleans()),
    }


@given(setup=setups(), seed=st.integers(0, 10_000))
@settings(max_examples=150, deadline=None)
def test_the_counters_balance(setup, seed):
    tiers, options = setup
    prompts = random_prompts(seed, max_blocks=20, max_requests=25)

    made, ways = run(prompts, *tiers, **options)

    tally, nodes = made.tally, made.placement.index.nodes.values()
    assert tally.block_hits == tally.prefix_hits == sum(tier.hits for tier in tally.tiers)
    assert tally.references == sum(map(len, prompts))
    new = sum(count for (src, _, _), count in ways.items() if src is None)
    assert new == len(nodes) + sum(tier.lost for tier in tally.tiers), "what was new is held or lost"
    for number, tier in enumerate(tally.tiers):
        held = sum(node.tiers >> number & 1 for node in nodes)
        gone = sum(count for (src, _, keep), count in ways.items() if src == number and not keep)
        assert made.placement.used_blocks(number) == held <= made.settings.tiers[number].capacity_blocks
        assert tier.written == held + gone == sum(count for (_, dst, _), count in ways.items() if dst == number)
        moved = sum(count for (src, dst, _), count in ways.items() if src == number and dst is not None)
        assert tier.read == tier.hits + moved
        assert tier.evicted + tier.expired <= gone
        assert tier.lost <= tier.evicted + tier.expired


@pytest.mark.parametrize("policy", ONE_TIER)
@given(seed=st.integers(0, 10_000), capacity=st.integers(2, 12))
@example(seed=136, capacity=6)
@example(seed=322, capacity=5)
@settings(max_examples=30, deadline=None)
def test_placing_runs_of_blocks_at_once_changes_nothing(policy, seed, capacity):
    """Some policies are told who has children: a block must have its first before room is made for the second."""
    prompts = random_prompts(seed, max_blocks=12, max_requests=40)
    at_once = run(prompts, f"device={capacity}:{policy}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kvtier.placement.Placement._fresh_run", lambda *_: 1)
        one_by_one = run(prompts, f"device={capacity}:{policy}")

    assert rows(at_once[0]) == rows(one_by_one[0])


def test_a_name_that_comes_twice_in_a_prompt_is_one_block():
    made = replay([[1, 2], [3, 4, 4], [5]], "device=8")

    assert made.placement.used_blocks(0) == 5


@pytest.mark.parametrize("policy", ONE_TIER)
@given(seed=st.integers(0, 10_000), capacity=st.integers(1, 10))
@settings(max_examples=20, deadline=None)
def test_a_larger_cache_than_all_blocks_misses_each_once(policy, seed, capacity):
    prompts = random_prompts(seed, max_blocks=capacity, max_requests=20)
    made = replay(prompts, f"device={capacity}:{policy}")

    seen = {block for prompt in prompts for block in prompt}
    assert made.tally.references - made.tally.block_hits == len(seen)


def test_a_replay_yields_what_was_found_before_it_is_stored():
    made = Replay(Prompts(["ab", "abc"]), Settings(tiers=[parse_tier("device=4")]))

    seen = [(request.blocks, list(match.tiers), made.placement.used_blocks(0)) for request, match in made.serve()]

    assert seen == [([0, 1], [], 0), ([0, 1, 2], [0, 0], 2)]


# Memory


def test_collections_are_rare_until_the_replay_is_over():
    before = gc.get_threshold()
    with rare_collections():
        assert gc.get_threshold()[0] > 50 * before[0]
    assert gc.get_threshold() == before


def test_collections_are_as_before_after_a_replay_that_failed():
    before = gc.get_threshold()
    with pytest.raises(ZeroDivisionError), rare_collections():
        assert 1 / 0
    assert gc.get_threshold() == before


@pytest.mark.parametrize("policy", POLICIES)
def test_a_replay_leaves_nothing_to_the_garbage_collector(policy):
    tier = parse_tier(f"device=6:{policy}" + ":ttl=3s" * (policy == "ttl"))
    made = Replay(Prompts(["abcd", "abx", "pqrst", "ab", "vwxyz"] * 40), Settings(tiers=[tier]))
    gc.collect()
    gc.disable()
    try:
        made.run()
        assert gc.collect() == 0
    finally:
        gc.enable()
