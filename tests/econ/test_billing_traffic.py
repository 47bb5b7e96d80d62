"""Traffic: from traces and conversation files, marked, and as a client sends it that wants more from a cache."""

import json
from hashlib import blake2b
from types import SimpleNamespace

import pytest
from billing_helpers import Script

from kvtier.econ.billing.calls import CALL, PING, WARM_UP, Mark, calls_of_trace
from kvtier.econ.billing.conversation import calls_of_file, calls_of_lines, is_conversation
from kvtier.econ.billing.marking import mark_growing, mark_last, mark_shared
from kvtier.econ.billing.strategies import keep_alive, sessions, warm_up
from kvtier.errors import ConfigError


def request(time_s, blocks, input_tokens, output_tokens=0, conversation=None):
    return SimpleNamespace(
        time_s=time_s,
        blocks=blocks,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        conversation=conversation,
    )


def seen(calls):
    """``(time, purpose, segments, tokens)`` of each call."""
    return [(call.time_s, call.purpose, len(call.ids), call.input_tokens) for call in calls]


# Traces


def test_a_block_that_is_not_whole_is_no_segment():
    (call,) = calls_of_trace([request(1.5, [4, 5, 6], 25, 7, conversation=3)], block_tokens=10)

    assert (call.ids.tolist(), call.ends.tolist(), call.input_tokens) == ([4, 5], [10, 20], 25)
    assert (call.time_s, call.output_tokens, call.conversation) == (1.5, 7, 3)
    assert (call.marks, call.in_content_blocks, call.purpose) == (None, False, CALL)


def test_tokens_beyond_the_blocks_of_a_trace_are_in_no_segment():
    (call,) = calls_of_trace([request(0, [4], 25)], block_tokens=10)

    assert (call.ends.tolist(), call.input_tokens) == ([10], 25)


@pytest.mark.parametrize(
    ("requests", "what"),
    [
        ([request(5, [1], 9), request(4, [1], 9)], "request 1 of the trace is at 4 s, after one at 5 s"),
        ([request(float("nan"), [1], 9)], "request 0 of the trace"),
        ([request(float("inf"), [1], 9)], "request 0 of the trace"),
        ([request(0, [1], -9)], "negative"),
        ([request(0, [1], 9, -1)], "negative"),
    ],
)
def test_a_trace_that_cannot_be_is_refused(requests, what):
    with pytest.raises(ConfigError, match=what):
        list(calls_of_trace(requests, block_tokens=1))


def test_a_trace_has_blocks_of_a_token_at_least():
    with pytest.raises(ConfigError, match="at least 1 token"):
        list(calls_of_trace([], block_tokens=0))


# Conversation files


def line(**more):
    return {"time_s": 0, "segments": [{"id": "S", "tokens": 100}], **more}


def read(*requests, lifetimes=("5m", "1h")):
    return list(calls_of_lines(map(json.dumps, requests), "chat.jsonl", lifetimes))


def test_requests_share_a_prefix_as_far_as_their_segments_are_the_same():
    one, two, three = read(
        line(segments=[{"id": "S", "tokens": 100}, {"text": "hello", "tokens": 2}]),
        line(segments=[{"id": "S", "tokens": 100}, {"text": "hello", "tokens": 2}, {"id": "x", "tokens": 5}]),
        line(segments=[{"id": "S", "tokens": 101}, {"text": "hello", "tokens": 2}]),
    )

    assert two.ids[:2].tolist() == one.ids.tolist()
    assert two.ends.tolist() == [100, 102, 107]
    assert not set(three.ids.tolist()) & {*one.ids.tolist(), *two.ids.tolist()}
    assert two.input_tokens == 107


def test_a_text_is_not_the_id_of_the_same_letters():
    digest = blake2b(b"S", digest_size=16).hexdigest()
    found = read(*(line(segments=[{**name, "tokens": 1}]) for name in ({"id": "S"}, {"text": "S"}, {"id": digest})))

    assert len({int(call.ids[0]) for call in found}) == 3


