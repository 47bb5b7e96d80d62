"""Blocks asleep behave like nodes: a restart in columns decides what a restart block by block decides."""

import pytest
from core_helpers import carry_out, chain, entries, key, keys, label, make, put, show, tiers, used
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from test_placement_machine import WORDS, prompts

from kvtier.hashing import Label
from kvtier.listing import Listing

picks = st.integers(0, 30)


def restarted(*words, capacities=(2, 6), durable=(1,)):
    """A placement whose last tier was restored from columns, and the drops that followed."""
    placement = make(*capacities, durable=durable)
    return placement, placement.restore(len(capacities) - 1, Listing.of(entries(*words)))


def awake(placement):
    return sorted(node.key.decode().rstrip(".") for node in placement.index.nodes.values())


# What wakes a block, and what does not


def test_a_restart_makes_no_nodes():
    placement, follow = restarted("a", "ab", "b")

    assert (follow, awake(placement), used(placement)) == ([], [], [0, 3])


def test_asking_wakes_nobody():
    placement, _ = restarted("a", "ab", "b")

    assert tiers(placement, "abc") == [1, 1]
    assert placement.match(keys("abc")).stopped_by == "not_held"
    assert awake(placement) == []


def test_a_touch_wakes_nobody():
    placement, _ = restarted("a", "ab", "b")

    placement.touch(keys("ab"))

    assert awake(placement) == []


def test_a_lease_wakes_what_it_holds():
    placement, _ = restarted("a", "ab", "abc", "b")

    lease = placement.lease(keys("ab"), "me", 1.0)

    assert awake(placement) == ["a", "ab"]
    assert [node.leases for node in lease.nodes] == [1, 1]
    placement.check()


def test_a_block_wakes_after_its_ancestors():
    placement, _ = restarted("a", "ab", "abc", "b")

    node = placement.index[key("abc")]

    assert (node.key, node.parent.key, node.parent.parent.key) == (key("abc"), key("ab"), key("a"))
    assert node.label == label("abc")
    assert awake(placement) == ["a", "ab", "abc"]
    placement.check()


def test_a_parent_of_sleepers_is_no_leaf():
    placement, _ = restarted("a", "ab", "ac")

    assert not placement.index[key("a")].is_leaf
    assert not placement.index[key("ab")].parent.is_leaf
    assert placement.index[key("ac")].is_leaf
    assert placement.index[key("a")].asleep == 0


def test_a_name_that_was_never_listed_has_no_node():
    placement, _ = restarted("a")

    assert placement.index.get(key("b")) is None
    with pytest.raises(KeyError):
        placement.index[key("b")]


def test_a_block_that_left_is_not_asleep_again():
    placement, _ = restarted("a", "b")

    carry_out(placement, placement.forget(key("a"), 1))

    assert (tiers(placement, "a"), tiers(placement, "b"), used(placement)) == ([], [1], [0, 1])


def test_damage_takes_descendants_along_that_are_asleep():
    placement, _ = restarted("a", "ab", "abc", "abd", "ax", "b")

    follow = placement.forget(key("ab"), 1)

    assert sorted(show(follow)) == ["ab:1>-", "abc:1>-", "abd:1>-"]
    carry_out(placement, follow)
    assert awake(placement) == ["a"]
    assert tiers(placement, "ax") == [1, 1]


def test_damage_takes_descendants_along_of_which_some_are_awake():
    placement, _ = restarted("a", "ab", "abc", "ad")
    placement.lease(keys("ab"), "me", 1.0)

    assert sorted(show(placement.forget(key("a"), 1))) == ["a:1>-", "ab:1>-", "abc:1>-", "ad:1>-"]


def test_only_leaves_leave_while_others_sleep():
    placement, _ = restarted("a", "ab", "b", capacities=(2, 3))

    put(placement, "x", dst=1)

    assert (tiers(placement, "ab"), tiers(placement, "b")) == ([1], [1])


def test_the_last_block_to_wake_leaves_nothing_behind():
    placement, _ = restarted("a", "ab", "b")

    assert list(placement.index.alive()) != []
    assert placement.index.resting is None
    assert awake(placement) == ["a", "ab", "b"]


def test_blocks_of_the_last_tier_sleep_on_when_the_others_are_copied_down():
    placement, _ = restarted("a", "ab", capacities=(2, 6))
    put(placement, "xy")

    assert show(placement.plan_copy_down()) == ["x:0=1", "xy:0=1"]
    assert awake(placement) == ["x", "xy"]


def test_blocks_asleep_in_another_tier_are_copied_down_too():
    placement = make(2, 6, 6, durable={1, 2})
    placement.restore(1, Listing.of(entries("a", "ab")))

    assert show(placement.plan_copy_down()) == ["a:1=2", "ab:1=2"]


def test_only_the_first_tier_restored_sleeps():
    placement = make(2, 6, 6, durable={1, 2})
    placement.restore(2, Listing.of(entries("a", "ab", "b")))

    assert placement.restore(1, Listing.of(entries("a"))) == []
    assert (awake(placement), tiers(placement, "ab"), used(placement)) == (["a"], [1, 2], [0, 1, 3])


