"""Trace files of any format: found out by what is in them, read as often as one likes, and refused with a reason."""

import gzip
import os

import pytest
from sim.traces import file_of, mooncake, session, turn

from kvtier.errors import ConfigError, TraceError
from kvtier.sim import lines as module
from kvtier.sim.naming import trace_from
from kvtier.sim.reading import FORMATS, open_trace

RECORDS = {
    "mooncake": [mooncake(0, 512, [0]), mooncake(3, 512, [0])],
    "agentic": [session(turn(0, 0, (1, 2)))],
    "jsonl": [{"tokens": list(range(40))}, {"text": "a" * 100}],
    "csv": ["tokens,time", "1 2 3,0"],
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", RECORDS)
def test_the_first_record_says_the_format_and_the_first_bytes_whether_it_is_packed(tmp_path, name, packed):
    trace = open_trace(file_of(tmp_path, *RECORDS[name], name="trace", packed=packed), strict=True)

    assert trace.format == name
    assert list(trace) == list(trace) != []


def test_every_format_is_among_those():
    assert set(FORMATS) == set(RECORDS)


def test_a_name_is_the_file_s_without_its_endings(tmp_path):
    assert open_trace(file_of(tmp_path, *RECORDS["csv"], name="a.b.csv.gz")).name == "a.b"


def test_malformed_lines_before_the_first_record_are_counted(tmp_path):
    trace = open_trace(file_of(tmp_path, "# made by hand", "", mooncake(0, 512, [0])))

    assert (len(list(trace)), trace.skipped.count) == (1, 1)


def test_a_byte_order_mark_is_passed_over(tmp_path):
    path = file_of(tmp_path, *RECORDS["csv"])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())

    assert len(list(open_trace(path, strict=True))) == 1


def test_two_going_through_at_once_do_not_meet(tmp_path):
    trace = open_trace(file_of(tmp_path, *(mooncake(n, 512, [n]) for n in range(5)), "bad"))

    pairs = list(zip(trace, trace, strict=True))

    assert all(first == second for first, second in pairs)
    assert trace.skipped.count == 1


def test_a_limit_is_the_first_requests(tmp_path):
    path = file_of(tmp_path, *(mooncake(n, 512, [n]) for n in range(5)))

    assert [r.blocks for r in trace_from(str(path), limit=2)] == [[0], [1]]
    assert trace_from(str(path), limit=2).block_tokens == 512


def test_blocks_may_have_another_size_than_the_format_s(tmp_path):
    trace = open_trace(file_of(tmp_path, mooncake(0, 100, [0, 1])), block_tokens=64)

    assert (trace.block_tokens, len(list(trace))) == (64, 1)


# What is refused


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(TraceError, match=r"none: cannot be read: No such file"):
        open_trace(tmp_path / "none")


def test_a_directory_is_refused(tmp_path):
    with pytest.raises(TraceError, match="is not a regular file"):
        open_trace(tmp_path)


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(TraceError, match="is not a regular file, and a trace is read more than once"):
        open_trace(tmp_path / "pipe")


def test_a_name_that_no_file_can_have_is_refused():
    with pytest.raises(TraceError, match="cannot be the name of a file"):
        open_trace("a\0b")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("text", [[], ["", "  "]])
def test_an_empty_file_is_refused(tmp_path, text, packed):
    with pytest.raises(TraceError, match="the trace is empty"):
        open_trace(file_of(tmp_path, *text, packed=packed))


def test_a_file_of_malformed_records_alone_is_refused_when_it_was_read(tmp_path):
    trace = open_trace(file_of(tmp_path, mooncake(-1, 512, [0]), "x"))

    with pytest.raises(TraceError, match="no request in it, 2 lines are malformed; line 1: 'timestamp'"):
        list(trace)


def test_a_file_of_no_known_format_names_those_there_are(tmp_path):
    with pytest.raises(TraceError, match=r"no record of a known format in its first 2 lines .*mooncake: .*csv: "):
        open_trace(file_of(tmp_path, {"prompt": "hello"}, "1,2,3"))


def test_a_file_of_another_format_than_said_is_refused(tmp_path):
    with pytest.raises(TraceError, match=r"\(agentic: block_size"):
        open_trace(file_of(tmp_path, *RECORDS["mooncake"]), format="agentic")


def test_an_unknown_format_names_those_there_are(tmp_path):
    with pytest.raises(ConfigError, match="no trace format is called 'xml'; there are mooncake, agentic, jsonl, csv"):
        open_trace(tmp_path / "none", format="xml")


@pytest.mark.parametrize("options", [{"block_tokens": 0}, {"bytes_per_token": 0}, {"bytes_per_token": float("nan")}])
def test_a_setting_that_cannot_be_is_refused(tmp_path, options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        open_trace(file_of(tmp_path, *RECORDS["jsonl"]), **options)


@pytest.fixture
def packed(tmp_path):
    """A file of 2000 requests, packed; random lengths keep it from being packed to nothing."""
    lines = (mooncake(n, 512, [(n * 7919) % 2**40]) for n in range(2000))
    return file_of(tmp_path, *lines, packed=True)


def test_a_truncated_file_is_refused_after_what_is_whole(packed):
    packed.write_bytes(packed.read_bytes()[:-100])
    found = []

    with pytest.raises(TraceError, match=r"the gzip file is truncated: it ends after line \d+; copy it again"):
        found.extend(open_trace(packed))

    assert open_trace(packed).skipped.count == 0


def test_a_file_cut_within_its_head_is_refused(tmp_path):
    (tmp_path / "cut").write_bytes(gzip.compress(b"x")[:5])

    with pytest.raises(TraceError, match="the gzip file is truncated"):
        open_trace(tmp_path / "cut")


@pytest.mark.parametrize("at", [0.5, 0.9])
def test_a_damaged_file_is_refused(packed, at):
    data = bytearray(packed.read_bytes())
    place = int(at * len(data))
    data[place : place + 40] = bytes(40)
    packed.write_bytes(data)

    with pytest.raises(TraceError, match=r"the gzip file is damaged|time runs backwards"):
        list(open_trace(packed))


def test_a_checksum_that_does_not_fit_is_damage(packed):
    data = bytearray(packed.read_bytes())
    data[-6] ^= 1
    packed.write_bytes(data)

    with pytest.raises(TraceError, match="the gzip file is damaged after line 2000"):
        list(open_trace(packed))


def test_a_line_longer_than_any_record_is_refused_and_not_held(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_LINE_BYTES", 1 << 20)
    path = tmp_path / "bomb"
    with gzip.open(path, "wb") as file:
        file.write(b'{"hash_ids": [0]}\n')
        file.write(bytes(5 << 20))

    with pytest.raises(TraceError, match="line 2 is longer than 1 MiB"):
        open_trace(path, format="csv")