def test_what_a_request_says_of_itself_is_taken_over():
    (call,) = read(line(time_s=2.5, output_tokens=40, conversation="a", first_token_s=3))

    assert (call.time_s, call.output_tokens, call.conversation, call.first_token_s) == (2.5, 40, 0, 3.0)
    assert call.in_content_blocks


def test_breakpoints_become_marks():
    segments = [
        {"role": "system", "id": "S", "tokens": 100, "breakpoint": "1h"},
        {"id": "u", "tokens": 5},
        {"id": "v", "tokens": 5, "breakpoint": True},
    ]

    assert read(line(segments=segments))[0].marks == (Mark(0, "1h"), Mark(2))
    assert read(line())[0].marks is None


def test_an_answer_is_the_segment_that_has_its_name_and_tokens():
    first, second, other = read(
        line(output_tokens=30, reply="a1"),
        line(segments=[{"id": "S", "tokens": 100}, {"role": "assistant", "id": "a1", "tokens": 30}]),
        line(segments=[{"id": "S", "tokens": 100}, {"role": "assistant", "id": "a1", "tokens": 31}]),
    )

    assert first.reply == second.ids[1]
    assert first.reply != other.ids[1]


def test_blank_lines_are_passed_over():
    assert len(list(calls_of_lines(["\n", json.dumps(line()), "  "], "chat.jsonl"))) == 1


SEGMENT = {"id": "S", "tokens": 100}

BAD_LINES = {
    "{": "Expecting",
    "[1]": "a request must be a JSON object, got list",
    json.dumps(line(time_ms=5)): "has 'time_ms'; did you mean time_s",
    json.dumps(line(xyzzy=5)): "has 'xyzzy'; known: time_s, conversation",
    json.dumps({"segments": [SEGMENT]}): "time_s must be seconds of at least 0, got None",
    json.dumps(line(time_s=-1)): "time_s must be seconds",
    json.dumps(line(time_s=True)): "time_s must be seconds",
    json.dumps(line(time_s="2026-11-25")): "time_s must be seconds",
    '{"time_s": Infinity, "segments": [{"id": "S", "tokens": 1}]}': "time_s must be seconds",
    json.dumps(line(segments=[])): "segments must be a list of at least one",
    json.dumps(line(segments="S")): "segments must be a list",
    json.dumps(line(segments=[5])): "segment 0 must be a JSON object, got int",
    json.dumps(line(segments=[{"id": "S"}])): "segment 0: tokens must be a whole number of at least 0, got None",
    json.dumps(line(segments=[{"id": "S", "tokens": -5}])): "got -5",
    json.dumps(line(segments=[{"id": "S", "tokens": 1.5}])): "got 1.5",
    json.dumps(line(segments=[{"id": "S", "tokens": True}])): "got True",
    json.dumps(line(segments=[{"id": "S", "ktokens": 1}])): "has 'ktokens'; did you mean tokens",
    json.dumps(line(segments=[{"tokens": 1}])): "segment 0 needs either an id or a text",
    json.dumps(line(segments=[{"id": "S", "text": "S", "tokens": 1}])): "needs either an id or a text",
    json.dumps(line(segments=[{"id": True, "tokens": 1}])): "needs either an id or a text",
    json.dumps(line(segments=[SEGMENT | {"role": "boss"}])): "role must be one of tools, system",
    json.dumps(line(segments=[SEGMENT, SEGMENT | {"role": "system"}])): "segment 1: system after what follows it",
    json.dumps(line(segments=[SEGMENT | {"breakpoint": "5min"}])): "breakpoint must be one of true, 1h, 5m, got '5min'",
    json.dumps(line(segments=[SEGMENT | {"breakpoint": 1.5}])): "breakpoint must be one of",
    json.dumps(line(segments=[SEGMENT | {"breakpoint": ["5m"]}])): "breakpoint must be one of",
    json.dumps(line(segments=[{"id": "S", "tokens": 10**30}])): "too large",
    json.dumps(line(time_s=10**400)): "too large",
    json.dumps(line(output_tokens=-1)): "output_tokens must be a whole number",
    json.dumps(line(first_token_s=-1)): "first_token_s must be seconds",
    "[" * 200_000: "line 2",
}


