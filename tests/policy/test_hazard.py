"""Hazard: the laws of every policy, what it learns, and how it goes through prompts."""

import random

import pytest
from forests import random_prompts, replay

from kvtier.policy.base import Arranging, Setting
from kvtier.policy.hazard import Hazard, hazard
from kvtier.policy.lru import LRU
from kvtier.testing.policies import PolicyTests, names, sweep_all, take


class TestHazard(PolicyTests):
    @pytest.fixture
    def policy(self):
        return Hazard()


class TestHazardThatForgets(PolicyTests):
    @pytest.fixture
    def policy(self):
        return Hazard(max_names_gone=3)


def ask(policy, *numbers, held=None):
    """One prompt; what is not held of it is inserted."""
    policy.touch(names(*numbers))
    policy.insert([key for key in names(*numbers) if key not in policy._held])
    policy.arrange(names(*numbers))


# Runs


def runs_of(policy):
    """All runs: their names' numbers, how many are held, uses."""
    runs = {id(run): run for run in policy._runs.values()}.values()
    return sorted(([key[-1] for key in run.names], run.num_held, run.uses) for run in runs)


def test_the_new_blocks_of_a_prompt_are_a_run():
    policy = Hazard()
    ask(policy, 1, 2, 3)
    ask(policy, 1, 2, 3, 4, 5)

    assert runs_of(policy) == [([1, 2, 3], 3, 2), ([4, 5], 2, 1)]


def test_a_prompt_that_turns_off_splits_a_run():
    policy = Hazard()
    ask(policy, *range(1, 10))
    ask(policy, 1, 2, 3, 4, *range(20, 30))

    assert runs_of(policy) == [([1, 2, 3, 4], 4, 2), ([5, 6, 7, 8, 9], 5, 1), ([*range(20, 30)], 10, 1)]


def test_a_prompt_that_ends_inside_a_run_splits_it():
    policy = Hazard()
    ask(policy, 1, 2, 3)
    ask(policy, 1)

    assert runs_of(policy) == [([1], 1, 2), ([2, 3], 2, 1)]


def test_both_parts_of_a_split_run_keep_its_uses():
    policy = Hazard()
    ask(policy, 1, 2, 3)
    ask(policy, 1, 2, 3)
    ask(policy, 1)

    assert runs_of(policy) == [([1], 1, 3), ([2, 3], 2, 2)]


def test_a_run_that_lost_its_tail_takes_it_up_again():
    policy = Hazard()
    ask(policy, 1, 2, 3, 4)
    assert take(policy, 3) == names(4, 3, 2)
    assert runs_of(policy) == [([1, 2, 3, 4], 1, 1)]

    ask(policy, 1, 2, 3, 4, 5)

    assert runs_of(policy) == [([1, 2, 3, 4], 4, 2), ([5], 1, 1)]


def test_a_split_leaves_each_part_what_is_held_of_it():
    policy = Hazard()
    ask(policy, 1, 2, 3, 4)
    take(policy, 2)

    policy.touch(names(1, 9))
    assert runs_of(policy) == [([1], 1, 2), ([2, 3, 4], 1, 1)]
    policy.touch(names(2, 3))
    assert runs_of(policy) == [([1], 1, 2), ([2, 3], 1, 2), ([4], 0, 1)]


def test_a_run_that_has_left_keeps_its_uses():
    policy = Hazard()
    ask(policy, 1, 2)
    ask(policy, 1, 2)
    sweep_all(policy)

    ask(policy, 1, 2)

    assert runs_of(policy) == [([1, 2], 2, 3)]


def test_what_left_first_is_forgotten_first_and_whole():
    policy = Hazard(max_names_gone=4)
    for first in (10, 20, 30):
        ask(policy, first, first + 1)
        sweep_all(policy)
    ask(policy, 40)

    assert runs_of(policy) == [([20, 21], 0, 1), ([30, 31], 0, 1), ([40], 1, 1)]
    assert policy._num_gone == 4


