"""The agentic format, against an encoder of its own: every id comes back, under one number, in order of time."""

from itertools import takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sim.traces import file_of, published, session, subagent, turn

from kvtier.errors import ConfigError, TraceError
from kvtier.sim.reading import open_trace


def read(directory, *lines, **options):
    return list(open_trace(file_of(directory, *lines), **options))


def blocks(directory, *lines, **options):
    return [request.blocks for request in read(directory, *lines, strict=True, **options)]


def test_a_request_keeps_the_first_ids_of_the_one_before_and_adds_runs(tmp_path):
    found = blocks(tmp_path, session(turn(0, 0, (1, 3)), turn(4, 2, (8, 2), (20, 1))))

    assert found == [[0, 1, 2], [0, 1, 3, 4, 5]]


def test_ids_that_come_again_keep_their_numbers(tmp_path):
    whole, short = turn(0, 0, (1, 4)), turn(1, 2)
    found = blocks(tmp_path, session(whole, short, turn(2, 2, (3, 4)), turn(3, 0, (1, 2), (3, 3), (40, 1))))

    assert found == [[0, 1, 2, 3], [0, 1], [0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 6]]


def test_a_run_that_overlaps_what_is_known_at_both_ends_is_taken_apart(tmp_path):
    found = blocks(tmp_path, session(turn(0, 0, (5, 2)), turn(1, 0, (5, 5)), turn(2, 1, (6, 4))))

    assert found == [[0, 1], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]


def test_equal_ids_of_two_sessions_are_two_blocks(tmp_path):
    assert blocks(tmp_path, session(turn(0, 0, (1, 2))), session(turn(0, 0, (1, 2)))) == [[0, 1], [2, 3]]


def test_a_request_has_its_lengths_its_session_and_its_time(tmp_path):
    line = session(turn(2.5, 0, (1, 1), output=9))

    first, second = read(tmp_path, line, line, session_interval_s=10)

    assert first[2:] == (64, 9, 0)
    assert (first.time_s, second.time_s, second.conversation) == (2.5, 12.5, 1)


def test_sessions_are_merged_by_time(tmp_path):
    long = session(turn(0, 0, (1, 1)), turn(100, 1), turn(200, 1))

    found = read(tmp_path, long, long, session_interval_s=60)

    assert [(request.time_s, request.conversation) for request in found] == [
        (0, 0),
        (60, 1),
        (100, 0),
        (160, 1),
        (200, 0),
        (260, 1),
    ]


def test_of_equal_times_the_session_that_runs_already_comes_first(tmp_path):
    found = read(tmp_path, session(turn(0, 0), turn(60, 0)), session(turn(0, 0)), session_interval_s=60)

    assert [(request.time_s, request.conversation) for request in found] == [(0, 0), (60, 0), (60, 1)]


def test_all_sessions_may_start_at_once(tmp_path):
    found = read(tmp_path, *[session(turn(0, 0), turn(1, 0))] * 3, session_interval_s=0)

    assert [request.conversation for request in found] == [0, 1, 2, 0, 1, 2]


def test_a_sub_agent_starts_from_nothing_beside_its_session_and_shares_its_ids(tmp_path):
    inner = subagent(5, turn(0, 0, (90, 2)), turn(20, 2, (92, 1)))

    found = read(tmp_path, session(turn(0, 0, (1, 3)), inner, turn(10, 3, (4, 1))))

    assert [(request.time_s, request.blocks) for request in found] == [
        (0, [0, 1, 2]),
        (5, [3, 4]),
        (10, [0, 1, 2, 5]),
        (25, [3, 4, 6]),
    ]
    assert {request.conversation for request in found} == {0}


def test_a_sub_agent_may_have_one_of_its_own(tmp_path):
    line = session(subagent(1, subagent(2, subagent(3, turn(4, 0, (7, 1))))))

    assert [request.time_s for request in read(tmp_path, line)] == [10]


def test_sub_agents_a_thousand_deep_are_read_or_malformed(tmp_path):
    deep = turn(0, 0, (1, 1))
    for _ in range(150):
        deep = subagent(0, deep)
    trace = open_trace(file_of(tmp_path, session(turn(0, 0)), session(deep)))

    assert len(list(trace)) + trace.skipped.count == 2


