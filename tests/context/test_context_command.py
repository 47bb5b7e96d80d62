"""``kvtier context``: what it prints, writes and refuses."""

import json

import pytest

from kvtier import cli


def run(capsys, *words):
    status = cli.main(["context", *map(str, words)])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_a_table_has_a_line_for_every_policy_and_the_formula_where_one_holds(capsys):
    status, out, _ = run(capsys, "--turns", 80)
    lines = {line.split()[0]: line.split() for line in out.splitlines()[2:]}

    assert status == 0
    assert list(lines) == ["append", "sliding", "hysteresis", "chunked", "expired", "longest", "cheapest"]
    assert (lines["sliding"][-1], lines["hysteresis"][-1], lines["longest"][-1]) == ("37,700", "3,028", "-")
    assert "80 turns of 100 + 400 tokens, head 2,000, limits 32,000 and 16,000" in out


@pytest.mark.parametrize(
    "words",
    [
        ("--branch", 0.1),
        ("--idle-share", 0.1),
        ("--gap-kind", "lognormal"),
        ("--gap", 300),
        ("--stateless",),
        ("--low", 32_000),
        ("--low", 1_000),
    ],
)
def test_no_formula_stands_where_none_holds(capsys, words):
    _, out, _ = run(capsys, "--turns", 3, "--policy", "sliding", "hysteresis", "chunked", *words)

    assert [line.split()[-1] for line in out.splitlines()[2:]] == ["-"] * 3


def test_json_has_the_settings_and_every_turn(capsys):
    status, out, err = run(capsys, "--turns", 5, "--policy", "append", "--replies-uncached", "--json", "-")
    report = json.loads(out)

    assert status == 0
    assert "append" in err
    assert report["chat"]["turns"] == 5
    assert (report["prices"], report["ttl_s"], report["caches_replies"]) == ({"write": 1.25, "read": 0.1}, 300, False)
    (row,) = report["policies"]
    assert row["policy"] == "append"
    assert row["by_turn"]["tokens"] == [2_100, 2_600, 3_100, 3_600, 4_100]
    assert row["by_turn"]["live_tokens"] == [0, 2_100, 2_600, 3_100, 3_600]
    assert row["cost_per_turn"] == pytest.approx(sum(row["by_turn"]["cost"]) / 5)


def test_uncached_replies_cost_what_their_formula_says(capsys):
    _, out, _ = run(capsys, "--turns", 3, "--policy", "hysteresis", "chunked", "--replies-uncached")

    assert [line.split()[-1] for line in out.splitlines()[2:]] == ["3,528", "3,528"]


def test_every_setting_of_the_chat_arrives(capsys):
    words = "--turns 2 --head 10 --user-tokens 3 --reply-tokens 4 --spread 0.1 --gap 5 --gap-sigma 0.5 --idle-share 0.2"
    words += " --idle 7 --edit 0.01 --delete 0.02 --regenerate 0.03 --branch 0.04 --switch 0.05 --depth 2 --seed 9"

    _, out, err = run(capsys, *words.split(), "--gap-kind", "exponential", "--json", "-")

    assert json.loads(out)["chat"] == {
        "turns": 2,
        "head_tokens": 10,
        "user_tokens": 3,
        "reply_tokens": 4,
        "spread": 0.1,
        "gap": "exponential",
        "gap_s": 5,
        "gap_sigma": 0.5,
        "idle_share": 0.2,
        "idle_s": 7,
        "edit": 0.01,
        "delete": 0.02,
        "regenerate": 0.03,
        "branch": 0.04,
        "switch": 0.05,
        "depth": 2,
        "seed": 9,
    }
    assert "edit 0.01, delete 0.02, regenerate 0.03, branch 0.04, switch 0.05, idle_share 0.2" in err


def test_a_front_end_without_state_is_said_to_be_one(capsys):
    _, out, _ = run(capsys, "--turns", 70, "--stateless", "--policy", "hysteresis", "longest")

    assert "no state between turns" in out
    assert [int(line.split()[4]) for line in out.splitlines()[2:]] == [10, 1]


@pytest.mark.parametrize("turns", [40, 600])
def test_a_plot_is_drawn(capsys, tmp_path, turns):
    pytest.importorskip("matplotlib")
    target = tmp_path / "context.png"

    status, _, _ = run(capsys, "--turns", turns, "--policy", "sliding", "hysteresis", "--plot", target)

    assert status == 0
    assert target.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--low", 40_000], "the low limit, 40,000 tokens, is above the high one, 32,000"),
        (["--head", 40_000], "sliding: the head (system, tools) has 40,000 tokens, more than the high limit"),
        (["--policy", "slidng"], "'slidng' is not a context policy; did you mean sliding?"),
        (["--head", -1], "head_tokens must be a number of at least 0, got -1"),
        (["--turns", 0], "turns must be at least 1, got 0"),
        (["--read-price", -0.1], "the read price must be a number of at least 0, got -0.1"),
        (["--ttl", 0], "ttl_s must be more than 0 seconds, got 0.0"),
        (["--branch", 1.1], "the rates of edit, delete, regenerate, branch, switch add up to 1.1, more than 1"),
    ],
)
def test_bad_settings_are_status_2_and_leave_no_file(capsys, tmp_path, words, said):
    target = tmp_path / "out.json"

    status, out, err = run(capsys, *words, "--json", target, "--plot", tmp_path / "out.png")

    assert (status, out) == (2, "")
    assert said in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["--plot", "-"], ["--plot", "no/such/place.png"], ["--gap-kind", "odd"]])
def test_a_command_line_that_cannot_be_read_is_status_2(words):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["context", *words])

    assert stopped.value.code == 2