@pytest.mark.parametrize(("text", "what"), BAD_LINES.items(), ids=range(len(BAD_LINES)))
def test_a_malformed_line_is_refused_by_its_number(text, what):
    with pytest.raises(ConfigError, match=r"line 2 of chat\.jsonl: ") as refused:
        list(calls_of_lines([json.dumps(line()), text], "chat.jsonl", ("5m", "1h")))

    assert what in str(refused.value)


def test_time_that_runs_backwards_is_refused():
    with pytest.raises(ConfigError, match=r"line 2 of chat\.jsonl: time_s is 4\.0, before the 5\.0"):
        read(line(time_s=5), line(time_s=4))


def test_a_conversation_file_is_known_by_its_first_line(tmp_path):
    def holds(text):
        path = tmp_path / "file"
        path.write_text(text)
        return is_conversation(path)

    assert holds(json.dumps(line()) + "\n{")
    assert holds('{"time_s": 0}')
    assert not holds('{"timestamp": 0, "input_length": 5, "hash_ids": [1]}')
    assert not holds("time,tokens\n")
    assert not holds("[1]")
    assert not holds("")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "latin").write_bytes(b'{"conversation": "\xe9"}')

    with pytest.raises(ConfigError, match="gone"):
        list(calls_of_file(tmp_path / "gone"))
    with pytest.raises(ConfigError, match="latin"):
        list(calls_of_file(tmp_path / "latin"))
    with pytest.raises(ConfigError, match="gone"):
        is_conversation(tmp_path / "gone")


# Marks


def test_a_client_that_marks_the_last_segment_leaves_it_to_the_provider():
    call = Script().call(0, "S:10 u:1")

    assert list(mark_last([call])) == [call]


def test_shared_marks_are_where_a_call_parts_from_all_before():
    script = Script()
    calls = [script.call(0, "S:9 a:1"), script.call(1, "S:9 b:1"), script.call(2, "S:9 b:1 c:1"), script.call(3, "T:9")]

    marked = [[mark.position for mark in call.marks] for call in mark_shared(calls)]

    assert marked == [[1], [0, 1], [1, 2], [0]]


def test_a_call_without_segments_gets_no_mark():
    assert [call.marks for call in mark_shared([Script().call(0, "")])] == [()]
    assert [call.marks for call in mark_growing([Script().call(0, "")])] == [()]


@pytest.mark.parametrize("marking", [mark_shared, mark_growing])
def test_marks_that_a_call_has_are_kept(marking):
    script = Script()
    calls = [script.call(0, "S:9* a:1"), script.call(1, "S:9* a:1 b:1")]

    assert [call.marks for call in marking(calls)] == [(Mark(0),), (Mark(0),)]


def test_growing_marks_move_on_when_the_prefix_has_doubled():
    script, text, calls = Script(), "", []
    for turn in range(6):
        text = f"{text} m{turn}:100"
        calls.append(script.call(turn, text))

    marked = [[mark.position for mark in call.marks] for call in mark_growing(calls, minimum_tokens=100)]

    # Known to be shared before each turn: 0, 100, 200, 300, 400, 500 tokens; marks at 100, 200, 400.
    assert marked == [[], [0], [1], [1], [3], [3]]


def test_growing_marks_wait_for_the_minimum():
    script = Script()
    calls = [script.call(0, "S:99 a:1"), script.call(1, "S:99 b:1"), script.call(2, "S:99 b:1 c:1")]

    assert [call.marks for call in mark_growing(calls, minimum_tokens=100)] == [(), (), (Mark(1),)]


# Pings


