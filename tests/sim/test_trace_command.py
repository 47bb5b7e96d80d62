"""``kvtier trace``: figures on standard output or as JSON, made-up traces as files, and no half of either."""

import gzip
import json

import pytest
from sim.traces import file_of, mooncake, session, turn

from kvtier import cli
from kvtier.commands import plots
from kvtier.commands.files import made_whole
from kvtier.errors import ConfigError
from kvtier.sim.naming import trace_from
from kvtier.sim.stats import stats_of


def status(*words):
    """The exit status, however the command ends."""
    try:
        return cli.main(["trace", *map(str, words)])
    except SystemExit as stopped:
        return stopped.code


def test_stats_say_what_there_is(tmp_path, capsys):
    path = file_of(tmp_path, mooncake(0, 1300, [0, 1, 2]), mooncake(2000, 1024, [0, 1]))

    assert status("stats", path) == 0

    said = capsys.readouterr().out
    assert "2 in 2 s, 1.00 a second" in said
    assert "5 in blocks of 512 tokens" in said
    assert "40.00% of blocks, 44.06% of tokens" in said
    assert "3; 33.3% of them used once" in said


def test_json_is_what_the_library_says(capsys):
    assert status("stats", "synthetic:chat?requests=100", "--json", "-") == 0

    said = capsys.readouterr()
    assert json.loads(said.out) == {**stats_of(trace_from("synthetic:chat?requests=100")).as_dict(), "skipped_lines": 0}
    assert "requests" in said.err


def test_malformed_lines_are_named_and_counted(tmp_path, capsys):
    path = file_of(tmp_path, mooncake(0, 1, [0]), *["bad"] * 7)

    assert status("stats", path, "--json", tmp_path / "out.json", "--limit", 5) == 0

    said = capsys.readouterr().err.splitlines()
    assert said[0].endswith("trace.jsonl: 7 malformed lines passed over")
    assert [line.split(":")[0] for line in said[1:]] == [*(f"  line {n}" for n in range(2, 7)), "  ..."]
    assert json.loads((tmp_path / "out.json").read_text())["skipped_lines"] == 7


def test_options_reach_the_reader(tmp_path, capsys):
    lines = [session(turn(0, 0, (1, 2), block_size=32), system=32, block_size=32)] * 3
    options = ["--format", "agentic", "--block-tokens", 32, "--session-interval", 7, "--shared-prefix", "--limit", 2]

    assert status("stats", file_of(tmp_path, *lines), "--strict", *options, "--json", "-") == 0

    found = json.loads(capsys.readouterr().out)
    assert (found["requests"], found["duration_s"], found["unique_blocks"], found["block_tokens"]) == (2, 7, 3, 32)


def test_bytes_per_token_reaches_the_reader(tmp_path, capsys):
    assert status("stats", file_of(tmp_path, {"text": "a" * 90}), "--bytes-per-token", 3, "--json", "-") == 0

    assert json.loads(capsys.readouterr().out)["input_tokens"] == 30


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["none.jsonl"], "none.jsonl: cannot be read: No such file"),
        (["synthetic:poker"], "there are chat, shared_prompts, rag, agents, long_documents"),
        (["FILE", "--strict"], "line 2: not JSON"),
        (["FILE", "--format", "xml"], "invalid choice: 'xml'"),
        (["FILE", "--block-tokens", "0"], "not a whole number of at least 1"),
        (["FILE", "--session-interval", "-1"], "not a number of seconds"),
        (["FILE", "--session-interval", "soon"], "not a number of seconds"),
        (["FILE", "--bytes-per-token", "0"], "bytes_per_token must be"),
        (["FILE", "--limit", "0"], "not a whole number of at least 1"),
        (["FILE", "--plot", "missing/plot.png"], "is not a file in a directory that exists"),
        (["FILE", "--plot", "plot.doc"], "must end in .png or .svg or .pdf"),
    ],
)
def test_bad_input_is_status_2_and_leaves_nothing(tmp_path, monkeypatch, capsys, words, complaint):
    monkeypatch.chdir(tmp_path)
    file_of(tmp_path, mooncake(0, 1, [0]), "bad", name="FILE")

    assert status("stats", *words, "--json", "out.json") == 2

    said = capsys.readouterr()
    assert complaint in said.err
    assert (said.out, [path.name for path in tmp_path.iterdir()]) == ("", ["FILE"])


