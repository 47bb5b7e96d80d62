"""An open data file: what is kept back, how much fits, who is waited for, and what happens to it from outside."""

import errno
import os
import shutil
import threading
from contextlib import ExitStack, closing, contextmanager
from types import SimpleNamespace

import pytest
from tier_helpers import BLOCK, data_file, disk, held, place_of, put, raw_flip, whole

from kvtier.errors import CorruptBlockError, TierClosedError, TierFullError, TierUnavailableError
from kvtier.hashing import Namespace
from kvtier.spec import KVSpec
from kvtier.testing.blocks import chain
from kvtier.tiers import growth, layout
from kvtier.tiers import volume as module
from kvtier.tiers.directory import Directory

PAGE = 4096


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tier"


@pytest.fixture
def tier(path):
    with closing(disk(path)) as made:
        yield made


def names(*numbers):
    return chain(*numbers).keys


def slot_bytes(tier):
    return tier._volume.slabs.layout.slot_bytes


def damaged(tier, number):
    """Damage a block, and find it."""
    raw_flip(tier, names(number)[0], PAGE + 10)
    with pytest.raises(CorruptBlockError):
        whole(tier, number)


# Quarantine


def test_the_slot_of_a_damaged_block_is_not_written_again_and_another_takes_its_place(tier):
    put(tier, *range(8))
    bad = place_of(tier, names(3)[0])
    damaged(tier, 3)
    tier.delete(names(3))
    put(tier, 9)

    assert place_of(tier, names(9)[0]) != bad
    assert whole(tier, 0, 1, 2, 4, 5, 6, 7, 9)


def test_a_quarantine_holds_over_a_restart(path):
    with closing(disk(path)) as tier:
        put(tier, *range(8))
        bad = place_of(tier, names(3)[0])
        damaged(tier, 3)
        tier.delete(names(3))

    with closing(disk(path)) as tier:
        tier.delete(names(*range(8)))
        put(tier, *range(10, 18))
        assert bad not in {place_of(tier, name) for name in names(*range(10, 18))}


def test_a_good_block_that_is_dropped_gives_its_slot_back(tier):
    put(tier, *range(8))
    place = place_of(tier, names(3)[0])
    tier.delete(names(3))
    put(tier, 9)

    assert place_of(tier, names(9)[0]) == place


def test_no_more_slots_are_kept_back_than_the_limit(tier, monkeypatch):
    monkeypatch.setattr(module, "_QUARANTINE_LEAST", 2)
    put(tier, *range(8))
    places = [place_of(tier, name) for name in names(*range(8))]
    for number in range(4):
        damaged(tier, number)
        tier.delete(names(number))
    put(tier, 10, 11, 12, 13)

    used = {place_of(tier, name) for name in names(10, 11, 12, 13)}
    assert not used & set(places[:2])
    assert used >= set(places[2:4])


def test_of_a_large_file_a_share_may_be_kept_back(tier, monkeypatch):
    monkeypatch.setattr(module, "_QUARANTINE_LEAST", 0)
    monkeypatch.setattr(module, "_QUARANTINE_SHARE", 4)
    put(tier, *range(8))
    places = [place_of(tier, name) for name in names(*range(8))]
    for number in range(4):
        damaged(tier, number)
        tier.delete(names(number))
    put(tier, 10, 11)

    limit = tier._volume.slots.num // 4
    kept_back = set(places[:limit])
    assert limit >= 1
    assert not {place_of(tier, name) for name in names(10, 11)} & kept_back


def test_a_restart_counts_what_is_kept_back_already(path, monkeypatch):
    monkeypatch.setattr(module, "_QUARANTINE_LEAST", 1)
    with closing(disk(path)) as tier:
        put(tier, *range(8))
        damaged(tier, 3)
        tier.delete(names(3))

    with closing(disk(path)) as tier:
        again = place_of(tier, names(4)[0])
        damaged(tier, 4)
        tier.delete(names(4))
        put(tier, 9)
        assert place_of(tier, names(9)[0]) == again


def test_a_place_that_cannot_be_written_is_left_for_another(tier, monkeypatch):
    put(tier, 1)
    slabs = tier._volume.slabs
    write, bad = slabs.write, []

    def refuse_one_place(slot, parts):
        bad.append(slot) if not bad else None
        if slot in bad:
            raise OSError(errno.EIO, "Input/output error")
        write(slot, parts)

    monkeypatch.setattr(slabs, "write", refuse_one_place)
    with pytest.raises(TierUnavailableError):
        put(tier, 2)
    put(tier, 2)

    assert place_of(tier, names(2)[0]) not in bad
    assert whole(tier, 1, 2)


