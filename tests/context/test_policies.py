"""Each policy on chats small enough to see: H = 100, L = 60, a head of 10 and messages of 10 unless said otherwise."""

import pytest

from kvtier.context import (
    POLICIES,
    REASONS,
    AppendOnly,
    CheapestLive,
    ChunkedDrop,
    Hysteresis,
    LongestLive,
    Message,
    PrefixLedger,
    Prices,
    SlidingWindow,
    TrimWhenExpired,
    make_policy,
    nothing_live,
)
from kvtier.errors import ConfigError

PRICES = Prices(write=1.25, read=0.1)
BOUNDED = [name for name in POLICIES if name != "append"]


def chat(*body, head=10):
    """A head, and messages given as keys (10 tokens) or pairs of key and tokens."""
    pairs = [item if isinstance(item, tuple) else (item, 10) for item in body]
    messages = [Message(key=key, role="user", tokens=tokens) for key, tokens in pairs]
    return [Message(key="head", role="system", tokens=head), *messages]


def everything(messages):
    return sum(message.tokens for message in messages)


def only(*sequences):
    """A cache that holds these histories, as ``chat`` makes them, and nothing else."""
    ledger = PrefixLedger(1)
    for sequence in sequences:
        ledger.sent(sequence, 0)
    return ledger.live_at(0)


def make(name, high=100, low=60):
    return make_policy(name, high, low, PRICES)


def numbers(first, last):
    return chat(*range(first, last + 1))


def sent(kept):
    return [message.key for message in kept.messages[1:]]


def test_append_only_sends_everything():
    kept = AppendOnly().trim(numbers(1, 50), everything)

    assert (kept.tokens, kept.cut, kept.num_dropped, kept.excess_tokens, kept.reason) == (510, 1, 0, 0, "whole")
    assert kept.live_tokens == 510


def test_a_sliding_window_drops_a_little_every_turn():
    policy = SlidingWindow(100)

    assert [sent(policy.trim(numbers(1, n), nothing_live))[0] for n in (9, 10, 11)] == [1, 2, 3]
    assert policy.trim(numbers(1, 11), nothing_live).reason == "kept"
    assert policy.trim(numbers(1, 12), nothing_live).reason == "trimmed"


def test_hysteresis_cuts_to_the_low_limit_and_keeps_that_cut_until_the_high_one():
    policy = Hysteresis(100, 60)

    kept = [policy.trim(numbers(1, n), nothing_live) for n in range(9, 16)]

    assert [sent(each)[0] for each in kept] == [1, 6, 6, 6, 6, 6, 11]
    assert [each.reason for each in kept] == ["whole", "trimmed", "kept", "kept", "kept", "kept", "trimmed"]
    assert [each.tokens for each in kept] == [100, 60, 70, 80, 90, 100, 60]


def test_hysteresis_without_its_memory_slides_at_the_low_limit():
    assert [sent(Hysteresis(100, 60).trim(numbers(1, n), nothing_live))[0] for n in (10, 11, 12)] == [6, 7, 8]


def test_a_remembered_cut_follows_its_message_when_others_are_deleted():
    policy = Hysteresis(100, 60)
    policy.trim(numbers(1, 10), nothing_live)

    kept = policy.trim(chat(1, 4, 5, 6, 7, 8, 9, 10, 11), nothing_live)

    assert (sent(kept)[0], kept.cut, kept.reason) == (6, 4, "kept")


def test_of_equal_messages_the_nearest_to_the_old_cut_is_taken():
    policy = Hysteresis(100, 60)
    policy.trim(chat(1, "yes", 3, 4, 5, "yes", 7, 8, 9, 10), nothing_live)

    kept = policy.trim(chat(1, "yes", 3, 4, 5, "yes", 7, 8, 9, 10, "yes"), nothing_live)

    assert kept.cut == 6


def test_a_step_back_to_before_the_cut_starts_uncut():
    policy = Hysteresis(100, 60)
    policy.trim(numbers(1, 10), nothing_live)

    kept = policy.trim(chat(1, 2, 3, "other"), nothing_live)

    assert (kept.cut, kept.reason) == (1, "whole")


