"""A prompt's head in one tier: asked about in vain once, and again as soon as its tail is gone.

Two FIFOs evict by different rules, and each is held to a list that does the same:

    asks again     a head refused for its tail is the next to leave once the tail is gone, the first freed first
    asks always    each sweep asks about everybody once, oldest first, and about the head again in the next one

So they differ where one plan needs several places (the head goes before what is younger, in the same
plan), and in the order of several heads freed between two plans (by when they were freed, not by
when they came). Where blocks of unrelated prompts are single they are the same.
"""

import pytest
from core_helpers import carry_out, chain, key, keys, make, put, show, word
from hypothesis import given, settings
from hypothesis import strategies as st

from kvtier.policy.base import Reconsidering, Setting
from kvtier.policy.fifo import FIFO
from kvtier.policy.registry import make_policy
from kvtier.policy.s3fifo import S3FIFO
from kvtier.policy.sieve import Sieve
from kvtier.policy.sweeping import Aside
from kvtier.policy.ttl import TTL
from kvtier.policy.wtinylfu import WTinyLFU
from kvtier.testing.policies import name, names, nobody, sweep_all, take

POLICIES = {"fifo": lambda _: FIFO(), "sieve": lambda _: Sieve(), "s3fifo": S3FIFO, "wtinylfu": WTinyLFU}

IN_ONE_SWEEP = sorted(set(POLICIES) - {"wtinylfu"})
"""Those that come back to a head in the sweep that took its tail; the other one in the next sweep."""

prompts = st.text("ab", min_size=1, max_size=4)
histories = st.lists(prompts, min_size=1, max_size=40)


class Always:
    """A FIFO for which every refusal ends with its sweep."""

    def __init__(self):
        self._inner = FIFO()

    def evict(self, evictable):
        yield from self._inner.evict(lambda key: bool(evictable(key)))

    def __len__(self):
        return len(self._inner)

    def __getattr__(self, name):
        if name == "reconsider":
            raise AttributeError(name)
        return getattr(self._inner, name)


class Lists:
    """What a tier of one FIFO evicts, on lists."""

    def __init__(self, capacity, *, asks_again):
        self.capacity = capacity
        self.asks_again = asks_again
        self.queue = []
        self.waiting = []
        self.free = []

    def is_leaf(self, text):
        return not any(other != text and other.startswith(text) for other in self.queue + self.waiting + self.free)

    def put(self, text):
        """Words that leave for a prompt."""
        prompt = [text[: i + 1] for i in range(len(text))]
        held = self.queue + self.waiting + self.free
        missing = [each for each in prompt if each not in held]
        victims, new = [], []
        self.refused, self.asked = [], set()
        for each in missing:
            if len(held) - len(victims) + len(new) >= self.capacity:
                victim = self.evict(prompt, new)
                if victim is None:
                    break
                victims.append(victim)
            new.append(each)
        self.free += self.refused
        self.queue += reversed(new)
        return victims

    def evict(self, prompt, new):
        while True:
            if self.free:
                victim, was_free = self.free.pop(0), True
            else:
                victim = next((each for each in self.queue if each not in self.asked), None)
                was_free = False
                if victim is None:
                    return None
                self.asked.add(victim)
            if not self.is_leaf(victim) or any(each.startswith(victim) for each in new):
                if was_free or self.asks_again:
                    if not was_free:
                        self.queue.remove(victim)
                    self.waiting.append(victim)
                continue
            if victim in prompt:
                if was_free:
                    self.refused.append(victim)
                continue
            if not was_free:
                self.queue.remove(victim)
            parent = victim[:-1]
            if parent in self.waiting and self.is_leaf(parent):
                self.waiting.remove(parent)
                self.free.append(parent)
            return victim


def victims_of(placement, text):
    plan = placement.plan_write(chain(text))
    assert placement.commit(plan) == []
    placement.check()
    return [word(move.key) for move in plan if move.dst is None]


@given(history=histories, capacity=st.integers(1, 8))
@settings(max_examples=150, deadline=None)
@pytest.mark.parametrize(("policy", "asks_again"), [(FIFO, True), (Always, False)], ids=["asks again", "asks always"])
def test_a_fifo_tier_evicts_as_a_list_does(policy, asks_again, history, capacity):
    placement, lists = make(capacity, policy=lambda _: policy()), Lists(capacity, asks_again=asks_again)

    for text in history:
        assert victims_of(placement, text) == lists.put(text)


