"""``kvtier sweep``: the table, the JSON, the page that needs nothing else, and what it refuses."""

import json
import re
from html.parser import HTMLParser

import pytest
from sim.traces import file_of, mooncake

from kvtier import cli
from kvtier.commands import html, plots
from kvtier.policy.registry import POLICIES

CHAT = "synthetic:chat?requests=60"
MACHINE = ["--model", "llama-3.1-8b"]
GRID = ["--grid", "device=20,40", "--grid", "disk=0,300"]


def status(*words):
    """The exit status, however the command ends."""
    try:
        return cli.main(["sweep", *map(str, words), "--jobs", "1"])
    except SystemExit as stopped:
        return stopped.code


def without_time(rows):
    return [{name: row[name] for name in row if name not in {"seconds", "references_per_s"}} for row in rows]


class Loads(HTMLParser):
    """What a page would load, and the tags it has."""

    def __init__(self, text):
        super().__init__()
        self.found, self.tags = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.found += [value for name, value in attrs if name in {"src", "href", "xlink:href", "data", "action"}]


def test_the_json_says_what_was_found(capsys):
    assert status(CHAT, "--policies", "lru,belady", "--capacities", "100,20", "--json", "-") == 0

    said = capsys.readouterr()
    found = json.loads(said.out)
    assert [(row["policy"], row["capacity_blocks"]) for row in found["rows"]] == [
        ("lru", 20),
        ("lru", 100),
        ("belady", 20),
        ("belady", 100),
    ]
    names = ("block_hit_rate", "prefix_hit_rate", "token_hit_rate", "share_of_optimum", "seconds", "references_per_s")
    assert all(set(names) <= set(row) for row in found["rows"])
    assert found["stats"]["requests"] == 60
    assert found["command"].startswith(f"kvtier sweep '{CHAT}' --policies lru,belady")
    assert {"kvtier", "python"} <= set(found["versions"])
    assert "grid" not in found
    assert "of optimum" in said.err


def test_by_default_all_policies_at_eight_capacities(tmp_path):
    assert status("synthetic:rag?requests=30", "--json", tmp_path / "out.json") == 0

    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert list(dict.fromkeys(row["policy"] for row in rows)) == list(POLICIES)
    assert len({row["capacity_blocks"] for row in rows}) == 8


def test_limits_reach_the_replays_and_the_json(tmp_path):
    out = tmp_path / "out.json"
    words = [CHAT, "--policies", "lru", "--capacities", "5000", "--json", out]

    def hits(*more):
        assert status(*words, *more) == 0
        return json.loads(out.read_text())["rows"][0]["prefix_hits"]

    everything = hits()
    assert hits("--ttl", "30s") < everything
    assert hits("--ttl", "30s", "--no-refresh") < hits("--ttl", "30s")
    assert hits("--admission", "second_touch") < everything
    found = json.loads(out.read_text())
    assert (found["admission"], found["ttl_s"], found["refresh"]) == ("second_touch", None, True)


def test_capacities_may_be_bytes_of_a_model(tmp_path):
    out = tmp_path / "out.json"

    assert status(CHAT, "--policies", "lru", "--capacities", "1GiB", *MACHINE, "--json", out) == 0

    block_bytes = 64 * 128 * 1024  # tokens in a block, bytes of a token of that model
    assert json.loads(out.read_text())["rows"][0]["capacity_blocks"] == 2**30 // block_bytes


def test_sizes_of_tiers_come_with_a_front(tmp_path, capsys):
    out = tmp_path / "out.json"
    more = ["--write", "on_insertion", "--grid-policy", "sieve"]

    assert status(CHAT, "--policies", "lru", "--capacities", "20", *GRID, *MACHINE, *more, "--json", out) == 0

    found = json.loads(out.read_text())["grid"]
    assert (found["policy"], found["write"], len(found["rows"])) == ("sieve", "on_insertion", 5)
    assert found["rows"][-1]["sizes"] == {}
    bottom = found["rows"][1]["tiers"][-1]
    assert bottom["name"] == "disk"
    everything = json.loads(out.read_text())
    assert bottom["written_blocks"] >= everything["stats"]["unique_blocks"]  # those that never left the device too
    alone = ["--policies", "lru", "--capacities", "20", "--json", out]
    assert status(CHAT, *alone, *MACHINE) == 0
    assert without_time(everything["rows"]) == without_time(json.loads(out.read_text())["rows"])
    said = capsys.readouterr().out
    assert said.count("* ") >= sum(row["pareto"] for row in found["rows"])
    assert "device=40 disk=300" in said
    assert "no cache" in said


def test_the_page_loads_nothing_and_says_everything(tmp_path):
    pytest.importorskip("matplotlib")
    page = tmp_path / "report.html"

    assert status(CHAT, "--policies", "lru,belady", "--capacities", "20,90", *GRID, *MACHINE, "--html", page) == 0

    text = page.read_text()
    assert "http:" not in text
    assert "https:" not in text
    assert not re.search(r"url\((?!#)|@import", text)
    loads = Loads(text)
    assert all(place.startswith("#") for place in loads.found)
    assert loads.tags.count("svg") == 3
    assert loads.tags.count("table") == 2
    assert loads.tags.count("script") == 1
    for words in ("kvtier sweep ", "block hit", "prefix hit", "token hit", "Pareto front", "no cache", "python"):
        assert words in text
    assert 'name="viewport"' in text
    assert "prefers-color-scheme: dark" in text


