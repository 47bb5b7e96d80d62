"""Synthetic traces: the same from the same seed, of the shape they are named for, and one way to ask for them."""

import io
from itertools import islice, pairwise
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvtier.errors import ConfigError
from kvtier.sim import mooncake
from kvtier.sim.generate import Draw, Piece, Session, Turn, Workload
from kvtier.sim.naming import trace_from
from kvtier.sim.reading import open_trace
from kvtier.sim.workloads import WORKLOADS, Agents, Chat, LongDocuments, Rag, SharedPrompts, workload

NAMES = sorted(WORKLOADS)


class Scripted(Workload):
    """Sessions that a test has written, one after another."""

    name = "scripted"
    turns_each = 1.0

    def script(self, *sessions):
        object.__setattr__(self, "sessions", sessions)
        return self

    def session(self, draw):
        pieces, turns = self.sessions[int(draw.seed.split("/")[1]) % len(self.sessions)]
        return Session(pieces, iter(turns))


def scripted(requests, *sessions, rate=1e-6):
    """Their requests; sessions start so far apart that none meets another, unless they are told to."""
    return list(Scripted(requests=requests, block_tokens=10, rate=rate).script(*sessions))


def conversations(trace):
    """Requests of each conversation, in order."""
    found = {}
    for request in trace:
        found.setdefault(request.conversation, []).append(request)
    return list(found.values())


# How a prompt becomes blocks


def test_a_turn_asks_with_all_that_was_said_before(tmp_path):
    first, second = scripted(2, ([Piece("a", 15)], [Turn(0, 10, 7), Turn(5, 8, 1)]))

    assert (first.blocks, first.input_tokens, first.output_tokens) == ([0, 1], 25, 7)
    assert (second.blocks, second.input_tokens, second.output_tokens) == ([0, 1, 2, 3], 40, 1)
    assert second.time_s - first.time_s == pytest.approx(5, abs=2e-3)


def test_a_fresh_turn_goes_back_to_the_pieces():
    first, second = scripted(2, ([Piece("a", 15)], [Turn(0, 10, 7), Turn(5, 20, 1, fresh=True)]))

    assert (first.blocks, second.blocks, second.input_tokens) == ([0, 1], [0, 2, 3], 35)


def test_a_block_is_shared_if_all_of_it_is():
    turns = [Turn(0, 5, 1)]
    found = scripted(3, ([Piece("a", 15), Piece("b", 10)], turns), ([Piece("a", 15)], turns), ([Piece("b", 15)], turns))

    assert [request.blocks for request in found] == [[0, 1, 2], [0, 3], [4, 5]]


def test_pieces_in_another_order_are_another_text():
    a, b = Piece("a", 10), Piece("b", 10)

    assert [r.blocks for r in scripted(2, ([a, b], [Turn(0, 1, 1)]), ([b, a], [Turn(0, 1, 1)]))] == [[0, 1], [2, 3]]


def test_sessions_that_run_at_once_are_merged_by_time():
    slow = ([], [Turn(0, 10, 1)] + [Turn(1.0, 10, 1)] * 40)

    found = scripted(80, slow, rate=1.0)

    assert [request.time_s for request in found] == sorted(request.time_s for request in found)
    assert any(a.conversation > b.conversation for a, b in pairwise(found))


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(NAMES), st.integers(0, 2**64), st.integers(1, 40), st.integers(16, 300))
def test_every_workload_is_a_trace(name, seed, requests, block_tokens):
    trace = workload(name, requests=requests, seed=seed, block_tokens=block_tokens)
    found = list(trace)

    assert len(found) == requests
    before, now_s = {}, 0.0
    for request in found:
        assert request.time_s >= now_s
        assert len(request.blocks) == request.input_tokens // block_tokens
        now_s = request.time_s
        for previous, block in pairwise([-1, *request.blocks]):
            assert block <= len(before), "numbered in order of first appearance"
            assert before.setdefault(block, previous) == previous, "always after the same block"


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(NAMES), st.integers(0, 99))
def test_a_workload_is_the_same_each_time_and_the_beginning_of_a_longer_one(name, seed):
    trace = workload(name, requests=30, seed=seed)

    assert list(trace) == list(trace) == list(islice(workload(name, requests=90, seed=seed), 30))