def test_pings_come_until_the_next_call_or_the_limit():
    script = Script()
    calls = [script.call(0, "S:100 u:5"), script.call(250, "S:100 u:5 v:5")]

    assert seen(keep_alive(calls, every_s=100, limit=3)) == [
        (0, CALL, 2, 105),
        (100, PING, 2, 105),
        (200, PING, 2, 105),
        (250, CALL, 3, 110),
        (350, PING, 3, 110),
        (450, PING, 3, 110),
        (550, PING, 3, 110),
    ]


def test_no_ping_comes_with_the_call_that_it_was_to_bridge_to():
    script = Script()
    calls = [script.call(0, "S:100"), script.call(100, "S:100 u:5")]

    assert [call.purpose for call in keep_alive(calls, every_s=100, limit=1)] == [CALL, CALL, PING]


def test_a_ping_wants_no_answer_and_says_whose_it_is():
    call = Script().call(0, "S:100", output=50, reply="r", conversation=7)

    ping = list(keep_alive([call], every_s=10, limit=1))[1]

    assert (ping.output_tokens, ping.reply, ping.conversation) == (0, None, 7)


def test_a_ping_of_a_marked_cache_ends_at_the_last_mark():
    call = Script().call(0, "S:100* u:5* v:7")

    assert seen(keep_alive([call], every_s=10, limit=1, marked=True))[1] == (10, PING, 2, 105)
    assert seen(keep_alive([call], every_s=10, limit=1))[1] == (10, PING, 3, 112)


def test_conversations_are_pinged_each_by_itself_and_in_order():
    script = Script()
    calls = [script.call(0, "a:10", conversation=0), script.call(5, "b:20", conversation=1)]

    assert seen(keep_alive(calls, every_s=10, limit=2)) == [
        (0, CALL, 1, 10),
        (5, CALL, 1, 20),
        (10, PING, 1, 10),
        (15, PING, 1, 20),
        (20, PING, 1, 10),
        (25, PING, 1, 20),
    ]


def test_two_calls_of_a_conversation_at_once_are_pinged_once():
    script = Script()
    calls = [script.call(0, "a:10 x:1"), script.call(0, "a:10 y:2")]

    assert seen(keep_alive(calls, every_s=10, limit=1))[2:] == [(10, PING, 2, 12)]


def test_a_prefix_too_short_to_store_is_not_pinged():
    assert len(list(keep_alive([Script().call(0, "S:100")], every_s=10, limit=5, minimum_tokens=101))) == 1


@pytest.mark.parametrize(("every_s", "limit"), [(0, 1), (-5, 1), (5, -1)])
def test_pings_that_cannot_be_are_refused(every_s, limit):
    with pytest.raises(ConfigError, match="pings need"):
        list(keep_alive([], every_s=every_s, limit=limit))


def test_a_session_goes_on_where_an_earlier_call_ended():
    script = Script()
    texts = ["S:9 a:1", "S:9 b:1", "S:9 a:1 c:1", "S:9 b:1 d:1", "S:9 a:1 c:1 e:1", "T:9"]
    calls = [script.call(0, text, conversation=None) for text in texts]

    found = [call.conversation for call in sessions(calls)]

    assert found[2] == found[0] == found[4]
    assert found[3] == found[1]
    assert len(set(found)) == 3
    assert all(number < 0 for number in found)


def test_of_two_sessions_the_one_that_got_further_goes_on():
    script = Script()
    calls = [script.call(0, text, conversation=None) for text in ("S:9 a:1", "S:9", "S:9 a:1 b:1")]

    found = [call.conversation for call in sessions(calls)]

    assert found[0] != found[1]
    assert found[2] == found[0]


def test_a_conversation_that_the_trace_knows_keeps_its_number():
    assert [call.conversation for call in sessions([Script().call(0, "S:9", conversation=4)])] == [4]


# Warm-up


