"""A tier that cannot keep some blocks: those are lost or refused, the others of their batch are held."""

import pytest
from store_helpers import (
    blank,
    check,
    counters,
    disk_tier,
    fetch,
    keys,
    make_over,
    memory,
    orphans,
    save,
    saved,
    settle,
    tokens,
    where,
)

from kvtier.errors import BlockRefusedError
from kvtier.store import Stored
from kvtier.testing.tiers import FaultyTier


class PickyTier(FaultyTier):
    """A tier that refuses the blocks named, and stores the others of their batch."""

    def __init__(self, inner):
        super().__init__(inner, lambda *_: None)
        self.refused = set()

    def write(self, keys, blocks, labels):
        good = [i for i, key in enumerate(keys) if key not in self.refused]
        super().write([keys[i] for i in good], [blocks[i] for i in good], [labels[i] for i in good])
        if len(good) < len(keys):
            raise BlockRefusedError(self.name, "on purpose", frozenset(keys) & self.refused)


@pytest.fixture
def disk(tmp_path):
    return PickyTier(disk_tier(tmp_path, 16))


@pytest.fixture
def store(disk):
    """Three blocks at rest in host memory, over that disk."""
    with make_over(memory("host", 4), disk) as store:
        yield store


def test_of_a_prompt_that_sinks_the_head_up_to_the_refused_block_is_held(store, disk):
    disk.refused = {keys(store, "abc")[1]}

    saved(store, "abc", "xyz")

    assert where(store, "abc") == ("disk",)
    assert fetch(store, "abc").num_blocks == 1
    check(store)
    assert orphans(store) == []


def test_blocks_of_other_prompts_in_the_same_batch_are_held(store, disk):
    disk.refused = {keys(store, "a")[0]}
    saved(store, "a", "b", "c")

    saved(store, "xyz")

    assert [where(store, word) for word in "abc"] == [(), ("disk",), ("disk",)]
    assert fetch(store, "b").num_blocks == fetch(store, "c").num_blocks == 1
    check(store)


def test_a_refusal_on_the_way_down_is_counted(store, disk):
    disk.refused = set(keys(store, "abc")[2:])

    saved(store, "abc", "xyz")

    assert counters(store)["lost_blocks"] == counters(store)["tier_errors.disk"] == 1


def test_a_block_refused_at_a_flush_stays_where_it_is(store, disk):
    disk.refused = {keys(store, "abc")[1]}
    saved(store, "abc")

    flushed = store.flush()

    assert (flushed.num_blocks, flushed.num_left) == (2, 1)
    assert where(store, "abc") == ("host",) * 3
    check(store)


@pytest.mark.parametrize(("refused", "kept"), [(0, 0), (1, 1), (3, 3)])
def test_a_put_straight_to_a_tier_that_refuses_a_block_keeps_the_head(disk, refused, kept):
    with make_over(disk) as store:
        disk.refused = {keys(store, "abcd")[refused]}

        assert save(store, "abcd") == Stored(num_new=kept, num_refused=4 - kept)

        assert where(store, "abcd") == ("disk",) * kept
        assert fetch(store, "abcd").num_blocks == kept
        check(store)
        assert orphans(store) == []


def test_a_put_whose_blocks_are_all_taken_is_new_as_a_whole(disk):
    with make_over(disk) as store:
        assert save(store, "abcd") == Stored(num_new=4, num_refused=0)


def test_a_block_once_refused_may_be_taken_later(store, disk):
    disk.refused = {keys(store, "abc")[1]}
    saved(store, "abc", "xyz")
    disk.refused = set()

    saved(store, "abc", "pqr")
    settle(store)

    assert store.get(tokens("abc"), blank(3)).num_blocks == 3
    check(store)