@pytest.mark.parametrize("name", NAMES)
def test_another_seed_is_another_trace(name):
    assert list(workload(name, requests=30, seed=1)) != list(workload(name, requests=30, seed=2))


@pytest.mark.parametrize("name", NAMES)
def test_a_workload_is_written_and_read_again_equal(tmp_path, name):
    trace = workload(name, requests=50, seed=3)
    with (tmp_path / "trace").open("w") as file:
        mooncake.write(trace, file)

    again = open_trace(tmp_path / "trace", strict=True)

    assert (again.block_tokens, list(again)) == (trace.block_tokens, list(trace))


@pytest.mark.parametrize("name", NAMES)
def test_requests_come_at_the_rate_asked_for(name):
    found = list(workload(name, requests=4000, rate=5.0))

    later = [request.time_s for request in found[1500:]]
    assert (len(later) - 1) / (later[-1] - later[0]) == pytest.approx(5.0, rel=0.25)


# What each is named for


def test_a_chat_grows_by_what_was_answered_and_asked():
    for turns in conversations(Chat(requests=300)):
        for one, two in pairwise(turns):
            assert two.blocks[: len(one.blocks)] == one.blocks
            assert two.input_tokens > one.input_tokens + one.output_tokens


def test_a_chat_ends_before_its_context_is_full():
    lengths = [len(turns) for turns in conversations(Chat(requests=600, turns=50, context_tokens=2000))]
    prompts = [
        r.input_tokens for turns in conversations(Chat(requests=600, turns=50, context_tokens=2000)) for r in turns[1:]
    ]

    assert max(prompts) <= 2000
    assert max(lengths) < 20


def test_system_prompts_are_asked_by_their_weights():
    counts = {}
    for request in SharedPrompts(requests=4000, prompts=4, zipf=1.0):
        counts[request.blocks[0]] = counts.get(request.blocks[0], 0) + 1

    shares = sorted((count / 4000 for count in counts.values()), reverse=True)
    assert shares == pytest.approx([12 / 25, 6 / 25, 4 / 25, 3 / 25], abs=0.03)


def test_documents_stand_in_front_of_a_question_and_each_is_there_once():
    draws = [Rag(documents=5, retrieved=3).session(Draw(f"0/{n}")) for n in range(200)]

    for session in draws:
        keys = [piece.key for piece in session.pieces]
        assert keys[0] == "system"
        assert len(set(keys)) == len(keys) == 4
    assert len({tuple(session.pieces) for session in draws}) > 20, "in the order of retrieval, not of a list"


def test_a_document_has_one_length():
    lengths = {}
    for n in range(300):
        for piece in Rag(documents=9).session(Draw(f"0/{n}")).pieces:
            lengths.setdefault(piece.key, set()).add(piece.tokens)

    assert all(len(each) == 1 for each in lengths.values())
    assert len(set().union(*lengths.values())) > 5


def test_an_agent_s_full_context_is_summed_up_behind_its_tools():
    found = conversations(Agents(requests=400, steps=100, tool_tokens=1000, context_tokens=20_000, kinds=1))
    summed_up = [(one, two) for turns in found for one, two in pairwise(turns) if two.input_tokens < one.input_tokens]

    assert summed_up
    for one, two in summed_up:
        shared = sum(a == b for a, b in zip(one.blocks, two.blocks, strict=False))
        assert 0 < shared <= 20_000 // 64
        assert len({turns[0].blocks[0] for turns in found}) == 1