def test_a_truncated_trace_is_status_2_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = file_of(tmp_path, *(mooncake(n, 512, [n * 7919]) for n in range(500)), packed=True)
    path.write_bytes(path.read_bytes()[:-9])

    assert status("stats", path, "--json", "out.json", "--plot", "out.png") == 2

    assert "the gzip file is truncated" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [path]


# Plots


def test_a_plot_is_drawn(tmp_path, capsys):
    pytest.importorskip("matplotlib")

    assert status("stats", "synthetic:chat?requests=100", "--plot", tmp_path / "out.png") == 0

    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]


def test_a_trace_that_uses_nothing_again_can_be_drawn(tmp_path):
    pytest.importorskip("matplotlib")

    assert status("stats", file_of(tmp_path, mooncake(0, 0, [])), "--plot", tmp_path / "out.svg") == 0

    assert b"<svg" in (tmp_path / "out.svg").read_bytes()


def test_without_the_library_a_plot_is_refused_before_the_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(plots, "find_spec", lambda name: None)

    assert status("stats", tmp_path / "none", "--plot", tmp_path / "out.png") == 2

    assert capsys.readouterr().err == "kvtier: --plot needs matplotlib: pip install 'kvtier[plot]'\n"


# Making traces up


@pytest.mark.parametrize("name", ["made.jsonl", "made.jsonl.gz"])
def test_a_made_up_trace_is_a_file_that_reads_as_the_same(tmp_path, capsys, name):
    assert status("generate", "rag", "requests=50", "seed=7", "--out", tmp_path / name, "--json", "-") == 0

    assert json.loads(capsys.readouterr().out) == {"file": str(tmp_path / name), "requests": 50, "block_tokens": 64}
    assert list(trace_from(str(tmp_path / name), strict=True)) == list(trace_from("synthetic:rag?requests=50&seed=7"))
    assert (tmp_path / name).read_bytes().startswith(b"\x1f\x8b") == name.endswith(".gz")


def test_the_same_trace_is_the_same_file(tmp_path):
    for name in ("one.gz", "two.gz"):
        assert status("generate", "chat", "requests=20", "--out", tmp_path / name) == 0

    assert (tmp_path / "one.gz").read_bytes() == (tmp_path / "two.gz").read_bytes()
    assert gzip.decompress((tmp_path / "one.gz").read_bytes()).count(b"\n") == 20


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["poker"], "no synthetic workload is called 'poker'"),
        (["chat", "speed=2"], "has no 'speed'"),
        (["chat", "turns"], "turns must be a number"),
    ],
)
def test_what_cannot_be_made_up_is_status_2_and_leaves_what_was_there(tmp_path, capsys, words, complaint):
    (tmp_path / "out").write_text("old")

    assert status("generate", *words, "--out", tmp_path / "out") == 2

    assert complaint in capsys.readouterr().err
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("out", "old")]


@pytest.mark.parametrize("place", ["missing/out", ".", ""])
def test_a_place_that_cannot_be_written_to_is_status_2(tmp_path, monkeypatch, capsys, place):
    monkeypatch.chdir(tmp_path)

    assert status("generate", "chat", "--out", place) == 2
    assert "is not a file in a directory that exists" in capsys.readouterr().err


def broken_off(path, error):
    """Begin to write a file, and meet an error."""
    with made_whole(path) as place:
        place.write_text("half")
        raise error


def test_a_disk_that_refuses_is_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(ConfigError, match="out: cannot be written: No space"):
        broken_off(tmp_path / "out", OSError(28, "No space left on device"))

    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_leaves_what_was_there(tmp_path):
    (tmp_path / "out").write_text("old")

    with pytest.raises(KeyboardInterrupt):
        broken_off(tmp_path / "out", KeyboardInterrupt())

    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("out", "old")]


def test_help_tells_the_workloads_and_their_parameters(capsys):
    assert status("generate", "--help") == 0

    said = capsys.readouterr().out
    assert "rag: documents that a search has found" in said
    assert "retrieved=3" in said
