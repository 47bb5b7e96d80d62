"""Where a chat may be cut."""

import pytest

from kvtier.context import Chat, Message
from kvtier.errors import ConfigError


def message(key, tokens=10, role="user", calls=(), answers=()):
    return Message(key=key, role=role, tokens=tokens, calls=calls, answers=answers)


SYSTEM = message("system", 100, "system")
TOOLS = message("tools", 50, "tools")


def test_a_cut_lies_between_two_messages_and_never_behind_the_last():
    chat = Chat([SYSTEM, message("a", 1), message("b", 2), message("c", 4)])

    assert chat.lengths == {1: 107, 2: 106, 3: 104}
    assert chat.last == 3


def test_the_head_is_what_leads_with_system_and_tools():
    chat = Chat([SYSTEM, TOOLS, message("a"), message("late", 7, "system")])

    assert (chat.num_head, chat.head_tokens) == (2, 150)
    assert chat.from_cut(3) == (SYSTEM, TOOLS, message("late", 7, "system"))


def test_a_chat_of_a_head_alone_has_nothing_to_cut():
    chat = Chat([SYSTEM, TOOLS])

    assert chat.lengths == {2: 150}
    assert chat.from_cut(2) == (SYSTEM, TOOLS)


def test_no_cut_separates_a_call_from_its_result():
    body = [message("u"), message("calls", role="assistant", calls=("c1", "c2"))]
    body += [message("r1", role="tool", answers=("c1",)), message("r2", role="tool", answers=("c2",)), message("end")]

    assert list(Chat([SYSTEM, *body]).lengths) == [1, 2, 5]


def test_one_message_can_carry_several_results():
    body = [message("c1", calls=("1",)), message("c2", calls=("2",)), message("both", answers=("1", "2")), message("u")]

    assert list(Chat(body).lengths) == [0, 3]


def test_a_call_that_waits_for_its_result_may_come_first():
    assert list(Chat([message("u"), message("call", calls=("1",))]).lengths) == [0, 1]


def test_an_id_used_again_means_the_latest_call():
    body = [message("c", calls=("1",)), message("r", answers=("1",)), message("d", calls=("1",))]
    body += [message("s", answers=("1",))]

    assert list(Chat(body).lengths) == [0, 2]


def test_a_front_end_can_ask_for_a_users_message_first():
    body = [message("u1"), message("a1", role="assistant"), message("u2"), message("a2", role="assistant")]

    assert list(Chat([SYSTEM, *body], {"user"}).lengths) == [1, 3]


def test_within_takes_the_first_cut_that_fits_and_else_the_last():
    chat = Chat([SYSTEM, message("a", 30), message("b", 20), message("c", 10)])

    assert [chat.within(limit) for limit in (160, 159, 130, 129, 110, 109)] == [1, 2, 2, 3, 3, 3]


def test_a_result_without_its_call_is_refused():
    with pytest.raises(ConfigError, match="message 'r' answers call '9', which no message before it makes"):
        Chat([message("r", answers=("9",)), message("c", calls=("9",))])


def test_nothing_to_send_is_refused():
    with pytest.raises(ConfigError, match="no messages"):
        Chat([])


@pytest.mark.parametrize("tokens", [-1, 1.5, True, None, "7"])
def test_a_length_that_cannot_be_is_refused(tokens):
    with pytest.raises(ConfigError, match="message 'm': tokens must be a whole number of at least 0, got"):
        message("m", tokens)


def test_a_key_that_cannot_be_compared_is_refused():
    with pytest.raises(ConfigError, match="hashable, got list"):
        message(["text"])
