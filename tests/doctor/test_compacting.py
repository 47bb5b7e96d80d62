"""A compacted store holds what it held, in less space; a kill leaves the old file or the new one."""

import contextlib
import os
import subprocess
from pathlib import Path

import pytest
from doctor_helpers import (
    BLOCK,
    LONG,
    NAMES,
    OTHER,
    PAGE,
    SIDE,
    SLOT,
    all_held,
    destroy_trees,
    entry_of,
    fill,
    flip,
    held,
    names_of,
    opened,
    place_of,
    prompt,
    raw,
)
from tier_helpers import python

from kvtier.doctor.checking import check
from kvtier.doctor.compacting import compact
from kvtier.doctor.inspecting import inspect
from kvtier.errors import ConfigError, TierFullError, TierUnavailableError
from kvtier.tiers import layout
from kvtier.tiers.disk import LMDBTier

ALL = (LONG, SIDE, OTHER)


def counts(store):
    return all_held(store, *ALL)


def test_a_compacted_store_gives_every_block_back(store):
    done = compact(store)

    assert (done.blocks, done.damaged, done.orphans) == (11, 0, 0)
    assert counts(store) == [5, 4, 3]
    assert check(store).findings == []


def test_a_file_of_many_slabs_shrinks_to_those_it_needs(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "SLAB_BYTES", 4 * SLOT)
    store = fill(tmp_path / "roomy", *ALL, prompt("long ago", blocks=40))
    sizes = {"capacity_bytes": 64 * BLOCK, "block_bytes": BLOCK, "block_tokens": 16}
    with contextlib.closing(LMDBTier("disk", store, **sizes)) as tier:
        tier.delete(names_of(prompt("long ago", blocks=40))[::-1])
    assert inspect(store).slots == 52

    done = compact(store)

    assert inspect(store).slots == 12
    assert done.bytes_before - done.bytes_after >= 10 * 4 * SLOT
    assert counts(store) == [5, 4, 3]


def test_records_lie_side_by_side_from_the_first_slot_on(store):
    for name in names_of(OTHER):  # make gaps
        flip(store, place_of(store, name) + PAGE)
    check(store, repair=True)

    compact(store)

    assert sorted(int(entry_of(store, name)[0]["slot"]) for name in {*names_of(LONG), *names_of(SIDE)}) == list(
        range(8)
    )


def test_bytes_before_and_after_are_those_of_the_file_system(store):
    before = (store / "data.mdb").stat().st_blocks * 512

    done = compact(store)

    assert done.bytes_before == before
    assert done.bytes_after == (store / "data.mdb").stat().st_blocks * 512


def ages_of(store, name):
    head, _ = entry_of(store, name)
    return int(head["batch"]), int(head["time"])


def test_age_survives(store):
    before = {name: ages_of(store, name) for tokens in ALL for name in names_of(tokens)}

    compact(store)

    assert {name: ages_of(store, name) for name in before} == before


def test_the_capacity_and_what_is_known_of_namespaces_survive(store):
    before = inspect(store)

    compact(store)

    after = inspect(store)
    assert (after.capacity_blocks, after.spaces) == (before.capacity_blocks, before.spaces)
    assert after.spaces[0].about == NAMES.record()


def test_no_slab_has_to_be_searched_for_at_the_next_opening(store):
    compact(store)

    with raw(store) as env, env.begin() as txn:
        places = dict(txn.cursor(env.open_db(b"places", txn=txn, create=False)))
    assert len(places) == 1
    assert all(int.from_bytes(value[:8], "little") > 0 for value in places.values())


def test_blocks_stored_after_a_compact_are_younger_than_those_before(store):
    compact(store)
    fill(store, prompt("later"))

    oldest = max(int(entry_of(store, name)[0]["batch"]) for tokens in ALL for name in names_of(tokens))
    assert int(entry_of(store, names_of(prompt("later"))[0])[0]["batch"]) > oldest


def test_a_compacted_store_grows_again(store):
    compact(store)

    fill(store, prompt("c", blocks=40))

    assert held(store, prompt("c", blocks=40)) == 40
    assert check(store).findings == []


def test_damaged_blocks_and_what_hangs_on_them_are_left_out_and_told(store):
    flip(store, place_of(store, names_of(LONG)[2]) + PAGE)

    done = compact(store)

    assert (done.blocks, done.damaged, done.orphans) == (8, 1, 2)
    assert counts(store) == [2, 4, 3]
    assert check(store).findings == []


def test_an_empty_store_can_be_compacted(tmp_path):
    assert compact(fill(tmp_path / "empty")).blocks == 0
    assert check(tmp_path / "empty").findings == []


def test_a_damaged_structure_is_refused_and_left_alone(store):
    destroy_trees(store)
    before = (store / "data.mdb").read_bytes()

    with pytest.raises(TierUnavailableError, match="check --repair"):
        compact(store)

    assert (store / "data.mdb").read_bytes() == before


def test_a_store_in_use_is_refused(store):
    with opened(store), pytest.raises(ConfigError, match=f"in use by process {os.getpid()}"):
        compact(store)


def test_without_room_for_the_new_file_the_old_one_stays(store, monkeypatch):
    monkeypatch.setattr(
        "kvtier.doctor.rebuilding.os.statvfs", lambda path: type("Stat", (), {"f_bavail": 2, "f_frsize": BLOCK})
    )

    with pytest.raises(TierFullError, match="beside the old one"):
        compact(store)

    assert sorted(file.name for file in store.iterdir() if file.is_dir()) == []
    monkeypatch.undo()
    assert counts(store) == [5, 4, 3]


def test_a_disk_that_refuses_leaves_the_old_file(store, monkeypatch):
    from kvtier.tiers.slabs import Slabs

    def refuse(self, slot, parts):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Slabs, "write", refuse)

    with pytest.raises(TierUnavailableError, match="Input/output error"):
        compact(store)

    monkeypatch.undo()
    assert not (store / "kvtier.rebuilt").exists()
    assert counts(store) == [5, 4, 3]


def test_a_link_where_the_new_file_would_be_made_is_not_followed(store, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("kept")
    (store / "kvtier.rebuilt").symlink_to(tmp_path / "precious")

    with pytest.raises(Exception, match="not a directory of kvtier's"):
        compact(store)

    assert (tmp_path / "precious" / "file").read_text() == "kept"


# Killed


def killed(verb, store, copies):
    """Copies of a store after a kill at each step, the number of the step first."""
    copies.mkdir()
    script = Path(__file__).with_name("kill_at_steps.py")
    done = subprocess.run(**python(script, verb, store, copies, stderr=subprocess.PIPE), check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return sorted(copies.iterdir(), key=lambda copy: int(copy.name))


def test_a_compact_killed_at_any_step_leaves_a_store_that_opens_with_every_block(tmp_path):
    store = fill(tmp_path / "store", OTHER)

    copies = killed("compact", store, tmp_path / "copies")

    left = []
    for copy in copies:
        assert all_held(copy, OTHER) == [3], f"killed at step {copy.name}"
        report = check(copy, repair=True)
        assert set(report.counts) <= {"left over"}
        left.append(bool(report.counts))
    assert len(copies) > 15
    assert sum(left) > 10
    assert not left[-1], "the last one was not killed"


def test_a_repair_killed_at_any_step_can_be_done_again(tmp_path):
    store = fill(tmp_path / "store", OTHER)
    destroy_trees(store)

    copies = killed("check", store, tmp_path / "copies")

    assert len(copies) > 15
    for copy in copies:
        check(copy, repair=True)
        assert all_held(copy, OTHER) == [3], f"killed at step {copy.name}"
