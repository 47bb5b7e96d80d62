"""The ledger, against a list of everything that was sent."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvtier.context import Message, PrefixLedger, nothing_live
from kvtier.errors import ConfigError

TTL_S = 10


def chat(text):
    """Messages of a letter each, as long as the letter's place in the alphabet."""
    return [Message(key=letter, role="user", tokens=ord(letter) - 96) for letter in text]


def length(messages):
    return sum(message.tokens for message in messages)


def common(one, other):
    same = 0
    while same < min(len(one), len(other)) and one[same] == other[same]:
        same += 1
    return one[:same]


TEXTS = st.text("abc", max_size=6)


@given(sent=st.lists(st.tuples(TEXTS, st.integers(0, 8)), max_size=12), asked=TEXTS, later=st.integers(0, 12))
def test_a_prefix_lives_as_long_as_somebody_sent_it_within_its_time(sent, asked, later):
    ledger, now, log = PrefixLedger(TTL_S), 0, []
    for text, gap in sent:
        now += gap
        ledger.sent(chat(text), now)
        log.append((text, now))
    now += later
    alive = [common(asked, text) for text, at in log if now - at < TTL_S]

    assert ledger.live_at(now)(chat(asked)) == max((length(chat(prefix)) for prefix in alive), default=0)


def test_a_read_of_a_prefix_does_not_keep_what_follows_it():
    ledger = PrefixLedger(TTL_S)
    ledger.sent(chat("abc"), 0)
    ledger.sent(chat("ab"), 6)

    assert ledger.live_at(12)(chat("abc")) == length(chat("ab"))


def test_a_sequence_can_have_a_lifetime_of_its_own_and_a_short_one_does_not_cut_it():
    ledger = PrefixLedger(TTL_S)
    ledger.sent(chat("ab"), 0, ttl_s=3600)
    ledger.sent(chat("abc"), 1)

    assert ledger.live_at(3599)(chat("abc")) == length(chat("ab"))
    assert ledger.live_at(3600)(chat("abc")) == 0


def test_what_has_expired_is_forgotten():
    ledger = PrefixLedger(TTL_S)
    for number in range(100):
        ledger.sent([Message(key=number, role="user", tokens=1)], float(number))

    assert len(ledger) <= 2 * TTL_S


def test_what_lives_is_not_forgotten_with_it():
    ledger = PrefixLedger(TTL_S)
    ledger.sent(chat("ab"), 0)
    ledger.sent(chat("ac"), 9)
    ledger.sent(chat("d"), 15)

    assert len(ledger) == 3
    assert ledger.live_at(15)(chat("ac")) == length(chat("ac"))


def test_a_cache_without_a_clock_keeps_everything():
    ledger = PrefixLedger(math.inf)
    ledger.sent(chat("abc"), 0)

    assert ledger.live_at(1e12)(chat("abc")) == length(chat("abc"))


def test_nothing_is_live_for_who_does_not_care():
    assert nothing_live(chat("abc")) == 0


@pytest.mark.parametrize("ttl_s", [0, -1, math.nan])
def test_a_lifetime_that_cannot_be_is_refused(ttl_s):
    with pytest.raises(ConfigError, match="ttl_s must be more than 0 seconds"):
        PrefixLedger(ttl_s)
