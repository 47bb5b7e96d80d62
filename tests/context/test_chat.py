"""The made-up chats: what the user does, how long it takes, and that all policies see the same."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest

from kvtier.context import AppendOnly, Hysteresis, Prices
from kvtier.errors import ConfigError
from kvtier.sim.chat import EVENTS, ChatSettings, _User, play, requests, summary

PRICES = Prices(write=1.25, read=0.1)
RESTLESS = ChatSettings(turns=400, edit=0.1, delete=0.1, regenerate=0.1, branch=0.1, switch=0.1, depth=3, seed=1)


def bodies(settings):
    return [[message.key for message in request.messages[1:]] for request in requests(settings)]


def only(**rates):
    return replace(RESTLESS, **{**dict.fromkeys(EVENTS, 0), **rates})


def test_a_chat_is_the_same_each_time_and_another_with_another_seed():
    assert list(requests(RESTLESS)) == list(requests(RESTLESS))
    assert list(requests(RESTLESS)) != list(requests(replace(RESTLESS, seed=2)))


def test_a_steady_chat_appends_a_reply_and_a_message_each_minute():
    first, second = list(requests(ChatSettings(turns=2)))

    assert [message.tokens for message in first.messages] == [2_000, 100]
    assert second.messages[:3] == (*first.messages, first.reply)
    assert [message.role for message in second.messages] == ["system", "user", "assistant", "user"]
    assert (first.time_s, second.time_s) == (0, 60)


@pytest.mark.parametrize("settings", [RESTLESS, ChatSettings(turns=20)])
def test_every_request_ends_with_a_users_message_and_turns_alternate(settings):
    for request in requests(settings):
        roles = [message.role for message in request.messages[1:]]
        assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]


def test_a_regeneration_asks_again_and_gets_another_reply():
    again = only(regenerate=1.0)
    one, two = list(requests(replace(again, turns=2)))

    assert one.messages == two.messages
    assert one.reply.key != two.reply.key


def test_an_edit_changes_one_message_where_it_stands():
    for before, after in pairwise(bodies(only(edit=1.0))):
        changed = [(old, new) for old, new in zip(before, after, strict=False) if old != new]
        assert len(changed) <= 1
        assert len(after) == len(before) + 2


def test_a_deletion_takes_a_whole_turn_out():
    seen = list(requests(only(delete=0.5, turns=80)))
    for before, after in pairwise(seen):
        gone = [message for message in (*before.messages, before.reply) if message not in after.messages]
        assert [message.role for message in gone] in ([], ["user", "assistant"])
        assert [message for message in (*before.messages, before.reply) if message not in gone] == list(
            after.messages[:-1]
        )


def test_a_branch_goes_on_from_some_turns_ago():
    depths = []
    for before, after in pairwise(bodies(only(branch=0.1, turns=1_500))):
        assert after[:-1] == before[: len(after) - 1] or len(after) == len(before) + 2
        depths.append((len(before) + 2 - len(after)) // 2)
    back = [depth for depth in depths if depth]

    assert 0.08 < len(back) / len(depths) < 0.12
    assert 2.5 < sum(back) / len(back) < 3.5


def test_a_switch_returns_to_a_branch_as_it_was_left():
    seen = [tuple(body) for body in bodies(only(branch=0.2, switch=0.2))]
    jumps = [after for before, after in pairwise(seen) if len(after) > len(before) + 2]

    assert jumps
    assert all(any(body == after[: len(body)] for body in seen) for after in jumps)


def test_a_branch_that_was_left_can_be_returned_to_once_more():
    user = _User(only(switch=1.0))
    one, other = [user.message("user", 1)], [user.message("user", 2)]
    user.path, user._left = one, [other]

    user.act()

    assert user.path[:1] == other[:1]
    assert user._left == [one]


def test_without_another_branch_a_switch_changes_nothing():
    assert bodies(only(switch=1.0)) == bodies(only())


def test_lengths_spread_as_far_as_they_are_told_to():
    lengths = [request.reply.tokens for request in requests(ChatSettings(turns=2_000, spread=0.5))]

    assert 200 <= min(lengths) < 205
    assert 595 < max(lengths) <= 600


@pytest.mark.parametrize("gap", ["constant", "exponential", "lognormal"])
def test_gaps_have_the_mean_asked_for(gap):
    times = [request.time_s for request in requests(only(turns=4_000, gap=gap, regenerate=1.0))]
    gaps = [after - before for before, after in pairwise(times)]

    assert sum(gaps) / len(gaps) == pytest.approx(60, rel=0.1)
    assert (len(set(gaps)) == 1) == (gap == "constant")


def test_idle_gaps_come_as_often_as_they_are_told_to():
    times = [request.time_s for request in requests(only(turns=4_000, idle_share=0.2, regenerate=1.0))]
    gaps = Counter(after - before for before, after in pairwise(times))

    assert set(gaps) == {60, 600}
    assert gaps[600] / 4_000 == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize("gap", ["exponential", "lognormal"])
def test_a_chat_without_pauses_can_be_had(gap):
    assert {request.time_s for request in requests(ChatSettings(turns=5, gap=gap, gap_s=0))} == {0}


def test_a_turn_pays_for_what_the_cache_does_not_serve():
    first, second = play(AppendOnly, ChatSettings(turns=2), ttl_s=300, prices=PRICES)

    assert (first.tokens, first.live_tokens, first.cost, first.cold) == (2_100, 0, 2_625, False)
    assert (second.tokens, second.live_tokens, second.cost) == (2_600, 2_500, 375)


def test_a_reply_that_the_engine_does_not_keep_is_paid_once_more():
    _, second = play(AppendOnly, ChatSettings(turns=2), ttl_s=300, prices=PRICES, caches_replies=False)

    assert second.live_tokens == 2_100


def test_a_turn_after_the_cache_has_expired_is_cold():
    _, second = play(AppendOnly, ChatSettings(turns=2, gap_s=300), ttl_s=300, prices=PRICES)

    assert (second.live_tokens, second.cold) == (0, True)


def test_a_summary_is_of_all_turns():
    turns = play(lambda: Hysteresis(3_000, 2_600), ChatSettings(turns=3), ttl_s=300, prices=PRICES)

    done = summary(turns)

    assert [turn.tokens for turn in turns] == [2_100, 2_600, 2_600]
    assert [turn.live_tokens for turn in turns] == [0, 2_500, 2_000]
    assert done == {
        "cost_per_turn": (2_625 + 375 + 950) / 3,
        "hit_rate": 4_500 / 7_300,
        "mean_context_tokens": 7_300 / 3,
        "cold_turns": 1,
        "cold_share": 1 / 3,
        "reasons": {"whole": 2, "trimmed": 1},
    }


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"turns": 0}, "turns must be at least 1, got 0"),
        ({"user_tokens": -5}, "user_tokens must be a number of at least 0, got -5"),
        ({"user_tokens": 0}, "user_tokens must be at least 1, got 0"),
        ({"depth": 0.5}, "depth must be at least 1"),
        ({"spread": 1.5}, "spread is a share from 0 to 1, got 1.5"),
        ({"idle_share": 2}, "idle_share is a share from 0 to 1, got 2"),
        ({"gap_s": float("nan")}, "gap_s must be a number of at least 0, got nan"),
        ({"gap": "uniform"}, "gap must be constant, exponential or lognormal, got 'uniform'"),
        ({"edit": 0.6, "branch": 0.5}, "the rates of edit, delete, .* add up to 1.1, more than 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, said):
    with pytest.raises(ConfigError, match=said):
        ChatSettings(**wrong)