@given(history=st.lists(st.sampled_from("abcdefgh"), max_size=60), capacity=st.integers(1, 5))
@settings(deadline=None)
def test_prompts_of_one_block_leave_in_one_order_either_way(history, capacity):
    asking, always = make(capacity, policy=lambda _: FIFO()), make(capacity, policy=lambda _: Always())

    for text in history:
        assert victims_of(asking, text) == victims_of(always, text)


@pytest.mark.parametrize(("policy", "last"), [(FIFO, "p"), (Always, "y")])
def test_a_head_follows_its_tail_at_once_only_where_it_is_asked_about_again(policy, last):
    placement = make(4, policy=lambda _: policy())
    for text in ("p", "x", "pc", "y"):
        put(placement, text)

    assert victims_of(placement, "uvw") == ["x", "pc", last]


@pytest.mark.parametrize(("policy", "order"), [(FIFO, ["q", "p"]), (Always, ["p", "q"])])
def test_heads_leave_in_the_order_in_which_they_were_freed_only_where_they_are_asked_about_again(policy, order):
    placement = make(5, policy=lambda _: policy())
    for text in ("p", "q", "x", "qc", "pc"):
        put(placement, text)
    assert victims_of(placement, "u") == ["x"]
    for text in ("qc", "pc"):
        carry_out(placement, placement.forget(key(text), 0))
    put(placement, "vw")

    assert victims_of(placement, "y") + victims_of(placement, "z") == order


@pytest.mark.parametrize("name", POLICIES)
def test_a_head_is_not_asked_about_while_its_tail_is_there(name):
    placement = make(9, policy=POLICIES[name])
    asked = []

    def spying(evictable):
        return policy_evict(lambda each: asked.append(word(each)) or evictable(each))

    policy = placement._rules[0].policy
    policy_evict = policy.evict
    policy.evict = spying
    put(placement, "p")
    for text in ("pq", "v", "w", "x", "y", "z"):
        put(placement, text)
    placement.lease([key("pq")], "me", 1.0)
    for text in "ABCDEFG":
        put(placement, text)

    assert asked.count("p") == 1


@pytest.mark.parametrize("name", POLICIES)
def test_a_head_used_while_it_waits_keeps_its_place_among_the_used(name):
    placement = make(3, policy=POLICIES[name])
    put(placement, "p")
    put(placement, "pq")
    put(placement, "x")
    assert victims_of(placement, "y") in (["pq"], ["x"])

    for _ in range(3):
        placement.touch(keys("p"))
        put(placement, "z")
    placement.check()


@pytest.mark.parametrize("name", IN_ONE_SWEEP)
@given(history=histories, capacity=st.integers(1, 8), uses=st.lists(prompts, max_size=10), lost=st.lists(prompts))
@settings(max_examples=60, deadline=None)
def test_who_waits_is_found_when_everything_must_leave(name, history, capacity, uses, lost):
    placement = make(capacity, policy=POLICIES[name])
    for turn, text in enumerate(history):
        put(placement, text)
        for use in uses[turn : turn + 1]:
            placement.touch(keys(use))
        for each in lost[turn : turn + 1]:
            moves = placement.forget(key(each), 0)
            while moves:
                moves = placement.commit(moves)
        placement.check()
    held = placement.used_blocks(0)

    plan = placement.plan_write(chain("z" * capacity))

    assert len(plan) == capacity + held
    assert len([move for move in plan if move.dst is None]) == held


def test_only_one_tier_alone_asks_again():
    for policy in POLICIES.values():
        assert make(2, policy=policy).index.on_leaf is not None
        assert make(2, 2, policy=policy).index.on_leaf is None
    assert make(2).index.on_leaf is None


@pytest.mark.parametrize("name", ["lru", "fifo", "lfu", "sieve", "s3fifo", "arc", "wtinylfu", "gdsf"])
def test_who_cannot_be_told_of_a_leaf_is_not_told(name):
    assert isinstance(make_policy(name, Setting(capacity_blocks=4)), Reconsidering) == (name in POLICIES)


def test_a_time_to_live_passes_on_who_need_not_wait_any_more():
    placement = make(2, policy=lambda _: TTL(FIFO(), 10.0, lambda: 0.0))
    put(placement, "p")
    put(placement, "pq")

    assert show(placement.plan_write(chain("xy"))) == ["pq:0>-", "p:0>-", "x:->0", "xy:->0"]


# Aside


