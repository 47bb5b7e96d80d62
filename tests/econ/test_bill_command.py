"""``kvtier bill``: the same traffic under each provider, on the command line."""

import json
from pathlib import Path

import pytest

from kvtier import cli

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = str(ROOT / "examples" / "conversation.jsonl")


@pytest.fixture
def bill(capsys):
    """Runs the command; returns its status, and what it said."""

    def run(*words):
        status = cli.main(["bill", *map(str, words)])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


@pytest.fixture
def trace(tmp_path):
    """Three prompts of 512-token blocks, the second and third going on from the first."""
    path = tmp_path / "trace.jsonl"
    rows = [(0, 2000, [0, 1, 2, 3]), (60_000, 3000, [0, 1, 2, 4, 5, 6]), (120_000, 2600, [0, 1, 2, 4, 5, 7])]
    path.write_text(
        "".join(
            json.dumps({"timestamp": at, "input_length": tokens, "output_length": 9, "hash_ids": ids}) + "\n"
            for at, tokens, ids in rows
        )
    )
    return path


def rows(bill, *words):
    """The bills as JSON, by provider and plan."""
    status, out, _ = bill(*words, "--json", "-")
    assert status == 0
    return {(row["provider"], row["plan"]): row for row in json.loads(out)["bills"]}


def test_a_conversation_is_billed_under_each_provider(bill):
    status, out, _ = bill(EXAMPLE)

    assert status == 0
    assert "4 calls, 22,230 input tokens, 2,400 output tokens" in out
    for word in ("anthropic", "openai", "google", "deepseek", "xai", "List prices", "Sources:", "2026-11", "Assumed:"):
        assert word in out
    assert "* xai automatic: not documented, assumed: lifetime_s" in out


def test_the_example_costs_what_a_pencil_says(bill):
    """Sonnet 4.5: tools 3,000 and rules 2,000 for an hour, the rest for five minutes."""
    row = rows(bill, EXAMPLE, "--model", "sonnet-4.5", "--calls")["anthropic", "5m"]

    micro_usd = [
        5000 * 6.00 + 120 * 3.75,  # at 0 s all is written
        5120 * 0.30 + 380 * 3.75,  # at 40 s read up to the first question, 300 + 80 written
        5000 * 0.30 + 150 * 3.75,  # at 300 s another chat reads the rules
        5000 * 0.30 + 1460 * 3.75,  # at 900 s only they are left: 120 + 300 + 80 + 900 + 60 written
    ]
    assert [charge["read_usd"] + charge["written_usd"] for charge in row["charges"]] == pytest.approx(
        [amount / 1e6 for amount in micro_usd]
    )
    assert row["input_usd"] == pytest.approx(sum(micro_usd) / 1e6)
    assert row["no_cache_usd"] == pytest.approx(22_230 * 3.00 / 1e6)
    assert row["share"] == pytest.approx(row["input_usd"] / row["no_cache_usd"])


def test_a_trace_is_billed_by_its_whole_blocks(bill, trace):
    row = rows(bill, trace, "--provider", "xai")["xai", "automatic"]

    # whole blocks: 3, 5 and 5; read 0, 3 and 5 of 512
    assert (row["input_tokens"], row["read_tokens"]) == (7600, 8 * 512)
    assert row["calls"] == 3


def test_marks_are_set_where_a_trace_has_none(bill, trace):
    def read(*words):
        return rows(bill, trace, "--model", "sonnet-4.5", *words)["anthropic", "5m"]["read_tokens"]

    assert read("--marks", "last") == 8 * 512
    assert read() == 8 * 512


def test_explicit_entries_are_made_where_the_prefix_has_proved_shared(bill, trace):
    row = rows(bill, trace, "--model", "gemini-2.5-flash")["google", "explicit"]

    # 3 blocks are known to be shared at the second call, but 1,536 tokens are too few; at the third call 5 are
    assert (row["written_tokens"], row["read_tokens"]) == (5 * 512, 5 * 512)
    assert row["storage_usd"] == pytest.approx(5 * 512 * 1.00 / 1e6)


def test_prices_name_their_tariff_and_their_sources(bill):
    row = rows(bill, EXAMPLE, "--model", "grok-4.7")["xai", "automatic"]

    assert row["prices"] == {
        "input_usd_per_mtok": 2.0,
        "cached_usd_per_mtok": 0.5,
        "storage_usd_per_mtok_hour": 0.0,
        "long_prompt_factor": 1.0,
    }
    assert row["write_usd_per_mtok"] == 2.0
    assert all(source["date"] for source in row["sources"])
    assert row["assumed"] == ["lifetime_s", "minimum_tokens", "unit_tokens"]


def test_pings_bridge_a_pause(bill):
    plain = rows(bill, EXAMPLE, "--model", "sonnet-4.5")["anthropic", "5m"]
    kept = rows(bill, EXAMPLE, "--model", "sonnet-4.5", "--keep-alive", "--ping-margin", "5")["anthropic", "5m"]

    assert kept["read_tokens"] == plain["read_tokens"] + 500  # at 900 s: 120 + 300 + 80 are still there
    assert kept["added_calls"] == 2 + 11 + 11  # chat a before 900 s, then both in vain
    assert kept["no_cache_usd"] == plain["no_cache_usd"]