def test_calls_that_come_together_wait_for_one_ahead():
    script = Script()
    calls = [script.call(10, "S:100 a:1"), script.call(10.5, "S:100 b:1"), script.call(11, "S:100 c:1")]

    assert seen(warm_up(calls, within_s=1, lifetime_s=300)) == [
        (10, WARM_UP, 1, 100),
        (11, CALL, 2, 101),
        (11, CALL, 2, 101),
        (11, CALL, 2, 101),  # came when the group was closed: what it shares was sent
    ]


def test_one_call_alone_needs_none_ahead():
    calls = [Script().call(10, "S:100 a:1")]

    assert seen(warm_up(calls, within_s=1, lifetime_s=300)) == seen(calls)


def test_the_call_ahead_has_what_all_of_them_share():
    script = Script()
    calls = [script.call(0, text) for text in ("S:100 D:50 a:1", "S:100 D:50 b:1", "S:100 c:1")]

    assert seen(warm_up(calls, within_s=1, lifetime_s=300))[0] == (0, WARM_UP, 1, 100)


def test_a_call_that_comes_as_the_answer_begins_can_read_and_needs_none_ahead():
    script = Script()
    calls = [script.call(0, "S:100 a:1"), script.call(1, "S:100 b:1")]

    assert [call.purpose for call in warm_up(calls, within_s=1, lifetime_s=300)] == [CALL, CALL]


def test_what_was_sent_within_its_lifetime_needs_no_call_ahead():
    script = Script()
    calls = [script.call(t, f"S:100 u{t}{i}:1") for t in (0, 300, 600) for i in range(2)]

    purposes = [call.purpose for call in warm_up(calls, within_s=1, lifetime_s=300)]

    assert purposes == [WARM_UP, CALL, CALL, CALL, CALL, CALL, CALL]


def test_later_than_that_it_needs_one():
    script = Script()
    calls = [script.call(t, f"S:100 u{t}{i}:1") for t in (0, 302) for i in range(2)]

    assert [call.purpose for call in warm_up(calls, within_s=1, lifetime_s=300)].count(WARM_UP) == 2


@pytest.mark.parametrize(("minimum", "ahead"), [(100, 1), (101, 0)])
def test_what_is_shared_must_be_long_enough(minimum, ahead):
    script = Script()
    calls = [script.call(0, "S:100 a:1"), script.call(0, "S:100 b:1")]
    made = list(warm_up(calls, within_s=1, lifetime_s=300, minimum_tokens=minimum))

    assert len(made) == 2 + ahead


def test_the_end_of_what_is_shared_is_marked():
    script = Script()
    calls = [script.call(0, "S:100 D:9 a:1*1h"), script.call(0, "S:100 D:9 b:1*1h")]

    ahead, one, _ = warm_up(calls, within_s=1, lifetime_s=300, marked=True)

    assert ahead.marks == (Mark(1, "1h"),)
    assert one.marks == (Mark(1, "1h"), Mark(2, "1h"))


def test_without_marks_the_last_segment_is_marked_as_well():
    script = Script()
    calls = [script.call(0, "S:100 a:1"), script.call(0, "S:100 b:1")]

    ahead, one, _ = warm_up(calls, within_s=1, lifetime_s=300, marked=True)

    assert (ahead.marks, one.marks) == ((Mark(0),), (Mark(0), Mark(1)))


def test_calls_stay_in_order_of_time():
    script = Script()
    texts = ["S:100 a:1", "T:100 x:1", "S:100 b:1", "T:100 y:1", "", "U:9"]
    calls = [script.call(0.3 * i, text) for i, text in enumerate(texts)]

    made = list(warm_up(calls, within_s=1, lifetime_s=300))

    assert [call.time_s for call in made] == sorted(call.time_s for call in made)
    assert [call.purpose for call in made].count(WARM_UP) == 2
    assert len(made) == len(calls) + 2


@pytest.mark.parametrize(("within_s", "lifetime_s"), [(0, 300), (1, 0)])
def test_a_warm_up_that_cannot_be_is_refused(within_s, lifetime_s):
    with pytest.raises(ConfigError, match="a warm-up needs"):
        list(warm_up([], within_s=within_s, lifetime_s=lifetime_s))
