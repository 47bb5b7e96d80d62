"""What holds for every policy, whatever the user does: random chats, with tools, against definitions by brute force."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from kvtier.context import (
    POLICIES,
    AppendOnly,
    Hysteresis,
    LongestLive,
    Message,
    PrefixLedger,
    Prices,
    make_policy,
)

HEAD = (Message(key="system", role="system", tokens=20), Message(key="tools", role="tools", tokens=5))
HEAD_TOKENS = 25
TTL_S = 10
BOUNDED = [name for name in POLICIES if name != "append"]
LIMITS = st.tuples(st.integers(40, 140), st.integers(1, 140)).map(lambda pair: (pair[0], min(pair)))
PRICES = st.tuples(st.floats(0.01, 2), st.floats(0, 1)).map(lambda pair: Prices(write=pair[0], read=pair[0] * pair[1]))
SIZES = st.lists(st.integers(1, 30), min_size=1, max_size=4)
TURNS = st.tuples(
    st.sampled_from(["write"] * 4 + ["edit", "delete", "regenerate", "branch"]), SIZES, st.integers(0, 7), st.booleans()
)
STEADY = st.tuples(st.just("write"), SIZES, st.just(0), st.booleans())
SHORT = st.tuples(st.just("write"), st.lists(st.integers(1, 15), min_size=1, max_size=1), st.just(0), st.just(False))
GAPS = st.sampled_from([0, 1, 4, 9, 11])


class Front:
    """A front end: a path of turns, each a user's message, calls with results perhaps, and a reply."""

    def __init__(self):
        self.turns, self.written = [], 0

    def message(self, role, tokens, **tools):
        self.written += 1
        return Message(key=self.written, role=role, tokens=tokens, **tools)

    def act(self, action, sizes, back, tools):
        where = max(0, len(self.turns) - 1 - back)
        if self.turns and action == "edit":
            old = self.turns[where][0]
            self.turns[where][0] = self.message(old.role, old.tokens)
        elif self.turns and action == "delete":
            del self.turns[where]
        elif self.turns and action == "branch":
            del self.turns[where:]
        elif self.turns and action == "regenerate":
            self.turns[-1].pop()
            return
        turn = [self.message("user", sizes[0])]
        calls = tuple(f"{self.written}.{number}" for number in range(len(sizes) - 1))
        if tools and calls:
            turn.append(self.message("assistant", 3, calls=calls))
            turn += [self.message("tool", size, answers=(call,)) for call, size in zip(calls, sizes[1:], strict=True)]
        self.turns.append(turn)

    def history(self):
        return [*HEAD, *(message for turn in self.turns for message in turn)]

    def reply(self):
        self.turns[-1].append(self.message("assistant", 7))
        return self.turns[-1][-1]


def play(policy, turns, gaps=(), ttl_s=TTL_S):
    """Requests of a chat with what the policy made of each, and the cache's own view of it."""
    front, ledger, now, sent = Front(), PrefixLedger(ttl_s), 0, []
    for turn, gap in zip(turns, gaps or [1] * len(turns), strict=True):
        now += gap
        front.act(*turn)
        history, alive = front.history(), [sequence for sequence, at in sent if now - at < ttl_s]
        kept = policy.trim(history, ledger.live_at(now))
        yield history, kept, lambda messages, alive=alive: live_by_definition(messages, alive)
        sequence = [*kept.messages, front.reply()]
        ledger.sent(sequence, now)
        sent.append((sequence, now))


def live_by_definition(messages, alive):
    """Tokens of the longest prefix that some sequence sent not too long ago begins with."""
    keys = [message.key for message in messages]
    best = 0
    for sequence in alive:
        same = 0
        for key, message in zip(keys, sequence, strict=False):
            if key != message.key:
                break
            same += 1
        best = max(best, same)
    return sum(message.tokens for message in messages[:best])


def cuts_by_definition(history):
    """Every number of leading body messages that can be dropped, with what is sent then."""
    body = history[len(HEAD) :]
    found = {}
    for number in range(len(body)):
        made = {call for message in body[number:] for call in message.calls}
        if all(call in made for message in body[number:] for call in message.answers):
            found[len(HEAD) + number] = [*HEAD, *body[number:]]
    return found


def length(messages):
    return sum(message.tokens for message in messages)


def fallback_by_definition(cuts, low):
    return next((cut for cut, messages in cuts.items() if length(messages) <= low), max(cuts))


chats = given(
    name=st.sampled_from(POLICIES),
    limits=LIMITS,
    prices=PRICES,
    steps=st.lists(st.tuples(TURNS, GAPS), min_size=1, max_size=14),
)


@chats
@settings(max_examples=70, deadline=None)
def test_what_is_sent_is_the_head_and_an_unbroken_end_of_the_history(name, limits, prices, steps):
    turns, gaps = zip(*steps, strict=True)
    for history, kept, _ in play(make_policy(name, *limits, prices), turns, gaps):
        assert list(kept.messages) == [*HEAD, *history[kept.cut :]], "the head, and whole messages"
        assert kept.cut in cuts_by_definition(history), "no result without its call, and never nothing"
        assert kept.tokens == length(kept.messages)
        assert kept.num_dropped == len(history) - len(kept.messages)


@chats
@settings(max_examples=70, deadline=None)
def test_what_is_sent_fits_unless_the_last_message_alone_does_not(name, limits, prices, steps):
    turns, gaps = zip(*steps, strict=True)
    for history, kept, _ in play(make_policy(name, *limits, prices), turns, gaps):
        least = min(map(length, cuts_by_definition(history).values()))
        if name == "append":
            assert kept.tokens == length(history)
        elif least <= limits[0]:
            assert kept.tokens <= limits[0]
        else:
            assert (kept.tokens, kept.excess_tokens) == (least, least - limits[0])