def test_a_second_tier_restored_finds_what_the_first_gave_up():
    placement = make(2, 2, 2, durable={1, 2})
    follow = placement.restore(2, Listing.of(entries("xy")))

    follow += placement.restore(1, Listing.of(entries("x", "xy")))

    carry_out(placement, follow)
    assert (awake(placement), used(placement)) == (["x"], [0, 1, 0])


def test_an_empty_tier_is_restored_and_filled():
    placement, follow = restarted()
    put(placement, "ab", dst=1)

    assert (follow, tiers(placement, "ab"), placement.index.resting) == ([], [1, 1], None)


# Orphans


def test_orphans_and_what_hangs_on_them_are_dropped_parents_first():
    placement, follow = restarted("xyz", "a", "xy", "xyzw", "ab")

    assert show(follow) == ["xy:1>-", "xyz:1>-", "xyzw:1>-"]
    carry_out(placement, follow)
    assert used(placement) == [0, 2]


def test_a_block_no_deeper_than_its_parent_is_an_orphan_either_way():
    listed = [(key("a"), label("a")), (key("ab"), Label(key("a"), 3, b"b")), (key("x"), Label(key("ab"), 3, b"x"))]
    listed += [(key("y"), Label(key("z"), 1, b"y")), (key("z"), Label(key("y"), 1, b"z"))]
    for form in (list, Listing.of):
        placement = make(2, 6)

        follow = placement.restore(1, form(listed))

        assert sorted(show(follow)) == ["x:1>-", "y:1>-", "z:1>-"]


def test_a_first_block_hangs_on_nobody():
    placement = make(2, 6)
    placement.restore(1, Listing.of([(key("a"), label("a")), (key("b"), Label(key("a"), 0, b"b"))]))

    assert placement.index[key("b")].parent is None
    assert awake(placement) == ["b"]
    assert placement.index[key("a")].is_leaf


# The books


def test_the_check_finds_sleepers_that_are_miscounted():
    placement, _ = restarted("a", "ab")
    placement.index[key("a")].asleep = 2

    with pytest.raises(AssertionError, match="children asleep are miscounted"):
        placement.check()


def test_the_check_finds_sleepers_whose_parent_is_dead():
    placement, _ = restarted("a", "ab")
    placement.index[key("a")].dead = True

    with pytest.raises(AssertionError, match="asleep under nobody"):
        placement.check()


class Twins(RuleBasedStateMachine):
    """One placement restored from columns and one block by block, asked and told the same."""

    @initialize(
        capacities=st.tuples(st.integers(1, 4), st.integers(0, 4), st.integers(1, 12)),
        durable=st.sets(st.integers(1, 2)),
        held=st.lists(prompts, max_size=14, unique=True),
        complete=st.booleans(),
        tier=st.integers(0, 2),
    )
    def start(self, capacities, durable, held, complete, tier):
        if complete:
            held = list(dict.fromkeys(text[: i + 1] for text in held for i in range(len(text))))
        listed = entries(*held)
        self.twins = make(*capacities, durable=durable), make(*capacities, durable=durable)
        self.flight, self.leases = [], []
        self.order(*(p.restore(tier, form(listed)) for p, form in zip(self.twins, (Listing.of, list), strict=True)))

    def order(self, one, other):
        """Orders are the same; drops of a whole subtree may come in another order."""
        if all(move.dst is None for move in one + other):
            one, other = sorted(one, key=repr), sorted(other, key=repr)
        assert show(one) == show(other)
        self.flight += one

    def tell(self, ask):
        self.order(*(ask(placement) for placement in self.twins))

    @rule(text=prompts, dst=st.integers(0, 2))
    def write(self, text, dst):
        self.tell(lambda placement: placement.plan_write(chain(text), dst))

    @rule(text=prompts, dst=st.integers(0, 2))
    def promote(self, text, dst):
        self.tell(lambda placement: placement.plan_promote(keys(text), dst))

    @rule(text=st.none() | prompts)
    def copy_down(self, text):
        self.tell(lambda placement: placement.plan_copy_down(None if text is None else keys(text)))

    @rule(text=prompts, tier=st.integers(0, 2))
    def forget(self, text, tier):
        self.tell(lambda placement: placement.forget(key(text), tier))

    @rule(text=prompts)
    def touch(self, text):
        for placement in self.twins:
            placement.touch(keys(text))

    @rule(text=prompts)
    def lease(self, text):
        self.leases.append([(placement, placement.lease(keys(text), "me", 1.0)) for placement in self.twins])

    @precondition(lambda self: self.leases)
    @rule(pick=picks)
    def release(self, pick):
        for placement, lease in self.leases.pop(pick % len(self.leases)):
            placement.release(lease)

    @precondition(lambda self: self.flight)
    @rule(count=st.integers(1, 12), failed=st.booleans())
    def report(self, count, failed):
        moves, self.flight = self.flight[:count], self.flight[count:]
        self.tell(lambda placement: placement.abort(moves) if failed else placement.commit(moves))

    @invariant()
    def they_answer_alike(self):
        one, other = self.twins
        for text in WORDS:
            assert one.match(keys(text)) == other.match(keys(text))
        assert used(one) == used(other)

    @invariant()
    def the_books_balance(self):
        for placement in self.twins:
            placement.check()


TestTwins = Twins.TestCase
TestTwins.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
