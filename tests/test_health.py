"""When a tier that failed is asked again."""

import pytest

from kvtier.health import FIRST_WAIT_S, LONGEST_WAIT_S, Breaker


def failing(*times):
    """A breaker whose calls failed at these times."""
    breaker = Breaker()
    for now in times:
        breaker.failed("it is full", now)
    return breaker


def failed_at_every_try(count):
    """One whose every try failed as soon as it was allowed."""
    breaker, waits, now = Breaker(), [], 100.0
    for _ in range(count):
        breaker.failed("it is full", now)
        waits.append(breaker.retry_at - now)
        now = breaker.retry_at
    return waits


def test_a_fresh_one_works():
    breaker = Breaker()

    assert (breaker.works, breaker.may_try(0.0)) == (True, True)


def test_after_one_failure_it_is_asked_again_at_once():
    breaker = failing(5.0)

    assert (breaker.works, breaker.reason, breaker.may_try(5.0)) == (False, "it is full", True)


def test_after_two_failures_it_is_left_alone_for_a_while():
    breaker = failing(5.0, 5.0)

    assert not breaker.may_try(5.0 + FIRST_WAIT_S - 0.001)
    assert breaker.may_try(5.0 + FIRST_WAIT_S)
    assert not breaker.works


def test_each_failed_try_doubles_the_wait_up_to_a_bound():
    waits = failed_at_every_try(12)

    assert waits[:4] == [0.0, FIRST_WAIT_S, 2 * FIRST_WAIT_S, 4 * FIRST_WAIT_S]
    assert waits[-3:] == [LONGEST_WAIT_S] * 3
    assert waits == sorted(waits)


def test_thousands_of_failures_are_no_wait_beyond_the_bound():
    assert failed_at_every_try(5000)[-1] == LONGEST_WAIT_S


@pytest.mark.parametrize("others", [1, 5])
def test_calls_that_fail_at_the_same_time_count_once(others):
    breaker = failing(5.0, 5.0, *[5.0 + FIRST_WAIT_S / 2] * others)

    assert breaker.may_try(5.0 + FIRST_WAIT_S)


def test_the_reason_is_that_of_the_last_failure():
    breaker = failing(5.0, 5.0)
    breaker.failed("it is gone", 5.0)

    assert breaker.reason == "it is gone"


def test_what_works_again_has_forgotten_its_failures():
    breaker = failing(5.0, 5.0, 6.0)
    breaker.worked()
    assert (breaker.works, breaker.may_try(5.0)) == (True, True)
    breaker.failed("it is full", 7.0)

    assert breaker.may_try(7.0)