def test_no_agent_s_prompt_passes_its_context():
    longest = max(request.input_tokens for request in Agents(requests=800, steps=200, context_tokens=50_000, kinds=1))

    assert 40_000 < longest <= 50_000


def test_questions_on_a_document_do_not_see_each_other():
    for turns in conversations(LongDocuments(requests=300)):
        for one, two in pairwise(turns):
            shared = sum(a == b for a, b in zip(one.blocks, two.blocks, strict=False))
            assert min(one.input_tokens, two.input_tokens) - shared * 64 < 20 * 60 + 64
            assert one.blocks[shared:] != two.blocks[shared:] or one.blocks == two.blocks


# What is drawn


def test_lengths_have_their_mean_and_their_bounds():
    draw = Draw("lengths")
    found = [draw.tokens(100) for _ in range(20_000)]

    assert mean(found) == pytest.approx(100, rel=0.05)
    assert 1 <= min(found) <= max(found) <= 2000
    assert {draw.tokens(0.001) for _ in range(99)} == {1}


def test_waits_and_counts_have_their_mean():
    draw = Draw("waits")

    assert mean(draw.wait_s(30) for _ in range(20_000)) == pytest.approx(30, rel=0.05)
    assert mean(draw.number(6) for _ in range(20_000)) == pytest.approx(6, rel=0.05)
    assert {draw.number(1) for _ in range(99)} == {1}


# How one is named


def test_a_name_has_parameters():
    found = trace_from("synthetic:rag?requests=20&seed=7&zipf=0.5")

    assert found == Rag(requests=20, seed=7, zipf=0.5)


def test_a_block_size_and_a_limit_apply_to_synthetic_traces_too():
    assert trace_from("synthetic:chat", block_tokens=32) == Chat(block_tokens=32)
    assert len(list(trace_from("synthetic:chat", limit=5))) == 5


@pytest.mark.parametrize(
    ("argument", "complaint"),
    [
        ("synthetic:", "no synthetic workload is called ''; there are chat, shared_prompts, rag, agents"),
        ("synthetic:poker", "no synthetic workload is called 'poker'"),
        ("synthetic:chat?speed=2", "has no 'speed'; it has requests, seed, block_tokens, rate, turns"),
        ("synthetic:chat?turns", "turns must be a number, got ''"),
        ("synthetic:chat?turns=many", "turns must be a number, got 'many'"),
        ("synthetic:chat?turns=nan", "turns must be a number"),
        ("synthetic:chat?turns=1e999", "turns must be a number"),
        ("synthetic:chat?turns=" + "9" * 5000, "turns must be"),
        ("synthetic:chat?requests=2.5", "requests must be a whole number, got 2.5"),
        ("synthetic:chat?requests=0", "requests must be from 1 to"),
        ("synthetic:chat?requests=-3", "requests must be from 1 to"),
        ("synthetic:chat?seed=-1", "seed must be from 0 to"),
        ("synthetic:chat?rate=0", "rate must be from"),
        ("synthetic:rag?documents=1e12", "documents must be from 1 to"),
        ("synthetic:rag?documents=2", "retrieved must be at most 2"),
        ("synthetic:chat?seed=1&seed=2", "seed is given twice"),
    ],
)
def test_a_name_that_cannot_be_says_what_could(argument, complaint):
    with pytest.raises(ConfigError) as caught:
        trace_from(argument)

    assert complaint in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_prompt_of_too_many_blocks_is_refused_before_it_is_made():
    with pytest.raises(ConfigError, match="blocks; make them larger"):
        scripted(1, ([Piece("a", 10 * (2**22 + 1))], [Turn(0, 1, 1)]))


def test_the_parameters_of_every_workload_are_numbers_from_the_command_line():
    for name in NAMES:
        trace = trace_from(f"synthetic:{name}?requests=3&rate=2")
        file = io.StringIO()
        assert mooncake.write(trace, file) == 3