def test_a_trace_of_any_name_stays_text(tmp_path):
    pytest.importorskip("matplotlib")
    name = "<img src=x onerror=alert(1)>&amp;$x^2$'\".jsonl"
    trace = file_of(tmp_path, *(mooncake(n, 1024, [0, n + 1]) for n in range(9)), name=name)
    page = tmp_path / "report.html"

    assert status(trace, "--policies", "lru", "--capacities", "3", "--html", page, "--plot", tmp_path / "plot.svg") == 0

    text = page.read_text()
    assert "img" not in Loads(text).tags
    assert "&lt;img src=x onerror=alert(1)&gt;&amp;amp;$x^2$" in text


def test_a_picture_is_drawn_where_it_is_asked_for(tmp_path):
    pytest.importorskip("matplotlib")
    words = [CHAT, "--policies", "lru,ttl,belady", "--capacities", "20,90"]

    assert status(*words, "--plot", tmp_path / "one.svg") == 0
    assert status(*words, *GRID, *MACHINE, "--plot", tmp_path / "two.svg") == 0

    assert (tmp_path / "one.svg").read_text().count('id="axes_') == 1
    assert (tmp_path / "two.svg").read_text().count('id="axes_') == 2


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["none.jsonl"], "none.jsonl: cannot be read"),
        ([CHAT, "--policies", "lru,mru"], "unknown policy 'mru'; known are fifo, lru"),
        ([CHAT, "--policies", ""], "unknown policy ''"),
        ([CHAT, "--capacities", "100,0"], "at least 1 block, got 0"),
        ([CHAT, "--capacities", "many"], "'many' is not a capacity"),
        ([CHAT, "--capacities", "1GiB"], "needs --model or --profile"),
        ([CHAT, "--ttl", "soon"], "'soon'"),
        ([CHAT, "--policies", "lru", "--admission", "none"], "blocks: unknown admission 'none'; known are all"),
        ([CHAT, "--jobs", "0"], "not a whole number of at least 1"),
        ([CHAT, "--grid", "device=10"], "name the machine with --model or --profile"),
        ([CHAT, *MACHINE, "--grid", "device"], "write NAME=N,N,..."),
        ([CHAT, *MACHINE, "--grid", "device=1", "--grid", "device=2"], "once for each of device, host"),
        ([CHAT, *MACHINE, "--grid", "tape=1"], "unknown tier 'tape'"),
        ([CHAT, *MACHINE, "--grid", "device=1", "--grid", "remote=1"], "kvtier: profile 'llama"),
        ([CHAT, *MACHINE, "--grid", "device=0,5"], "where prompts are computed"),
        ([CHAT, *MACHINE, "--grid", "device=5", "--grid-policy", "mru"], "unknown policy 'mru'"),
        ([CHAT, "--html", "no/such/report.html"], "is not a file in a directory that exists"),
    ],
)
def test_bad_input_is_status_2_and_no_output(words, complaint, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outputs = [] if "--html" in words else ["--html", "out.html"]

    assert status(*words, "--json", "out.json", "--plot", "out.png", *outputs) == 2

    said = capsys.readouterr()
    assert complaint in said.err
    assert said.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_trace_that_breaks_in_the_middle_leaves_no_output(tmp_path, capsys):
    trace = file_of(tmp_path, mooncake(5000, 512, [0]), mooncake(0, 512, [0]))

    assert status(trace, "--json", tmp_path / "out.json", "--html", tmp_path / "out.html") == 2

    assert "trace.jsonl" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["trace.jsonl"]


@pytest.mark.parametrize("option", ["--html", "--plot"])
def test_without_the_library_nothing_is_begun(option, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(plots, "find_spec", lambda name: None)

    assert status("none.jsonl", option, tmp_path / "out.svg") == 2

    assert f"{option} needs matplotlib" in capsys.readouterr().err


# The page's parts


def test_text_is_escaped_where_it_enters_and_once():
    parts = [
        html.paragraph("<a>"),
        html.code("<b>"),
        html.facts({"<c>": "<d>"}),
        html.section("<e>", [html.paragraph("&")]),
        html.figures([(html.Markup("<svg></svg>"), "<f>")]),
        html.table(["<g>"], [["<h>"], [html.Cell("<i>", 1.5)]]),
    ]

    text = html.page("<title>", parts)

    assert all(f"&lt;{letter}&gt;" in text for letter in "abcdefghi")
    assert "&amp;lt;" not in text
    assert html.paragraph(html.Markup("<b>bold</b>")) == "<p><b>bold</b></p>"
    assert not {"a", "b", "c", "d", "e", "f", "g", "i"} & set(Loads(text).tags)
    assert '<td class="number" data-value="1.5">' in text
    assert "<title>&lt;title&gt;</title>" in text


def test_a_page_appears_whole(tmp_path):
    html.write_page(tmp_path / "page.html", "text")

    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("page.html", "text")]


def test_a_picture_in_a_page_takes_the_colour_of_its_text_and_keeps_its_ids_apart():
    pytest.importorskip("matplotlib")

    def line(panels):
        panels[0].plot([1, 2], [1, 2], color=plots.INK, marker="o")

    one, two = (plots.inline_svg(name, line) for name in ("one", "two"))

    assert plots.INK not in one
    assert "currentColor" in one
    assert one.startswith("<svg viewBox=")
    assert "<metadata" not in one
    references = [set(re.findall(r'xlink:href="#(\w+)"|url\(#(\w+)\)', text)) for text in (one, two)]
    assert references[0]
    assert not references[0] & references[1]