def test_a_chat_that_was_not_cut_stays_so_when_something_is_put_before_it():
    policy = Hysteresis(100, 60)
    policy.trim(chat(1, 2), nothing_live)

    assert sent(policy.trim(chat("summary", 1, 2, 3), nothing_live)) == ["summary", 1, 2, 3]


def test_a_chunked_drop_needs_no_memory():
    old = ChunkedDrop(100, 40)

    for n in range(9, 20):
        kept = old.trim(numbers(1, n), nothing_live)
        assert kept.cut == ChunkedDrop(100, 40).trim(numbers(1, n), nothing_live).cut
        assert sent(kept)[0] == (1 if n < 10 else 5 if n < 14 else 9 if n < 18 else 13)


def test_a_chunked_drop_says_what_it_did():
    policy = ChunkedDrop(100, 40)

    assert [policy.trim(numbers(1, n), nothing_live).reason for n in (9, 10, 11, 14)] == [
        "whole",
        "trimmed",
        "kept",
        "trimmed",
    ]


def test_what_has_expired_is_cut_while_that_costs_nothing():
    policy = TrimWhenExpired(100, 60)
    live = policy.trim(numbers(1, 8), only(numbers(1, 7)))
    expired = policy.trim(numbers(1, 9), only(chat()))

    assert (live.reason, live.tokens) == ("whole", 90)
    assert (expired.reason, sent(expired)[0], expired.tokens) == ("expired", 5, 60)


def test_an_expired_chat_below_the_low_limit_is_left_alone():
    assert TrimWhenExpired(100, 60).trim(numbers(1, 5), nothing_live).reason == "whole"


def test_an_expired_chat_is_not_cut_where_more_was_dropped_already():
    policy = TrimWhenExpired(100, 60)
    policy.trim(numbers(1, 10), nothing_live)

    kept = policy.trim(chat(4, 5, 6, 7), nothing_live)

    assert (sent(kept), kept.reason) == ([6, 7], "kept")


def test_a_cut_that_is_at_the_low_limit_already_is_kept_after_an_expiry():
    policy = TrimWhenExpired(100, 60)
    policy.trim(numbers(1, 10), nothing_live)

    kept = policy.trim(numbers(1, 10), nothing_live)

    assert (sent(kept)[0], kept.reason) == (6, "kept")


def test_over_the_high_limit_an_expired_chat_counts_as_trimmed():
    assert TrimWhenExpired(100, 60).trim(numbers(1, 10), nothing_live).reason == "trimmed"


def test_the_longest_live_prefix_wins():
    live = only(numbers(3, 5), numbers(4, 9), numbers(5, 6))

    kept = LongestLive(100, 60).trim(numbers(1, 10), live)

    assert (sent(kept)[0], kept.live_tokens, kept.reason) == (4, 70, "recovered")


def test_a_live_cut_that_does_not_fit_is_no_choice():
    kept = LongestLive(100, 60).trim(numbers(1, 12), only(numbers(3, 11), numbers(8, 9)))

    assert sent(kept)[0] == 8


def test_the_head_alone_makes_no_cut_live():
    kept = LongestLive(100, 60).trim(numbers(1, 10), only(chat()))

    assert (sent(kept)[0], kept.live_tokens, kept.reason) == (6, 10, "trimmed")


def test_where_nothing_is_live_what_fits_is_sent_whole():
    assert LongestLive(100, 60).trim(numbers(1, 9), nothing_live).reason == "whole"


@pytest.mark.parametrize("name", ["longest", "cheapest"])
def test_a_user_who_repeats_what_once_came_first_does_not_lose_the_chat(name):
    kept = make(name).trim(chat(*range(1, 11), 3), only(numbers(3, 10)))

    assert (sent(kept)[0], len(sent(kept))) == (3, 9)


@pytest.mark.parametrize("name", ["longest", "cheapest"])
def test_after_a_step_back_the_last_cut_is_kept_though_it_leaves_little(name):
    policy = make(name)
    policy.trim(numbers(1, 10), nothing_live)

    kept = policy.trim(chat(1, 2, 3, 4, 5, 6, 7, "other"), only(numbers(6, 10)))

    assert (sent(kept), kept.live_tokens, kept.reason) == ([6, 7, "other"], 30, "kept")


