"""The forest: walking it changes nothing, and what is given up is gone when its last move is."""

import copy

import pytest
from core_helpers import entries, key, keys, label

from kvtier.index import PrefixIndex
from kvtier.listing import Listing
from kvtier.resting import Resting


def forest(**readable):
    """An index in which each word is held in the tiers of its bit mask."""
    index = PrefixIndex()
    for word in sorted(readable, key=len):
        index.add(key(word), label(word)).tiers = readable[word]
    return index


def test_a_chain_that_is_held_matches_whole():
    match = forest(a=1, ab=1).match(keys("ab"))

    assert (list(match.keys), match.stopped_by) == (keys("ab"), None)


def test_an_empty_chain_matches_nothing_and_is_not_stopped():
    match = forest().match([])

    assert (len(match), match.stopped_by) == (0, None)


def test_a_match_stops_at_a_block_never_seen():
    match = forest(a=1, ab=1).match(keys("abcd"))

    assert (len(match), match.stopped_by) == (2, "not_held")


def test_a_match_stops_at_a_block_in_flight():
    match = forest(a=1, ab=0, abc=1).match(keys("abc"))

    assert (len(match), match.stopped_by) == (1, "in_flight")


def test_a_match_stops_at_a_dead_block_that_still_has_a_move():
    index = forest(a=1, ab=1)
    index.nodes[key("ab")].moves = 1
    index.detach(index.nodes[key("ab")])

    match = index.match(keys("ab"))

    assert (len(match), match.stopped_by) == (1, "not_held")


def test_a_match_does_not_see_past_a_hole():
    assert list(forest(a=1, ab=0, abc=1).match(keys("abc")).keys) == keys("a")


@pytest.mark.parametrize(("mask", "fastest"), [(0b001, 0), (0b010, 1), (0b110, 1), (0b101, 0), (0b100, 2)])
def test_a_match_names_the_fastest_tier(mask, fastest):
    assert list(forest(a=mask).match(keys("a")).tiers) == [fastest]


def test_asking_changes_nothing():
    index = forest(a=1, ab=0b10, abc=0)
    before = {name: (n.tiers, n.doomed, n.moves, n.leases, n.dead) for name, n in index.nodes.items()}

    index.match(keys("abcd"))

    assert {name: (n.tiers, n.doomed, n.moves, n.leases, n.dead) for name, n in index.nodes.items()} == before


def test_a_first_block_has_no_parent():
    assert forest(a=1).nodes[key("a")].parent is None


def test_a_later_block_is_its_parents_child():
    index = forest(a=1, ab=1)

    assert index.nodes[key("a")].children == [index.nodes[key("ab")]]


def test_a_block_without_a_parent_is_not_taken_up():
    with pytest.raises(KeyError):
        forest().add(key("ab"), label("ab"))


def test_a_block_is_not_hung_under_a_dead_parent():
    index = forest(a=1)
    index.nodes[key("a")].moves = 1
    index.detach(index.nodes[key("a")])

    with pytest.raises(AssertionError):
        index.add(key("ab"), label("ab"))


def test_a_subtree_lists_parents_first():
    index = forest(a=1, ab=1, ac=1, abd=1, x=1)

    words = [node.key for node in index.subtree(index.nodes[key("a")])]

    assert words[0] == key("a")
    assert words.index(key("ab")) < words.index(key("abd"))
    assert sorted(words) == sorted([key("a"), key("ab"), key("ac"), key("abd")])


def test_a_detached_block_is_nobodys_child():
    index = forest(a=1, ab=1)

    index.detach(index.nodes[key("ab")])

    assert index.nodes[key("a")].children == []


def test_a_detached_block_without_a_move_is_unlisted():
    index = forest(a=1)

    index.detach(index.nodes[key("a")])

    assert index.nodes == {}


def test_a_detached_block_stays_listed_until_its_move_is_over():
    index = forest(a=1)
    node = index.nodes[key("a")]
    node.moves = 1
    index.detach(node)
    assert key("a") in index.nodes

    node.moves = 0
    index.sweep_out(node)

    assert key("a") not in index.nodes