def test_a_suspect_that_is_not_held_any_more_is_forgotten(tier):
    put(tier, 1)
    tier.delete(names(1))
    tier._volume.suspect(names(1)[0], "why")
    put(tier, 1)
    place = place_of(tier, names(1)[0])
    tier.delete(names(1))
    put(tier, 2)

    assert place_of(tier, names(2)[0]) == place


# Room


@contextmanager
def no_growth(tier):
    growth = tier._volume._growth
    growth._min_free_bytes = 1 << 60
    yield
    growth._min_free_bytes = 0


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until a test moves it."""
    now = SimpleNamespace(s=1000.0)
    monkeypatch.setattr(growth, "time", SimpleNamespace(monotonic=lambda: now.s))
    return now


def test_a_file_that_cannot_grow_has_the_room_that_it_has(path, monkeypatch, clock):
    monkeypatch.setattr(layout, "SLAB_BYTES", 1 << 19)  # of four blocks
    with closing(disk(path, 64, 100_000)) as tier:
        put(tier, 1)
        assert (tier._volume.slabs.num_slots, tier._volume.room_blocks) == (4, 64)
        with no_growth(tier):
            with pytest.raises(TierFullError, match="must stay free; nothing was written"):
                put(tier, *range(5))

            assert tier._volume.room_blocks == 4
            assert "must stay free" in tier.hindrance
            news = tier.news()
            assert (news.room_blocks, news.added, news.listing) == (4, [], None)
            assert tier.news() is None
            clock.s += growth.NO_GROWTH_S
            assert tier._volume.room_blocks == 4, "there is no more space than before"
        assert tier._volume.room_blocks == 4, "not looked at for a while"

        clock.s += growth.NO_GROWTH_S
        assert (tier._volume.room_blocks, tier.hindrance) == (64, None)
        assert tier.news().room_blocks == 64, "told although nothing was written"
        put(tier, *range(5))
        assert held(tier) == [0, 1, 2, 3, 4]


def test_of_a_tier_just_opened_there_is_no_news(tier):
    assert tier.news() is None


def test_a_file_that_has_space_and_does_not_grow_is_tried_ever_more_rarely(tier, monkeypatch, clock):
    put(tier, 1)
    grow = tier._volume._growth

    def refuse():
        raise TierUnavailableError("nvme", "over quota")

    with monkeypatch.context() as patched:
        patched.setattr(grow._slabs, "grow", refuse)
        waits = []
        for _ in range(9):
            with pytest.raises(TierUnavailableError):
                grow.add(1)
            assert grow.hindrance == "over quota"
            begin = clock.s
            while grow.hindrance is not None:
                clock.s += growth.NO_GROWTH_S
            waits.append((clock.s - begin) / growth.NO_GROWTH_S)
        assert waits == [1, 2, 4, 8, 16, 32, 64, 64, 64]

    grow.add(1)
    with monkeypatch.context() as patched:
        patched.setattr(grow._slabs, "grow", refuse)
        with pytest.raises(TierUnavailableError):
            grow.add(1)
    clock.s += growth.NO_GROWTH_S
    assert grow.hindrance is None, "the first wait is as short as ever"
    with monkeypatch.context() as patched:
        patched.setattr(grow._slabs, "grow", refuse)
        with pytest.raises(TierUnavailableError):
            grow.add(1)
    assert grow.hindrance == "over quota"
    grow.add(1)
    assert grow.hindrance is None, "it has grown"


def test_room_is_never_more_than_the_capacity_and_leaves_out_what_is_kept_back(path, monkeypatch, clock):
    monkeypatch.setattr(layout, "SLAB_BYTES", 1 << 19)  # of four blocks
    with closing(disk(path, 7, 100_000)) as tier:
        put(tier, *range(7))
        rooms = []
        for number in range(3):
            with no_growth(tier), pytest.raises(TierFullError):
                tier._volume._grow(1)
            rooms.append(tier._volume.room_blocks)
            damaged(tier, number)
            tier.delete(names(number))

        assert (tier._volume.slabs.num_slots, rooms) == (8, [7, 7, 6])
        assert tier._volume.room_blocks == 5


# Readers


@contextmanager
def snapshot(tier):
    """A reader that looks at what there is now."""
    with tier._volume.env.reading():
        yield


def test_a_writer_gives_up_on_a_reader_that_stays(tier, monkeypatch):
    monkeypatch.setattr(module, "READER_PATIENCE_S", 0.05)
    put(tier, *range(8))
    with in_thread(tier):
        tier.delete(names(*range(8)))
        with pytest.raises(TierUnavailableError, match=r"have held up the reuse of dropped blocks for 0\.05 s"):
            put(tier, *range(10, 10 + tier._volume.slabs.num_slots))

    assert held(tier) == []


def test_a_writer_waits_for_a_reader_that_ends(tier, monkeypatch):
    monkeypatch.setattr(module, "READER_PATIENCE_S", 60.0)
    put(tier, *range(8))
    asked = threading.Event()
    forget = tier._volume.env.forget_dead_readers
    monkeypatch.setattr(tier._volume.env, "forget_dead_readers", lambda: (asked.set(), forget())[1])
    with ExitStack() as readers:
        readers.enter_context(in_thread(tier))
        tier.delete(names(*range(8)))
        writer = threading.Thread(target=put, args=(tier, *range(10, 18)))
        writer.start()
        assert asked.wait(30)
        assert held(tier) == []
    writer.join(30)

    assert whole(tier, *range(10, 18))


@contextmanager
def in_thread(tier):
    """A reader in a thread of its own, since LMDB has one for each thread."""
    begun, end = threading.Event(), threading.Event()

    def read():
        with snapshot(tier):
            begun.set()
            assert end.wait(60)

    thread = threading.Thread(target=read)
    thread.start()
    assert begun.wait(30)
    try:
        yield
    finally:
        end.set()
        thread.join(30)


# What others do to the file


def test_a_file_that_nobody_touched_is_no_trouble(tier):
    put(tier, 1)

    assert tier._volume.trouble() is None


def test_a_file_that_was_removed_is_trouble(tier):
    put(tier, 1)
    tier._volume.env.data.unlink()

    assert "was removed while it was open" in tier._volume.trouble()


def test_a_file_that_was_cut_is_trouble(tier):
    put(tier, 1)
    os.truncate(tier._volume.env.data, 5 * PAGE)

    assert f"was cut to {5 * PAGE} bytes while it was open" in tier._volume.trouble()


def touch(tier):
    """Make sure that a write shows in the file's time, however coarse the clock."""
    os.utime(tier._volume.env.data, ns=(0, tier._volume._stamp + 1))