def test_a_call_ahead_serves_calls_that_come_together(bill, tmp_path):
    path = tmp_path / "fan.jsonl"
    segments = [[{"role": "system", "id": "S", "tokens": 2000}, {"id": f"u{i}", "tokens": 50}] for i in range(3)]
    path.write_text("".join(json.dumps({"time_s": 0, "segments": s}) + "\n" for s in segments))

    cold = rows(bill, path, "--model", "sonnet-4.5")["anthropic", "5m"]
    warm = rows(bill, path, "--model", "sonnet-4.5", "--warm-up")["anthropic", "5m"]

    assert (cold["read_tokens"], warm["read_tokens"]) == (0, 6000)
    assert warm["added_calls"] == 1
    assert cold["input_usd"] - warm["input_usd"] == pytest.approx((3 * (1.25 - 0.1) - 1.25) * 2000 * 3 / 1e6)


def test_routing_is_the_callers_guess(bill):
    row = rows(bill, EXAMPLE, "--model", "gpt-5", "--hit-probability", "0")["openai", "memory"]

    assert row["read_tokens"] == 0


def test_every_call_is_shown_if_asked_for(bill):
    _, out, _ = bill(EXAMPLE, "--model", "gpt-5", "--calls")

    assert "openai gpt-5 memory\ntime, s" in out
    assert out.count("\n900 ") == 2  # memory and extended


def test_what_strategies_add_has_a_column(bill):
    _, out, _ = bill(EXAMPLE, "--model", "sonnet-4.5", "--keep-alive")

    assert "added" in out
    assert "24 for 0.0" in out


def test_tariffs_can_be_replaced(bill, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        '[sources.me]\ntitle = "an offer"\ndate = "2026-11"\n'
        '[providers.us.plans.p]\nentries = "everywhere"\nlifetime_s = 3600\nsource = ["me"]\n'
        "[providers.us.models.m]\ninput_usd_per_mtok = 1\ncached_usd_per_mtok = 0\noutput_usd_per_mtok = 5\n"
        'source = ["me"]\n'
    )

    row = rows(bill, EXAMPLE, "--tariffs", path)["us", "p"]

    assert row["input_usd"] == pytest.approx((22_230 - row["read_tokens"]) / 1e6)
    assert row["output_usd"] == pytest.approx(2400 * 5 / 1e6)


def test_a_plot_is_drawn(bill, tmp_path):
    pytest.importorskip("matplotlib")

    status, _, _ = bill(EXAMPLE, "--plot", tmp_path / "bill.svg")

    assert status == 0
    drawn = (tmp_path / "bill.svg").read_text()
    assert "<svg" in drawn


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--provider", "antropic"], "did you mean anthropic"),
        (["--model", "sonnet4.5"], "did you mean sonnet-4.5"),
        (["--tariffs", "gone.toml"], "gone.toml cannot be read"),
        (["--hit-probability", "2"], "a hit probability lies between 0 and 1"),
        (["--keep-alive", "--ping-margin", "400"], "pings need a time above 0"),
        (["--warm-up", "--first-token", "0"], "a warm-up needs times above 0"),
        (["--plot", "gone/bill.png"], "is not in a directory that exists"),
        (["--plot", "bill.xyz"], "--plot"),
    ],
)
def test_bad_input_is_one_line_and_status_2(bill, words, what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    status, _, err = bill(EXAMPLE, *words)

    assert status == 2
    assert what in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["--first-token", "-1"], ["--hit-probability", "nan"], ["--marks", "none"]])
def test_an_option_that_cannot_be_read_is_status_2(words):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["bill", EXAMPLE, *words])

    assert stopped.value.code == 2


def request(time_s, tokens):
    return json.dumps({"time_s": time_s, "segments": [{"id": "S", "tokens": tokens}]}) + "\n"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (request(0, 5) + request(0, -5), "line 2"),
        (request(5, 5) + request(4, 5), "line 2"),
        (request(5, 5).replace("time_s", "time_ms"), "did you mean time_s"),
        ("nothing of the kind", "bad.jsonl"),
    ],
)
def test_a_bad_file_is_refused_and_leaves_no_result(bill, tmp_path, text, what):
    path = tmp_path / "bad.jsonl"
    path.write_text(text)

    status, out, err = bill(path, "--json", tmp_path / "out.json")

    assert (status, out) == (2, "")
    assert what in err
    assert not (tmp_path / "out.json").exists()


def test_a_file_that_is_not_there_is_status_2(bill, tmp_path):
    status, _, err = bill(tmp_path / "gone.jsonl")

    assert status == 2
    assert "gone.jsonl" in err


def test_the_page_shows_what_the_command_says(bill, monkeypatch):
    monkeypatch.chdir(ROOT)
    page = ROOT / "docs" / "billing.md"
    if not page.exists():
        pytest.skip("the documentation is not here")
    _, said, _ = bill("examples/conversation.jsonl", "--model", "sonnet-4.5", "--calls")

    assert f"--calls\n{said}```" in page.read_text()


def test_the_tariffs_that_the_page_shows_can_be_used(bill, tmp_path):
    page = ROOT / "docs" / "billing.md"
    if not page.exists():
        pytest.skip("the documentation is not here")
    path = tmp_path / "acme.toml"
    path.write_text(page.read_text().split("```toml\n")[1].split("```")[0])

    assert list(rows(bill, EXAMPLE, "--tariffs", path)) == [("acme", "ten-minutes")]
