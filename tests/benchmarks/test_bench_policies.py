"""What docs/policies.md asks: caches worked out by hand, and a page whose parts are those of the report."""

import re
from functools import partial
from pathlib import Path

import policies
import pytest
import readme
from lib import policies as ask
from lib import policies_report
from lib.policies_plots import draw
from lib.policies_report import markdown

from kvtier.sim.naming import trace_from
from kvtier.sim.stats import stats_of
from kvtier.sim.sweep import measure, policy_jobs
from kvtier.sim.trace import Request

PAGE = Path(__file__).resolve().parents[2] / "docs" / "policies.md"
RAG = partial(trace_from, "synthetic:rag?requests=60")
ASKER = ask.Asker(processes=1)


class Given:
    """Prompts of blocks of one token each, a second apart."""

    name, block_tokens = "given", 1

    def __init__(self, *prompts):
        self.prompts = prompts

    def __iter__(self):
        return (Request(float(at), list(ids), len(ids), 1) for at, ids in enumerate(self.prompts))


def job(capacity, *prompts):
    (found,) = policy_jobs(lambda: Given(*prompts), ["lru"], [capacity])
    return found


@pytest.fixture(scope="module")
def report():
    found = {
        "curves": {"conversation": ask.curves(ASKER, RAG, ["lru", "gdsf", "belady"], 2)},
        "paper_figure": {name: ask.paper_figure(ASKER, RAG) for name in ("conversation", "synthetic")},
        "ssd": {name: ask.ssd(ASKER, RAG) for name in ("conversation", "synthetic")},
        "lifetimes": {"conversation": ask.lifetimes(ASKER, RAG)},
        "admissions": {"conversation": ask.admissions(ASKER, RAG)},
        "orders": {name: ask.orders(ASKER, RAG, 2) for name in ("conversation", "synthetic")},
        "workloads": {"rag": ask.workload(ASKER, "rag", 30)},
    }
    about = {"cpu": "a processor", "processes": 1, "seconds": 60.0, "date_utc": "2026-01-02", "git_commit": "c0ffee"}
    return {"conditions": {**about, "quick": True, "policies": ["lru", "gdsf", "belady"]}, **found}


def test_without_prefixes_heads_leave_first_and_what_is_behind_them_is_of_no_use():
    found = ask.without_prefixes(job(2, [1, 2, 3], [1, 2, 3]))

    assert found == {"block_hit_rate": 2 / 6, "prefix_hit_rate": 0}


def test_tail_first_keeps_the_head_of_the_same_prompts():
    assert measure(job(2, [1, 2, 3], [1, 2, 3]))["prefix_hit_rate"] == 2 / 6


def test_told_back_to_front_two_prompts_lose_their_tails_where_one_would_go_whole():
    prompts = [[1, 2], [3, 4], [5, 6], [3, 4]]

    assert measure(job(4, *prompts))["prefix_hit_rate"] == 2 / 8
    assert ask.head_first(job(4, *prompts))["prefix_hit_rate"] == 1 / 8


def test_a_policy_told_back_to_front_ends_up_in_the_registry_as_it_was():
    before = dict(ask.POLICIES)

    ask.head_first(job(3, [1]))

    assert before == ask.POLICIES


def test_held_blocks_are_counted_at_each_request():
    found = ask.held(job(9, [1, 2], [3], [4]))

    assert (found["held_mean_blocks"], found["held_most_blocks"]) == ((0 + 2 + 3) / 3, 3)


def test_the_papers_capacities_are_tokens_and_the_last_is_everything(report):
    rows = report["paper_figure"]["conversation"]["rows"]

    assert [row["capacity_blocks"] * 64 for row in rows[:-1]] == list(ask.PAPER_TOKENS)
    assert rows[-1]["prefix_hit_rate"] == stats_of(RAG()).best_block_hit_rate
    assert rows[-1]["share_of_best"] == 1
    assert all(row["prefix_hit_rate"] == pytest.approx(row["stack_distance_hit_rate"]) for row in rows)


def test_whole_blocks_leave_the_last_partial_one_out():
    trace = Given([1, 2], [1, 2])
    trace.block_tokens = 2  # of which each prompt has 1

    assert ask._ways_to_count(trace)["best_whole_block_hit_rate"] == 1 / 2
    assert ask._ways_to_count(trace)["best_mean_of_requests"] == 1 / 2


def test_admissions_are_compared_with_writing_everything_in_the_same_way(report):
    rows = report["admissions"]["conversation"]["rows"]

    for row in rows:
        everything = next(each for each in rows if (each["write"], each["admission"]) == (row["write"], "all"))
        assert row["writes_saved_share"] == 1 - row["written_blocks"] / max(1, everything["written_blocks"])
        assert row["written_blocks"] <= everything["written_blocks"]


def test_the_page_has_a_place_for_every_part_of_a_report(report):
    assert set(markdown(report)) == set(re.findall(r"<!-- (policies_\w+) -->", PAGE.read_text()))


def test_every_picture_of_the_page_is_drawn(report, tmp_path):
    pytest.importorskip("matplotlib")

    drawn = {path.name for path in draw(report, tmp_path)}

    assert drawn == set(re.findall(r"\(images/(policies_\w+\.png)\)", PAGE.read_text()))
    assert {path.name for path in tmp_path.iterdir()} == drawn


def test_a_finding_follows_from_its_rows(report):
    parts = markdown(report)
    rows = report["curves"]["conversation"]["rows"]
    lru = [f"{100 * row['prefix_hit_rate']:.1f} %" for row in rows if row["policy"] == "lru"]

    assert f"| lru | {' | '.join(lru)} |" in parts["policies_curves"]
    assert "a quick run, of no meaning" in parts["policies_conditions"]
    assert "| all kept |" in parts["policies_paper"]


def test_a_policy_of_our_own_is_counted_where_it_beats_the_published():
    rows = [
        {"policy": policy, "capacity_blocks": size, "prefix_hit_rate": rate, "share_of_optimum": None}
        for size, rates in ((10, (0.2, 0.3, 0.9)), (20, (0.4, 0.4, 0.9)))
        for policy, rate in zip(("lru", "ours", "belady"), rates, strict=True)
    ]
    sizes = {"requests": 1, "duration_s": 1.0, "rows": rows}

    said = policies_report.curves({"a trace": sizes})

    assert "ours beats every published policy at 1 of 2 capacities." in said
    assert "Best at each capacity, the optimum aside: ours, lru = ours." in said


def test_without_the_traces_it_says_so_and_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("KVTIER_TRACES", str(tmp_path / "none"))

    assert policies.main(["--json", str(tmp_path / "out.json")]) == 2

    assert "mooncake_conversation_trace.jsonl.gz" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_a_report_the_page_is_left_alone(tmp_path):
    assert readme.policies_parts(tmp_path / "policies.json") == {}