def test_a_run_forgotten_before_it_comes_back_is_a_new_one():
    policy = Hazard(max_names_gone=1)
    policy.insert(names(1, 2))
    sweep_all(policy)
    policy.touch(names(1, 2))

    policy.insert(names(1, 2))

    assert runs_of(policy) == [([1, 2], 2, 1)]


def test_a_prompt_is_gone_through_by_runs_and_bisection():
    policy = Hazard()
    prompt = names(*range(1, 201)) * 1
    policy.insert(prompt)

    class Counted(list):
        num_read = 0

        def __getitem__(self, at):
            Counted.num_read += 1
            return super().__getitem__(at)

    policy.touch(Counted(prompt))
    assert Counted.num_read <= 3
    policy.touch(Counted(prompt[:150]))
    assert Counted.num_read <= 20


def test_names_removed_are_forgotten_in_time():
    policy = Hazard()
    policy.insert(names(1, 2))
    for number in range(3, 250):
        for _ in range(10):
            policy.insert(names(number, 0))
            policy.remove(names(number, 0))

    assert policy._num_waiting <= 2 * 2 + 1000 + 2
    assert sweep_all(policy) == names(2, 1)


# Order


def test_it_orders_what_comes_in_parts_of_a_prompt():
    assert isinstance(Hazard(), Arranging)


def test_within_a_prompt_tails_leave_first():
    policy = Hazard()
    ask(policy, 1, 2)
    ask(policy, 1, 2)
    ask(policy, 1, 2, 3, 4)
    ask(policy, 1, 2, 3, 4, 5)

    assert sweep_all(policy) == names(5, 4, 3, 2, 1)


@pytest.mark.parametrize("use", [ask, lambda policy, *numbers: policy.touch(names(*numbers))])
def test_so_they_do_among_runs_of_one_kind(use):
    policy = Hazard()
    ask(policy, 1, 2)
    for _ in range(3):
        ask(policy, 1, 2, 3, 4)

    use(policy, 1, 2, 3, 4)

    assert {run.kind for run in policy._runs.values()} == {2}
    assert sweep_all(policy) == names(4, 3, 2, 1)


def test_among_runs_used_equally_often_the_one_used_last_leaves_last():
    policy = Hazard()
    ask(policy, 1, 2)
    ask(policy, 3)
    ask(policy, 4)

    assert sweep_all(policy) == names(2, 1, 3, 4)


def test_a_run_whose_tail_is_refused_is_passed_over_and_keeps_its_place():
    policy = Hazard()
    ask(policy, 1, 2)
    ask(policy, 3, 4)
    asked = []

    assert take(policy, 1, lambda key: asked.append(key) or key != names(2)[0]) == names(4)
    assert asked == names(2, 4)
    assert sweep_all(policy) == names(2, 1, 3)


def test_the_rest_of_a_run_whose_tail_is_refused_is_asked_about_in_the_end():
    policy = Hazard()
    ask(policy, 1, 2, 3)
    ask(policy, 4, 5)

    assert sweep_all(policy, lambda key: key not in names(3, 2)) == names(5, 4, 1)
    assert sweep_all(policy) == names(3, 2)


def test_arranging_moves_nothing_but_the_last_prompt():
    policy = Hazard()
    ask(policy, 1)
    ask(policy, 2)

    policy.arrange(names(1))

    assert sweep_all(policy) == names(1, 2)


# Rates


def test_at_first_the_rate_falls_as_the_age_grows():
    rates = Hazard()._rates

    assert [rates.rate(0, waited) for waited in (0, 1, 2, 3, 4, 8)] == [1 / 2, 1 / 2, 1 / 4, 1 / 4, 1 / 8, 1 / 16]


def test_what_is_not_known_of_a_kind_is_taken_from_all():
    rates = Hazard()._rates
    for _ in range(100):
        rates.note_wait(2, 0)
        rates.note_use(2, 1)

    assert rates.rate(0, 1) == pytest.approx(101 / 102)