def test_of_equally_live_cuts_the_one_that_keeps_more_is_taken():
    kept = LongestLive(100, 60).trim(chat("a", "b", "a", "b", "a", 6, 7, 8), only(chat("a", "b", "a")))

    assert kept.cut == 1


def test_a_cut_that_goes_on_is_kept_and_one_that_has_expired_is_said_to_have():
    policy = LongestLive(100, 60)

    first = policy.trim(numbers(1, 10), only(numbers(1, 9)))
    second = policy.trim(numbers(1, 11), only(numbers(6, 10)))
    third = policy.trim(numbers(1, 13), nothing_live)
    fourth = policy.trim(numbers(1, 13), nothing_live)

    assert [first.reason, second.reason, third.reason, fourth.reason] == ["trimmed", "kept", "expired", "kept"]
    assert [sent(kept)[0] for kept in (first, second, third, fourth)] == [6, 6, 9, 9]


def test_an_older_cut_is_recovered_after_a_switch_of_branches():
    policy = LongestLive(100, 60)
    policy.trim(numbers(1, 10), only(numbers(1, 9)))

    kept = policy.trim(numbers(1, 8), only(numbers(1, 9), numbers(6, 10)))

    assert (kept.cut, kept.live_tokens) == (1, 90)


def test_the_longest_live_prefix_can_be_dearer_than_the_cheapest():
    prices = Prices(write=1.25, read=0.5)
    live = only(numbers(2, 7))
    history = numbers(1, 10)

    longest = LongestLive(100, 60).trim(history, live)
    cheapest = CheapestLive(100, 60, prices).trim(history, live)

    assert (sent(longest)[0], sent(cheapest)[0]) == (2, 6)
    assert prices.of(longest.tokens, longest.live_tokens) > prices.of(cheapest.tokens, cheapest.live_tokens)
    assert cheapest.reason == "cheaper"


def test_a_short_live_prefix_with_a_long_remainder_is_passed_over():
    def first(last_live):
        return sent(LongestLive(100, 60).trim(numbers(1, 10), only(numbers(2, last_live))))[0]

    assert [first(last_live) for last_live in (2, 3, 4, 5, 6)] == [6, 6, 6, 2, 2]


def test_the_cheapest_reads_what_is_live_as_long_as_that_costs_less():
    kept = CheapestLive(100, 60, PRICES).trim(numbers(1, 10), only(numbers(3, 9)))

    assert (sent(kept)[0], kept.reason) == (3, "recovered")


def test_where_reading_costs_as_much_as_writing_the_cheapest_is_the_shortest():
    kept = CheapestLive(100, 60, Prices(write=1, read=1)).trim(numbers(1, 9), only(numbers(1, 8)))

    assert (sent(kept)[0], kept.reason) == (5, "cheaper")


def test_of_equally_cheap_cuts_the_one_that_keeps_more_is_taken():
    kept = CheapestLive(100, 60, Prices(write=1, read=0)).trim(numbers(1, 9), only(numbers(1, 9), numbers(3, 9)))

    assert kept.cut == 1


def test_the_cheapest_says_when_it_keeps_its_cut():
    policy = CheapestLive(100, 60, PRICES)
    policy.trim(numbers(1, 10), nothing_live)

    assert policy.trim(numbers(1, 11), only(numbers(6, 10))).reason == "kept"


@pytest.mark.parametrize("name", BOUNDED)
def test_a_message_longer_than_the_limit_is_sent_and_said_to_be(name):
    kept = make(name).trim(chat(1, 2, ("long", 150)), nothing_live)

    assert sent(kept) == ["long"]
    assert (kept.tokens, kept.excess_tokens) == (160, 60)
    assert "60 tokens over the limit, for the last message cannot be split" in str(kept)