# Whose prefix is shared


def test_tools_and_system_prompt_are_shared_where_that_is_asked_for(tmp_path):
    lines = [
        session(turn(0, 0, (1, 4)), turn(1, 3, (9, 1)), tools=100, system=92),
        session(turn(0, 0, (1, 5)), tools=100, system=99),
        session(turn(0, 0, (50, 5)), tools=0, system=300),
    ]

    found = blocks(tmp_path, *lines, shared_prefix=True)

    assert found == [[0, 1, 2, 3], [0, 1, 2, 4], [0, 1, 2, 5, 6], [0, 1, 2, 7, 8]]


def test_prompts_shorter_than_the_shared_prefix_are_part_of_it(tmp_path):
    lines = [session(turn(0, 0, (1, 2)), turn(1, 2, (3, 2)), system=200), session(turn(0, 0, (1, 1)), system=200)]

    assert blocks(tmp_path, *lines, shared_prefix=True) == [[0, 1], [0, 1, 2, 3], [0]]


def test_sub_agents_share_a_prefix_of_their_own(tmp_path):
    line = session(turn(0, 0, (1, 2)), subagent(1, turn(0, 0, (5, 2)), system=64), system=64)

    assert blocks(tmp_path, line, line, shared_prefix=True) == [[0, 1], [2, 3], [0, 4], [2, 5]]


# What is refused


def test_an_id_of_the_session_in_another_place_of_a_sub_agent_is_refused(tmp_path):
    inner = subagent(5, turn(0, 0, (90, 2)), turn(20, 2, (1, 1)))

    with pytest.raises(TraceError, match="line 1: id 1 at depth 2 follows another block"):
        read(tmp_path, session(turn(0, 0, (1, 3)), inner))


def test_an_id_after_two_others_is_refused(tmp_path):
    with pytest.raises(TraceError, match="line 2: id 3 at depth 1 follows another block than before"):
        read(tmp_path, session(turn(0, 0)), session(turn(0, 0, (1, 3)), turn(1, 1, (3, 1))))


@pytest.mark.parametrize("runs", [[(1, 2), (1, 1)], [(2, 1)], [(0, 2)], [(1, 1), (3, 1)], [(9, 1), (1, 1)]])
def test_a_run_that_breaks_the_prefix_property_is_found_wherever_it_starts(tmp_path, runs):
    with pytest.raises(TraceError, match="follows another block"):
        read(tmp_path, session(turn(0, 0, (1, 3)), turn(1, 0, *runs)))


def test_time_that_runs_backwards_in_a_list_is_refused(tmp_path):
    with pytest.raises(TraceError, match=r"line 1: time runs backwards in a list of requests, from 5 s to 4\.5 s"):
        read(tmp_path, session(turn(5, 0), turn(4.5, 0)))


