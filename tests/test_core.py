"""A core over tiers that change by themselves and fail on demand; what it tells its placement, and when."""

import threading
from types import SimpleNamespace

import pytest
from core_helpers import carry_out, chain, entries, key, keys, put, show, tiers, used

from kvtier.core import Core
from kvtier.errors import BlockRefusedError, TierClosedError, TierFullError, TierUnavailableError
from kvtier.health import FIRST_WAIT_S
from kvtier.listing import Listing
from kvtier.placement import Placement, TierRules
from kvtier.policy.lru import LRU
from kvtier.tiers.base import News, SharedTier


class Shared:
    """A tier whose news are what a test says; it holds nothing."""

    durable, any_device, shared, block_bytes, capacity_bytes, used_bytes = True, False, True, 1, 8, 3

    def __init__(self, name):
        self.name = name
        self.hindrance = None
        self.next = []
        """What the next calls of ``news`` give or raise."""
        self.num_asked = 0

    def news(self):
        self.num_asked += 1
        told = self.next.pop(0) if self.next else None
        if isinstance(told, Exception):
            raise told
        return told

    def introduce(self, namespace):
        return []

    def _unused(self, *_):
        raise AssertionError

    contains = read = write = delete = scan = flush = close = _unused


class Memory:
    """A tier that changes only by what this process does."""

    durable, any_device, block_bytes, capacity_bytes, used_bytes = False, False, 1, 8, 0

    def __init__(self, name):
        self.name = name


def broken(reason="it is gone"):
    return TierUnavailableError("disk", reason)


