"""``kvtier report``: what its page says, where it comes from, and what is refused with exit status 2."""

import json
import re
import shlex
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from kvtier import cli
from kvtier.commands import plots
from kvtier.econ.ledger import make_ledger
from kvtier.econ.machine import machine_name, versions
from kvtier.econ.prices import load_prices
from kvtier.econ.profile import Profile

CHAT = "synthetic:chat?requests=30"
TIERS = ["--tier", "device=40", "--tier", "host=90", "--tier", "disk=4000"]
EVIL = "<img src=x onerror=alert(1)>&amp;$x^2$"


class Loads(HTMLParser):
    """What a page would load, the tags it has, and its texts by tag."""

    def __init__(self, text):
        super().__init__()
        self.found, self.tags, self.texts = [], [], {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.found += [value for name, value in attrs if name in {"src", "href", "xlink:href", "data", "action"}]

    def handle_data(self, data):
        if self.tags:
            self.texts.setdefault(self.tags[-1], []).append(data)


def status(*words):
    """The exit status, however the command ends."""
    try:
        return cli.main(["report", *map(str, words)])
    except SystemExit as stopped:
        return stopped.code


def measured(**changes):
    """A profile as if it had been measured here."""
    changes = {"machine": machine_name(), "versions": versions(), "source": "a test", "date": "2026-11-25"} | changes
    profile = Profile.named("h100", "qwen3-8b")
    disk = profile.tiers["disk"]
    raw = replace(disk.read_bytes_per_s, value=2 * disk.read_bytes_per_s.value, kind="measured")
    tiers = {**profile.tiers, "disk": replace(disk, raw_read_bytes_per_s=raw)}
    return replace(profile, **({"tiers": tiers} | changes))


def reload_result(**changes):
    """What the reload benchmark writes, as far as a report reads it."""
    about = {"model": EVIL, "cpu": "a processor", "date_utc": "2026-11-23T00:21:44+00:00", "kvtier": "0.1.0"}
    rows = [
        {"path": path, "prompt_tokens": tokens, "p50_ms": tokens / speed, "p99_ms": tokens}
        for tokens in (64, 512)
        for path, speed in (("recompute", 2), ("disk_cold", 8))
    ]
    found = {"benchmark": "reload_vs_prefill", "conditions": {**about, "device": "cpu", "kv_bytes_per_token": 147_456}}
    return {**found, "rows": rows, "break_even_tokens": {"disk_cold": 64, "host": None}, **changes}


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A report with every part: its page and its JSON."""
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("full")
    measured(name=EVIL, model=EVIL).save(folder / "profile.json")
    (folder / "reload.json").write_text(json.dumps(reload_result()))
    words = ["--profile", folder / "profile.json", "--reload", folder / "reload.json", "--trace", CHAT, *TIERS]
    assert status(*words, "--html", folder / "page.html", "--json", folder / "found.json") == 0
    return (folder / "page.html").read_text(), json.loads((folder / "found.json").read_text()), folder


def test_the_page_has_its_parts_and_begins_with_the_answer(full):
    text, found, _ = full

    headings = re.findall(r"<h2>(.*?)</h2>", text)
    assert headings == [
        "Compute or load",
        "The reload benchmark",
        "A replay",
        "What a hit costs beside a miss",
        "How long to keep it",
        "Where the cache loses",
        "List prices beside the cost",
        "What all this rests on",
        "Made with",
    ]
    body = text[text.index("<body>") :]
    assert body.index('<p class="lead">') < min(body.index(tag) for tag in ("<h2>", "<svg", "<table", "<strong>"))
    assert found["answer"]["words"] in "".join(Loads(text).texts["p"])


def test_the_numbers_are_those_of_the_ledger(full):
    _, found, folder = full
    ledger = make_ledger(Profile.load(folder / "profile.json"), prices=list(load_prices().values()))

    assert found["ledger"] == json.loads(json.dumps(ledger.as_dict()))
    row = next(row for row in ledger.rows if (row.tier, row.prompt_tokens, row.reuses) == ("disk", 65536, 10))
    answer = found["answer"]
    assert (answer["tier"], answer["prompt_tokens"], answer["reuses"]) == ("disk", 65536, 10)
    assert answer["share"] == row.share
    assert answer["saves_usd_per_mtok"] == row.miss_usd - row.hit_usd
    assert f"{row.share:.1%} of the price, {row.share_stalled:.1%}" in answer["words"]
    assert f"a hit saves {row.saves_usd:.4f} USD" in answer["words"]
    assert answer["losing_cases"] == sum(row.verdict != "saves" for row in ledger.rows) > 0
    assert f"in {answer['losing_cases']} of the {len(ledger.rows)} cases" in answer["words"]


def test_the_replay_is_that_of_simulate(full, tmp_path):
    text, found, folder = full
    words = ["simulate", CHAT, "--profile", folder / "profile.json", *TIERS, "--json", tmp_path / "replay.json"]
    assert cli.main([*map(str, words)]) == 0

    replay = json.loads((tmp_path / "replay.json").read_text())
    assert {name: found["replay"][name] for name in replay} == replay
    sources = found["replay"]["tokens_by_source"]
    assert sum(sources.values()) == replay["input_tokens"]
    assert sum(sources.values()) - sources["computed"] == replay["token_hits"] > 0
    assert f"{replay['token_hit_rate']:.1%} of prompt tokens are found" in text


def test_speeds_stand_beside_their_raw_limits(full):
    text, found, _ = full

    rows = {row["tier"]: row for row in found["calibration"]["tiers"]}
    assert rows["disk"]["read"]["of_raw"] == 0.5
    assert rows["host"]["read"]["of_raw"] is rows["disk"]["write"]["of_raw"] is None
    assert '<td class="number" data-value="0.5">0.50</td>' in text
    assert "The red mark is the bare medium" in text


def test_every_input_has_kind_date_and_source(full):
    text, found, _ = full

    rows = found["inputs"]
    assert {row["kind"] for row in rows} == {"measured", "given", "assumed"}
    assert all(row["date"] and row["source"] and row["value"] for row in rows)
    names = {row["name"]: row for row in rows}
    assert names["prefill time"]["kind"] == names["reload benchmark"]["kind"] == "measured"
    assert names["disk, size in the replay"]["kind"] == "given"
    assert set(found["ledger"]["inputs"]) <= set(names)
    assert text.count("<td>measured</td>") >= 2


def test_the_page_needs_nothing_else_and_nothing_becomes_part_of_it(full):
    text, _, _ = full

    loads = Loads(text)
    assert "http:" not in text
    assert "https:" not in text
    assert not re.search(r"url\((?!#)|@import", text)
    assert all(place.startswith("#") for place in loads.found)
    assert loads.tags.count("script") == 1
    assert loads.tags.count("svg") == 8
    assert "img" not in loads.tags
    assert "&lt;img src=x onerror=alert(1)&gt;&amp;amp;$x^2$" in text


def test_the_reload_benchmark_is_shown_as_it_was_measured(full):
    text, found, _ = full

    assert [row["p50_ms"] for row in found["reload"]["rows"]] == [32, 8, 256, 64]
    assert '<td class="number" data-value="256.0">256</td>' in text
    assert "<dt>host wins from</dt><dd>nowhere</dd>" in text
    assert "may be another than the profile" in text


def test_what_is_missing_is_named_and_what_was_not_measured_is_said(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    words = ["--model", "llama-3.1-8b", "--hardware", "h100", "--trace", CHAT, "--prompt-tokens", "2048"]
    assert status(*words, "--html", tmp_path / "page.html", "--json", "-") == 0

    text, said = (tmp_path / "page.html").read_text(), capsys.readouterr()
    found = json.loads(said.out)
    assert found["reload"] is None
    assert "The reload benchmark" not in text
    listed = text[text.index("Not in this report") : text.index("Compute or load")]
    for part in ("measurements of a machine", "raw limits of the tiers", "the reload benchmark"):
        assert f"<li>{part}" in listed
    assert "energy" not in listed
    assert "derived from data sheets and not measured" in found["answer"]["words"]
    assert found["answer"]["words"] in said.err
    assert {row["kind"] for row in found["inputs"]} == {"given", "assumed"}
    sizes = [row for row in found["inputs"] if row["name"].endswith("size in the replay")]
    assert [row["kind"] for row in sizes] == ["assumed"] * 3
    assert [tier["capacity_blocks"] * 64 * 131_072 >> 30 for tier in found["replay"]["tiers"]] == [16, 64, 1024]
    assert [tmp_path / "page.html"] == list(tmp_path.iterdir())


def test_a_trace_without_tokens_leaves_the_replay_out(tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "trace.jsonl").write_text('{"timestamp": 1, "input_length": 0, "output_length": 1, "hash_ids": []}')
    words = ["--model", "qwen3-8b", "--trace", tmp_path / "trace.jsonl", "--list-price", "xai", "--prompt-tokens", 99]
    assert status(*words, "--html", tmp_path / "page.html", "--json", tmp_path / "found.json") == 0

    text, found = (tmp_path / "page.html").read_text(), json.loads((tmp_path / "found.json").read_text())
    assert found["replay"] is None
    assert "<h2>A replay</h2>" not in text
    assert "<li>the replay: the trace has no prompt token</li>" in text


# Bad input


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty directory to work in, and a cache without profiles."""
    monkeypatch.setenv("KVTIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_a_profile_it_says_how_to_get_one(here, capsys):
    assert status("--html", "page.html") == 2

    assert "kvtier calibrate, or name a machine" in " ".join(capsys.readouterr().err.split())
    assert list(here.iterdir()) == []


def test_the_profile_in_the_cache_is_taken_if_there_is_one(here, capsys):
    (here / "cache" / "profiles").mkdir(parents=True)
    measured(machine="another machine").save(here / "cache" / "profiles" / "one.json")
    assert status("--html", "page.html") == 2
    assert "was measured on 'another machine'" in capsys.readouterr().err

    measured().save(here / "cache" / "profiles" / "two.json")
    assert status("--html", "page.html") == 2
    assert "say which with --profile" in " ".join(capsys.readouterr().err.split())
    assert not (here / "page.html").exists()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "required: --html"),
        (["--html", "none/page.html"], "is not a file in a directory that exists"),
        (["--html", "page.html", "--json", "./page.html"], "name two files"),
        (["--html", "page.html", "--json", "none/found.json"], "is not a file in a directory that exists"),
        (["--html", "page.html", "--model", "llama-3.1-9b"], "unknown model 'llama-3.1-9b'; did you mean"),
        (["--html", "page.html", "--profile", "none.json"], "none.json: not a readable profile"),
        (["--html", "page.html", "--model", "qwen3-8b", "--reload", "none.json"], "none.json: not a readable result"),
        (["--html", "page.html", "--model", "qwen3-8b", "--trace", "synthetic:cat"], "workload is called 'cat'"),
        (["--html", "page.html", "--model", "qwen3-8b", "--tier", "remote=5"], "unknown tier 'remote'"),
        (["--html", "page.html", "--model", "qwen3-8b", "--list-price", "antropic"], "did you mean anthropic"),
        (["--html", "page.html", "--model", "qwen3-8b", "--prompt-tokens", "0"], "at least 1"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_refused(here, words, complaint, capsys):
    pytest.importorskip("matplotlib")

    assert status(*words) == 2

    said = capsys.readouterr()
    assert complaint in " ".join(said.err.split())
    assert said.out == ""
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"benchmark": "tier_bandwidth"},
        {"rows": []},
        {"rows": [{"path": "host", "prompt_tokens": 64, "p50_ms": -1, "p99_ms": 1}]},
        {"rows": [{"path": "host", "prompt_tokens": 64, "p50_ms": True, "p99_ms": 1}]},
        {"rows": ["host"]},
        {"conditions": {}},
        {"break_even_tokens": {"host": "64"}},
        {"break_even_tokens": None},
    ],
)
def test_a_result_that_is_not_the_reload_benchmarks_is_refused(here, changes, capsys):
    pytest.importorskip("matplotlib")
    (here / "reload.json").write_text(json.dumps(reload_result(**changes)))

    assert status("--html", "page.html", "--model", "qwen3-8b", "--reload", "reload.json") == 2

    assert "reload.json: " in capsys.readouterr().err
    assert [path.name for path in here.iterdir()] == ["reload.json"]


