"""Reuse distances against a list that is searched, and the other figures against plain counting."""

from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sim.traces import published

from kvtier.errors import TraceError
from kvtier.sim.distances import Distances
from kvtier.sim.reading import open_trace
from kvtier.sim.stats import percentiles, stats_of
from kvtier.sim.trace import Request
from kvtier.sim.workloads import WORKLOADS, Chat, workload


class Listed:
    """Requests in a list."""

    name, block_tokens = "listed", 10

    def __init__(self, requests):
        self.requests = requests

    def __iter__(self):
        return iter(self.requests)


def prompts_of(paths):
    """Prompts over a tree, ids in order of first appearance."""
    numbers = {}
    return [[numbers.setdefault(tuple(path[: end + 1]), len(numbers)) for end in range(len(path))] for path in paths]


prompts = st.lists(st.lists(st.integers(0, 2), max_size=6), max_size=25).map(prompts_of)


def searched(found):
    """Distances by looking through a list of all blocks, most recent first."""
    recent, distances = [], []
    for prompt in found:
        distances += [recent.index(block) for block in prompt if block in recent]
        recent = prompt + [block for block in recent if block not in prompt]
    return distances


def lru_hits(found, capacity):
    """Hits of an LRU cache that is run: looked up as a whole, then used tail first."""
    held, hits = OrderedDict(), 0
    for prompt in found:
        hits += sum(block in held for block in prompt)
        for block in reversed(prompt):
            held[block] = None
            held.move_to_end(block)
        while len(held) > capacity:
            held.popitem(last=False)
    return hits


def measured(found):
    distances = Distances()
    for n, prompt in enumerate(found):
        distances.add(prompt, float(n))
    return distances


@given(prompts)
def test_distances_are_what_searching_a_list_gives(found):
    histogram = measured(found).histogram()

    counts = np.bincount(np.array(searched(found), np.int64), minlength=len(histogram))
    assert histogram.tolist() == counts.tolist()


@given(prompts, st.integers(0, 40))
def test_the_hit_rate_at_a_size_is_that_of_an_lru_cache_of_that_size(found, capacity):
    stats = stats_of(Listed([Request(0.0, prompt, 10 * len(prompt), 0) for prompt in found]))
    uses = sum(map(len, found))

    assert float(stats.lru_hit_rate(capacity)) == pytest.approx(lru_hits(found, capacity) / max(uses, 1))


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_distances_of_longer_traces_agree_too(name):
    found = [request.blocks[:40] for request in workload(name, requests=150)]

    histogram = measured(found).histogram()

    for capacity in (10, 100, 1000):
        assert histogram[:capacity].sum() == lru_hits(found, capacity)


@given(prompts)
def test_intervals_are_those_since_the_use_before(found):
    last, expected = {}, []
    for n, prompt in enumerate(found):
        expected += [float(n - last[block]) for block in prompt if block in last]
        last.update(dict.fromkeys(prompt, n))

    seconds, uses = measured(found).intervals()

    assert sorted(np.repeat(seconds, uses).tolist()) == sorted(expected)


@given(prompts)
def test_first_uses_and_times_used_are_counted(found):
    distances = Distances()
    seen, uses = set(), {}
    for prompt in found:
        assert distances.add(prompt, 0.0) == sum(block in seen for block in prompt)
        seen.update(prompt)
        for block in prompt:
            uses[block] = uses.get(block, 0) + 1

    assert distances.unique_blocks == len(seen)
    assert sorted(distances.times_used().tolist()) == sorted(uses.values())


@pytest.mark.parametrize("second", [[5, 1], [0, 5, 1]])
def test_a_block_without_its_prefix_is_refused(second):
    distances = Distances()
    distances.add([0, 1], 0.0)

    with pytest.raises(TraceError, match="request 2: ids break the prefix property"):
        distances.add(second, 1.0)


def test_ids_may_be_far_apart():
    distances = Distances()

    assert [distances.add([5000, 90_000], 0.0), distances.add([5000, 90_000], 0.0)] == [0, 2]
    assert distances.histogram().tolist() == [1, 1, 0]


# The other figures


def test_the_best_hit_rate_counts_blocks_and_tokens():
    stats = stats_of(Listed([Request(5, [0, 1, 2], 25, 3), Request(9, [0, 1, 2], 25, 4), Request(9, [0, 3], 20, 0)]))

    assert (stats.requests, stats.duration_s, stats.input_tokens, stats.output_tokens) == (3, 4, 70, 7)
    assert (stats.block_references, stats.unique_blocks, stats.used_once) == (8, 4, 1)
    assert stats.best_block_hit_rate == 4 / 8
    assert stats.best_token_hit_rate == (25 + 10) / 70


def test_conversations_that_go_on_are_those_with_a_request_not_long_ago():
    times = [(0, 7), (10, 8), (300, 7), (310, 9), (611, 9)]
    stats = stats_of(Listed([Request(t, [], 0, 0, conversation) for t, conversation in times]))

    assert stats.conversations == 3
    assert stats.going_on.tolist() == [1, 2, 2, 3, 1]


def test_without_conversations_none_are_counted():
    stats = stats_of(Listed([Request(0, [0], 10, 0)]))

    assert (stats.conversations, stats.as_dict()["conversations_going_on"]) == (None, None)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9)), min_size=1, max_size=30))
def test_percentiles_are_by_rank(pairs):
    values, counts = np.array(pairs).T
    every = sorted(np.repeat(values, counts).tolist())

    found = percentiles(values, counts)

    assert found["p50"] == every[-(-len(every) // 2) - 1]
    assert found["p99"] == every[-(-99 * len(every) // 100) - 1]
    assert found["max"] == every[-1]
    assert found["mean"] == pytest.approx(sum(every) / len(every))


def test_octaves_hold_all_uses():
    stats = stats_of(Chat(requests=200))

    assert sum(uses for _, _, uses in stats.octaves()) == stats.hit_references
    assert [(low, high) for low, high, _ in stats.octaves()][:4] == [(0, 0), (1, 1), (2, 3), (4, 7)]
    for low, high, uses in stats.octaves():
        assert uses == stats.distances[low : high + 1].sum()


def test_a_cache_that_holds_every_block_hits_what_can_be_hit():
    stats = stats_of(Chat(requests=200))

    assert float(stats.lru_hit_rate(stats.unique_blocks)) == stats.best_block_hit_rate
    assert stats.as_dict()["lru_hit_rate"][-1]["block_hit_rate"] == stats.best_block_hit_rate


# The published traces


def test_the_conversation_trace_has_the_distances_of_an_lru_that_is_run():
    trace = open_trace(published("mooncake_conversation_trace.jsonl.gz"))
    stats = stats_of(trace)
    found = [request.blocks for request in trace]

    assert (stats.requests, stats.unique_blocks) == (12_031, 182_790)
    for capacity in (1000, 10_000, 50_000):
        assert round(float(stats.lru_hit_rate(capacity)) * stats.block_references) == lru_hits(found, capacity)


@pytest.mark.slow
def test_the_agentic_trace_is_measured_whole():
    stats = stats_of(open_trace(published("agentic_coding_trace.jsonl.gz")))

    assert (stats.requests, stats.unique_blocks, stats.conversations) == (49_334, 3_450_959, 710)
    assert stats.distances.sum() == stats.hit_references == stats.block_references - stats.unique_blocks