def test_who_waits_is_not_given_before_it_is_free():
    aside = Aside()
    first, second = names(1, 2)
    aside.put(first)
    aside.put(second)

    assert (aside.pop(), len(aside)) == (None, 2)
    aside.free(second)
    aside.free(first)
    assert [aside.pop(), aside.pop(), aside.pop()] == [second, first, None]
    assert len(aside) == 0


def test_who_does_not_wait_is_not_freed():
    aside = Aside()
    (stranger,) = names(1)

    aside.free(stranger)

    assert (aside.pop(), len(aside)) == (None, 0)


def test_who_was_refused_is_given_again_after_the_sweep_and_not_in_it():
    aside = Aside()
    first, second = names(1, 2)
    for each in (first, second):
        aside.put(each)
        aside.free(each)
    aside.refuse(aside.pop())

    assert aside.pop() == second
    assert aside.pop() is None
    aside.end()
    assert aside.pop() == first
    aside.end()
    assert aside.pop() is None


@pytest.mark.parametrize("is_free", [False, True])
def test_who_is_forgotten_is_gone(is_free):
    aside = Aside()
    (one,) = names(1)
    aside.put(one)
    if is_free:
        aside.free(one)

    assert aside.discard(one)
    assert not aside.discard(one)
    aside.free(one)
    assert (aside.pop(), len(aside)) == (None, 0)


# What each policy does with who waits


def waiting(policy_name, *, in_main=False):
    """A policy of ten blocks that holds name 1 alone, which has been told to wait."""
    policy = POLICIES[policy_name](10)
    policy.insert(names(1, 2) if in_main else names(1))  # in S3-FIFO, 2 comes first and fills the trial
    if in_main:
        policy.remove(names(2))
    assert sweep_all(policy, lambda key: None) == []
    return policy


SETUPS = [("fifo", False), ("sieve", False), ("s3fifo", False), ("s3fifo", True)]


@pytest.mark.parametrize(("policy", "in_main"), SETUPS)
def test_who_waits_is_held_and_not_asked_about(policy, in_main):
    policy, asked = waiting(policy, in_main=in_main), []

    assert sweep_all(policy, asked.append) == []
    assert (asked, len(policy)) == ([], 1)


@pytest.mark.parametrize(("policy", "in_main"), SETUPS)
def test_who_waited_and_was_refused_then_leaves_later(policy, in_main):
    policy = waiting(policy, in_main=in_main)
    policy.reconsider(*names(1))

    assert sweep_all(policy, nobody) == []
    assert len(policy) == 1
    assert sweep_all(policy) == names(1)
    assert len(policy) == 0


@pytest.mark.parametrize(("policy", "in_main"), SETUPS)
def test_who_waited_may_be_told_to_wait_again(policy, in_main):
    policy = waiting(policy, in_main=in_main)
    policy.reconsider(*names(1))

    assert sweep_all(policy, lambda key: None) == []
    assert sweep_all(policy) == []
    policy.reconsider(*names(1))
    assert sweep_all(policy) == names(1)


@pytest.mark.parametrize(("policy", "in_main"), SETUPS)
def test_who_waits_can_be_removed(policy, in_main):
    policy = waiting(policy, in_main=in_main)

    policy.remove(names(1))
    policy.reconsider(*names(1))

    assert (len(policy), sweep_all(policy)) == (0, [])


@pytest.mark.parametrize(("in_main", "num_uses"), [(False, 2), (True, 1)])
def test_in_s3fifo_a_use_that_decides_ends_the_wait(in_main, num_uses):
    policy = waiting("s3fifo", in_main=in_main)

    for _ in range(num_uses):
        policy.touch(names(1))

    assert sweep_all(policy) == names(1)


def test_in_s3fifo_a_use_that_does_not_decide_leaves_who_waits_on_trial_waiting():
    policy = waiting("s3fifo")

    policy.touch(names(1))

    assert sweep_all(policy) == []


def test_in_s3fifo_who_passed_its_trial_while_it_waited_has_no_uses_in_the_main_queue():
    policy = waiting("s3fifo")
    policy.touch(names(1))
    policy.touch(names(1))
    policy.insert(names(2))

    assert take(policy, 1, lambda key: key == name(1)) == names(1)
    assert len(policy) == 1


def test_in_s3fifo_who_waits_fills_the_main_queue():
    policy = S3FIFO(10)
    policy.insert(names(*range(11, 0, -1)))  # 1 on trial, ten in a main queue for nine
    sweep_all(policy, lambda key: None if key != name(1) else False)

    policy.reconsider(name(2))
    assert take(policy, 1) == names(2)