@pytest.mark.parametrize("name", BOUNDED)
def test_a_call_and_its_results_stay_together_even_over_the_limit(name):
    call = Message(key="call", role="assistant", tokens=60, calls=("1",))
    result = Message(key="result", role="tool", tokens=60, answers=("1",))

    kept = make(name).trim([*chat(1, 2), call, result], nothing_live)

    assert sent(kept) == ["call", "result"]
    assert kept.excess_tokens == 30


@pytest.mark.parametrize("name", POLICIES)
def test_the_first_roles_that_an_api_wants_are_kept_to(name):
    body = [Message(key=n, role="user" if n % 2 else "assistant", tokens=10) for n in range(1, 22)]

    kept = make_policy(name, 100, 60, PRICES, first_roles={"user"}).trim(body, nothing_live)

    assert kept.messages[0].role == "user"
    assert name == "append" or kept.tokens <= 100


@pytest.mark.parametrize("name", POLICIES)
def test_a_chat_of_a_head_alone_is_sent(name):
    assert make(name).trim(chat(), nothing_live).tokens == 10


@pytest.mark.parametrize("name", BOUNDED)
def test_a_head_above_the_limit_is_refused(name):
    with pytest.raises(ConfigError, match=r"the head .* has 101 tokens, more than the high limit of 100"):
        make(name).trim(chat(1, head=101), nothing_live)


def test_a_cache_that_claims_too_much_is_not_believed():
    assert make("hysteresis").trim(numbers(1, 3), lambda messages: 10**9).live_tokens == 40
    assert make("cheapest").trim(numbers(1, 3), lambda messages: 10**9).live_tokens == 40


def test_an_answer_says_what_is_sent_and_why():
    said = str(Hysteresis(100, 60).trim(numbers(1, 10), only(numbers(6, 7))))

    assert said == f"60 tokens, 30 of them live, 5 messages dropped: {REASONS['trimmed']}"


@pytest.mark.parametrize("limits", [(0, 0), (100, 0), (100.0, 60), (True, 1), (-5, -6)])
def test_limits_that_cannot_be_are_refused(limits):
    with pytest.raises(ConfigError, match="must be a whole number of at least 1"):
        Hysteresis(*limits)


@pytest.mark.parametrize("name", POLICIES)
def test_a_low_limit_above_the_high_one_is_refused(name):
    with pytest.raises(ConfigError, match="the low limit, 101 tokens, is above the high one, 100"):
        make(name, 100, 101)


def test_equal_limits_make_every_policy_a_sliding_window():
    for n in range(1, 20):
        assert len({make(name, 100, 100).trim(numbers(1, n), nothing_live).cut for name in BOUNDED}) == 1


@pytest.mark.parametrize("chunk", [0, 100, 1.5, True])
def test_a_chunk_that_cannot_be_is_refused(chunk):
    with pytest.raises(ConfigError, match="chunk_tokens must be a whole number from 1 to below the high limit, 100"):
        ChunkedDrop(100, chunk)


def test_a_chunk_of_a_limit_that_is_no_number_is_refused():
    with pytest.raises(ConfigError, match="high_tokens must be a whole number"):
        ChunkedDrop(100.0, 10)


def test_every_policy_has_its_name():
    made = {type(make(name)) for name in POLICIES}

    assert made == {
        AppendOnly,
        SlidingWindow,
        Hysteresis,
        ChunkedDrop,
        TrimWhenExpired,
        LongestLive,
        CheapestLive,
    }


@pytest.mark.parametrize(
    ("name", "said"), [("histeresis", "did you mean hysteresis?"), ("zzz", "there are append, sliding, hysteresis")]
)
def test_an_unknown_policy_names_near_ones(name, said):
    with pytest.raises(ConfigError, match=f"'{name}' is not a context policy; {said.replace('?', '[?]')}"):
        make(name)


@pytest.mark.parametrize("wrong", [{"read": -0.1}, {"write": -1}, {"write": float("nan")}, {"read": float("inf")}])
def test_prices_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigError, match="price must be a number of at least 0"):
        Prices(**{"write": 1.25, "read": 0.1, **wrong})


def test_a_read_dearer_than_a_write_is_refused():
    with pytest.raises(ConfigError, match="the read price, 2, is above the write price, 1"):
        Prices(write=1, read=2)