def test_a_trace_that_breaks_in_the_middle_leaves_no_page(here, capsys):
    pytest.importorskip("matplotlib")
    lines = [{"timestamp": time, "input_length": 512, "output_length": 1, "hash_ids": [0]} for time in (5000, 0)]
    (here / "trace.jsonl").write_text("\n".join(map(json.dumps, lines)))

    assert status("--html", "page.html", "--model", "qwen3-8b", "--trace", "trace.jsonl", "--json", "x.json") == 2

    assert "trace.jsonl" in capsys.readouterr().err
    assert [path.name for path in here.iterdir()] == ["trace.jsonl"]


def test_without_the_library_nothing_is_begun(here, capsys, monkeypatch):
    monkeypatch.setattr(plots, "find_spec", lambda name: None)

    assert status("--html", "page.html", "--model", "none") == 2

    assert "--html needs matplotlib" in capsys.readouterr().err


ROOT = Path(__file__).resolve().parents[2]


def committed():
    """The command lines of scripts/reports, without ``kvtier report``, by the page each makes."""
    script = (ROOT / "scripts" / "reports").read_text().replace("\\\n", " ").replace("$results", "benchmarks/results")
    lines = [shlex.split(line, comments=True)[2:] for line in script.splitlines() if "kvtier report" in line]
    return {words[words.index("--html") + 1]: words for words in lines}


def words_of(page):
    """What a page says, but for its pictures and for what it was made with."""
    return re.sub(r"<svg.*?</svg>|<h2>Made with.*", "", page.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize(("page", "words"), committed().items(), ids=committed())
def test_a_committed_page_says_what_is_said_today(monkeypatch, tmp_path, page, words):
    monkeypatch.chdir(ROOT)
    made = tmp_path / "page.html"

    assert status(*[str(made) if word == page else word for word in words]) == 0
    assert words_of(made) == words_of(Path(page)), "stale: run scripts/reports"


def test_there_is_a_line_for_each_committed_page():
    assert {str(page.relative_to(ROOT)) for page in (ROOT / "docs" / "reports").iterdir()} == set(committed())