def test_a_living_block_is_not_swept_out():
    index = forest(a=1)

    index.sweep_out(index.nodes[key("a")])

    assert key("a") in index.nodes


def test_sweeping_out_spares_a_later_block_of_the_same_name():
    index = forest(a=1)
    former = index.nodes[key("a")]
    index.detach(former)
    later = index.add(key("a"), label("a"))

    index.sweep_out(former)

    assert index.nodes[key("a")] is later


def test_the_dead_are_not_among_the_living():
    index = forest(a=1, b=1)
    index.nodes[key("b")].moves = 1
    index.detach(index.nodes[key("b")])

    assert [node.key for node in index.alive()] == [key("a")]


def test_a_lease_holds_the_readable_run_only():
    lease = forest(a=1, ab=1, abc=0).lease(keys("abc"), "me", 1.0)

    assert lease.keys == keys("ab")


def test_a_lease_counts_on_each_of_its_blocks():
    index = forest(a=1, ab=1)
    index.lease(keys("a"), "me", 1.0)

    index.lease(keys("ab"), "you", 1.0)

    assert [index.nodes[key(word)].leases for word in ("a", "ab")] == [2, 1]


def test_a_released_lease_counts_no_more():
    index = forest(a=1)
    lease = index.lease(keys("a"), "me", 1.0)

    index.release(lease)

    assert (index.nodes[key("a")].leases, index.leases, lease.released) == (0, set(), True)


def test_a_second_release_does_nothing():
    index = forest(a=1)
    first, _ = index.lease(keys("a"), "me", 1.0), index.lease(keys("a"), "you", 1.0)
    index.release(first)

    index.release(first)

    assert index.nodes[key("a")].leases == 1


def test_a_lease_outlives_a_block_that_was_given_up():
    index = forest(a=1)
    lease = index.lease(keys("a"), "me", 1.0)
    index.detach(index.nodes[key("a")])

    index.release(lease)

    assert lease.keys == keys("a")


def test_a_lease_expires_at_its_deadline_and_is_named():
    index = forest(a=1)
    late = index.lease(keys("a"), "late", 5.0)
    early = index.lease(keys("a"), "early", 5.1)

    assert [lease.owner for lease in index.expire(5.0)] == ["late"]
    assert (late.released, early.released) == (True, False)


def test_an_expired_lease_counts_no_more():
    index = forest(a=1)
    index.lease(keys("a"), "late", 5.0)

    index.expire(6.0)

    assert index.nodes[key("a")].leases == 0


def test_two_leases_on_the_same_blocks_are_two():
    index = forest(a=1)
    first = index.lease(keys("a"), "me", 1.0)

    second = index.lease(keys("a"), "me", 1.0)

    assert index.leases == {first, second}


def test_the_representation_of_a_lease_does_not_print_the_forest():
    lease = forest(a=1).lease(keys("a"), "me", 1.0)

    assert repr(lease) == "Lease(owner='me', deadline=1.0, released=False)"


def test_a_match_is_a_snapshot():
    index = forest(a=1)
    match = index.match(keys("a"))
    before = copy.copy(match)

    index.detach(index.nodes[key("a")])

    assert match == before


# Leaves


def test_who_becomes_a_leaf_is_told_of_once_its_last_child_is_given_up():
    index, told = forest(a=1, ab=1, ac=1), []
    index.on_leaf = lambda node: told.append(node.key)

    index.detach(index[key("ab")])
    assert told == []
    index.detach(index[key("ac")])
    assert told == [key("a")]
    index.detach(index[key("a")])
    assert told == [key("a")]


def test_children_are_counted():
    index = forest(a=1)
    counts = [index[key("a")].num_children]
    for text in ("ab", "ac", "ad"):
        index.add(key(text), label(text))
        counts.append(index[key("a")].num_children)

    assert counts == [0, 1, 2, 3]


def test_children_asleep_are_counted_too():
    index = PrefixIndex()
    index.rest(Resting(Listing.of(entries("a", "ab", "ac")), 0))
    node = index[key("a")]

    assert (node.num_children, node.is_leaf) == (2, False)
    index[key("ab")]
    assert node.num_children == 2
