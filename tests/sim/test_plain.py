"""Prompts as they are: named by the store's own chain, texts by their bytes, tables and JSON alike."""

import csv
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sim.traces import file_of

from kvtier.errors import TraceError
from kvtier.hashing import Namespace, chain_hashes
from kvtier.sim.reading import open_trace
from kvtier.spec import KVSpec

prompts = st.lists(st.integers(0, 2), max_size=12)


def read(directory, *lines, **options):
    return list(open_trace(file_of(directory, *lines), **{"strict": True, "block_tokens": 2, **options}))


def blocks(directory, *lines, **options):
    return [request.blocks for request in read(directory, *lines, **options)]


def test_whole_blocks_are_named_and_the_rest_is_counted(tmp_path):
    found = read(tmp_path, {"tokens": [5, 6, 7, 8, 9]}, {"tokens": [5, 6, 7]})

    assert [(request.blocks, request.input_tokens) for request in found] == [([0, 1], 5), ([0], 3)]


def test_equal_tokens_after_others_are_another_block(tmp_path):
    assert blocks(tmp_path, {"tokens": [1, 2, 3, 4]}, {"tokens": [3, 4, 1, 2]}) == [[0, 1], [2, 3]]


@given(st.lists(prompts, min_size=1, max_size=8))
def test_blocks_are_shared_as_in_the_store(tmp_path_factory, made):
    spec = KVSpec(layers=1, kv_heads=1, head_dim=8, dtype="float32", block_tokens=3)
    namespace = Namespace(spec=spec, weights="w")
    names = {}
    expected = [[names.setdefault(key, len(names)) for key in chain_hashes(namespace, prompt)] for prompt in made]

    found = blocks(tmp_path_factory.mktemp("trace"), *({"tokens": each} for each in made), block_tokens=3)

    assert found == expected