BAD = {
    "other block size": session(turn(0, 0), block_size=32),
    "keeps too much": session(turn(0, 0, (1, 2)), turn(1, 3)),
    "first keeps something": session(turn(0, 1)),
    "length and ids differ": session({**turn(0, 0, (1, 2)), "in": 64}),
    "length unknown": session({**turn(0, 0), "in": None}),
    "negative keep": session(turn(0, 0, (1, 2)), {**turn(1, 0), "keep": -1}),
    "negative run": session({**turn(0, 0), "add": [[5, -1]]}),
    "negative id": session(turn(0, 0, (-1, 1))),
    "three numbers": session({**turn(0, 0), "add": [[1, 2, 3]]}),
    "no runs": session({**turn(0, 0), "add": None}),
    "a run in words": session({**turn(0, 0), "add": ["12"]}),
    "half a run": session({**turn(0, 0), "add": [[1.5, 0]]}),
    "a trillion ids": session({**turn(0, 0), "in": 64, "add": [[1, 10**12]]}),
    "a trillion ids that fit": session(turn(0, 0, (1, 10**12))),
    "ten million ids that fit": session(turn(0, 0, (1, 10**7))),
    "a huge id": session(turn(0, 0, (2**63, 1))),
    "no time": session({**turn(0, 0), "t": None}),
    "no output": session({**turn(0, 0), "out": None}),
    "a list for a request": session([]),
    "a sub-agent without tools": session({"t": 0, "requests": []}),
    "a sub-agent without time": session({**subagent(0), "t": "now"}),
    "requests are none": session(requests=3),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_session_with_anything_wrong_is_left_out_whole_and_counted(tmp_path, bad):
    good = session(turn(0, 0, (1, 1)))
    trace = open_trace(file_of(tmp_path, good, bad, good))

    found = list(trace)

    assert [(request.time_s, request.blocks, request.conversation) for request in found] == [(0, [0], 0), (60, [1], 1)]
    assert [message.split(":")[0] for message in trace.skipped.messages] == ["line 2"]


def test_a_first_session_without_a_block_size_is_refused(tmp_path):
    with pytest.raises(TraceError, match="does not say how many tokens a block has"):
        open_trace(file_of(tmp_path, session(turn(0, 0), block_size="64")))


@pytest.mark.parametrize("interval", [-1, float("nan"), float("inf")])
def test_an_interval_that_cannot_be_is_refused(tmp_path, interval):
    with pytest.raises(ConfigError, match="session_interval_s"):
        open_trace(file_of(tmp_path, session(turn(0, 0))), session_interval_s=interval)


# An independent encoder


@st.composite
def agents(draw, depth=0):
    """A list of requests as paths in a tree, and of lists of sub-agents."""
    found = []
    for _ in range(draw(st.integers(1, 4))):
        if depth < 2 and draw(st.integers(0, 3)) == 0:
            found.append(draw(agents(depth + 1)))
        else:
            found.append(tuple(draw(st.lists(st.integers(0, 1), max_size=6))))
    return found


def encoded(items, ids, wanted, start_s):
    """The list as the format has it, one run for every id; each request's output is its place in ``wanted``."""
    found, before = [], []
    for t, item in enumerate(items):
        if isinstance(item, list):
            found.append(subagent(t, *encoded(item, ids, wanted, start_s + t)))
            continue
        names = [ids.setdefault(item[: end + 1], 3 * len(ids)) for end in range(len(item))]
        keep = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, names, strict=False)))
        found.append(turn(t, keep, *((name, 1) for name in names[keep:]), output=len(wanted)))
        wanted.append((start_s + t, item))
        before = names
    return found


@given(st.lists(agents(), min_size=1, max_size=3), st.sampled_from([0, 2, 60]))
def test_what_an_independent_encoder_wrote_is_decoded(tmp_path_factory, sessions, interval):
    wanted, lines = [], []
    for number, items in enumerate(sessions):
        first = len(wanted)
        lines.append(session(*encoded(items, {}, wanted, number * interval)))
        wanted[first:] = [(time_s, number, path) for time_s, path in wanted[first:]]

    found = list(
        open_trace(
            file_of(tmp_path_factory.mktemp("trace"), *lines), strict=True, block_tokens=64, session_interval_s=interval
        )
    )

    seen = {}
    for request in found:
        time_s, number, path = wanted[request.output_tokens]
        assert (request.time_s, request.conversation, len(request.blocks)) == (time_s, number, len(path))
        for depth, block in enumerate(request.blocks):
            fresh = len(seen)
            assert block == seen.setdefault((number, path[: depth + 1]), fresh)
    assert sorted(request.output_tokens for request in found) == list(range(len(wanted)))
    assert [request.time_s for request in found] == sorted(request.time_s for request in found)


# The published trace


def test_the_published_trace_has_what_its_description_says():
    trace = open_trace(published("agentic_coding_trace.jsonl.gz"), strict=True)
    count = tokens = references = last_id = 0
    conversations = set()
    for request in trace:
        count += 1
        tokens += request.input_tokens
        references += len(request.blocks)
        last_id = max(last_id, max(request.blocks[-1:], default=0))
        conversations.add(request.conversation)
        assert len(request.blocks) == request.input_tokens // 64

    assert (trace.format, count, len(conversations), tokens) == ("agentic", 49_334, 710, 6_037_445_403)
    assert (references, last_id + 1) == (94_310_647, 3_450_959)
