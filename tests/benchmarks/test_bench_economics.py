"""The essay on the price of a cached token: its figures are the library's, and its prose has no others."""

import json
import re
from pathlib import Path

import economics as script
import numpy as np
import pytest
import readme
from lib import economics, economics_bills, economics_claims, economics_prices
from lib.economics_verdicts import claims, quotes

from kvtier.econ.billing.bills import bills
from kvtier.econ.billing.calls import Call
from kvtier.econ.billing.tariffs import tariffs
from kvtier.econ.formulas import hit_share
from kvtier.econ.ledger import make_ledger
from kvtier.econ.profile import Profile

ROOT = Path(__file__).resolve().parents[2]
REPORT = json.loads((ROOT / "benchmarks" / "results" / "economics.json").read_text())
PAGE = (ROOT / "docs" / "economics.md").read_text()

CLAIMS = (
    "cached tokens cost the provider nothing",
    "10 % of the input price is extortion",
    "SSD reads are so fast compared with inference that RAM is wasted on it",
    "keeping a cache means keeping it in VRAM",
    "automatic caching is strictly better than manual",
    "a sliding window is fine",
    "99 % the same prompt is 99 % cached",
)

#: Names and round figures that say what is talked about; nothing that was computed.
NAMES = (
    r"\b(70|8)B\b",
    r"\bH100\b",
    r"\bSmolLM2\b",
    r"\b(8|64|4) Ki\b",
    r"\bV3(\.2)?\b",
    r"\bGPT-5(\.6)?",
    r"\b2\.5 Pro|\b3\.8 Flash",
    r"\b10 %",
    r"\*\*(50 and 25|15 to 20|10|2 to 5) %\*\*|; 50 % covers",
    r"in 1987 how often",
)


@pytest.fixture(scope="module")
def fresh():
    return json.loads(json.dumps(script.computed()))


@pytest.mark.parametrize("part", sorted(set(REPORT) - {"bills", "conditions"}))
def test_a_committed_figure_is_what_the_library_says_today(fresh, part):
    assert nearly(fresh[part], REPORT[part])