def damage_trees(tier):
    """Make every leaf page a page of another kind, behind kvtier's back."""
    last = tier._volume.env.last_page
    with data_file(tier) as file:
        for number in range(2, last + 1):
            file.seek(number * PAGE)
            head = file.read(16)
            if int.from_bytes(head[:8], "little") == number and head[10] == 0x02:
                file.seek(number * PAGE + 10)
                file.write(b"\x07")
    touch(tier)


def test_damage_of_a_page_of_lmdbs_is_trouble(tier):
    put(tier, 1)
    damage_trees(tier)

    assert "was damaged while it was open: tree" in tier._volume.trouble()


def test_damage_of_a_record_is_no_trouble_and_found_when_it_is_read(tier):
    put(tier, 1, 2)
    raw_flip(tier, names(1)[0], PAGE + 10)
    touch(tier)

    assert tier._volume.trouble() is None
    assert whole(tier, 2)
    with pytest.raises(CorruptBlockError, match="checksum"):
        whole(tier, 1)


def test_a_change_is_looked_at_once(tier, monkeypatch):
    put(tier, 1)
    looks = []
    look = module.structural_problem
    monkeypatch.setattr(module, "structural_problem", lambda data: (looks.append(data), look(data))[1])
    touch(tier)
    for _ in range(3):
        assert tier._volume.trouble() is None

    assert len(looks) == 1


@pytest.mark.parametrize("change", [put, lambda tier, number: tier.delete(names(1)), lambda tier, _: tier.flush()])
def test_own_writes_are_not_looked_at(tier, monkeypatch, change):
    put(tier, 1)
    monkeypatch.setattr(module, "structural_problem", lambda data: pytest.fail("looked at its own write"))
    for _ in range(3):
        change(tier, 2)
        assert tier._volume.trouble() is None


def test_a_write_that_ends_while_somebody_is_about_to_look_is_not_looked_at(tier, monkeypatch):
    put(tier, 1)
    monkeypatch.setattr(module, "structural_problem", lambda data: pytest.fail("looked at its own write"))
    volume = tier._volume
    enter = volume.env.try_writing

    def enter_when_the_other_is_done():
        volume._stamp = volume.env.directory.state().st_mtime_ns
        return enter()

    touch(tier)
    monkeypatch.setattr(volume.env, "try_writing", enter_when_the_other_is_done)

    assert volume.trouble() is None


def test_while_this_process_writes_nobody_looks(tier, monkeypatch):
    put(tier, 1)
    monkeypatch.setattr(module, "structural_problem", lambda data: pytest.fail("looked at what is being written"))
    with in_writing(tier):
        touch(tier)
        assert tier._volume.trouble() is None


def test_while_another_has_the_file_open_its_writes_are_not_looked_at(tier, path, monkeypatch):
    put(tier, 1)
    other = Directory("other", path)
    with other.opening():
        other.enter()
    with monkeypatch.context() as patched:
        patched.setattr(module, "structural_problem", lambda data: pytest.fail("looked at what another writes"))
        touch(tier)
        assert tier._volume.trouble() is None
    other.leave()

    damage_trees(tier)
    assert "was damaged" in tier._volume.trouble()


