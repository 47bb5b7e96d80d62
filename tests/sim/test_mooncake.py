"""Mooncake's format: ids are numbered anew, must follow one id each, and go out as they came in."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sim.traces import file_of, mooncake, published

from kvtier.errors import TraceError
from kvtier.sim import mooncake as form
from kvtier.sim.reading import open_trace
from kvtier.sim.trace import Request


def read(directory, *lines, **options):
    return list(open_trace(file_of(directory, *lines), **options))


def test_a_record_is_a_request(tmp_path):
    found = read(tmp_path, mooncake(1500, 1300, [0, 1, 2], output=52))

    assert found == [Request(1.5, [0, 1, 2], 1300, 52, None)]


def test_published_blocks_have_512_tokens(tmp_path):
    assert open_trace(file_of(tmp_path, mooncake(0, 512, [0]))).block_tokens == 512


def test_a_file_of_whole_blocks_only_is_read_too(tmp_path):
    assert read(tmp_path, mooncake(0, 1300, [0, 1]))[0].blocks == [0, 1]


def test_any_numbers_are_ids_and_are_numbered_in_order_of_appearance(tmp_path):
    found = read(tmp_path, mooncake(0, 1000, [2**64 - 1, 7]), mooncake(0, 1000, [2**64 - 1, 0]))

    assert [request.blocks for request in found] == [[0, 1], [0, 2]]


def test_an_empty_prompt_has_no_blocks(tmp_path):
    assert read(tmp_path, mooncake(0, 0, []))[0].blocks == []


@pytest.mark.parametrize(
    ("first", "second", "where"),
    [
        ([0, 1, 2], [0, 2], "id 2 at depth 1"),
        ([0, 1], [1], "id 1 at depth 0"),
        ([0, 1], [3, 0], "id 0 at depth 1"),
        ([0, 1, 2], [5, 1, 2], "id 1 at depth 1"),
        ([0, 1], [0, 1, 0], "id 0 at depth 2"),
    ],
)
def test_an_id_that_follows_two_others_is_refused(tmp_path, first, second, where):
    lines = [mooncake(0, 512 * len(ids), ids) for ids in (first, second)]

    with pytest.raises(TraceError, match=f"line 2: {where} follows another block than before"):
        read(tmp_path, *lines)


def test_time_that_runs_backwards_is_refused(tmp_path):
    with pytest.raises(TraceError, match=r"line 3: time runs backwards, from 2 s to 1.999 s"):
        read(tmp_path, mooncake(0, 1, [0]), mooncake(2000, 1, [0]), mooncake(1999, 1, [0]))


BAD = {
    "no ids": {"timestamp": 0, "input_length": 1, "output_length": 1},
    "too few ids": mooncake(0, 1024, [0]),
    "too many ids": mooncake(0, 1024, [0, 1, 2]),
    "ids are no list": mooncake(0, 1, 5),
    "a negative id": mooncake(0, 1, [-1]),
    "a huge id": mooncake(0, 1, [2**64]),
    "a half id": mooncake(0, 1, [0.5]),
    "a true id": mooncake(0, 1, [True]),
    "an id in a list": mooncake(0, 1, [[0]]),
    "a negative time": mooncake(-1, 1, [0]),
    "no time": mooncake(None, 1, [0]),
    "a time in words": mooncake("noon", 1, [0]),
    "no number": '{"timestamp": NaN, "input_length": 1, "output_length": 1, "hash_ids": [0]}',
    "infinity": '{"timestamp": 1e999, "input_length": 1, "output_length": 1, "hash_ids": [0]}',
    "a huge time": mooncake(10**400, 1, [0]),
    "a huge length": mooncake(0, 10**400, [0]),
    "a half length": mooncake(0, 1.0, [0]),
    "a negative output": mooncake(0, 1, [0], output=-1),
    "a number of 5000 digits": f'{{"timestamp": {"9" * 5000}, "hash_ids": [0]}}',
    "not JSON": '{"timestamp": 0,',
    "a list": "[1, 2]",
    "deep": "[" * 100_000,
    "a number": "17",
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_malformed_line_is_counted_and_named(tmp_path, bad):
    trace = open_trace(file_of(tmp_path, mooncake(0, 1, [0]), "", bad, mooncake(0, 1, [1])))

    assert [request.blocks for request in trace] == [[0], [1]]
    assert trace.skipped.count == 1
    assert trace.skipped.messages[0].startswith("line 3: ")
    assert len(trace.skipped.messages[0]) < 200


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_malformed_line_is_refused_in_strict_reading(tmp_path, bad):
    trace = open_trace(file_of(tmp_path, mooncake(0, 1, [0]), bad), strict=True)

    with pytest.raises(TraceError, match=r"trace\.jsonl: line 2: "):
        list(trace)


def test_what_is_not_utf_8_is_malformed(tmp_path):
    path = file_of(tmp_path, mooncake(0, 1, [0]))
    path.write_bytes(path.read_bytes() + b'{"hash_ids": "\xff"}\n')
    trace = open_trace(path)

    list(trace)

    assert trace.skipped.messages == ["line 2: not UTF-8"]


def test_the_first_few_malformed_lines_are_kept_and_all_are_counted_anew_each_time(tmp_path):
    trace = open_trace(file_of(tmp_path, mooncake(0, 1, [0]), *["x"] * 20))

    for _ in range(2):
        list(trace)
        assert trace.skipped.count == 20
        assert [message.split(":")[0] for message in trace.skipped.messages] == [f"line {n}" for n in range(2, 7)]


# Writing


class Made:
    name, block_tokens = "made", 64

    def __init__(self, requests):
        self.requests = requests

    def __iter__(self):
        return iter(self.requests)


@st.composite
def requests(draw):
    """Prompts over a tree of blocks, ids in order of first appearance, some with a last block that is not whole."""
    numbers, found, now_ms = {}, [], 0
    for _ in range(draw(st.integers(1, 12))):
        now_ms += draw(st.integers(0, 5000))
        path = draw(st.lists(st.integers(0, 2), max_size=5))
        blocks = [numbers.setdefault(tuple(path[: end + 1]), len(numbers)) for end in range(len(path))]
        tokens = 64 * len(path) + draw(st.integers(-63 if path else 0, 63))
        conversation = draw(st.none() | st.integers(0, 9))
        found.append(Request(now_ms / 1000, blocks, tokens, draw(st.integers(0, 99)), conversation))
    return found


@given(requests())
def test_what_is_written_is_read_again(tmp_path_factory, made):
    path = tmp_path_factory.mktemp("trace") / "made.jsonl"
    with path.open("w") as file:
        assert form.write(Made(made), file) == len(made)

    again = open_trace(path, strict=True)

    assert list(again) == made
    assert again.block_tokens == 64


def test_a_file_in_the_published_block_size_has_the_published_fields_alone():
    file = io.StringIO()
    trace = Made([Request(1.5, [0], 10, 2)])
    trace.block_tokens = 512

    form.write(trace, file)

    assert file.getvalue() == '{"timestamp": 1500, "input_length": 10, "output_length": 2, "hash_ids": [0]}\n'


# The published traces


@pytest.mark.parametrize(
    ("name", "count", "tokens", "blocks", "references"),
    [
        ("mooncake_conversation_trace.jsonl.gz", 12_031, 144_793_823, 182_790, 288_500),
        ("mooncake_synthetic_trace.jsonl.gz", 3_993, 61_194_628, 43_924, 121_877),
    ],
)
def test_a_published_trace_has_what_its_description_says(name, count, tokens, blocks, references):
    trace = open_trace(published(name), strict=True)
    found = list(trace)

    assert (trace.format, trace.block_tokens, len(found)) == ("mooncake", 512, count)
    assert sum(request.input_tokens for request in found) == tokens
    assert len({block for request in found for block in request.blocks}) == blocks
    assert sum(len(request.blocks) for request in found) == references


def test_a_published_trace_is_written_as_it_was_read(tmp_path):
    trace = open_trace(published("mooncake_synthetic_trace.jsonl.gz"), strict=True)
    with (tmp_path / "again.jsonl").open("w") as file:
        form.write(trace, file)

    assert list(open_trace(tmp_path / "again.jsonl", strict=True)) == list(trace)