def nearly(one, other):
    """Equal but for the last digits of numbers, which differ between processors."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(nearly(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(nearly, one, other))
    return one == (pytest.approx(other, rel=1e-9) if isinstance(one, float) else other)


def test_the_report_has_nothing_that_is_not_computed_anew(fresh):
    assert set(REPORT) == set(fresh) | {"bills", "conditions"}


def test_the_page_has_a_verdict_for_every_claim():
    found = claims(REPORT)

    assert tuple(claim for claim, _, _ in found) == CLAIMS
    assert all(f"| {claim} | {verdict} | {number} |" in PAGE for claim, verdict, number in found)
    assert all(re.search(r"\d", number) for _, _, number in found)


def test_every_table_is_on_the_page_once():
    for name in readme.economics_parts():
        assert PAGE.count(f"<!-- {name} -->") == PAGE.count(f"<!-- /{name} -->") == 1


def test_the_prose_quotes_every_figure_that_it_may():
    missing = [quote for quote in quotes(REPORT) if quote not in words(PAGE)]

    assert not missing


def test_the_prose_has_no_figure_that_the_report_does_not_give():
    prose = words(re.sub(r"<!-- (\w+) -->.*?<!-- /\1 -->", " ", PAGE, flags=re.DOTALL))
    prose = re.sub(r"!?\[([^\]]*)\]\([^)]*\)|`[^`]*`", r"\1", prose)
    for quote in sorted(quotes(REPORT), key=len, reverse=True):
        prose = prose.replace(quote, " ")
    for name in NAMES:
        prose = re.sub(name, " ", prose)

    assert not re.findall(r".{0,40}\d.{0,20}", prose)


def words(text):
    return " ".join(text.split())


def test_every_picture_on_the_page_is_there():
    pictures = re.findall(r"\]\(\.\./(benchmarks/results/economics_\w+\.png)\)", PAGE)

    assert len(pictures) == 6
    assert all((ROOT / picture).is_file() for picture in pictures)


def test_every_input_has_a_kind_a_source_and_a_date():
    assert {row["kind"] for row in REPORT["inputs"]} == {"measured", "given", "assumed"}
    assert all(row["source"] and re.match(r"20\d\d", row["date"]) and row["figures"] for row in REPORT["inputs"])


def share_of(case, tier, tokens, hold_s):
    return next(
        row["share"]
        for row in REPORT["ledger"]
        if (row["case"], row["media"], row["tier"], row["prompt_tokens"], row["reuses"], row["hold_s"])
        == (case, "rented", tier, tokens, 10, hold_s)
    )


def test_the_verdicts_still_follow_from_the_figures():
    shares = [
        share_of(case, tier, n, hold)
        for case in ("8b", "70b", "v3")
        for tier, hold in (("host", 300.0), ("disk", 3600.0))
        for n in economics.LENGTHS
    ]
    big = next(fact for fact in REPORT["cases"] if fact["case"] == "70b")
    agents = next(found for found in REPORT["bills"] if found["trace"] == "agents")
    cost = {name: row["cost_per_turn"] for name, row in REPORT["window"]["policies"].items()}

    assert min(shares) > 0.005
    assert share_of("70b", "host", 8192, 300.0) > 0.1 > share_of("v3", "disk", 8192, 3600.0)
    assert big["speed_up_one_drive"]["8192"] < 1 < big["speed_up_all_drives"]["8192"]
    assert 0.9 < agents["ties"]["anthropic opus-5 1h"] < 1
    assert cost["sliding"] > cost["append"] > cost["hysteresis"]
    assert REPORT["prefix"]["hundredth_scattered"] < 0.01


def test_what_the_page_says_of_losses_is_so():
    rows = [row for row in REPORT["ledger"] if row["media"] == "rented" and row["reuses"] == 1]
    hour = {
        (row["case"], row["prompt_tokens"]): row["verdict"]
        for row in rows
        if (row["tier"], row["hold_s"]) == ("host", 3600.0)
    }
    tiny = [row for row in REPORT["ledger"] if row["case"] == "tiny" and row["prompt_tokens"] == 8192]

    assert all(hour[case, n] == "loses" for case in ("8b", "70b") for n in economics.LENGTHS)
    assert hour["v3", 8192] != "loses"
    assert any(row["verdict"] == "loses" for row in tiny if row["tier"] == "disk")
    assert share_of("8b", "host", 8192, 300.0) == pytest.approx(0.5, abs=0.1)


def test_a_share_is_at_cost_with_the_hits_that_the_table_gives():
    found = economics_prices.at_cost([0.2])

    for place, hits in zip(found["places"], found["rows"][0]["hits"], strict=True):
        case = economics.CASE[place["case"]]
        row = economics.one_row(case, place["tier"], place["prompt_tokens"], hits=1, hold_s=place["hold_s"])
        bare = hit_share(
            recompute_usd_per_mtok=row.miss_usd,
            drive_usd_per_mtok=row.read_usd,
            occupancy_usd_per_mtok=row.occupancy_usd,
        )
        if hits is None:
            assert bare >= 0.2
        else:
            assert bare + (row.write_usd + row.rent_usd) / hits / row.miss_usd == pytest.approx(0.2)


def test_a_premium_pays_the_write_and_then_the_rent():
    (paid,) = (price["premium_pays_s"]["write"] for price in REPORT["prices"] if price["name"] == "anthropic/opus-5")

    row = economics.one_row(economics.CASE["70b"], "disk", 8192, hits=1, hold_s=paid["70b"]["disk"])

    assert row.write_usd + row.rent_usd == pytest.approx(0.25 * row.miss_usd)


def test_the_speed_of_deepseek_is_what_its_maker_reports():
    at = economics.profile(economics.CASE["v3"])

    assert 4096 / at.prefill_s(0, 4096) == pytest.approx(73_700 * (1 - 0.563), rel=1e-3)


def test_a_profile_with_measured_write_amplification_is_preferred(tmp_path):
    from dataclasses import replace

    from kvtier.econ.figures import Figure

    made = Profile.named("h100", "llama-3.1-8b")
    seen = Figure(value=1.5, unit="ratio", source="a counter", date="2026-11-01", kind="measured")
    disk = replace(made.tier("disk"), write_amplification=seen)
    replace(made, tiers={**made.tiers, "disk": disk}).save(tmp_path / "profile.json")
    (tmp_path / "a-profile.json").write_text("{}")

    rows = {
        where: [row for row in economics.wear(path)["rows"] if row["case"] == "8b"]
        for where, path in (("measured", tmp_path), ("assumed", tmp_path / "nothing"))
    }

    assert economics.amplification(tmp_path) == seen
    for dear, plain in zip(rows["measured"], rows["assumed"], strict=True):
        assert dear["wear_usd_per_mtok"] == pytest.approx(1.5 * plain["wear_usd_per_mtok"])
        assert dear["rated_day_s"] == pytest.approx(plain["rated_day_s"] / 1.5)


def test_a_token_that_differs_spoils_its_block_and_all_behind_it():
    found = economics_claims.prefix(prompt_tokens=640, draws=50)

    assert found["one_token"] == {"front": 0.0, "middle": 0.5, "end": 0.95}
    assert found["hundredth_scattered"] < found["one_token_anywhere"] < 0.99


def test_a_prompt_with_one_random_difference_is_half_cached_on_average():
    block, tokens = REPORT["prefix"]["block_tokens"], REPORT["prefix"]["prompt_tokens"]
    expected = np.mean(np.arange(tokens) // block * block) / tokens

    assert REPORT["prefix"]["one_token_anywhere"] == pytest.approx(expected, abs=0.06)


def test_a_tie_is_where_both_bills_are_equal():
    every = {tariff.name: tariff for tariff in tariffs()}
    under = [every[name] for name in (economics_bills.AUTOMATIC, *economics_bills.MANUAL)]
    # every second gap outlasts the five minutes, and none the ten
    times_s = [600.0 * n + late for n in range(1500) for late in (0, 200)]
    calls = [Call(time_s, np.arange(40), np.arange(1, 41) * 128, 5120, 0) for time_s in times_s]

    made = bills(calls, under)
    tie = economics_bills.ties({bill.tariff.name: bill.share for bill in made})[under[1].name]
    (at_tie,) = bills(calls, under[:1], hit_probability=tie)

    assert 0.3 < tie < 0.4
    assert at_tie.share == pytest.approx(made[1].share, abs=0.02)


def test_without_the_traces_the_script_says_so(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("KVTIER_TRACES", str(tmp_path))
    monkeypatch.setattr(economics_bills, "ROOT", tmp_path / "here")

    assert script.main(["--json", str(tmp_path / "out.json")]) == 2

    assert "--no-bills" in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()


def test_bills_of_a_file_that_has_none_are_refused(tmp_path, capsys):
    (tmp_path / "other.json").write_text('{"benchmark": "other"}')

    assert script.main(["--bills-of", str(tmp_path / "other.json")]) == 2

    assert "has no bills" in capsys.readouterr().err


@pytest.mark.parametrize("limit", ["0", "-3"])
def test_a_limit_below_one_is_refused(limit):
    with pytest.raises(SystemExit) as refused:
        script.main(["--limit", limit])

    assert refused.value.code == 2


@pytest.mark.slow
def test_bills_of_traces_are_those_that_were_committed():
    try:
        files = economics_bills.trace_files()
    except FileNotFoundError as exc:
        pytest.skip(str(exc))

    made = economics_bills.billed("synthetic", files["synthetic"])

    committed = next(found for found in REPORT["bills"] if found["trace"] == "synthetic")
    assert nearly(json.loads(json.dumps(made)), committed)


def test_a_ledger_of_the_page_is_that_of_the_command():
    made = make_ledger(Profile.named("h100", "llama-3.1-70b", num_gpus=8), reuses=[10], holds_s=[300.0])
    (row,) = (row for row in made.rows if (row.tier, row.prompt_tokens) == ("host", 8192))

    assert share_of("70b", "host", 8192, 300.0) == pytest.approx(row.share)