def test_after_looking_others_may_write(tier):
    put(tier, 1)
    touch(tier)
    tier._volume.trouble()
    writer = threading.Thread(target=put, args=(tier, 2), daemon=True)
    writer.start()
    writer.join(10)

    assert not writer.is_alive()


@contextmanager
def in_writing(tier):
    """Another thread writes."""
    begun, end = threading.Event(), threading.Event()

    def write():
        with tier._volume.env.writing():
            begun.set()
            assert end.wait(60)

    thread = threading.Thread(target=write)
    thread.start()
    assert begun.wait(30)
    try:
        yield
    finally:
        end.set()
        thread.join(30)


# Opened anew


def refused(tier, match):
    """The call that notices is refused."""
    with pytest.raises(TierUnavailableError, match=match):
        whole(tier, 1)
    assert match in tier.hindrance


def test_a_removed_directory_is_made_anew_and_works_again(tier, path):
    put(tier, 1, 2)
    shutil.rmtree(path)
    refused(tier, "was removed while it was open")

    assert held(tier) == []
    assert tier.hindrance is None
    put(tier, 3)
    assert whole(tier, 3)


@pytest.mark.parametrize("size", [0, PAGE, 5 * PAGE])
def test_a_file_cut_under_the_tier_is_set_aside_and_the_tier_works_again(tier, path, size):
    put(tier, 1, 2)
    os.truncate(path / "data.mdb", size)
    refused(tier, "was cut to")

    assert held(tier) == []
    put(tier, 3)
    assert (whole(tier, 3), (path / "data.mdb.damaged").exists()) == (True, size > 0)


def test_a_damaged_tree_under_the_tier_is_set_aside_and_the_tier_works_again(tier, path):
    put(tier, 1, 2)
    damage_trees(tier)
    refused(tier, "was damaged while it was open")

    put(tier, 3)
    assert (held(tier), (path / "data.mdb.damaged").exists()) == ([3], True)


def test_after_a_tier_was_opened_anew_the_store_is_told_what_is_there(tier, path):
    put(tier, 1, 2)
    shutil.rmtree(path)
    refused(tier, "was removed")
    put(tier, 3)

    news = tier.news()
    assert ([key for key, _ in news.listing], news.anew) == (names(3), True)
    assert tier.news() is None


def test_a_file_opened_anew_is_told_of_once_also_where_telling_failed_at_first(tier, path, monkeypatch):
    put(tier, 1)
    shutil.rmtree(path)
    refused(tier, "was removed")
    put(tier, 3)
    with monkeypatch.context() as patched:
        patched.setattr(tier._volume, "listing", lambda: (_ for _ in ()).throw(TierUnavailableError("nvme", "no")))
        with pytest.raises(TierUnavailableError):
            tier.news()

    assert tier.news().anew
    tier._told.everything = False
    assert not tier.news().anew


def test_a_namespace_is_noted_again_where_a_tier_was_opened_anew(tier, path):
    mine, other = (
        Namespace(spec=KVSpec(layers=1, kv_heads=1, head_dim=8, dtype="float32"), weights=name) for name in "ab"
    )
    tier.introduce(mine)
    put(tier, 1)
    shutil.rmtree(path)
    refused(tier, "was removed")

    assert [each.root for each in tier.introduce(other)] == [mine.root]


def test_after_a_delete_that_failed_the_store_is_told_what_is_there(tier, monkeypatch):
    put(tier, 1, 2)
    with monkeypatch.context() as patched:
        patched.setattr(tier._volume.env, "change", lambda: (_ for _ in ()).throw(TierUnavailableError("nvme", "no")))
        with pytest.raises(TierUnavailableError):
            tier.delete(names(1))

    assert {key for key, _ in tier.news().listing} == set(names(1, 2))


def test_a_tier_that_cannot_be_opened_anew_says_so_until_it_can(tier, path):
    put(tier, 1)
    assert tier.used_bytes == BLOCK
    shutil.rmtree(path)
    path.write_text("in the way")
    refused(tier, "was removed")
    for _ in range(2):
        with pytest.raises(TierUnavailableError, match=r"opening it anew failed: .* is a file"):
            whole(tier, 1)
    assert tier.used_bytes == BLOCK, "what was known last"

    path.unlink()
    put(tier, 2)
    assert (whole(tier, 2), tier.used_bytes) == (True, BLOCK)


def test_a_broken_tier_can_be_closed(path):
    tier = disk(path)
    put(tier, 1)
    shutil.rmtree(path)
    refused(tier, "was removed")
    tier.close()
    tier.close()

    with pytest.raises(TierClosedError):
        whole(tier, 1)
    assert not path.exists()