@pytest.fixture
def disk():
    return Shared("disk")


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until a test moves it."""
    now = SimpleNamespace(s=1000.0)
    monkeypatch.setattr("kvtier.core.time", SimpleNamespace(monotonic=lambda: now.s))
    return now


def core_over(*asked, set_aside_blocks=0):
    rules = [TierRules(8, LRU(), durable=tier.durable) for tier in asked]
    return Core(asked, Placement(rules), set_aside_blocks=set_aside_blocks)


@pytest.fixture
def core(disk):
    return core_over(Memory("host"), disk)


def state(core, name="disk"):
    return core.report()["tiers"][name]["state"]


# News


def test_the_fake_is_a_shared_tier_and_memory_is_none(disk):
    assert isinstance(disk, SharedTier)
    assert not isinstance(Memory("host"), SharedTier)


def test_without_news_nothing_changes(core, disk):
    assert core.follow() == []
    assert (disk.num_asked, used(core.placement)) == (1, [0, 0])


def test_blocks_that_others_brought_are_served(core, disk):
    disk.next = [News(entries("a", "ab"), (), None, 8)]

    assert core.follow() == []
    assert tiers(core.placement, "ab") == [1, 1]


def test_blocks_that_others_took_away_are_not_served_any_more(core, disk):
    put(core.placement, "abc")
    disk.next = [News(entries("a", "ab", "abc"), (), None, 8), News((), keys("abc")[1:], None, 8)]
    core.follow()
    carry_out(core.placement, core.placement.forget(key("ab"), 0))

    moves = core.follow()
    assert show(moves) == ["abc:0>-"]
    assert tiers(core.placement, "abc") == [0]


def test_a_listing_takes_the_place_of_what_was_known(core, disk):
    disk.next = [News(entries("a", "b"), (), None, 8), News((), (), Listing.of(entries("b", "c")), 8)]
    core.follow()
    core.follow()

    assert [tiers(core.placement, word) for word in "abc"] == [[], [1], [1]]
    assert used(core.placement) == [0, 2]


def test_a_name_that_is_dropped_and_added_in_one_news_is_held(core, disk):
    disk.next = [News(entries("a"), (), None, 8), News(entries("a"), keys("a"), None, 8)]
    core.follow()
    core.follow()

    assert tiers(core.placement, "a") == [1]


def test_room_that_shrinks_is_room_that_is_not_planned_with(core, disk):
    disk.next = [News(entries("a", "b"), (), None, 2)]
    core.follow()

    assert core.placement.free_blocks(1) == 0


def test_room_that_is_less_than_nothing_is_none():
    disk = Shared("disk")
    core = core_over(disk, set_aside_blocks=3)
    disk.next = [News((), (), None, 2)]
    core.follow()

    assert core.placement.plan_write(chain("a")) == []


def test_places_set_aside_in_the_first_tier_stay_set_aside():
    disk = Shared("disk")
    core = core_over(disk, set_aside_blocks=3)
    disk.next = [News((), (), None, 8)]
    core.follow()

    assert core.placement.free_blocks(0) == 5


def test_nothing_is_set_aside_in_tiers_behind_the_first(disk):
    core = core_over(Memory("host"), disk, set_aside_blocks=3)
    disk.next = [News((), (), None, 8)]
    core.follow()

    assert core.placement.free_blocks(1) == 8


def test_while_one_thread_follows_others_do_not_wait_for_it(core, disk):
    inside, go_on = threading.Event(), threading.Event()

    def news():
        inside.set()
        assert go_on.wait(10)

    disk.news = news
    thread = threading.Thread(target=core.follow)
    thread.start()
    assert inside.wait(10)
    disk.news = lambda: pytest.fail("two at once")

    assert core.follow() == []
    go_on.set()
    thread.join(10)


def test_after_an_error_nobody_knows_the_next_one_follows_again(core, disk):
    disk.next = [ZeroDivisionError(), News(entries("a"), (), None, 8)]
    with pytest.raises(ZeroDivisionError):
        core.follow()
    core.follow()

    assert tiers(core.placement, "a") == [1]


@pytest.mark.parametrize(
    "news",
    [
        News(entries("a"), (), None, 8),
        News((), [key("zz")], None, 8),
        News((), (), Listing.of(entries("a")), 8),
    ],
)
def test_who_waits_for_places_is_woken_by_news(core, disk, news):
    woken = threading.Event()

    def wait():
        with core.lock:
            waiting.set()
            if core.lock.wait(10):
                woken.set()

    waiting = threading.Event()
    thread = threading.Thread(target=wait)
    thread.start()
    assert waiting.wait(10)
    with core.lock:  # it waits now, or holds the lock no more
        disk.next = [news]
    core.follow()
    thread.join(10)

    assert woken.is_set()


# Failures


def test_a_tier_whose_news_fail_twice_is_not_asked_for_a_while_and_its_blocks_are_unavailable(core, disk, clock):
    disk.next = [News(entries("a"), (), None, 8), broken(), broken()]
    for _ in range(5):
        core.follow()

    assert disk.num_asked == 3
    assert core.placement.match(keys("a")).stopped_by == "unavailable"
    assert state(core) == "degraded: cannot read: it is gone"

    clock.s += FIRST_WAIT_S
    core.follow()
    assert disk.num_asked == 4
    assert (tiers(core.placement, "a"), state(core)) == ([1], "ok")


def test_a_first_failure_keeps_nobody_from_asking_again(core, disk, clock):
    disk.next = [News(entries("a"), (), None, 8), broken()]
    for _ in range(2):
        core.follow()

    assert tiers(core.placement, "a") == [1]
    assert state(core) == "degraded: cannot read: it is gone"


def test_a_tier_that_cannot_write_is_read_and_takes_nothing(core, disk, clock):
    disk.next = [News(entries("a"), (), None, 8)]
    core.follow()
    for _ in range(2):
        core.failed(1, broken("no space left"), "write")
    core.follow()

    assert tiers(core.placement, "a") == [1]
    assert state(core) == "degraded: cannot write: no space left"
    put(core.placement, "b")
    assert core.placement.plan_copy_down(keys("b")) == []

    clock.s += FIRST_WAIT_S
    core.follow()
    assert show(core.placement.plan_copy_down(keys("b"))) == ["b:0=1"]
    assert state(core) == "degraded: cannot write: no space left"
    core.worked(1, "write")
    assert state(core) == "ok"


def test_a_tier_is_left_alone_as_soon_as_it_has_failed(core, clock):
    put(core.placement, "b")
    for _ in range(2):
        core.failed(1, broken(), "write")
    assert core.placement.plan_copy_down(keys("b")) == []

    core.worked(1, "write")
    assert show(core.placement.plan_copy_down(keys("b"))) == ["b:0=1"]


def test_both_ways_of_failing_are_named(core, clock):
    core.failed(1, broken("no space left"), "write")
    core.failed(1, broken("no answer"), "read")

    assert state(core) == "degraded: cannot read: no answer; cannot write: no space left"


def test_a_tier_that_recovers_one_way_is_still_looked_after_for_the_other(core, disk, clock):
    for doing in ("read", "read", "write", "write"):
        core.failed(1, broken(), doing)
    core.worked(1, "read")
    clock.s += FIRST_WAIT_S
    core.follow()

    put(core.placement, "b")
    assert show(core.placement.plan_copy_down(keys("b"))) == ["b:0=1"]


@pytest.mark.parametrize(
    "error",
    [TierFullError("disk", "full"), BlockRefusedError("disk", "no", frozenset()), TierClosedError("disk", "closed")],
)
def test_a_tier_that_is_full_or_closed_or_refuses_blocks_is_not_degraded(core, clock, error):
    for _ in range(3):
        core.failed(1, error, "write")

    assert state(core) == "ok"
    assert core.report()["counters"]["tier_errors.disk"] == 3


def test_each_failure_is_counted_and_the_first_and_the_recovery_are_logged(core, clock, caplog):
    for _ in range(3):
        core.failed(1, broken(), "write")
    for _ in range(2):
        core.worked(1, "write")

    assert core.report()["counters"]["tier_errors.disk"] == 3
    assert caplog.messages == ["disk: degraded, it cannot write: it is gone", "disk: recovered, it can write again"]


def test_what_hinders_a_tier_is_its_state_unless_it_fails(core, disk, clock):
    assert state(core) == "ok"
    disk.hindrance = "the file cannot grow"
    assert state(core) == "degraded: the file cannot grow"

    core.failed(1, broken(), "read")
    assert state(core) == "degraded: cannot read: it is gone"
    assert state(core, "host") == "ok"
