"""The words of a report, held against the ledger that they come from."""

from dataclasses import replace

from kvtier.commands.report_answer import answer_of
from kvtier.econ.ledger import make_ledger
from kvtier.econ.profile import PrefillPoint, Profile


def test_the_answer_says_where_a_hit_loses_and_is_slower():
    profile = Profile.named("h100", "smollm2-135m")
    ledger = make_ledger(profile, prompt_tokens=[256], reuses=[1], tiers=["disk"], holds_s=[86400.0])

    answer = answer_of(ledger, {"disk": None}, None)

    assert answer["saves_usd_per_mtok"] < 0
    assert f"a hit loses {-answer['saves_usd_per_mtok']:.4f} USD" in answer["words"]
    assert "hit 1 time within 24.0 h" in answer["words"]
    assert "times slower" in answer["words"]
    assert "in 1 of the 1 cases below: disk at 256 tokens." in answer["words"]
    assert "disk at no length known" in answer["words"]


def test_the_answer_says_so_where_nothing_is_lost():
    ledger = make_ledger(Profile.named("h100", "llama-3.1-70b"), prompt_tokens=[65536], reuses=[10], tiers=["disk"])

    words = answer_of(ledger, {"disk": 300}, None)["words"]

    assert "loses in none of the 1 cases" in words
    assert "disk from 300 tokens" in words
    assert "Replaying" not in words


def test_a_length_beyond_what_was_measured_is_marked():
    points = (PrefillPoint(tokens=64, lo=0.1, mid=0.1, hi=0.1),)
    profile = replace(Profile.named("h100", "qwen3-8b"), prefill=points)

    assert "longer than any that was measured" in answer_of(make_ledger(profile), {}, None)["words"]


def test_the_answer_speaks_of_the_disk_the_longest_prompt_and_the_most_hits():
    ledger = make_ledger(Profile.named("h100", "llama-3.1-8b"), holds_s=[300.0, 3600.0])
    row = next(row for row in ledger.rows if (row.tier, row.prompt_tokens, row.reuses) == ("disk", 65536, 10))

    answer = answer_of(ledger, {}, None)

    assert (answer["tier"], answer["prompt_tokens"], answer["reuses"], answer["hold_s"]) == ("disk", 65536, 10, 300)
    assert answer["share"] == row.share
    assert answer["losing_cases"] == sum(row.verdict != "saves" for row in ledger.rows)
    assert answer["words"].startswith("For llama-3.1-8b on 1 x h100, derived from data sheets and not measured:")
    assert "times faster" in answer["words"]
    assert f"a hit saves {row.saves_usd:.4f} USD" in answer["words"]


def test_a_measured_profile_is_named_with_its_machine_and_day():
    profile = replace(Profile.named("h100", "qwen3-8b"), machine="some processor", date="2026-11-25")

    words = answer_of(make_ledger(profile), {}, None)["words"]

    assert words.startswith("On some processor with qwen3-8b, measured 2026-11-25:")