@chats
@settings(max_examples=70, deadline=None)
def test_what_is_said_to_be_live_is_and_nothing_that_expired(name, limits, prices, steps):
    turns, gaps = zip(*steps, strict=True)
    for _, kept, live in play(make_policy(name, *limits, prices), turns, gaps):
        assert kept.live_tokens == live(kept.messages)
        if kept.reason == "recovered" and name in {"longest", "cheapest"}:
            assert live(kept.messages) > HEAD_TOKENS
        if kept.reason == "expired":
            assert live(kept.messages) <= HEAD_TOKENS


@given(limits=LIMITS, prices=PRICES, steps=st.lists(st.tuples(TURNS, GAPS), min_size=1, max_size=14))
@settings(max_examples=200, deadline=None)
def test_the_cheapest_is_never_dearer_than_the_fallback_nor_than_any_live_cut_above_it(limits, prices, steps):
    turns, gaps = zip(*steps, strict=True)
    high, low = limits
    for history, kept, live in play(make_policy("cheapest", *limits, prices), turns, gaps):
        cuts = cuts_by_definition(history)
        fallback = fallback_by_definition(cuts, low)
        others = [messages for cut, messages in cuts.items() if cut <= fallback and length(messages) <= high]
        choices = [cuts[fallback], *(messages for messages in others if live(messages) > HEAD_TOKENS)]

        paid = prices.of(kept.tokens, kept.live_tokens)

        assert all(paid <= prices.of(length(messages), live(messages)) for messages in choices)


@given(limits=LIMITS, steps=st.lists(st.tuples(TURNS, GAPS), min_size=1, max_size=14))
@settings(max_examples=150, deadline=None)
def test_the_longest_has_no_live_cut_above_the_low_limit_that_is_longer(limits, steps):
    turns, gaps = zip(*steps, strict=True)
    high, low = limits
    for history, kept, live in play(LongestLive(*limits), turns, gaps):
        cuts = cuts_by_definition(history)
        fallback = cuts[fallback_by_definition(cuts, low)]
        again = length(fallback) - max(live(fallback), HEAD_TOKENS)
        others = [cuts[cut] for cut in cuts if length(fallback) <= length(cuts[cut]) <= high]
        found = [live(other) for other in others if length(other) - live(other) <= again and live(other) > HEAD_TOKENS]

        if found:
            assert kept.live_tokens >= max(found)
        elif kept.live_tokens <= HEAD_TOKENS:
            assert list(kept.messages) == (history if length(history) <= high else fallback)


@chats
@settings(max_examples=30, deadline=None)
def test_the_same_chat_is_cut_the_same_way_again(name, limits, prices, steps):
    turns, gaps = zip(*steps, strict=True)

    first, again = ([kept for _, kept, _ in play(make_policy(name, *limits, prices), turns, gaps)] for _ in range(2))

    assert first == again


@given(limits=LIMITS, turns=st.lists(STEADY, min_size=1, max_size=25))
@settings(max_examples=150, deadline=None)
def test_without_edits_and_expiry_the_longest_equals_hysteresis(limits, turns):
    expected = [kept.cut for _, kept, _ in play(Hysteresis(*limits), turns)]

    assert [kept.cut for _, kept, _ in play(LongestLive(*limits), turns)] == expected


@given(limits=st.tuples(st.integers(150, 250), st.integers(75, 150)), turns=st.lists(SHORT, min_size=1, max_size=60))
@settings(max_examples=100, deadline=None)
def test_so_does_the_longest_without_its_memory_where_a_turn_is_short_beside_the_low_limit(limits, turns):
    class Forgetful:
        def trim(self, messages, live):
            return LongestLive(*limits).trim(messages, live)

    expected = [kept.cut for _, kept, _ in play(Hysteresis(*limits), turns)]

    assert [kept.cut for _, kept, _ in play(Forgetful(), turns)] == expected


@given(limits=LIMITS, prices=PRICES, turns=st.lists(STEADY, min_size=1, max_size=25))
@settings(max_examples=150, deadline=None)
def test_so_does_the_cheapest_as_long_as_going_on_costs_no_more_than_starting_again(limits, prices, turns):
    chosen = make_policy("cheapest", *limits, prices)
    for (history, one, _), (_, other, live) in zip(play(Hysteresis(*limits), turns), play(chosen, turns), strict=True):
        cuts = cuts_by_definition(history)
        again = cuts[fallback_by_definition(cuts, limits[1])]
        on, anew = (prices.of(length(messages), live(messages)) for messages in (one.messages, again))
        if one.reason != "trimmed" and on > anew:
            break
        assert one.cut == other.cut


@given(limits=LIMITS, turns=st.lists(STEADY, min_size=2, max_size=25))
@settings(max_examples=100, deadline=None)
def test_without_edits_a_cut_only_moves_on_and_what_is_not_cut_is_all_live(limits, turns):
    kept = [kept for _, kept, _ in play(Hysteresis(*limits), turns)]

    for before, after in pairwise(kept):
        assert after.cut >= before.cut
        if after.cut == before.cut:
            assert after.live_tokens == before.tokens + 7, "what was sent, and the reply"


def test_append_only_reads_all_but_what_is_new():
    turns = [("write", [5], 0, False)] * 6

    assert [kept.tokens - kept.live_tokens for _, kept, _ in play(AppendOnly(), turns)] == [30, 5, 5, 5, 5, 5]