def test_a_rate_is_uses_over_requests_waited():
    """Eight single blocks, each used after three requests or never: counted by hand."""
    policy = Hazard()
    for first in range(10, 50, 10):
        ask(policy, first)
        ask(policy, first + 1)
        ask(policy, first + 2)
        ask(policy, first)

    rates = policy._rates
    assert rates._num_uses[0][1] == 4
    assert rates._num_uses[0][0] == 0
    waits = [now - since for since in range(1, 17) for now in [16]]
    assert sum(map(sum, rates._waited)) == sum(policy_waited(waits))


def policy_waited(waits):
    """What the four blocks used again and the twelve others have waited for, to the end of their class of ages."""
    firsts, others = [1, 5, 9, 13], [2, 3, 6, 7, 10, 11, 14, 15]
    for first in firsts:
        yield 3
        yield end_of_class(16 - (first + 3))
    for other in others:
        yield end_of_class(16 - other)


def end_of_class(waited):
    return next(2 ** (age + 1) for age in range(10) if waited < 2 ** (age + 1))


def test_it_learns_that_what_was_used_once_is_not_used_again():
    policy, fresh = Hazard(), iter(range(100, 10**6))
    for _ in range(100):
        ask(policy, 1)
        for _ in range(5):
            ask(policy, next(fresh))
        if len(policy) > 50:
            take(policy, 5)

    victims = take(policy, len(policy) - 1)

    assert names(1)[0] not in victims


def test_a_run_used_more_often_is_never_rated_lower():
    policy = Hazard()
    for _ in range(200):  # whatever was used once is used again at once, and then no more
        number = 2 * policy._now + 10
        policy.touch([number])
        policy.insert([number])
        policy.touch([number])

    rates = policy._rates
    assert all(rates.rate(0, 2**age) <= rates.rate(1, 2**age) <= rates.rate(2, 2**age) for age in range(10))


def test_a_split_counts_the_head_as_having_waited_too():
    policy = Hazard()
    policy.insert(names(1, 2, 3))
    for _ in range(20):
        policy.touch(names(99))

    policy.touch(names(1))

    assert all(waited >= 0 for kind in policy._rates._waited for waited in kind)
    assert sum(policy._rates._waited[0]) == 21 + 32  # the head's, and the tail's to the end of its class


@pytest.mark.parametrize("seed", range(40))
def test_books_balance_over_random_prompts(seed):
    source = random.Random(seed)
    prompts = random_prompts(seed, max_blocks=20, max_requests=60)
    kept = []

    def make(setting):
        kept.append(Hazard(max_names_gone=source.choice([2, 100])))
        return kept[0]

    replay(prompts, source.randint(4, 12), make, check=True)

    [policy] = kept
    waiting = [run for line in policy._waiting for run in line]
    assert policy._num_waiting == sum(run.num_held for run in waiting) == len(policy)
    assert policy._num_gone == sum(len(run.names) for run in policy._gone)
    assert {key for run in waiting for key in run.names[: run.num_held]} == policy._held
    assert all(run.kind == kind for kind, line in enumerate(policy._waiting) for run in line)
    assert all(waited >= 0 for kind in policy._rates._waited for waited in kind)


def chats(seed, num_requests=1500):
    """Chats of a few turns among prompts that never come back, and a system prompt."""
    source, fresh, open_chats, prompts = random.Random(seed), iter(range(2, 10**6)), [], []
    for _ in range(num_requests):
        if source.random() < 0.5 or not open_chats:
            prompt = [0, 1, *(next(fresh) for _ in range(source.randint(3, 8)))]
        else:
            prompt = open_chats.pop(source.randrange(len(open_chats)))
            prompt = [*prompt, next(fresh), next(fresh)]
        if len(prompt) > 9 or source.random() < 0.25:
            open_chats = [*open_chats, prompt][-12:]
        prompts.append(prompt)
    return prompts


def test_over_chats_it_gets_more_hits_than_lru():
    prompts = chats(1)

    hits = {make: replay(prompts, 100, make)[0] for make in (hazard, lambda _: LRU())}

    ours, lru = hits.values()
    assert ours > 1.05 * lru


def test_the_factory_needs_no_setting():
    assert isinstance(hazard(Setting(capacity_blocks=4)), Hazard)