@settings(max_examples=50)
@given(st.lists(st.text(max_size=20), min_size=1, max_size=6))
def test_texts_share_blocks_as_far_as_their_bytes_are_equal(tmp_path_factory, texts):
    directory = tmp_path_factory.mktemp("trace")
    found = read(directory, *({"text": each} for each in texts), block_tokens=2, bytes_per_token=1.5)

    data = [each.encode() for each in texts]
    for mine, request in zip(data, found, strict=True):
        assert request.input_tokens == -(-2 * len(mine) // 3)
        assert len(request.blocks) == len(mine) // 3
        for other, its in zip(data, found, strict=True):
            equal = next((at for at in range(min(len(mine), len(other))) if mine[at] != other[at]), None)
            shared = (min(len(mine), len(other)) if equal is None else equal) // 3
            assert sum(a == b for a, b in zip(request.blocks, its.blocks, strict=False)) == shared


def test_ids_and_texts_never_share_a_block(tmp_path):
    ids = {"tokens": [0x61616161, 0x61616161]}

    assert blocks(tmp_path, ids, {"text": "a" * 8}, bytes_per_token=4) == [[0], [1]]


def test_times_count_from_the_first(tmp_path):
    found = read(tmp_path, {"tokens": [], "time": 1.7e9}, {"tokens": [], "time": 1.7e9 + 2.5})

    assert [request.time_s for request in found] == [0, 2.5]


def test_without_times_requests_come_a_second_apart(tmp_path):
    assert [request.time_s for request in read(tmp_path, *[{"text": ""}] * 3)] == [0, 1, 2]


def test_output_and_conversation_are_taken_over(tmp_path):
    assert read(tmp_path, {"tokens": [1], "output": 7, "conversation": 3})[0][3:] == (7, 3)


@given(
    st.lists(
        st.tuples(prompts, st.text(max_size=8), st.booleans(), st.integers(0, 9), st.integers(0, 9)),
        min_size=1,
        max_size=6,
    )
)
def test_a_table_is_read_like_the_same_in_json(tmp_path_factory, rows):
    directory = tmp_path_factory.mktemp("trace")
    now, records = 0, []
    for tokens, text, textual, wait, output in rows:
        now += wait
        content = {"text": text} if textual and text.strip() else {"tokens": tokens or [1]}
        records.append({**content, "time": now, "output": output})
    with (directory / "trace.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["text", "tokens", "time", "output"])
        writer.writeheader()
        writer.writerows(
            {**each, **({"tokens": " ".join(map(str, each["tokens"]))} if "tokens" in each else {})} for each in records
        )

    table = open_trace(directory / "trace.csv", block_tokens=2, strict=True, bytes_per_token=1)

    assert table.format == "csv"
    assert list(table) == read(directory, *records, bytes_per_token=1)


@pytest.mark.parametrize("cell", ["1 2 3", '"1,2,3"', '"[1, 2, 3]"', " 1  2 3 "])
def test_ids_in_a_table_stand_between_spaces_or_commas(tmp_path, cell):
    assert read(tmp_path, "time,tokens", f"0,{cell}")[0].input_tokens == 3


def test_a_long_cell_is_read(tmp_path):
    assert read(tmp_path, "text", '"' + "a" * 400_000 + '"', block_tokens=16)[0].input_tokens == 100_000


BAD_JSON = {
    "both": {"tokens": [1], "text": "a"},
    "neither": {"time": 0},
    "a negative id": {"tokens": [-1]},
    "a huge id": {"tokens": [2**32]},
    "a huge number": {"tokens": [10**300]},
    "a list of lists": {"tokens": [[1]]},
    "halves": {"tokens": [0.5]},
    "words": {"tokens": ["one"]},
    "one word": {"tokens": "one"},
    "half a character": '{"text": "\\ud800"}',
    "a text of numbers": {"text": [1]},
    "a negative time": {"tokens": [], "time": -1},
    "no number": '{"tokens": [], "time": NaN}',
    "a negative output": {"tokens": [], "output": -1},
    "a negative session": {"tokens": [], "conversation": -1},
    "no time beside others": {"tokens": []},
}


@pytest.mark.parametrize("bad", BAD_JSON.values(), ids=BAD_JSON)
def test_a_malformed_record_is_counted(tmp_path, bad):
    if isinstance(bad, dict) and "time" not in bad and bad != BAD_JSON["no time beside others"]:
        bad = {**bad, "time": 0}
    trace = open_trace(file_of(tmp_path, {"tokens": [1, 2], "time": 0}, bad, {"tokens": [3, 4], "time": 0}))

    assert len(list(trace)) == 2
    assert [message.split(":")[0] for message in trace.skipped.messages] == ["line 2"]


BAD_ROWS = ["1 2", "1 2,0,0", "x,0", "1 2,noon", "-1,0", "1.5,0", "1,nan", "1,inf", "1,-5", '"1 2"x,0', "1,"]


@pytest.mark.parametrize("bad", BAD_ROWS)
def test_a_malformed_row_is_counted(tmp_path, bad):
    trace = open_trace(file_of(tmp_path, "tokens,time", "1 2,0", bad, "3 4,0"))

    assert len(list(trace)) == 2
    assert [message.split(":")[0] for message in trace.skipped.messages] == ["line 3"]


def test_a_cell_that_does_not_end_is_malformed(tmp_path):
    trace = open_trace(file_of(tmp_path, "tokens,time", "1 2,0", '"3 4,0', "5 6,0"))

    assert len(list(trace)) == 1
    assert trace.skipped.count == 1


def test_a_text_in_a_table_that_is_not_utf_8_is_malformed(tmp_path):
    path = file_of(tmp_path, "text", "good")
    path.write_bytes(path.read_bytes() + b"b\xffd\n")
    trace = open_trace(path)

    assert len(list(trace)) == 1
    assert trace.skipped.messages == ["line 3: 'text' is not UTF-8"]


@pytest.mark.parametrize("head", ["tokens,colour", "tokens,time,time", "tokens,"])
def test_a_column_that_is_not_known_is_refused(tmp_path, head):
    with pytest.raises(TraceError, match="is not known or there twice"):
        read(tmp_path, head, "1,2")


def test_a_prompt_of_more_blocks_than_any_may_have_is_malformed(tmp_path):
    trace = open_trace(
        file_of(tmp_path, {"text": "short"}, {"text": "a" * (2**22 + 1)}), block_tokens=1, bytes_per_token=1
    )

    assert len(list(trace)) == 1
    assert trace.skipped.messages == ["line 2: more than 4194304 blocks"]


@pytest.mark.parametrize("lines", [("tokens,time", "1,5", "1,4"), ("tokens,time", "1,5", "1,6", "1,5.5")])
def test_time_that_runs_backwards_is_refused(tmp_path, lines):
    with pytest.raises(TraceError, match=f"line {len(lines)}: time runs backwards by"):
        read(tmp_path, *lines)


def test_a_text_may_hold_anything_that_json_can_say(tmp_path):
    text = 'quotes " and \n lines, and \u2028 more'

    assert read(tmp_path, json.dumps({"text": text}))[0].input_tokens == -(-len(text.encode()) // 4)
