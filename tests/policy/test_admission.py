"""Admissions: what each lets in, and that none lets in more than it says."""

import random

import pytest

from kvtier.errors import ConfigError
from kvtier.policy.admission import AdmitAll, LongPrompts, SecondTouch, WorthReloading, WriteBudget
from kvtier.testing.policies import names


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


def test_all_is_all():
    admission = AdmitAll()
    admission.touch(names(1, 2))

    assert admission.admit(names(1, 2)) == 2


# Second touch


def test_a_block_is_let_in_at_its_second_prompt():
    admission = SecondTouch()

    admission.touch(names(1, 2))
    assert admission.admit(names(1, 2)) == 0
    admission.touch(names(1, 3))
    assert admission.admit(names(1, 3)) == 1


def test_a_block_used_once_long_ago_does_not_sink():
    admission = SecondTouch()
    admission.touch(names(1))
    admission.touch(names(2))

    assert admission.admit(names(1)) == 0


def test_a_block_that_no_prompt_has_asked_for_stays_out():
    assert SecondTouch().admit(names(1)) == 0


def test_a_third_use_changes_nothing():
    admission = SecondTouch()
    for _ in range(3):
        admission.touch(names(1))

    assert admission.admit(names(1)) == 1


def test_the_last_names_are_remembered_for_sure_and_no_more_than_said():
    admission = SecondTouch(max_names=10)
    for number in range(1000):
        admission.touch(names(number))
        recent = admission._seen_twice
        assert len(recent._young) + len(recent._old) <= 10

    admission.touch(names(*range(995, 1000)))
    assert admission.admit(names(*range(995, 1000))) == 5
    admission.touch(names(5))
    assert admission.admit(names(5)) == 0


def test_a_name_noted_again_keeps_what_is_known_of_it():
    admission = SecondTouch(max_names=4)
    admission.touch(names(1))
    admission.touch(names(1, 2))
    admission.touch(names(1))

    assert admission.admit(names(1)) == 1


# Long prompts


def test_a_prompt_is_let_in_from_a_length_on():
    admission = LongPrompts(3)

    admission.touch(names(1, 2, 3))
    assert admission.admit(names(2, 3)) == 2
    admission.touch(names(7, 8))
    assert admission.admit(names(7, 8)) == 0


def test_a_block_counts_as_what_its_last_prompt_was():
    admission = LongPrompts(3)
    admission.touch(names(1, 2))
    admission.touch(names(1, 5, 6))
    admission.touch(names(8))

    assert admission.admit(names(1)) == 1
    assert admission.admit(names(2)) == 0


def test_what_was_forgotten_is_let_in():
    admission = LongPrompts(3, max_names=4)
    admission.touch(names(1))
    for number in range(2, 8):
        admission.touch(names(number))

    assert admission.admit(names(1)) == 1


# Worth reloading


def reloading(load_s, latency_s=0.0, num_children=lambda _: 0):
    return WorthReloading(
        lambda depth: 1.0 + depth, load_s, latency_s, depth=lambda key: key[-1], num_children=num_children
    )


@pytest.mark.parametrize(
    ("length", "load_s", "latency_s"), [(1, 1.0, 0.0), (4, 2.5, 0.0), (4, 2.0, 2.0), (9, 1.0, 36.0)]
)
def test_a_prompt_that_loads_as_slowly_as_it_computes_stays_out(length, load_s, latency_s):
    prompt = names(*range(length))

    for faster, admitted in ((0.0, 0), (0.001, length)):
        admission = reloading(load_s - faster, latency_s)
        admission.touch(prompt)
        assert admission.admit(prompt) == admitted


def test_a_prompts_length_counts_not_its_new_blocks_alone():
    admission = reloading(2.0)
    admission.touch(names(0, 1, 2, 3))

    assert admission.admit(names(3)) == 1
    assert admission.admit([]) == 0


def test_nobody_is_asked_how_deep_a_new_block_lies():
    admission = WorthReloading(lambda _: 2.0, 1.0, depth={}.__getitem__)
    admission.touch(names(1, 2))

    assert admission.admit(names(1, 2)) == 2


def test_a_block_that_would_sink_is_judged_by_its_depth():
    admission = reloading(2.5)
    admission.touch(names(*range(100, 150)))

    assert admission.admit(names(3)) == 0
    assert admission.admit(names(4)) == 1


def test_a_block_that_held_ones_come_after_is_let_in():
    admission = reloading(2.5, num_children=lambda key: key[-1] == 0)

    assert admission.admit(names(0)) == 1
    assert admission.admit(names(1)) == 0


# Write budget


@pytest.mark.parametrize("seed", range(20))
def test_in_no_time_is_more_let_in_than_its_share_and_a_burst(seed):
    source, clock = random.Random(seed), Clock()
    admission = WriteBudget(86_400 * 100, 10, clock, burst_s=3.0)  # ten blocks a second, thirty at once
    let_in = []
    for _ in range(200):
        clock.now_s += source.choice([0.0, 0.0, 0.05, 0.7, 5.0])
        let_in.append((clock.now_s, admission.admit(names(*range(source.randrange(40))))))

    for begin, (begin_s, _) in enumerate(let_in):
        total = 0
        for end_s, count in let_in[begin:]:
            total += count
            assert total <= 30 + 10 * (end_s - begin_s) + 1e-6


def test_a_budget_is_used_up():
    clock = Clock()
    admission = WriteBudget(86_400 * 100, 10, clock, burst_s=3.0)
    let_in = admission.admit(names(*range(50)))
    for _ in range(1000):
        clock.now_s += 0.13
        let_in += admission.admit(names(*range(50)))

    assert 1329 <= let_in <= 1330


def test_a_clock_that_steps_back_gives_nothing():
    clock = Clock()
    admission = WriteBudget(86_400 * 100, 10, clock, burst_s=3.0)
    admission.admit(names(*range(50)))
    for clock.now_s in (-5.0, 0.0, -5.0, 0.0):
        assert admission.admit(names(1)) == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WriteBudget(100, 4096, Clock()), "no block would ever be written"),
        (lambda: WriteBudget(float("nan"), 4096, Clock()), "no block would ever be written"),
        (lambda: SecondTouch(1), "max_names must be at least 2"),
        (lambda: LongPrompts(0), "min_blocks must be at least 1"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
